"""What a repair did, as plain data: its plan, its cross-checks, the verdicts before and after it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gradpass.report.diagnostics import Report, Severity, as_json
from gradpass.report.words import quoted, visible

if TYPE_CHECKING:
    from gradpass.crosscheck.check import Check
    from gradpass.report.pruned import PruneReport
    from gradpass.rewrite.fix import Repair


@dataclass
class PlanStep:
    """What is done about one diagnostic of the report before (its index), or why nothing is."""

    diagnostic: int | None
    rule: str | None
    kind: str | None
    nodes_added: int
    declined: str | None
    rules: list[str] = field(default_factory=list)


@dataclass
class CheckRow:
    """One cross-check: its figure, its limit and where that comes from, and how long it took (None: not timed)."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    figure: float | None
    limit: float | None
    reason: str | None
    limit_from: str | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, check: Check) -> CheckRow:
        """The row of a check."""
        return cls(**vars(check))

    @property
    def told(self) -> str:
        """The check in a sentence: how it ended, and why."""
        ended = "was skipped" if self.status == "skipped" else self.status
        limit = "" if self.limit is None else f", limit {self.limit:.3g}"
        how = ended if self.figure is None else f"{ended} (figure {self.figure:.3g}{limit})"
        return visible(f"the cross-check {quoted(self.name)} {how}" + (f": {self.reason}" if self.reason else ""))

    def to_json(self) -> dict[str, Any]:
        """The row as JSON data; a figure that is no finite number becomes null, since JSON has none."""
        row = as_json(self)
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


class Remark(NamedTuple):
    """Something about a repair as a whole, for formats that have findings only."""

    severity: Severity
    title: str
    text: str


@dataclass
class FixReport:
    """What `gradpass fix` did: the verdict before and after, the plan, the cross-checks, where the output is.

    `after` is None where nothing was repaired; `output` is None where nothing was written. `diff` is shown on request.
    `live` tells of a repair in this process, of which nothing is written before somebody saves it. `pruned` is what was
    removed before, and `onnx` the ONNX file, where these were asked for.
    """

    before: Report
    after: Report | None
    plan: list[PlanStep]
    crosscheck: list[CheckRow]
    output: str | None
    dry_run: bool = False
    diff: str = ""
    live: bool = False
    pruned: PruneReport | None = None
    onnx: str | None = None

    @property
    def left(self) -> Report:
        """What is to be said of the model as it is now."""
        return self.after or self.before

    @property
    def repaired(self) -> bool:
        """Whether the plan changes anything."""
        return self.after is not None

    @property
    def failed(self) -> list[CheckRow]:
        """The cross-checks that failed, those of the pruning among them."""
        rows = [*(self.pruned.crosscheck if self.pruned else ()), *self.crosscheck]
        return [row for row in rows if row.status == "failed"]

    @property
    def ok(self) -> bool:
        """Whether no target is starved (any more) and no cross-check failed."""
        return self.left.ok and not self.failed

    @property
    def remarks(self) -> list[Remark]:
        """What no finding tells: other refusals, the cross-checks that prove nothing, what was written."""
        told = {i for i, diagnostic in enumerate(self.before.diagnostics) if diagnostic.fix.kind == "refuse"}
        refused = [step for step in self.plan if step.declined and step.diagnostic not in told]
        pruned = self.pruned.removal if self.pruned else None
        return [
            *([Remark("note", "gradpass fix --prune", pruned)] if pruned else []),
            *(Remark("note", "gradpass fix", visible(f"left as it is: {step.declined}")) for step in refused),
            *(
                Remark("error" if row.status == "failed" else "note", f"cross-check {row.name}", row.told)
                for row in self.crosscheck
                if row.status != "passed"
            ),
            Remark("note", "gradpass fix", self.outcome),
        ]

    @property
    def outcome(self) -> str:
        """What was written, and if nothing, why."""
        if self.failed:
            return visible(f"cross-check failed ({', '.join(row.name for row in self.failed)}): nothing was written")
        if self.output:
            return f"wrote {visible(self.output)}" + (f" and {visible(self.onnx)}" if self.onnx else "")
        if self.live:
            return self._outcome_here()
        if self.dry_run and self.repaired:
            return "dry run: nothing was written"
        if self.ok:
            return "nothing to repair: nothing was written"
        return "nothing can be repaired, for the reasons given: nothing was written"

    def _outcome_here(self) -> str:
        if self.repaired:
            return "repaired in this process, on the same variables; save it to keep it"
        return "nothing to repair" if self.ok else "nothing can be repaired, for the reasons given"

    @property
    def exit_status(self) -> int:
        """What `gradpass fix` exits with."""
        return 0 if self.ok else 1

    def to_json(self) -> dict[str, Any]:
        """The report as `gradpass fix --format json` prints it."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json() if self.after else None,
            "plan": [as_json(step) for step in self.plan],
            "crosscheck": [row.to_json() for row in self.crosscheck],
            "output": self.output,
            "diff": self.diff or None,
            "prune": self.pruned.to_json() if self.pruned else None,
            "onnx": self.onnx,
        }

    def render(self, width: int) -> Iterable[Any]:
        """The report for people, as rich renderables."""
        from gradpass.report.fixtext import render_fix

        return render_fix(self, width)

    def __str__(self) -> str:
        from gradpass.report.text import plain

        return plain(self.render)

    def _repr_html_(self) -> str:
        from gradpass.report.html import fragment

        return fragment(self)


def plan_of(done: Repair, before: Report) -> list[PlanStep]:
    """The steps of a repair as plain data, with the places of their findings in the report before."""
    places = {(d.function, d.node): i for i, d in enumerate(before.diagnostics) if d.node is not None}
    return [
        PlanStep(
            places.get((step.cut.function, step.cut.node)),
            None if step.declined else next(iter(step.rules), None),
            None if step.declined else step.kind,
            step.nodes_added,
            step.declined,
            list(step.rules),
        )
        for step in done.plan
    ]


class Plan(list[PlanStep]):
    """The steps of a repair, to be printed."""

    def __init__(self, report: FixReport) -> None:
        super().__init__(report.plan)
        self._report = report

    def render(self, width: int) -> Iterable[Any]:
        """The plan as a table, as rich renderables."""
        from gradpass.report.fixtext import render_plan

        return render_plan(self._report)

    def __str__(self) -> str:
        from gradpass.report.text import plain

        return plain(self.render)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def parts(told: Report | FixReport) -> tuple[Report, list[Remark]]:
    """The report on the model as it is now, and what else is to be told of a repair."""
    return (told.left, told.remarks) if isinstance(told, FixReport) else (told, [])
