"""The verdict against TensorFlow's own answer on the cases that make it hard, and whom blame names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.flow.verdict import EntryVerdict
from gradpass.program.savedmodel import read
from tests.models import C, V, gradients

Body = Callable[[Any, Any], Any]


class Program(tf.Module):
    """`body(v, w)` of two variables as a signature without inputs."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.v = tf.Variable(V, dtype=tf.float32, name="v")
        self.w = tf.Variable(V * 0.5, dtype=tf.float32, name="w")
        self.body = body

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        result = self.body(self.v, self.w)
        return result if isinstance(result, dict) else {"y": result}


def call(body: Callable[..., Any], *inputs: Any) -> Any:
    return tf.function(body, autograph=False)(*inputs)


def loop(body: Callable[[Any], Any], start: Any, trips: int = 3) -> Any:
    return tf.while_loop(lambda i, _: i < trips, lambda i, s: (i + 1, body(s)), (tf.constant(0), start))[1]


def hue(x: Any) -> Any:
    return tf.reduce_sum(tf.image.adjust_hue(tf.sigmoid(x)[None], 0.1), axis=0)


S = tf.reduce_sum
c = tf.constant(C, tf.float32)

# name -> program, then (state, structure) of v and of w
CASES: dict[str, tuple[Body, tuple[str, str], tuple[str, str]]] = {
    "live": (lambda v, w: S(v * w), ("flows", "flows"), ("flows", "flows")),
    "argmax": (lambda v, w: S(tf.gather(c, tf.argmax(v, 1))) + S(w), ("none", "none"), ("flows", "flows")),
    "sign gives zeros": (lambda v, w: S(tf.sign(v)) + S(w), ("zero", "zero"), ("flows", "flows")),
    "stop_gradient": (lambda v, w: S(tf.stop_gradient(v) * w), ("none", "none"), ("flows", "flows")),
    "loop hides none": (lambda v, w: S(loop(lambda s: s + tf.round(v) * w, tf.zeros([4, 3]))),
                        ("zero", "none"), ("flows", "flows")),
    "a call's unused output": (
        lambda v, w: S(call(lambda a, b: (tf.round(a) * b, a * b), v, w)[0]), ("zero", "none"), ("flows", "flows")),
    "a call keeps none": (
        lambda v, w: S(call(lambda a, b: tf.round(a) * b, v, w)), ("none", "none"), ("flows", "flows")),
    "one branch only": (
        lambda v, w: tf.cond(S(w) > 0, lambda: S(v * 2), lambda: tf.constant(0.0)), ("flows", "flows"), ("none",
        "none")),
    "severed in both branches": (
        lambda v, w: tf.cond(S(w) > 1e9, lambda: S(tf.round(v)) + S(w), lambda: S(w)), ("none", "none"), ("flows",
        "flows")),
    "only the predicate": (
        lambda v, w: tf.cond(S(v) > 0, lambda: S(w), lambda: 2 * S(w)), ("none", "none"), ("flows", "flows")),
    "unregistered in a call raises for all": (
        lambda v, w: S(hue(v)) + S(w), ("raises", "none"), ("raises", "flows")),
    "unregistered behind round raises: it is asked before round is": (
        lambda v, w: S(hue(tf.round(v))) + S(w), ("raises", "none"), ("raises", "flows")),
    "unregistered before round is never asked": (
        lambda v, w: S(tf.round(hue(v))) + S(w), ("none", "none"), ("flows", "flows")),
    "index of a gather": (
        lambda v, w: S(tf.gather(w, tf.cast(v[:, 0] > 9, tf.int32))), ("none", "none"), ("flows", "flows")),
    "shape only": (lambda v, w: S(tf.ones(tf.shape(v)) * w), ("none", "none"), ("flows", "flows")),
    "top_k values live": (lambda v, w: S(tf.math.top_k(v, 2).values) + S(w), ("flows", "flows"), ("flows", "flows")),
    "top_k indices": (
        lambda v, w: S(tf.cast(tf.math.top_k(v, 2).indices, tf.float32)) + S(w), ("none", "none"), ("flows", "flows")),
    "nested loop in a call": (
        lambda v, w: S(call(lambda a, b: loop(lambda s: s + tf.floor(a) * b, tf.zeros([4, 3])), v, w)),
        ("zero", "none"), ("flows", "flows")),
    "a loop variable that is only overwritten": (
        lambda v, w: S(tf.while_loop(lambda i, s, t: i < 3, lambda i, s, t: (i + 1, s + w, tf.ones([4, 3])),
                                     (tf.constant(0), tf.zeros([4, 3]), 2 * v))[1]),
        ("zero", "none"), ("flows", "flows")),
    "qr of a shape known before the run": (
        lambda v, w: S(tf.linalg.qr(v)[1]) + S(w), ("flows", "flows"), ("flows", "flows")),
    "qr of a shape known only in the run": (
        lambda v, w: S(tf.linalg.qr(tf.boolean_mask(v, v[:, 0] > -9))[1]) + S(w),
        ("raises", "flows"), ("raises", "flows")),
    "full qr of more rows than columns": (
        lambda v, w: S(tf.linalg.qr(v, full_matrices=True)[1]) + S(w), ("raises", "flows"), ("raises", "flows")),
    "full qr of as many": (
        lambda v, w: S(tf.linalg.qr(v[:3], full_matrices=True)[1]) + S(w), ("flows", "flows"), ("flows", "flows")),
    "full svd of two rows more": (
        lambda v, w: S(tf.linalg.svd(v[:, :2], full_matrices=True)[0]) + S(w), ("raises", "flows"), ("raises",
        "flows")),
    "full svd of one row more": (
        lambda v, w: S(tf.linalg.svd(v, full_matrices=True)[0]) + S(w), ("flows", "flows"), ("flows", "flows")),
    "svd of a shape known only in the run": (
        lambda v, w: S(tf.linalg.svd(tf.boolean_mask(v, v[:, 0] > -9))[0]) + S(w),
        ("raises", "flows"), ("raises", "flows")),
    "singular values of a shape known only in the run": (
        lambda v, w: S(tf.linalg.svd(tf.boolean_mask(v, v[:, 0] > -9, axis=0)[:, :tf.size(tf.where(w[0] > -9))],
                                     compute_uv=False)) + S(w), ("flows", "flows"), ("flows", "flows")),
    "identity_n hands an integer what comes for it": (
        lambda v, w: S(tf.math.top_k(w, tf.identity_n([v, tf.constant(2)])[1]).values), ("zero", "zero"), ("flows",
        "flows")),
    "map_fn over a tensor list": (
        lambda v, w: S(tf.map_fn(lambda e: tf.floor(e) * 2.0, v)) + S(w), ("zero", "none"), ("flows", "flows")),
    "map_fn that is live": (
        lambda v, w: S(tf.map_fn(lambda e: e * e, v)) + S(w), ("flows", "flows"), ("flows", "flows")),
    "identity_n carries zeros of an integer edge": (
        lambda v, w: S(tf.cast(tf.identity_n([w, tf.cast(v, tf.int32)])[0], tf.float32)), ("none", "none"), ("flows",
        "flows")),
}  # fmt: skip


