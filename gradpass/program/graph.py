"""The graph as gradpass sees it: one representation for FunctionDef, GraphDef and all that is in them.

`Program` holds functions by name and the top-level graph; a `Function` holds argument nodes, nodes and result values; a
`Node` its inputs; a `Value` (node, port) its uses. Names of the two formats (`node:output_arg:i` and `node:i`) are read
here and written by `rewrite.splice`; nobody else sees them. Objects are views of protobufs and are never edited in
place:
a change is a set of new FunctionDefs, of which `Model.changed` makes a new model, verified whole, or fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.errors import GradpassBug, TargetError
from gradpass.program import opdefs

ARGUMENT = "_Arg"
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
BACK_EDGE = frozenset({"NextIteration", "RefNextIteration"})


class Value:
    """One output of one node. `uses` lists (node, input index); results of a function are not uses."""

    __slots__ = ("node", "port", "uses")

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.port = port
        self.uses: list[tuple[Node, int]] = []

    @property
    def dtype(self) -> int:
        """The DataType number (types.proto); 0 where the op is unknown."""
        return self.node.output_dtype(self.port)

    def __repr__(self) -> str:
        return f"{self.node.name}:{self.port}"


class Node:
    """One operation: name, op, data inputs, control inputs, and its NodeDef (None for an argument)."""

    __slots__ = ("_outputs", "controls", "function", "inputs", "name", "op", "position", "proto")

    def __init__(self, function: Function, name: str, op: str, position: int, proto: NodeDef | None) -> None:
        self.function = function
        self.name = name
        self.op = op
        self.position = position
        self.proto = proto
        self.inputs: tuple[Value, ...] = ()
        self.controls: tuple[Node, ...] = ()
        self._outputs: list[Value] = []

    def output(self, port: int) -> Value:
        """The value at a flat output port."""
        outputs = self._outputs
        while len(outputs) <= port:
            outputs.append(Value(self, len(outputs)))
        return outputs[port]

    @property
    def used_outputs(self) -> list[Value]:
        """The outputs that somebody referred to so far (at least all that are used)."""
        return self._outputs

    def attr(self, name: str) -> Any:
        """The AttrValue of that name as the node or the op's definition has it, else None."""
        if self.proto is not None:
            attrs = self.proto.attr
            if name in attrs:  # a look-up by [] would insert an empty value
                return attrs[name]
        signature = opdefs.get(self.op)
        return signature.default(name) if signature else None

    @property
    def callee(self) -> str | None:
        """The name of the function that this node calls, if it is a plain call."""
        if self.op in CALLS:
            return str(self.attr("f").func.name)
        return self.op if self.op in self.function.program.functions else None

    def output_dtype(self, port: int) -> int:
        """The DataType number of a flat output port; 0 where the op is unknown."""
        if self.op == ARGUMENT:
            return self.function.argument_dtypes[self.position]
        signature = opdefs.get(self.op)
        if signature is not None:
            return opdefs.output_dtype(signature, self.attr, port)
        callee = self.function.program.functions.get(self.op)
        if callee is not None and port < len(callee.results):
            return int(callee.proto.signature.output_arg[port].type)
        return 0

    def __repr__(self) -> str:
        return f"<{self.op} {self.name}>"


