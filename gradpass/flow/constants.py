"""What constants decide before any run: which values are zeros (or False), or ones (or True), or hold nothing at all.

Only what masks are made of is followed: constants, their reshaping, comparisons and logic; within one function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradpass.flow.facts import is_float
from gradpass.program.graph import ARGUMENT, Node, Value

Known = frozenset[str]
UNKNOWN: Known = frozenset()
ZEROS: Known = frozenset({"zeros", "at least 0"})
EMPTY: Known = frozenset({"empty"})
POSITIVE: Known = frozenset({"nonzero", "at least 0"})

# As many steps back a mask is looked for; longer chains of constants are data, not masks.
DEPTH = 32

# Of these the result is known to be what the first input is.
PASSING = frozenset(
    {"BroadcastTo", "Cast", "EnsureShape", "ExpandDims", "Identity", "Reshape", "Slice", "Snapshot", "Squeeze",
     "StopGradient", "StridedSlice", "Tile", "Transpose"}
)  # fmt: skip
SINGLE = frozenset({"bool_val", "double_val", "float_val", "int64_val", "int_val"})  # where files keep numbers


def known(value: Value, depth: int = DEPTH) -> Known:
    """What is known of all elements of a value: "zeros", "nonzero", "at least 0", "empty"; of most values nothing."""
    node = value.node
    if depth == 0 or value.port:
        return UNKNOWN
    if node.op == ARGUMENT:
        array = node.function.program.given.get(value)
        return UNKNOWN if array is None else _array(array)
    if node.op in PASSING:
        found = known(node.inputs[0], depth - 1)
        # A cast to integers may make a zero of what was none.
        return found - {"nonzero"} if node.op == "Cast" and is_float(node.inputs[0].dtype) else found
    makes = MAKES.get(node.op)
    return makes(node, lambda i: known(node.inputs[i], depth - 1)) if makes else UNKNOWN


def _array(array: Any) -> Known:
    """The same of an array's elements."""
    if not array.size:
        return EMPTY
    if array.dtype.kind not in "biuf":
        return UNKNOWN
    if not array.any():
        return ZEROS
    found = {"at least 0"} if (array >= 0).all() else set()
    return frozenset(found | ({"nonzero"} if array.all() else set()))


Inputs = Callable[[int], Known]


def _const(node: Node, _: Inputs) -> Known:
    tensor = node.attr("value").tensor
    if any(dim.size == 0 for dim in tensor.tensor_shape.dim):
        return EMPTY
    contents = [(f.name, value) for f, value in tensor.ListFields() if f.name not in ("dtype", "tensor_shape")]
    if not any(value.strip(b"\0") if isinstance(value, bytes) else any(value) for _, value in contents):
        return ZEROS
    if len(contents) != 1 or contents[0][0] not in SINGLE:
        return UNKNOWN
    numbers = contents[0][1]
    found = {"at least 0"} if all(number >= 0 for number in numbers) else set()
    return frozenset(found | ({"nonzero"} if all(numbers) else set()))


def _range(_: Node, inputs: Inputs) -> Known:
    start, delta = inputs(0), inputs(2)
    return frozenset({"at least 0"}) if "at least 0" in start & delta else UNKNOWN


def _fill(_: Node, inputs: Inputs) -> Known:
    return inputs(1)


def _zeros(_: Node, __: Inputs) -> Known:
    return ZEROS


def _ones(_: Node, __: Inputs) -> Known:
    return POSITIVE


def _product(_: Node, inputs: Inputs) -> Known:
    return ZEROS if "zeros" in inputs(0) or "zeros" in inputs(1) else UNKNOWN


def _either(_: Node, inputs: Inputs) -> Known:
    """The logical or."""
    left, right = inputs(0), inputs(1)
    return POSITIVE if "nonzero" in left | right else ZEROS if "zeros" in left & right else UNKNOWN


def _both(_: Node, inputs: Inputs) -> Known:
    """The logical and."""
    left, right = inputs(0), inputs(1)
    return ZEROS if "zeros" in left | right else POSITIVE if "nonzero" in left & right else UNKNOWN


def _not(_: Node, inputs: Inputs) -> Known:
    found = inputs(0)
    return POSITIVE if "zeros" in found else ZEROS if "nonzero" in found else UNKNOWN


def _less(_: Node, inputs: Inputs) -> Known:
    """What is 0 or more is never below 0."""
    return ZEROS if "at least 0" in inputs(0) and "zeros" in inputs(1) else UNKNOWN


def _greater(_: Node, inputs: Inputs) -> Known:
    return ZEROS if "zeros" in inputs(0) and "at least 0" in inputs(1) else UNKNOWN


def _places(_: Node, inputs: Inputs) -> Known:
    """The places of what is not zero."""
    return EMPTY if inputs(0) & {"zeros", "empty"} else UNKNOWN


MAKES: dict[str, Callable[[Node, Inputs], Known]] = {
    "Const": _const,
    "Fill": _fill,
    "Greater": _greater,
    "Less": _less,
    "LogicalAnd": _both,
    "LogicalNot": _not,
    "LogicalOr": _either,
    "Mul": _product,
    "OnesLike": _ones,
    "Range": _range,
    "Where": _places,
    "ZerosLike": _zeros,
}
