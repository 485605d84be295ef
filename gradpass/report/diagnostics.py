"""Findings as plain data, in the shape of the JSON that other programs read; rendering is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from gradpass.errors import GradpassError
from gradpass.flow.verdict import State, Structure
from gradpass.report.words import command, count, quoted, visible

if TYPE_CHECKING:
    from gradpass.program.model import Model
    from gradpass.report.neighbourhood import Drawing, Neighbourhoods
    from gradpass.report.probe import ProbeReport

SCHEMA_VERSION = 1
SHOWN_ENTRIES = 6

Severity = Literal["error", "warning", "note"]
FixKind = Literal["exact", "estimator", "smooth", "prune", "advise", "refuse"]


@dataclass(frozen=True)
class Source:
    """The user's line that made an op."""

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Fix:
    """What can be done about a diagnostic: by which rule, or why not."""

    kind: FixKind
    rule: str | None = None
    reason: str | None = None


@dataclass
class Target:
    """A variable or an input, its state in TensorFlow and in truth, and the diagnostics (by index) that concern it."""

    name: str
    path: str
    kind: Literal["variable", "input"]
    dtype: str
    shape: tuple[int | None, ...] | None
    parameters: int
    state: State
    structure: Structure
    diagnostics: list[int] = field(default_factory=list)

    @property
    def starved(self) -> bool:
        """Whether TensorFlow or the graph itself gives it no gradient."""
        return self.state != "flows" or self.structure != "flows"


@dataclass
class Diagnostic:
    """One cause, and everybody whom it concerns.

    `starves` are targets without a gradient in the graph's own structure, `raises` those for which TensorFlow raises
    because of this op, whether they pass through it or not, `affects` those that have a gradient and no use of it,
    `unused` variables that are no targets at all. `parameters` counts the elements of `starves` (or `affects`, or
    `unused`).
    """

    code: str
    name: str
    severity: Severity
    message: str
    help: str
    op: str | None = None
    node: str | None = None
    function: str | None = None
    stack: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    source: Source | None = None
    starves: list[str] = field(default_factory=list)
    raises: list[str] = field(default_factory=list)
    affects: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    parameters: int = 0
    path: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fix: Fix = field(default_factory=lambda: Fix("refuse"))

    @property
    def concerned(self) -> list[str]:
        """Whom it is about, whatever it does to them."""
        return self.starves or self.affects or self.raises or self.unused

    @property
    def cut(self) -> int | None:
        """The place of the op on the path. A target may bear its name; an op beside all ways is alone there."""
        places = [i for i, name in enumerate(self.path) if name == self.node]
        return next(filter(None, places), places[0] if places else None)

    def remarks(self, report: Report) -> list[tuple[str, str]]:
        """What every format tells below a finding, each with its label: notes, help, what `fix` does or why not."""
        told = [*(("note", note) for note in self.notes), ("help", self.help)]
        if len(report.entries) > 1 and self.entries:
            rest = len(self.entries) - SHOWN_ENTRIES
            names = ", ".join(f"entry {quoted(name)}" for name in self.entries[:SHOWN_ENTRIES])
            told.insert(0, ("in", names + (f" and {count(rest)} more" if rest > 0 else "")))
        fix = self.fix
        if fix.kind == "refuse":
            told.append(("fix", f"none: {fix.reason}"))
        elif fix.rule:
            which = "its" if fix.kind == "exact" else "a"
            live = report.model is not None and report.model.live is not None
            who = "gradpass.fix" if live else command("gradpass fix", report.target)
            told.append(("fix", f"{who} adds {which} derivative: {fix.rule} ({fix.kind})"))
        return [(label, visible(text)) for label, text in told]


@dataclass
class Entry:
    """One way into the model, with all its targets."""

    name: str
    outputs: list[str]
    targets: list[Target]


