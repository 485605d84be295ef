"""Functions that no file has: copies that give more than the original, and backward functions, for `flow.second`.

They are of the same classes as what is read from a file, so that `flow.analysis` and `flow.blame` take them as they
are. What a node of a made-up op gives its inputs is said when the node is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tensorboard.compat.proto.attr_value_pb2 import AttrValue, NameAttrList
from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.op_def_pb2 import OpDef
from tensorboard.compat.proto.types_pb2 import DT_BOOL, DT_FLOAT, DT_RESOURCE, DT_VARIANT

from gradpass.errors import TargetError
from gradpass.flow import slices
from gradpass.flow.facts import BRANCHES, LOOPS, Facts, callees, facts, preset
from gradpass.flow.walk import CALLED, Context
from gradpass.program.graph import ARGUMENT, BACK_EDGE, CALLS, Function, Kind, Node, Program, Value, _Functions

Row = tuple[int, ...] | None
IDENTITY: Row = (0,)
ZEROS: Row = ()
LIST = DT_VARIANT


class _Made(_Functions):
    """Functions by name, without a file behind them."""

    def __init__(self, program: Program) -> None:
        super().__init__(program, {})

    def add(self, function: Function) -> None:
        assert function.name is not None
        self._sources[function.name] = memoryview(b"")
        self[function.name] = function


class Made(Program):
    """A program of functions made from those of another one."""

    def __init__(self, of: Program) -> None:
        super().__init__(b"")
        self.of = of
        self.made = self.functions = _Made(self)
        self.tensorflow = of.tensorflow
        self.origin = of.origin
        self.custom_gradients = of.custom_gradients
        self.names: dict[str, str | None] = {}  # of a copy or a backward function -> of the original
        self.nodes: dict[Node, Node] = {}  # original -> its last copy
        self.nodes_of: dict[Node, tuple[Node, str]] = {}  # a gradient's -> the op's, and what it lacks
        self.widths: dict[Function, tuple[int, int]] = {}  # how many arguments and results a copy has at first
        self._copies: dict[str, Function] = {}
        self._open: set[str | None] = set()

    def new(self, purpose: str, original: str | None) -> Function:
        """An empty function."""
        name = f"{purpose}{original or 'graph'}#{len(self.names)}"
        head = FunctionDef(signature=OpDef(name=name))
        function = Function(self, head.SerializeToString())
        self.names[name] = original
        self.made.add(function)
        return function

    def copy(self, name: str) -> Function:
        """The one copy of a function, which may be changed."""
        if name not in self._copies:
            self._copies[name] = self.fresh_copy(self.of.function(name))
        return self._copies[name]

    def fresh_copy(self, function: Function) -> Function:
        """A copy of a function and of all branches and loop bodies in it; what it calls is copied once."""
        if function.name in self._open:
            raise TargetError(f"{function.label} calls itself; --order 2 does not follow that, leave it out")
        self._open.add(function.name)
        copy = self.new("", function.name)
        copy.is_graph = function.is_graph
        if function.head is not None:
            copy.head = function.head  # it has the shapes of the arguments
        for argument in function.arguments:
            self._place(copy, argument, argument.kind)
        for node in function.nodes:
            if node.op in BACK_EDGE:
                raise TargetError(f"`{node.name}` closes a loop of TensorFlow 1; --order 2 does not follow those")
            self._place(copy, node, self._kind(node))
        for node in function.nodes:
            twin = self.nodes[node]
            twin.inputs = tuple(self.value(v) for v in node.inputs)
            twin.controls = tuple(self.nodes[c] for c in node.controls)
            for value in node.used_outputs:
                twin.output(value.port)
        copy.results = [self.value(v) for v in function.results]
        self.widths[copy] = len(copy.arguments), len(copy.results)
        self._open.discard(function.name)
        return copy

    def value(self, of: Value) -> Value:
        """The last copy of a value."""
        return self.nodes[of.node].output(of.port)

    def _place(self, function: Function, node: Node, kind: Kind) -> None:
        copy = Node(function, node.name, kind, node.position)
        self.nodes[node] = copy
        function.by_name[node.name] = copy
        if node.op == ARGUMENT:
            function.arguments.append(copy)
            function.argument_dtypes.append(node.output_dtype(0))
        else:
            function.nodes.append(copy)

    def _kind(self, node: Node) -> Kind:
        names = callees(node)
        if not names:
            facts(node)  # what must be asked of the original is kept with the kind, which the copy shares
            return node.kind
        private = node.op in LOOPS or node.op in BRANCHES
        copies = [self.fresh_copy(self.of.function(name)) if private else self.copy(name) for name in names]
        if node.op in LOOPS:
            copies.insert(0, self.fresh_copy(self.of.function(node.attr("cond").func.name)))
        kind = functional(node.op if private else "PartitionedCall", copies, node.kind.attrs)
        kind.dtypes.update({v.port: v.dtype for v in node.used_outputs})
        return kind


def functional(op: str, functions: Iterable[Function], attrs: dict[str, Any] | None = None) -> Kind:
    """The kind of a node that runs these functions; of a loop the condition comes first."""
    found = [NameAttrList(name=function.name) for function in functions]
    given = {**(attrs or {})}
    if op in CALLS:
        names = {"f": found[0]}
    elif op in LOOPS:
        names = {"cond": found[0], "body": found[1]}
    elif op in ("Case", "StatelessCase"):
        given["branches"] = AttrValue(list=AttrValue.ListValue(func=found))
        names = {}
    else:
        names = {"then_branch": found[0], "else_branch": found[1]}
    return Kind(op, {**given, **{name: AttrValue(func=function) for name, function in names.items()}})


def condition(program: Made, dtypes: Iterable[int]) -> Function:
    """The condition of a loop over variables of these dtypes, which depends on none of them."""
    function = program.new("condition", None)
    for i, dtype in enumerate(dtypes):
        argument(function, f"variable_{i}", dtype)
    function.results.append(constant(function, DT_BOOL))
    return function


def add(function: Function, name: str, kind: Kind, inputs: Iterable[Value]) -> Node:
    """Puts a node behind all others."""
    node = Node(function, name, kind, len(function.nodes))
    node.inputs = tuple(inputs)
    function.nodes.append(node)
    function._order = None
    return node


def argument(function: Function, name: str, dtype: int) -> Value:
    """Gives a function one more argument."""
    node = Node(function, name, Kind(ARGUMENT, {}), len(function.arguments))
    function.arguments.append(node)
    function.argument_dtypes.append(dtype)
    return node.output(0)


def node(
    function: Function, op: str, name: str, inputs: list[Value], rows: list[Row], dtypes: list[int], cut: bool = False
) -> Node:
    """Puts a node of a made-up op behind all others; `rows` are its gradient facts, `cut` says that it has none."""
    kind = Kind(op, {})
    kind.dtypes.update(enumerate(dtypes))
    preset(kind, function.program, len(inputs), Facts(not cut, tuple(rows)))
    kind.derived[slices.row] = None
    return add(function, name, kind, inputs)


def constant(function: Function, dtype: int) -> Value:
    """A value that depends on nothing."""
    return node(function, "Const", "zeros", [], [], [dtype]).output(0)


def cotangent_dtype(value: Value) -> int:
    """The dtype of a gradient with respect to a value: of a variable it is a float."""
    return DT_FLOAT if value.dtype == DT_RESOURCE else value.dtype


class Cotangent(NamedTuple):
    """A gradient of order 1, as a value of the graph that computes it; `flows` says that it is more than zeros."""

    value: Value
    flows: bool


@dataclass
class Backward:
    """A backward function: the values that it reads of the forward function, and what it gives each argument.

    Its arguments are the cotangents that it is given, in order, then the captured values. `given` has for each argument
    of the forward function whether there is a gradient (its index among the results), and whether it flows.
    """

    function: Function
    captured: list[Value]
    given: list[tuple[int, bool] | None]


@dataclass
class Scope:
    """Where gradients of the nodes of `forward` are being written, and how the values of `forward` get there.

    `into` is `forward` itself or a backward function of its own; `loop` says that this is the body of a loop, whose
    values are kept in lists.
    """

    forward: Function
    into: Function
    loop: bool = False
    context: Context = CALLED
    captured: dict[Value, Value] = field(default_factory=dict)
    lists: dict[Value, Value] = field(default_factory=dict)  # captured -> the list without its last value

    def read(self, value: Value) -> Value:
        """A value of `forward` in `into`."""
        if self.into is self.forward:
            return value
        known = self.captured.get(value)
        if known is None:
            kept = self.loop and not invariant(self.forward, value)
            known = argument(self.into, f"captured_{len(self.captured)}", LIST if kept else value.dtype)
            if kept:
                pop = node(self.into, "TensorListPopBack", value.node.name, [known], [(0, 1)], [LIST, value.dtype])
                self.lists[value], known = pop.output(0), pop.output(1)
            self.captured[value] = known
        return known


def invariant(body: Function, value: Value) -> bool:
    """Whether a value is a variable of the loop that its body hands on unchanged."""
    place = value.node.position
    return value.node.op == ARGUMENT and place < len(body.results) and body.results[place] == value
