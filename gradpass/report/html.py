"""Renders a report as one HTML file that needs nothing else, each finding with a drawing of what is severed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.cells import cell_len

from gradpass.report.chain import BROKEN, chain
from gradpass.report.codes import find
from gradpass.report.diagnostics import Diagnostic, Report
from gradpass.report.fixtext import CHECKS, NUMBERS, PLAN, check_rows, plan_rows
from gradpass.report.layout import Point, arrange
from gradpass.report.neighbourhood import Box, Drawing, Flow
from gradpass.report.probe import ProbeReport
from gradpass.report.repair import FixReport, parts
from gradpass.report.text import location, summary_line
from gradpass.report.words import count, plural, visible, whom

PAGE, BODY = "page.html", "report.html"
LETTER = 7.3  # the width of a letter of the drawing's font, at its 12 pixels, on the widest of common systems
LETTERS = 27  # of a box's label
PADDING = 10.0
LINE = 16.0
DRAWN = 100  # findings with a drawing: with more of them nobody looks, and no browser likes the page


@dataclass(frozen=True)
class DrawnBox:
    """A box with its place and its words as they fit."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    label: str
    detail: str


@dataclass(frozen=True)
class DrawnLink:
    """A link as the data of an SVG path, thick on the gradient's path; and where the mark stands if it is broken.

    What several links share is drawn with the first of them, or it would be darker than the rest; so some lack an end.
    """

    flow: Flow
    shape: str
    on_path: bool
    arrow: bool
    mark: Point | None


@dataclass(frozen=True)
class Picture:
    """All that the template of a drawing wants."""

    title: str
    description: str
    boxes: list[DrawnBox]
    links: list[DrawnLink]
    width: float
    height: float
    left_out: int


def render_html(told: Report | FixReport | ProbeReport) -> str:
    """The whole page."""
    if isinstance(told, ProbeReport):
        from gradpass.report.probehtml import render_probe_page

        return render_probe_page(told)
    return _rendered(PAGE, told)


def fragment(told: Report | FixReport) -> str:
    """The same without the page around it, as a notebook shows it."""
    return _rendered(BODY, told)


def _rendered(template: str, told: Report | FixReport) -> str:
    report, _ = parts(told)
    findings = []
    for i, diagnostic in enumerate(report.diagnostics):
        drawing = report.drawing(diagnostic) if i < DRAWN else None
        findings.append((diagnostic, find(diagnostic.code), picture(diagnostic, drawing) if drawing else None))
    # Several reports of one notebook stand on one page.
    prefix = f"gp{zlib.crc32(repr(report).encode()):08x}"
    summary = summary_line(report).plain
    rendered: str = (
        environment()
        .get_template(template)
        .render(
            report=report, findings=findings, summary=summary, prefix=prefix, most=DRAWN, command="gradpass",
            body=BODY, **_repair(told),
        )
    )  # fmt: skip
    return rendered


def _repair(told: Report | FixReport) -> dict[str, Any]:
    """What a repair did, for the template: how it ended, and tables of the plan and of the cross-checks."""
    if not isinstance(told, FixReport):
        return {"outcome": "", "tables": []}
    tables = [("plan", PLAN, list(plan_rows(told))), ("cross-check", CHECKS, list(check_rows(told.crosscheck)))]
    return {"outcome": told.outcome, "tables": [table for table in tables if table[2]]}


