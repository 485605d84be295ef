"""What a pruning found, in the words of a report."""

from __future__ import annotations

from collections.abc import Iterable

from gradpass.errors import TargetError
from gradpass.program.model import Entry, Model, Variable
from gradpass.pruning.dead import Entries, exported
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


def findings(model: Model, done: Pruned, entry: str | None) -> list[Diagnostic]:
    """The three kinds: dead for all, dead for the loss of an entry, alive for other entries only."""
    found = []
    if done.removed:
        found.append(_diagnostic("GP220", done.removed))
    chosen = _chosen(model, entry)
    if chosen is not None and model.objects is not None:
        found += _of_loss(model, chosen)
        found += _of_others(model, chosen, {variable.key for variable in done.removed})
    return found


def _chosen(model: Model, entry: str | None) -> Entry | None:
    try:
        (chosen,) = model.entry(entry)
    except (TargetError, ValueError):
        if entry is not None and entry != "all":
            raise
        return None
    return chosen


def _of_loss(model: Model, entry: Entry) -> list[Diagnostic]:
    """What an entry needs for outputs only of which no loss is made: those that are no floats."""
    read, unread = split_outputs(entry)
    if not read or not unread:
        return []
    name = str(entry.function.name)
    idle = Entries(model, [name]).used() - Entries(model, [name], results={name: read}).used()
    variables = [model.variables[key] for key in model.variables if key in idle]
    if not variables:
        return []
    outputs = [list(entry.outputs)[i] for i in unread]
    return [_diagnostic("GP221", variables, entry=quoted(entry.name), outputs=whom(outputs, "output"))]


def split_outputs(entry: Entry) -> tuple[list[int], list[int]]:
    """The places of the outputs of which a loss can be made, and of the others."""
    from gradpass.flow.facts import is_float

    values = list(entry.outputs.values())
    read = [i for i, value in enumerate(values) if is_float(value.dtype)]
    return read, [i for i in range(len(values)) if i not in read]


def _of_others(model: Model, entry: Entry, removed: set[int]) -> list[Diagnostic]:
    assert model.objects is not None
    mine = Entries(model, [str(entry.function.name)]).used()
    everybody = Entries(model).used()
    variables = [v for key, v in model.variables.items() if key in everybody - mine and key not in removed]
    if not variables:
        return []
    wanted = {variable.key for variable in variables}
    own = str(entry.function.name)
    labels = {str(other.function.name): name for name, other in model.entries.items()}
    others = [n for n in exported(model.objects) if n != own and not wanted.isdisjoint(Entries(model, [n]).used())]
    named = dict.fromkeys(labels[name] for name in others if name in labels)
    told = whom(list(named), "signature") if named else "functions that are no signatures"
    return [_diagnostic("GP222", variables, entry=quoted(entry.name), others=told)]


def _diagnostic(number: str, variables: Iterable[Variable], **words: str) -> Diagnostic:
    code = find(number)
    listed = list(variables)
    names = [variable.path for variable in listed]
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
