"""`prune` where a target is no functional Keras model: its functions, traced, without what they do not need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.flow.analysis import analyse
from gradpass.live.capsule import Capsule, Part
from gradpass.live.compiled import Outputs, read_by_loss
from gradpass.live.frameworks import has_loss, keras_of, plain
from gradpass.live.layers import narrow
from gradpass.live.mend import refuse_losses, same_values, strategy_of
from gradpass.live.parts import CALL, INFERENCE, TRAINING, added_losses, call_parts, conformed, outputs_of, serving
from gradpass.live.target import Prepared, as_tensors, positional, prepare
from gradpass.program import savedmodel
from gradpass.program.model import Variable
from gradpass.program.trace import Named, handle_of, output_names, variable_of
from gradpass.pruning.dead import Entries
from gradpass.pruning.disk import prune_to
from gradpass.pruning.prune import Pruned
from gradpass.pruning.tell import diagnostic, size_of
from gradpass.report.build import build
from gradpass.report.diagnostics import Diagnostic
from gradpass.report.pruned import PruneReport, Size
from gradpass.report.words import quoted, whom


def prune_traced(target: Any, inputs: Sequence[Any], loss: Any, only_loss: bool) -> PrunedFunction:
    """A function that gives what the target gives, on those of its variables that it needs."""
    labels: Any = None
    two = callable(loss) and not isinstance(loss, type) and positional(loss) == 2
    if len(inputs) > 1 and (two or (loss is None and has_loss(target))):
        *inputs, given = inputs
        (labels,) = as_tensors([given], keras_of(target))
    prepared = prepare(target, inputs)
    prepared.build()
    if strategy_of(prepared) is not None:
        raise GradpassError(f"{quoted(prepared.label)} is spread over replicas; prune it before the strategy's scope")
    parts, specs = call_parts(prepared)
    concrete = next(iter(parts.values())).concrete
    structure = outputs_of(concrete.structured_outputs, target)
    flat = tf.nest.flatten(structure)
    names = output_names(structure, len(flat))
    read = read_by_loss(target, loss, Outputs([[name] for name in names], structure, keras_of(target)), labels)
    everything = set(range(len(flat)))
    gone = everything - read if only_loss else set()
    if only_loss and not read:
        raise GradpassError(f"no loss reads an output of {quoted(prepared.label)}; give loss=")
    if gone:
        parts = {name: _narrowed(part, prepared, everything - gone) for name, part in parts.items()}
    capsule = Capsule(parts, _named(prepared, parts), target, prepared.label, serving(parts, specs, prepared))
    done = capsule.prune()
    made = PrunedFunction(prepared, parts, specs, capsule, done)
    report = made.report
    report.outputs = [names[place] for place in sorted(gone)]
    if not only_loss and read and read != everything:
        unread = [names[place] for place in sorted(everything - read)]
        report.diagnostics += _of_loss(capsule, done, next(iter(parts)), read, unread, len(flat))
    if done.pb is not None:
        before = build(capsule.model, [v for v in analyse(capsule.model, "all") if v.name == next(iter(parts))])
        refuse_losses(prepared, next(iter(parts.values())), before, "pruned")
        row = same_values(prepared, parts, made.functions, specs, capsule.variables)
        report.crosscheck.append(row)
        if report.failed:
            raise GradpassError(f"{quoted(prepared.label)} was not pruned: {row.told}")
    return made


class PrunedFunction(tf.Module):
    """A pruned model, module or function: called like the original, on those of its variables that it needs."""

    def __init__(
        self, prepared: Prepared, parts: dict[str, Part], specs: tuple[Any, ...], capsule: Capsule, done: Pruned
    ) -> None:
        super().__init__(name="gradpass_pruned")
        self._prepared, self._specs, self._capsule, self._done = prepared, specs, capsule, done
        self._structure = outputs_of(next(iter(parts.values())).concrete.structured_outputs, prepared.owner)
        self._losses: list[Any] = []
        root = None if done.pb is None else capsule.load_pruned(done)
        self.functions = {name: part.function if root is None else getattr(root, name) for name, part in parts.items()}
        self.report = self._report()

    def __call__(self, *inputs: Any, training: bool = False) -> Any:
        """What the original gives for these inputs; `training` is for Keras's models and layers."""
        keras = CALL not in self.functions
        run = self.functions[(TRAINING if training else INFERENCE) if keras else CALL]
        result = run(*conformed(inputs, self._specs))
        if keras:
            self._losses = list(result["losses"])
            result = result["outputs"]
        return tf.nest.pack_sequence_as(self._structure, tf.nest.flatten(result))

    @property
    def losses(self) -> list[Any]:
        """What the layers of a Keras model added in the last call, and what their regularizers make of weights."""
        owner = self._prepared.owner
        return [] if keras_of(owner) is None else [*self._losses, *added_losses(owner)[1]]

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """Those of the original's variables that are needed."""
        return tuple(self._capsule.left(self._done, self._capsule.variables))

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Those of them that are trainable."""
        trained = {handle_of(each.variable): each.trainable for each in self._capsule.listed}
        return tuple(v for v in self.variables if trained.get(handle_of(v), v.trainable))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes a SavedModel with the values that the variables have now."""
        from gradpass.loaded import write_trained

        if self._done.pb is None:
            write_trained(self._capsule.path, Path(path), self._capsule.paths, 1.0, force=force)
            return
        with tempfile.TemporaryDirectory(prefix="gradpass-") as folder:
            whole = Path(folder) / "whole"
            write_trained(self._capsule.path, whole, self._capsule.paths, 1.0)
            prune_to(
                whole,
                Path(path),
                entry="all",
                loss=None,
                without_rest=False,
                dry_run=False,
                cross_check=False,  # the values were compared when it was pruned
                force=force,
                progress=lambda _: None,
            )

    def _report(self) -> PruneReport:
        done, capsule = self._done, self._capsule
        before = size_of(savedmodel.read(capsule.path))
        after: Size | None = None if done.pb is None else size_of(done.model)
        report = PruneReport(self._prepared.label, before, after, live=True)
        left = {handle_of(variable) for variable in self.variables}
        removed = [v for v in _told(capsule) if v.key not in left]
        report.removed = [variable.path for variable in removed]
        gone = {variable.key for variable in removed}
        for layer in getattr(self._prepared.owner, "layers", ()):
            weights = {handle_of(plain(weight)) for weight in getattr(layer, "weights", ())}
            if weights and weights <= gone:
                report.layers.append(layer.name)
        if removed:
            report.diagnostics.append(diagnostic("GP220", removed))
        return report


