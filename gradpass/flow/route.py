"""The shortest way through an op, whatever its gradient does: from what the entry is given to its output, as names.

For ops that sever nobody and make TensorFlow raise all the same; those that sever have `paths`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from gradpass.flow.facts import BRANCHES, LOOPS, callees
from gradpass.flow.shapes import SHAPE_ONLY
from gradpass.program.graph import ARGUMENT, Function, Node, Value


def calls(function: Function, names: Sequence[str], wanted: Function) -> list[Node] | None:
    """The nodes of these names that lead from one function to another, each call down from the last."""
    if not names:
        return [] if function is wanted else None
    node = function.by_name.get(names[0])
    if node is None:
        return None
    inner = (*callees(node), node.attr("cond").func.name) if node.op in LOOPS else callees(node)
    for name in inner:
        rest = calls(function.program.function(name), names[1:], wanted)
        if rest is not None:
            return [node, *rest]
    return None


class Routes:
    """Ways through ops of one entry.

    `starts` name the values that they begin with, those of the first where it can be: targets before other inputs.
    """

    def __init__(self, function: Function, starts: Sequence[Mapping[Value, str]], outputs: Mapping[str, Value]) -> None:
        self.function = function
        self.starts = starts
        self.outputs = {value: name for name, value in reversed(list(outputs.items()))}
        self._readers: dict[Function, dict[Value, list[Node]]] = {}

    def through(self, names: Sequence[str], node: Node) -> list[str]:
        """The names on a way through a node that the calls of these names lead to; its own alone if there is none."""
        stack = calls(self.function, names, node.function)
        ways = [] if stack is None else [self._through(stack, node, starts) for starts in self.starts]
        way = next(filter(None, ways), [node.name])
        return [name for i, name in enumerate(way) if i == 0 or way[i - 1] != name]

    def _through(self, stack: list[Node], node: Node, starts: Mapping[Value, str]) -> list[str] | None:
        way = [node]
        before, after = node.inputs, node.used_outputs
        for call in reversed(stack):
            function = way[0].function
            arguments = {argument.output(0) for argument in function.arguments}
            back, onward = _back(before, arguments), self._onward(after, set(function.results))
            if back is None or onward is None:
                return None
            way = [*(value.node for value in back[1:]), *way, *(value.node for value in onward)]
            before = (call.inputs[back[0].node.position + (call.op in BRANCHES)],)
            if call.op in LOOPS and call.attr("cond").func.name == function.name:
                after = call.used_outputs
            else:
                after = tuple(call.output(port) for port, v in enumerate(function.results) if v is onward[-1])
        back, onward = _back(before, set(starts)), self._onward(after, set(self.outputs))
        if back is None or onward is None:
            return None
        nodes = [*(v.node for v in back[1:]), *way, *(v.node for v in onward)]
        return [starts[back[0]], *(node.name for node in nodes), self.outputs[onward[-1]]]

    def _onward(self, starts: Iterable[Value], ends: set[Value]) -> list[Value] | None:
        """The values from one of some to one of others, the nearest; None where none is reached."""
        came: dict[Value, Value | None] = dict.fromkeys(starts)
        todo = deque(came)
        while todo:
            value = todo.popleft()
            if value in ends:
                return _chain(value, came)[::-1]
            for node in self._read(value.node.function).get(value, ()):
                for output in node.used_outputs:
                    if output not in came:
                        came[output] = value
                        todo.append(output)
        return None

    def _read(self, function: Function) -> dict[Value, list[Node]]:
        """Who reads the data of each value of a function."""
        if function not in self._readers:
            found = self._readers[function] = {}
            for node in function.nodes:
                if node.op not in SHAPE_ONLY:
                    for value in node.inputs:
                        found.setdefault(value, []).append(node)
        return self._readers[function]


def _back(starts: Iterable[Value], ends: set[Value]) -> list[Value] | None:
    """The values from one of `ends` to one of `starts`, the nearest."""
    came: dict[Value, Value | None] = dict.fromkeys(starts)
    todo = deque(came)
    while todo:
        value = todo.popleft()
        if value in ends:
            return _chain(value, came)
        if value.node.op in SHAPE_ONLY or value.node.op == ARGUMENT:
            continue
        for source in value.node.inputs:
            if source not in came:
                came[source] = value
                todo.append(source)
    return None


def _chain(value: Value | None, came: Mapping[Value, Value | None]) -> list[Value]:
    found = []
    while value is not None:
        found.append(value)
        value = came[value]
    return found
