"""Asks a gradient function which inputs get a gradient and which outputs' cotangents each of them depends on."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from probe_build import Attempt, OpDef, build, flat
from tensorflow.python.eager import backprop_util
from tensorflow.python.framework import importer, indexed_slices, ops

from gradpass.flow.shapes import SHAPE_ONLY

Facts = tuple[str | None, ...]  # by input argument: None, or one character an output argument


class Raised(NamedTuple):
    """A gradient function that raised: the exception's type and the first line of its text."""

    kind: str
    text: str


class Unbuilt(Exception):
    """No node could be built from an attempt."""


class Inexpressible(Exception):
    """Facts that the table cannot express: an override is needed."""


def probe(op: OpDef, attempt: Attempt) -> Facts | Raised:
    """The facts of one attempt, or what the gradient function raised; Unbuilt where TensorFlow rejects the node."""
    with tf.Graph().as_default() as graph, tf.device("/CPU:0"):  # NCCL's functions want a device, whichever
        if op.HasField("deprecation"):
            pretend_older(op.deprecation.version - 1)
        try:
            node = build(graph, op, attempt)
        except (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError, tf.errors.OpError) as problem:
            raise Unbuilt(str(problem)) from problem
        answer = _ask(node, all_outputs=True)
        if isinstance(answer, Raised) and not all(backprop_util.IsTrainable(y) for y in node.outputs):
            # TensorFlow gives gradient functions no cotangent of an integer output, and some cannot do with one.
            retry = _ask(node, all_outputs=False)
            answer = answer if isinstance(retry, Raised) else retry
        if isinstance(answer, Raised):
            return answer
        return _by_argument(op, attempt, *answer)


def pretend_older(producer: int) -> None:
    """Marks the current graph as made by an older TensorFlow, so that it takes a deprecated op."""
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="older", op="NoOp")
    graph.versions.producer = producer
    importer.import_graph_def(graph, name="")


def _ask(node: tf.Operation, all_outputs: bool) -> tuple[list[Any], list[Any]] | Raised:
    """The marks (None, or what a cotangent is the identity of), and the gradient function's answer."""
    with tf.name_scope("gradients/"):  # TensorArray's functions look for this name
        marks = [mark(y) if all_outputs or backprop_util.IsTrainable(y) else None for y in node.outputs]
        cotangents = [None if mark is None else tf.identity(mark) for mark in marks]
        try:
            result = ops.get_gradient_function(node)(node, *cotangents)
        except Exception as problem:  # whatever it is, it is the answer: a user sees it too
            return Raised(type(problem).__name__, str(problem).split("\n")[0])
    gradients = list(result) if isinstance(result, (list, tuple)) else [result]
    if len(gradients) != len(node.inputs):  # TensorFlow raises this behind the function
        return Raised("ValueError", f"{len(gradients)} gradients for {len(node.inputs)} inputs")
    return marks, gradients


def mark(y: tf.Tensor) -> tf.Tensor:
    """A fresh tensor of an output's dtype and shape; of a variant also with what it is known to hold."""
    dtype = y.dtype.base_dtype
    return tf.identity(y) if dtype == tf.variant else tf.compat.v1.placeholder(dtype, y.shape)


def _reached(gradient: Any, marks: list[Any]) -> frozenset[int] | None:
    """The outputs whose cotangent a gradient depends on; None where there is no gradient."""
    if gradient is None:
        return None
    if isinstance(gradient, indexed_slices.IndexedSlices):
        gradient = gradient.values
    outputs = {c.op.name: i for i, c in enumerate(marks) if c is not None}
    todo = [gradient.op]
    seen = {gradient.op.name}
    found = set()
    while todo:
        op = todo.pop()
        if op.name in outputs:
            found.add(outputs[op.name])
        if op.type in SHAPE_ONLY:
            continue
        for x in op.inputs:
            if x.op.name not in seen:
                seen.add(x.op.name)
                todo.append(x.op)
    return frozenset(found)


def _by_argument(op: OpDef, attempt: Attempt, marks: list[Any], gradients: list[Any]) -> Facts:
    """The facts of flat inputs and outputs joined by argument."""
    inputs = [i for i, _ in flat(op.input_arg, attempt.attrs)]
    outputs = [i for i, _ in flat(op.output_arg, attempt.attrs)]
    reached = [_reached(g, marks) for g in gradients]
    facts: list[str | None] = []
    for arg, definition in enumerate(op.input_arg):
        mine = [r for i, r in zip(inputs, reached, strict=True) if i == arg]
        with_gradient = [r for r in mine if r is not None]
        if not mine:
            raise Unbuilt(f"no tensor for {definition.name}")
        if not with_gradient:
            facts.append(None)
        elif len(with_gradient) < len(mine):
            raise Inexpressible(f"{op.name}: only some tensors of {definition.name} have a gradient")
        else:
            ports = [[k for k, i in enumerate(outputs) if i == o] for o in range(len(op.output_arg))]
            facts.append("".join(_letter(op, with_gradient, p) for p in ports))
    return tuple(facts)


def _letter(op: OpDef, reached: list[frozenset[int]], ports: list[int]) -> str:
    """`0`, `f` or `d` for the tensors of an input argument (what each reaches) and the ports of an output argument."""
    hits = [[p in r for p in ports] for r in reached]
    if not any(any(row) for row in hits):
        return "0"
    if len(reached) == len(ports) > 1 and hits == [[i == k for k in range(len(ports))] for i in range(len(ports))]:
        return "d"
    if not all(any(row) for row in hits):
        raise Inexpressible(f"{op.name}: only some tensors of an input depend on an output")
    return "f"
