"""The graph as gradpass sees it: one representation for FunctionDef, GraphDef and all that is in them.

`Program` holds functions by name and the top-level graph; a `Function` holds argument nodes, nodes and result values; a
`Node` its kind and inputs; a `Value` is a node and a port. Names of the two formats (`node:output_arg:i` and `node:i`)
are read here and written by `rewrite.splice`; nobody else sees them. Nothing is edited in place: a change is a set of
new FunctionDefs, of which `Model.changed` makes a new model, verified whole, or fails.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.function_pb2 import FunctionDef, GradientDef, RegisteredGradient
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.errors import GradpassBug, TargetError
from gradpass.program import opdefs, skim

Source = Any  # a FunctionDef or GraphDef, or its bytes

OWN = "__inference_gradpass_"  # how the names of functions begin that a repair adds
ARGUMENT = "_Arg"
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
BACK_EDGE = frozenset({"NextIteration", "RefNextIteration"})


class Value:
    """One output of one node."""

    __slots__ = ("node", "port")

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.port = port

    @property
    def dtype(self) -> int:
        """The DataType number (types.proto); 0 where the op is unknown."""
        return self.node.output_dtype(self.port)

    def __repr__(self) -> str:
        return f"{self.node.name}:{self.port}"


class Kind:
    """What nodes of one op with equal attributes share: most nodes of a model are of a few kinds.

    `derived` is for what others work out about a kind, so that they do it once; it lives as long as the Program.
    """

    __slots__ = ("attrs", "derived", "dtypes", "op", "ports", "signature")

    def __init__(self, op: str, attrs: dict[str, Any]) -> None:
        self.op = op
        self.attrs = attrs
        self.signature = opdefs.get(op)
        self.ports: dict[str, int] = {}  # what follows the node's name in an input string -> flat port
        self.dtypes: dict[int, int] = {}  # flat port -> DataType
        self.derived: dict[Any, Any] = {}

    def attr(self, name: str) -> Any:
        """The AttrValue of that name as the node or the op's definition has it, else None. Shared: do not change it."""
        value = self.attrs.get(name)
        if value is None and self.signature is not None:
            return self.signature.default(name)
        return value


class Node:
    """One operation: name, kind (op and attributes), data inputs and control inputs."""

    __slots__ = ("controls", "function", "inputs", "kind", "name", "op", "position", "used_outputs")

    def __init__(self, function: Function, name: str, kind: Kind, position: int) -> None:
        self.function = function
        self.name = name
        self.kind = kind
        self.op = kind.op
        self.position = position
        self.inputs: tuple[Value, ...] = ()
        self.controls: tuple[Node, ...] = ()
        self.used_outputs: tuple[Value, ...] = ()  # those that somebody referred to so far

    @property
    def proto(self) -> NodeDef | None:
        """Its NodeDef as the file has it, None for an argument. It is for writers: all of the function is parsed."""
        return None if self.op == ARGUMENT else self.function.node_defs[self.position]

    def output(self, port: int) -> Value:
        """The value at a flat output port."""
        while port >= len(self.used_outputs):
            self.used_outputs += (Value(self, len(self.used_outputs)),)
        return self.used_outputs[port]

    def attr(self, name: str) -> Any:
        """The AttrValue of that name as the node or the op's definition has it, else None. Shared: do not change it."""
        return self.kind.attr(name)

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
        dtypes = self.kind.dtypes
        dtype = dtypes.get(port)
        if dtype is None:
            dtype = dtypes[port] = self._output_dtype(port)
        return dtype

    def _output_dtype(self, port: int) -> int:
        signature = self.kind.signature
        if signature is not None:
            return opdefs.output_dtype(signature, self.attr, port)
        callee = self.function.program.functions.get(self.op)
        if callee is not None and port < len(callee.results):
            return int(callee.head.signature.output_arg[port].type)
        return 0

    def __repr__(self) -> str:
        return f"<{self.op} {self.name}>"