def _named(prepared: Prepared, parts: dict[str, Part]) -> list[Named]:
    """All variables of a target, trainable or not, as its user calls them; of a function those that it reads."""
    found = {
        handle_of(each.variable): Named(each.name, each.variable, each.trainable)
        for each in prepared.listed
        if each.is_variable
    }
    owner = prepared.owner
    held = getattr(owner, "weights" if keras_of(owner) is not None else "variables", ()) if prepared.lists else ()
    for variable in [*held, *(variable for part in parts.values() for variable in part.concrete.variables)]:
        one = plain(variable)
        found.setdefault(handle_of(one), Named(prepared.name(variable), one, bool(one.trainable)))
    return list(found.values())


def _told(capsule: Capsule) -> list[Variable]:
    """The variables as a report tells them, by handle."""
    taken: set[str] = set()
    return [
        variable_of(handle_of(each.variable), each.variable, taken, each.name, each.trainable)
        for each in capsule.listed
    ]


def _narrowed(part: Part, prepared: Prepared, places: set[int]) -> Part:
    """A part that gives some of its outputs only."""
    of_keras = keras_of(prepared.owner) is not None
    inner = part.function

    def run(*inputs: Any) -> Any:
        result = inner(*inputs)
        outputs = result["outputs"] if of_keras else result
        kept = narrow(outputs, places)
        if not of_keras:
            return kept
        return {**result, "outputs": kept, "masks": [result["masks"][i] for i in sorted(places)]}

    function = tf.function(run, autograph=False)
    return Part(function, function.get_concrete_function(*part.concrete.structured_input_signature[0]))


def _of_loss(
    capsule: Capsule, done: Pruned, name: str, read: set[int], outputs: list[str], count: int
) -> list[Diagnostic]:
    """What a target needs only for outputs that no loss reads."""
    model = savedmodel.read(capsule.path)
    function = str(capsule.model.entries[name].function.name)
    width = len(model.program.function(function).results)
    # Of a Keras model other things are given before the outputs, and they count.
    kept = [i for i in range(width) if i < width - count or i - (width - count) in read]
    idle = Entries(model, [function]).used() - Entries(model, [function], results={function: kept}).used()
    handles = {handle_of(capsule.variables[index]) for number, index in capsule.places(model) if number in idle}
    left = {handle_of(variable) for variable in capsule.left(done, capsule.variables)}
    variables = [variable for variable in _told(capsule) if variable.key in handles & left]
    if not variables:
        return []
    return [diagnostic("GP221", variables, entry=quoted(capsule.label), outputs=whom(outputs, "output"))]
