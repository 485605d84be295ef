"""Renders a report as GitHub workflow commands: an annotation a finding, at the user's line where it is known."""

from __future__ import annotations

from gradpass.report.diagnostics import Diagnostic, Report, Severity

COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}


def render_github(report: Report) -> str:
    """`::error file=…,line=…,title=…::message`, a line each."""
    return "".join(f"{_annotation(d)}\n" for d in report.diagnostics)


def _annotation(diagnostic: Diagnostic) -> str:
    properties = {"title": f"{diagnostic.code} {diagnostic.name}"}
    if diagnostic.source:
        properties = {"file": diagnostic.source.file, "line": str(diagnostic.source.line), **properties}
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    said = [diagnostic.message, *(f"note: {note}" for note in diagnostic.notes), f"help: {diagnostic.help}"]
    if diagnostic.source is None and diagnostic.node:
        said.insert(1, "node: " + "/".join(part for part in (diagnostic.function, diagnostic.node) if part))
    return f"::{COMMANDS[diagnostic.severity]} {given}::{_data(chr(10).join(said))}"


def _data(text: str) -> str:
    """What the runner turns back (actions/toolkit, `escapeData`); the percent sign first."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