def verdict_of(path: Path, body: Body) -> tuple[EntryVerdict, Any]:
    module = Program(body)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    (verdict,) = analyse(read(path))
    return verdict, tf.saved_model.load(str(path))


def says(loaded: Any) -> dict[str, str]:
    """TensorFlow's answer for a loaded signature: raises, none, or a tensor (zero where every element is)."""
    names = ["v", "w"]
    try:
        found = gradients(loaded.signatures["serving_default"], [loaded.v, loaded.w])
    except (LookupError, NotImplementedError, TypeError, AssertionError):
        return dict.fromkeys(names, "raises")
    return {n: "none" if g is None else "flows" if g.any() else "zero" for n, g in zip(names, found, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_verdict_is_tensorflows(name: str, tmp_path: Path) -> None:
    body, v, w = CASES[name]
    verdict, loaded = verdict_of(tmp_path / "m", body)
    got = {t.name: (t.state, t.structure) for t in verdict.targets}
    answer = says(loaded)
    for target in ("v", "w"):
        if target in got:
            assert got[target][0] == answer[target], (target, got, answer)
    assert {"v": v, "w": w} == got


def test_saved_and_lost_custom_gradients(tmp_path: Path) -> None:
    """Saved with its gradient a custom function flows; saved without, a fresh process raises, and so do we."""

    @tf.custom_gradient
    def through(x: Any) -> Any:
        return tf.round(x), lambda dy: dy

    module = Program(lambda v, w: S(through(tf.convert_to_tensor(v))) + S(w))
    for keep in (True, False):
        path = tmp_path / str(keep)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=keep)
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve}, options=options)
        (verdict,) = analyse(read(path))
        expected = [("flows", "flows")] * 2 if keep else [("raises", "none"), ("raises", "flows")]
        assert [(t.state, t.structure) for t in verdict.targets] == expected


