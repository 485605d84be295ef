"""`gradpass.keras.GradientCheck` in the training of Keras 3 and tf_keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from tests.live.models import LAYERS, ArgmaxModel, wrong

X = np.float32(np.random.default_rng(0).random((32, 3)))
Y = np.float32(np.random.default_rng(1).random((32, 2)))
BATCH = (X[:8], Y[:8])
both = pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])


def rounding(module: Any) -> Any:
    model = module.Sequential(
        [module.layers.Input((3,)), module.layers.Dense(4), LAYERS[module.__name__](), module.layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    return model


def healthy(module: Any) -> Any:
    module.utils.set_random_seed(1)
    model = module.Sequential(
        [
            module.layers.Input((3,)),
            module.layers.Dense(4, "tanh"),
            module.layers.BatchNormalization(),
            module.layers.Dropout(0.3),
            module.layers.Dense(2),
        ]
    )
    model.compile("adam", "mse")
    return model


@both
def test_it_names_op_and_line_where_keras_only_warns(module: Any) -> None:
    model = rounding(module)
    check = gp.keras.GradientCheck()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, verbose=0, callbacks=[check])
    (ours,) = [str(w.message) for w in caught if w.category is gp.GradientWarning]
    assert "GP103" in ours and "return tf.round(3.0 * x)" in ours and check.report is not None
    if module is keras:
        assert any("Gradients do not exist for variables" in str(w.message) for w in caught)


@both
def test_it_raises_before_the_first_step_if_it_is_to(module: Any) -> None:
    model = rounding(module)
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(gp.GradientError, match="GP103"):
        model.fit(X, Y, verbose=0, callbacks=[gp.keras.GradientCheck(action="raise")])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_with_data_the_compiled_loss_is_judged_too() -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", wrong)
    with pytest.raises(gp.GradientError, match="GP103"):
        model.fit(X, Y, verbose=0, callbacks=[gp.keras.GradientCheck((X[:4], Y[:4]), action="raise")])


@both
def test_a_subclassed_model_needs_data(module: Any) -> None:
    model = ArgmaxModel(module)
    model.compile("sgd", "mse")
    with pytest.raises(gp.GradpassError, match="does not say what it takes"):
        model.fit(X, Y, verbose=0, callbacks=[gp.keras.GradientCheck()])
    with pytest.raises(gp.GradientError, match="GP102"):
        model.fit(X, Y, verbose=0, callbacks=[gp.keras.GradientCheck((X, Y), action="raise")])


@both
@pytest.mark.parametrize(
    "options",
    [{}, {"data": (X[:8], Y[:8])}, {"data": (X[:8], Y[:8]), "every_n_steps": 2}],
    ids=["bare", "data", "probe"],
)
def test_training_is_what_it_was_without_it(module: Any, options: dict[str, Any]) -> None:
    plain = healthy(module).fit(X, Y, epochs=3, batch_size=8, verbose=0, shuffle=False).history
    with warnings.catch_warnings():
        warnings.simplefilter("error", gp.GradientWarning)
        watched = healthy(module).fit(
            X, Y, epochs=3, batch_size=8, verbose=0, shuffle=False, callbacks=[gp.keras.GradientCheck(**options)]
        )
    assert watched.history["loss"] == plain["loss"]
    if "every_n_steps" in options:
        norms = watched.history["gradient_norm"]
        assert len(norms) == 3 and all(np.isfinite(norms)) and min(norms) > 0.0


@both
def test_a_probe_warns_of_each_thing_once(module: Any) -> None:
    model = module.Sequential([module.layers.Input((3,)), module.layers.Dense(4, "relu"), module.layers.Dense(2)])
    model.compile(module.optimizers.SGD(0.0), "mse")
    model.layers[0].bias.assign([-100.0] * 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check = gp.keras.GradientCheck((X, Y), every_n_steps=1)
        model.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[check])
    ours = [str(w.message) for w in caught if w.category is gp.GradientWarning]
    assert len(ours) == 1 and "GP310" in ours[0]


def test_in_a_compiled_step_of_several_and_on_replicas() -> None:
    model = healthy(keras)
    model.compile("sgd", "mse", jit_compile=True, steps_per_execution=2)
    history = model.fit(X, Y, batch_size=8, verbose=0, callbacks=[gp.keras.GradientCheck((X, Y), every_n_steps=2)])
    assert "gradient_norm" in history.history
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = healthy(keras)
    mirrored.fit(X, Y, verbose=0, callbacks=[gp.keras.GradientCheck(action="raise")])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: gp.keras.GradientCheck(action="stop"), "'warn' or 'raise'"),
        (lambda: gp.keras.GradientCheck(every_n_steps=5), r"give data=\(x, y\)"),
        (lambda: gp.keras.GradientCheck((X, Y), every_n_steps=0), "at least 1"),
    ],
)
def test_refusals(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(gp.GradpassError, match=says):
        make()
