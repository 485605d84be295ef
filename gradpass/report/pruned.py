"""What a pruning did, as plain data: what was dead, the sizes before and after, the cross-checks, where it is now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradpass.report.diagnostics import Diagnostic, as_json
from gradpass.report.words import plural, size, visible

if TYPE_CHECKING:
    from gradpass.report.repair import CheckRow


@dataclass(frozen=True)
class Size:
    """How large a model is: nodes of its graph and functions, functions, variables with their elements, bytes on disk.

    `bytes` is None where nothing is on disk yet.
    """

    nodes: int
    functions: int
    variables: int
    parameters: int
    bytes: int | None = None


@dataclass
class PruneReport:
    """What `gradpass prune` did: what was dead, and how large the model was and is.

    `removed` are the paths of the variables that went, `kept` those that no function uses and that stay, each with the
    reason; `tables`, `outputs` and `layers` (of a Keras model) went, too. `after` is None where nothing was dead.
    `live` tells of a model in this process, of which `kept` names layers.
    """

    target: str
    before: Size
    after: Size | None
    removed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    crosscheck: list[CheckRow] = field(default_factory=list)
    output: str | None = None
    dry_run: bool = False
    live: bool = False

    @property
    def failed(self) -> list[CheckRow]:
        """The cross-checks that failed."""
        return [row for row in self.crosscheck if row.status == "failed"]

    @property
    def ok(self) -> bool:
        """Whether no cross-check failed; what is dead is no fault."""
        return not self.failed

    @property
    def exit_status(self) -> int:
        """What `gradpass prune` exits with."""
        return 0 if self.ok else 1

    @property
    def removal(self) -> str:
        """What went, in a sentence."""
        if self.after is None:
            return "nothing is dead"
        saved = self.before.bytes - self.after.bytes if self.before.bytes and self.after.bytes else 0
        return (
            f"removed {plural(len(self.removed), 'variable')} "
            f"({plural(self.before.parameters - self.after.parameters, 'parameter')}), "
            f"{plural(self.before.nodes - self.after.nodes, 'node')} and {size(saved)} on disk"
        )

    @property
    def outcome(self) -> str:
        """What was written, and if nothing, why."""
        if self.failed:
            return visible(f"cross-check failed ({', '.join(row.name for row in self.failed)}): nothing was written")
        if self.after is None:
            return "nothing is dead" + ("" if self.live else ": nothing was written")
        if self.output is not None:
            return f"wrote {visible(self.output)}"
        if self.dry_run or not self.live:
            return "dry run: nothing was written"
        return "pruned in this process, on the same variables; save it to keep it"

    def to_json(self) -> dict[str, Any]:
        """The report as `gradpass prune --format json` prints it."""
        return {
            "target": self.target,
            "before": as_json(self.before),
            "after": None if self.after is None else as_json(self.after),
            "removed": self.removed,
            "kept": self.kept,
            "tables": self.tables,
            "outputs": self.outputs,
            "layers": self.layers,
            "diagnostics": [as_json(diagnostic) for diagnostic in self.diagnostics],
            "crosscheck": [row.to_json() for row in self.crosscheck],
            "output": self.output,
        }

    def render(self, width: int) -> Iterable[Any]:
        """The report for people, as rich renderables."""
        from gradpass.report.prunetext import render_pruned

        return render_pruned(self, width)

    def __str__(self) -> str:
        from gradpass.report.text import plain

        return plain(self.render)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
