"""A repaired Keras model as a model of the same Keras: `compile`, `fit` and `evaluate` work on it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.live.compiled import config_of
from gradpass.live.fixed import save
from gradpass.live.frameworks import has_loss, is_functional, keras_of
from gradpass.live.mend import Repaired, repaired
from gradpass.live.parts import INFERENCE, TRAINING, added_losses, conformed
from gradpass.report.diagnostics import Report
from gradpass.report.repair import FixReport, Plan

PACKAGE, NAME = "gradpass", "FixedModel"


def fixed_model(original: Any, done: Repaired, options: Mapping[str, Any]) -> Any:
    """The repaired model; compiled like the original, with its optimizer, and with its loss repaired."""
    model = class_for(keras_of(original))(original, done=done, options=dict(options))
    if has_loss(original):
        given = config_of(original)
        given |= {"optimizer": original.optimizer, "loss": _compiled(original.loss, done)}
        model.compile(**given)
    return model


@cache
def class_for(keras: Any) -> Any:
    """The class of repaired models of one Keras, known to it by name, so that a `.keras` file loads again."""

    class FixedModel(keras.Model):
        """A repaired model: called like the original, on the same variables.

        A `.keras` file of it holds the original and the options of the repair, which is done again when it is loaded:
        that needs `import gradpass.keras`. `save` to any other path writes a SavedModel.
        """

        def __init__(
            self, original: Any, done: Repaired | None = None, options: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            kwargs.setdefault("name", f"{original.name}_fixed")
            # The traced functions cast by themselves, as the original does.
            super().__init__(dtype=_policy(original), autocast=False, **kwargs)
            self.original = original
            names = getattr(original, "output_names", None)
            if names:
                self.output_names = list(names)  # by which `compile` finds losses in a dict
            options = options or {}
            # In a plain object, where Keras does not look for variables.
            self._gradpass = _Held(repaired(original, (), **options) if done is None else done, options)
            self.built = True

        def __reduce__(self) -> Any:
            with self._one_optimizer():
                return super().__reduce__()

        @contextmanager
        def _one_optimizer(self) -> Iterator[None]:
            """Keras writes the state of an optimizer once, where it meets it first, and reads it at this model."""
            optimizer, self.original.optimizer = getattr(self.original, "optimizer", None), None
            try:
                yield
            finally:
                self.original.optimizer = optimizer

        def train_step(self, *data: Any) -> Any:
            """Keras's own step; one that the original wrote itself is not this model's."""
            _refuse_own(self.original, keras, ("train_step", "compute_loss"))
            return super().train_step(*data)

        def test_step(self, *data: Any) -> Any:
            """Keras's own step; one that the original wrote itself is not this model's."""
            _refuse_own(self.original, keras, ("test_step", "compute_loss"))
            return super().test_step(*data)

        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            """What the original gives for these inputs."""
            held = self._gradpass
            given = inputs if len(held.done.specs) > 1 else [inputs]
            run = held.done.functions[TRAINING if training else INFERENCE]
            result = run(*conformed(given, held.done.specs))
            held.losses = list(result["losses"])
            outputs = result["outputs"]
            for tensor, each in zip(tf.nest.flatten(outputs), result["masks"], strict=True):
                if each is not None:
                    tensor._keras_mask = each
            return outputs

        @property
        def losses(self) -> list[Any]:
            """What the layers of the original added in the last call, and what their regularizers make of weights."""
            return [*self._gradpass.losses, *added_losses(self.original)[1]]

        @property
        def fixed_for(self) -> tuple[Any, ...]:
            """The specs of the inputs that it was traced with."""
            return self._gradpass.done.specs

        @property
        def temperature(self) -> tf.Variable:
            """What every surrogate reads, from the next step on."""
            return self._gradpass.done.temperature

        @property
        def loss_fn(self) -> Callable[..., Any] | None:
            """The loss that the original is compiled with, or that was given, with a gradient."""
            return next(iter(self._gradpass.done.losses.values()), None)

        @property
        def report(self) -> FixReport:
            """What was found, done and checked."""
            return self._gradpass.done.report

        @property
        def plan(self) -> Plan:
            """What was done about each finding, or why nothing was."""
            return Plan(self.report)

        @property
        def before(self) -> Report:
            """The verdict on the original."""
            return self.report.before

        @property
        def after(self) -> Report:
            """The verdict on what is repaired."""
            return self.report.left

        def save(self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: Any) -> None:
            """A `.keras` file, or a SavedModel under any other path."""
            if Path(filepath).suffix in (".keras", ".h5"):
                with self._one_optimizer():
                    super().save(filepath, overwrite=overwrite, **kwargs)
            else:
                save(self._gradpass.done, Path(filepath), force=overwrite)

        def export(self, filepath: str | os.PathLike[str], *_: Any, **__: Any) -> None:
            """A SavedModel, as `save` writes it."""
            self.save(filepath)

        def get_config(self) -> dict[str, Any]:
            """The original, and the options of the repair."""
            if not is_functional(self.original):
                raise GradpassError(
                    f"{self.original.name} does not know its inputs, so that it cannot be repaired again from a .keras "
                    "file; save a SavedModel, or give gradpass.fix a functional or Sequential model"
                )
            unknown = [name for name, value in self._gradpass.options.items() if callable(value)]
            if unknown:
                raise GradpassError(f"{', '.join(unknown)}= cannot be written into a .keras file; save a SavedModel")
            original = keras.saving.serialize_keras_object(self.original)
            # The optimizer is one, and this model's; what the original was compiled with would claim its state, too.
            original.pop("compile_config", None)
            return {"name": self.name, "original": original, "options": self._gradpass.options}

        def get_compile_config(self) -> Any:
            """As Keras has it; nothing where the loss was repaired, which no configuration can hold."""
            return None if self._gradpass.done.loss_repaired else super().get_compile_config()

        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
            """The original made anew and repaired again."""
            original = keras.saving.deserialize_keras_object(config["original"], custom_objects=custom_objects)
            return cls(original, options=config["options"], name=config["name"])

    # Where pickle looks for it.
    FixedModel.__qualname__ = FixedModel.__name__ = f"{NAME}_{keras.__name__}"
    return keras.saving.register_keras_serializable(PACKAGE, NAME)(FixedModel)


def __getattr__(name: str) -> Any:
    """The classes, by their names."""
    if name.startswith(f"{NAME}_"):
        return class_for(importlib.import_module(name.removeprefix(f"{NAME}_")))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _refuse_own(original: Any, keras: Any, methods: tuple[str, ...]) -> None:
    """Refuses to train by Keras's step what is trained by another."""
    own = [name for name in methods if getattr(type(original), name, None) is not getattr(keras.Model, name, None)]
    if own:
        raise GradpassError(
            f"{original.name} has a {own[0]} of its own, which a fixed model does not run; call the fixed model in a "
            "training loop, or in that method in the place of `self(x)`"
        )


class _Held:
    """What belongs to a repaired model and is no layer or variable of it."""

    def __init__(self, done: Repaired, options: dict[str, Any]) -> None:
        self.done = done
        self.options = options
        self.losses: list[Any] = []


def _policy(original: Any) -> Any:
    return getattr(original, "dtype_policy", None) or original.dtype


def _compiled(loss: Any, done: Repaired) -> Any:
    """The losses that the original is compiled with, each with its repaired function in its place."""
    if not done.loss_repaired:
        return loss
    new = done.losses
    if isinstance(loss, dict):
        return {name: _with_function(each, new[name]) for name, each in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [_with_function(each, new[place]) for place, each in enumerate(loss)]
    return _with_function(loss, new[None])


def _with_function(loss: Any, function: Any) -> Any:
    """A loss that computes by another function; an object keeps its reduction."""
    if function is None or not hasattr(loss, "call"):
        return function or loss
    changed = object.__new__(type(loss))  # copy.copy would have Keras write it to a file and read it again
    vars(changed).update(vars(loss), call=function)
    return changed
