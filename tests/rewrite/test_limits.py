"""Where a surrogate has no meaning, the plan says so; where it could turn NaN, zero or useless, it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import C, gradients, with_pb

Body = Callable[[Any], Any]
c = tf.constant(C, tf.float32)


class Program(tf.Module):
    """`body(v)` of one variable as a signature without inputs."""

    def __init__(self, body: Body, start: Any) -> None:
        super().__init__()
        self.v = tf.Variable(start, dtype=tf.float32, name="v")
        self.body = body

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        return {"y": self.body(tf.convert_to_tensor(self.v))}


def saved(path: Path, body: Body, start: Any) -> Path:
    module = Program(body, start)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return path


START = np.random.default_rng(5).normal(size=[4, 3])


@tf.custom_gradient
def stopped(x: Any) -> Any:
    return tf.identity(x), tf.zeros_like


@tf.function(autograph=False)
def chosen_behind_custom(v: Any) -> Any:
    return tf.argmax(stopped(v) + v, 1)


REFUSED: dict[str, tuple[Body, str]] = {
    "strings": (lambda v: tf.cast(tf.equal(tf.where(v > 0, "a", "b"), "a"), tf.float32), "string values"),
    "complex": (
        lambda v: tf.math.real(tf.cast(tf.cast(9 * v, tf.int32), tf.complex64)), "complex64 values"),
    "a gradient stopped on purpose": (lambda v: stopped(v) * 2.0, "on purpose"),
    "a power of soft numbers": (
        lambda v: tf.cast(tf.pow(tf.cast(9 * v, tf.int32), tf.constant(2)), tf.float32), "a power of soft numbers"),
    "a callee that cannot be inlined": (
        lambda v: tf.gather(c, tf.math.mod(chosen_behind_custom(v), 3)), "carries the custom gradient"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    body, reason = REFUSED[name]
    result = repair(read(saved(tmp_path / "m", body, START)))
    assert result.pb is None
    assert any(reason in (step.declined or "") for step in result.plan), [step.declined for step in result.plan]


SOUND: dict[str, tuple[Body, Any]] = {
    "sqrt of a floor": (lambda v: tf.sqrt(tf.floor(v)), np.full([4, 3], 1.2) + np.arange(3)),
    "log of a rounded number": (lambda v: tf.math.log(tf.round(v) + 2), np.full([4, 3], -0.3) + np.arange(3)),
    "one over a sign": (lambda v: 1 / tf.sign(v), START),
    "an infinite score": (
        lambda v: tf.gather(c, tf.math.mod(tf.argmax(tf.where(v > 0.5, float("inf"), v), 1), 3)), START),
    "an index at a whole number": (lambda v: tf.gather(c, tf.cast(v, tf.int32)), np.zeros([4, 3])),
    "the last index at a whole number": (lambda v: tf.gather(c, tf.cast(v, tf.int32)), np.full([4, 3], 2.0)),
    "all scores equal": (lambda v: tf.gather(c, tf.argmax(v, 1)), np.zeros([4, 3])),
    "a class axis of one size, a table of another": (
        lambda v: tf.one_hot(tf.argmax(v, 1), 2)[:, :1] + tf.one_hot(tf.argmax(v, 1), 9)[:, 2:3] * 5.0, START),
}  # fmt: skip


@pytest.mark.parametrize("carrier", ["bridge", "sum"])
@pytest.mark.parametrize("name", SOUND)
def test_gradient_is_finite_and_there(name: str, carrier: str, tmp_path: Path) -> None:
    body, start = SOUND[name]
    source = saved(tmp_path / "m", body, start)
    result = repair(read(source), carrier=carrier)
    assert result.pb is not None and not [s.declined for s in result.plan if s.declined]
    fixed = tf.saved_model.load(str(with_pb(source, tmp_path / "f", result.pb)))
    original = tf.saved_model.load(str(source))
    before, after = (m.signatures["serving_default"]()["y"].numpy() for m in (original, fixed))
    assert before.tobytes() == after.tobytes()
    (gradient,) = gradients(fixed.signatures["serving_default"], [fixed.v])
    assert gradient is not None and np.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_positive_and_finite(temperature: float, tmp_path: Path) -> None:
    with pytest.raises(GradpassError, match="positive finite"):
        repair(read(saved(tmp_path / "m", tf.round, START)), temperature=temperature)


def test_a_high_temperature_is_the_identity(tmp_path: Path) -> None:
    source = saved(tmp_path / "m", tf.round, START)
    result = repair(read(source), temperature=1e38)
    assert result.pb is not None
    fixed = tf.saved_model.load(str(with_pb(source, tmp_path / "f", result.pb)))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(fixed.signatures["serving_default"]()["y"])
    # tanh's derivative at 1e-3 / 2, the steepest that the staircase is allowed to be flat
    np.testing.assert_allclose(tape.gradient(y, fixed.v).numpy(), 1.0, rtol=1e-6)