@tf.custom_gradient
def capturing(x: Any) -> Any:
    """Its gradient reads a tensor of the function where it stands."""
    return tf.round(x), lambda dy: dy * tf.sigmoid(x)


@tf.custom_gradient
def capturing_nothing(x: Any) -> Any:
    return tf.round(x), lambda dy: dy * 2.0


@tf.custom_gradient
def sliced(x: Any, y: Any) -> Any:
    """The gradient of its first input comes by rows, that of its second is no gradient of rows or places."""
    return tf.round(x) * y, lambda dy: (tf.IndexedSlices(tf.zeros_like(dy), tf.range(4), tf.constant([4, 3])), 2 * dy)


def test_a_custom_gradient_by_rows_is_one_gradient(tmp_path: Path) -> None:
    module = Program(lambda v, w: S(sliced(v * 1.0, w * 1.0)))
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve}, options=options)
    (verdict,) = analyse(read(tmp_path))
    answer = says(tf.saved_model.load(str(tmp_path)))
    assert {t.name: t.state for t in verdict.targets} == answer == {"v": "zero", "w": "flows"}


# Where a saved custom gradient stands: at the top, in a loop's body, in a branch, in a call in a body.
PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "top": lambda f, x: f(x),
    "loop": lambda f, x: loop(lambda s: f(s) + x, x),
    "branch": lambda f, x: tf.cond(S(x) > -1e9, lambda: f(x), lambda: x),
    "call in a loop": lambda f, x: loop(lambda s: call(f, s) + x, x),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("function", [capturing, capturing_nothing])
def test_a_loaded_custom_gradient_reaches_what_it_captured_or_raises(function: Any, place: str, tmp_path: Path) -> None:
    module = Program(lambda v, w: S(PLACES[place](function, v * 1.0)) + S(w))
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve}, options=options)
    (verdict,) = analyse(read(tmp_path))
    answer = says(tf.saved_model.load(str(tmp_path)))
    assert {t.name: t.state for t in verdict.targets} == answer
    assert answer["v"] == ("raises" if function is capturing and place in {"loop", "branch"} else "flows")
    assert [t.structure for t in verdict.targets] == ["flows", "flows"]


def cuts(tmp_path: Path, body: Body) -> list[tuple[str, list[str]]]:
    verdict, _ = verdict_of(tmp_path / "m", body)
    return [(cut.op, [verdict.targets[i].name for i in cut.starves]) for cut in verdict.cuts]


def test_blame_spares_a_mask_before_the_cut(tmp_path: Path) -> None:
    """The mask's threshold is severed too, but once the argmax is repaired it starves nobody."""
    assert cuts(tmp_path, lambda v, w: S(tf.gather(c, tf.argmax(v * tf.cast(v > 0, tf.float32), 1))) + S(w)) == [
        ("ArgMax", ["v"])
    ]


def test_blame_takes_the_way_with_fewest_cuts(tmp_path: Path) -> None:
    """One cut on the first way, two on the second: only the first is needed."""
    assert cuts(tmp_path, lambda v, w: S(tf.round(v)) + S(tf.cast(tf.floor(v) > 0, tf.float32)) + S(w)) == [
        ("Round", ["v"])
    ]


def test_blame_follows_every_level(tmp_path: Path) -> None:
    """v is two cuts away, w one: both ops are named, each with whom it starves."""
    assert cuts(tmp_path, lambda v, w: S(tf.cast(tf.round(v) * w > 0, tf.float32))) == [
        ("Round", ["v"]),
        ("Greater", ["v", "w"]),
    ]


def test_disconnected_is_not_severed(tmp_path: Path) -> None:
    """A value that only decides a shape reaches no loss; nothing severs it."""
    verdict, _ = verdict_of(tmp_path / "m", lambda v, w: S(tf.ones(tf.shape(v)) * w))
    assert verdict.disconnected == [0] and not verdict.cuts


def test_no_float_output(tmp_path: Path) -> None:
    verdict, _ = verdict_of(tmp_path / "m", lambda v, w: tf.argmax(v * w, 1))
    assert not verdict.float_outputs
    assert {t.structure for t in verdict.targets} == {"none"}


def test_disconnected_says_what_the_outputs_do_depend_on(tmp_path: Path) -> None:
    """Only w reaches the output; v decided a shape."""
    verdict, _ = verdict_of(tmp_path / "m", lambda v, w: S(tf.ones(tf.shape(v)) * w))
    assert verdict.depends == ["w"]
