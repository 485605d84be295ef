"""What `gradpass crosscheck` tells of two models that are there already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gradpass.report.diagnostics import as_json
from gradpass.report.repair import FixReport


@dataclass
class CrosscheckReport(FixReport):
    """The checks of a repair that somebody made before: the verdicts on both models, and the rows."""

    @property
    def outcome(self) -> str:
        """Whether the fixed model is proven."""
        if self.failed:
            return f"cross-check failed ({', '.join(row.name for row in self.failed)})"
        skipped = sum(row.status == "skipped" for row in self.crosscheck)
        return f"no check failed; {skipped} of {len(self.crosscheck)} could not be made"

    @property
    def exit_status(self) -> int:
        """What `gradpass crosscheck` exits with."""
        return 1 if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """The report as `gradpass crosscheck --format json` prints it."""
        found = [as_json(each) for each in self.left.diagnostics if each.code.startswith("GP6")]
        return {"crosscheck": [row.to_json() for row in self.crosscheck], "diagnostics": found}

    def render(self, width: int) -> Iterable[Any]:
        """The rows for people, as rich renderables, after what they find of surrogates."""
        from gradpass.report.fixtext import render_crosscheck
        from gradpass.report.text import render_diagnostic

        for diagnostic in self.left.diagnostics:
            if diagnostic.code.startswith("GP6"):
                yield from render_diagnostic(diagnostic, self.left, width)
        yield from render_crosscheck(self.crosscheck)
