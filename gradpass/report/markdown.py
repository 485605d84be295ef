"""Renders a report as GitHub-flavoured Markdown, for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from gradpass.report.chain import BROKEN, chain
from gradpass.report.diagnostics import Diagnostic, Report
from gradpass.report.fixtext import CHECKS, NUMBERS, PLAN, check_rows, plan_rows
from gradpass.report.repair import FixReport, parts
from gradpass.report.text import location, summary_line
from gradpass.report.words import count, plural, visible

SIGNS = {"error": "❌", "warning": "⚠️", "note": "ℹ️"}
PLAIN = re.compile(r"[ -\[\]-_a-{}~]*")  # ASCII but `, | and \: what a code span holds as it is, in a table too
QUOTED = re.compile(r"`([^`]*)`")
ACTIVE = re.compile(r"[\\`*_{}\[\]<>#|~&$@]")
SHOWN_NAMES = 8
SHOWN_FINDINGS = 50  # of a comment GitHub takes 65,536 characters


def render_markdown(told: Report | FixReport) -> str:
    """Summary, what a repair did, a table of the findings, then each with its path."""
    report, _ = parts(told)
    lines = [f"**gradpass** {code(report.target)}: {text(summary_line(report).plain)}"]
    if isinstance(told, FixReport):
        lines += ["", text(told.outcome), *_table(PLAN, plan_rows(told)), *_table(CHECKS, check_rows(told.crosscheck))]
    shown = report.diagnostics[:SHOWN_FINDINGS]
    lines += _table(("", "code", "finding", "starves", "parameters"), map(_row, shown), made=True)
    for diagnostic in shown:
        lines += ["", *_details(diagnostic, report)]
    if len(report.diagnostics) > len(shown):
        lines += ["", f"and {plural(len(report.diagnostics) - len(shown), 'more finding')}"]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], made: bool = False) -> list[str]:
    """A table with an empty line before it, or nothing where there are no rows; `made` are its cells if Markdown."""
    lines = [f"| {' | '.join(cell if made else text(cell) for cell in row)} |" for row in rows]
    rules = ("---:" if name in NUMBERS else "---" for name in head)
    return ["", f"| {' | '.join(head)} |", f"| {' | '.join(rules)} |", *lines] if lines else []


def _row(diagnostic: Diagnostic) -> Sequence[str]:
    return (
        SIGNS[diagnostic.severity],
        diagnostic.code,
        text(diagnostic.message),
        _names(diagnostic.concerned),
        count(diagnostic.parameters),
    )


def _details(diagnostic: Diagnostic, report: Report) -> Iterator[str]:
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
    yield from (f"- {label}: {text(remark)}" for label, remark in diagnostic.remarks(report))
    yield ""
    yield "</details>"


def _path(diagnostic: Diagnostic) -> str:
    """The chain of nodes, broken where no gradient passes, its long stretches left out."""
    links: list[str] = []
    for before, name, hidden in chain(diagnostic):
        if before:
            links.append(f"**{BROKEN}**" if before == BROKEN else before)
        links.append(text(name) if hidden else code(name))
    return " ".join(links)


def _names(names: list[str]) -> str:
    shown = ", ".join(code(name) for name in names[:SHOWN_NAMES])
    return shown + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")


def code(name: str) -> str:
    """A name as code. What could end a code span, a cell or a line is written in numbers, which end nothing."""
    one_line = visible(" ".join(name.split()))
    if one_line and PLAIN.fullmatch(one_line):
        return f"`{one_line}`"
    return f"<code>{''.join(c if c.isalnum() or c == ' ' or c > '~' else f'&#{ord(c)};' for c in one_line)}</code>"


def text(words: str) -> str:
    """A sentence with its `quoted` names as code, and nothing else that Markdown would act upon."""
    found = QUOTED.split(visible(" ".join(words.split())))
    # A backslash would do for most of it; not for `|` in a table, behind a name that ends in a backslash.
    return "".join(
        code(part) if i % 2 else ACTIVE.sub(lambda found: f"&#{ord(found.group())};", part)
        for i, part in enumerate(found)
    )
