"""A changed model: the bytes of its file with some functions changed or added, and what they say when read again."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tensorboard.compat.proto.function_pb2 import FunctionDef, GradientDef, RegisteredGradient
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.program import skim, wire
from gradpass.program.model import Model
from gradpass.program.savedmodel import (
    GRAPH_DEF,
    GRAPH_NODE,
    LIBRARY,
    LIBRARY_FUNCTION,
    LIBRARY_GRADIENTS,
    LIBRARY_REGISTERED_GRADIENTS,
    META_GRAPHS,
    OBJECT_GRAPH_DEF,
    parse,
)


def encode(
    model: Model,
    functions: list[FunctionDef],
    gradients: list[RegisteredGradient] | None = None,
    objects: SavedObjectGraph | None = None,
    graph: GraphDef | None = None,
    dropped: Collection[str] = (),
    change_meta: Callable[[bytes], bytes] = lambda meta: meta,
) -> bytes:
    """The file's bytes with these functions changed or added, the `dropped` ones gone with what registers them.

    All else stays byte for byte; of a `graph` that is given, only the nodes are taken. `change_meta` is for what else
    is in the MetaGraph.
    """
    by_name = {f.signature.name: f for f in functions}

    def change(_: int, payload: memoryview) -> bytes | None:
        new = by_name.pop(skim.name(payload), None)
        return None if new is None else new.SerializeToString(deterministic=True)

    def edit_library(payload: memoryview) -> bytes:
        # Known functions first: what is left in by_name afterwards is new.
        out = wire.edit(payload, LIBRARY_FUNCTION, change)
        out = wire.edit(
            out,
            LIBRARY_FUNCTION,
            lambda *_: None,
            [f.SerializeToString(deterministic=True) for f in by_name.values()],
        )
        if dropped:
            out = wire.without(out, LIBRARY_FUNCTION, lambda payload: skim.name(payload) in dropped)
            out = wire.without(
                out,
                LIBRARY_REGISTERED_GRADIENTS,
                lambda payload: RegisteredGradient.FromString(payload).gradient_func in dropped,
            )
            out = wire.without(
                out, LIBRARY_GRADIENTS, lambda payload: GradientDef.FromString(payload).function_name in dropped
            )
        added = [g.SerializeToString(deterministic=True) for g in gradients or []]
        return wire.edit(out, LIBRARY_REGISTERED_GRADIENTS, lambda *_: None, added)

    def edit_graph(payload: memoryview | bytes) -> bytes:
        if graph is not None:
            nodes = [node.SerializeToString(deterministic=True) for node in graph.node]
            payload = wire.edit(wire.without(payload, GRAPH_NODE, lambda _: True), GRAPH_NODE, lambda *_: None, nodes)
        return wire.edit_only(payload, LIBRARY, edit_library)

    if model.kind == "frozen":
        return edit_graph(model.raw)

    def edit_meta(index: int, payload: memoryview) -> bytes | None:
        if index != model.meta_index:
            return None
        out = wire.edit_only(payload, GRAPH_DEF, edit_graph)
        if objects is None:
            return change_meta(out)
        return change_meta(
            wire.edit_only(out, OBJECT_GRAPH_DEF, lambda _: objects.SerializeToString(deterministic=True))
        )

    return wire.edit(model.raw, META_GRAPHS, edit_meta)


def changed(
    model: Model,
    functions: list[FunctionDef],
    gradients: list[RegisteredGradient] | None = None,
    objects: SavedObjectGraph | None = None,
    graph: GraphDef | None = None,
    dropped: Collection[str] = (),
    change_meta: Callable[[bytes], bytes] = lambda meta: meta,
) -> Model:
    """A new model with these functions changed or added, verified; this one stays as it is, also on failure."""
    new = parse(model.path, encode(model, functions, gradients, objects, graph, dropped, change_meta))
    new.program.tensorflow = model.program.tensorflow
    if model.enter is not None:
        new.enter, new.live, new.captured = model.enter, model.live, model.captured
        new.entries = new.enter(new)
    if graph is not None:
        new.program.verify(new.program.graph)
    for function in functions:
        new.program.verify(new.program.function(function.signature.name))
    return new