class Function:
    """A FunctionDef or the top-level GraphDef, read once.

    `arguments` and `results` are empty for a graph. `nodes` are in the order of the file; `order()` is topological.
    """

    def __init__(self, program: Program, proto: FunctionDef | GraphDef) -> None:
        self.program = program
        self.proto = proto
        self.is_graph = isinstance(proto, GraphDef)
        self.name: str | None = None if self.is_graph else str(proto.signature.name)
        self.by_name: dict[str, Node] = {}
        self.arguments: list[Node] = []
        self.argument_dtypes: list[int] = []
        self.results: list[Value] = []
        self.nodes: list[Node] = []
        self._order: list[Node] | None = None
        self._read()

    def _read(self) -> None:
        if not self.is_graph:
            for i, arg in enumerate(self.proto.signature.input_arg):
                if arg.number_attr or arg.type_list_attr:
                    raise TargetError(
                        f"function {self.name!r} has the list argument {arg.name!r}, which is not supported"
                    )
                self._add(self.arguments, Node(self, arg.name, ARGUMENT, i, None))
                self.argument_dtypes.append(arg.type)
        for i, proto in enumerate(self.proto.node if self.is_graph else self.proto.node_def):
            self._add(self.nodes, Node(self, proto.name, proto.op, i, proto))
        for node in self.nodes:
            self._link(node)
        if not self.is_graph:
            ret = self.proto.ret
            self.results = [self.value(ret[arg.name]) for arg in self.proto.signature.output_arg]

    def _add(self, group: list[Node], node: Node) -> None:
        if self.by_name.setdefault(node.name, node) is not node:
            raise TargetError(f"two nodes of {self.label} bear the name {node.name!r}")
        group.append(node)

    def _link(self, node: Node) -> None:
        inputs: list[Value] = []
        controls: list[Node] = []
        assert node.proto is not None
        for text in node.proto.input:
            if text[0] == "^":
                controls.append(self._node(text[1:]))
            else:
                value = self.value(text)
                value.uses.append((node, len(inputs)))
                inputs.append(value)
        node.inputs = tuple(inputs)
        if controls:
            node.controls = tuple(controls)

    def _node(self, name: str) -> Node:
        node = self.by_name.get(name)
        if node is None:
            raise TargetError(f"{self.label} refers to the node {name!r}, which it does not have")
        return node

    def value(self, text: str) -> Value:
        """The value that an input string of this function (or graph) names."""
        name, _, rest = text.partition(":")
        node = self._node(name)
        if not rest:
            return node.output(0)
        if self.is_graph:
            return node.output(int(rest))
        arg, _, index = rest.rpartition(":")
        return node.output(self._port(node, arg, int(index)))

    def _port(self, node: Node, arg: str, index: int) -> int:
        """The flat port of `node:arg:index`."""
        signature = opdefs.get(node.op)
        if signature is not None:
            return opdefs.output_offset(signature, node.attr, arg) + index
        callee = self.program.functions.get(node.op)
        if callee is not None:
            return [a.name for a in callee.proto.signature.output_arg].index(arg)
        return index  # an op that nobody here knows: its single output argument

    def reference(self, value: Value) -> str:
        """The string by which an input of this function (or graph) names a value: the inverse of `value`."""
        node = value.node
        if node.op == ARGUMENT:
            return node.name
        if self.is_graph:
            return f"{node.name}:{value.port}" if value.port else node.name
        signature = opdefs.get(node.op)
        if signature is not None:
            arg, index = opdefs.output_name(signature, node.attr, value.port)
            return f"{node.name}:{arg}:{index}"
        callee = self.program.functions.get(node.op)
        if callee is None:
            raise GradpassBug("program.graph", node.name, f"the outputs of the unknown op {node.op} have no names")
        return f"{node.name}:{callee.proto.signature.output_arg[value.port].name}:0"

    @property
    def label(self) -> str:
        """How messages call it."""
        return "the graph" if self.is_graph else f"function {self.name!r}"

    def order(self) -> list[Node]:
        """The nodes, every one behind its inputs; the back edges of TF1 loops are left out. Control edges count."""
        if self._order is None:
            self._order = self._sort()
        return self._order

    def _sort(self) -> list[Node]:
        ordered: list[Node] = []
        state = bytearray(len(self.nodes))  # 0 new, 1 open, 2 done
        for start in self.nodes:
            if state[start.position]:
                continue
            stack: list[tuple[Node, Iterator[Node]]] = [(start, _before(start))]
            state[start.position] = 1
            while stack:
                node, rest = stack[-1]
                for before in rest:
                    if before.op == ARGUMENT or state[before.position] == 2:
                        continue
                    if state[before.position] == 1:
                        raise TargetError(f"{self.label} has a cycle through {before.name!r}")
                    state[before.position] = 1
                    stack.append((before, _before(before)))
                    break
                else:
                    stack.pop()
                    state[node.position] = 2
                    ordered.append(node)
        return ordered

    def __repr__(self) -> str:
        return f"<Function {self.name} {len(self.nodes)} nodes>"


def _before(node: Node) -> Iterator[Node]:
    if node.op in BACK_EDGE:
        return iter(())
    if node.controls:
        return iter([*(v.node for v in node.inputs), *node.controls])
    return iter([v.node for v in node.inputs])


class CustomGradient(NamedTuple):
    """A gradient function that the SavedModel registers: takes one cotangent an output of the op.

    `present` tells for each input of the op whether its gradient is a tensor; the function's results are those, in
    order.
    """

    function: str
    present: tuple[bool, ...]


class _Functions(dict[str, Function]):
    """Functions by name, each read when first asked for."""

    def __init__(self, program: Program, protos: dict[str, FunctionDef]) -> None:
        super().__init__()
        self._program = program
        self.protos = protos

    def __missing__(self, name: str) -> Function:
        proto = self.protos[name]
        function = self[name] = Function(self._program, proto)
        return function

    def __contains__(self, name: object) -> bool:
        return name in self.protos

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self.protos else default

    def __iter__(self) -> Iterator[str]:
        return iter(self.protos)


class Program:
    """The functions of a model and its top-level graph.

    `registered_gradients` maps the op type of a custom gradient to the function that computes it, as the file says;
    `custom_gradients` adds which of its results are None, which only an object graph knows. `tensorflow` is the version
    whose gradients are meant: the one that wrote the file (empty where it does not say), unless another is asked for.
    """

    def __init__(self, graph: GraphDef) -> None:
        protos = {f.signature.name: f for f in graph.library.function}
        self.functions: _Functions = _Functions(self, protos)
        self.registered_gradients: dict[str, str] = {
            g.registered_op_type: g.gradient_func for g in graph.library.registered_gradients
        }
        self.custom_gradients: dict[str, CustomGradient] = {}
        self.tensorflow = ""
        self.graph = Function(self, graph)

    def function(self, name: str) -> Function:
        """The function of that name; a TargetError where the file lacks it."""
        if name not in self.functions:
            raise TargetError(f"the model calls the function {name!r}, which it does not contain")
        return self.functions[name]

    def verify(self, function: Function) -> None:
        """Raises GradpassBug unless every reference resolves, calls fit their callees and the order is acyclic."""
        try:
            function.order()
            for node in function.nodes:
                if node.op in CALLS:
                    callee = self.function(node.attr("f").func.name)
                    given = [v.dtype for v in node.inputs]
                    if given != callee.argument_dtypes:
                        raise TargetError(
                            f"call {node.name!r} gives {given}, {callee.label} takes {callee.argument_dtypes}"
                        )
                    if any(v.port >= len(callee.results) for v in node.used_outputs):
                        raise TargetError(f"call {node.name!r} is asked for a result that {callee.label} does not have")
        except TargetError as problem:
            raise GradpassBug("verify", None, f"{function.label}: {problem}") from problem
