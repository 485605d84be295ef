"""From a starved target to the ops that sever it: the fewest cuts on a way to the loss, and the shortest such way.

The data graph is walked backwards from the entry's float outputs over *places* (a frame of the call tree and a
value). An
edge that a gradient follows is free, and so is an edge into a value that is no float: it belongs to the discrete
stretch
whose op was entered elsewhere. An edge from a float value that no gradient follows is a cut and costs one. Dijkstra
over
(cuts, hops) gives each place its cheapest way; the cuts on cheapest ways from starved targets are the ones to repair.
So
a severed edge that starves nobody (an accuracy branch, a ReLU mask, token ids) is never touched.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from gradpass.flow.facts import BRANCHES, LOOPS, SHAPE_ONLY, callees, facts, is_float
from gradpass.flow.verdict import Cut, EntryVerdict, How
from gradpass.program.graph import ARGUMENT, Function, Node, Value
from gradpass.program.savedmodel import Entry


@dataclass(eq=False)
class Frame:
    """One activation of a function: who called it, and the frames of what it calls, made when first entered."""

    function: Function
    parent: Frame | None = None
    call: Node | None = None
    children: dict[tuple[Node, int], Frame] = field(default_factory=dict)

    def child(self, call: Node, index: int, name: str) -> Frame:
        """The frame of the index-th function that a node of this one runs."""
        frame = self.children.get((call, index))
        if frame is None:
            frame = self.children[call, index] = Frame(call.function.program.function(name), self, call)
        return frame

    @cached_property
    def stack(self) -> tuple[str, ...]:
        """The call nodes from the entry down to here."""
        if self.parent is None or self.call is None:
            return ()
        return (*self.parent.stack, self.call.name)

    def runs(self, function: Function) -> bool:
        """Whether this frame or one above it runs the function: a recursion."""
        frame: Frame | None = self
        while frame is not None:
            if frame.function is function:
                return True
            frame = frame.parent
        return False


class Place(NamedTuple):
    """A value in a frame."""

    frame: Frame
    value: Value


Crossing = tuple[Frame, Node, int]  # a cut: a node in a frame, and its input
NO_CUT: frozenset[Crossing] = frozenset()


class Edge(NamedTuple):
    """A data edge, backwards: from a place to one that it is computed from. A cut names its node and input."""

    source: Place
    cut: tuple[Node, int] | None = None


def sources(place: Place) -> Iterator[Edge]:
    """The places that a place is computed from."""
    frame, value = place
    node = value.node
    if node.op == ARGUMENT:
        yield from _argument_sources(frame, node)
        return
    names = callees(node)
    if names:
        yield from _functional_sources(frame, node, value.port, names)
        return
    if node.op in SHAPE_ONLY:
        return
    rows = facts(node).rows
    for i, source in enumerate(node.inputs):
        row = rows[i] if i < len(rows) else None
        free = (row is not None and value.port in row) or not is_float(source.dtype)
        yield Edge(Place(frame, source), None if free else (node, i))


def _argument_sources(frame: Frame, node: Node) -> Iterator[Edge]:
    call = frame.call
    if call is None or frame.parent is None:
        return
    index = node.position + (1 if call.op in BRANCHES else 0)
    yield Edge(Place(frame.parent, call.inputs[index]))
    if call.op in LOOPS:
        yield Edge(Place(frame.parent.child(call, 0, call.attr("body").func.name), _body(call).results[node.position]))


def _body(loop: Node) -> Function:
    return loop.function.program.function(loop.attr("body").func.name)


def _functional_sources(frame: Frame, node: Node, port: int, names: tuple[str, ...]) -> Iterator[Edge]:
    program = node.function.program
    for i, name in enumerate(names):
        function = program.function(name)
        if not frame.runs(function):
            yield Edge(Place(frame.child(node, i, name), function.results[port]))
    if node.op in LOOPS:
        yield Edge(Place(frame, node.inputs[port]))
        condition = program.function(node.attr("cond").func.name)
        yield Edge(Place(frame.child(node, 1, condition.name or ""), condition.results[0]))
    elif node.op in BRANCHES:
        selector = node.inputs[0]
        yield Edge(Place(frame, selector), (node, 0) if is_float(selector.dtype) else None)


class Ways:
    """The cheapest way from every place to the loss: (cuts, hops), and the edge to take next."""

    def __init__(self, entry: Entry) -> None:
        self.root = Frame(entry.function)
        self.cost: dict[Place, tuple[int, int]] = {}
        self.users: dict[Place, list[tuple[Place, tuple[Node, int] | None]]] = {}
        self.loss: dict[Place, str] = {}
        level = (0, 0)
        levels = [level]  # a heap of the costs that somebody waits at; all who do share the tuple
        waiting: dict[tuple[int, int], list[Place]] = {level: []}
        for name, value in entry.outputs.items():
            place = Place(self.root, value)
            if is_float(value.dtype) and place not in self.loss:
                self.loss[place] = name
                self.cost[place] = level
                waiting[level].append(place)
        while levels:
            level = heapq.heappop(levels)
            after = level[0], level[1] + 1
            after_cut = level[0] + 1, level[1] + 1
            for place in waiting.pop(level):
                if self.cost[place] < level:
                    continue
                for source, cut in sources(place):
                    self.users.setdefault(source, []).append((place, cut))
                    new = after if cut is None else after_cut
                    if source not in self.cost or new < self.cost[source]:
                        self.cost[source] = new
                        if new not in waiting:
                            waiting[new] = []
                            heapq.heappush(levels, new)
                        waiting[new].append(source)

    def tight(self, place: Place) -> Iterator[tuple[Place, tuple[Node, int] | None]]:
        """The next places on ways to the loss that need no more cuts than the cheapest."""
        cuts = self.cost[place][0]
        for user, cut in self.users.get(place, ()):
            if self.cost[user][0] + (cut is not None) == cuts:
                yield user, cut

    def shortest(self, place: Place) -> list[tuple[Place, tuple[Node, int] | None]]:
        """The way with the fewest cuts and hops, each step with the cut that it crosses."""
        way = []
        while self.cost[place] != (0, 0):
            cuts, hops = self.cost[place]
            place, cut = next(
                (user, cut)
                for user, cut in self.users[place]
                if self.cost[user] == (cuts - (cut is not None), hops - 1)
            )
            way.append((place, cut))
        return way


@dataclass
class Blame:
    """The ways of the entry, and each cut (frame, node, input) with the targets that it starves."""

    ways: Ways
    cuts: dict[Crossing, list[int]]


def blame(verdict: EntryVerdict, entry: Entry, places: list[list[Value]]) -> Blame | None:
    """Fills the verdict's cuts, disconnected and uncaptured targets. `places`: the values of each target."""
    verdict.uncaptured = [i for i, values in enumerate(places) if not values]
    starved = [i for i, t in enumerate(verdict.targets) if t.structure != "flows" and places[i]]
    if not starved:
        return None
    ways = Ways(entry)
    starts = {i: [p for v in places[i] if (p := Place(ways.root, v)) in ways.cost] for i in starved}
    verdict.disconnected = [i for i, found in starts.items() if not found]
    if verdict.disconnected:
        reached = [name for name, value in entry.inputs.items() if Place(ways.root, value) in ways.cost]
        for target, values in zip(verdict.targets, places, strict=True):
            if target.kind == "variable" and any(Place(ways.root, value) in ways.cost for value in values):
                reached.append(target.name)
        verdict.depends = reached
    found = _severed(ways, starts)
    paths = Paths(ways, starts, verdict)
    cuts: list[tuple[tuple[tuple[str, ...], int], Cut]] = []
    groups: dict[tuple[Frame, Node], list[tuple[int, list[int]]]] = {}
    for (frame, node, index), starves in found.items():
        groups.setdefault((frame, node), []).append((index, starves))
    for (frame, node), inputs in groups.items():
        starves = sorted({i for _, several in inputs for i in several})
        cut = (
            Cut(
                node.op, node.name, node.function.name, frame.stack, _how(node, [i for i, _ in inputs]), starves,
                sum(verdict.targets[i].parameters for i in starves),
                paths.through(frame, node),
                sorted(i for i, _ in inputs),
                facts(node).error,
            )
        )  # fmt: skip
        cuts.append(((frame.stack, node.position), cut))
    verdict.cuts = [cut for _, cut in sorted(cuts, key=lambda pair: pair[0])]
    return Blame(ways, found)


