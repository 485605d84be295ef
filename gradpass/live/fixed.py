"""`fix` on live targets: the same function with a gradient, on the same variables."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradpass.errors import GradientWarning, GradpassError
from gradpass.flow.analysis import analyse
from gradpass.live.capsule import Capsule, Part
from gradpass.live.frameworks import keras_of
from gradpass.live.parts import CALL, INFERENCE, LOSS, call_parts, loss_part, losses_of, outputs_of, serving
from gradpass.live.target import Prepared, as_tensors, positional, prepare
from gradpass.program.trace import Named
from gradpass.report.build import build
from gradpass.report.diagnostics import Report
from gradpass.report.repair import CheckRow, FixReport, Plan, plan_of
from gradpass.report.words import quoted


@dataclass
class Repaired:
    """What became of a target: its functions by name, and what is to be told.

    `temperature` is read by every surrogate. `losses` are the parts of the loss, in the order of the outputs.
    """

    functions: dict[str, Callable[..., Any]]
    specs: tuple[Any, ...]
    temperature: tf.Variable
    report: FixReport
    capsule: Capsule | None
    losses: list[Callable[..., Any] | None] = field(default_factory=list)
    loss_repaired: bool = False


def fix(target: Any, inputs: Sequence[Any], *, loss: Any = None, variables: Any = None, **options: Any) -> Any:
    """A repaired copy of a live target, which trains the target's own variables.

    Of a Keras model it is a keras.Model (of that Keras), else a tf.Module. `options` go to `rewrite.fix.repair`.
    """
    from gradpass.live.keras_model import fixed_model

    done = repaired(target, inputs, loss=loss, variables=variables, **options)
    if not done.report.ok:
        warnings.warn(f"some gradients stay missing:\n{done.report.left}", GradientWarning, stacklevel=3)
    if keras_of(target) is not None:
        settings = {"loss": loss, **options} if loss is not None else options
        return fixed_model(target, done, settings)
    return Fixed(target, done)


class Fixed(tf.Module):
    """A repaired function or module: called like the original, on the same variables.

    `temperature` is read by every surrogate, from the next tape on. `loss_fn` is the repaired loss, if one was given.
    """

    def __init__(self, original: Any, done: Repaired) -> None:
        super().__init__(name="gradpass_fixed")
        self._original = original
        self._done = done
        self.temperature = done.temperature

    def __call__(self, *inputs: Any) -> Any:
        """What the original gives for these inputs."""
        return self._done.functions[CALL](*conformed(inputs, self._done.specs))

    @property
    def loss_fn(self) -> Callable[..., Any] | None:
        """The loss that was given, with a gradient."""
        return self._done.losses[0] if self._done.losses else None

    @property
    def report(self) -> FixReport:
        """What was found, done and checked."""
        return self._done.report

    @property
    def plan(self) -> Plan:
        """What was done about each finding, or why nothing was."""
        return Plan(self._done.report)

    @property
    def before(self) -> Report:
        """The verdict on the original."""
        return self._done.report.before

    @property
    def after(self) -> Report:
        """The verdict on what is repaired."""
        return self._done.report.left

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """The variables of the original."""
        own = getattr(self._original, "variables", None)
        if own is None:
            own = self._done.capsule.variables if self._done.capsule else ()
        return tuple(own)

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Those of them that are trainable."""
        return tuple(v for v in self.variables if v.trainable)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes a SavedModel with the values that variables and temperature have now; `gradpass.load` reads it."""
        save(self._done, Path(path), force=force)


def save(done: Repaired, path: Path, *, force: bool) -> None:
    """Writes what was repaired as a SavedModel."""
    from gradpass.loaded import write_trained

    assert done.capsule is not None
    value = float(done.temperature.numpy())
    write_trained(done.capsule.path, path, done.capsule.paths, value, force=force)


def repaired(
    target: Any, inputs: Sequence[Any], *, loss: Any = None, variables: Any = None, **options: Any
) -> Repaired:
    """Traces, repairs and loads what makes a target: its call (in training and inference), and its loss."""
    losses = losses_of(target, loss)
    labels: tuple[Any, ...] = ()
    if losses and max(positional(each) for each in losses if each is not None) == 2:
        # Compiled with a loss, a model is still fixed without one where no labels are given.
        if len(inputs) > 1:
            *inputs, given = inputs
            labels = tuple(as_tensors([given], keras_of(target)))
        elif loss is not None:
            raise GradpassError("the loss takes labels and outputs; give the labels as the last input")
        else:
            losses = []
    prepared = prepare(target, inputs, None, variables)
    parts, specs = call_parts(prepared)
    concrete = next(iter(parts.values())).concrete
    outputs = outputs_of(concrete.structured_outputs, target)
    names: list[str | None] = []
    for i, function in enumerate(losses):
        name = f"{LOSS}_{i}" if i else LOSS
        names.append(None if function is None else name)
        if function is not None:
            several = len(losses) > 1
            output = tf.nest.flatten(outputs)[i] if several else outputs
            label = tf.nest.flatten(labels)[i] if several and labels else next(iter(labels), None)
            parts[name] = loss_part(function, prepared, label, output)
    named = [Named(each.name, each.variable, each.trainable) for each in prepared.listed if each.is_variable]
    capsule = Capsule(parts, named, target, prepared.label, serving(parts, specs, prepared))
    done = capsule.repair(**options)
    before = _report(capsule, capsule.model, done)
    after = _report(capsule, done.model, done) if done.pb is not None else None
    temperature = float(options.get("temperature", 1.0))
    functions: dict[str, Any] = {name: part.function for name, part in parts.items()}
    variable = tf.Variable(temperature, trainable=False, name="gradpass_temperature_variable")
    if done.pb is not None:
        root, variable = capsule.load(done, temperature)
        functions = {name: getattr(root, name) for name in parts}
    told = {(cut.function, cut.node) for v in done.before if v.name != INFERENCE for cut in v.cuts}
    done.plan = [step for step in done.plan if (step.cut.function, step.cut.node) in told]
    report = FixReport(before, after, plan_of(done, before), [], None, live=True)
    result = Repaired(functions, specs, variable, report, capsule)
    severed = {verdict.name for verdict in done.before if verdict.cuts}
    result.losses = [
        (functions[name] if name in severed else function) if name else None
        for name, function in zip(names, losses, strict=True)
    ]
    result.loss_repaired = done.pb is not None and not severed.isdisjoint(filter(None, names))
    if after is not None:
        report.crosscheck.append(_same_values(prepared, parts, result, options.get("mode", "straight-through")))
        if report.failed:
            raise GradpassError(f"{quoted(prepared.label)} was not repaired: {report.failed[0].told}")
    return result


def conformed(inputs: Sequence[Any], specs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs as the traced function takes them: tensors of its dtypes and ranks, in its structure."""
    if len(inputs) != len(specs):
        raise TypeError(f"{len(specs)} inputs are taken, not {len(inputs)}")
    given, wanted = tf.nest.flatten(list(inputs)), tf.nest.flatten(list(specs))
    if len(given) != len(wanted):
        raise TypeError(f"{len(wanted)} tensors are taken as inputs, not {len(given)}")
    flat = [_conform(value, spec) for value, spec in zip(given, wanted, strict=True)]
    return tuple(tf.nest.pack_sequence_as(list(specs), flat))


