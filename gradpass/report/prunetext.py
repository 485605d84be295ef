"""Renders what a pruning did: what is dead, how large the model was and is, the cross-checks."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from gradpass import __version__
from gradpass.report.diagnostics import Report
from gradpass.report.fixtext import cell, render_crosscheck, titled
from gradpass.report.pruned import PruneReport, Size
from gradpass.report.text import line, render_diagnostic
from gradpass.report.words import count, quoted, size, visible, whom

ROWS = ("nodes", "functions", "variables", "parameters", "bytes")


def render_pruned(report: PruneReport, width: int) -> Iterator[RenderableType]:
    """The whole of a pruning, ending with the line that says what was written."""
    yield from render_removal(report, width)
    yield line(report.outcome, "bold green" if report.ok else "bold red")


def render_removal(report: PruneReport, width: int) -> Iterator[RenderableType]:
    """What was dead, the sizes and the cross-checks."""
    told = Report(report.target, [], report.diagnostics, __version__, "")
    for diagnostic in report.diagnostics:
        yield from render_diagnostic(diagnostic, told, width)
        yield Text("")
    for reason in dict.fromkeys(report.kept.values()):
        names = [name for name, why in report.kept.items() if why == reason]
        yield line(f"kept: {whom(names, 'layer' if report.live else 'variable')}: {visible(reason)}")
    if report.layers:
        yield line(f"removed layers: {whom(report.layers, 'layer', 6)}")
    for what, names in (("tables", report.tables), ("outputs", report.outputs)):
        if names:
            yield line(f"removed {what}: {', '.join(map(quoted, names))}")
    if report.after is not None:
        yield _sizes(report.before, report.after)
        yield Text("")
    if report.crosscheck:
        yield from render_crosscheck(report.crosscheck)


def _sizes(before: Size, after: Size) -> RenderableType:
    """The sizes before and after, and what share of each is gone."""
    found = titled("size", "what", "before", "after", "saved")
    for name in ROWS:
        was, now = getattr(before, name), getattr(after, name)
        if was is not None and now is not None:
            told = size if name == "bytes" else count
            found.add_row(cell(name), told(was), told(now), f"{100 * (was - now) / was:.0f} %" if was else "")
    return found
