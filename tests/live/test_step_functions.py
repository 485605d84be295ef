"""`gradpass.check_step` where a step calls functions of its own, gathers gradients, or clips what it then loses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf

import gradpass as gp
from tests.live.test_step import X, Y, codes, line, mlp, mse


def functions(model: Any, optimizer: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A step of two functions: one computes, one applies."""

    @tf.function
    def computed(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(value, model.trainable_variables), 1.0)
        return value, gradients

    @tf.function
    def applied(gradients: Any, upto: int) -> None:
        variables = model.trainable_variables[:upto]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    return computed, applied


@pytest.mark.parametrize("traced", [False, True], ids=["new", "traced-already"])
@pytest.mark.parametrize("upto", [4, 2, 0])
def test_gradients_that_a_function_returns(traced: bool, upto: int) -> None:
    model = mlp()
    computed, applied = functions(model, keras.optimizers.Adam())
    if traced:
        computed(X, Y)

    def step(x: Any, y: Any) -> Any:
        value, gradients = computed(x, y)
        if upto:
            applied(gradients[:upto], upto)
        return value

    report = gp.check_step(step, X, Y)
    assert len(report.targets) == 4
    assert codes(report) == {4: [], 2: ["GP501"], 0: ["GP500"]}[upto]
    for diagnostic in report.diagnostics:
        assert [*diagnostic.affects, *diagnostic.starves] == [v.path for v in model.trainable_variables[upto:]]
        assert "tape.gradient(" in line(report)


def test_a_variable_that_one_function_forgets_and_another_asks_for_is_not_forgotten() -> None:
    model = mlp()
    optimizers = [keras.optimizers.SGD(), keras.optimizers.SGD()]

    def half(layer: int) -> Any:
        @tf.function
        def step(x: Any, y: Any) -> None:
            mine = model.layers[layer].trainable_variables
            with tf.GradientTape() as tape:
                value = mse(y, model(x))
            optimizers[layer].apply_gradients(zip(tape.gradient(value, mine), mine, strict=True))

        return step

    first, second = half(0), half(1)

    def step(x: Any, y: Any) -> None:
        first(x, y)
        second(x, y)

    assert codes(gp.check_step(step, X, Y)) == []
    assert codes(gp.check_step(first, X, Y)) == ["GP502"]


def test_a_function_of_an_object_that_has_run_already() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model, self.optimizer = mlp(), keras.optimizers.SGD()

        @tf.function
        def step(self, x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                value = mse(y, self.model(x))
            gradients = tape.gradient(value, self.model.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
            return value

    trainer = Trainer()
    trainer.step(X, Y)

    def step(x: Any, y: Any) -> Any:
        return trainer.step(x, y)

    report = gp.check_step(step, X, Y)
    assert report.ok and codes(report) == [] and len(report.targets) == 4
    before = float(trainer.step(X, Y))
    assert float(trainer.step(X, Y)) < before  # and its traces are its own afterwards


@pytest.mark.parametrize("clipped", [True, False])
def test_clipping_by_the_norm_of_all_is_no_use_of_each(clipped: bool) -> None:
    model = mlp()
    optimizer = keras.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        gradients = tape.gradient(value, model.trainable_variables)
        if clipped:
            gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        optimizer.apply_gradients(list(zip(gradients, model.trainable_variables, strict=True))[:2])

    report = gp.check_step(step, X, Y)
    assert codes(report) == ["GP501"]
    assert report.diagnostics[0].affects == [v.path for v in model.trainable_variables[2:]]


def test_a_norm_that_another_model_uses_is_a_use() -> None:
    """Loss weights learned from gradient norms (GradNorm, Chen et al. 2018): the shared layer is assigned too."""
    model, weights = mlp(), tf.Variable([1.0, 1.0])

    def step(x: Any, y: Any) -> None:
        shared = model.trainable_variables[0]
        with tf.GradientTape(persistent=True) as tape:
            p = model(x)
            losses = [mse(y, p), tf.reduce_mean(tf.abs(y - p))]
            total = tf.reduce_sum(weights * tf.stack(losses))
        norms = [tf.norm(tape.gradient(loss, shared)) for loss in losses]
        weights.assign_sub(0.1 * tf.stack(norms))
        for v, g in zip(model.trainable_variables, tape.gradient(total, model.trainable_variables), strict=True):
            v.assign_sub(0.1 * g)

    assert codes(gp.check_step(step, X, Y)) == []


@pytest.mark.parametrize("trainable", [True, False])
def test_gradients_that_are_gathered_for_a_later_step(trainable: bool) -> None:
    model = mlp()
    sums = [tf.Variable(tf.zeros_like(v), trainable=trainable) for v in model.trainable_variables]

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        for held, gradient in zip(sums, tape.gradient(value, model.trainable_variables), strict=True):
            held.assign_add(gradient)
        return value

    assert codes(gp.check_step(step, X, Y)) == []


def test_metrics_of_norms_are_no_wrong_variables() -> None:
    model, optimizer = mlp(), keras.optimizers.SGD()
    shown = keras.metrics.Mean()

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        shown.update_state(tf.linalg.global_norm(gradients))
        return value

    assert codes(gp.check_step(step, X, Y)) == []


@pytest.mark.parametrize("written", ["f", "%"])
def test_a_loss_that_is_printed_as_a_number(written: str) -> None:
    model, optimizer = mlp(), keras.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        if written == "f":
            print(f"{value:.3f}")
        else:
            print("%.3f" % value)  # noqa: UP031

    report = gp.check_step(step, X, Y)
    assert report.ok and codes(report) == ["GP510"] and report.diagnostics[0].severity == "note"
    assert line(report).startswith("print(")
