"""From a starved target to the ops that sever it: the fewest cuts on a way to the loss, and the shortest such way.

The data graph is walked backwards from the entry's float outputs (`flow.ways`), and forwards from the starved targets
along ways with the fewest cuts (`flow.reach`): the cuts on them are the ones to repair. So a severed edge that starves
nobody (an accuracy branch, a ReLU mask, token ids) is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gradpass.flow.facts import LOOPS, facts, is_float
from gradpass.flow.paths import Paths
from gradpass.flow.reach import Crossing, Reach, Reaches
from gradpass.flow.verdict import Cut, EntryVerdict, How
from gradpass.flow.ways import Frame, Ways
from gradpass.program.graph import CALLS, Function, Node, Value
from gradpass.program.model import Entry

Stack = tuple[Node, ...]  # the call nodes from the entry down


@dataclass
class Blame:
    """What the blame was found by: the ways to the loss, and the cuts on those of starved targets."""

    ways: Ways
    root: Frame
    cuts: list[tuple[Stack, Node, int]]

    @cached_property
    def relevant(self) -> dict[Function, set[Value]]:
        """By function the values that reach the loss."""
        found: dict[Function, set[Value]] = {}
        for frame in (self.root, *self.ways.frames.values()):
            found.setdefault(frame.function, set()).update(frame.reached())
        return found

    def crossed(self) -> Iterator[Node]:
        """The calls through whose boundary a severed discrete value passes on a cheapest way to the loss."""
        reaches = Reaches(each=False)
        starts: dict[Stack, tuple[Frame, set[int]]] = {}
        for stack, node, _ in self.cuts:
            frames = self._frames(stack, node.function)
            for depth, frame in enumerate(frames):
                starts.setdefault(stack[:depth], (frame, set()))
            starts[stack][1].update(at for _, at in frames[-1].outputs(node))
        for stack in sorted(starts, key=len, reverse=True):
            frame, numbers = starts[stack]
            reach = Reach(reaches, frame, numbers)
            yield from _crossed(reach, set())
            if not stack:
                continue
            call, (outer, further) = stack[-1], starts[stack[:-1]]
            for port in reach.left():
                if call.op in CALLS and not is_float(frame.function.results[port].dtype):
                    yield call
                further.update(at for out, at in outer.outputs(call) if out == port or call.op in LOOPS)

    def _frames(self, stack: Stack, function: Function) -> list[Frame]:
        """The frames of an activation, the entry's first."""
        frames = [self.root]
        for call, entered in zip(stack, (*(below.function for below in stack), function)[1:], strict=True):
            frames.append(next(i.frame for i in frames[-1].inner[call] if i.frame.function is entered))
        return frames


def _crossed(reach: Reach, seen: set[Reach]) -> Iterator[Node]:
    """As `Blame.crossed`, for all that a reach passes."""
    seen.add(reach)
    for node, passages in reach.passages.items():
        for passage in passages:
            for given, inside in passage.groups:
                if node.op in CALLS:
                    results = [passage.inner.frame.function.results[port] for port in inside.left()]
                    discrete = [v for v in (*(node.inputs[i] for i in given), *results) if not is_float(v.dtype)]
                    if discrete:
                        yield node
                if inside not in seen:
                    yield from _crossed(inside, seen)


def blame(verdict: EntryVerdict, entry: Entry, places: list[list[Value]], each: bool = False) -> Blame | None:
    """Fills the verdict's cuts, disconnected and uncaptured targets. `places`: the values of each target.

    A cut in a function that runs more than once counts once, with one of the stacks that lead to it, or with `each`
    once an activation.
    """
    verdict.uncaptured = [i for i, values in enumerate(places) if not values]
    starved = [i for i, t in enumerate(verdict.targets) if t.structure != "flows" and places[i]]
    if not starved and not verdict.uncaptured:
        return None
    ways = Ways()
    floats = [(port, value) for port, value in enumerate(entry.outputs.values()) if is_float(value.dtype)]
    root = ways.root(entry.function, floats)
    starts = {i: [root.number(v) for v in places[i] if root.cost(v) is not None] for i in starved}
    verdict.disconnected = [i for i, found in starts.items() if not found]
    if verdict.disconnected or verdict.uncaptured:
        reached = [name for name, value in entry.inputs.items() if root.cost(value) is not None]
        for target, values in zip(verdict.targets, places, strict=True):
            if target.kind == "variable" and any(root.cost(value) is not None for value in values):
                reached.append(target.name)
        verdict.depends = reached
    if not starved:
        return None
    reach = Reach(Reaches(each), root, [number for several in starts.values() for number in several], floor=1)
    reach.look()
    found = _severed(reach, starts)
    targets = {number: verdict.targets[i].name for i, several in starts.items() for number in several}
    paths = Paths(reach, targets, list(entry.outputs))
    groups: dict[tuple[Stack | None, Node], list[tuple[Stack, int, Crossing]]] = {}
    for crossing in found:
        stack, node, index = paths.stack(crossing)
        groups.setdefault((stack if each else None, node), []).append((stack, index, crossing))
    cuts: list[tuple[tuple[tuple[str, ...], int], Cut]] = []
    for (_, node), several in groups.items():
        stack, _, crossing = several[0]
        starves = sorted({i for _, _, key in several for i in found[key]})
        cut = (
            Cut(
                node.op, node.name, node.function.name, tuple(call.name for call in stack),
                _how(node, [i for _, i, _ in several]), starves,
                sum(verdict.targets[i].parameters for i in starves),
                paths.through(crossing),
                sorted({i for _, i, _ in several}),
                facts(node).error,
            )
        )  # fmt: skip
        cuts.append(((cut.stack, node.position), cut))
    verdict.cuts = [cut for _, cut in sorted(cuts, key=lambda pair: pair[0])]
    return Blame(ways, root, [(stack, node, i) for (_, node), g in groups.items() for stack, i, _ in g])


def _severed(reach: Reach, starts: dict[int, list[int]]) -> dict[Crossing, list[int]]:
    """The cuts on all cheapest ways from these targets, each with the targets whose ways cross it."""
    found: dict[Crossing, list[int]] = {}
    for i, several in starts.items():
        for crossing in dict.fromkeys(a for number in several for a in reach.at(number)):
            assert not isinstance(crossing, int)
            found.setdefault(crossing, []).append(i)
    return found


def _how(node: Node, inputs: list[int]) -> How:
    fact = facts(node)
    if not fact.registered:
        return "raises"
    return "none" if any(fact.rows[i] is None for i in inputs) else "zero"
