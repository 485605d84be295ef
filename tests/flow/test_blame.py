"""Blame: one frame for equal activations, ways that say each function once, and counts that hang on data by a shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from gradpass.flow import blame as module
from gradpass.flow.analysis import analyse, follow
from gradpass.flow.verdict import EntryVerdict
from gradpass.flow.ways import Ways
from gradpass.program.model import Model
from gradpass.program.savedmodel import read


class Program(tf.Module):
    """`body(v, w)` of two variables as a signature without inputs."""

    def __init__(self, body: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.v = tf.Variable([1.5, -2.5, 0.5], name="v")
        self.w = tf.Variable([0.5, 1.5, 2.5], name="w")
        self.body = body

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        return {"y": self.body(self.v, self.w)}


def model(path: Path, body: Callable[[Any, Any], Any]) -> Model:
    program = Program(body)
    tf.saved_model.save(program, str(path), signatures={"serving_default": program.serve})
    return read(path)


def chain(depth: int, leaf: Callable[[Any], Any], step: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A function that calls another twice, which calls a third twice, and so on down to the leaf."""
    function = tf.function(leaf, autograph=False)
    spec = tf.TensorSpec([3], tf.float32)
    for _ in range(depth):
        inner = function.get_concrete_function(spec)
        function = tf.function(lambda x, inner=inner: step(inner, x), autograph=False)
    concrete: Callable[[Any], Any] = function.get_concrete_function(spec)
    return concrete


BESIDE = lambda f, x: f(x) + f(2.0 * x)  # noqa: E731
BEHIND = lambda f, x: f(f(x))  # noqa: E731


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[Ways]:
    """The ways that the blame walks."""
    made: list[Ways] = []

    class Counted(Ways):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(module, "Ways", Counted)
    return made


@pytest.mark.parametrize("step", [BESIDE, BEHIND], ids=["beside", "behind"])
@pytest.mark.parametrize("leaf", [tf.round, tf.tanh], ids=["severed in the leaf", "severed at the top"])
def test_equal_activations_share_a_frame(
    tmp_path: Path, leaf: Callable[[Any], Any], step: Callable[[Any, Any], Any], walked: list[Ways]
) -> None:
    depth = 12
    function = chain(depth, leaf, step)
    loaded = model(tmp_path / "m", lambda v, w: tf.round(function(v)) if leaf is tf.tanh else function(v) + w)
    (verdict,) = analyse(loaded)
    frames = walked[0].frames
    functions = {frame.function.name for frame in frames.values()}
    assert len(frames) == len(functions) >= depth
    assert sum(len(frame.cuts) for frame in frames.values()) < 12 * depth
    (cut,) = verdict.cuts
    assert cut.op == "Round"
    assert [verdict.targets[i].name for i in cut.starves] == ["v"]
    assert cut.path[0] == "v"
    assert cut.path[-1] == "y"
    assert "Round" in {name.rpartition("/")[2] for name in cut.path}
    assert len(cut.path) < 12 * depth
    assert len(cut.stack) == (depth + 2 if leaf is tf.round else 1)


def test_calls_whose_results_cost_different_cuts_do_not_share(tmp_path: Path) -> None:
    function = tf.function(tf.tanh, autograph=False).get_concrete_function(tf.TensorSpec([3], tf.float32))
    (verdict,) = analyse(model(tmp_path / "m", lambda v, w: tf.round(function(v)) + tf.floor(tf.sign(function(w)))))
    starved = {cut.op: [verdict.targets[i].name for i in cut.starves] for cut in verdict.cuts}
    assert starved == {"Round": ["v"], "Sign": ["w"], "Floor": ["w"]}


def test_a_repair_sees_every_activation(tmp_path: Path) -> None:
    function = chain(2, tf.round, BESIDE)
    loaded = model(tmp_path / "m", lambda v, w: function(v) + w)
    ((verdict, blame),) = follow(loaded)
    assert blame is not None
    assert len({cut.stack for cut in verdict.cuts}) == len(verdict.cuts) == 4
    assert {tuple(call.name for call in stack) for stack, _, _ in blame.cuts} == {cut.stack for cut in verdict.cuts}


def severed(verdict: EntryVerdict, name: str) -> list[str]:
    """The ops that starve a target."""
    return [cut.op for cut in verdict.cuts if name in [verdict.targets[i].name for i in cut.starves]]


def rows(x: Any) -> Any:
    """How many rows a tensor has, asked at run time."""
    return tf.cast(tf.raw_ops.Shape(input=x)[0], tf.float32)


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        (lambda v, w: rows(tf.where(v > 0)), ["Greater"]),
        (lambda v, w: rows(tf.where(tf.map_fn(lambda e: e * 2.0, v) > 0)), ["Greater"]),
        (lambda v, w: rows(tf.unique(v).y), ["Unique"]),
        (lambda v, w: rows(tf.exp(tf.boolean_mask(w, v > 0))), ["Greater"]),
        (lambda v, w: rows(tf.range(tf.reduce_sum(v))), ["Range"]),
        (lambda v, w: rows(tf.zeros([tf.cast(tf.reduce_sum(v), tf.int32)])), ["Cast"]),
        (lambda v, w: rows(w[: tf.argmax(v)]), ["ArgMax"]),
    ],
    ids=["where", "list", "unique", "mask", "range", "fill", "slice"],
)
def test_a_shape_that_hangs_on_data_is_severed(tmp_path: Path, body: Callable[[Any, Any], Any], ops: list[str]) -> None:
    (verdict,) = analyse(model(tmp_path / "m", body))
    assert severed(verdict, "v") == ops


@pytest.mark.parametrize(
    "body",
    [lambda v: v, tf.exp, lambda v: tf.reshape(v, [3, 1]), lambda v: tf.concat([v, v], 0), tf.sort],
    ids=["value", "exp", "reshape", "concat", "sort"],
)
def test_a_shape_that_is_the_same_for_all_data_is_disconnected(tmp_path: Path, body: Callable[[Any], Any]) -> None:
    (verdict,) = analyse(model(tmp_path / "m", lambda v, w: rows(body(v)) + w))
    assert severed(verdict, "v") == []
    assert [verdict.targets[i].name for i in verdict.disconnected] == ["v"]
