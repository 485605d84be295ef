"""What is dead in a SavedModel of TensorFlow 1: one graph, in which a session runs what it asks for by name."""

from __future__ import annotations

from collections.abc import Iterator

from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.variable_pb2 import VariableDef

from gradpass.program import wire
from gradpass.program.graph import Function, Value
from gradpass.program.model import Model
from gradpass.pruning.needs import Needs
from gradpass.pruning.saver import Row, Saver

COLLECTIONS = 4  # field of meta_graph.proto: map<string, CollectionDef>
KEY, VALUE = 1, 2  # fields of a map's entry
BYTES = 2  # field of CollectionDef: BytesList; its field 1 are the values
NAMES = ("variable_name", "initializer_name", "snapshot_name", "initial_value_name")


class Graph:
    """The dead variables of a TF1 SavedModel, by name, and its collections without them."""

    def __init__(self, model: Model, meta: MetaGraphDef, asked: list[Value]) -> None:
        self.model = model
        self.graph = model.program.graph
        self._definitions = {
            (name, raw): VariableDef.FromString(raw)
            for name, collection in meta.collection_def.items()
            if _of_variables(collection.bytes_list.value, self.graph)
            for raw in collection.bytes_list.value
        }
        contexts = [
            raw
            for name, collection in meta.collection_def.items()
            for raw in collection.bytes_list.value
            if (name, raw) not in self._definitions
        ]
        self.asked = [*asked, *(self.graph.value(name) for raw in contexts for name in _named(raw, self.graph))]
        keeper = Saver(model.program, meta)
        needs = Needs(model.program)
        needs.need(self.asked)
        dead = {name for name in model.variables if self.graph.by_name[name] not in needs.nodes}
        # A key may hold several parts of one variable, and a handle may be saved without being restored.
        stay = {row.key for row in keeper.rows if row.handle is None or row.handle.name not in dead}
        self.lost = {row.key for row in keeper.rows if row.key not in stay}
        saved = {row.handle.name for row in keeper.rows if row.handle is not None and row.key in stay}
        self.dead = dead - saved
        self.gone: list[Row] = [row for row in keeper.rows if row.key in self.lost]
        self.asked += list(self._needed_by_name())

    def _needed_by_name(self) -> Iterator[Value]:
        """What a session looks up by name when it imports the variables that stay."""
        for definition in self._definitions.values():
            if definition.variable_name.partition(":")[0] not in self.dead:
                for field in NAMES:
                    name = getattr(definition, field)
                    if name and name.partition(":")[0] in self.graph.by_name:
                        yield self.graph.value(name)

    def collections(self, meta: memoryview | bytes) -> bytes:
        """The MetaGraph without the dead variables in its collections."""
        doomed = {raw for (_, raw), v in self._definitions.items() if v.variable_name.partition(":")[0] in self.dead}

        def change(_: int, entry: memoryview) -> bytes | None:
            return wire.edit(entry, VALUE, lambda _, value: wire.edit(value, BYTES, trimmed))

        def trimmed(_: int, values: memoryview) -> bytes | None:
            return wire.without(values, 1, lambda raw: bytes(raw) in doomed)

        return wire.edit(meta, COLLECTIONS, change)


def _of_variables(values: list[bytes], graph: Function) -> bool:
    """Whether a collection is of variables: those of conditions and loops hold other messages."""
    if not values:
        return False
    try:
        names = [VariableDef.FromString(raw).variable_name for raw in values]
    except ValueError:  # DecodeError
        return False
    return all(graph.by_name.get(name.partition(":")[0]) is not None and name.endswith(":0") for name in names)


def _named(message: bytes | memoryview, graph: Function) -> Iterator[str]:
    """The nodes and values of the graph that a message names, at any depth."""
    view = memoryview(message)
    try:
        found = [view[f.payload : f.end] for f in wire.fields(view) if f.wire_type == wire.LENGTH_DELIMITED]
    except wire.WireError:  # a string is no message
        return
    for part in found:
        text = bytes(part).decode(errors="replace")
        if text.partition(":")[0] in graph.by_name:
            yield text
        else:
            yield from _named(part, graph)
