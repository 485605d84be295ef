"""Loads a model for its signatures alone, whatever Python classes it was saved with.

`tf.saved_model.load` revives the objects of a SavedModel: optimizers with their slots, lists, whatever registered
itself. That fails where the classes are missing or do not fit, and a signature needs none of it. So a neutral copy is
loaded: the same graph and variables, all objects plain. Custom gradients, tables and assets stay.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.function_pb2 import RegisteredGradient
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.crosscheck.check import Disagreement
from gradpass.program import savedmodel, wire
from gradpass.program.writer import GRAPH_FILE, link_tree

PLAIN = "_generic_user_object"
SIGNATURES = "signature_map"


@dataclass
class Signature:
    """One entry, ready to be called: inputs as TensorSpecs by name, the outputs' names, and the variables it uses."""

    inputs: dict[str, Any]
    outputs: list[str]
    variables: list[Any]
    call: Callable[[dict[str, Any]], dict[str, Any]]

    def without(self, outputs: Collection[str]) -> Signature:
        """The same entry, some of its outputs left out."""
        kept = [name for name in self.outputs if name not in outputs]

        def call(inputs: dict[str, Any]) -> dict[str, Any]:
            given = self.call(inputs)
            return {name: given[name] for name in kept}

        return replace(self, outputs=kept, call=call)


@dataclass
class Loaded:
    """A model in TensorFlow. `root` leads to its variables by the paths of its object graph; `folder` is its copy."""

    signatures: dict[str, Signature]
    root: Any
    folder: tempfile.TemporaryDirectory[str] | None

    def signature(self, entry: str, whose: str) -> Signature:
        """The entry of that name; Disagreement says that this model (`whose` it is) has none."""
        if entry not in self.signatures:
            raise Disagreement(f"the {whose} has no entry {entry!r}; it has {', '.join(self.signatures) or 'none'}")
        return self.signatures[entry]


def load_plain(path: Path) -> Loaded:
    """Loads a SavedModel folder or a frozen `.pb` without reviving any Python object of the user's."""
    if path.is_dir():
        return load_bytes(path, None)
    return _load_frozen(path)


def load_bytes(path: Path, pb: bytes | None) -> Loaded:
    """Loads a SavedModel folder; with `pb`, that in the place of its saved_model.pb."""
    import tensorflow as tf

    # Kept as long as the model: a graph may open its assets when it runs.
    folder = tempfile.TemporaryDirectory(prefix="gradpass-", ignore_cleanup_errors=True)
    partial = neutral_copy(path, Path(folder.name), pb)
    # The checkpoint keeps the values of slots that the neutral copy lacks; TensorFlow would warn of each.
    root = tf.saved_model.load(folder.name, options=tf.saved_model.LoadOptions(allow_partial_checkpoint=partial))
    return Loaded({name: _signature(function) for name, function in root.signatures.items()}, root, folder)


def _signature(function: Any) -> Signature:
    _, specs = function.structured_input_signature
    outputs = list(function.structured_outputs)
    return Signature(specs, outputs, list(function.variables), lambda inputs: dict(function(**inputs)))


def _load_frozen(path: Path) -> Loaded:
    import tensorflow as tf

    model = savedmodel.read(path)
    graph_def = tf.compat.v1.GraphDef.FromString(model.raw)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
    signatures = {}
    for name, entry in model.entries.items():
        feeds = [wrapped.graph.get_tensor_by_name(str(value)) for value in entry.inputs.values()]
        fetches = [wrapped.graph.get_tensor_by_name(str(value)) for value in entry.outputs.values()]
        signatures[name] = _frozen_signature(
            wrapped.prune(feeds, fetches), list(entry.inputs), feeds, list(entry.outputs)
        )
    return Loaded(signatures, wrapped, None)


def _frozen_signature(function: Any, names: list[str], feeds: list[Any], outputs: list[str]) -> Signature:
    import tensorflow as tf

    specs = {name: tf.TensorSpec(feed.shape, feed.dtype, name) for name, feed in zip(names, feeds, strict=True)}

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(outputs, function(*(inputs[name] for name in names)), strict=True))

    return Signature(specs, outputs, [], call)


