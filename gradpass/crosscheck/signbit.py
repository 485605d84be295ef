"""Sign bits without bits: Keras asks for them in `argmax`, and tf2onnx carries no Bitcast.

Keras 3 (keras/src/backend/tensorflow/numpy.py `signbit`) looks at the highest bit of the float as an integer. The same
is asked of the float itself: less than zero, or a zero whose reciprocal is. Of a NaN alone the sign is not seen so.
"""

from __future__ import annotations

from typing import Any


def without_bits(graph: Any) -> Any:
    """Replaces `Less(BitwiseAnd(Bitcast(x), lowest), 0)` in a GraphDef; gives it."""
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}

    def source(tensor: str) -> Any:
        node = nodes[tensor.removeprefix("^").partition(":")[0]]
        return source(node.input[0]) if node.op == "Identity" else node

    def constant(node: Any) -> Any:
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    for node in [each for each in graph.node if each.op == "Less"]:
        masked, zero = source(node.input[0]), constant(source(node.input[1]))
        if masked.op != "BitwiseAnd" or zero is None or zero.any():
            continue
        sides = [source(masked.input[i]) for i in (0, 1)]
        bits = next((side for side in sides if side.op == "Bitcast"), None)
        lowest = next((constant(side) for side in sides if side.op == "Const"), None)
        if bits is None or lowest is None or not tf.dtypes.as_dtype(bits.attr["T"].type).is_floating:
            continue
        if lowest.dtype.kind == "i" and (lowest == tf.dtypes.as_dtype(lowest.dtype).min).all():
            _replace(graph, node, bits.input[0], bits.attr["T"].type)
    return graph


def _replace(graph: Any, node: Any, value: str, dtype: int) -> None:
    import tensorflow as tf

    def add(op: str, name: str, *inputs: str) -> str:
        made = graph.node.add(name=f"{node.name}/{name}", op=op)
        made.input.extend(inputs)
        if not op.startswith("Logical"):
            made.attr["T"].type = dtype
        return str(made.name)

    zero = graph.node.add(name=f"{node.name}/zero", op="Const")
    zero.attr["dtype"].type = dtype
    zero.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.0, tf.dtypes.as_dtype(dtype)))
    negative = add("Less", "negative", value, zero.name)
    null = add("Equal", "null", value, zero.name)
    below = add("Less", "below", add("Reciprocal", "reciprocal", value), zero.name)
    node.op = "LogicalOr"
    node.attr.clear()
    node.input[:2] = [negative, add("LogicalAnd", "negative_zero", null, below)]
