"""A way from a starved target through a cut to the loss, as the names of its nodes.

What a function does is told once a way, however often the way passes through it.
"""

from __future__ import annotations

from typing import NamedTuple

from gradpass.flow.facts import LOOPS
from gradpass.flow.reach import START, UNSEEN, Crossing, Passage, Reach
from gradpass.flow.ways import END, Cost, Frame, Inner, arguments, further
from gradpass.program.graph import ARGUMENT, Node, Value


class Way(NamedTuple):
    """A way through a frame: its values, and where it begins and ends (an argument's or a start's number, a port)."""

    values: list[Value]
    start: int
    end: int


class Paths:
    """Ways of one entry, each from a value that `root` starts from; `targets` and `outputs` have the user's names."""

    def __init__(self, root: Reach, targets: dict[int, str], outputs: list[str]) -> None:
        self.root = root
        self.targets = targets
        self.outputs = outputs

    def through(self, crossing: Crossing) -> list[str]:
        """The names of the nodes on a way through a cut, the target and the output included."""
        values, start, end = _Walk().through(self.root, crossing)
        inner = (value.node.name for value in values[1:] if value.node.op != ARGUMENT)
        names = [self.targets[start], *inner, self.outputs[end]]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def stack(self, crossing: Crossing) -> tuple[tuple[Node, ...], Node, int]:
        """The call nodes down to a cut, its node and its input."""
        calls: list[Node] = []
        reach = self.root
        while crossing in reach.via:
            passage, group, crossing = reach.via[crossing]
            reach = passage.groups[group][1]
            calls.append(passage.node)
        node, index = crossing
        assert isinstance(index, int)
        return tuple(calls), node, index