def _severed(ways: Ways, starts: dict[int, list[Place]]) -> dict[Crossing, list[int]]:
    """The cuts on all cheapest ways from these targets, each with the targets whose ways cross it.

    Each place gets the set of the cuts ahead of it, in one pass; only a loop's way back asks for another. Most places
    share the set of the next, so that the cost is that of the answer.
    """
    order = _order(ways, [place for several in starts.values() for place in several])
    ahead: dict[Place, frozenset[Crossing]] = {}
    awaited: set[Place] = set()  # asked for before they were known: a loop's way back
    again = True
    while again:
        again = False
        for place in reversed(order):
            before = crossed = ahead.get(place, NO_CUT)
            for user, cut in ways.tight(place):
                if user not in ahead:
                    awaited.add(user)
                further = ahead.get(user, NO_CUT)
                crossed = _union(crossed, further if cut is None else further | {(place.frame, *cut)})
            ahead[place] = crossed
            again |= crossed is not before and place in awaited
    found: dict[Crossing, list[int]] = {
        (place.frame, *cut): [] for place in order for _, cut in ways.tight(place) if cut is not None
    }
    for i, several in starts.items():
        crossed = NO_CUT
        for place in several:
            crossed = _union(crossed, ahead.get(place, NO_CUT))
        for key in crossed:
            found[key].append(i)
    return found


