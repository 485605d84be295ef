"""What stands around an op that severs gradients: for codes that the op's name cannot tell."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from gradpass.flow.facts import BRANCHES, RESOURCE, callees, is_float
from gradpass.flow.shapes import SHAPE_ONLY
from gradpass.flow.verdict import Cut
from gradpass.program.graph import ARGUMENT, CALLS, Function, Node, Program, Value

PREDICATE = 0  # the input of an If or Case that chooses
CHOOSES = "Switch"  # TensorFlow 1: its second input chooses
READS = frozenset({"Identity", "IdentityN", "NoOp", "ReadVariableOp"})
# They make right or wrong of what they are given: equal to a label, all, any, among the best.
JUDGING = frozenset({"All", "Any", "Equal", "InTopK", "InTopKV2", "NotEqual"})
ASSIGNS = re.compile(r"Assign|Resource(Scatter|Sparse|Apply)|Scatter(Add|Sub|Update|Nd\w*Update)$|Apply")
CALCULATING = frozenset(
    {"Cast", "Identity", "IdentityN", "LogicalAnd", "LogicalNot", "LogicalOr", "Squeeze", "Reshape"}
)

T = TypeVar("T")
Readers = dict[Node, list[tuple[Node, int]]]


class Sites:
    """All cuts of a program; who reads what is looked up once for all those in a function."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._readers: dict[str | None, Readers] = {}

    def at(self, cut: Cut, bystander: bool = False) -> Site:
        """The site of a cut; `bystander` tells that it severs nobody and only makes TensorFlow raise for others."""
        if cut.function not in self._readers:
            program = self.program
            function = program.graph if cut.function is None else program.function(cut.function)
            self._readers[cut.function] = _readers(function)
        return Site(self.program, cut, self._readers[cut.function], bystander)


@dataclass(frozen=True)
class Site:
    """A cut in its program."""

    program: Program
    cut: Cut
    readers: Readers
    bystander: bool = False

    @property
    def function(self) -> Function:
        """The function in which the cut is, or the graph."""
        return self.program.graph if self.cut.function is None else self.program.function(self.cut.function)

    @property
    def node(self) -> Node:
        """The op itself."""
        return self.function.by_name[self.cut.node]

    @cached_property
    def onward(self) -> Onward:
        """What is computed from the op's result before a float comes out again."""
        return _onward(self.function, self.node, self.readers)

    @property
    def decides_only(self) -> bool:
        """Whether all that becomes of the op's result is the choice of a branch."""
        ends = self.onward.ends
        if self.cut.error is not None or self.onward.returned:
            return False
        return bool(ends) and all(_chooses(node, place) for node, place in ends)

    @property
    def is_judged(self) -> bool:
        """Whether the op's result is compared, and the answers are counted: cast to floats and no more."""
        region = {node.op for node in self.onward.nodes}
        ends = self.onward.ends
        return (
            self.cut.error is None
            and bool(region & JUDGING)
            and region <= JUDGING | CALCULATING
            and bool(ends)
            and not self.onward.returned
            and all(node.op == "Cast" for node, _ in ends)
        )


@dataclass(frozen=True)
class Onward:
    """Nodes without floats behind an op; the inputs where floats or functions follow; whether some is returned."""

    nodes: tuple[Node, ...]
    ends: tuple[tuple[Node, int], ...]
    returned: bool


def _onward(function: Function, start: Node, readers: Readers) -> Onward:
    nodes: list[Node] = []
    ends: list[tuple[Node, int]] = []
    reached = {start}
    todo = [start]
    while todo:
        for node, place in readers.get(todo.pop(), ()):
            if is_float(node.inputs[place].dtype):
                continue
            if callees(node) or any(is_float(v.dtype) for v in node.used_outputs):
                ends.append((node, place))
            elif node not in reached:
                reached.add(node)
                nodes.append(node)
                todo.append(node)
    return Onward(tuple(nodes), tuple(ends), any(v.node in reached for v in function.results))


