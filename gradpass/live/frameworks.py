"""Keras 3 and tf_keras, whichever of them a target is made with; neither is imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from gradpass.errors import GradpassError

NAMES = ("keras", "tf_keras")


def loaded() -> list[Any]:
    """Those of Keras 3 and tf_keras that this process has imported."""
    return [sys.modules[name] for name in NAMES if name in sys.modules]


def keras_of(target: object) -> Any:
    """The module (`keras` or `tf_keras`) of whose layers the target is one; None where it is of neither."""
    for module in loaded():
        if isinstance(target, module.layers.Layer):
            _only_tensorflow(module)
            return module
    return None


def is_model(target: object) -> bool:
    """Whether the target is a Keras model, and not a mere layer."""
    module = keras_of(target)
    return module is not None and isinstance(target, module.Model)


def is_functional(model: Any) -> bool:
    """Whether a Keras model is functional or Sequential and built: then its inputs are known without data."""
    # A subclassed model has the attribute, too: None in tf_keras, an error or None in Keras 3.
    return is_model(model) and bool(getattr(model, "inputs", None)) and bool(getattr(model, "outputs", None))


def plain(variable: Any) -> tf.Variable:
    """TensorFlow's variable behind one of Keras 3; any other is what it is."""
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(variable, keras.Variable):
        return variable.value
    return variable


def name_of(variable: Any) -> str:
    """What the user calls a variable: Keras 3's path, or TensorFlow's name without `:0`."""
    path = getattr(variable, "path", None)
    return str(path if isinstance(path, str) and path else variable.name.removesuffix(":0"))


def is_variable(item: object) -> bool:
    """Whether something is a variable of TensorFlow or of Keras 3."""
    keras = sys.modules.get("keras")
    return isinstance(item, tf.Variable) or (keras is not None and isinstance(item, keras.Variable))


def floatx(module: Any) -> Any:
    """The dtype to which `fit` casts floats."""
    return tf.as_dtype(module.backend.floatx())


def has_loss(model: Any) -> bool:
    """Whether a Keras model is compiled with a loss."""
    return is_model(model) and bool(getattr(model, "loss", None))


def unique(names: Iterable[str]) -> list[str]:
    """The names, a second one of a kind with a number behind it, as TensorFlow counts."""
    taken: set[str] = set()
    found = []
    for plain_name in names:
        name, count = plain_name, 0
        while name in taken:
            count += 1
            name = f"{plain_name}_{count}"
        taken.add(name)
        found.append(name)
    return found


def _only_tensorflow(module: Any) -> None:
    backend = module.backend.backend() if hasattr(module.backend, "backend") else "tensorflow"
    if backend != "tensorflow":
        raise GradpassError(
            f"this Keras computes with {backend}, and gradpass reads TensorFlow's graphs; set KERAS_BACKEND=tensorflow"
        )