class _Walk:
    """One way. What is told of a function, and where the way left it, is remembered."""

    def __init__(self) -> None:
        self._back: dict[tuple[Reach, int], int] = {}
        self._onward: dict[tuple[Frame, int], int] = {}

    def through(self, reach: Reach, crossing: Crossing) -> Way:
        """From a start of the reach through a cut to a result of its frame."""
        if crossing not in reach.via:
            before, after = reach.entered[crossing[0]]
            values, start = self.back(reach, before)
            rest, end = self.onward(reach.frame, after)
            return Way([*values, *rest], start, end)
        passage, group, inside = reach.via[crossing]
        way = self.through(passage.groups[group][1], inside)
        values, argument = self._first(passage, way.values, way.start - passage.inner.frame.size)
        node, frame = passage.node, reach.frame
        more, end = self._leave(frame, node, passage.inner, way.end)
        values, start = self._extend(reach, frame.number(node.inputs[argument + passage.inner.skip]), [*values, *more])
        rest, end = self.onward(frame, frame.number(node.output(end)))
        return Way([*values, *rest], start, end)

    def back(self, reach: Reach, number: int) -> tuple[list[Value], int]:
        """The values from a start of the reach to this one, without the start itself if told before; and the start."""
        known = self._back.get((reach, number))
        if known is not None:
            return [], known
        first = number
        frame = reach.frame
        parts: list[list[Value]] = []
        while True:
            parts.append([frame.value(number)])
            came = reach.came[number]
            if came == START:
                break
            if came >= 0:
                number = came
                continue
            values, index = self._across(reach, frame.function.nodes[-2 - came], frame.value(number).port)
            parts.append(values)
            number = frame.number(frame.function.nodes[-2 - came].inputs[index])
        self._back[reach, first] = number
        return [value for part in reversed(parts) for value in part], number

    def _extend(self, reach: Reach, number: int, values: list[Value]) -> tuple[list[Value], int]:
        before, start = self.back(reach, number)
        return [*before, *values], start

    def _across(self, reach: Reach, node: Node, port: int) -> tuple[list[Value], int]:
        """The way inside a functional node to one of its outputs, and the input that it begins at."""
        for passage in reach.passages[node]:
            inner = passage.inner
            is_condition = passage.body is not None or _condition(passage)
            result = inner.frame.function.results[0 if is_condition else port]
            if inner.frame.cost(result) is None:
                continue
            number = inner.frame.number(result)
            for _, inside in passage.groups:
                if inside.came[number] != UNSEEN:
                    values, start = self.back(inside, number)
                    values, argument = self._first(passage, values, start - inner.frame.size)
                    return values, argument + inner.skip
        return [], port if node.op in LOOPS else 0

    def _first(self, passage: Passage, values: list[Value], argument: int) -> tuple[list[Value], int]:
        """Goes on back through earlier iterations of a loop to an argument that an input of the loop gives."""
        groups = (passage.body or passage).groups
        while argument not in passage.given:
            group = next((g for g, (entered, _) in enumerate(groups) if argument in entered), len(groups))
            reach = groups[group - 1][1]
            values, start = self._extend(reach, reach.frame.number(reach.frame.function.results[argument]), values)
            argument = start - reach.frame.size
        return values, argument

    def onward(self, frame: Frame, number: int) -> tuple[list[Value], int]:
        """The values from this one to a result, and the result's port; only the port if told before."""
        known = self._onward.get((frame, number))
        if known is not None:
            return [], known
        first = number
        values: list[Value] = []
        while True:
            values.append(frame.value(number))
            following = frame.next[number]
            if following == END:
                break
            if following >= 0:
                number = following
                continue
            node = frame.function.nodes[-2 - following]
            inside, port = self._inside(frame, node, number)
            values += inside
            number = frame.number(node.output(port))
        cost = frame.cuts[number], frame.hops[number]
        end = next(port for port, at, own in frame.ends if at == number and own == cost)
        self._onward[frame, first] = end
        return values, end

    def _inside(self, frame: Frame, node: Node, number: int) -> tuple[list[Value], int]:
        """The cheapest way from a value through a functional node that reads it, and the output's port."""
        found: list[tuple[Cost, int, Inner, int]] = []
        for order, inner in enumerate(frame.inner[node]):
            for argument, cost in arguments(inner):
                if frame.number(node.inputs[argument + inner.skip]) == number:
                    found.append((cost, order, inner, argument))
        direct = [
            ((frame.cuts[at], frame.hops[at] + 1), port)
            for port, at in frame.outputs(node)
            if node.op not in LOOPS or frame.number(node.inputs[port]) == number
        ]
        if not found or (node.op in LOOPS and direct and min(direct)[0] <= min(found)[0]):
            return [], min(direct)[1]
        _, _, inner, argument = min(found, key=lambda way: way[:2])
        values, end = self.onward(inner.frame, inner.frame.size + argument)
        more, port = self._leave(frame, node, inner, end)
        return [*values, *more], port

    def _leave(self, frame: Frame, node: Node, inner: Inner, end: int) -> tuple[list[Value], int]:
        """Goes on from a result of what a node runs, in a loop perhaps through further iterations."""
        if node.op not in LOOPS:
            return [], end
        outs = {port: (frame.cuts[at], frame.hops[at] + 1) for port, at in frame.outputs(node)}
        if inner.frame.function.name == node.attr("cond").func.name:
            return [], min(outs, key=lambda port: outs[port])
        again = inner.again or []
        values: list[Value] = []
        while True:
            more = further(again[end])
            if end in outs and (more is None or outs[end] <= more):
                return values, end
            ways = [
                (cost, order, other)
                for order, other in enumerate(frame.inner[node])
                for i, cost in arguments(other)
                if i == end
            ]
            _, _, other = min(ways, key=lambda way: way[:2])
            told, end = self.onward(other.frame, other.frame.size + end)
            values += told
            if other.frame.function.name == node.attr("cond").func.name:
                return values, min(outs, key=lambda port: outs[port])


def _condition(passage: Passage) -> bool:
    node = passage.node
    return node.op in LOOPS and passage.inner.frame.function.name == node.attr("cond").func.name
