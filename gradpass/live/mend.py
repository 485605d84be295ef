"""How a live target is repaired: traced as its parts, which a capsule carries through the repair, and loaded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.flow.analysis import analyse
from gradpass.live.capsule import SERVING, Capsule, Part
from gradpass.live.check import live_model
from gradpass.live.frameworks import is_functional, keras_of, plain
from gradpass.live.parts import (
    CALL,
    INFERENCE,
    LOSS,
    Losses,
    call_parts,
    conformed,
    loss_part,
    losses_of,
    of_output,
    outputs_of,
    serving,
)
from gradpass.live.target import Prepared, as_tensors, label_of, positional, prepare
from gradpass.program.model import Model
from gradpass.program.trace import Named
from gradpass.report.build import build
from gradpass.report.diagnostics import Report
from gradpass.report.repair import CheckRow, FixReport, plan_of
from gradpass.report.words import quoted, whom
from gradpass.rewrite.fix import Repair

# They have their ops in common with training (or the call), which is what is told.
UNTOLD = (INFERENCE, SERVING)
T = TypeVar("T")


@dataclass
class Repaired:
    """What became of a target: its functions by name, and what is to be told.

    `temperature` is read by every surrogate. `losses` are the losses by output, repaired where they severed.
    `structure` is that of what the original gives, in its own types, which a loaded function has forgotten.
    """

    functions: dict[str, Callable[..., Any]]
    specs: tuple[Any, ...]
    structure: Any
    temperature: tf.Variable
    report: FixReport
    capsule: Capsule
    losses: Losses = field(default_factory=dict)
    loss_repaired: bool = False


@dataclass
class Mended:
    """A target whose parts are repaired in their capsule, and not loaded yet."""

    prepared: Prepared
    parts: dict[str, Part]
    specs: tuple[Any, ...]
    losses: Losses
    capsule: Capsule
    done: Repair
    options: dict[str, Any]

    def load(self, always: bool = False) -> Repaired:
        """The repaired functions on the capsule's variables; where nothing is new, the traced ones if not `always`."""
        temperature = float(self.options.get("temperature", 1.0))
        if self.done.pb is None and not always:
            functions: dict[str, Any] = {name: part.function for name, part in self.parts.items()}
            variable = tf.Variable(temperature, trainable=False, name="gradpass_temperature_variable")
        else:
            root, variable = self.capsule.load(self.done, temperature)
            functions = {name: getattr(root, name) for name in self.parts}
        severed = {verdict.name for verdict in self.done.before if verdict.cuts} if self.done.pb is not None else set()
        names = loss_names(self.losses)
        losses = {
            key: functions[names[key]] if names[key] in severed else function for key, function in self.losses.items()
        }
        report = self._report()
        repaired = not severed.isdisjoint(names.values())
        structure = next(iter(self.parts.values())).concrete.structured_outputs
        return Repaired(functions, self.specs, structure, variable, report, self.capsule, losses, repaired)

    def _report(self) -> FixReport:
        before = self._verdict(self.capsule.model)
        after = self._verdict(self.done.model) if self.done.pb is not None else None
        told = {(cut.function, cut.node) for v in self.done.before if v.name not in UNTOLD for cut in v.cuts}
        self.done.plan = [step for step in self.done.plan if (step.cut.function, step.cut.node) in told]
        return FixReport(before, after, plan_of(self.done, before), [], None, live=True)

    def _verdict(self, model: Model) -> Report:
        declined = {(s.cut.function, s.cut.node): s.declined for s in self.done.plan if s.declined}
        verdicts = [verdict for verdict in analyse(model, "all") if verdict.name not in UNTOLD]
        report = build(model, verdicts, declined)
        report.target = self.prepared.label
        return report

    def check(self, new: Repaired) -> None:
        """Adds the cross-check of the values; GradpassError where it fails, or where loading lost a gradient."""
        self._refuse_losses(new)
        new.report.crosscheck.append(self._same_values(new))
        if new.report.failed:
            raise GradpassError(f"{quoted(self.prepared.label)} was not repaired: {new.report.failed[0].told}")

    def _refuse_losses(self, new: Repaired) -> None:
        refuse_losses(self.prepared, next(iter(self.parts.values())), new.report.left, "repaired")

    def _same_values(self, new: Repaired) -> CheckRow:
        """Whether the repaired call gives the original's outputs bit for bit, in inference, on the inputs given."""
        if self.options.get("mode") == "soft":
            return CheckRow("values", "skipped", None, None, "in soft mode values change")
        return same_values(self.prepared, self.parts, new.functions, self.specs, self.capsule.variables)


def refuse_losses(prepared: Prepared, part: Part, after: Report, done: str) -> None:
    """GradpassError where a gradient that flowed before does not: TensorFlow knows less of a loaded function."""
    (verdict,) = analyse(live_model(prepared, part.concrete))
    flowing = {target.name for target in verdict.targets if target.state == "flows"}
    lost = [t for t in after.targets if t.kind == "variable" and t.state != "flows" and t.name in flowing]
    if lost:
        causes = {i for target in lost for i in target.diagnostics}
        why = "; ".join(after.diagnostics[i].message for i in sorted(causes))
        names = whom([target.name for target in lost], "variable")
        raise GradpassError(
            f"{quoted(prepared.label)} was not {done}: gradpass goes through a SavedModel, and loaded from one {names} "
            f"would lose a gradient that is there now ({why})"
        )


