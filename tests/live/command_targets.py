"""Targets that `gradpass probe` is given by name."""

from __future__ import annotations

from typing import Any

import keras

from tests.live.probed import FAR, dead, masked_by_lengths

__all__ = ["dead", "dead_model", "healthy", "masked_by_lengths", "two_inputs"]


def healthy() -> Any:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def dead_model() -> Any:
    start = keras.initializers.Constant(FAR)
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "relu", bias_initializer=start)])


def two_inputs() -> Any:
    """A model of two inputs of one shape, of which only one is masked by the other."""
    values, mask = keras.Input((3,), name="values"), keras.Input((3,), name="mask")
    hidden = keras.layers.Multiply()([keras.layers.Dense(3)(values), mask])
    model = keras.Model([values, mask], keras.layers.Dense(1)(hidden))
    model.compile("sgd", "mse")
    return model
