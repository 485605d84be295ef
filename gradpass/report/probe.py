"""What `gradpass.probe` found: rows of layers and variables with their numbers, and findings like those of a check."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gradpass.report.diagnostics import Diagnostic, GradientError, Report, as_json


@dataclass(frozen=True)
class Stats:
    """Numbers of a tensor: how many elements it has, how many of them are 0, NaN and infinite.

    `largest` is the largest absolute value and `norm` the Euclidean norm, both of the finite elements. Of a layer with
    several outputs they are of all of them together.
    """

    size: int
    zeros: int
    nans: int
    infinite: int
    largest: float
    norm: float

    @property
    def zero_share(self) -> float:
        """The share of exact zeros."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def nan_share(self) -> float:
        """The share of NaN."""
        return self.nans / self.size if self.size else 0.0

    @property
    def inf_share(self) -> float:
        """The share of infinite elements."""
        return self.infinite / self.size if self.size else 0.0

    @property
    def all_zero(self) -> bool:
        """Whether it has elements, and all of them are 0."""
        return 0 < self.size == self.zeros

    @property
    def finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return not (self.nans or self.infinite)

    @property
    def rms(self) -> float:
        """The root of the mean square of what is finite and not 0."""
        live = self.size - self.zeros - self.nans - self.infinite
        return self.norm / math.sqrt(live) if live else 0.0

    def scaled(self, factor: float) -> Stats:
        """The same of all elements times a factor."""
        return Stats(self.size, self.zeros, self.nans, self.infinite, self.largest * factor, self.norm * factor)

    def to_json(self) -> dict[str, Any]:
        """Counts and numbers, and the shares that they make."""
        shares = {"zero_share": self.zero_share, "nan_share": self.nan_share, "inf_share": self.inf_share}
        return {f.name: getattr(self, f.name) for f in fields(self)} | shares


def together(parts: Iterable[Stats | None]) -> Stats | None:
    """The numbers of several tensors as of one; None of none."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    size, zeros, nans, infinite = (sum(getattr(p, n) for p in known) for n in ("size", "zeros", "nans", "infinite"))
    return Stats(size, zeros, nans, infinite, max(p.largest for p in known), math.hypot(*(p.norm for p in known)))


@dataclass(frozen=True)
class LayerRow:
    """A layer (or, outside of layers, an op): what comes out of it, the gradient there, and that of its variables.

    `gradient` is None where none reaches it. `weights` is of the gradients of all its variables.
    """

    name: str
    activation: Stats
    gradient: Stats | None
    weights: Stats | None
    variables: list[str] = field(default_factory=list)

    def scaled(self, factor: float) -> LayerRow:
        """The same with gradients times a factor."""
        gradient, weights = (g and g.scaled(factor) for g in (self.gradient, self.weights))
        return replace(self, gradient=gradient, weights=weights)


@dataclass(frozen=True)
class VariableRow:
    """A variable (or an input, where there is no variable) and its gradient, None where it gets None."""

    name: str
    shape: tuple[int | None, ...]
    gradient: Stats | None


@dataclass
class ProbeReport:
    """What one forward and one backward pass showed.

    `layers` are in the order of the forward pass, `whole` the loops, branches and calls that were not looked into,
    `severed` the variables that get None, which is a matter of `gradpass.check`. `report` holds the findings as a
    check's report does.
    """

    target: str
    loss: Stats
    layers: list[LayerRow]
    variables: list[VariableRow]
    whole: list[str]
    severed: list[str]
    report: Report = field(repr=False)

    @property
    def findings(self) -> list[Diagnostic]:
        """What was found, the worst first."""
        return self.report.diagnostics

    diagnostics = findings

    @property
    def ok(self) -> bool:
        """Whether nothing was found; notes do not count."""
        return self.report.ok

    @property
    def exit_status(self) -> int:
        """What `gradpass probe` exits with."""
        return self.report.exit_status

    def raise_for_findings(self) -> None:
        """Raises GradientError if anything was found."""
        if not self.ok:
            raise GradientError(self)

    def to_json(self) -> dict[str, Any]:
        """The report as `gradpass probe --format json` prints it."""
        return {
            "schema_version": 1,
            "gradpass": self.report.gradpass,
            "target": self.target,
            "loss": self.loss.to_json(),
            "layers": [_row(row) for row in self.layers],
            "variables": [_row(row) for row in self.variables],
            "whole": self.whole,
            "severed": self.severed,
            "findings": [as_json(finding) for finding in self.findings],
        }

    def render(self, width: int) -> Iterable[Any]:
        """The report for people, as rich renderables."""
        from gradpass.report.probetext import render_probe

        return render_probe(self, width)

    def __str__(self) -> str:
        from gradpass.report.text import plain

        return plain(self.render)

    def _repr_html_(self) -> str:
        from gradpass.report.probehtml import fragment

        return fragment(self)


def _row(row: Any) -> dict[str, Any]:
    def told(value: Any) -> Any:
        return value.to_json() if isinstance(value, Stats) else list(value) if isinstance(value, tuple) else value

    return {f.name: told(getattr(row, f.name)) for f in fields(row)}