def _union(some: frozenset[Crossing], more: frozenset[Crossing]) -> frozenset[Crossing]:
    """The union, one of the two itself where that will do."""
    if some is more or more <= some:
        return some
    return more if some <= more else some | more


def _order(ways: Ways, starts: list[Place]) -> list[Place]:
    """All places on cheapest ways from here to the last cut, each before those it leads to, loops apart.

    It is a reversed postorder.
    """
    done: list[Place] = []
    seen = {place for place in starts if not ways.cost[place][0]}
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, ways.tight(start))]
        while stack:
            place, rest = stack[-1]
            for user, _ in rest:
                if user not in seen and ways.cost[user][0]:
                    seen.add(user)
                    stack.append((user, ways.tight(user)))
                    break
            else:
                stack.pop()
                done.append(place)
    return done[::-1]


def _how(node: Node, inputs: list[int]) -> How:
    fact = facts(node)
    if not fact.registered:
        return "raises"
    return "none" if any(fact.rows[i] is None for i in inputs) else "zero"


class Paths:
    """Shortest ways from starved targets, found once for all cuts, breadth first along cheapest ways."""

    def __init__(self, ways: Ways, starts: dict[int, list[Place]], verdict: EntryVerdict) -> None:
        self.ways = ways
        self.names = {place: verdict.targets[i].name for i, several in starts.items() for place in several}
        self.came: dict[Place, Place | None] = dict.fromkeys(self.names)
        self.entered: dict[tuple[Frame, Node], tuple[Place, Place]] = {}  # a cut -> the step that first crosses it
        queue = list(self.names)
        for place in queue:
            for user, cut in ways.tight(place):
                if cut is not None:
                    self.entered.setdefault((place.frame, cut[0]), (place, user))
                if user not in self.came and ways.cost[user][0]:  # what leads to a cut
                    self.came[user] = place
                    queue.append(user)

    def through(self, frame: Frame, node: Node) -> list[str]:
        """Node names of the way from a target through the cut to the loss, the target and the output included."""
        at: Place | None
        at, user = self.entered[frame, node]
        way = [user]
        while at is not None:
            way.append(at)
            at = self.came[at]
        target = self.names[way[-1]]
        way = [*way[:0:-1][1:], user, *(place for place, _ in self.ways.shortest(user))]
        names = [target, *(p.value.node.name for p in way if p.value.node.op != ARGUMENT), self.ways.loss[way[-1]]]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
