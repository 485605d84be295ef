"""Renders a report for people: rustc's shape, in colour on a terminal."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.text import Text

from gradpass.report.chain import ARROW, BROKEN, GAP, chain
from gradpass.report.diagnostics import Diagnostic, Report
from gradpass.report.sources import marked
from gradpass.report.words import count, plural, visible

PLAIN_WIDTH = 110  # where there is no terminal to ask
STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
RULE = "─"  # below the heads of tables
BAR = "█"
ASCII = str.maketrans({ARROW: "->", BROKEN: "x", GAP: "...", RULE: "-", BAR: "#"})
UNDERLINE = "^"
DOTS = "..."  # for what has no room of a line of code; as wide in ASCII, so that the underline stays below its code
GUTTER = 3  # columns for the numbers of lines, if they are no longer
SHOWN_NAMES = 6
HELD = "\x1f"  # stands for a blank at which no line is broken
TRACED = re.compile(r"__inference_(.+)_[0-9]+")  # what TensorFlow makes of the name of a Python function
PLAIN_CALL = re.compile(r"(^|/)(Stateful)?PartitionedCall(_[0-9]+)?$")  # a call that nobody named


Rendering = Callable[[int], Iterable[RenderableType]]  # made for a width


def show(rendering: Rendering, file: IO[str]) -> None:
    """Writes to a stream: as wide as its terminal, in colour only there, in ASCII where it must be."""
    console = Console(file=file, highlight=False)
    if console.is_terminal and _writes_unicode(file) and not console.no_color:
        for item in rendering(console.width):
            _print(console, item)
    else:
        write(plain(rendering, console.width if console.is_terminal else PLAIN_WIDTH), file)


def write(text: str, file: IO[str]) -> None:
    """Writes what is for people, with nothing that the stream cannot carry."""
    if not _writes_unicode(file):
        # The user's code and names may hold anything.
        encoding = getattr(file, "encoding", None) or "ascii"
        text = text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    file.write(text)


def plain(rendering: Rendering, width: int = PLAIN_WIDTH) -> str:
    """As text without colours."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, color_system=None, force_terminal=False, highlight=False, legacy_windows=False
    )
    for item in rendering(width):
        _print(console, item)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _print(console: Console, item: RenderableType) -> None:
    # Text is wrapped where it is made; left to rich, a name wider than the terminal would be broken.
    console.print(item, soft_wrap=isinstance(item, Text))


