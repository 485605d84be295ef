"""What stands around a severing op, found in the program when somebody asks: for drawings and for overlays."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gradpass.flow.analysis import Analysis
from gradpass.flow.facts import callees, facts, is_float, trainable
from gradpass.flow.route import calls
from gradpass.program.graph import ARGUMENT, BACK_EDGE, Function, Node
from gradpass.program.model import Model
from gradpass.report.diagnostics import Diagnostic

State = Literal["live", "severed", "cut", "beside"]
Role = Literal["target", "op", "output", "gap", "group"]
Flow = Literal["live", "severed", "broken", "beside"]

MOST = 200  # nodes of a drawing
HOPS = 2  # from the severing op; the rest of the path shows its neighbours only
NEAR = 3  # path nodes shown on each side of the cut, where a path is long
ENDS = 2  # and behind its first node and before its last
ALIKE = 4  # nodes of one op between the same others become one box
TITLES = 20  # names told of a box that stands for many
UNTOLD = frozenset({"Const", "NoOp"})


@dataclass(frozen=True)
class Box:
    """One box: `state` tells whether the loss's gradient arrives, `title` all that has no room in the box."""

    label: str
    detail: str
    title: str
    role: Role
    state: State


@dataclass(frozen=True)
class Link:
    """Data on its way from box to box; `flow` tells what the gradient does on the way back."""

    start: int
    end: int
    flow: Flow


@dataclass(frozen=True)
class Drawing:
    """A severed neighbourhood: the boxes on the path are the first `spine` ones, in its order."""

    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    spine: int
    left_out: int = 0


