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

from gradpass.flow.shapes import SHAPE_ONLY
from gradpass.program.graph import Node, Value

if TYPE_CHECKING:
    import tensorflow as tf

Rows = tuple["tuple[int, ...] | None", ...]  # by flat input: None, or the flat outputs whose cotangent reaches it

# The names that tf.custom_gradient makes up. A file's are of the process that wrote it; one of the same name here is
# another function.
GENERATED = re.compile(r"CustomGradient-\d+")


class Answer(NamedTuple):
    """What a registered gradient answers: rows, or None where it is marked not differentiable; or what it raised.

    `slices` are the inputs whose gradient is tf.IndexedSlices, `nested` those of which the values are so, too.
    `captures` names the functions of which the gradient function takes tensors, "" where it takes eager ones.
    """

    rows: Rows | None
    error: str | None = None
    slices: frozenset[int] = frozenset()
    nested: frozenset[int] = frozenset()
    captures: frozenset[str] = frozenset()


def answer(
    node: Node, shapes: Callable[[Value], Any], live: bool, slices: frozenset[int] = frozenset()
) -> Answer | None:
    """What the gradient that this process has for a node answers; None where it has none.

    `shapes` gives the shape that is recorded of an input, or None. `live` tells whether the node was traced in this
    process, so that a made-up name means the function that it meant then. `slices` are the outputs whose cotangent is
    to be tf.IndexedSlices.
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
    return Answer(None) if function is None else _probe(node, function, shapes, slices)


def _lookup(name: str) -> Any:
    # TensorFlow's public API registers gradients and looks none up. The registry has been here, under this name, since
    # TensorFlow 2.2 at the latest; a test fails when it moves.
    from tensorflow.python.framework import ops

    return ops.gradient_registry.lookup(name)


def _probe(node: Node, function: Any, shapes: Callable[[Value], Any], slices: frozenset[int]) -> Answer:
    """Calls a gradient function on a copy of the node whose inputs are placeholders."""
    import tensorflow as tf

    found: list[Answer] = []

    def trace() -> None:
        copy = _copy(node, shapes)
        marks = [tf.identity(y) if y.dtype == tf.variant else tf.compat.v1.placeholder(y.dtype, y.shape)
                 for y in copy.outputs]  # fmt: skip
        cotangents = [_slices(mark) if i in slices else mark for i, mark in enumerate(marks)]
        try:
            result = function(copy, *cotangents)
        except Exception as problem:  # whatever the user's function raises is the answer: TensorFlow's user sees it too
            found.append(Answer(None, f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"))
            return
        gradients = list(result) if isinstance(result, (list, tuple)) else [result]
        if len(gradients) != len(node.inputs):
            found.append(Answer(None, f"ValueError: {len(gradients)} gradients for {len(node.inputs)} inputs"))
            return
        places = {mark.ref(): i for i, mark in enumerate(marks)}
        rows = tuple(_reached(gradient, places) for gradient in gradients)
        sliced = {i: gradient for i, gradient in enumerate(gradients) if isinstance(gradient, tf.IndexedSlices)}
        nested = frozenset(i for i, gradient in sliced.items() if isinstance(gradient.values, tf.IndexedSlices))
        found.append(Answer(rows, None, frozenset(sliced), nested))

    # A traced function, not a plain graph: a custom gradient captures what its own function computed before.
    traced = tf.function(trace, autograph=False).get_concrete_function()
    eager = (isinstance(tensor, tf.Tensor) and hasattr(tensor, "numpy") for tensor in traced.captured_inputs)
    captures = frozenset("" if e else t.graph.name for e, t in zip(eager, traced.captured_inputs, strict=True))
    return found[-1]._replace(captures=captures)


def _slices(mark: tf.Tensor) -> tf.IndexedSlices:
    """All rows of a cotangent, as slices."""
    import tensorflow as tf

    shape = tf.shape(mark)
    return tf.IndexedSlices(mark, tf.range(shape[0]), shape)


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

    if gradient is None:
        return None
    while isinstance(gradient, tf.IndexedSlices):
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
