"""What is found in a training step, in the words of a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradpass.live.constants import called
from gradpass.live.frameworks import plain, unique
from gradpass.program.graph import Node
from gradpass.program.trace import LIVE
from gradpass.report.codes import find
from gradpass.report.diagnostics import Diagnostic, Entry, Fix, Source, Target
from gradpass.report.words import whom


class Findings:
    """Diagnostics and targets as they come up. `written` says how the user's code writes variables, by `handle_of`."""

    def __init__(self, label: str, written: dict[int, str]) -> None:
        self.label = label
        self.entries: list[Entry] = []
        self.found: list[Diagnostic] = []
        self._written = written

    def add(
        self,
        number: str,
        names: Iterable[str] = (),
        source: Source | None = None,
        node: Node | None = None,
        **words: str,
    ) -> None:
        """A finding; and its number with the targets that it concerns."""
        code = find(number)
        listed = list(names)
        several = {"whom": whom(listed, "variable"), "them": "it" if len(listed) == 1 else "them"}
        index = len(self.found)
        concerned = [target for entry in self.entries for target in entry.targets if target.path in listed]
        for target in concerned:
            target.diagnostics.append(index)
        flowing = {target.path for target in concerned if not target.starved}
        self.found.append(
            Diagnostic(
                code.code,
                code.name,
                code.severity,
                code.message.format(**several, **words),
                code.advice(),
                op=node.op if node else None,
                node=node.name if node else None,
                function=node.function.name if node else None,
                entries=[],
                source=source,
                starves=[name for name in listed if name not in flowing],
                affects=[name for name in listed if name in flowing],
                parameters=sum({target.path: target.parameters for target in concerned}.values()),
                fix=Fix("advise"),
            )
        )

    def untrained(self, variables: list[Any]) -> list[str]:
        """Adds variables as targets for which no gradient is computed; gives their names."""
        names = self.named(variables)
        targets = [
            Target(name, name, "variable", plain(v).dtype.base_dtype.name, _shape(v), _size(v), "none", "none")
            for name, v in zip(names, variables, strict=True)
        ]
        self.entries.append(Entry(LIVE, [], targets))
        return names

    def named(self, variables: list[Any]) -> list[str]:
        return unique(self.name(each) for each in variables)

    def name(self, variable: Any) -> str:
        """What the user calls a variable."""
        return called(variable, self._written)


def _shape(variable: Any) -> tuple[int | None, ...] | None:
    shape = plain(variable).shape
    return None if shape.rank is None else tuple(shape.as_list())


def _size(variable: Any) -> int:
    return int(plain(variable).shape.num_elements() or 0)