@cache
def environment() -> Environment:
    """The templates of reports, which escape every name of a model."""
    environment = Environment(
        loader=PackageLoader("gradpass.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_harmless,
    )
    environment.globals.update(broken=BROKEN, numbers=NUMBERS)
    environment.filters.update(quoted=quoted, chain=chain, place=location, count=count, plural=plural, number=_number)
    return environment


def _harmless(value: Any) -> Any:
    """What a template is given, without what no page may hold and what turns the direction of reading."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(map(visible, value.split("\n")))


def quoted(text: str) -> Iterator[tuple[bool, str]]:
    """A sentence in parts: whether it is a `quoted` name, and what stands there."""
    for i, part in enumerate(re.split(r"`([^`]*)`", text)):
        if part:
            yield bool(i % 2), part


def picture(diagnostic: Diagnostic, drawing: Drawing) -> Picture:
    """A drawing with its coordinates."""
    words = [(fitting(box.label), fitting(box.detail)) for box in drawing.boxes]
    sizes = [
        (max(cell_len(label), cell_len(detail)) * LETTER + 2 * PADDING, (2 if detail else 1) * LINE + PADDING)
        for label, detail in words
    ]
    layout = arrange(sizes, [(link.start, link.end) for link in drawing.links], drawing.spine)
    boxes = [
        DrawnBox(box, x - width / 2, y, width, height, label, detail)
        for box, (x, y), (width, height), (label, detail) in zip(
            drawing.boxes, layout.places, sizes, words, strict=True
        )
    ]
    links = []
    shared: set[tuple[Flow, bool, Point, Point]] = set()
    for link in drawing.links:
        points = layout.routes[link.start, link.end]
        on_path = link.end == link.start + 1 < drawing.spine
        pieces = [(link.flow, on_path, *piece) for piece in pairwise(points)]
        fresh = [piece not in shared for piece in pieces]
        shared.update(pieces)
        mark = _mark(points) if link.flow == "broken" and fresh[-1] else None
        links.append(DrawnLink(link.flow, _curve(points, fresh), on_path, fresh[-1], mark))
    links.sort(key=lambda link: (link.on_path, link.flow))  # what matters is drawn over the rest
    way, stands = _told(diagnostic)
    return Picture(
        f"{diagnostic.code} {diagnostic.name}: {way}",
        f"{diagnostic.node} ({diagnostic.op}) stands {stands}.",
        boxes,
        links,
        layout.width,
        layout.height,
        drawing.left_out,
    )


def _told(diagnostic: Diagnostic) -> tuple[str, str]:
    """What a drawing shows, and where the op stands in it, for those who do not see it."""
    if not diagnostic.cut:
        return f"what stands around {diagnostic.node}", "beside all ways from a target to an output"
    whose = whom(diagnostic.concerned, "target") or diagnostic.path[0]
    path = ", ".join(name for _, name, _ in chain(diagnostic))
    return (
        f"the gradient's way to {diagnostic.path[0]}",
        f"between {whose} and the output {diagnostic.path[-1]}. The path: {path}",
    )


def fitting(text: str) -> str:
    """The end of a name that is too long: the scopes at its beginning tell least."""
    one_line = visible(" ".join(text.split()))
    if cell_len(one_line) <= LETTERS:
        return one_line
    end = one_line[-LETTERS:]  # a letter may be two cells wide, or none
    while cell_len(end) >= LETTERS:
        end = end[1:]
    return f"…{end}"


def _curve(points: list[Point], fresh: list[bool]) -> str:
    """Straight through the rows, bent between them; only those of its pieces that are asked for."""
    parts = []
    drawing = False
    for ((x, y), (to_x, to_y)), wanted in zip(pairwise(points), fresh, strict=True):
        if wanted and not drawing:
            parts.append(f"M{_number(x)} {_number(y)}")
        drawing = wanted
        if wanted and to_x == x:
            parts.append(f"V{_number(to_y)}")
        elif wanted:
            half = _number((y + to_y) / 2)
            parts.append(f"C{_number(x)} {half} {_number(to_x)} {half} {_number(to_x)} {_number(to_y)}")
    return "".join(parts)


def _mark(points: list[Point]) -> Point:
    """Between the last two rows: a link is broken where it arrives."""
    downwards = points[0][1] < points[-1][1]
    (x, y), (to_x, to_y) = points[-2:] if downwards else points[-3:-1]
    return (x + to_x) / 2, (y + to_y) / 2


def _number(value: Any) -> str:
    return f"{value:.1f}".removesuffix(".0")