class Neighbourhoods:
    """The surroundings of the findings of one model; what is worked out about a function is kept."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._analysis = Analysis("structure")
        self._live: dict[Function, frozenset[Node]] = {}
        self._readers: dict[Function, dict[Node, list[Node]]] = {}

    def drawing(self, diagnostic: Diagnostic, most: int = MOST) -> Drawing | None:
        """The path of a diagnostic and what stands around it; None for one without a path."""
        if diagnostic.node is None or diagnostic.cut is None:
            return None
        return _Sketch(self, diagnostic, most).drawing()

    def place(self, diagnostic: Diagnostic) -> tuple[Node, list[Node]]:
        """The severing op of a diagnostic, and the calls from the entry down to it."""
        program = self.model.program
        function = program.graph if diagnostic.function is None else program.function(diagnostic.function)
        entry = self.model.entries.get(diagnostic.entries[0]) if diagnostic.entries else None
        stack = calls(entry.function, diagnostic.stack, function) if entry else None
        return function.by_name[str(diagnostic.node)], stack or []

    def callers(self, diagnostic: Diagnostic) -> list[Node]:
        """The nodes of the top-level graph that run the entries of a diagnostic, where these are functions."""
        entered = {self.model.entries[name].function.name for name in diagnostic.entries if name in self.model.entries}
        return [node for node in self.model.program.graph.nodes if not entered.isdisjoint(callees(node))]

    def live(self, function: Function) -> frozenset[Node]:
        """The nodes at which a gradient arrives when all results of a function, or all float outputs, have one."""
        known = self._live.get(function)
        if known is None:
            results = function.results
            if not results:
                own = [entry for entry in self.model.entries.values() if entry.function is function]
                results = [value for entry in own for value in entry.outputs.values()]
            asked = [value if is_float(value.dtype) else None for value in results]
            # Whatever a float comes out of first, so that what is only computed from whole numbers is asked as well.
            nodes = [*function.arguments, *function.nodes]
            sources = [node for node in nodes if not any(trainable(value.dtype) for value in node.inputs)]
            targets = [node.output(0) for node in sources if trainable(node.output_dtype(0))]
            grads = self._analysis.backward(function, asked, targets).grads
            known = self._live[function] = frozenset(value.node for value, (_, flow) in grads.items() if flow)
        return known

    def states(self, function: Function, cuts: Iterable[Node]) -> dict[Node, State]:
        """What becomes of the gradient at the nodes of a function around cuts, or calls in which there are some.

        Those not told are beside the way.
        """
        live = self.live(function)
        states: dict[Node, State] = dict.fromkeys(live, "live")
        before = list(cuts)
        behind = [cut for cut in before if cut not in live]
        states.update(dict.fromkeys(before, "cut"))
        while before:
            for value in before.pop().inputs:
                if value.node not in states and trainable(value.dtype):
                    states[value.node] = "severed"
                    before.append(value.node)
        while behind:
            for node in self.readers(behind.pop()):
                if node not in states:
                    states[node] = "severed"
                    behind.append(node)
        return states

    def readers(self, node: Node) -> list[Node]:
        """The nodes that read some data of a node."""
        function = node.function
        readers = self._readers.get(function)
        if readers is None:
            readers = self._readers[function] = defaultdict(list)
            for reader in function.nodes:
                if reader.op not in BACK_EDGE:
                    for source in dict.fromkeys(value.node for value in reader.inputs):
                        readers[source].append(reader)
        return readers.get(node, [])


class _Sketch:
    """One drawing while it is made."""

    def __init__(self, around: Neighbourhoods, diagnostic: Diagnostic, most: int) -> None:
        self.around = around
        self.diagnostic = diagnostic
        self.most = most
        self.path = list(diagnostic.path)
        if diagnostic.cut and diagnostic.cut == len(self.path) - 1:
            self.path.append(self.path[-1])  # the output of a frozen graph bears the name of the op that it is of
        self.cut, self.calls = around.place(diagnostic)
        self.at = _position(self.path, self.cut)
        self.nodes = self._resolved()
        self.states: dict[Node, State] = {}
        for node in (*self.calls, self.cut):
            self.states |= around.states(node.function, [node])
        self.states.update((call, "live" if call in around.live(call.function) else "severed") for call in self.calls)

    def drawing(self) -> Drawing:
        """The path, then what stands beside it, nodes that are alike as one."""
        boxes: list[Box] = []
        shown: dict[Node, int] = {}
        for first, last in self._stretches():
            if first < last:
                names = self.path[first : last + 1]
                state = self._path_state(first)
                boxes.append(Box(f"… {len(names)} more …", "", _listed(names), "gap", state))
                continue
            if first in self.nodes:
                shown[self.nodes[first]] = len(boxes)
            boxes.append(self._path_box(first))
        spine = len(boxes)
        hidden = {node for node in self.nodes.values() if node not in shown} | self._entered()
        found = [node for node in self._side(shown) if node not in hidden]
        kept = found[: max(self.most - spine, 0)]
        pairs = _pairs({*shown, *kept})
        for group in _groups(kept, pairs, self.states):
            for node in group:
                shown[node] = len(boxes)
            boxes.append(self._side_box(group))
        links = {(i, i + 1): self._path_flow(boxes[i], boxes[i + 1]) for i in range(spine - 1)}
        for start, end, place in pairs:
            if end in self.calls and start in self.nodes.values():
                continue  # it goes on inside
            ends = shown[start], shown[end]
            flow = self._flow(start, end, place)
            if ends[0] != ends[1] and (ends not in links or flow == "broken" or links[ends] == "beside"):
                links[ends] = flow
        made = tuple(Link(*ends, flow) for ends, flow in links.items())
        return Drawing(tuple(boxes), made, spine, len(found) - len(kept))

    def _resolved(self) -> dict[int, Node]:
        """The nodes of the path by their places on it, as far as they are in the functions around the cut."""
        nodes = {self.at: self.cut}
        first = last = self.at
        for node in (self.cut, *reversed(self.calls)):
            by_name = node.function.by_name
            before = after = node
            for i in range(first - 1, -1, -1):  # to 0: the target may be a node of that name
                candidate = by_name.get(self.path[i])
                if candidate is not None and any(value.node is candidate for value in before.inputs):
                    nodes[i] = before = candidate
                    first = i
            for i in range(last + 1, len(self.path) - 1):
                candidate = by_name.get(self.path[i])
                came_out = candidate is node and node is not self.cut and after is node
                if candidate is not None and (came_out or any(value.node is after for value in candidate.inputs)):
                    nodes[i] = after = candidate
                    last = i
        return nodes

    def _entered(self) -> set[Node]:
        """The arguments by which the path comes into a function: what is before them on the path says the same."""
        coming = [node for i, node in self.nodes.items() if self._comes_in(i)]
        return {value.node for node in coming for value in node.inputs if value.node.op == ARGUMENT}

    def _comes_in(self, i: int) -> bool:
        before = self.nodes.get(i - 1)
        return before is None or before.function is not self.nodes[i].function

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """The places on the path, those that are left out of a long one as a range."""
        last = len(self.path) - 1
        keep = {0, self.at, last}
        keep |= {i for i in range(last) if i <= ENDS or i >= last - ENDS or abs(i - self.at) <= NEAR}
        previous = -1
        for i in sorted(keep):
            if i - previous > 1:
                yield previous + 1, i - 1
            yield i, i
            previous = i

    def _path_state(self, i: int) -> State:
        """What becomes of the gradient at a place of the path; in functions beside those known, as before them."""
        if i == self.at:
            return "cut"
        if i < self.at:
            return "severed"
        if i == len(self.path) - 1:
            return "live"
        node = self.nodes.get(i)
        while node is None or node is self.cut:
            if node is self.cut:
                return "live" if self.cut in self.around.live(self.cut.function) else "severed"
            i -= 1
            node = self.nodes.get(i)
        return "live" if node in self.around.live(node.function) else "severed"

    def _path_box(self, i: int) -> Box:
        name, state = self.path[i], self._path_state(i)
        if i == 0 and i != self.at:
            starves = self.diagnostic.concerned
            others = len(starves) - 1
            detail = f"and {others} more starved" if others > 0 else "starved"
            return Box(name, detail, _listed(starves), "target", state)
        if i == len(self.path) - 1 and i != self.at:
            return Box(name, "output", f"{name}: the gradient sets out from here", "output", state)
        node = self.nodes.get(i)
        where = f" of {node.function.label}" if node is not None else ""
        return Box(name, _told(name, node.op) if node is not None else "", f"{name}{where}", "op", state)

    def _side(self, shown: Iterable[Node]) -> list[Node]:
        """The nodes around, the nearest first."""
        near = {node for i, node in self.nodes.items() if abs(i - self.at) <= NEAR}
        budget = {node: HOPS if node is self.cut else int(node in near) for node in shown}
        found: dict[Node, int] = {}
        ring = sorted(budget, key=lambda node: (-budget[node], node.position))
        hops = 0
        while ring:
            hops += 1
            following: dict[Node, None] = {}
            for node in ring:
                if budget[node] == 0:
                    continue
                for other in (*(value.node for value in node.inputs), *self.around.readers(node)):
                    if other not in budget and other.op not in UNTOLD:
                        budget[other] = budget[node] - 1
                        found[other] = hops
                        following[other] = None
            ring = list(following)
        return sorted(found, key=lambda node: (found[node], node.position))

    def _side_box(self, group: list[Node]) -> Box:
        state = self.states.get(group[0], "beside")
        if len(group) > 1:
            names = _listed([node.name for node in group])
            return Box(f"{group[0].op} × {len(group)}", "", names, "group", state)
        (node,) = group
        op = "argument" if node.op == ARGUMENT else _told(node.name, node.op)
        return Box(node.name, op, f"{node.name} of {node.function.label}", "op", state)

    def _flow(self, start: Node, end: Node, place: int) -> Flow:
        """What the gradient does between two nodes of one function."""
        live = self.around.live(start.function)
        passes = bool(callees(end)) or bool(facts(end).registered and facts(end).rows[place])
        if start in live:
            return "live" if end in live and passes else "beside"
        if start not in self.states or end not in self.states:
            return "beside"
        return "broken" if end in live else "severed"

    def _path_flow(self, start: Box, end: Box) -> Flow:
        """As `_flow`, between two boxes of the path, of which only the states are known."""
        arrives = self.cut in self.around.live(self.cut.function)
        before = start.state == "live" or (start.state == "cut" and arrives)
        behind = end.state == "live" or (end.state == "cut" and arrives)
        if before and behind and end.state != "cut":
            return "live"
        return "broken" if behind else "severed"


def _position(path: list[str], cut: Node) -> int:
    """The place of the cut on the path: where what stands before it is what it reads, if its name is there twice."""
    places = [i for i, name in enumerate(path) if name == cut.name and 0 < i < len(path) - 1]
    names = {value.node.name for value in cut.inputs}
    fitting = [i for i in places if path[i - 1] in names]
    return (fitting or places or [0])[0]


def _pairs(nodes: set[Node]) -> list[tuple[Node, Node, int]]:
    """All data edges between some nodes: start, end, and which input it is."""
    return [
        (value.node, node, place)
        for node in sorted(nodes, key=lambda node: (node.function.name or "", node.position))
        if node.op not in BACK_EDGE
        for place, value in enumerate(node.inputs)
        if value.node in nodes
    ]


def _groups(nodes: list[Node], pairs: list[tuple[Node, Node, int]], states: dict[Node, State]) -> list[list[Node]]:
    """Nodes that one box can stand for: of one op and one state, between the same others."""
    near: dict[Node, set[tuple[str, Node]]] = defaultdict(set)
    for start, end, _ in pairs:
        near[start].add(("reads", end))
        near[end].add(("gives", start))
    alike: dict[object, list[Node]] = defaultdict(list)
    for node in nodes:
        alike[node.op, states.get(node), frozenset(near[node])].append(node)
    return [part for group in alike.values() for part in ([group] if len(group) >= ALIKE else [[n] for n in group])]


def _told(name: str, op: str) -> str:
    """The op, where the node's name does not tell it."""
    return "" if re.sub(r"_\d+$", "", name.rpartition("/")[2]).lower() == op.lower() else op


def _listed(names: list[str]) -> str:
    rest = len(names) - TITLES
    return ", ".join(names[:TITLES]) + (f" and {rest} more" if rest > 0 else "")