class Function:
    """A FunctionDef or the top-level GraphDef, read once.

    `arguments` and `results` are empty for a graph. `nodes` are in the order of the file; `order()` is topological.
    `head` is the FunctionDef without its nodes; None for a graph.
    """

    def __init__(self, program: Program, source: Source, is_graph: bool = False) -> None:
        self.program = program
        self.is_graph = is_graph
        self.by_name: dict[str, Node] = {}
        self.arguments: list[Node] = []
        self.argument_dtypes: list[int] = []
        self.results: list[Value] = []
        self.nodes: list[Node] = []
        self._source = source
        self._order: list[Node] | None = None
        skimmed = (skim.Graph if is_graph else skim.Function).FromString(_serialized(source))
        self.head: Any = None
        self.name: str | None = None
        if not is_graph:
            self.head = skim.head(skimmed)
            self.name = str(self.head.signature.name)
        with collector_paused():
            self._read(skimmed.node)

    @cached_property
    def proto(self) -> Any:
        """The FunctionDef or GraphDef as the file has it, parsed when first asked for."""
        return (GraphDef if self.is_graph else FunctionDef).FromString(_serialized(self._source))

    @property
    def node_defs(self) -> Any:
        """The NodeDefs of `proto`, by position."""
        return self.proto.node if self.is_graph else self.proto.node_def

    def _read(self, protos: Any) -> None:
        kind = self.program.kind
        if self.head is not None:
            for i, arg in enumerate(self.head.signature.input_arg):
                if arg.number_attr or arg.type_list_attr:
                    raise TargetError(
                        f"function {self.name!r} has the list argument {arg.name!r}, which is not supported"
                    )
                self._add(self.arguments, Node(self, arg.name, kind(ARGUMENT), i))
                self.argument_dtypes.append(arg.type)
        ahead: list[tuple[Node, list[str]]] = []  # those that refer to nodes further on in the file
        for i, raw in enumerate(protos):
            proto = skim.Node.FromString(raw)
            node = Node(self, proto.name, kind(proto.op, *proto.attr), i)
            linked = self._link(node, proto.input)  # before it is added: who reads itself is in no order
            self._add(self.nodes, node)
            if not linked:
                ahead.append((node, list(proto.input)))
        if not ahead:
            self._order = self.nodes  # as TensorFlow writes most
        for node, references in ahead:
            if not self._link(node, references):
                for text in references:
                    self._node(text.removeprefix("^").partition(":")[0])
        if self.head is not None:
            ret = self.head.ret
            self.results = [self.value(ret[arg.name]) for arg in self.head.signature.output_arg]

    def _add(self, group: list[Node], node: Node) -> None:
        if self.by_name.setdefault(node.name, node) is not node:
            raise TargetError(f"two nodes of {self.label} bear the name {node.name!r}")
        group.append(node)

    def _link(self, node: Node, references: Iterable[str]) -> bool:
        """Sets what a node reads; False where some of it has not been read yet."""
        by_name = self.by_name
        inputs: list[Value] = []
        controls: list[Node] = []
        for text in references:
            name, _, rest = text.partition(":")
            before = by_name.get(name)
            if before is not None:
                inputs.append(before.output(self._flat(before, rest) if rest else 0))
            elif name[:1] == "^" and (before := by_name.get(name[1:])) is not None:
                controls.append(before)
            else:
                return False
        node.inputs = tuple(inputs)
        if controls:
            node.controls = tuple(controls)
        return True

    def _node(self, name: str) -> Node:
        node = self.by_name.get(name)
        if node is None:
            raise TargetError(f"{self.label} refers to the node {name!r}, which it does not have")
        return node

    def value(self, text: str) -> Value:
        """The value that an input string of this function (or graph) names."""
        name, _, rest = text.partition(":")
        node = self._node(name)
        return node.output(self._flat(node, rest) if rest else 0)

    def _flat(self, node: Node, text: str) -> int:
        """The flat port of what follows a node's name in an input string, worked out once for all of its kind."""
        ports = node.kind.ports
        port = ports.get(text)
        if port is None:
            port = ports[text] = self._port(node, text)
        return port

    def _port(self, node: Node, text: str) -> int:
        """The flat port that `arg:index` means in a function, `index` in a graph."""
        arg, _, number = text.rpartition(":")
        try:
            return self._index(node, arg, int(number))
        except (KeyError, ValueError) as problem:
            raise TargetError(
                f"{self.label} refers to `{node.name}:{text}`, which a {node.op} does not have; save the model again"
            ) from problem

    def _index(self, node: Node, arg: str, index: int) -> int:
        if not arg:
            return index
        signature = node.kind.signature
        if signature is not None:
            return opdefs.output_offset(signature, node.attr, arg) + index
        callee = self.program.functions.get(node.op)
        if callee is not None:
            return [a.name for a in callee.head.signature.output_arg].index(arg)
        return index  # an op that nobody here knows: its single output argument

    def reference(self, value: Value) -> str:
        """The string by which an input of this function (or graph) names a value: the inverse of `value`."""
        node = value.node
        if node.op == ARGUMENT:
            return node.name
        if self.is_graph:
            return f"{node.name}:{value.port}" if value.port else node.name
        signature = node.kind.signature
        if signature is not None:
            arg, index = opdefs.output_name(signature, node.attr, value.port)
            return f"{node.name}:{arg}:{index}"
        callee = self.program.functions.get(node.op)
        if callee is None:
            raise GradpassBug("program.graph", node.name, f"the outputs of the unknown op {node.op} have no names")
        return f"{node.name}:{callee.head.signature.output_arg[value.port].name}:0"

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


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps Python from looking for garbage where little arises: each look takes longer than the last."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _serialized(source: Source) -> bytes | memoryview:
    return source if isinstance(source, (bytes, memoryview)) else bytes(source.SerializeToString())


