"""How a training step is wired: which variables it assigns, and which gradient is behind each assignment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from gradpass.flow.facts import BRANCHES, RESOURCE, callees
from gradpass.program.graph import ARGUMENT, Function, Node, Value
from gradpass.report.site import ASSIGNS, READS


class Assignment(NamedTuple):
    """A node that puts something into a variable, itself or in a function that it runs."""

    variable: Any
    node: Node
    inputs: tuple[Value, ...]


class Wiring:
    """The assignments of one function; `owners` says whose a handle is, `made` when each op was made, by name."""

    def __init__(self, function: Function, owners: Mapping[Value, Any], made: Mapping[str, int]) -> None:
        self.function = function
        self.position = {node: made.get(node.name, len(made)) for node in function.nodes}
        self._owners = dict(owners)
        self._assigns: dict[Function, set[int]] = {}
        self.assignments = [found for node in function.nodes for found in self._of(node)]
        self._by_variable: dict[Any, list[Assignment]] = {}
        for each in self.assignments:
            self._by_variable.setdefault(each.variable, []).append(each)

    def owner(self, handle: Value) -> Any:
        """The variable whose handle this is; None for any other value."""
        while handle.node.op in READS and handle.dtype == RESOURCE and handle.node.inputs:
            handle = handle.node.inputs[min(handle.port, len(handle.node.inputs) - 1)]
        return self._owners.get(handle)

    def _of(self, node: Node) -> list[Assignment]:
        handles = [value for value in node.inputs if value.dtype == RESOURCE]
        if not handles:
            return []
        if callees(node):
            skip = 1 if node.op in BRANCHES else 0
            assigned = {
                p + skip for name in callees(node) for p in self._assigned(node.function.program.function(name))
            }
            handles = [value for p, value in enumerate(node.inputs) if p in assigned and value.dtype == RESOURCE]
        elif not ASSIGNS.match(node.op):
            return []
        # A function may read variables too; what an op assigns comes in as a tensor.
        data = tuple(value for value in node.inputs if value.dtype != RESOURCE or callees(node))
        if node.op.startswith("ResourceApply"):
            handles = handles[:1]  # the others are slots
        owners = [self.owner(handle) for handle in handles]
        return [Assignment(owner, node, data) for owner in owners if owner is not None]

    def _assigned(self, function: Function) -> set[int]:
        """The arguments that a function puts something into."""
        known = self._assigns.get(function)
        if known is None:
            self._assigns[function] = set()
            places = {argument.output(0): i for i, argument in enumerate(function.arguments)}
            inner = Wiring.__new__(Wiring)
            inner.function, inner._owners, inner._assigns = function, places, self._assigns
            known = {each.variable for node in function.nodes for each in inner._of(node)}
            self._assigns[function] = known
        return known

    def assigned(self, variable: Any) -> list[Assignment]:
        """What puts something into a variable."""
        return self._by_variable.get(variable, [])

    def nearest(self, starts: Iterable[Value], sought: Mapping[Value, Any], before: int) -> set[Any]:
        """What of `sought` is the fewest ops behind some values; what a variable holds was put into it by then.

        `before` is the place in the function up to which assignments count, as they are met first.
        """
        seen: set[Value] = set()
        level = [(value, before) for value in starts]
        while level:
            found = {sought[value] for value, _ in level if value in sought}
            if found:
                return found
            following = []
            for value, at in level:
                if value in seen:
                    continue
                seen.add(value)
                following += self._behind(value, at)
            level = following
        return set()

    def _behind(self, value: Value, at: int) -> list[tuple[Value, int]]:
        """What a value was computed from; of a variable what was put into it until then."""
        if value.dtype == RESOURCE:
            owner = self.owner(value)
            before = [a for a in self.assigned(owner) if self.position[a.node] < at] if owner is not None else []
            return [(data, self.position[each.node]) for each in before for data in each.inputs]
        node = value.node
        place = self.position.get(node, at)
        return [(each, place) for each in _sources(value)] if node.op != ARGUMENT else []

    def reaches(
        self, starts: Iterable[Value], ends: Iterable[Value], figure: Callable[[Value], bool] | None = None
    ) -> bool:
        """Whether something that is computed from some values is among others, or goes into a variable.

        Where it is told what is a `figure`, a scalar, what is computed from an array by way of one does not count.
        """
        reached = set(starts)
        wanted = set(ends)
        if reached & wanted:
            return True
        for node in self.function.order():
            if any(value in reached for value in node.inputs):
                if self._of(node):
                    return True
                arrays = figure is not None and any(value in reached and not figure(value) for value in node.inputs)
                found = _computed(node, reached)
                reached.update(value for value in found if not (arrays and figure is not None and figure(value)))
                if not reached.isdisjoint(wanted):
                    return True
        return False

    def between(self, starts: Iterable[Value], ends: Iterable[Value]) -> list[Node]:
        """The nodes on the ways from some values to others, in the order in which they were made."""
        ahead = set(starts)
        for node in self.function.order():
            if any(value in ahead for value in node.inputs):
                ahead.update(_computed(node, ahead))
        back: set[Value] = set()
        todo = list(ends)
        while todo:
            value = todo.pop()
            if value not in back:
                back.add(value)
                todo += _sources(value)
        found = {value.node for value in back if any(each in ahead for each in value.node.inputs)}
        return sorted(found, key=self.position.__getitem__)


def _sources(value: Value) -> tuple[Value, ...]:
    """What a value is computed from: each output of an IdentityN is its own input."""
    inputs = value.node.inputs
    return (inputs[value.port],) if value.node.op in READS and len(inputs) > 1 else inputs


def _computed(node: Node, reached: set[Value]) -> list[Value]:
    """The outputs of a node that are computed from some values."""
    return [value for value in node.used_outputs if not reached.isdisjoint(_sources(value))]