def _writes_unicode(file: IO[str]) -> bool:
    return (getattr(file, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def render_report(report: Report, width: int) -> Iterator[RenderableType]:
    """The diagnostics, then one line that sums up."""
    for diagnostic in report.diagnostics:
        yield from render_diagnostic(diagnostic, report, width)
        yield Text("")
    yield summary_line(report)
    codes = sorted({d.code for d in report.diagnostics})
    if codes:
        yield line(f"For more on a code: `gradpass explain {codes[0]}`", "dim")


def render_diagnostic(diagnostic: Diagnostic, report: Report, width: int) -> Iterator[RenderableType]:
    """One finding: what, where, along which way, whom it starves, what to do."""
    style = STYLES[diagnostic.severity]
    head = Text.assemble((f"{diagnostic.severity}[{diagnostic.code}]", style))
    yield from _wrapped(head, ": ", visible(diagnostic.message), width, "bold")
    where = location(diagnostic)
    number = str(diagnostic.source.line) if diagnostic.source else ""
    margin = " " * max(GUTTER, len(number))
    if where:
        yield Text.assemble((f"{margin[1:]}--> ", "bold blue"), where)
    bar = Text(f"{margin}|", "bold blue")
    if diagnostic.source and diagnostic.source.text:
        yield bar
        code, underline = _excerpt(diagnostic.source.text, diagnostic, width - len(margin) - 2)
        yield Text.assemble((f"{number:>{len(margin)}}| ", "bold blue"), code)
        yield Text.assemble((f"{margin}| ", "bold blue"), (underline, style))
    if len(diagnostic.path) > 1:
        yield bar
        for part in _path(diagnostic, width):
            yield Text.assemble((f"{margin}| ", "bold blue"), part)
        yield bar
    for label, text in _lines(diagnostic, report):
        yield from _wrapped(Text.assemble((f"{margin}= ", "bold blue"), (f"{label}:", "bold")), " ", text, width)


def _excerpt(code: str, diagnostic: Diagnostic, room: int) -> tuple[str, str]:
    """The user's line, or what of it has room, and below it the underline of what makes the op."""
    code = visible(code.replace("\t", " "))
    start, end = marked(code, diagnostic.op, diagnostic.node)
    over = cell_len(code) - room
    if over > 0 and start > len(DOTS):
        cut = min(start, over + len(DOTS))
        code = DOTS + code[cut:]
        start, end = start - cut + len(DOTS), end - cut + len(DOTS)
    if cell_len(code) > room:
        code = set_cell_size(code, room - len(DOTS)) + DOTS
        end = min(end, len(code))
    return code, " " * cell_len(code[:start]) + UNDERLINE * cell_len(code[start:end])


def location(diagnostic: Diagnostic) -> str:
    """The user's line where it is known, else the node, its function, and what the entry goes through to get there."""
    if diagnostic.source:
        return visible(f"{diagnostic.source.file}:{diagnostic.source.line}")
    if diagnostic.node is None:
        return ""
    where = f"node {diagnostic.node}"
    if diagnostic.function:
        where += " of function " + TRACED.sub(r"\1", diagnostic.function)
    # Of a call that nobody named the scope is left, which is its layer's.
    through = [scope for name in diagnostic.stack if (scope := PLAIN_CALL.sub("", name))]
    return visible(where + (f", inside {f' {ARROW} '.join(through)}" if through else ""))


def _lines(diagnostic: Diagnostic, report: Report) -> Iterator[tuple[str, str]]:
    """The labelled lines below the path."""
    if diagnostic.starves:
        total = sum({t.path: t.parameters for t in report.targets}.values())
        share = f" ({count(diagnostic.parameters)} of {plural(total, 'parameter')})" if total else ""
        yield "starves", _names(diagnostic.starves) + share
    if diagnostic.raises and not diagnostic.starves:
        yield "raises for", _names(diagnostic.raises)
    if diagnostic.affects:
        yield "affects", f"{_names(diagnostic.affects)} ({plural(diagnostic.parameters, 'parameter')})"
    if diagnostic.unused:
        yield "unused", f"{_names(diagnostic.unused)} ({plural(diagnostic.parameters, 'parameter')})"
    yield from diagnostic.remarks(report)


def _names(names: list[str]) -> str:
    shown = ", ".join(map(visible, names[:SHOWN_NAMES]))
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {count(len(names) - SHOWN_NAMES)} more"


def _path(diagnostic: Diagnostic, width: int) -> Iterator[Text]:
    """The way of the gradient as a chain, broken at the cut, over as many lines as it needs."""
    style = STYLES[diagnostic.severity]
    current = Text()
    for before, name, _ in chain(diagnostic):
        link, shown = f" {before} " if before else "", visible(name)
        if current.cell_len + cell_len(link) + cell_len(shown) > width - 8 and current.cell_len:
            yield current
            current = Text("  ")
            link = link.lstrip()
        is_cut = before == BROKEN
        current.append(link, style if is_cut else "dim")
        current.append(shown, style if is_cut else "")
    yield current


def summary_line(report: Report) -> Text:
    """The last line: how many findings, and what share of the model they starve."""
    summary = report.summary
    severities = [d.severity for d in report.diagnostics]
    notes = f"; {plural(severities.count('note'), 'note')}" if "note" in severities else ""
    notes += _suppressed(report)
    if not summary["targets"]:
        return line(f"nothing to check: {visible(report.target)} has no trainable variables{notes}", "bold yellow")
    starved = sum(t.starved for t in report.targets)
    noun = report.targets[0].kind if len({t.kind for t in report.targets}) == 1 else "target"
    parameters = plural(summary["parameters"], "parameter") if summary["parameters"] else ""  # inputs have none
    total = parameters and f"{count(summary['starved_parameters'])} of {parameters}"
    if not starved:
        targets = "the only target" if summary["targets"] == 1 else f"all {plural(summary['targets'], 'target')}"
        what = "gradients" if report.order == 1 else "second gradients"
        reach = ", ".join(filter(None, (f"{what} reach {targets}", parameters)))
        hazards = [plural(severities.count(s), s) for s in ("error", "warning") if s in severities]
        if not hazards:
            return line(f"{reach}{notes}", "bold green")
        return line(f"{', '.join(hazards)}, though {reach}{notes}", STYLES["warning"])
    second = "" if report.order == 1 else ", in the gradient of the gradient"
    end = f"{second}{_suppressed(report)}"
    of_all = f"{count(starved)} of {plural(summary['targets'], noun)}" if summary["targets"] > 1 else f"the only {noun}"
    ops = {i for i, d in enumerate(report.diagnostics) if d.node is not None and d.severity != "note"}
    if ops and all(ops & set(t.diagnostics) for t in report.targets if t.starved):
        severed = any(report.diagnostics[i].starves for i in ops)
        verb = ("sever" if severed else "raise") + ("s" if len(ops) == 1 else "") + ("" if severed else " for")
        said = ": ".join(filter(None, (f"{plural(len(ops), 'op')} {verb} {of_all}", total)))
        return line(f"{said}{notes}{second}", STYLES["error"])
    found = [plural(severities.count(s), s) for s in ("error", "warning", "note") if s in severities]
    share = ", ".join(filter(None, (f"{of_all} starved", total)))
    return line(f"{', '.join(found) or 'no finding left'}: {share}{end}", STYLES["error"])


def _suppressed(report: Report) -> str:
    """What is not told, in numbers."""
    words = {"codes": "left out by code", "ignored": "ignored by the settings", "baseline": "in the baseline"}
    told = [f"{number} {words[why]}" for why, number in report.suppressed.items()]
    if report.outdated:
        told.append(f"{report.outdated} of the baseline no longer found")
    return f"; {', '.join(told)}" if told else ""


def line(text: str, style: str = "") -> Text:
    """Text with its `quoted` parts set off."""
    made = Text(text, style)
    made.highlight_regex(re.compile(r"`[^`]+`"), "bold")
    return made


def paragraphs(text: str, width: int) -> Iterator[Text]:
    """A longer text, wrapped anew."""
    for i, part in enumerate(re.split(r"\n\s*\n", text)):
        if i:
            yield Text("")
        yield from (
            line(row) for row in textwrap.wrap(" ".join(part.split()), min(width, PLAIN_WIDTH), break_on_hyphens=False)
        )


def _wrapped(head: Text, gap: str, text: str, width: int, style: str = "") -> Iterator[Text]:
    """A paragraph behind a head, its further lines indented below the text."""
    room = max(width - head.cell_len - len(gap), 40)
    held = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", HELD if len(found[0]) <= room else " "), text)
    rows = [row.replace(HELD, " ") for row in textwrap.wrap(held, room, break_long_words=False, break_on_hyphens=False)]
    indent = " " * min(head.cell_len + len(gap), 12)
    for i, row in enumerate(rows):
        yield Text.assemble(head, gap, line(row, style)) if i == 0 else Text.assemble(indent, line(row, style))
