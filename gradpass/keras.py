"""Callbacks for training with Keras 3; they serve tf_keras too (`gradpass.keras`)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras

from gradpass.api import check
from gradpass.errors import GradientWarning, GradpassError
from gradpass.live.frameworks import loaded
from gradpass.live.keras_model import class_for
from gradpass.report.diagnostics import Report

for _module in loaded():
    class_for(_module)  # a `.keras` file of a fixed model names it


def _exponential(start: float, end: float, done: float) -> float:
    return float(start * (end / start) ** done)


def _linear(start: float, end: float, done: float) -> float:
    return start + (end - start) * done


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "exponential": _exponential,
    "linear": _linear,
    "cosine": _cosine,
}


class TemperatureSchedule(keras.callbacks.Callback):
    """Leads a model's temperature from `start` to `end` over so many epochs or steps, where it then stays.

    With s and e the two temperatures and u the part of the way that is done (0 to 1, one step after the other):
    exponential s (e / s)^u, linear s + (e - s) u, cosine e + (s - e) (1 + cos(pi u)) / 2. `model` is what
    `gradpass.load` gives, or anything else with a `temperature` variable; without it the model that is trained.
    `start` is the temperature that it has, if none is given. Steps are counted from the beginning of each `fit`, epochs
    as Keras counts them. The logs of an epoch have the temperature with which it ended.
    """

    def __init__(
        self,
        end: float,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        start: float | None = None,
        shape: Literal["exponential", "linear", "cosine"] = "exponential",
        model: Any = None,
    ) -> None:
        super().__init__()
        if (epochs is None) == (steps is None):
            raise GradpassError("TemperatureSchedule takes either epochs= or steps=, the length of the way")
        length = epochs if epochs is not None else steps
        if length is None or length < 1:
            raise GradpassError(f"the way of a TemperatureSchedule is at least 1 long, not {length}")
        if shape not in SHAPES:
            raise GradpassError(
                f"TemperatureSchedule does not know the shape {shape!r}; choose from {', '.join(SHAPES)}"
            )
        for value in (end, start):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise GradpassError(f"a temperature is a positive finite number, not {value}")
        self.start, self.end, self.length, self.by_step = start, end, length, steps is not None
        self._shape = SHAPES[shape]
        self._given = model
        self._from = end
        self._step = 0

    @property
    def temperature(self) -> Any:
        """The variable that is led."""
        target = self._given if self._given is not None else self.model
        variable = getattr(target, "temperature", None)
        if variable is None:
            raise GradpassError(
                f"{type(target).__name__} has no temperature; give TemperatureSchedule what gradpass.load returned, as "
                "model="
            )
        return variable

    def at(self, done: int) -> float:
        """The temperature after so many epochs or steps."""
        return self._shape(self._from, self.end, min(done / self.length, 1.0))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keeps the temperature that is there as the start, where none was given."""
        self._from = float(self.temperature.numpy()) if self.start is None else self.start
        self._step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the temperature of an epoch."""
        if not self.by_step:
            self.temperature.assign(self.at(epoch))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the temperature of a step."""
        if self.by_step:
            self.temperature.assign(self.at(self._step))
            self._step += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells the temperature among the metrics."""
        if logs is not None:
            logs["temperature"] = float(self.temperature.numpy())

    # tf_keras asks its callbacks for which batches they want to be called.
    def _implements_train_batch_hooks(self) -> bool:
        return self.by_step

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False


class GradientCheck(keras.callbacks.Callback):
    """Checks the model that is trained, before the first step, and probes its gradients every so many steps.

    A callback does not see the data. `data` is (x, y), a batch as `fit` takes it; with it the compiled loss is part of
    what is judged. Without it a functional or Sequential model is judged by its outputs alone, and any other refused.
    `action` is "warn" (GradientWarning with the report) or "raise" (GradientError). With `every_n_steps` (which needs
    `data`) `gradpass.probe` runs one forward and one backward pass on them after every n-th step of the training: what
    it finds is warned of once, and the norm of all gradients is among the logs of the epoch as `gradient_norm`. Nothing
    in the training changes by it.
    """

    def __init__(
        self,
        data: tuple[Any, ...] | None = None,
        *,
        action: Literal["warn", "raise"] = "warn",
        every_n_steps: int | None = None,
    ) -> None:
        super().__init__()
        if action not in ("warn", "raise"):
            raise GradpassError(f"action= is 'warn' or 'raise', not {action!r}")
        if every_n_steps is not None and every_n_steps < 1:
            raise GradpassError(f"every_n_steps= is at least 1, not {every_n_steps}")
        if every_n_steps is not None and data is None:
            raise GradpassError("every_n_steps= needs values: give data=(x, y), a batch of what is trained on")
        self.data = () if data is None else tuple(data)
        self.action, self.every_n_steps = action, every_n_steps
        self.report: Report | None = None
        self._step = 0
        self._told: set[tuple[str, str | None]] = set()
        self._norm: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks the model, with its compiled loss where there are labels."""
        self.report = check(self.model, *self.data)
        self._step = 0
        self._told.clear()
        if not self.report.ok:
            self._tell(self.report)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Probes the gradients, if it is time."""
        self._step += 1
        if self.every_n_steps is None or self._step % self.every_n_steps:
            return
        from gradpass.live.probe import probe

        found = probe(self.model, *self.data)
        self._norm = math.hypot(*(row.gradient.norm for row in found.variables if row.gradient is not None))
        new = [d for d in found.findings if d.severity != "note" and (d.code, d.node) not in self._told]
        if new:
            self._told |= {(d.code, d.node) for d in new}
            self._tell(found)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells the norm that was probed last among the metrics."""
        if logs is not None and self._norm is not None:
            logs["gradient_norm"] = self._norm

    def _tell(self, report: Any) -> None:
        if self.action == "raise":
            report.raise_for_findings()
        warnings.warn(f"gradients are missing:\n{report}", GradientWarning, stacklevel=2)

    # tf_keras asks its callbacks for which batches they want to be called.
    def _implements_train_batch_hooks(self) -> bool:
        return self.every_n_steps is not None

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False
