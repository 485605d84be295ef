"""Renders a probe as HTML: the norms by layer as a drawing, the findings, and all gradients in a table."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from gradpass.report.codes import find
from gradpass.report.html import LETTER, PAGE, environment, fitting
from gradpass.report.probe import ProbeReport
from gradpass.report.probetext import Bar, bars, share, summary, wrong

BODY = "probe.html"
STEP, WIDEST = 20.0, 360.0  # pixels from bar to bar, and of the longest one
FIGURES = 130.0  # pixels for the numbers behind a bar


class Drawn(NamedTuple):
    """A bar with its place and its words."""

    y: float
    width: float
    label: str
    figure: str
    title: str
    kind: str


def render_probe_page(report: ProbeReport) -> str:
    """The whole page."""
    return _rendered(PAGE, report)


def fragment(report: ProbeReport) -> str:
    """The same without the page around it, as a notebook shows it."""
    return _rendered(BODY, report)


def _rendered(template: str, report: ProbeReport) -> str:
    drawn = [_drawn(i, bar) for i, bar in enumerate(bars(report.layers))]
    left = 8 + LETTER * max((len(bar.label) for bar in drawn), default=0)
    made = environment()
    made.filters.update(share=share, wrong=wrong)
    rendered: str = made.get_template(template).render(
        report=report,
        command="gradpass probe",
        body=BODY,
        bars=drawn,
        left=left,
        width=left + WIDEST + FIGURES,
        height=STEP * len(drawn) + 8,
        findings=[(finding, find(finding.code)) for finding in report.findings],
        summary=[text.plain for text in summary(report)],
        # Several reports of one notebook stand on one page.
        prefix=f"gp{zlib.crc32(repr(report).encode()):08x}",
    )
    return rendered


def _drawn(index: int, bar: Bar) -> Drawn:
    gradient = bar.row.gradient
    figure = bar.state or (f"{gradient.norm:.1e}" if gradient else "")
    told = f"norm {gradient.norm:.3e}, largest {gradient.largest:.3e}, zeros {share(gradient)}" if gradient else "None"
    title = f"{bar.row.name}: {told}"
    return Drawn(
        STEP * (index + 1), bar.length * WIDEST, fitting(bar.row.name), figure, title, "bad" if bar.state else "live"
    )
