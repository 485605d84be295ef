"""The zoo: models by others with random weights, each family of them a file, found by its name.

A family's module has `MODELS`: a name and a function that makes the model. It imports what only it needs when it makes
one, so that the names of all models are known where not every package is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Made:
    """A model: `call` takes what `specs` say and uses variables of `root` (a dict, a module, a Keras layer)."""

    root: Any
    call: Callable[..., Any]
    specs: tuple[tf.TensorSpec, ...]

    def live(self) -> Any:
        """Traces the model anew and gives its concrete function."""
        return tf.function(self.call, input_signature=self.specs).get_concrete_function()

    def save(self, out: Path) -> None:
        """Writes the model as a SavedModel with a `serving_default`."""
        module = tf.Module()
        module.root = self.root
        # Keras hides the seeds of its noise from tf.Module.
        module.state = list(getattr(self.root, "non_trainable_variables", ()))
        tf.saved_model.save(module, str(out), signatures=tf.function(self.call, input_signature=self.specs))


Make = Callable[[], Made]


def serve(root: Any, call: Callable[..., Any], *specs: tf.TensorSpec) -> Made:
    """Makes a model of a function."""
    return Made(root, call, specs)


def zoo() -> dict[str, Make]:
    """Gives what makes each model, by "family/model"."""
    found: dict[str, Make] = {}
    for module in sorted(iter_modules(__path__), key=lambda module: module.name):
        models: Mapping[str, Make] = import_module(f"{__name__}.{module.name}").MODELS
        found |= {f"{module.name}/{name}": make for name, make in models.items()}
    return found
