"""Where a node runs functions in its place: which of its inputs and outputs are which of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from gradpass.flow.facts import BRANCHES, LOOPS
from gradpass.program.graph import CALLS, Kind, Node, Program

CUSTOM = "_gradient_op_type"  # names the custom gradient of a node


class Slot(NamedTuple):
    """An argument or a result of a function, by its place."""

    function: str
    kind: str
    place: int


class Site(NamedTuple):
    """A call, branch or loop. Input `skip + i` is argument i of its functions, output j result j of its bodies.

    `bodies` are run for their results, `condition` (a loop's) for whether to go on. `types` names the attributes that
    list the dtypes of arguments and of results.
    """

    bodies: tuple[str, ...]
    condition: str | None
    skip: int
    types: tuple[str, str]

    @property
    def functions(self) -> tuple[str, ...]:
        """All functions that it runs."""
        return self.bodies if self.condition is None else (*self.bodies, self.condition)


def site(node: Node) -> Site | None:
    """What a node runs; None where it runs nothing, or in a way that nobody here can take apart."""
    known = node.kind.derived.get(site)
    if known is None:
        known = node.kind.derived[site] = (_site(node),)
    found: Site | None = known[0]
    return found


def _site(node: Node) -> Site | None:
    if node.op in CALLS:
        found = Site((node.attr("f").func.name,), None, 0, ("Tin", "Tout"))
    elif node.op in ("If", "StatelessIf"):
        branches = (node.attr("then_branch").func.name, node.attr("else_branch").func.name)
        found = Site(branches, None, 1, ("Tin", "Tout"))
    elif node.op in BRANCHES:
        found = Site(tuple(f.name for f in node.attr("branches").list.func), None, 1, ("Tin", "Tout"))
    elif node.op in LOOPS:
        found = Site((node.attr("body").func.name,), node.attr("cond").func.name, 0, ("T", "T"))
    else:
        return None
    program = node.function.program
    for name in found.functions:
        callee = program.functions.get(name)
        if callee is None or len(callee.arguments) != len(node.inputs) - found.skip:
            return None
    return found


def mentioned(kind: Kind) -> tuple[str, ...]:
    """The functions that the attributes of a node name."""
    known: tuple[str, ...] | None = kind.derived.get(mentioned)
    if known is None:
        known = kind.derived[mentioned] = tuple(_mentioned(kind))
    return known


def _mentioned(kind: Kind) -> Iterator[str]:
    for value in kind.attrs.values():
        which = value.WhichOneof("value")
        if which == "func":
            yield from _within(value.func)
        elif which == "list":
            for function in value.list.func:
                yield from _within(function)


def _within(function: Any) -> Iterator[str]:
    yield function.name
    for value in function.attr.values():
        if value.WhichOneof("value") == "func":
            yield from _within(value.func)


class Joined:
    """Which slots must go together: those of the branches of an If, those of one variable of a loop."""

    def __init__(self, program: Program) -> None:
        self._parent: dict[Slot, Slot] = {}
        self._members: dict[Slot, list[Slot]] = {}
        for name in program.functions:
            for node in program.function(name).nodes:
                self._join_site(node)
        for node in program.graph.nodes:
            self._join_site(node)

    def members(self, slot: Slot) -> list[Slot]:
        """All slots that are needed as soon as this one is."""
        return self._members.get(self._find(slot), [slot])

    def _join_site(self, node: Node) -> None:
        found = site(node)
        if found is None or (len(found.bodies) == 1 and found.condition is None):
            return
        first, *others = found.bodies
        program = node.function.program
        for i in range(len(node.inputs) - found.skip):
            for other in others if found.condition is None else (found.condition,):
                self._join(Slot(first, "argument", i), Slot(other, "argument", i))
            if found.condition is not None:
                self._join(Slot(first, "argument", i), Slot(first, "result", i))
        for i in range(len(program.function(first).results)):
            for other in others:
                self._join(Slot(first, "result", i), Slot(other, "result", i))

    def _find(self, slot: Slot) -> Slot:
        root = slot
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while slot != root:
            following = self._parent.get(slot, root)
            self._parent[slot] = root
            slot = following
        return root

    def _join(self, one: Slot, other: Slot) -> None:
        a, b = self._find(one), self._find(other)
        if a != b:
            self._parent[b] = a
            self._members[a] = self._members.get(a, [a]) + self._members.pop(b, [b])
