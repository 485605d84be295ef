"""Renders a report with one line a finding, for grep and editors."""

from __future__ import annotations

from gradpass.report.diagnostics import Report
from gradpass.report.words import visible


def render_concise(report: Report) -> str:
    """target:place: severity[code] message."""
    lines = []
    for d in report.diagnostics:
        if d.source:
            place = f"{d.source.file}:{d.source.line}"
        else:
            place = ":".join(part for part in (report.target, d.function, d.node) if part)
        lines.append(f"{visible(place)}: {d.severity}[{d.code}] {d.message}\n")
    return "".join(lines)
