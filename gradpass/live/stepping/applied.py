"""What becomes of gradients: which variables change by which of them, and which are forgotten."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import tensorflow as tf

from gradpass.live.frameworks import is_variable, plain
from gradpass.live.stepping.findings import Findings
from gradpass.live.stepping.place import Place
from gradpass.live.stepping.tapes import Asked
from gradpass.program.graph import Value
from gradpass.program.trace import handle_of
from gradpass.report.diagnostics import Source
from gradpass.report.words import quoted, whom


class Applied:
    """Looks at the assignments of one graph. `models` are those that the step can reach; `ended` tells that the trace
    ended before the step did, so that what was to come is not known."""

    def __init__(self, findings: Findings, place: Place, models: list[Any], ended: bool) -> None:
        self.findings = findings
        self.place = place
        self.models = models
        self.ended = ended

    def look(self, asked: list[Asked]) -> None:
        """Gradients that go nowhere or to others, variables that no list has."""
        if self.ended:
            return
        names: dict[int, str] = {}
        lines: dict[int, Source | None] = {}
        gradients: dict[Value, int] = {}  # the tensors, and of which variable they are
        for each in asked:
            for name, source, result in zip(self.findings.named(each.sources), each.sources, each.results, strict=True):
                if is_variable(source):
                    key = handle_of(plain(source))
                    names[key] = name
                    lines.setdefault(key, self.place.line(each.mark.name))
                    parts = [] if result is None else tf.nest.flatten(result, expand_composites=True)
                    gradients.update((self.place.value(part), key) for part in parts if self.place.is_here(part))
        own, astray = self._behind(gradients)
        losses = [self.place.value(loss) for each in asked for loss in each.losses if self.place.is_here(loss)]
        idle = self._idle(gradients, own | astray.keys(), losses)
        self._of_idle(_ordered(names, idle), idle, set(gradients.values()), lines)
        if astray:
            others = dict.fromkeys(key for keys in astray.values() for key in keys)
            told = whom([self.findings.name(self.place.variables[key]) for key in others], "variable")
            node = self.place.wiring.assigned(next(iter(others)))[0].node
            self.findings.add("GP503", _ordered(names, astray), self.place.line(node.name), node, others=told)
        self._of_forgotten(names.keys(), lines)

    def _behind(self, gradients: dict[Value, int]) -> tuple[set[int], dict[int, set[int]]]:
        """The variables that are changed by their own gradient; and by gradient the others that are changed by it.

        Clipping by the global norm connects all with all: what counts is the gradient that is nearest.
        """
        wiring = self.place.wiring
        nearest: dict[Any, list[set[int]]] = {}
        for each in wiring.assignments:
            found = wiring.nearest(each.inputs, gradients, wiring.position[each.node])
            nearest.setdefault(each.variable, []).append(found)
        own = {key for key, by in nearest.items() if any(key in found for found in by)}
        astray: dict[int, set[int]] = {}
        for key, by in nearest.items():
            # A gradient that is applied where it belongs may go elsewhere too: into a slot, an average, a statistic.
            for gradient in set().union(*by) - own if key not in own else ():
                astray.setdefault(gradient, set()).add(key)
        return own, astray

    def _idle(self, gradients: dict[Value, int], applied: Container[int], losses: list[Value]) -> list[int]:
        """The variables whose gradient reaches no assignment, no other loss, and nothing that the step returns."""
        ends = [*self.place.function.results, *losses]
        values: dict[int, list[Value]] = {}
        for value, key in gradients.items():
            values.setdefault(key, []).append(value)
        return [k for k, held in values.items() if k not in applied and not self.place.wiring.reaches(held, ends)]

    def _of_idle(self, names: list[str], idle: list[int], computed: set[int], lines: dict[int, Source | None]) -> None:
        """Gradients that are computed for nothing."""
        if not idle:
            return
        wiring = self.place.wiring
        assigned = {each.variable for each in wiring.assignments}
        if set(idle) == computed and not any(map(self._is_trainable, assigned)):
            self.findings.add("GP500", names, lines[idle[0]], entry=quoted(self.findings.label))
            return
        by_key = dict(zip([key for key in lines if key in idle], names, strict=True))
        stale = [key for key in idle if key not in assigned]
        if stale:
            self.findings.add("GP501", [by_key[key] for key in stale], lines[stale[0]])
        moved = [key for key in idle if key in assigned]
        if moved:
            node = wiring.assigned(moved[0])[0].node
            self.findings.add("GP515", [by_key[key] for key in moved], self.place.line(node.name), node)

    def _of_forgotten(self, asked: Iterable[int], lines: dict[int, Source | None]) -> None:
        """Trainable variables of models that the step uses, which it neither differentiates nor assigns."""
        known = {*asked, *(each.variable for each in self.place.wiring.assignments)}
        read = set(self.place.captures)
        forgotten: dict[int, Any] = {}
        for model in self.models:
            mine = {handle_of(plain(v)): v for v in model.trainable_variables}
            # A model of which nothing is asked is used as it is: a teacher, a loss network.
            if mine.keys() & set(asked):
                forgotten.update((k, v) for k, v in mine.items() if k not in known and k in read)
        if not forgotten:
            return
        names = self.findings.untrained(list(forgotten.values()))
        line = next(iter(lines.values()), None)
        self.findings.add("GP502", names, line, entry=quoted(self.findings.label))

    def _is_trainable(self, key: int) -> bool:
        variable = self.place.variables.get(key)
        return variable is not None and bool(variable.trainable)


def _ordered(names: dict[int, str], keys: Iterable[int]) -> list[str]:
    """The names of some variables, in the order in which they were asked for."""
    wanted = set(keys)
    return [name for key, name in names.items() if key in wanted]
