"""What is proven of a repair: which checks it is owed, and what they need to see of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gradpass.errors import GradpassError
from gradpass.program.graph import OWN
from gradpass.report.words import whom

if TYPE_CHECKING:
    from gradpass.crosscheck.surrogates import Surrogates
    from gradpass.crosscheck.worth import Nowhere
    from gradpass.program.model import Model
    from gradpass.report.diagnostics import Diagnostic, Report
    from gradpass.report.proven import CrosscheckReport
    from gradpass.report.repair import CheckRow

Mode = Literal["straight-through", "soft"]
Options = Mapping[str, Any]
BRIDGE = f"{OWN}bridge"  # how the functions of bridges are called


class Proof(NamedTuple):
    """The cross-checks of a repair, and what they find of its surrogates."""

    rows: list[CheckRow]
    findings: list[Diagnostic]


def prove(
    original: Path,
    fixed: Path,
    before: Report,
    after: Report,
    mode: Mode,
    progress: Callable[[str], None],
    planned: dict[str, set[str]] | None = None,
    options: Options | None = None,
    data: Mapping[str, Any] | None = None,
) -> Proof:
    """The cross-checks of a repaired model against its original.

    Whoever starved before and flows now by our own verdict must flow in TensorFlow, and so must the `planned` paths.
    `options` are those of the repair, by default what the fixed model tells of them. `data` are arrays by input.
    """
    from gradpass.crosscheck import crosscheck
    from gradpass.report.repair import CheckRow

    flowing = {(entry.name, t.path) for entry in after.entries for t in entry.targets if not t.starved}
    flowing |= {(entry, path) for entry, paths in (planned or {}).items() for path in paths}
    promised = {
        entry.name: [t.name for t in entry.targets if t.starved and (entry.name, t.path) in flowing]
        for entry in before.entries
    }
    nowhere: list[Nowhere] = []
    checks = crosscheck(
        original,
        fixed,
        entries=list(promised),
        promised=promised,
        mode=mode,
        progress=progress,
        surrogates=surrogates(original, fixed, options),
        nowhere=nowhere,
        data=data,
    )
    for check in checks:
        if data is not None and check.name.startswith("values") and "does not accept the data" in (check.reason or ""):
            raise GradpassError(str(check.reason))
    return Proof([CheckRow.of(check) for check in checks], told(before, nowhere))


def surrogates(original: Path, fixed: Path, options: Options | None) -> Surrogates:
    """Where the soft functions of a repair are to be seen.

    A bridge has them in the backward pass alone. The same repair is made once more, with the guarded sum.
    """
    from gradpass.crosscheck.surrogates import Surrogates
    from gradpass.program import edit, savedmodel
    from gradpass.rewrite import harden, temperature
    from gradpass.rewrite.fix import repair

    model = savedmodel.read(fixed)
    options = harden.options(model.raw) if options is None else options
    found = set(temperature.found(model).values())
    one = next(iter(found)) if len(found) == 1 else None

    def at(value: float) -> bytes:
        return edit.encode(model, temperature.changed(model, value))

    known = Surrogates(temperature=one or 1.0, at=None if one is None or model.kind == "frozen" else at)
    if not any(name.startswith(BRIDGE) for name in model.program.functions):
        return known
    if options is None:
        return replace(known, reason="the fixed model does not tell by which options it was repaired")
    again = {**options, "carrier": "sum", **({} if one is None else {"temperature": one})}
    return replace(known, pb=repair(savedmodel.read(original), **again).pb)


def told(before: Report, nowhere: list[Nowhere]) -> list[Diagnostic]:
    """A finding for each op whose surrogate leads targets nowhere, at the place of the cut that it serves."""
    from gradpass.report.codes.base import find
    from gradpass.report.diagnostics import Diagnostic, Fix

    code = find("GP600")
    cuts: dict[int, list[Nowhere]] = {}
    for each in nowhere:
        # The cut nearest to the target is the first of those that it meets.
        places = [i for i, cut in enumerate(before.diagnostics) if each.target in cut.starves and cut.node is not None]
        cuts.setdefault(min(places, key=lambda i: len(before.diagnostics[i].path), default=-1), []).append(each)
    found = []
    for place, targets in cuts.items():
        cut = before.diagnostics[place] if place >= 0 else Diagnostic(code.code, code.name, code.severity, "", "")
        names = [each.target for each in targets]
        best = max(targets, key=lambda each: each.better.value if each.better else -2.0)
        what = f"`{cut.op}`" if cut.op else "the model"
        advice = f"`--temperature {best.temperature:g}` does better" if best.temperature else code.help
        found.append(
            replace(
                cut,
                code=code.code,
                name=code.name,
                severity=code.severity,
                message=code.message.format(what=what, whom=whom(names, "variable")),
                help=advice,
                starves=[],
                affects=names,
                fix=Fix("advise"),
            )
        )
    return found


def compare(
    original: Path,
    fixed: Path,
    *,
    entry: str | None = None,
    mode: Mode = "straight-through",
    data: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> CrosscheckReport:
    """The cross-checks of two models on disk; GradpassError where one is none, or the data are for other inputs."""
    from gradpass.api import check
    from gradpass.program import savedmodel
    from gradpass.report.proven import CrosscheckReport

    before, after = check(original, entry=entry), check(fixed, entry=entry)
    if data is not None:
        refuse_other_inputs(savedmodel.read(original), entry, data)
    proof = prove(original, fixed, before, after, mode, progress, data=data)
    starved = [target.name for entry in before.entries for target in entry.targets if target.starved]
    if starved and all("promises no gradient" in (row.reason or "") for row in proof.rows if "verdict" in row.name):
        for row in proof.rows:
            if row.name.startswith("verdict"):
                row.status = "failed"
                row.reason = (
                    f"nothing that starves in the original has a gradient in the other: {whom(starved, 'target')}"
                )
    after.diagnostics += proof.findings
    return CrosscheckReport(before, after, [], proof.rows, None)


def refuse_other_inputs(model: Model, entry: str | None, data: Mapping[str, Any]) -> None:
    """GradpassError where no entry that is meant has inputs of these names."""
    entries = model.entry(entry)
    if not any(each.inputs.keys() == data.keys() for each in entries):
        names = "; ".join(f"{each.name}: {', '.join(each.inputs) or 'none'}" for each in entries)
        raise GradpassError(f"the data are called {', '.join(data)}; the inputs of {model.path} are: {names}")