def _conform(value: Any, spec: Any) -> Any:
    if not isinstance(spec, tf.TensorSpec):
        return value
    tensor = tf.convert_to_tensor(value) if tf.is_tensor(value) else tf.convert_to_tensor(np.asarray(value))
    if tensor.dtype != spec.dtype:
        tensor = tf.cast(tensor, spec.dtype)
    rank = spec.shape.rank
    if rank is not None and tensor.shape.rank == rank - 1 and spec.shape[-1] == 1:
        return tensor[..., tf.newaxis]  # as Keras's functional models do
    if not spec.shape.is_compatible_with(tensor.shape):
        raise TypeError(
            f"an input of the shape {spec.shape} is taken, not {tensor.shape}; give gradpass.fix a "
            f"tf.TensorSpec with None for what varies"
        )
    return tensor


def _report(capsule: Capsule, model: Any, done: Any) -> Report:
    declined = {(s.cut.function, s.cut.node): s.declined for s in done.plan if s.declined}
    # Training and inference have their ops in common; what is trained is what is told.
    verdicts = [verdict for verdict in analyse(model, "all") if verdict.name != INFERENCE]
    report = build(model, verdicts, declined)
    report.target = capsule.label
    return report


def _same_values(prepared: Prepared, parts: dict[str, Part], result: Repaired, mode: str) -> CheckRow:
    """Whether the repaired call gives the original's outputs bit for bit, in inference, on the inputs given."""
    name = "values"
    if mode == "soft":
        return CheckRow(name, "skipped", None, None, "in soft mode values change")
    if not prepared.concrete_inputs:
        return CheckRow(name, "skipped", None, None, "only the shapes of the inputs were given")
    key = INFERENCE if INFERENCE in parts else CALL
    inputs = conformed(prepared.inputs, result.specs)
    kept = [(v, v.read_value()) for v in (result.capsule.variables if result.capsule else ())]
    try:
        runs = []
        for function in (parts[key].function, parts[key].function, result.functions[key]):
            flat = tf.nest.flatten(function(*inputs), expand_composites=True)
            runs.append([np.asarray(t).tobytes() for t in flat if t is not None])
            for variable, value in kept:
                variable.assign(value)
    finally:
        for variable, value in kept:
            variable.assign(value)
    first, again, new = runs
    if first != again:
        return CheckRow(name, "skipped", None, None, "the original gives other values each time")
    differ = sum(a != b for a, b in zip(first, new, strict=True))
    return CheckRow(name, "failed" if differ else "passed", float(differ), 0.0, None)
