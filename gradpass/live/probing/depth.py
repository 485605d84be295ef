"""Gradients that vanish or explode over depth: by layer, along the way of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gradpass.report.probe import LayerRow, Stats

# With gradients this far apart no learning rate serves both ends: one that moves the weights of one layer by a
# hundredth moves those of the other by 1e-7 of themselves, where float32 has its next number (its epsilon is 1.2e-7).
# Healthy networks at their start stay within some 1e3.
APART = 1e5


class Apart(NamedTuple):
    """A layer whose weights' gradient is far from that of a layer nearer to the loss; `ratio` is the first's by the
    other's."""

    layer: LayerRow
    nearer: LayerRow
    ratio: float


def apart(rows: list[LayerRow], behind: Mapping[str, set[str]]) -> tuple[list[Apart], list[Apart]]:
    """The layers whose gradients have vanished, and those whose gradients have exploded, the worst first.

    Compared is the root mean square over the gradient's elements that are not 0 (rows of an embedding that no example
    uses say nothing), of layers with variables, and only along a way of the gradient. Both the gradient of the weights
    and that of the layer's output must be far from the other layer's: that of the keys of a young attention is small at
    the weights alone.
    """
    known = [row for row in rows if _usable(row.weights) and _usable(row.gradient)]
    names = {row.name: row for row in known}
    vanished, exploded = [], []
    for row in known:
        nearer = behind.get(row.name, ())
        pairs = [_compared(row, other) for name, other in names.items() if name in nearer]
        if not pairs:
            continue
        most = min((larger for _, larger in pairs), key=_ratio)
        least = max((smaller for smaller, _ in pairs), key=_ratio)
        if most.ratio * APART < 1:
            vanished.append(most)
        elif least.ratio > APART:
            exploded.append(least)
    return sorted(vanished, key=_ratio), sorted(exploded, key=_ratio, reverse=True)


def _compared(row: LayerRow, other: LayerRow) -> tuple[Apart, Apart]:
    """How a layer's gradients compare with another's, of the weights and of what comes out: the smaller ratio first."""
    assert row.weights and row.gradient and other.weights and other.gradient
    ratios = row.weights.rms / other.weights.rms, row.gradient.rms / other.gradient.rms
    return Apart(row, other, min(ratios)), Apart(row, other, max(ratios))


def _ratio(apart: Apart) -> float:
    return apart.ratio


def _usable(stats: Stats | None) -> bool:
    return stats is not None and stats.finite and stats.rms > 0
