"""Edits of one function: new nodes appended, consumers re-pointed. Made on a copy, handed to `Program.commit` whole."""

from __future__ import annotations

from collections.abc import Sequence

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from gradpass.program.graph import Function, Node, Value


class Splice:
    """The edit of one function. `added` and `repointed` count what changed."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.proto = FunctionDef()
        self.proto.CopyFrom(function.proto)
        self.names = set(function.by_name)
        self.references: dict[Value, str] = {}
        self.added: list[str] = []
        self.repointed = 0

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
        proto: NodeDef = self.proto.node_def.add()
        proto.name = self.fresh(name)
        proto.op = op
        proto.input.extend(inputs)
        self.added.append(proto.name)
        return proto

    def call(
        self,
        name: str,
        callee: str,
        inputs: Sequence[tuple[str, int]],
        outputs: Sequence[tuple[int, TensorShapeProto | None]],
    ) -> str:
        """A call of a function of the library; gives the node's name. Inputs and outputs come with their dtypes."""
        proto = self.node(name, "PartitionedCall", [text for text, _ in inputs])
        proto.attr["f"].func.name = callee
        proto.attr["Tin"].list.type.extend(dtype for _, dtype in inputs)
        proto.attr["Tout"].list.type.extend(dtype for dtype, _ in outputs)
        shapes = proto.attr["_output_shapes"].list.shape
        for _, shape in outputs:
            shapes.add().CopyFrom(shape if shape is not None else TensorShapeProto(unknown_rank=True))
        return str(proto.name)

    def reference(self, value: Value) -> str:
        """How the function's nodes name a value, through what has been put behind it."""
        return self.references.get(value) or self.function.reference(value)

    def repoint(self, node: Node, index: int, text: str) -> None:
        """Lets one input of one node come from elsewhere."""
        self.proto.node_def[node.position].input[index] = text
        self.repointed += 1

    def repoint_result(self, port: int, text: str) -> None:
        """Lets one result of the function come from elsewhere."""
        self.proto.ret[self.proto.signature.output_arg[port].name] = text
        self.repointed += 1