def _before(node: Node) -> Iterator[Node]:
    if node.op in BACK_EDGE:
        return iter(())
    if node.controls:
        return iter([*(v.node for v in node.inputs), *node.controls])
    return iter([v.node for v in node.inputs])


class CustomGradient(NamedTuple):
    """A gradient function that the SavedModel registers: takes one cotangent an output of the op.

    `widths` tells for each input of the op how many of the function's results are its gradient: none (0), a tensor, or
    the parts of IndexedSlices, the values first. `captures` names the functions of which it takes tensors, too, ""
    where it takes variables or constants.
    """

    function: str
    widths: tuple[int, ...]
    captures: frozenset[str] = frozenset()


class _Functions(dict[str, Function]):
    """Functions by name, each read when first asked for."""

    def __init__(self, program: Program, sources: dict[str, memoryview]) -> None:
        super().__init__()
        self._program = program
        self._sources = sources

    def __missing__(self, name: str) -> Function:
        try:
            function = self[name] = Function(self._program, self._sources[name])
        except DecodeError as problem:
            raise TargetError(f"function {name!r} is damaged; save the model again ({problem})") from problem
        return function

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._sources else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    @property
    def protos(self) -> dict[str, Any]:
        """The FunctionDefs by name, all of them parsed."""
        return {name: self[name].proto for name in self}


class Program:
    """The functions of a model and its top-level graph.

    `registered_gradients` maps the op type of a custom gradient to the function that computes it, as the file says;
    `custom_gradients` adds which of its results are None, which only an object graph knows; `function_gradients` maps a
    function to those that TensorFlow 1 declared for it. `tensorflow` is the version whose gradients are meant: the one
    that wrote the file (empty where it does not say), unless another is asked for. `origin` is the `Model.kind` that it
    is of: TensorFlow knows less of what it reads than of what it has traced.
    """

    def __init__(self, source: Source) -> None:
        library = skim.Library(_serialized(source))
        self.functions: _Functions = _Functions(self, {skim.name(raw): raw for raw in library.functions})
        gradients = map(RegisteredGradient.FromString, library.registered_gradients)
        self.registered_gradients: dict[str, str] = {g.registered_op_type: g.gradient_func for g in gradients}
        self.custom_gradients: dict[str, CustomGradient] = {}
        self.function_gradients: dict[str, list[str]] = {}
        for pair in map(GradientDef.FromString, library.gradients):
            self.function_gradients.setdefault(pair.function_name, []).append(pair.gradient_func)
        self.tensorflow = ""
        self.origin = ""
        self.given: dict[Value, Any] = {}  # arguments that always hold the same, as arrays: what a process captured
        self._source = source
        self._kinds: dict[tuple[str | bytes, ...], Kind] = {}

    @cached_property
    def graph(self) -> Function:
        """The top-level graph, read when first asked for."""
        return Function(self, self._source, is_graph=True)

    def kind(self, op: str, *attrs: bytes) -> Kind:
        """The kind of nodes with this op and these serialised attributes."""
        key: tuple[str | bytes, ...] = (op, *attrs)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(op, skim.attributes(attrs))
        return kind

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
                    # 0 is what an op gives that nobody here knows.
                    fits = (g in (0, taken) for g, taken in zip(given, callee.argument_dtypes, strict=False))
                    if len(given) != len(callee.argument_dtypes) or not all(fits):
                        raise TargetError(
                            f"call {node.name!r} gives {given}, {callee.label} takes {callee.argument_dtypes}"
                        )
                    if any(v.port >= len(callee.results) for v in node.used_outputs):
                        raise TargetError(f"call {node.name!r} is asked for a result that {callee.label} does not have")
        except TargetError as problem:
            raise GradpassBug("verify", None, f"{function.label}: {problem}") from problem