def same_values(
    prepared: Prepared,
    parts: Mapping[str, Part],
    functions: Mapping[str, Callable[..., Any]],
    specs: tuple[Any, ...],
    variables: Iterable[Any],
) -> CheckRow:
    """Whether new functions give the bits of the traced ones, in inference, on the inputs given."""
    if not prepared.concrete_inputs:
        return CheckRow("values", "skipped", None, None, "only the shapes of the inputs were given")
    name = INFERENCE if INFERENCE in parts else CALL
    inputs = conformed(prepared.inputs, specs)
    old = parts[name].function
    first, again, third = (_bits(function, inputs, variables) for function in (old, old, functions[name]))
    if first != again:
        return CheckRow("values", "skipped", None, None, "the original gives other values each time")
    differ = sum(a != b for a, b in zip(first, third, strict=True))
    return CheckRow("values", "failed" if differ else "passed", float(differ), 0.0, None)


def _bits(function: Callable[..., Any], inputs: tuple[Any, ...], variables: Iterable[Any]) -> list[bytes]:
    """What a function gives, as bytes; variables that it assigns are as before afterwards."""
    kept = [(variable, variable.read_value()) for variable in variables]
    try:
        flat = tf.nest.flatten(function(*inputs), expand_composites=True)
        return [np.asarray(tensor).tobytes() for tensor in flat if tensor is not None]
    finally:
        for variable, value in kept:
            variable.assign(value)


def repaired(
    target: Any, inputs: Sequence[Any], *, loss: Any = None, variables: Any = None, **options: Any
) -> Repaired:
    """Traces, repairs and loads what makes a target: its call (in training and inference), and its loss.

    A Keras model on several replicas is traced as a twin that is on none, and loaded again on its own variables.
    """
    losses = losses_of(target, loss)
    labels: Any = None
    if losses and max(positional(each) for each in losses.values() if each is not None) == 2:
        # Compiled with a loss, a model is still fixed without it where no labels are given.
        if len(inputs) > 1:
            *inputs, given = inputs
            (labels,) = as_tensors([given], keras_of(target))
        elif loss is not None:
            raise GradpassError("the loss takes labels and outputs; give the labels as the last input")
        else:
            losses = {}
    prepared = prepare(target, inputs, None, variables)
    prepared.build()
    strategy = strategy_of(prepared)
    if strategy is None:
        mended = _mended(prepared, labels, losses, options)
        new = mended.load()
        if new.report.repaired:
            mended.check(new)
        return new

    def traced() -> tuple[Any, Mended, list[CheckRow]]:
        twin = _twin(target)
        mended = _mended(prepare(twin, inputs, None), labels, losses, options)
        first = mended.load(always=True)
        if first.report.repaired:
            mended.check(first)
        return twin, mended, first.report.crosscheck

    twin, mended, checks = _outside(traced)
    mended.capsule.bind(twin.variables, target.variables)
    with strategy.scope():
        new = mended.load(always=True)
    new.report.crosscheck = checks
    return new


def loss_names(losses: Losses) -> dict[str | int | None, str]:
    """What the parts of the losses are called."""
    return {key: f"{LOSS}_{i}" if i else LOSS for i, key in enumerate(losses)}


def _mended(prepared: Prepared, labels: Any, losses: Losses, options: dict[str, Any]) -> Mended:
    """Traces a target and its losses, and repairs them in a capsule."""
    parts, specs = call_parts(prepared)
    concrete = next(iter(parts.values())).concrete
    outputs = outputs_of(concrete.structured_outputs, prepared.owner)
    signature = serving(parts, specs, prepared)
    for key, name in loss_names(losses).items():
        function = losses[key]
        if function is not None:
            owner = prepared.owner
            parts[name] = loss_part(function, prepared, of_output(key, labels, owner), of_output(key, outputs, owner))
    named = [Named(each.name, each.variable, each.trainable) for each in prepared.listed if each.is_variable]
    capsule = Capsule(parts, named, prepared.owner, prepared.label, signature)
    return Mended(prepared, parts, specs, losses, capsule, capsule.repair(**options), options)


def strategy_of(prepared: Prepared) -> Any:
    """The strategy over whose replicas the variables of a target are spread; None where they are not."""
    held = [plain(variable) for variable in getattr(prepared.owner, "variables", ())]
    spread = [v for v in held if isinstance(v, tf.distribute.DistributedValues)]
    if not spread:
        return None
    if not is_functional(prepared.owner):
        raise GradpassError(
            f"{label_of(prepared.owner)} is spread over replicas, and only of a functional or Sequential model can "
            "gradpass make a twin to trace; give gradpass the model before the strategy's scope, or make it functional"
        )
    return spread[0].distribute_strategy


def _twin(model: Any) -> Any:
    """A model of the same layers and values on no strategy."""
    keras = keras_of(model)

    def clone(layer: Any) -> Any:
        # A Lambda has nothing to clone, and would lose the names that its function reads.
        return layer if isinstance(layer, keras.layers.Lambda) else type(layer).from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def _outside(work: Callable[[], T]) -> T:
    """Does something under no strategy: TensorFlow keeps the current one by thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
