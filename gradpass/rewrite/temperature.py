"""The temperature of a written model: found again by its name, set to another value, bound to a variable.

In a file it is a constant in every function of a carrier, so that the model is whole without gradpass. For training it
is to be a variable. The function that holds the constant gets the variable as one more input, and so do its callers,
through calls, branches and loops, up to the functions of the object graph, whose captured inputs are bound to objects.
A bridge's gradient captures its value from the bridge: TensorFlow does not let the backward pass of a loop capture a
variable that the loop itself does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.util import tensor_util

from gradpass.errors import GradpassError
from gradpass.program.model import Model

NAME = "gradpass_temperature"
NAMED = re.compile(rf"(^|/){NAME}(_\d+)?$")
FLOAT, DOUBLE, RESOURCE = 1, 2, 20  # types.proto

# Ops whose functions take their inputs one by one, with what each is once it reads a variable.
STATEFUL = {
    "PartitionedCall": "StatefulPartitionedCall",
    "StatelessIf": "If",
    "StatelessCase": "Case",
    "StatelessWhile": "While",
}
CALLERS = frozenset({*STATEFUL, *STATEFUL.values()})


def is_temperature(node: NodeDef) -> bool:
    """Whether a node is the temperature of a carrier, in its function or inlined into another."""
    return node.op == "Const" and NAMED.search(node.name) is not None


def found(model: Model) -> dict[str, float]:
    """The temperatures in a model's functions, by function and node."""
    return {
        f"{name}/{node.name}": float(tensor_util.make_ndarray(node.attr["value"].tensor))
        for name, function in functions(model).items()
        for node in function.node_def
        if is_temperature(node)
    }


def functions(model: Model) -> dict[str, FunctionDef]:
    """The functions of a model that hold a temperature, in copies."""
    held: dict[str, FunctionDef] = {}
    for name in model.program.functions:
        proto = model.program.functions[name].proto
        if any(is_temperature(node) for node in proto.node_def):
            held[name] = FunctionDef()
            held[name].CopyFrom(proto)
    return held


def changed(model: Model, temperature: float) -> list[FunctionDef]:
    """The functions that hold a temperature, with this one."""
    made = list(functions(model).values())
    for function in made:
        for node in filter(is_temperature, function.node_def):
            dtype = node.attr["dtype"].type
            tensor = TensorProto(dtype=dtype)
            tensor.tensor_shape.SetInParent()
            (tensor.double_val if dtype == DOUBLE else tensor.float_val).append(temperature)
            node.attr["value"].tensor.CopyFrom(tensor)
    return made


