"""A predicate that is severed mixes its branches; what each of them has by itself stays, and nothing can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import Repair, repair
from tests.models import gradients, save, with_pb

Body = Callable[[Any, Any, Any], Any]


class Two(tf.Module):
    """`body(v, w, x)` of two variables and a batch."""

    def __init__(self, body: Body, w: float = 2.0) -> None:
        super().__init__()
        self.v = tf.Variable([0.3, -0.2, 0.5], name="v")
        self.w = tf.Variable(w, name="w")
        self.body = body

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": self.body(self.v, self.w, x)}


X = {"x": tf.constant([[0.5, -1.0, 2.0], [0.25, 1.5, -0.75]])}


def fixed(tmp_path: Path, module: tf.Module, **options: Any) -> tuple[Repair, Any, Any]:
    """The repair, and the original's and the fixed signature."""
    source = save(module, tmp_path / "m")
    result = repair(read(source), **options)
    if result.pb is None:
        return result, None, None
    path = with_pb(source, tmp_path / "f", result.pb)
    loaded = [tf.saved_model.load(str(p)) for p in (source, path)]
    both = [m.signatures["serving_default"] for m in loaded]
    for one, m in zip(both, loaded, strict=True):
        one.module = m
    before, after = (one(**X)["y"].numpy() for one in both)
    assert before.tobytes() == after.tobytes() or options.get("mode") == "soft"
    return result, both[0], both[1]


def of(signature: Any) -> list[Any]:
    return gradients(signature, [signature.module.v, signature.module.w], X)


