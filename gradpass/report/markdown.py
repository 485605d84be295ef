"""Renders a report as GitHub-flavoured Markdown, for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from gradpass.report.chain import BROKEN, chain
from gradpass.report.diagnostics import Diagnostic, Report
from gradpass.report.text import location, summary_line
from gradpass.report.words import count

SIGNS = {"error": "❌", "warning": "⚠️", "note": "ℹ️"}
PLAIN = re.compile(r"[ -\[\]-_a-{}~]*")  # ASCII but `, | and \: what a code span holds as it is, in a table too
QUOTED = re.compile(r"`([^`]*)`")
ACTIVE = re.compile(r"[\\`*_{}\[\]<>#|~&$@]")
SHOWN_NAMES = 8


def render_markdown(report: Report) -> str:
    """Summary, a table of all findings, then each with its path."""
    lines = [f"**gradpass** {code(report.target)}: {text(summary_line(report).plain)}"]
    if report.diagnostics:
        lines += ["", "| | code | finding | starves | parameters |", "| --- | --- | --- | --- | ---: |"]
        lines += [_row(d) for d in report.diagnostics]
        for diagnostic in report.diagnostics:
            lines += ["", *_details(diagnostic)]
    return "\n".join(lines) + "\n"


def _row(diagnostic: Diagnostic) -> str:
    names = diagnostic.concerned
    cells = (
        SIGNS[diagnostic.severity],
        diagnostic.code,
        text(diagnostic.message),
        _names(names),
        count(diagnostic.parameters),
    )
    return f"| {' | '.join(cells)} |"


def _details(diagnostic: Diagnostic) -> Iterator[str]:
    """The part that is folded away: where, along which way, what to do."""
    where = " ".join(location(diagnostic).split())
    at = f" at <code>{escape(where)}</code>" if where else ""
    yield "<details>"
    yield f"<summary>{diagnostic.code} {diagnostic.name}{at}</summary>"
    yield ""
    yield text(diagnostic.message)
    yield ""
    if diagnostic.source and diagnostic.source.text:
        yield f"- line: {code(diagnostic.source.text.strip())}"
    if diagnostic.path:
        yield f"- path: {_path(diagnostic)}"
    for note in diagnostic.notes:
        yield f"- note: {text(note)}"
    yield f"- help: {text(diagnostic.help)}"
    fix = diagnostic.fix
    if fix.rule and fix.kind != "refuse":
        yield f"- fix: {code('gradpass fix')} adds a derivative: {text(fix.rule)} ({fix.kind})"
    elif fix.reason:
        yield f"- fix: none: {text(fix.reason)}"
    yield ""
    yield "</details>"


def _path(diagnostic: Diagnostic) -> str:
    """The chain of nodes, broken where no gradient passes, its long stretches left out."""
    parts: list[str] = []
    for before, name, hidden in chain(diagnostic):
        if before:
            parts.append(f"**{BROKEN}**" if before == BROKEN else before)
        parts.append(text(name) if hidden else code(name))
    return " ".join(parts)


def _names(names: list[str]) -> str:
    shown = ", ".join(code(name) for name in names[:SHOWN_NAMES])
    return shown + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")


def code(name: str) -> str:
    """A name as code. What could end a code span, a cell or a line is written in numbers, which end nothing."""
    one_line = " ".join(name.split())
    if one_line and PLAIN.fullmatch(one_line):
        return f"`{one_line}`"
    return f"<code>{''.join(c if c.isalnum() or c == ' ' or c > '~' else f'&#{ord(c)};' for c in one_line)}</code>"


def text(words: str) -> str:
    """A sentence with its `quoted` names as code, and nothing else that Markdown would act upon."""
    parts = QUOTED.split(" ".join(words.split()))
    # A backslash would do for most of it; not for `|` in a table, behind a name that ends in a backslash.
    return "".join(
        code(part) if i % 2 else ACTIVE.sub(lambda found: f"&#{ord(found.group())};", part)
        for i, part in enumerate(parts)
    )