@dataclass
class Report:
    """The verdict on a target, as shown by `gradpass check`; of order 2 it is that on the gradient's own gradient.

    `suppressed` counts the findings that are not shown, by why: their code was not asked for, or the project lives with
    them; `outdated` those of its baseline that are no longer found. `model` is looked into when a drawing is asked for.
    """

    target: str
    entries: list[Entry]
    diagnostics: list[Diagnostic]
    gradpass: str
    tensorflow_table: str
    order: int = 1
    suppressed: dict[str, int] = field(default_factory=dict)
    outdated: int = 0
    model: Model | None = field(default=None, repr=False, compare=False)

    @property
    def targets(self) -> list[Target]:
        """The targets of all entries."""
        return [target for entry in self.entries for target in entry.targets]

    @property
    def ok(self) -> bool:
        """Whether nothing was found; notes do not count."""
        return all(d.severity == "note" for d in self.diagnostics)

    @property
    def exit_status(self) -> int:
        """What `gradpass check` exits with."""
        return 0 if self.ok else 1

    @property
    def summary(self) -> dict[str, int]:
        """Counts over the targets of all entries; a target of two entries counts twice."""
        targets = self.targets
        states = [t.state for t in targets]
        return {
            "targets": len(targets),
            **{state: states.count(state) for state in ("flows", "zero", "none", "raises")},
            "parameters": sum(t.parameters for t in targets),
            "starved_parameters": sum(t.parameters for t in targets if t.starved),
        }

    def to_json(self) -> dict[str, Any]:
        """The report as `gradpass check --format json` prints it; schema.json describes it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "gradpass": self.gradpass,
            "tensorflow_table": self.tensorflow_table,
            "target": self.target,
            "order": self.order,
            "entries": [as_json(entry) for entry in self.entries],
            "diagnostics": [as_json(diagnostic) for diagnostic in self.diagnostics],
            "summary": self.summary,
            "suppressed": self.suppressed,
            "outdated": self.outdated,
        }

    def filtered(self, select: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> Report:
        """The report with the diagnostics whose code begins with one of `select` (none: any) and none of `ignore`."""
        wanted = [
            i
            for i, d in enumerate(self.diagnostics)
            if (not select or d.code.startswith(select)) and not (ignore and d.code.startswith(ignore))
        ]
        return self.kept(wanted, "codes")

    def kept(self, indices: Iterable[int], why: str) -> Report:
        """The report with some of its diagnostics only, by index; the others are counted as suppressed."""
        kept = list(indices)
        hidden = len(self.diagnostics) - len(kept)
        suppressed = {**self.suppressed, why: self.suppressed.get(why, 0) + hidden} if hidden else self.suppressed
        moved = {old: new for new, old in enumerate(kept)}
        entries = [
            replace(
                entry,
                targets=[
                    replace(t, diagnostics=[moved[i] for i in t.diagnostics if i in moved]) for t in entry.targets
                ],
            )
            for entry in self.entries
        ]
        found = [self.diagnostics[i] for i in kept]
        return replace(self, entries=entries, diagnostics=found, suppressed=suppressed)

    def raise_for_findings(self) -> None:
        """Raises GradientError if anything was found."""
        if not self.ok:
            raise GradientError(self)

    def drawing(self, diagnostic: Diagnostic) -> Drawing | None:
        """What stands around a finding; None where there is no path to draw."""
        return self.around.drawing(diagnostic) if self.around else None

    @cached_property
    def around(self) -> Neighbourhoods | None:
        """What stands around findings in the model, if that is at hand."""
        from gradpass.report.neighbourhood import Neighbourhoods

        return Neighbourhoods(self.model) if self.model else None

    def render(self, width: int) -> Iterable[Any]:
        """The report for people, as rich renderables."""
        from gradpass.report.text import render_report

        return render_report(self, width)

    def __str__(self) -> str:
        from gradpass.report.text import plain

        return plain(self.render)

    def _repr_html_(self) -> str:
        from gradpass.report.html import fragment

        return fragment(self)


class GradientError(GradpassError):
    """Gradients are missing; `report` (of a check or a probe) says which and why."""

    def __init__(self, report: Report | ProbeReport) -> None:
        super().__init__(str(report))
        self.report = report


def as_json(item: Any) -> Any:
    """A dataclass as JSON data; tuples become lists, as whoever reads the JSON gets them back."""
    if isinstance(item, (list, tuple)):
        return [as_json(part) for part in item]
    if is_dataclass(item):
        return {f.name: as_json(getattr(item, f.name)) for f in fields(item)}
    return item
