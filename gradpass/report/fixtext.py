"""Renders what a repair did: targets before and after, the plan with its refusals, the cross-checks with figures."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gradpass.report.diagnostics import CheckRow, FixReport, PlanStep, Report, Target
from gradpass.report.text import line, render_diagnostic, summary_line
from gradpass.report.words import count, plural

SHOWN_TARGETS = 12
STATE_STYLES = {"flows": "green", "zero": "yellow", "none": "red", "raises": "red"}
STATUS_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def render_fix(report: FixReport, width: int) -> Iterator[RenderableType]:
    """The whole of a repair, ending with the line that says what was written."""
    if report.repaired:
        yield from _targets(report)
    if report.plan:
        yield from _plan(report)
    left = report.after or report.before
    for diagnostic in left.diagnostics:
        if diagnostic.severity != "note":
            yield from render_diagnostic(diagnostic, left, width)
            yield Text("")
    if report.diff:
        yield from (line(text, _diff_style(text)) for text in report.diff.splitlines())
        yield Text("")
    if report.crosscheck:
        yield from render_crosscheck(report.crosscheck)
    yield summary_line(left)
    yield _outcome(report)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False, show_edge=False
    )
    for name in columns:
        right = name in ("parameters", "nodes", "figure", "limit")
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table


def _targets(report: FixReport) -> Iterator[RenderableType]:
    """The targets that were starved, before and after; the largest first where they are many."""
    assert report.after is not None
    rows = [pair for pair in zip(report.before.targets, report.after.targets, strict=True) if pair[0].starved]
    rows.sort(key=lambda pair: -pair[0].parameters)
    table = _table("starved targets", "target", "parameters", "before", "after")
    for before, after in rows[:SHOWN_TARGETS]:
        table.add_row(_label(before, report.before), count(before.parameters), _state(before), _state(after))
    yield table
    if len(rows) > SHOWN_TARGETS:
        rest = rows[SHOWN_TARGETS:]
        flowing = sum(not after.starved for _, after in rest)
        yield line(f"and {plural(len(rest), 'more target')}, {flowing} of them with a gradient now")
    yield Text("")


def _label(target: Target, report: Report) -> str:
    same = sum(t.name == target.name for t in report.entries[0].targets)
    return target.name if same == 1 else target.path


def _state(target: Target) -> Text:
    """What TensorFlow answers, and the truth where that differs."""
    shown = Text(target.state, STATE_STYLES[target.state])
    if target.structure != target.state:
        shown.append(f" (in truth {target.structure})", "dim")
    return shown


def _plan(report: FixReport) -> Iterator[RenderableType]:
    table = _table("plan", "op", "what", "nodes")
    for step in report.plan:
        table.add_row(_op(step, report.before), _what(step), str(step.nodes_added) if step.rule else "")
    yield table
    yield Text("")


def _op(step: PlanStep, before: Report) -> str:
    if step.diagnostic is None:
        return ""
    diagnostic = before.diagnostics[step.diagnostic]
    return f"{diagnostic.code} {diagnostic.op} {diagnostic.node}"


def _what(step: PlanStep) -> Text:
    if step.declined:
        return Text(f"left as it is: {step.declined}", "yellow")
    return Text(f"{step.kind}: {', '.join(step.rules)}")


def render_crosscheck(rows: list[CheckRow]) -> Iterator[RenderableType]:
    """The checks with figure, limit and reason."""
    table = _table("cross-check", "check", "status", "figure", "limit", "")
    for row in rows:
        status = Text(row.status, STATUS_STYLES[row.status])
        table.add_row(row.name, status, _figure(row.figure), _figure(row.limit), row.reason or "")
    yield table
    yield Text("")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _diff_style(text: str) -> str:
    return {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], "")


def _outcome(report: FixReport) -> Text:
    """What was written, and if nothing, why."""
    if report.failed:
        names = ", ".join(row.name for row in report.failed)
        return line(f"cross-check failed ({names}): nothing was written", "bold red")
    if report.output:
        return line(f"wrote {report.output}", "bold green" if report.ok else "bold yellow")
    if report.dry_run and report.repaired:
        return line("dry run: nothing was written")
    if report.ok:
        return line("nothing to repair: nothing was written", "bold green")
    return line("nothing can be repaired, for the reasons above: nothing was written", "bold red")
