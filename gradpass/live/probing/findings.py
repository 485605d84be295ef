"""From what a pass gave to findings: the causes in words, with the user's line and whom they starve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradpass.live.probing import reasons
from gradpass.live.probing.blame import Blame, Cause
from gradpass.live.probing.depth import Apart, apart
from gradpass.live.probing.layers import Layers
from gradpass.live.probing.run import WHOLE, Passed
from gradpass.program.trace import LIVE
from gradpass.report.codes import find
from gradpass.report.diagnostics import Diagnostic, Fix
from gradpass.report.probe import LayerRow
from gradpass.report.words import count, plural, quoted, whom

MOSTLY = 0.9  # of an activation's units
FEW = 8  # units, of which nine in ten says nothing
ORDER = {"error": 0, "warning": 1, "note": 2}


def findings(passed: Passed, layers: Layers, rows: list[LayerRow]) -> list[Diagnostic]:
    """All findings, the worst first."""
    blame = Blame(passed)
    blame.not_finite()
    if not any(cause.code == "GP400" for cause in blame.causes.values()):
        blame.zeros()
    found = [_diagnostic(cause, passed, layers) for cause in blame.causes.values()]
    wrong = {"GP400", "GP401", "GP402", "GP404"} & {d.code for d in found}
    if not wrong:
        vanished, exploded = apart(rows, layers.behind())
        found += [_depth("GP314", vanished, passed)] if vanished else []
        found += [_depth("GP403", exploded, passed)] if exploded else []
    blamed = {cause.op.name for cause in blame.causes.values()}
    found += _mostly_dead(passed, layers, blamed)
    return sorted(found, key=lambda d: ORDER[d.severity])


def _diagnostic(cause: Cause, passed: Passed, layers: Layers) -> Diagnostic:
    code = find(cause.code)
    function, node = passed.forward.place_of(cause.op)
    names = list(cause.starves)
    noun = "variable" if all(goal.is_variable for goal in passed.goals.values()) else "input"
    verb = "gets" if len(names) == 1 else "get"
    gets = f"{verb} {'zeros' if cause.zeros else 'NaN or infinite numbers'}"
    template = code.message if names else code.message.partition(": {whom}")[0]
    message = template.format(what=_what(cause.op, node), why=cause.text, whom=whom(names, noun), gets=gets)
    notes = []
    layer = layers.layer_of(cause.op)
    if layer and layer not in message:
        notes.append(f"it is in {quoted(layer)}")
    if cause.op.type in WHOLE:
        notes.append(f"a {cause.op.type} is probed as a whole: the op is somewhere inside of it")
    return Diagnostic(
        code=code.code,
        name=code.name,
        severity=code.severity,
        message=message,
        help=code.advice(cause.op.type),
        op=cause.op.type,
        node=node,
        function=function,
        entries=[LIVE],
        source=passed.forward.source_of(cause.op),
        starves=names,
        parameters=sum(passed.goals[name].size for name in names),
        notes=notes,
        fix=Fix("advise"),
    )


def _what(op: Any, node: str) -> str:
    last = node.rpartition("/")[2]
    return f"{quoted(node)}" if last.lower().startswith(op.type.lower()) else f"{quoted(node)} ({op.type})"


def _depth(code_name: str, layers: Sequence[Apart], passed: Passed) -> Diagnostic:
    code = find(code_name)
    worst = layers[0]
    names = [name for each in layers for name in each.layer.variables]
    assert worst.layer.weights is not None and worst.nearer.weights is not None
    why = (
        f"there it is {worst.layer.weights.rms:.1e} on average, in {quoted(worst.nearer.name)} "
        f"{worst.nearer.weights.rms:.1e}"
    )
    return Diagnostic(
        code=code.code,
        name=code.name,
        severity=code.severity,
        message=code.message.format(what=whom([each.layer.name for each in layers], "layer"), why=why),
        help=code.advice(),
        entries=[LIVE],
        affects=names,
        parameters=sum(passed.goals[name].size for name in names),
        fix=Fix("advise"),
    )


def _mostly_dead(passed: Passed, layers: Layers, blamed: set[str]) -> list[Diagnostic]:
    """A note for each activation of which most units give no example a gradient."""
    code = find("GP315")
    found = []
    ops = {op.name: op for op in passed.links.between}
    for name, figure in passed.figures.items():
        units, dead = int(figure.get("units", 0)), int(figure.get("dead units", 0))
        if units < FEW or name in blamed or not MOSTLY * units <= dead:
            continue
        op = ops[name]
        function, node = passed.forward.place_of(op)
        state = "off" if op.type in reasons.OFF else "saturated"
        why = f"has {count(dead)} of {plural(units, 'unit')} {state} for the whole batch ({dead / units:.0%})"
        layer = layers.layer_of(op)
        found.append(
            Diagnostic(
                code=code.code,
                name=code.name,
                severity=code.severity,
                message=code.message.format(what=_what(op, node), why=why),
                help=code.advice(),
                op=op.type,
                node=node,
                function=function,
                entries=[LIVE],
                source=passed.forward.source_of(op),
                notes=[f"it is in {quoted(layer)}"] if layer and layer not in node else [],
                fix=Fix("advise"),
            )
        )
    return found
