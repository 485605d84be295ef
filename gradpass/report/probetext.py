"""Renders a probe for people: the norms by layer as a picture, then the findings, then one line that sums up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from gradpass.report.probe import LayerRow, ProbeReport, Stats
from gradpass.report.text import BAR, RULE, STYLES, line, render_diagnostic
from gradpass.report.words import plural, visible, whom

NAMES = 44  # columns for the names of layers, if there is room
LONGEST = 24  # of a bar
SHOWN_LAYERS = 60  # in full; of more the middle is left out


class Bar(NamedTuple):
    """A layer's gradient as a picture has it: how long its bar is (0 to 1), and what is the matter with it."""

    row: LayerRow
    length: float
    state: str


def bars(rows: Iterable[LayerRow]) -> list[Bar]:
    """The layers with the logarithm of their gradient's norm, from the smallest (short) to the largest (1).

    A norm of 0 has no bar. Six orders of magnitude at least take the whole length, so that layers which hardly differ
    look alike.
    """
    rows = list(rows)
    logs = {id(row): math.log10(row.gradient.norm) for row in rows if row.gradient and row.gradient.norm > 0}
    top = max(logs.values(), default=0.0)
    span = max(top - min(logs.values(), default=0.0), 6.0)
    return [Bar(r, 0.05 + 0.95 * (1 - (top - logs[id(r)]) / span) if id(r) in logs else 0.0, _state(r)) for r in rows]


def _state(row: LayerRow) -> str:
    if row.gradient is None:
        return "none"
    if not row.gradient.finite:
        return "not finite"
    return "zeros" if row.gradient.all_zero else ""


def render_probe(report: ProbeReport, width: int) -> Iterator[RenderableType]:
    """The picture, the findings and the summary."""
    yield from _picture(report, width)
    for finding in report.findings:
        yield from render_diagnostic(finding, report.report, width)
        yield Text("")
    yield from summary(report)
    codes = sorted({d.code for d in report.findings})
    if codes:
        yield line(f"For more on a code: `gradpass explain {codes[0]}`", "dim")


def _picture(report: ProbeReport, width: int) -> Iterator[Text]:
    drawn = bars(report.layers)
    if not drawn:
        return
    longest = max(cell_len(visible(bar.row.name)) for bar in drawn)
    names = max(min(longest, NAMES, width - LONGEST - 40), len("layer"))
    head = f"{'layer':<{names}}  {'gradient':<{LONGEST}}  {'norm':>8}  {'largest':>8}  {'zeros':>6}  {'out zeros':>9}"
    yield Text(head, "bold")
    yield Text(RULE * cell_len(head), "dim")
    hidden = len(drawn) - SHOWN_LAYERS
    for i, bar in enumerate(drawn):
        if hidden > 0 and i == SHOWN_LAYERS // 2:
            yield Text(f"({plural(hidden, 'layer')} not shown; all are in to_json())", "dim")
        if hidden <= 0 or i < SHOWN_LAYERS // 2 or i >= SHOWN_LAYERS // 2 + hidden:
            yield _row(bar, names)
    yield Text("")


def _row(bar: Bar, names: int) -> Text:
    name = visible(bar.row.name)
    name = name if cell_len(name) <= names else f"...{name[-(names - 3) :]}"
    style = STYLES["error" if bar.state == "not finite" else "warning"] if bar.state else "green"
    drawn = BAR * round(bar.length * LONGEST) or bar.state
    row = Text.assemble(f"{name:<{names}}  ", (f"{drawn:<{LONGEST}}", style), "  ")
    gradient = bar.row.gradient
    numbers = [f"{gradient.norm:8.1e}", f"{gradient.largest:8.1e}", share(gradient)] if gradient else ["", "", ""]
    row.append("  ".join(f"{n:>{w}}" for n, w in zip(numbers, (8, 8, 6), strict=True)))
    row.append(f"  {share(bar.row.activation):>9}")
    if gradient and not gradient.finite:
        row.append(f"  {wrong(gradient)}", STYLES["error"])
    row.rstrip()
    return row


def share(stats: Stats) -> str:
    """The share of zeros, in per cent; 100 % and 0 % are exact."""
    if stats.zeros in (0, stats.size):
        return "100 %" if stats.all_zero else "0 %"
    return f"{min(max(100 * stats.zero_share, 0.1), 99.9):.1f} %"


def wrong(stats: Stats) -> str:
    """What of it is no finite number."""
    parts = ((stats.nan_share, "NaN"), (stats.inf_share, "Inf"))
    return ", ".join(f"{100 * share:.3g} % {name}" for share, name in parts if share)


def summary(report: ProbeReport) -> Iterator[Text]:
    """What was found in a line, then what a probe does not tell."""
    severities = [d.severity for d in report.findings]
    found = [plural(severities.count(s), s) for s in ("error", "warning", "note") if s in severities]
    noun = report.report.targets[0].kind if report.report.targets else "variable"
    total, severed = len(report.variables), len(report.severed)
    live = sum(1 for row in report.variables if row.gradient and row.gradient.finite and not row.gradient.all_zero)
    if not total:
        yield line(f"nothing to probe: {visible(report.target)} reads no trainable variable and no float input", "bold")
    else:
        reach = (
            f"{live} of {plural(total, noun)} {'gets' if live == 1 else 'get'} a gradient of finite numbers, not all 0"
        )
        text = f"{', '.join(found)}: {reach}" if found else reach
        style = "bold green" if report.ok and live == total else STYLES["warning" if report.ok else "error"]
        yield line(text, style)
    if severed:
        which = whom(report.severed, noun)
        verb = "gets" if severed == 1 else "get"
        yield line(f"{severed} of them {verb} None ({which}): that is no matter of values; gradpass.check tells why")
    if report.whole:
        verb = "was" if len(report.whole) == 1 else "were"
        yield line(f"{whom(report.whole, 'op', 3)} {verb} probed as a whole: what is inside is not shown", "dim")