def linear(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(tf.reduce_sum(v) > 0, lambda: tf.reduce_sum(x) * w * 3.0, lambda: w * w)


@pytest.mark.parametrize("carrier", ["bridge", "sum"])
def test_mixture_by_hand_and_live_gradients_once(carrier: str, tmp_path: Path) -> None:
    result, before, after = fixed(tmp_path, Two(linear), carrier=carrier, absolute_temperature=True)
    assert [step.declined for step in result.plan] == [None]
    assert "mixed-branches" in result.plan[0].rules
    (none, own), (made, same) = of(before), of(after)
    assert none is None and own.tobytes() == same.tobytes()
    with tf.GradientTape() as tape:
        v = tf.constant([0.3, -0.2, 0.5])
        tape.watch(v)
        p = tf.sigmoid(tf.reduce_sum(v))
        y = p * tf.reduce_sum(X["x"]) * 6.0 + (1 - p) * 4.0
    by_hand = tape.gradient(y, v).numpy() * np.random.default_rng(0).normal()
    np.testing.assert_allclose(made, by_hand, rtol=1e-5)  # float32


def not_taken_is_nan(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(v[0] > 0, lambda: x * w, lambda: tf.math.log(-1.0 - tf.abs(x)))


def also_one_finite(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(v[0] > 0, lambda: x * w, lambda: tf.sqrt(x))


def different_sizes(v: Any, w: Any, x: Any) -> Any:
    return tf.reduce_sum(tf.cond(v[0] > 0, lambda: x * w, lambda: tf.tile(tf.constant([[1.0, 2.0, 5.0]]), [5, 1])))


def in_a_loop(v: Any, w: Any, x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(v * a) > 0.1, lambda: a * 1.5, lambda: a + 1.0)

    return w * tf.while_loop(lambda i, a: i < 3, body, [0, tf.constant([1.0, 2.0, 3.0])])[1]


def in_a_branch(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(w > 0, lambda: tf.cond(v[0] > 0.1, lambda: tf.ones([3]), lambda: tf.zeros([3])), lambda: w * x[0])


def dense(v: Any, w: Any, x: Any) -> Any:
    first, second = tf.ones([3, 2]), tf.constant([[0.5, 1.0, -1.0]] * 2)
    return tf.cond(v[0] > 0, lambda: tf.nn.softmax(w * (x @ first)), lambda: tf.matmul(x, second, transpose_b=True))


@tf.function(autograph=False)
def doubled(x: Any) -> Any:
    return tf.reduce_sum(x * 2.0, 1)


def with_a_call(v: Any, w: Any, x: Any) -> Any:
    return w * tf.cond(v[0] > 0, lambda: doubled(x), lambda: tf.reduce_mean(x, 1))


@pytest.mark.parametrize("carrier", ["bridge", "sum"])
@pytest.mark.parametrize("body", [also_one_finite, in_a_loop, in_a_branch, with_a_call, dense])
def test_gradient_is_finite_and_there(body: Body, carrier: str, tmp_path: Path) -> None:
    result, before, after = fixed(tmp_path, Two(body), carrier=carrier)
    assert [step.declined for step in result.plan] == [None] * len(result.plan) and result.plan
    (_, own), (v, w) = of(before), of(after)
    assert np.isfinite(v).all() and v.any()
    if body is not in_a_loop:
        assert own is None or own.tobytes() == w.tobytes()


@pytest.mark.parametrize("body", [not_taken_is_nan, different_sizes])
def test_what_only_the_other_branch_spoils_gives_nothing(body: Body, tmp_path: Path) -> None:
    """Nowhere finite, or of another size, the other branch counts as if it gave the same."""
    result, _, after = fixed(tmp_path, Two(body))
    assert [step.declined for step in result.plan] == [None]
    v, _ = of(after)
    assert v is not None and not v.any() and np.isfinite(v).all()


def divides(v: Any, w: Any, x: Any) -> Any:
    n = tf.size(x) - 6
    return tf.cond(v[0] > 0, lambda: 1.0, lambda: tf.cast(12 // n, tf.float32))


def draws(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(v[0] > 0, lambda: x, lambda: tf.random.normal([2, 3]))


def writes(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(v[0] > 0, lambda: w.assign_add(1.0) + 0.0, lambda: 0.0)


def sizes_may_differ(v: Any, w: Any, x: Any) -> Any:
    y = tf.boolean_mask(x, x[:, 0] > 0)
    return tf.cond(v[0] > 0, lambda: x, lambda: x + y)


def inner_sizes_may_differ(v: Any, w: Any, x: Any) -> Any:
    y = tf.boolean_mask(x, x[:, 0] > 0)
    return tf.cond(v[0] > 0, lambda: tf.ones([3, 3]), lambda: tf.matmul(x, y, transpose_a=True))


def shape_at_run_time(v: Any, w: Any, x: Any) -> Any:
    """Whole numbers in a shape of whole numbers."""
    shape = tf.stack([tf.size(x) // 2, 2])
    return tf.cast(
        tf.cond(v[0] > 0, lambda: tf.ones([2, 2], tf.int32), lambda: tf.reshape([1, 2, 3, 4], shape)), tf.float32
    )


def loops(v: Any, w: Any, x: Any) -> Any:
    return tf.cond(v[0] > 0, lambda: x, lambda: tf.while_loop(lambda a: tf.size(a) < 0, lambda a: [a * 2], [x])[0])


def a_number(v: Any, w: Any, x: Any) -> Any:
    branches = {
        "then_branch": _concrete(lambda a: a + 0.0),
        "else_branch": _concrete(lambda a: a * 2.0),
    }
    return tf.raw_ops.If(cond=tf.cast(v[0], tf.int32), input=[x], Tout=[tf.float32], **branches)[0]


def _concrete(f: Any) -> Any:
    return tf.function(f, autograph=False).get_concrete_function(tf.TensorSpec([None, 3], tf.float32))


REFUSED = {
    divides: "FloorDiv", draws: "RandomStandardNormal", writes: "AssignAddVariableOp",
    sizes_may_differ: "not known to fit", inner_sizes_may_differ: "not known to fit", loops: "While",
    a_number: "is a number", shape_at_run_time: "which may fail",
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED)
def test_refused_with_the_op_in_the_way(body: Body, tmp_path: Path) -> None:
    result, _, _ = fixed(tmp_path, Two(body))
    assert result.pb is None
    assert all(REFUSED[body] in (step.declined or "") for step in result.plan) and result.plan


def test_soft_mode_is_the_mixture(tmp_path: Path) -> None:
    _, _, after = fixed(tmp_path, Two(linear), mode="soft", absolute_temperature=True)
    p = 1 / (1 + np.exp(-0.6))
    np.testing.assert_allclose(after(**X)["y"].numpy(), p * np.sum(X["x"]) * 6 + (1 - p) * 4, rtol=1e-5)  # float32
    v, w = of(after)
    assert v.any()
    random = np.random.default_rng(0).normal()
    np.testing.assert_allclose(w, random * (p * np.sum(X["x"]) * 3 + (1 - p) * 4), rtol=1e-5)


@pytest.mark.parametrize("body", [linear, in_a_loop])
def test_repaired_once_and_saved_again(body: Body, tmp_path: Path) -> None:
    _, _, after = fixed(tmp_path, Two(body))
    assert repair(read(tmp_path / "f")).pb is None
    first = of(after)
    tf.saved_model.save(after.module, str(tmp_path / "again"), signatures={"serving_default": after})
    again = tf.saved_model.load(str(tmp_path / "again"))
    signature = again.signatures["serving_default"]
    signature.module = again
    assert [g.tobytes() for g in of(signature)] == [g.tobytes() for g in first]
    (verdict,) = analyse(read(tmp_path / "again"))
    assert not verdict.cuts
