"""`gp.load`: a written model with its temperature as a variable, trained, scheduled and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.program.savedmodel import read
from gradpass.rewrite import temperature
from tests.models import save
from tests.rewrite import modules

CARRIERS: dict[str, dict[str, Any]] = {"bridge": {}, "sum": {"carrier": "sum"}, "soft": {"mode": "soft"}}
PLACES = (modules.NestedCalls, modules.SharedFunction, modules.InsideWhile, modules.InsideBranch)


def fixed(module: tf.Module, folder: Path, **options: Any) -> Path:
    save(module, folder / "m")
    gp.fix(folder / "m", folder / "f", cross_check=False, **options)
    return folder / "f"


def loss(model: Any, x: dict[str, Any]) -> Any:
    return sum(tf.reduce_sum(y * y + y) for y in model(**x).values() if y.dtype.is_floating)


def eager_gradient(model: Any, x: dict[str, Any], source: Any) -> np.ndarray:
    with tf.GradientTape() as tape:
        value = loss(model, x)
    return tf.convert_to_tensor(tape.gradient(value, source)).numpy()


def compiled_gradient(model: Any, source: Any) -> tuple[Any, list[int]]:
    traced: list[int] = []

    @tf.function
    def step(x: dict[str, Any]) -> Any:
        traced.append(1)
        with tf.GradientTape() as tape:
            value = loss(model, x)
        return tape.gradient(value, source)

    return step, traced


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("place", PLACES, ids=lambda c: c.__name__)
def test_the_variable_is_what_the_surrogates_read(place: type[tf.Module], carrier: str, tmp_path: Path) -> None:
    """Three temperatures in one loaded model give what three files give that were fixed with them."""
    module, options = place(), CARRIERS[carrier]
    x = modules.inputs(module)
    # Two objects: TensorFlow cannot differentiate one loaded loop both eagerly and in a tf.function.
    eager, compiled = (gp.load(fixed(module, tmp_path / name, **options)) for name in ("a", "b"))
    step, traced = compiled_gradient(compiled, compiled.trainable_variables[0])
    original = tf.saved_model.load(str(tmp_path / "a" / "m"))
    hard = {k: v.numpy().tobytes() for k, v in original.signatures["serving_default"](**x).items()}
    seen = []
    for value in (1.0, 0.3, 3.0):
        eager.temperature.assign(value)
        compiled.temperature.assign(value)
        expected_model = tf.saved_model.load(str(fixed(module, tmp_path / str(value), temperature=value, **options)))
        expected = eager_gradient(
            expected_model.signatures["serving_default"], x, _same(expected_model, module, eager.trainable_variables[0])
        )
        # Grappler folds a constant and may order sums anew: float32 rounding of a sum of some ten terms.
        for got in (eager_gradient(eager, x, eager.trainable_variables[0]), step(x).numpy()):
            np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)
        seen.append(expected)
        if carrier != "soft":
            assert {k: v.numpy().tobytes() for k, v in eager(**x).items()} == hard
    assert traced == [1]
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])


def _same(root: Any, module: tf.Module, variable: tf.Variable) -> tf.Variable:
    (name,) = (k for k, v in vars(module).items() if isinstance(v, tf.Variable) and v.name == variable.name)
    return getattr(root, name)


def test_a_saved_one_keeps_weights_and_temperature(tmp_path: Path) -> None:
    path = fixed(modules.NestedCalls(), tmp_path)
    model = gp.load(path)
    model.temperature.assign(0.4)
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    model.save(tmp_path / "again")
    again = gp.load(tmp_path / "again")
    assert again.temperature.numpy() == np.float32(0.4)
    x = modules.inputs(modules.NestedCalls())
    for mine, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
        np.testing.assert_array_equal(eager_gradient(model, x, mine), eager_gradient(again, x, other))
    # Without gradpass it is a model like any other, its temperature a constant.
    plain = tf.saved_model.load(str(tmp_path / "again"))
    np.testing.assert_allclose(  # a constant is folded by Grappler, a variable is not: float32 rounding
        eager_gradient(plain.signatures["serving_default"], x, plain.w),
        eager_gradient(again, x, again.variables[0]),
        rtol=2e-6,
        atol=1e-6,
    )
    assert set(temperature.found(read(tmp_path / "again")).values()) == {float(np.float32(0.4))}
    with pytest.raises(gp.GradpassError, match="exists; give --force"):
        model.save(tmp_path / "again")
    model.save(tmp_path / "again", force=True)


def test_tensorflow_saves_what_uses_it(tmp_path: Path) -> None:
    """A module around it is saved by TensorFlow itself: the temperature is then a variable of that model."""

    class Around(tf.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return self.model(x)["probabilities"]

    model = gp.load(fixed(modules.NestedCalls(), tmp_path))
    model.temperature.assign(0.5)
    around = Around(model)
    x = modules.inputs(modules.NestedCalls())["x"]
    around.serve(x)
    tf.saved_model.save(around, str(tmp_path / "around"))
    again = tf.saved_model.load(str(tmp_path / "around"))
    np.testing.assert_array_equal(again.serve(x).numpy(), around.serve(x).numpy())
    assert again.model.temperature.numpy() == 0.5


def test_calls_like_the_signature(tmp_path: Path) -> None:
    model = gp.load(fixed(modules.NestedCalls(), tmp_path))
    x = np.ones([2, 4], np.float32)
    by_name, by_place = model(x=x), model(x.tolist())
    assert sorted(by_name) == ["index", "probabilities"]
    for key in by_name:
        np.testing.assert_array_equal(by_name[key].numpy(), by_place[key].numpy())
    assert [v.name for v in model.trainable_variables] == ["w:0", "codebook:0", "head:0"]
    for args, kwargs, said in (
        ((x, x), {}, "takes 1 inputs"),
        ((x,), {"x": x}, "'?x'? twice"),
        ((), {"z": x}, "takes the inputs x; it got z"),
        ((), {}, "takes the inputs x"),
    ):
        with pytest.raises(TypeError, match=said):
            model(*args, **kwargs)


def test_refusals(tmp_path: Path) -> None:
    path = fixed(modules.NestedCalls(), tmp_path)
    with pytest.raises(gp.GradpassError, match=r"no surrogate in it depends on one; load it with tf\.saved_model"):
        gp.load(tmp_path / "m")
    with pytest.raises(gp.GradpassError, match="positive finite number, not 0"):
        gp.load(path, temperature=0)
    with pytest.raises(gp.GradpassError, match="one signature is called"):
        gp.load(path, entry="all")
    with pytest.raises(gp.GradpassError, match="has no entry 'other'"):
        gp.load(path, entry="other")
    assert gp.load(path, temperature=0.25).temperature.numpy() == 0.25


def test_parts_with_different_temperatures(tmp_path: Path) -> None:
    class Two(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable([0.3, -0.2, 1.0], name="w")

        @tf.function(input_signature=[])
        def one(self) -> Any:
            return {"y": tf.sign(self.w)}

        @tf.function(input_signature=[])
        def other(self) -> Any:
            return {"y": tf.sign(2 * self.w)}

    module = Two()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"one": module.one, "other": module.other})
    gp.fix(tmp_path / "m", tmp_path / "1", entry="one", cross_check=False)
    gp.fix(tmp_path / "1", tmp_path / "2", entry="other", temperature=2.0, cross_check=False)
    with pytest.raises(gp.GradpassError, match=r"the temperatures 1, 2; give temperature="):
        gp.load(tmp_path / "2", entry="one")
    assert gp.load(tmp_path / "2", entry="one", temperature=1.5).temperature.numpy() == 1.5


def fitted(model: Any, callback: Any, kind: Any, epochs: int, batches: int) -> Any:
    """A real `fit` of a Keras model whose training step differentiates through a loaded one."""

    class Trained(kind.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                value = tf.reduce_mean((model(x)["probabilities"] - y) ** 2)
            gradient = tape.gradient(value, model.trainable_variables)
            for variable, one in zip(model.trainable_variables, gradient, strict=True):
                variable.assign_sub(0.1 * tf.convert_to_tensor(one))
            return {"loss": value}

    trained = Trained()
    trained.compile(optimizer="sgd")
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=[4 * batches, n]).astype(np.float32) for n in (4, 3))
    return trained.fit(x, y, batch_size=4, epochs=epochs, callbacks=[callback], verbose=0).history


@pytest.mark.parametrize("which", ["keras", "tf_keras"])
def test_schedule_in_fit(which: str, tmp_path: Path) -> None:
    kind = keras if which == "keras" else pytest.importorskip("tf_keras")
    model = gp.load(fixed(modules.NestedCalls(), tmp_path))
    before = [v.numpy() for v in model.trainable_variables]
    schedule = gp.keras.TemperatureSchedule(0.25, epochs=2, start=1.0, model=model)
    history = fitted(model, schedule, kind, 4, 2)
    assert history["temperature"] == [1.0, 0.5, 0.25, 0.25]
    assert all((v.numpy() != b).any() for v, b in zip(model.trainable_variables, before, strict=True))
    schedule = gp.keras.TemperatureSchedule(1.25, steps=4, shape="linear", model=model)  # from 0.25, where it is now
    assert fitted(model, schedule, kind, 3, 2)["temperature"] == [0.5, 1.0, 1.25]


def test_schedule_shapes() -> None:
    model = type("Model", (), {"temperature": tf.Variable(1.0)})()
    for shape, middle in (("exponential", 0.1), ("linear", 0.505), ("cosine", 0.505)):
        schedule = gp.keras.TemperatureSchedule(0.01, epochs=4, start=1.0, shape=shape, model=model)
        schedule.on_train_begin()
        values = [schedule.at(epoch) for epoch in range(7)]
        np.testing.assert_allclose([values[i] for i in (0, 2, 4, 6)], [1.0, middle, 0.01, 0.01], rtol=1e-12)
        assert values[:5] == sorted(values[:5], reverse=True)
    assert schedule.at(1) == 0.01 + 0.99 * (1 + np.cos(np.pi / 4)) / 2


def test_schedule_refusals() -> None:
    for options, said in (
        ({}, "either epochs= or steps="),
        ({"epochs": 1, "steps": 1}, "either epochs= or steps="),
        ({"epochs": 0}, "at least 1 long, not 0"),
        ({"epochs": 2, "shape": "square"}, "does not know the shape 'square'"),
        ({"epochs": 2, "start": -1.0}, "positive finite number, not -1.0"),
    ):
        with pytest.raises(gp.GradpassError, match=said):
            gp.keras.TemperatureSchedule(0.1, **options)
    schedule = gp.keras.TemperatureSchedule(0.1, epochs=2)
    schedule.set_model(keras.Sequential())
    with pytest.raises(gp.GradpassError, match="Sequential has no temperature; give TemperatureSchedule what"):
        schedule.on_train_begin()


def test_copies_that_nothing_uses_are_not_trained(tmp_path: Path) -> None:
    """`keras.Model.export` writes every weight twice; an optimizer would get None for the second one."""
    inputs = keras.Input([3], name="x")
    rounded = keras.layers.Lambda(tf.round, output_shape=(4,))(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(rounded))
    model.export(tmp_path / "m", verbose=False)
    gp.fix(tmp_path / "m", tmp_path / "f", cross_check=False)
    loaded = gp.load(tmp_path / "f")
    assert len(loaded.trainable_variables) == 4
    x = {"x": tf.constant(np.random.default_rng(0).normal(size=[5, 3]), tf.float32)}
    with tf.GradientTape() as tape:
        value = loss(loaded, x)
    assert all(g is not None for g in tape.gradient(value, loaded.trainable_variables))
