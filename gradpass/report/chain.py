"""The gradient's path as a short chain of names: long stretches left out, broken where no gradient passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gradpass.report.diagnostics import Diagnostic

ARROW, BROKEN, GAP = "→", "✗", "…"
NEAR = 2  # nodes shown on each side of a cut and at both ends of a path


class Link(NamedTuple):
    """One member of a chain, and what stands before it: nothing, an arrow, or a cross before the op that severs.

    `hidden` is how many nodes are left out here, for which `name` speaks.
    """

    before: str
    name: str
    hidden: int = 0


def chain(diagnostic: Diagnostic) -> Iterator[Link]:
    """The members of a diagnostic's path that are shown: both ends, the cut, and the neighbours of each."""
    path, cut = diagnostic.path, diagnostic.cut
    anchors = {0, len(path) - 1} if cut is None else {0, cut, len(path) - 1}
    keep = sorted({i for a in anchors for i in range(a - NEAR + 1, a + NEAR) if 0 <= i < len(path)})
    last = -1
    for i in keep:
        hidden = i - last - 1
        if hidden == 1:
            yield Link(_before(i - 1, cut), path[i - 1])
        elif hidden:
            yield Link(ARROW, f"{GAP} {hidden} more {GAP}", hidden)
        yield Link(_before(i, cut), path[i])
        last = i


def _before(place: int, cut: int | None) -> str:
    return "" if place == 0 else BROKEN if place == cut else ARROW
