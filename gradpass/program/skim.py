"""Messages with TensorFlow's field numbers that stop at what a graph's structure needs: attributes stay bytes.

A NodeDef read in full takes three times the memory of its structure, most of it for attributes that are the same in
hundreds of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.program import wire

_PACKAGE = "gradpass"
_STRINGS = {"type": Field.TYPE_STRING, "label": Field.LABEL_REPEATED}
_BYTES = {"type": Field.TYPE_BYTES, "label": Field.LABEL_REPEATED}
_MESSAGES: dict[str, dict[str, dict[str, Any]]] = {
    "Node": {  # node_def.proto
        "name": {"number": 1, "type": Field.TYPE_STRING},
        "op": {"number": 2, "type": Field.TYPE_STRING},
        "input": {"number": 3, **_STRINGS},
        "attr": {"number": 5, **_BYTES},
    },
    "Function": {  # function.proto, FunctionDef
        "signature": {"number": 1, **_BYTES},
        "node": {"number": 3, **_BYTES},
        "ret": {"number": 4, **_BYTES},
        "arg_attr": {"number": 7, **_BYTES},
    },
    "Graph": {"node": {"number": 1, **_BYTES}},  # graph.proto
}


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="gradpass/skim.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, details in fields.items():
            message.field.add(name=field, **{"label": Field.LABEL_OPTIONAL, **details})
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_made = _classes()
Node, Function, Graph = _made["Node"], _made["Function"], _made["Graph"]


class Library:
    """The functions, their gradients and registered gradients of a serialised GraphDef, where they lie in its bytes."""

    def __init__(self, graph: bytes | memoryview) -> None:
        self.functions: list[memoryview] = []
        self.gradients: list[memoryview] = []
        self.registered_gradients: list[memoryview] = []
        found = {
            1: self.functions,
            2: self.gradients,
            3: self.registered_gradients,
        }  # function.proto, FunctionDefLibrary
        for library in payloads(graph, 2):  # graph.proto
            for part in wire.fields(library):
                if part.number in found:
                    found[part.number].append(library[part.payload : part.end])


def payloads(message: bytes | memoryview, number: int) -> list[memoryview]:
    """What stands in each length-delimited field of that number; nothing is copied."""
    view = memoryview(message)
    return [
        view[part.payload : part.end]
        for part in wire.fields(view)
        if part.number == number and part.wire_type == wire.LENGTH_DELIMITED
    ]


def head(function: Any) -> Any:
    """The FunctionDef of a skimmed function: its signature, results and attributes of arguments, without its nodes."""
    kept = ("signature", "ret", "arg_attr")
    numbers = {field: _MESSAGES["Function"][field]["number"] for field in kept}
    parts = [wire.delimited(number, entry) for field, number in numbers.items() for entry in getattr(function, field)]
    return FunctionDef.FromString(b"".join(parts))


def name(payload: bytes | memoryview) -> str:
    """The name of a serialised FunctionDef: signature (field 1), name (field 1)."""
    for part in wire.fields(payload):
        if part.number == 1 and part.wire_type == wire.LENGTH_DELIMITED:
            signature = payload[part.payload : part.end]
            for inner in wire.fields(signature):
                if inner.number == 1:
                    return bytes(signature[inner.payload : inner.end]).decode()
    return ""


def attributes(entries: Iterable[bytes]) -> dict[str, Any]:
    """The AttrValues by name of a skimmed node's `attr`."""
    number = _MESSAGES["Node"]["attr"]["number"]
    return dict(NodeDef.FromString(b"".join(wire.delimited(number, entry) for entry in entries)).attr)
