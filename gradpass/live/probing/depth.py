"""Gradients that vanish or explode over depth: by layer, along the way of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gradpass.report.probe import LayerRow

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
    uses say nothing), of layers with variables, and only along a way of the gradient.
    """
    known = {row.name: row for row in rows if row.weights is not None and row.weights.finite and row.weights.rms > 0}
    vanished, exploded = [], []
    for row in known.values():
        nearer = [known[name] for name in behind.get(row.name, ()) if name in known]
        if not nearer:
            continue
        most, least = max(nearer, key=_rms), min(nearer, key=_rms)
        if _rms(row) * APART < _rms(most):
            vanished.append(Apart(row, most, _rms(row) / _rms(most)))
        elif _rms(row) > _rms(least) * APART:
            exploded.append(Apart(row, least, _rms(row) / _rms(least)))
    return sorted(vanished, key=lambda a: a.ratio), sorted(exploded, key=lambda a: -a.ratio)


def _rms(row: LayerRow) -> float:
    assert row.weights is not None
    return row.weights.rms
