"""How a model saves and restores its variables: which key of the checkpoint belongs to which handle of the graph.

TensorFlow writes it into the file: a SaverDef names the nodes, which are ops of the graph (TensorFlow 1) or calls of
two functions (`__inference__traced_save`, `__inference__traced_restore`). A session and TensorFlow Serving run them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.util.tensor_util import make_ndarray, make_tensor_proto

from gradpass.errors import TargetError
from gradpass.program.graph import ARGUMENT, Function, Node, Program, Value

HANDLES = frozenset({"VarHandleOp", "Variable", "VariableV2"})
PUTS = frozenset({"AssignVariableOp", "Assign"})
PASSES = frozenset({"Identity", "ReadVariableOp", "Cast"})  # between a variable and the checkpoint
FIXED = 3  # inputs of SaveV2 before its tensors


class Row(NamedTuple):
    """One tensor of a SaveV2 or RestoreV2: its key, its place, and the handle of its variable in the top-level graph.

    `handle` is None where it is no variable's. `puts` are the nodes that put it into the variable.
    """

    node: Node
    place: int
    key: str
    handle: Node | None
    puts: tuple[Node, ...] = ()


class Saver:
    """The rows of a model's saver, as the graph has them."""

    def __init__(self, program: Program, meta: MetaGraphDef) -> None:
        self.program = program
        self._calls: dict[str, Node] = {}
        self.rows: list[Row] = []
        self.roots: list[Node] = []
        saver = meta.saver_def
        for name in (saver.filename_tensor_name, saver.save_tensor_name, saver.restore_op_name):
            node = program.graph.by_name.get(name.partition(":")[0]) if name else None
            if node is not None:
                self.roots.append(node)
        places = [program.graph]
        for root in self.roots:
            if root.callee is not None:
                self._calls[root.callee] = root
                places.append(program.function(root.callee))
        for function in places:
            self.rows += self._rows(function)

    def handles(self) -> dict[str, Node]:
        """The handle that each key is restored into."""
        return {row.key: row.handle for row in self.rows if row.node.op == "RestoreV2" and row.handle is not None}

    def _rows(self, function: Function) -> Iterator[Row]:
        readers: dict[Value, list[Node]] = {}
        for node in function.nodes:
            for value in node.inputs:
                readers.setdefault(value, []).append(node)
        for node in function.nodes:
            if node.op == "SaveV2":
                for i, key in enumerate(_keys(node, len(node.inputs) - FIXED)):
                    yield Row(node, i, key, self._handle(node.inputs[FIXED + i]))
            elif node.op == "RestoreV2":
                for i, key in enumerate(_keys(node, len(node.used_outputs))):
                    puts = tuple(_puts(node.output(i), readers))
                    handles = {self._handle(put.inputs[0]) for put in puts}
                    yield Row(node, i, key, handles.pop() if len(handles) == 1 else None, puts)

    def _handle(self, value: Value) -> Node | None:
        """The variable of the top-level graph that a value is read from, or the handle of."""
        while value.node.op in PASSES and value.node.inputs:
            value = value.node.inputs[0]
        if value.node.op == ARGUMENT:
            call = self._calls.get(str(value.node.function.name))
            return None if call is None else self._handle(call.inputs[value.node.position])
        return value.node if value.node.op in HANDLES and value.node.function.is_graph else None


def names_of(node: Node) -> list[str]:
    """The strings of a Const."""
    if node.op != "Const":
        raise TargetError(f"the saver of the model reads its names from {node.name!r}, which is no constant")
    return [text.decode() for text in _texts(node.attr("value"), node.name)]


def _texts(value: Any, name: str) -> list[bytes]:
    try:
        texts: list[bytes] = make_ndarray(value.tensor).ravel().tolist()
    except (AttributeError, ValueError) as problem:  # no value, or not as many as its shape says
        raise TargetError(f"the texts in {name!r}, by which the model is saved, are damaged") from problem
    return texts


def _keys(node: Node, tensors: int) -> list[str]:
    """The keys of a SaveV2 or RestoreV2, of which there must be as many as tensors."""
    names, dtypes = names_of(node.inputs[1].node), node.attr("dtypes")
    if dtypes is None or not len(names) == len(dtypes.list.type) >= tensors:
        raise TargetError(f"{node.name!r}, by which the model is saved, has {len(names)} names for {tensors} tensors")
    return names


def without(proto: FunctionDef | GraphDef, rows: list[Row], lost: set[str]) -> None:
    """Takes keys out of the SaveV2 and RestoreV2 nodes of a function or graph; what read or gave them is gone."""
    nodes = {node.name: node for node in (proto.node_def if isinstance(proto, FunctionDef) else proto.node)}
    by_node: dict[str, list[Row]] = {}
    for row in rows:
        by_node.setdefault(row.node.name, []).append(row)
    for name, mine in by_node.items():
        kept = [row.place for row in mine if row.key not in lost]
        if len(kept) == len(mine) or name not in nodes:
            continue
        node = mine[0].node
        for value in node.inputs[1:FIXED]:
            if sum(value in other.inputs for other in node.function.nodes) > 1:
                raise TargetError(
                    f"the names in {value.node.name!r} serve several ops of the saver; save the model again"
                )
            with_strings(nodes[value.node.name], kept)
        kept_types = [nodes[name].attr["dtypes"].list.type[i] for i in kept]
        nodes[name].attr["dtypes"].list.type[:] = kept_types
        if node.op == "RestoreV2":
            nodes[name].attr.pop("_output_shapes", None)
            _renumber(nodes.values(), name, {old: new for new, old in enumerate(kept)}, node.function.is_graph)


def _renumber(nodes: Iterable[NodeDef], name: str, places: dict[int, int], in_graph: bool) -> None:
    """Lets all readers of a RestoreV2 read its outputs where they are now."""
    for node in nodes:
        for i, text in enumerate(node.input):
            of, _, port = text.partition(":")
            if of == name:
                place = int(port.rpartition(":")[2] or 0)
                if place not in places:
                    raise TargetError(
                        f"{node.name!r} reads what {name!r} restores for a variable that nothing else needs"
                    )
                new = places[place]
                node.input[i] = f"{name}:{new}" if in_graph else f"{name}:tensors:{new}"


def with_strings(proto: NodeDef, kept: list[int]) -> None:
    """Leaves of a Const of strings what stands at these places."""
    texts = _texts(proto.attr["value"], proto.name)
    new: Any = make_tensor_proto(np.array([texts[i] for i in kept], dtype=object), shape=[len(kept)])
    proto.attr["value"].tensor.CopyFrom(new)
    proto.attr.pop("_output_shapes", None)


def _puts(value: Value, readers: dict[Value, list[Node]]) -> Iterator[Node]:
    for node in readers.get(value, ()):
        if node.op in PUTS:
            yield node
        elif node.op in PASSES:
            yield from _puts(node.output(0), readers)
