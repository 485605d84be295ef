"""Gradients that only this process knows: those that the user gave to `tf.RegisterGradient` or `tf.custom_gradient`.

TensorFlow is asked only where it is loaded already; a check of a model on disk does not import it. A gradient function
is probed as `scripts/probe_edges.py` probes TensorFlow's own: it is called once on symbolic inputs, and what it answers
is followed back to the cotangents.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.types_pb2 import DT_VARIANT

from gradpass.program.graph import Node, Value

if TYPE_CHECKING:
    import tensorflow as tf

Rows = tuple["tuple[int, ...] | None", ...]  # by flat input: None, or the flat outputs whose cotangent reaches it

# The names that tf.custom_gradient makes up. A file's are of the process that wrote it; one of the same name here is
# another function.
GENERATED = re.compile(r"CustomGradient-\d+")


class Answer(NamedTuple):
    """What a registered gradient answers: rows, or None where it is marked not differentiable; or what it raised."""

    rows: Rows | None
    error: str | None = None


def answer(node: Node, shapes: Callable[[Value], Any], live: bool) -> Answer | None:
    """What the gradient that this process has for a node answers; None where it has none.

    `shapes` gives the shape that is recorded of an input, or None. `live` tells whether the node was traced in this
    process, so that a made-up name means the function that it meant then.
    """
    if "tensorflow" not in sys.modules:
        return None
    custom = node.attr("_gradient_op_type")
    name = custom.s.decode() if custom is not None and custom.s else node.op
    if GENERATED.fullmatch(name) and not live:
        return None
    try:
        function = _lookup(name)
    except LookupError:
        return None
    return Answer(None) if function is None else _probe(node, function, shapes)


def _lookup(name: str) -> Any:
    # TensorFlow's public API registers gradients and looks none up. The registry has been here, under this name, since
    # TensorFlow 2.2 at the latest; a test fails when it moves.
    from tensorflow.python.framework import ops

    return ops.gradient_registry.lookup(name)


def _probe(node: Node, function: Any, shapes: Callable[[Value], Any]) -> Answer:
    """Calls a gradient function on a copy of the node whose inputs are placeholders."""
    import tensorflow as tf

    found: list[Answer] = []

    def trace() -> None:
        copy = _copy(node, shapes)
        marks = [tf.identity(y) if y.dtype == tf.variant else tf.compat.v1.placeholder(y.dtype, y.shape)
                 for y in copy.outputs]  # fmt: skip
        try:
            result = function(copy, *marks)
        except Exception as problem:  # whatever the user's function raises is the answer: TensorFlow's user sees it too
            found.append(Answer(None, f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"))
            return
        gradients = list(result) if isinstance(result, (list, tuple)) else [result]
        if len(gradients) != len(node.inputs):
            found.append(Answer(None, f"ValueError: {len(gradients)} gradients for {len(node.inputs)} inputs"))
            return
        places = {mark.ref(): i for i, mark in enumerate(marks)}
        found.append(Answer(tuple(_reached(gradient, places) for gradient in gradients)))

    # A traced function, not a plain graph: a custom gradient captures what its own function computed before.
    tf.function(trace, autograph=False).get_concrete_function()
    return found[-1]


def _copy(node: Node, shapes: Callable[[Value], Any]) -> tf.Operation:
    """The node in the current graph, on placeholders."""
    import tensorflow as tf

    graph = GraphDef()
    for i, value in enumerate(node.inputs):
        given = graph.node.add(name=f"input_{i}", op="Placeholder")
        given.attr["dtype"].type = value.dtype
        shape = shapes(value)
        if value.dtype == DT_VARIANT or shape is None:
            given.attr["shape"].shape.unknown_rank = True
        else:
            given.attr["shape"].shape.CopyFrom(shape)
    assert node.proto is not None
    copy = graph.node.add()
    copy.CopyFrom(node.proto)
    copy.name = "asked"
    del copy.input[:]
    copy.input.extend(f"input_{i}" for i in range(len(node.inputs)))
    for attr in ("_output_shapes", "_gradient_op_type", "_class"):  # what does not hold here, or is known already
        copy.attr.pop(attr, None)
    plain = tf.compat.v1.GraphDef.FromString(graph.SerializeToString())
    (made,) = tf.graph_util.import_graph_def(plain, return_elements=["asked"], name="gradpass")
    return made


def _reached(gradient: Any, places: dict[Any, int]) -> tuple[int, ...] | None:
    """The outputs whose cotangent a gradient is computed from; None where there is none."""
    import tensorflow as tf

    from gradpass.flow.facts import SHAPE_ONLY

    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        gradient = gradient.values
    todo = [gradient]
    seen = {gradient.ref()}
    found = set()
    while todo:
        value = todo.pop()
        if value.ref() in places:
            found.add(places[value.ref()])
        if value.op.type in SHAPE_ONLY:
            continue
        for source in value.op.inputs:
            if source.ref() not in seen:
                seen.add(source.ref())
                todo.append(source)
    return tuple(sorted(found))
