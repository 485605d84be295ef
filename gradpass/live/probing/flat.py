"""A function that is traced already, with the bodies of the functions that it calls in the place of the calls.

Loops and branches stay as they are. A custom gradient is bound to the graph that it was traced in; a function with one
is called, and counts as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.live.probing.trace import Forward, Place, of_outputs
from gradpass.program.graph import ARGUMENT, CALLS, Function, Node, Value
from gradpass.program.model import Model
from gradpass.program.trace import LIVE, of_function
from gradpass.report.sources import source_of

SCOPE = "gradpass_probe"
_numbers = count()


def of_concrete(function: tf.types.experimental.ConcreteFunction) -> Callable[..., Forward]:
    """What to trace in the place of a ConcreteFunction's call."""
    model = of_function(function)
    entry = model.entries[LIVE]
    if has_custom(entry.function):
        return lambda *inputs: of_outputs(function(*inputs), inputs)

    def call(*inputs: Any) -> Forward:
        flat = tf.nest.flatten(list(inputs), expand_composites=True)
        forward = lay_out(model, entry.function, flat, function.captured_inputs, list(entry.inputs))
        forward.variables = function.variables
        return forward

    return call


def has_custom(function: Function | tf.types.experimental.ConcreteFunction) -> bool:
    """Whether a function, or one that it calls, has a custom gradient."""
    body = function if isinstance(function, Function) else of_function(function).entries[LIVE].function
    return any(map(_is_custom, _all_nodes(body)))


def lay_out(
    model: Model, function: Function, inputs: Sequence[Any], captured: Sequence[Any], names: Sequence[str]
) -> Forward:
    """Lays a function out in the graph that is being made; `captured` are the tensors that it takes behind the inputs.

    The inputs are tensors, in the order of the function's arguments.
    """
    inner = {id(outer): tf.identity(outer) for outer in captured}
    given = [*inputs, *(inner[id(outer)] for outer in captured)]
    flat = _Flat(function)
    fed = {f"{name}:0": tensor for name, tensor in zip(flat.arguments, given, strict=True)}
    graph = tf.compat.v1.GraphDef.FromString(flat.graph.SerializeToString())
    library = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    with tf.init_scope():
        # What a graph imports stays its own, and the loops and branches in it are looked up where functions run.
        tf.graph_util.import_graph_def(library)
    outputs = tf.graph_util.import_graph_def(graph, fed, flat.results, name=SCOPE)
    forward = of_outputs(outputs, inputs, names)
    forward.inside.update(inner)

    def path_of(op: Any) -> str:
        return str(op.name).removeprefix(f"{SCOPE}/")

    def place_of(op: Any) -> Place:
        return flat.places.get(path_of(op), (None, path_of(op)))

    forward.path_of, forward.place_of = path_of, place_of
    forward.source_of = lambda op: source_of(model.debug_info, *place_of(op))
    return forward


class _Flat:
    """The GraphDef of a function without calls; `places` tells for its nodes where they came from."""

    def __init__(self, function: Function) -> None:
        self.program = function.program
        self.graph = GraphDef()
        self.graph.versions.producer = tf.version.GRAPH_DEF_VERSION
        self.places: dict[str, Place] = {}
        self.arguments = [f"gradpass_argument_{i}" for i in range(len(function.arguments))]
        for name, dtype in zip(self.arguments, function.argument_dtypes, strict=True):
            node = self.graph.node.add(name=name, op="Placeholder")
            node.attr["dtype"].type = dtype
        results, _ = self._body(function, "", self.arguments, [])
        self.results = [text if ":" in text else f"{text}:0" for text in results]
        self._library()

    def _body(
        self, function: Function, prefix: str, given: Sequence[str], waits: list[str]
    ) -> tuple[list[str], list[str]]:
        """Adds the nodes of a function that is given these tensors and waits for these nodes.

        Returns the references of its results, and of what to wait for where its call was waited for.
        """
        references = {(node, 0): text for node, text in zip(function.arguments, given, strict=True)}
        effects: dict[Node, list[str]] = {}

        def reference(value: Value) -> str:
            plain = f"{prefix}{value.node.name}"
            return references.get((value.node, value.port)) or (f"{plain}:{value.port}" if value.port else plain)

        for node in function.order():
            data = [reference(v) for v in node.inputs]
            before = [w for c in node.controls if c.op != ARGUMENT for w in effects.get(c, [f"^{prefix}{c.name}"])]
            if all(v.node.op == ARGUMENT for v in node.inputs):
                before += waits
            if node.op in CALLS:
                callee = self.program.function(node.attr("f").func.name)
                results, done = self._body(callee, f"{prefix}{node.name}/", data, before)
                references.update({(node, port): text for port, text in enumerate(results)})
                effects[node] = done or before
                continue
            proto = NodeDef()
            proto.CopyFrom(node.proto)
            proto.name = f"{prefix}{node.name}"
            proto.ClearField("input")
            proto.input.extend([*data, *dict.fromkeys(before)])
            self.graph.node.append(proto)
            self.places[proto.name] = (function.name, node.name)
        last = [function.by_name[name] for name in function.proto.control_ret.values()]
        done = [text for node in last for text in effects.get(node, [f"^{prefix}{node.name}"])]
        return [reference(value) for value in function.results], done

    def _library(self) -> None:
        """Adds the functions of loops and branches, under names that nobody else in this process has."""
        needed: dict[str, None] = {}
        todo = [name for node in self.graph.node for name in _named(node)]
        while todo:
            name = todo.pop()
            if name not in needed and name in self.program.functions:
                needed[name] = None
                todo += [n for node in self.program.function(name).node_defs for n in _named(node)]
        number = next(_numbers)
        names = {name: f"{SCOPE}_{number}_{name}" for name in needed}
        for name in needed:
            function = self.graph.library.function.add()
            function.CopyFrom(self.program.function(name).proto)
            function.signature.name = names[name]
            _rename(function.node_def, names)
        _rename(self.graph.node, names)


def _functions_of(node: Node) -> list[str]:
    return [name for name in _named(node.proto) if name in node.function.program.functions]


def _named(node: Any) -> Iterator[str]:
    """The functions that a NodeDef names."""
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (each.name for each in value.list.func)


def _rename(nodes: Iterable[Any], names: dict[str, str]) -> None:
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            if value.HasField("func"):
                value.func.name = names.get(value.func.name, value.func.name)
            for each in value.list.func:
                each.name = names.get(each.name, each.name)


def _all_nodes(function: Function) -> Iterator[Node]:
    seen: set[str] = set()
    todo = [function]
    while todo:
        for node in todo.pop().nodes:
            yield node
            for name in _functions_of(node):
                if name not in seen:
                    seen.add(name)
                    todo.append(function.program.function(name))


def _is_custom(node: Node) -> bool:
    """Whether a node's gradient is a Python function's, or one that a SavedModel registers."""
    custom = node.attr("_gradient_op_type")
    return node.op not in CALLS and custom is not None and bool(custom.s)
