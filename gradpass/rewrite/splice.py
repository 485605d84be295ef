"""Edits of one function or of the top-level graph: nodes appended, consumers re-pointed.

Made on a copy of the protobuf and handed to `Model.changed` whole. The two formats differ in how an input is written
and in how a result is named: a function maps its results, a graph's outputs are found by node name, so that there the
hard node gives its name away.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from gradpass.program.graph import ARGUMENT, Function, Node, Value
from gradpass.rules.base import Decline


class Splice:
    """The edit of one FunctionDef. `added` names the new nodes, `repointed` counts what sees another value now."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.proto: FunctionDef | GraphDef = type(function.proto)()
        self.proto.CopyFrom(function.proto)
        self.names = set(function.by_name)
        self.references: dict[Value, str] = {}
        self.added: list[str] = []
        self.repointed = 0

    @property
    def nodes(self) -> Sequence[NodeDef]:
        """The NodeDefs of the copy."""
        return self.proto.node_def  # type: ignore[no-any-return]

    def fresh(self, name: str) -> str:
        """A node name that is still free, near to `name`."""
        candidate, serial = name, 0
        while candidate in self.names:
            serial += 1
            candidate = f"{name}_{serial}"
        self.names.add(candidate)
        return candidate

    def node(self, name: str, op: str, inputs: Sequence[str]) -> NodeDef:
        """A new node, to be filled with attributes."""
        proto: NodeDef = self.nodes.add()  # type: ignore[attr-defined]
        proto.name = self.fresh(name)
        proto.op = op
        proto.input.extend(inputs)
        self.added.append(proto.name)
        return proto

    def read(self, name: str, handle: str, dtype: int) -> str:
        """The value of a variable as a new node's output."""
        proto = self.node(name, "ReadVariableOp", [handle])
        proto.attr["dtype"].type = dtype
        return f"{proto.name}:value:0"

    def run(self, name: str, body: FunctionDef, inputs: Sequence[str], shape: TensorShapeProto | None) -> str:
        """Runs a function with one result on these inputs, by calling it; gives its result."""
        signature = body.signature
        proto = self.node(name, "PartitionedCall", inputs)
        proto.attr["f"].func.name = signature.name
        proto.attr["Tin"].list.type.extend(arg.type for arg in signature.input_arg)
        proto.attr["Tout"].list.type.extend(arg.type for arg in signature.output_arg)
        proto.attr["_output_shapes"].list.shape.add().CopyFrom(shape or TensorShapeProto(unknown_rank=True))
        return f"{proto.name}:output:0"

    def argument(self, name: str, dtype: int, shape: TensorShapeProto) -> str:
        """One more argument of the function; gives how its nodes refer to it."""
        assert isinstance(self.proto, FunctionDef)
        signature = self.proto.signature
        argument = signature.input_arg.add()
        argument.name, argument.type = self.fresh(name), dtype
        described = self.proto.arg_attr[len(signature.input_arg) - 1].attr
        described["_output_shapes"].list.shape.add().CopyFrom(shape)
        if "_input_shapes" in self.proto.attr:
            self.proto.attr["_input_shapes"].list.shape.add().CopyFrom(shape)
        self.added.append(argument.name)
        return str(argument.name)

    def result(self, name: str, dtype: int, text: str) -> None:
        """One more result of the function."""
        assert isinstance(self.proto, FunctionDef)
        taken = {result.name for result in self.proto.signature.output_arg}
        result = self.proto.signature.output_arg.add()
        result.name, result.type = name, dtype
        while result.name in taken:
            result.name += "_"
        self.proto.ret[result.name] = text

    def reference(self, value: Value) -> str:
        """How the function's nodes name a value, through what has been put behind it."""
        return self.references.get(value) or self.function.reference(value)

    def repoint(self, node: Node, index: int, text: str) -> None:
        """Lets one input of one node come from elsewhere."""
        self.nodes[node.position].input[index] = text
        self.repointed += 1

    def check_result(self, value: Value) -> None:
        """Declines where a result that is this value could not be re-pointed, before anything is put in."""

    def repoint_result(self, port: int, value: Value, text: str) -> None:
        """Lets one result come from elsewhere."""
        del value  # a function's results are found by port
        self.proto.ret[self.proto.signature.output_arg[port].name] = text
        self.repointed += 1


class GraphSplice(Splice):
    """The edit of a GraphDef: what a region needs stands beside its nodes, since TF1 differentiates no loaded call."""

    @property
    def nodes(self) -> Sequence[NodeDef]:
        return self.proto.node  # type: ignore[no-any-return]

    def read(self, name: str, handle: str, dtype: int) -> str:
        return super().read(name, handle, dtype).partition(":")[0]

    def run(self, name: str, body: FunctionDef, inputs: Sequence[str], shape: TensorShapeProto | None) -> str:
        """Puts the function's nodes into the graph under `name/` and gives the reference of its result."""
        del shape  # the nodes carry their own
        function = Function(self.function.program, body)
        given = dict(zip(function.arguments, inputs, strict=True))
        name = self.fresh(name)

        def moved(value: Value) -> str:
            if value.node.op == ARGUMENT:
                return given[value.node]
            return f"{name}/{value.node.name}" + (f":{value.port}" if value.port else "")

        for node in function.nodes:
            assert node.proto is not None
            controls = [f"^{name}/{c.name}" for c in node.controls if c.op != ARGUMENT]
            new = self.node(f"{name}/{node.name}", node.op, [*(moved(v) for v in node.inputs), *controls])
            for key, attr in node.proto.attr.items():
                new.attr[key].CopyFrom(attr)
        return moved(function.results[0])

    def check_result(self, value: Value) -> None:
        old = value.node
        if value.port or len(old.used_outputs) > 1:
            raise Decline(
                f"the output {old.name!r} is one of several of its node, which a graph cannot rename", old.name
            )

    def repoint_result(self, port: int, value: Value, text: str) -> None:
        """The hard node takes another name, and a new one takes its name: outputs of a graph are found by it."""
        del port
        old = value.node
        hard = self.fresh(f"{old.name}/gradpass/hard")
        for proto in self.nodes:
            for i, written in enumerate(proto.input):
                if written in (old.name, f"{old.name}:0"):
                    proto.input[i] = hard
                elif written == f"^{old.name}":
                    proto.input[i] = f"^{hard}"
        self.nodes[old.position].name = hard
        proto = self.nodes.add()  # type: ignore[attr-defined]
        proto.name, proto.op = old.name, "Identity"
        proto.input.append(text)
        proto.attr["T"].type = value.dtype
        self.added.append(proto.name)
        self.repointed += 1
