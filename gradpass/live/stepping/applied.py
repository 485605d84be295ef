"""What becomes of gradients: which variables change by which of them, and which are forgotten."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from gradpass.live.frameworks import is_variable, plain
from gradpass.live.stepping.findings import Findings
from gradpass.live.stepping.place import Place
from gradpass.live.stepping.tapes import Asked
from gradpass.program.graph import Function, Value
from gradpass.program.trace import handle_of
from gradpass.report.diagnostics import Source
from gradpass.report.words import quoted, whom


@dataclass
class Computed:
    """The gradients of variables that a graph has: asked for in it, or returned by a function that it calls.

    `tensors` says of which variable each is; `names` and `lines` what the variables are called, and where their
    gradients were asked for.
    """

    tensors: dict[Value, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    lines: dict[int, Source | None] = field(default_factory=dict)

    @classmethod
    def into(cls, function: Function, computed: Iterable[Computed]) -> Computed:
        """Those that a function gets from those that it calls."""
        here = cls()
        for each in computed:
            mine = {value: key for value, key in each.tensors.items() if value.node.function is function}
            here.tensors.update(mine)
            here.names.update((key, each.names[key]) for key in mine.values())
            here.lines.update((key, each.lines[key]) for key in mine.values())
        return here


class Applied:
    """Looks at the assignments of one graph. `models` are those that the step can reach."""

    def __init__(self, findings: Findings, place: Place, models: list[Any]) -> None:
        self.findings = findings
        self.place = place
        self.models = models

    def look(self, asked: list[Asked], returned: Computed) -> Computed:
        """Gradients that go nowhere or to others, variables that no list has.

        `returned` are those that come out of the functions that it calls. Gives those that its own callers get.
        """
        tensors, names, lines = dict(returned.tensors), dict(returned.names), dict(returned.lines)
        for each in asked:
            for name, source, result in zip(self.findings.named(each.sources), each.sources, each.results, strict=True):
                if is_variable(source):
                    key = handle_of(plain(source))
                    names[key] = name
                    lines.setdefault(key, self.place.line(each.mark.name))
                    parts = [] if result is None else tf.nest.flatten(result, expand_composites=True)
                    tensors.update((self.place.value(part), key) for part in parts if self.place.is_here(part))
        own, astray = self._behind(tensors)
        losses = [self.place.value(loss) for each in asked for loss in each.losses if self.place.is_here(loss)]
        idle = self._idle(tensors, own, astray.keys(), losses)
        self._of_idle(_ordered(names, idle), idle, set(tensors.values()), lines)
        if astray:
            others = dict.fromkeys(key for keys in astray.values() for key in keys)
            told = whom([self.findings.name(self.place.variables[key]) for key in others], "variable")
            node = self.place.wiring.assigned(next(iter(others)))[0].node
            self.findings.add("GP503", _ordered(names, astray), self.place.line(node.name), node, others=told)
        return Computed(self._handed(tensors, own | astray.keys() | set(idle)), names, lines)

    def _handed(self, tensors: dict[Value, int], told: set[int]) -> dict[Value, int]:
        """What the callers of this function get of the gradients of which nothing was told here, as they see it."""
        handed: dict[Value, int] = {}
        for port, value in enumerate(self.place.function.results):
            found = self.place.wiring.nearest([value], tensors, len(self.place.made)) - told
            if len(found) == 1:  # a norm of several is a figure, not a gradient
                handed.update((call.output(port), *found) for call in self.place.calls)
        return handed

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
        trained = {handle_of(plain(v)) for model in self.models for v in model.trainable_variables}
        trained |= set(gradients.values())
        astray: dict[int, set[int]] = {}
        for key, by in nearest.items():
            if key not in trained:  # what gradients are gathered in, to be applied by another step
                continue
            # A gradient that is applied where it belongs may go elsewhere too: into a slot, an average, a statistic.
            for gradient in set().union(*by) - own if key not in own else ():
                astray.setdefault(gradient, set()).add(key)
        return own, astray

    def _idle(
        self, gradients: dict[Value, int], own: Container[int], astray: Container[int], losses: list[Value]
    ) -> list[int]:
        """The variables whose gradient reaches no assignment, no other loss, and nothing that the step returns.

        Where others of the list are applied, a share in the norm by which they are clipped is no use of its own.
        """
        wiring = self.place.wiring
        ends = [*self.place.function.results, *losses]
        values: dict[int, list[Value]] = {}
        for value, key in gradients.items():
            values.setdefault(key, []).append(value)
        others_are = any(key in own for key in values)
        return [
            key
            for key, held in values.items()
            if key not in own
            and key not in astray
            and not wiring.reaches(held, ends, None if not others_are or wiring.assigned(key) else self.place.is_scalar)
        ]

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

    def forgotten(self, computed: Iterable[Computed]) -> None:
        """Trainable variables of models that the step uses, which it neither differentiates nor assigns."""
        lines = {key: line for each in computed for key, line in each.lines.items()}
        known = {*lines, *(each.variable for each in self.place.wiring.assignments)}
        read = set(self.place.captures)
        found: dict[int, Any] = {}
        for model in self.models:
            mine = {handle_of(plain(v)): v for v in model.trainable_variables}
            # A model of which nothing is asked is used as it is: a teacher, a loss network.
            if mine.keys() & lines.keys():
                found.update((k, v) for k, v in mine.items() if k not in known and k in read)
        if found:
            names = self.findings.untrained(list(found.values()))
            self.findings.add("GP502", names, next(iter(lines.values())), entry=quoted(self.findings.label))

    def _is_trainable(self, key: int) -> bool:
        variable = self.place.variables.get(key)
        return variable is not None and bool(variable.trainable)


def _ordered(names: dict[int, str], keys: Iterable[int]) -> list[str]:
    """The names of some variables, in the order in which they were asked for."""
    wanted = set(keys)
    return [name for key, name in names.items() if key in wanted]