def neutral_copy(source: Path, target: Path, pb: bytes | None = None) -> bool:
    """Fills `target` with the SavedModel `source`, its objects neutral, all its other files as they are.

    With `pb` that stands in the place of its saved_model.pb. Tells whether values of the checkpoint (slots of
    optimizers) have lost their place in it.
    """
    for entry in source.iterdir():
        if entry.name == GRAPH_FILE:
            continue
        try:
            os.symlink(entry.resolve(), target / entry.name, target_is_directory=entry.is_dir())
        except OSError:  # some systems keep symbolic links to themselves; the files are the same this way
            link_tree(source, target, leave_out=frozenset({GRAPH_FILE, *(p.name for p in target.iterdir())}))
            break

    slots = False

    def neutral_objects(objects: memoryview, gradients: set[str]) -> bytes:
        nonlocal slots
        graph = SavedObjectGraph.FromString(bytes(objects))
        slots = slots or any(node.slot_variables for node in graph.nodes)
        make_neutral(graph, gradients)
        return bytes(graph.SerializeToString(deterministic=True))

    def neutral_meta(_: int, meta: memoryview) -> bytes | None:
        if not any(f.number == savedmodel.OBJECT_GRAPH_DEF for f in wire.fields(meta)):
            return None  # TensorFlow 1: there are no objects
        gradients = _gradient_functions(meta)
        return wire.edit_only(meta, savedmodel.OBJECT_GRAPH_DEF, lambda objects: neutral_objects(objects, gradients))

    pb = (source / GRAPH_FILE).read_bytes() if pb is None else pb
    (target / GRAPH_FILE).write_bytes(wire.edit(pb, savedmodel.META_GRAPHS, neutral_meta))
    return slots


def make_neutral(graph: SavedObjectGraph, gradients: set[str]) -> None:
    """Leaves nothing to revive: plain objects, and only the functions that signatures, resources and gradients need."""
    needed = _needed_functions(graph)
    kept = set(gradients)
    for i, node in enumerate(graph.nodes):
        del node.slot_variables[:]
        kind = node.WhichOneof("kind")
        if kind == "user_object" and node.user_object.identifier != SIGNATURES:
            _make_plain(node)
        elif kind == "function":
            if i in needed:
                kept.update(node.function.concrete_functions)
            else:
                _make_plain(node)
        elif kind == "bare_concrete_function":
            kept.add(node.bare_concrete_function.concrete_function_name)
        elif kind == "captured_tensor":
            kept.add(node.captured_tensor.concrete_function)
    for name in set(graph.concrete_functions) - kept:
        del graph.concrete_functions[name]


def _make_plain(node: Any) -> None:
    node.registered_name = ""
    node.ClearField("serialized_user_proto")
    node.user_object.Clear()
    node.user_object.identifier = PLAIN
    node.user_object.version.producer = 1
    node.user_object.version.min_consumer = 1


def _needed_functions(graph: SavedObjectGraph) -> set[int]:
    """Object nodes of the functions that are called for their own sake: a resource makes and fills itself with them."""
    needed: set[int] = set()
    for node in graph.nodes:
        kind = node.WhichOneof("kind")
        if kind == "resource" or (kind == "user_object" and node.user_object.identifier == SIGNATURES):
            needed.update(child.node_id for child in node.children)
        for saveable in node.saveable_objects.values():
            needed |= {saveable.save_function, saveable.restore_function}
    return needed


def _gradient_functions(meta: memoryview) -> set[str]:
    """The names of the functions that the SavedModel registers as custom gradients."""
    names = set()
    for number in (savedmodel.GRAPH_DEF, savedmodel.LIBRARY):
        meta = next((meta[f.payload : f.end] for f in wire.fields(meta) if f.number == number), memoryview(b""))
    for field in wire.fields(meta):
        if field.number == savedmodel.LIBRARY_REGISTERED_GRADIENTS:
            names.add(RegisteredGradient.FromString(bytes(meta[field.payload : field.end])).gradient_func)
    return names
