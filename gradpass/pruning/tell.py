"""What a pruning found, in the words of a report."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from gradpass.errors import TargetError
from gradpass.program.model import UNNAMED, Entry, Model, Variable
from gradpass.pruning.dead import Entries
from gradpass.pruning.needs import Needs
from gradpass.pruning.outputs import split_outputs
from gradpass.pruning.prune import Pruned
from gradpass.report.build import bytes_of
from gradpass.report.codes import find
from gradpass.report.diagnostics import Diagnostic, Fix
from gradpass.report.pruned import Size
from gradpass.report.words import quoted, size, whom


def size_of(model: Model, on_disk: int | None = None) -> Size:
    """How large a model is, and on disk if that is known."""
    program = model.program
    nodes = len(program.graph.nodes) + sum(len(program.function(name).nodes) for name in program.functions)
    parameters = sum(variable.parameters for variable in model.variables.values())
    return Size(nodes, len(list(program.functions)), len(model.variables), parameters, on_disk)


def findings(model: Model, done: Pruned, entry: str | None, loss: Collection[str] | None = None) -> list[Diagnostic]:
    """The three kinds: dead for all, dead for the loss of an entry, alive for other entries only."""
    found = []
    if done.removed:
        found.append(diagnostic("GP220", done.removed))
    chosen = _chosen(model, entry)
    if chosen is not None:
        removed = {variable.key for variable in done.removed}
        found += _of_loss(model, chosen, loss, removed)
        found += _of_others(model, chosen, removed)
    return found


def _chosen(model: Model, entry: str | None) -> Entry | None:
    try:
        (chosen,) = model.entry(entry)
    except (TargetError, ValueError):
        if entry is not None and entry != "all":
            raise
        return None
    return chosen


def _of_loss(model: Model, entry: Entry, loss: Collection[str] | None, removed: set[Any]) -> list[Diagnostic]:
    """What an entry needs for outputs only of which no loss is made."""
    read, unread = split_outputs(entry, loss)
    if not read or not unread:
        return []
    idle = _used(model, entry) - _used(model, entry, read) - removed
    variables = [model.variables[key] for key in model.variables if key in idle]
    if not variables:
        return []
    outputs = [list(entry.outputs)[i] for i in unread]
    return [diagnostic("GP221", variables, entry=quoted(entry.name), outputs=whom(outputs, "output"))]


def _used(model: Model, entry: Entry, results: list[int] | None = None) -> set[Any]:
    """The variables that an entry needs for all of its outputs, or for some."""
    if model.objects is not None:
        name = str(entry.function.name)
        return Entries(model, [name], results=None if results is None else {name: results}).used()
    needs = Needs(model.program)
    needs.need(value for i, value in enumerate(entry.outputs.values()) if results is None or i in results)
    return {name for name in model.variables if model.program.graph.by_name[name] in needs.nodes}


def _of_others(model: Model, entry: Entry, removed: set[Any]) -> list[Diagnostic]:
    """What other signatures, or functions that are none, need alone."""
    by_name = {name: _used(model, other) for name, other in model.entries.items() if name != entry.name}
    theirs = set().union(*by_name.values())
    if model.objects is not None:
        theirs |= Entries(model).used()
    alone = theirs - _used(model, entry)
    variables = [v for key, v in model.variables.items() if key in alone and key not in removed]
    if not variables:
        return []
    wanted = {variable.key for variable in variables}
    named = [name for name, used in by_name.items() if not wanted.isdisjoint(used)]
    told = whom(named, "signature") if named else "functions that are no signatures"
    return [diagnostic("GP222", variables, entry=quoted(entry.name), others=told)]


def diagnostic(number: str, variables: Iterable[Variable], **words: str) -> Diagnostic:
    code = find(number)
    listed = list(variables)
    names = [_label(variable) for variable in listed]
    words |= {"whom": whom(names, "variable"), "bytes": size(sum(map(bytes_of, listed)))}
    return Diagnostic(
        code.code,
        code.name,
        code.severity,
        code.message.format(**words),
        code.advice(),
        unused=names,
        parameters=sum(variable.parameters for variable in listed),
        fix=Fix(code.fix or "prune"),
    )


def _label(variable: Variable) -> str:
    """The path of a variable, which is its own, and its name where that says more."""
    named = variable.name in variable.path or UNNAMED.match(variable.name)
    return variable.path if named else f"{variable.path} ({variable.name})"