def _readers(function: Function) -> Readers:
    """Who reads each node of a function, at which input."""
    found: Readers = {}
    for node in function.nodes:
        for place, value in enumerate(node.inputs):
            found.setdefault(value.node, []).append((node, place))
    return found


def _chooses(node: Node, place: int) -> bool:
    return (node.op in BRANCHES and place == PREDICATE) or (node.op == CHOOSES and place == 1)


def maker(value: Value) -> Node | None:
    """The op that makes a value, in the call that gives it out; None where that is an argument."""
    while True:
        node = value.node
        if node.op in CALLS:
            value = node.function.program.function(str(node.callee)).results[value.port]
        elif node.op in READS and node.inputs:
            value = node.inputs[0]
        else:
            return None if node.op == ARGUMENT else node


def first_reader(function: Function, values: Iterable[Value]) -> Node | None:
    """The first op that works on some values of a function, in a call too; None where nobody does."""
    wanted = set(values)
    for node in function.order():
        if any(value in wanted for value in node.inputs):
            if node.op in READS:
                wanted.update(node.used_outputs)
            else:
                return first_reader(*_inside(node, wanted)) if node.op in CALLS else node
    return None


def dead_end(function: Function, values: Iterable[Value]) -> Node | None:
    """The last op that works on what is computed from some values, in a call too; None where nobody does."""
    reached = set(values)
    last = None
    for node in function.order():
        if any(value in reached for value in node.inputs):
            reached.update(node.used_outputs)
            last = last if node.op in READS else node
    return dead_end(*_inside(last, reached)) if last is not None and last.op in CALLS else last


def owner_of(handle: Value, function: Function, owners: Mapping[Value, T]) -> T | None:
    """Whose the handle is: `owners` knows those of a function, the handle may be of one that it calls."""
    if handle.node.function is function:
        return owners.get(handle)
    for node in function.nodes:
        if node.op in CALLS:
            inner, _ = _inside(node, ())
            given = {a.output(0): owners[v] for a, v in zip(inner.arguments, node.inputs, strict=True) if v in owners}
            found = owner_of(handle, inner, given)
            if found is not None:
                return found
    return None


def _inside(call: Node, values: Container[Value]) -> tuple[Function, list[Value]]:
    """The function that a node calls, and those of its arguments that are among some values outside."""
    inner = call.function.program.function(str(call.callee))
    return inner, [a.output(0) for a, v in zip(inner.arguments, call.inputs, strict=True) if v in values]


def assignments(starts: Iterable[Value]) -> list[Node]:
    """The ops that put something computed from these values into a variable, in calls too."""
    values = list(starts)
    found: dict[Node, None] = {}
    for function in dict.fromkeys(value.node.function for value in values):
        _follow(function, frozenset(v for v in values if v.node.function is function), found, {})
    return list(found)


def _follow(
    function: Function, starts: frozenset[Value], found: dict[Node, None], known: dict[frozenset[Value], frozenset[int]]
) -> frozenset[int]:
    """Adds the assignments that some values of a function reach; and gives the results that they do."""
    if starts in known:
        return known[starts]
    known[starts] = frozenset()  # a function that calls itself is refused elsewhere
    reached = set(starts)
    for node in function.order():
        places = [place for place, value in enumerate(node.inputs) if value in reached and value.dtype != RESOURCE]
        handles = [place for place, value in enumerate(node.inputs) if value in reached and value.dtype == RESOURCE]
        if node.op in SHAPE_ONLY or not (places or handles):
            continue
        if places and ASSIGNS.match(node.op):
            found[node] = None
        names = callees(node)
        if not names:
            reached.update(node.used_outputs)
            continue
        skip = 1 if node.op in BRANCHES else 0
        for name in names:
            inner = function.program.function(name)
            given = frozenset(inner.arguments[p - skip].output(0) for p in (*places, *handles) if p >= skip)
            results = _follow(inner, given, found, known) if given else frozenset()
            reached.update(value for value in node.used_outputs if value.port in results)
    results = frozenset(i for i, value in enumerate(function.results) if value in reached)
    known[starts] = results
    return results
