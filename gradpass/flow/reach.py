"""What starved values reach along their cheapest ways, and which cuts are ahead of each.

A `Reach` is of one frame and some values of it. Forward, it marks what depends on them; backward, it gives each the set
of the cuts on all its cheapest ways, and of the results at which these ways leave the function. A call hands the sets
of its function's arguments on to its inputs, with what is ahead of the call's outputs in place of the results.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gradpass.flow.facts import BRANCHES, LOOPS, callees, is_float
from gradpass.flow.shapes import SHAPE_ONLY
from gradpass.flow.ways import FAR, Frame, Inner, severed
from gradpass.program.graph import ARGUMENT, BACK_EDGE, Node

# A cut is a node and its input that is severed. Where each activation counts, a call stands before what is in it.
Crossing = tuple[Node, "int | Crossing"]
Ahead = frozenset["Crossing | int"]  # cuts, and ports of results
NOTHING: Ahead = frozenset()
START = -1
UNSEEN = -(1 << 62)


class Passage(NamedTuple):
    """How values pass a functional node: what runs there, and what each group of its arguments reaches.

    A loop has several groups: arguments that its inputs give, then those too that one iteration gives the next. `given`
    are all arguments that its inputs give; `body` is the passage by which a loop's condition gets the others.
    """

    node: Node
    inner: Inner
    groups: list[tuple[frozenset[int], Reach]]
    given: frozenset[int]
    body: Passage | None = None


class Reaches:
    """All reaches of an entry, each made once; `each` tells whether a cut counts once an activation, or once."""

    def __init__(self, each: bool) -> None:
        self.each = each
        self._made: dict[tuple[Frame, frozenset[int]], Reach] = {}

    def of(self, frame: Frame, arguments: frozenset[int]) -> Reach:
        """The reach of some arguments of a function."""
        key = frame, arguments
        reach = self._made.get(key)
        if reach is None:
            reach = self._made[key] = Reach(self, frame, (frame.size + i for i in arguments))
            exits: dict[int, set[Crossing | int]] = {}
            for port, number, cost in frame.ends:
                if frame.cuts[number] == cost[0]:
                    exits.setdefault(number, set()).add(port)
            reach.look(exits)
        return reach

    def lift(self, node: Node, ahead: Iterable[Crossing | int]) -> list[Crossing | int]:
        """What is ahead inside a functional node, as it is called outside."""
        return [(node, a) if self.each and not isinstance(a, int) else a for a in ahead]


class Reach:
    """What some values of a frame reach.

    `came` is the value before on the shortest way from one of them, or the position of a functional node, inverted and
    less one. `entered` has, for each node with cuts, the step that crosses one first; `via` the passage that leads to a
    cut inside, the group, and the cut's name there. After `look`, `at` tells what is ahead of a value.
    """

    def __init__(self, reaches: Reaches, frame: Frame, starts: Iterable[int], floor: int = 0) -> None:
        self.reaches = reaches
        self.frame = frame
        self.floor = floor  # values with fewer cuts ahead are left out
        self.came = array("q", [UNSEEN]) * len(frame.cuts)
        self.steps = array("q", bytes(8 * len(frame.cuts)))
        self._ahead: list[Ahead | list[Ahead] | None] = []
        self.entered: dict[Node, tuple[int, int]] = {}
        self.via: dict[Crossing, tuple[Passage, int, Crossing]] = {}
        self.passages: dict[Node, list[Passage]] = {}
        self._given: dict[Node, dict[int, Ahead]] = {}
        self._cyclic = any(node.op in BACK_EDGE for node in frame.function.nodes)
        for number in starts:
            if frame.cuts[number] != FAR and frame.cuts[number] >= floor:
                self.came[number] = START
        while self._forward() and self._cyclic:
            pass

    def _mark(self, number: int, before: int, steps: int) -> bool:
        if self.frame.cuts[number] < self.floor or (self.came[number] != UNSEEN and self.steps[number] <= steps):
            return False
        self.came[number] = before
        self.steps[number] = steps
        return True

    def _forward(self) -> bool:
        steps = self.steps
        changed = False
        for node in self.frame.function.order():
            if callees(node):
                if node in self.frame.inner:
                    changed |= self._pass(node)
                continue
            for before, at, i in self._tight(node):
                if i is not None and (node not in self.entered or self._shorter((before, at), self.entered[node])):
                    self.entered[node] = before, at
                changed |= self._mark(at, before, steps[before] + 1)
        return changed

    def _shorter(self, step: tuple[int, int], other: tuple[int, int]) -> bool:
        steps, hops = self.steps, self.frame.hops
        return (steps[step[0]], hops[step[1]]) < (steps[other[0]], hops[other[1]])

    def _tight(self, node: Node) -> Iterator[tuple[int, int, int | None]]:
        """The edges of cheapest ways that are reached: input and output value, and the input's index if it is cut."""
        cuts, came, more = self.frame.cuts, self.came, self.frame.more
        if self.frame.shapes:
            for before, at, cut in self.frame.shape_edges(node):
                if came[before] != UNSEEN and cuts[before] == cuts[at] + (cut is not None):
                    yield before, at, cut
        if node.op in SHAPE_ONLY:
            return
        for port, at in self.frame.outputs(node):
            for i, source in enumerate(node.inputs):
                ahead = source.node
                before = more[source] if source.port or ahead.op == ARGUMENT else ahead.position
                if came[before] == UNSEEN:
                    continue
                if cuts[before] == cuts[at]:
                    if severed(node, i, port) is False:
                        yield before, at, None
                elif cuts[before] == cuts[at] + 1 and severed(node, i, port):
                    yield before, at, i

    def left(self) -> list[int]:
        """The ports of the frame's results that are reached."""
        frame = self.frame
        return [p for p, at, cost in frame.ends if self.came[at] != UNSEEN and frame.cuts[at] == cost[0]]

    def look(self, exits: dict[int, set[Crossing | int]] | None = None) -> None:
        """Finds what is ahead of each value that is reached."""
        self._ahead = [None] * len(self.frame.cuts)
        for number, ports in (exits or {}).items():
            self._add(number, frozenset(ports))
        size = -1
        while True:
            self._backward()
            if not self._cyclic:
                return
            before, size = size, sum(len(self.at(number)) for number in range(len(self._ahead)))
            if size == before:
                return

    def _backward(self) -> None:
        for node in reversed(self.frame.function.order()):
            given = self._given.get(node)
            if given is not None:
                for i, ahead in given.items():
                    self._add(self.frame.number(node.inputs[i]), self._outside(node, ahead))
            elif not callees(node):
                for before, at, cut in self._tight(node):
                    further = self.at(at)
                    self._add(before, further if cut is None else further | {(node, cut)})

    def _outside(self, node: Node, ahead: Ahead) -> Ahead:
        """What is ahead of an input, given what is ahead inside."""
        parts: list[Ahead] = [frozenset(a for a in ahead if not isinstance(a, int))]
        for port in ahead:
            if isinstance(port, int):
                parts.append(self.at(self.frame.number(node.output(port))))
        return _joined(parts)

    def _add(self, number: int, ahead: Ahead) -> None:
        known = self._ahead[number]
        if known is None:
            self._ahead[number] = ahead
        elif isinstance(known, list):
            known.append(ahead)
        elif known is not ahead:
            self._ahead[number] = [known, ahead]

    def at(self, number: int) -> Ahead:
        """What is ahead of a value."""
        known = self._ahead[number]
        if known is None:
            return NOTHING
        if isinstance(known, list):
            known = self._ahead[number] = _joined(known)
        return known

    def _pass(self, node: Node) -> bool:
        """Marks what a functional node's inputs reach through it; keeps what is ahead of them inside."""
        frame = self.frame
        wanted = [
            i for i, value in enumerate(node.inputs) if frame.cost(value) and self.came[frame.number(value)] != UNSEEN
        ]
        self.passages[node] = []
        given = self._loop(node, wanted) if node.op in LOOPS else self._call(node, wanted)
        self._given[node] = given
        changed = False
        for i, ahead in given.items():
            steps = self.steps[frame.number(node.inputs[i])] + 2
            for port in ahead:
                if isinstance(port, int):
                    changed |= self._mark(frame.number(node.output(port)), -2 - node.position, steps)
        return changed

    def _call(self, node: Node, wanted: list[int]) -> dict[int, Ahead]:
        frame = self.frame
        parts: dict[int, list[Ahead]] = {i: [] for i in wanted}
        for inner in frame.inner[node]:
            tight = [
                i for i in wanted if i >= inner.skip and self._entering(inner, i - inner.skip) == self._cuts(node, i)
            ]
            if tight:
                entered = frozenset(i - inner.skip for i in tight)
                passage = self._enter(node, inner, entered, entered)
                for i in tight:
                    parts[i].append(self._lifted(passage, i - inner.skip))
        if node.op in BRANCHES and 0 in parts:
            cut = is_float(node.inputs[0].dtype)
            ports: set[Crossing | int] = {
                port for port, at in frame.outputs(node) if frame.cuts[at] + cut == self._cuts(node, 0)
            }
            if cut and ports:
                nearest = min((frame.hops[at], at) for port, at in frame.outputs(node) if port in ports)
                self.entered.setdefault(node, (frame.number(node.inputs[0]), nearest[1]))
                ports.add((node, 0))
            parts[0].append(frozenset(ports))
        return {i: _joined(several) for i, several in parts.items() if several}

    def _cuts(self, node: Node, index: int) -> int:
        return self.frame.cuts[self.frame.number(node.inputs[index])]

    @staticmethod
    def _entering(inner: Inner, argument: int) -> int | None:
        cuts = inner.frame.cuts[inner.frame.size + argument]
        return None if cuts == FAR else inner.base[0] + cuts

    def _enter(
        self,
        node: Node,
        inner: Inner,
        arguments: frozenset[int],
        given: frozenset[int],
        body: Passage | None = None,
    ) -> Passage:
        passage = Passage(node, inner, [(arguments, self.reaches.of(inner.frame, arguments))], given, body)
        self.passages[node].append(passage)
        return passage

    def _lifted(self, passage: Passage, argument: int) -> Ahead:
        """What is ahead of an argument inside, each cut noted with the passage to it."""
        number = passage.inner.frame.size + argument
        group, reach = next((n, r) for n, (_, r) in enumerate(passage.groups) if r.came[number] != UNSEEN)
        inside = reach.at(number)
        if not self.reaches.each and all(isinstance(a, int) for a in inside):
            return inside
        lifted = self.reaches.lift(passage.node, inside)
        for outer, a in zip(lifted, inside, strict=True):
            if not isinstance(outer, int) and not isinstance(a, int):
                self.via.setdefault(outer, (passage, group, a))
        return frozenset(lifted)

    def _loop(self, node: Node, wanted: list[int]) -> dict[int, Ahead]:
        """As `_call` for any number of iterations: what one hands to the next is ahead of it too."""
        frame = self.frame
        outs = {port: frame.cuts[at] for port, at in frame.outputs(node)}
        inners = frame.inner[node]
        again = {i: cost[0] for i, cost in enumerate(inners[0].again or ()) if cost is not None}
        least = {i: min(outs.get(i, again.get(i, 0)), again.get(i, outs.get(i, 0))) for i in {*outs, *again}}
        from_inputs = arguments = frozenset(i for i in wanted if again.get(i) == self._cuts(node, i))
        body: Passage | None = None
        parts: dict[int, set[Crossing | int]] = {}
        onward: dict[int, set[int]] = {}
        for inner in inners:
            is_body = inner.frame.function.name == node.attr("body").func.name
            tight = frozenset(i for i in arguments if self._entering(inner, i) == again[i])
            if not tight:
                continue
            passage = self._enter(node, inner, tight, from_inputs, body)
            if is_body:
                body = passage
                arguments = self._iterate(passage, arguments, again, least)
            for i in passage.groups[-1][0]:
                for a in self._lifted(passage, i):
                    if not isinstance(a, int):
                        parts.setdefault(i, set()).add(a)
                    elif is_body:
                        if outs.get(a) == least[a]:
                            parts.setdefault(i, set()).add(a)
                        if again.get(a) == least[a]:
                            onward.setdefault(i, set()).add(a)
                    else:
                        nearest = min(outs.values())
                        parts.setdefault(i, set()).update(port for port, cuts in outs.items() if cuts == nearest)
        changed = True
        while changed:
            changed = False
            for i, nexts in onward.items():
                mine = parts.setdefault(i, set())
                size = len(mine)
                mine.update(*(parts.get(k, ()) for k in nexts))
                changed |= len(mine) > size
        given = {}
        for i in wanted:
            ahead: set[Crossing | int] = set(parts.get(i, ())) if again.get(i) == self._cuts(node, i) else set()
            if outs.get(i) == self._cuts(node, i):
                ahead.add(i)
            given[i] = frozenset(ahead)
        return given

    def _iterate(
        self, passage: Passage, arguments: frozenset[int], again: dict[int, int], least: dict[int, int]
    ) -> frozenset[int]:
        """Adds to a body's passage the arguments that later iterations get from earlier ones; gives all of them."""
        inner, groups = passage.inner, passage.groups
        while True:
            wanted, reach = groups[-1]
            ports = {a for i in wanted for a in reach.at(inner.frame.size + i) if isinstance(a, int)}
            arguments |= {port for port in ports if again.get(port) == least[port]}
            tight = frozenset(i for i in arguments if self._entering(inner, i) == again[i])
            if tight == wanted:
                return arguments
            groups.append((tight, self.reaches.of(inner.frame, tight)))


def _joined(parts: list[Ahead]) -> Ahead:
    """The union, one of the parts itself where that will do."""
    most = max(parts, key=len)
    return most if all(part is most or part <= most for part in parts) else frozenset().union(*parts)