class Binding:
    """The edit that lets the functions of a model read their temperature from a variable.

    `functions` are those that change, `objects` the object graph with the variable: a node that no other leads to, so
    that the checkpoint need not hold it. `dtype` is the variable's.
    """

    def __init__(self, model: Model, variable: str) -> None:
        assert model.objects is not None
        self.model = model
        self.objects = SavedObjectGraph()
        self.objects.CopyFrom(model.objects)
        self.node = len(self.objects.nodes)
        self.functions: dict[str, FunctionDef] = {}
        self.handle: dict[str, str] = {}
        held = functions(model)
        self.dtype = max(n.attr["dtype"].type for f in held.values() for n in f.node_def if is_temperature(n))
        self._data = FunctionDef().signature.input_arg.add().handle_data.add(dtype=self.dtype)
        self._data.shape.SetInParent()
        proto = self.objects.nodes.add().variable
        proto.dtype, proto.name = self.dtype, variable
        proto.shape.SetInParent()
        self._callers = _callers(model)
        self._pending: list[str] = []  # functions that are to take the variable
        for name in held:
            bridge = self._bridge(name)
            if bridge is None:
                self._pending.append(name)
            else:
                self._capture(name, bridge)
        while self._pending:
            self._give(self._pending.pop())

    def _function(self, name: str) -> FunctionDef:
        """The copy of a function that is changed."""
        if name not in self.functions:
            self.functions[name] = FunctionDef()
            self.functions[name].CopyFrom(self.model.program.functions[name].proto)
        return self.functions[name]

    def _bridge(self, name: str) -> str | None:
        """The function from which a gradient function captures tensors; None for any other function."""
        described = self.objects.concrete_functions
        for node in described[name].bound_inputs if name in described else ():
            if self.objects.nodes[node].WhichOneof("kind") == "captured_tensor":
                return str(self.objects.nodes[node].captured_tensor.concrete_function)
        return None

    def _capture(self, name: str, bridge: str) -> None:
        """Lets a gradient function take each of its constants from a read in its bridge."""
        function = self._function(name)
        self._give(bridge)
        for node in [node for node in function.node_def if is_temperature(node)]:
            argument = _argument(function, f"{NAME}_captured", node.attr["dtype"].type)
            dtype = node.attr["dtype"].type
            _stopped(node, node.name, argument, dtype)
            giver = self.functions[bridge].node_def.add(name=_fresh(self.functions[bridge], NAME))
            self._read(self.functions[bridge], giver, self.handle[bridge], dtype)
            self.objects.concrete_functions[name].bound_inputs.append(len(self.objects.nodes))
            captured = self.objects.nodes.add().captured_tensor
            captured.name, captured.concrete_function = f"{giver.name}:0", bridge

    def _give(self, name: str) -> None:
        """One more input for a function: the variable. Its constants become reads of it, and its callers hand it on."""
        if name in self.handle:
            return
        function = self._function(name)
        self.handle[name] = _argument(function, f"{NAME}_handle", RESOURCE)
        function.signature.input_arg[-1].handle_data.add().CopyFrom(self._data)
        function.signature.is_stateful = True
        for node in [node for node in function.node_def if is_temperature(node)]:
            self._read(function, node, self.handle[name], node.attr["dtype"].type)
        assert self.model.objects is not None
        if name in self.model.objects.concrete_functions:
            self.objects.concrete_functions[name].bound_inputs.append(self.node)
        for caller, position in self._callers.get(name, ()):
            self._give(caller)
            self._hand_on(self.functions[caller], position, name)

    def _read(self, function: FunctionDef, node: NodeDef, handle: str, dtype: int) -> None:
        """The value of the variable under a node's name, its shape known and no gradient asked for it."""
        name, text = node.name, handle
        steps = [("ReadVariableOp", "dtype", "value")]
        if dtype != self.dtype:
            steps.append(("Cast", "SrcT", "y"))
        steps.append(("EnsureShape", "T", "output"))
        for op, attribute, output in steps:
            made = function.node_def.add(op=op, name=_fresh(function, f"{name}/{op}"), input=[text])
            made.attr[attribute].type = dtype if op == "EnsureShape" else self.dtype
            if op == "Cast":
                made.attr["DstT"].type = dtype
            if op == "EnsureShape":
                made.attr["shape"].shape.SetInParent()
            text = f"{made.name}:{output}:0"
        _stopped(node, name, text, dtype)

    def _hand_on(self, function: FunctionDef, position: int, callee: str) -> None:
        """One more input for a node that calls functions, all of which then take it; a loop gives it out again."""
        node = function.node_def[position]
        handle = self.handle[function.signature.name]
        if handle in node.input:
            return
        if node.op != callee and node.op not in CALLERS:
            raise GradpassError(
                f"the {node.op} {node.name!r} runs a function that holds a temperature, and an input cannot be added "
                "to it; load the model with tf.saved_model.load, where the temperature stays as it is"
            )
        data = [text for text in node.input if not text.startswith("^")]
        node.input.insert(len(data), handle)
        node.op = STATEFUL.get(node.op, node.op)
        for attribute in ("Tin", "T"):
            if attribute in node.attr:
                node.attr[attribute].list.type.append(RESOURCE)
        if node.op == "While":
            self._carry(node)
        self._pending += _called(node)

    def _carry(self, node: NodeDef) -> None:
        for attribute in ("output_shapes", "_output_shapes"):
            if attribute in node.attr and node.attr[attribute].list.shape:
                node.attr[attribute].list.shape.add()
        if "_num_original_outputs" in node.attr:
            node.attr["_num_original_outputs"].i += 1
        body = node.attr["body"].func.name
        self._give(body)
        function = self.functions[body]
        result = function.signature.output_arg.add()
        result.name = _fresh(function, f"{NAME}_again")
        result.type = RESOURCE
        result.handle_data.add().CopyFrom(self._data)
        function.ret[result.name] = self.handle[body]


def _callers(model: Model) -> dict[str, list[tuple[str, int]]]:
    """Function -> the functions that run it, each with the position of the node that does."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for name in model.program.functions:
        for position, node in enumerate(model.program.functions[name].proto.node_def):
            for callee in dict.fromkeys(_called(node)):
                callers.setdefault(callee, []).append((name, position))
            if node.op in model.program.functions:
                callers.setdefault(node.op, []).append((name, position))
    return callers


def _called(node: NodeDef) -> Iterator[str]:
    """The functions that a node names."""
    for value in node.attr.values():
        if value.WhichOneof("value") == "func":
            yield value.func.name
        for function in value.list.func:
            yield function.name


def _argument(function: FunctionDef, name: str, dtype: int) -> str:
    """One more argument of a function."""
    argument = function.signature.input_arg.add()
    argument.name, argument.type = _fresh(function, name), dtype
    if "_input_shapes" in function.attr:
        function.attr["_input_shapes"].list.shape.add()
    return str(argument.name)


def _stopped(node: NodeDef, name: str, text: str, dtype: int) -> None:
    """Makes a node one that gives a value without a gradient."""
    node.Clear()
    node.op, node.name = "StopGradient", name
    node.input.append(text)
    node.attr["T"].type = dtype


def _fresh(function: FunctionDef, name: str) -> str:
    signature = function.signature
    taken: set[Any] = {node.name for node in function.node_def}
    taken |= {argument.name for argument in (*signature.input_arg, *signature.output_arg)}
    candidate, serial = name, 0
    while candidate in taken:
        serial += 1
        candidate = f"{name}_{serial}"
    return candidate
