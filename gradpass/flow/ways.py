"""The cheapest ways of all values of a function to its results: the fewest cuts, among those the fewest hops.

An edge that a gradient follows is free, and so is an edge into a value that is no float: it belongs to the discrete
stretch whose op was entered elsewhere. An edge from a float value that no gradient follows is a cut and costs one. An
op that reads only a shape depends on the values that decide it, within its function.

A function is walked once for all of its activations whose results are equally far from the loss (a `Frame`), not once
a call: a chain of functions that each call the next twice has as many frames as functions. Costs are relative to the
nearest result, and a call hands them on to its inputs. Values are numbers here (`Frame.number`), what is known of them
stands in lists: a graph of a million nodes is walked in the order in which it lies in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from gradpass.flow.facts import BRANCHES, LOOPS, RESOURCE, VARIANT, callees, calls_itself, facts, is_float
from gradpass.flow.shapes import SHAPE_ONLY, deciding
from gradpass.program.graph import ARGUMENT, BACK_EDGE, Function, Node, Value

Cost = tuple[int, float]  # cuts and hops; hops are exact up to 2**53
Ends = tuple["Cost | None", ...]  # how far each result of a function is from the loss
FAR = -1  # cuts of a value that does not reach a result by any data path
END = -1  # the next value of a result: it is out


class Inner(NamedTuple):
    """What a node runs: the frame, the node's input that is its first argument, and the cost of its nearest result.

    `again` is the cost of each argument of a loop's body or condition through all further iterations, else None.
    """

    frame: Frame
    skip: int
    base: Cost
    again: list[Cost | None] | None = None


class Frame:
    """A function's values with their costs, for one distance of its results.

    `next` is the value that follows on the cheapest way, or the position of the functional node that it goes through,
    inverted and less one.
    """

    def __init__(self, function: Function, ends: list[tuple[int, Value, Cost]]) -> None:
        self.function = function
        self.size = len(function.nodes)
        self.more: dict[Value, int] = {}  # the numbers of arguments and of outputs other than a node's first
        self.others: list[Value] = []
        for node in function.arguments:
            self._another(node.output(0))
        for node in function.nodes:
            for value in node.used_outputs[1:]:
                self._another(value)
        # Behind the values stand their shapes, where anybody asks for one.
        self.values = self.size + len(self.others)
        self.shapes = any(node.op in SHAPE_ONLY for node in function.nodes)
        total = self.values * (2 if self.shapes else 1)
        self.cuts = [FAR] * total
        self.hops = array("d", bytes(8 * total))
        self.next = array("q", bytes(8 * total))
        self.inner: dict[Node, list[Inner]] = {}
        self.ends: list[tuple[int, int, Cost]] = []  # port, number, cost
        for port, value, cost in ends:
            number = self.number(value)
            self.ends.append((port, number, cost))
            self.relax(number, cost[0], cost[1], END)

    def _another(self, value: Value) -> None:
        self.more[value] = self.size + len(self.others)
        self.others.append(value)

    def number(self, value: Value) -> int:
        """The place of a value in the lists."""
        if value.port or value.node.op == ARGUMENT:
            return self.more[value]
        return value.node.position

    def value(self, number: int) -> Value:
        """The value at a place in the lists."""
        number %= self.values
        return self.function.nodes[number].output(0) if number < self.size else self.others[number - self.size]

    def cost(self, value: Value) -> Cost | None:
        """The cost of a value, None where it reaches no result."""
        number = self.more.get(value, FAR) if value.port or value.node.op == ARGUMENT else value.node.position
        return None if number == FAR or self.cuts[number] == FAR else (self.cuts[number], self.hops[number])

    def relax(self, number: int, cuts: int, hops: float, following: int) -> bool:
        """Takes a way if it is cheaper than what is known."""
        known = self.cuts[number]
        if known == FAR or cuts < known or (cuts == known and hops < self.hops[number]):
            self.cuts[number] = cuts
            self.hops[number] = hops
            self.next[number] = following
            return True
        return False

    def outputs(self, node: Node) -> list[tuple[int, int]]:
        """The outputs of a node that reach a result: port and number."""
        if len(node.used_outputs) == 1:
            return [(0, node.position)] if self.cuts[node.position] != FAR else []
        found = []
        for value in node.used_outputs:
            number = node.position if not value.port else self.more.get(value, FAR)
            if number != FAR and self.cuts[number] != FAR:
                found.append((value.port, number))
        return found

    def reached(self) -> Iterator[Value]:
        """All values that reach a result."""
        return (self.value(number) for number in range(self.values) if self.cuts[number] != FAR)

    def shape_edges(self, node: Node) -> Iterator[tuple[int, int, int | None]]:
        """The edges of a node that a shape is at one end of: what is read, what is made, the input's index if cut."""
        if node.op in SHAPE_ONLY:
            for _, at in self.outputs(node):
                yield from ((self.values + self.number(source), at, None) for source in node.inputs)
        for value in () if callees(node) else node.used_outputs:
            number = self.more.get(value, FAR) if value.port else node.position
            at = self.values + number
            if number == FAR or self.cuts[at] == FAR:
                continue
            for i, source in enumerate(node.inputs):
                # Of what a list or a variable holds only the shapes decide.
                if i in deciding(node, value.port) and source.dtype not in (RESOURCE, VARIANT):
                    yield self.number(source), at, i if is_float(source.dtype) else None
                else:
                    yield self.values + self.number(source), at, None


