"""Renders what a repair did: targets before and after, the plan with its refusals, the cross-checks with figures."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gradpass.report.diagnostics import Report, Target
from gradpass.report.repair import CheckRow, FixReport
from gradpass.report.text import line, render_diagnostic, summary_line
from gradpass.report.words import count, plural, visible

SHOWN_TARGETS = 12
STATE_STYLES = {"flows": "green", "zero": "yellow", "none": "red", "raises": "red"}
PLAN = ("op", "what", "nodes")
NUMBERS = ("parameters", "nodes", "figure", "limit", "time", "saved")  # columns that are read from the right
CHECKS = ("check", "status", "figure", "limit", "time", "reason", "where the limit comes from")
STATUS_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def render_fix(report: FixReport, width: int) -> Iterator[RenderableType]:
    """The whole of a repair, ending with the line that says what was written."""
    if report.pruned is not None:
        from gradpass.report.prunetext import render_removal

        yield from render_removal(report.pruned, width)
    if report.repaired:
        yield from _targets(report)
    if report.plan:
        yield from render_plan(report)
    for diagnostic in report.left.diagnostics:
        if diagnostic.severity != "note":
            yield from render_diagnostic(diagnostic, report.left, width)
            yield Text("")
    if report.diff:
        yield from (line(visible(text), _diff_style(text)) for text in report.diff.split("\n"))
        yield Text("")
    if report.crosscheck:
        yield from render_crosscheck(report.crosscheck)
    yield summary_line(report.left)
    yield _outcome(report)


def titled(title: str, *columns: str) -> Table:
    """A table in the style of all of them; columns of numbers are read from the right."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False, show_edge=False
    )
    for name in columns:
        right = name in NUMBERS
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    return table


def cell(text: str, style: str = "") -> Text:
    """Words of others in a table, which would take [brackets] for markup."""
    return Text(visible(text), style)


def _targets(report: FixReport) -> Iterator[RenderableType]:
    """The targets that were starved, before and after; the largest first where they are many."""
    assert report.after is not None
    rows = [pair for pair in zip(report.before.targets, report.after.targets, strict=True) if pair[0].starved]
    rows.sort(key=lambda pair: -pair[0].parameters)
    table = titled("starved targets", "target", "parameters", "before", "after")
    for before, after in rows[:SHOWN_TARGETS]:
        table.add_row(cell(_label(before, report.before)), count(before.parameters), _state(before), _state(after))
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


def render_plan(report: FixReport) -> Iterator[RenderableType]:
    table = titled("plan", *PLAN)
    for step, (op, what, nodes) in zip(report.plan, plan_rows(report), strict=True):
        table.add_row(cell(op), cell(what, "yellow" if step.declined else ""), nodes)
    yield table
    yield Text("")


def plan_rows(report: FixReport) -> Iterator[tuple[str, str, str]]:
    """The plan as every format has it, a step a row: the op, what is done or why nothing is, nodes added."""
    for step in report.plan:
        op = ""
        if step.diagnostic is not None:
            diagnostic = report.before.diagnostics[step.diagnostic]
            op = f"{diagnostic.code} {diagnostic.op} {diagnostic.node}"
        what = f"left as it is: {step.declined}" if step.declined else f"{step.kind}: {', '.join(step.rules)}"
        yield op, what, str(step.nodes_added) if step.rule else ""


def render_crosscheck(rows: list[CheckRow]) -> Iterator[RenderableType]:
    """The checks with figure, limit, time and reason, and below that where the limit comes from."""
    table = titled("cross-check", *CHECKS[:-1])
    for name, status, figure, limit, seconds, reason, limit_from in check_rows(rows):
        told = [cell(reason), cell(limit_from and f"limit: {limit_from}", "dim")]
        why = Text("\n").join(text for text in told if text)
        table.add_row(cell(name), Text(status, STATUS_STYLES[status]), figure, limit, seconds, why)
    yield table
    yield Text("")


def check_rows(rows: list[CheckRow]) -> Iterator[tuple[str, str, str, str, str, str, str]]:
    """The cross-checks as every format has them."""
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f} s"
        told = row.reason or "", row.limit_from or ""
        yield row.name, row.status, _figure(row.figure), _figure(row.limit), seconds, *told


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _diff_style(text: str) -> str:
    return {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], "")


def _outcome(report: FixReport) -> Text:
    """What was written, and if nothing, why."""
    bad = report.failed or not (report.repaired or report.ok)
    return line(report.outcome, "bold red" if bad else "bold green" if report.ok else "bold yellow")
