"""Renders a report as GitHub workflow commands: an annotation a finding, at the user's line where it is known."""

from __future__ import annotations

from collections.abc import Iterable

from gradpass.report.diagnostics import Diagnostic, Report, Severity
from gradpass.report.repair import FixReport, parts
from gradpass.report.text import summary_line
from gradpass.report.words import visible

COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}


def render_github(told: Report | FixReport) -> str:
    """`::error file=…,line=…,title=…::message`, a line each; then what is only counted, and how a repair went."""
    report, remarks = parts(told)
    lines = [_annotation(d, report) for d in report.diagnostics]
    if report.suppressed or report.outdated:
        lines.append(_command("notice", [summary_line(report).plain], title="gradpass"))
    lines += [_command(COMMANDS[remark.severity], [remark.text], title=remark.title) for remark in remarks]
    return "".join(f"{line}\n" for line in lines)


def _annotation(diagnostic: Diagnostic, report: Report) -> str:
    properties = {"title": f"{diagnostic.code} {diagnostic.name}"}
    if diagnostic.source:
        properties = {"file": diagnostic.source.file, "line": str(diagnostic.source.line), **properties}
    said = [diagnostic.message, *(f"{label}: {text}" for label, text in diagnostic.remarks(report))]
    if diagnostic.source is None and diagnostic.node:
        said.insert(1, "node: " + "/".join(part for part in (diagnostic.function, diagnostic.node) if part))
    return _command(COMMANDS[diagnostic.severity], said, **properties)


def _command(kind: str, lines: Iterable[str], **properties: str) -> str:
    """A workflow command, its message of one or more lines."""
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{kind} {given}::{_data(chr(10).join(map(visible, lines)))}"


def _data(text: str) -> str:
    """What the runner turns back (actions/toolkit, `escapeData`); the percent sign first."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(visible(text)).replace(":", "%3A").replace(",", "%2C")
