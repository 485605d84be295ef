"""Discrete state that a loop carries: the gradient comes through its steps, and is that of the loop written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import gradients, save, with_pb

STEPS, CLASSES, WIDTH = 3, 4, 3


class Decoder(tf.Module):
    """A greedy decoder: only a later step's look-up of `last` depends on an earlier step's argmax of `scores`."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.scores = tf.Variable(rng.normal(size=[CLASSES, CLASSES]), name="scores", dtype=tf.float64)
        self.last = tf.Variable(rng.normal(size=[CLASSES, WIDTH]), name="last", dtype=tf.float64)

    def step(self, token: Any) -> Any:
        return tf.argmax(tf.gather(self.scores, token), 1, output_type=tf.int32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        token = tf.while_loop(lambda i, t: i < STEPS, lambda i, t: (i + 1, self.step(t)), (0, x))[1]
        return {"y": tf.gather(self.last, token)}


class Feedback(tf.Module):
    """What is drawn in one step decides whether the next one adds; a counter and a float are carried beside."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable([0.4, -0.3, 0.8], name="v")

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        def body(i: Any, on: Any, hits: Any, total: Any) -> Any:
            noise = tf.random.stateless_uniform([3], tf.stack([i, 1]), -0.2, 0.2)
            above = x * self.v + noise > 0.05
            return i + 1, tf.logical_and(on, above), hits + tf.cast(above, tf.int32), total + tf.cast(on, tf.float32)

        start = (0, tf.constant([True, True, False]), tf.zeros([3], tf.int32), tf.zeros([3]))
        _, on, hits, total = tf.while_loop(lambda i, *_: i < STEPS, body, start)
        return {"y": total + tf.cast(hits, tf.float32) * 0.1 + tf.cast(on, tf.float32)}


TOKENS = {"x": tf.constant([0, 3, 1, 2, 2], tf.int32)}
INPUTS: list[tuple[Callable[[], tf.Module], dict[str, Any]]] = [
    (Decoder, TOKENS),
    (Feedback, {"x": tf.constant([0.5, 1.5, -0.7])}),
]


def fixed(module: tf.Module, folder: Path, **options: Any) -> Any:
    done = repair(read(save(module, folder / "m")), **options)
    assert done.pb is not None and not [step.declined for step in done.plan if step.declined]
    return tf.saved_model.load(str(with_pb(folder / "m", folder / "f", done.pb)))


def variables(model: Any, module: tf.Module) -> list[Any]:
    return [getattr(model, v.name.removesuffix(":0")) for v in module.trainable_variables]


@pytest.mark.parametrize("carrier", ["bridge", "sum"])
@pytest.mark.parametrize(("cls", "x"), INPUTS, ids=["decoder", "feedback"])
def test_bits_stay_and_every_variable_gets_a_gradient(cls: Any, x: Any, carrier: str, tmp_path: Path) -> None:
    module = cls()
    model = fixed(module, tmp_path, carrier=carrier)
    original = tf.saved_model.load(str(tmp_path / "m"))
    before, after = (m.signatures["serving_default"](**x)["y"].numpy() for m in (original, model))
    assert before.tobytes() == after.tobytes()
    for gradient in gradients(model.signatures["serving_default"], variables(model, module), x):
        assert gradient is not None and np.isfinite(gradient).all() and gradient.any()


def by_hand(scores: Any, last: Any, soft: bool) -> Any:
    """The decoder with its surrogates, written out step by step; T is 1."""

    def instead(hard: Any, shadow: Any) -> Any:
        return shadow if soft else hard + (shadow - tf.stop_gradient(shadow))

    def looked_up(table: Any, token: Any, weights: Any) -> Any:
        return instead(tf.gather(table, token), weights @ (table if soft else tf.stop_gradient(table)))

    token = TOKENS["x"]
    weights = tf.one_hot(token, CLASSES, dtype=tf.float64)
    for _ in range(STEPS):
        row = looked_up(scores, token, weights)
        token = tf.argmax(row, 1, output_type=tf.int32)
        weights = instead(tf.one_hot(token, CLASSES, dtype=tf.float64), tf.nn.softmax(row))
        if not soft:
            weights = tf.stop_gradient(tf.one_hot(token, CLASSES, dtype=tf.float64) - weights) + weights
    return looked_up(last, token, weights)


@pytest.mark.parametrize("mode", ["straight-through", "soft"])
def test_gradient_is_that_of_the_loop_written_out(mode: Any, tmp_path: Path) -> None:
    """In float64, the temperature absolute: the feedback from step to step is in it."""
    module = Decoder()
    model = fixed(module, tmp_path, mode=mode, absolute_temperature=True)
    call = model.signatures["serving_default"]
    found = [call(**TOKENS)["y"].numpy(), *gradients(call, variables(model, module), TOKENS)]
    with tf.GradientTape() as tape:
        value = by_hand(module.scores, module.last, mode == "soft")
        cotangent = tf.constant(np.random.default_rng(0).normal(size=value.shape))
        loss = tf.reduce_sum(value * cotangent)
    expected = [value, *tape.gradient(loss, module.trainable_variables)]
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, tf.convert_to_tensor(other), rtol=1e-12, atol=1e-14)  # some ten terms rounded


def test_plan_and_diff_tell_of_the_variable(tmp_path: Path) -> None:
    report = gp.fix(save(Decoder(), tmp_path / "m"), tmp_path / "f", diff=True)
    assert report.ok and "gradpass/carry = OneHot" in report.diff
    assert any("carried-state" in step.rules for step in report.plan)
    assert gp.fix(tmp_path / "f", tmp_path / "g").output is None
    again = tf.saved_model.load(str(tmp_path / "f"))
    tf.saved_model.save(again, str(tmp_path / "h"), signatures=again.signatures)
    model = tf.saved_model.load(str(tmp_path / "h"))
    assert all(g.any() for g in gradients(model.signatures["serving_default"], [model.scores, model.last], TOKENS))
    assert (
        gp.harden(tmp_path / "f", tmp_path / "hard").joinpath("saved_model.pb").read_bytes()
        == (tmp_path / "m" / "saved_model.pb").read_bytes()
    )


class Counting(tf.Module):
    """Carried numbers that are no index of their surrogate's classes: moved on, looked up in a list of ids, begun
    beyond them."""

    def __init__(self, step: Callable[[Any, Any], Any], start: Callable[[Any], Any]) -> None:
        super().__init__()
        self.w = tf.Variable(np.random.default_rng(5).normal(size=[6, 3]), dtype=tf.float32, name="w")
        self.step, self.start = step, start

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        scores = x @ self.w

        def body(i: Any, k: Any) -> Any:
            return i + 1, self.step(scores + 0.1 * tf.cast(k, tf.float32)[:, None], k)

        last = tf.while_loop(lambda i, k: i < STEPS, body, (0, self.start(scores)))[1]
        return {"y": tf.gather(tf.reshape(tf.range(44.0) ** 1.5, [22, 2]), last)}


def chosen(scores: Any) -> Any:
    return tf.argmax(scores, 1, output_type=tf.int32)


COUNTING: dict[str, tuple[Any, Any]] = {
    "moved": (lambda s, k: k + 1, chosen),
    "offset": (lambda s, k: chosen(s) + 10, lambda s: tf.zeros_like(chosen(s))),
    "ids": (lambda s, k: tf.gather(tf.constant([7, 20, 2]), chosen(s)), lambda s: tf.zeros_like(chosen(s))),
    "begun beyond": (lambda s, k: chosen(s), lambda s: tf.fill(tf.shape(s)[:1], 21)),
}


@pytest.mark.parametrize("mode", ["straight-through", "soft"])
@pytest.mark.parametrize("name", COUNTING)
def test_a_number_beyond_its_classes_is_carried_as_a_number(name: str, mode: Any, tmp_path: Path) -> None:
    module = Counting(*COUNTING[name])
    x = {"x": tf.constant(np.random.default_rng(6).normal(size=[4, 6]), tf.float32)}
    model = fixed(module, tmp_path, mode=mode, **({"temperature": 1e-4} if mode == "soft" else {}))
    original = tf.saved_model.load(str(tmp_path / "m"))
    before, after = (m.signatures["serving_default"](**x)["y"].numpy() for m in (original, model))
    np.testing.assert_allclose(after, before, rtol=0, atol=0 if mode != "soft" else 1e-2)
    if mode != "soft":
        (gradient,) = gradients(model.signatures["serving_default"], [model.w], x)
        assert gradient is not None and np.isfinite(gradient).all() and gradient.any()


class Mapped(tf.Module):
    """A look-up in a loop, which two signatures run."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.random.default_rng(0).normal(size=[6, 4]), dtype=tf.float32, name="w")

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        table = tf.constant([1.0, 2.0, 4.0, 8.0])
        return {"y": tf.map_fn(lambda row: tf.gather(table, tf.argmax(row)), x @ self.w)}

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")], autograph=False)
    def twice(self, x: Any) -> dict[str, Any]:
        return {"y": 2 * self.serve(x)["y"]}


def test_the_cross_check_asks_for_gradients_before_it_exports(tmp_path: Path) -> None:
    """TensorFlow differentiates no loaded loop that was first run in another function, as an export runs it."""
    module = Mapped()
    signatures = {"serving_default": module.serve, "twice": module.twice}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    report = gp.fix(tmp_path / "m", tmp_path / "f", entry="all")
    asked = [row for row in report.crosscheck if row.name.startswith(("values", "onnx", "verdict"))]
    assert len(asked) == 8 and {row.status for row in asked} == {"passed"}
    # What holds for a loop's stop_gradients is told; the gradient's worth needs none of them.
    assert {row.status for row in report.crosscheck if row.name.startswith("worth")} == {"passed"}
    assert report.ok