def severed(node: Node, index: int, port: int) -> bool | None:
    """Whether the edge from an input of a node without functions to an output of it is a cut; None: there is none."""
    fact = facts(node)
    row = fact.rows[index] if index < len(fact.rows) else None
    if row is not None and port in row:
        return False
    return None if fact.apart and index != port else is_float(node.inputs[index].dtype)


class Ways:
    """The frames of an entry; each is walked once, users before what they use."""

    def __init__(self) -> None:
        self.frames: dict[tuple[Function, tuple[object, ...]], Frame] = {}
        self._open: set[Function] = set()

    def root(self, function: Function, outputs: list[tuple[int, Value]]) -> Frame:
        """The frame of an entry, all of whose outputs are the loss."""
        return self._walk(Frame(function, [(port, value, (0, 0.0)) for port, value in outputs]))

    def _walk(self, frame: Frame) -> Frame:
        function = frame.function
        if function in self._open:
            raise calls_itself(function)
        self._open.add(function)
        cyclic = any(node.op in BACK_EDGE for node in function.nodes)
        while self._sweep(frame) and cyclic:
            pass
        self._open.discard(function)
        return frame

    def _sweep(self, frame: Frame) -> bool:
        changed = False
        cuts, hops, more = frame.cuts, frame.hops, frame.more
        for node in reversed(frame.function.order()):
            if frame.shapes:
                for number, at, cut in frame.shape_edges(node):
                    changed |= frame.relax(number, cuts[at] + (cut is not None), hops[at] + 1, at)
            outputs = frame.outputs(node)
            if not outputs:
                continue
            if callees(node):
                changed |= self._functional(frame, node, outputs)
                continue
            if node.op in SHAPE_ONLY:
                continue
            fact = facts(node)
            for port, at in outputs:
                for i, (source, row) in enumerate(zip(node.inputs, fact.rows, strict=False)):
                    if fact.apart and severed(node, i, port) is None:
                        continue
                    before = source.node
                    number = more[source] if source.port or before.op == ARGUMENT else before.position
                    cost = cuts[at]
                    if (row is None or port not in row) and is_float(source.dtype):
                        cost += 1
                    known = cuts[number]
                    if known == FAR or cost < known or (cost == known and hops[at] + 1 < hops[number]):
                        cuts[number] = cost
                        hops[number] = hops[at] + 1
                        frame.next[number] = at
                        changed = True
        return changed

    def _functional(self, frame: Frame, node: Node, outputs: list[tuple[int, int]]) -> bool:
        """Hands the costs of a call's, branch's or loop's outputs on to its inputs."""
        outs: list[Cost | None] = [None] * (outputs[-1][0] + 1)
        for port, at in outputs:
            outs[port] = frame.cuts[at], frame.hops[at] + 1
        nearest = min((cost for cost in outs if cost), key=lambda cost: cost)
        given: dict[int, Cost] = {}
        program = node.function.program
        if node.op in LOOPS:
            inner = self._loop(node, outs, nearest, given)
        else:
            skip = 0
            if node.op in BRANCHES:
                skip = 1
                given[0] = nearest[0] + is_float(node.inputs[0].dtype), nearest[1]
            inner = []
            for name in callees(node):
                found = self._enter(program.function(name), outs, skip, exact=False)
                inner.append(found)
                for i, cost in arguments(found):
                    given[i + skip] = min(given.get(i + skip, cost), cost)
        frame.inner[node] = inner
        changed = False
        for i, (cuts, hops) in given.items():
            changed |= frame.relax(frame.number(node.inputs[i]), cuts, hops + 1, -2 - node.position)
        return changed

    def _enter(self, function: Function, outs: list[Cost | None], skip: int, exact: bool) -> Inner:
        """The frame of a function whose results cost that much.

        Unless `exact`, one is taken whose results differ as much in cuts: hops then may be those of another call.
        """
        outs = outs[: len(function.results)] + [None] * (len(function.results) - len(outs))
        known = [cost for cost in outs if cost is not None]
        base = min(cuts for cuts, _ in known), min(hops for _, hops in known)
        ends = [None if cost is None else (cost[0] - base[0], cost[1] - base[1]) for cost in outs]
        key = function, tuple(ends if exact else [None if end is None else end[0] for end in ends])
        frame = self.frames.get(key)
        if frame is None:
            pairs = [(port, function.results[port], end) for port, end in enumerate(ends) if end is not None]
            frame = self.frames[key] = self._walk(Frame(function, pairs))
        return Inner(frame, skip, base)

    def _loop(self, node: Node, outs: list[Cost | None], nearest: Cost, given: dict[int, Cost]) -> list[Inner]:
        """The costs of a loop's variables: none at all and any number of iterations, and what the condition reads."""
        program = node.function.program
        width = len(node.inputs)
        outs = outs + [None] * (width - len(outs))
        again: list[Cost | None] = [None] * width
        condition = self._enter(program.function(node.attr("cond").func.name), [nearest], 0, exact=True)
        changed = True
        while changed:
            changed = False
            starts = [_least(out, further(more)) for out, more in zip(outs, again, strict=True)]
            body = self._enter(program.function(node.attr("body").func.name), starts, 0, exact=True)
            for inner in (condition, body):
                for i, cost in arguments(inner):
                    known = again[i]
                    if known is None or cost < known:
                        again[i] = cost
                        changed = True
        for i in range(width):
            least = _least(outs[i], again[i])
            if least is not None:
                given[i] = least
        return [inner._replace(again=again) for inner in (body, condition)]


def further(cost: Cost | None) -> Cost | None:
    """One hop more."""
    return None if cost is None else (cost[0], cost[1] + 1)


def _least(some: Cost | None, other: Cost | None) -> Cost | None:
    return some if other is None else other if some is None else min(some, other)


def arguments(inner: Inner) -> Iterator[tuple[int, Cost]]:
    """What the arguments of a frame cost where it is entered."""
    frame, _, base, _ = inner
    for i in range(len(frame.function.arguments)):
        at = frame.size + i
        if frame.cuts[at] != FAR:
            yield i, (base[0] + frame.cuts[at], base[1] + frame.hops[at])
