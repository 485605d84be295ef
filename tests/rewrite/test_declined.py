"""A rule that declines takes down what passes its node, and nothing else of the region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from gradpass.rules.base import by_op
from tests.models import gradients, save, with_pb


class OneOfThree(tf.Module):
    """Three cuts whose shadows meet in one sum; of one the rule declines."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([[1.0, 2.0, 3.0]], name="a")
        self.b = tf.Variable([1.0, 2.0], name="b")
        self.c = tf.Variable([1.0, 2.0], name="c")

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        looked_up = tf.reduce_sum(tf.gather([1.0, 5.0, 2.0], tf.argmax(self.a, 1)))
        counted = tf.reduce_sum(tf.cast(self.b > 1.5, tf.float32))
        axis = tf.cast(tf.reduce_sum(tf.zeros([1])), tf.int32)
        unknown = tf.reduce_sum(tf.cast(tf.argmax(self.c, axis), tf.float32))
        return {"y": looked_up + counted + unknown}


class TextBeside(tf.Module):
    """Two cuts whose values meet in one float; one of them has no surrogate."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([0.3, 2.0], name="a")
        self.b = tf.Variable([1.0, 2.0], name="b")

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        told = tf.strings.to_number(tf.strings.as_string(self.b))
        return {"y": tf.cast(self.a > 1.0, tf.float32) * tf.square(told)}


class RoundedAndCompared(tf.Module):
    """Two cuts with rules of their own, in one sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([0.3, 2.0], name="a")
        self.b = tf.Variable([1.0, 2.0, 2.0], name="b")

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        return {"y": tf.reduce_sum(tf.round(self.a)) + tf.reduce_sum(tf.cast(self.b > 1.5, tf.float32))}


def test_the_others_of_a_sum_are_served(tmp_path: Path) -> None:
    source = save(OneOfThree(), tmp_path / "m")
    result = repair(read(source))
    assert result.pb is not None
    assert [step.declined for step in result.plan[:2]] == [None, None]
    assert "its input 1 is computed at run time" in (result.plan[2].declined or "")
    assert not result.plan[2].rules and not result.plan[2].nodes_added
    fixed = tf.saved_model.load(str(with_pb(source, tmp_path / "f", result.pb)))
    original = tf.saved_model.load(str(source))
    before, after = (m.signatures["serving_default"]()["y"].numpy() for m in (original, fixed))
    assert before.tobytes() == after.tobytes()
    a, b, c = gradients(fixed.signatures["serving_default"], [fixed.a, fixed.b, fixed.c])
    assert c is None
    for gradient in (a, b):
        assert np.isfinite(gradient).all() and gradient.any()


def test_what_is_promised_leaves_out_what_was_given_up(tmp_path: Path) -> None:
    result = repair(read(save(OneOfThree(), tmp_path / "m")))
    assert result.promised() == {"serving_default": {"a", "b"}}


def test_an_exact_rule_serves_beside_an_estimator_that_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(by_op()["Round"][0]), "kind", "exact")
    result = repair(read(save(RoundedAndCompared(), tmp_path / "m")), exact_only=True)
    assert {step.cut.op: step.declined is None for step in result.plan} == {"Round": True, "Greater": False}
    assert "only exact rules were asked for" in "".join(step.declined or "" for step in result.plan)


def test_what_was_given_up_is_found_where_it_is(tmp_path: Path) -> None:
    """After a partial repair the blame names the op that nobody serves, and not the bridge behind it."""
    source = save(TextBeside(), tmp_path / "m")
    report = gp.fix(source, tmp_path / "f")
    assert report.after is not None
    assert [(d.op, d.starves) for d in report.after.diagnostics] == [("AsString", ["b"])]
    fixed = tf.saved_model.load(str(tmp_path / "f"))
    a, b = gradients(fixed.signatures["serving_default"], [fixed.a, fixed.b])
    assert b is None and a.any()
    again = repair(read(tmp_path / "f"))
    assert again.pb is None and [step.cut.op for step in again.plan] == ["AsString"]


class TwoEntries(tf.Module):
    """Two signatures with cuts of one name, in functions of their own, of which only one can be served."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable([[1.0, 2.0, 3.0]], name="v")

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        return {"y": tf.cast(tf.argmax(self.v, 1), tf.float32)}

    @tf.function(input_signature=[], autograph=False)
    def computed_axis(self) -> dict[str, Any]:
        return {"y": tf.cast(tf.argmax(self.v, tf.cast(tf.reduce_sum(tf.ones([1])), tf.int32)), tf.float32)}


def test_cuts_of_one_name_in_two_entries_are_two_steps(tmp_path: Path) -> None:
    module = TwoEntries()
    signatures = {"serving_default": module.serve, "other": module.computed_axis}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    result = repair(read(tmp_path / "m"), entry="all")
    assert sorted(step.declined is None for step in result.plan) == [False, True]
    assert result.promised() == {"serving_default": {"v"}, "other": set()}


class Written(tf.Module):
    """Severed numbers are fed back, which a surrogate follows, and written into a TensorArray, which none does."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.eye(3) + 0.1, dtype=tf.float32, name="w")

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        def body(i: Any, token: Any, written: Any) -> Any:
            token = tf.argmax(tf.gather(self.w, token), 1, output_type=tf.int32)
            return i + 1, token, written.write(i, token)

        start = (0, tf.constant([0, 2]), tf.TensorArray(tf.int32, 3))
        return {"y": tf.gather([1.0, 2.0, 5.0], tf.while_loop(lambda i, *_: i < 3, body, start)[2].stack())}


def test_a_cut_of_which_the_way_to_the_loss_is_stopped_is_not_served_elsewhere(tmp_path: Path) -> None:
    report = gp.fix(save(Written(), tmp_path / "m"), tmp_path / "f")
    assert report.output is None
    assert ["TensorArray" in (step.declined or "") for step in report.plan] == [True]


class Chosen(tf.Module):
    """Which of two thresholds counts is decided by a third: the predicate is served, the truth values are not."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([0.3, 2.0], name="a")
        self.b = tf.Variable([1.0, 2.0], name="b")

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        chosen = tf.cond(tf.reduce_sum(self.a) > 0, lambda: self.b > 0.5, lambda: self.b < 1.5)
        return {"y": tf.cast(chosen, tf.float32)}


def test_our_own_bridge_is_no_finding(tmp_path: Path) -> None:
    report = gp.fix(save(Chosen(), tmp_path / "m"), tmp_path / "f", cross_check=False)
    assert report.after is not None and report.output is not None
    assert {d.op for d in report.after.diagnostics} == {"Greater", "Less"}
