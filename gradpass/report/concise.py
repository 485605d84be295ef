"""Renders a report with one line a finding, for grep and editors."""

from __future__ import annotations

from gradpass.report.diagnostics import Report
from gradpass.report.repair import FixReport, parts
from gradpass.report.words import visible


def render_concise(told: Report | FixReport) -> str:
    """target:place: severity[code] message; of a repair what it left, then how it went."""
    report, remarks = parts(told)
    lines = []
    for d in report.diagnostics:
        if d.source:
            place = f"{d.source.file}:{d.source.line}"
        else:
            place = ":".join(part for part in (report.target, d.function, d.node) if part)
        lines.append(visible(f"{place}: {d.severity}[{d.code}] {d.message}") + "\n")
    lines += [f"{visible(report.target)}: {remark.severity}: {remark.text}\n" for remark in remarks]
    return "".join(lines)
