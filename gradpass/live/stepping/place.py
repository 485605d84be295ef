"""One graph of a training step: where its values are, what it captures, and how it is wired."""

from __future__ import annotations

from typing import Any

from gradpass.flow.facts import BRANCHES, LOOPS, callees
from gradpass.live.stepping.tapes import Asked
from gradpass.live.stepping.wiring import Wiring
from gradpass.program.graph import Function, Node, Value
from gradpass.program.model import Model
from gradpass.program.trace import handle_of
from gradpass.report.diagnostics import Source
from gradpass.report.sources import source_of


class Place:
    """The graph in which some gradients are asked: the step's own, or that of a function, loop or branch in it.

    `made` says when each op was made, by name; `captures` which values are handles of which variables.
    """

    def __init__(self, concrete: Any, model: Model, graph: Any, asked: list[Asked]) -> None:
        self.concrete = concrete
        self.graph = graph
        self.variables = {handle_of(variable): variable for variable in concrete.variables}
        self._model = model
        (entry,) = model.entries.values()
        marks = {each.mark.name for each in asked} or {op.name for op in graph.get_operations() if op.inputs}
        held = map(model.program.function, model.program.functions)
        inner = next((f for f in held if marks and marks <= f.by_name.keys()), entry.function)
        self.function: Function = entry.function if graph is concrete.graph else inner
        self._entry_name = str(entry.function.name)
        self.captures = captures_of(model, self.function)
        owners = {value: key for key, values in self.captures.items() for value in values}
        self.made = {op.name: i for i, op in enumerate(graph.get_operations())}
        self.wiring = Wiring(self.function, owners, self.made)

    def line(self, node: str) -> Source | None:
        """The user's line that made a node."""
        return source_of(self._model.debug_info, self.function.name, node)

    @property
    def calls(self) -> list[Node]:
        """The nodes that call this function, with its results as their outputs; none where it is a branch or a loop."""
        held = map(self._model.program.function, (self._entry_name, *self._model.program.functions))
        return [n for f in held for n in f.nodes if n.callee == self.function.name]

    def is_scalar(self, value: Value) -> bool:
        """Whether a value is one number."""
        tensor = self.graph.get_operation_by_name(value.node.name).outputs[value.port]
        return bool(tensor.shape.rank == 0)

    def is_here(self, tensor: Any) -> bool:
        """Whether a tensor is of this graph."""
        return getattr(tensor, "graph", None) is self.graph

    def value(self, tensor: Any) -> Value:
        """A tensor of this graph as the program has it."""
        return self.function.by_name[tensor.op.name].output(tensor.value_index)

    def here(self, value: Value) -> Value:
        """A value of another reading of the same graph, in this one."""
        return self.function.by_name[value.node.name].output(value.port)

    def readers(self, handles: set[Value]) -> list[Node]:
        """The nodes that read variables, and do not assign them."""
        assigning = {each.node for each in self.wiring.assignments}
        return [n for n in self.function.nodes if n not in assigning and not handles.isdisjoint(n.inputs)]


def captures_of(model: Model, function: Function) -> dict[Any, list[Value]]:
    """The variables that a function of a model takes, by key: captured by the entry, or handed on by who runs it."""
    (entry,) = model.entries.values()
    if function is entry.function:
        return entry.captures
    for name in [str(entry.function.name), *model.program.functions]:
        outer = model.program.function(name)
        for node in outer.nodes if outer is not function else ():
            if function.name in (*callees(node), *([node.attr("cond").func.name] if node.op in LOOPS else ())):
                skip = 1 if node.op in BRANCHES else 0
                owners = {value: key for key, values in captures_of(model, outer).items() for value in values}
                found: dict[Any, list[Value]] = {}
                for argument, value in zip(function.arguments, node.inputs[skip:], strict=False):
                    if value in owners:
                        found.setdefault(owners[value], []).append(argument.output(0))
                return found
    return {}
