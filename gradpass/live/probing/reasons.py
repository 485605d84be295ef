"""Why the gradient of an op is zeros or no number at these values: what is looked at in the graph, and what it tells.

`figures` adds a few scalars to the graph for the ops that are known to do so; `why_zero` and `why_not_finite` read them
once they have run. What no figure tells is told in general words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.report.probe import Stats
from gradpass.report.words import count, plural

Gradient = Callable[[Any], Any]
Arriving = Callable[[str, int], Any]

# Where the derivative of an element-wise op is 0 in the arithmetic that is used, by its input x and output y: on the
# flat side of a ReLU, and where 1 - y or 1 + y rounds to 0 (float32: a sigmoid beyond 17, a tanh beyond 9).
OFF: dict[str, Callable[[Any, Any], Any]] = {
    "Relu": lambda x, y: x <= 0,
    "Relu6": lambda x, y: tf.logical_or(x <= 0, x >= 6),
}
SATURATED: dict[str, Callable[[Any, Any], Any]] = {
    "Sigmoid": lambda x, y: tf.equal(y * (1 - y), 0),
    "Tanh": lambda x, y: tf.equal(1 - y * y, 0),
    "Softmax": lambda x, y: tf.equal(y * (1 - y), 0),
    "Erf": lambda x, y: tf.equal(tf.exp(-x * x), 0),
    "Elu": lambda x, y: tf.equal(y, -1),
    "Softplus": lambda x, y: tf.equal(tf.sigmoid(x), 0),
}
# What reads a condition or another value to decide from which input an element is taken.
TAKES: dict[str, Callable[[Sequence[Any], int], Any]] = {
    "Select": lambda inputs, i: inputs[0] if i == 1 else tf.logical_not(inputs[0]),
    "SelectV2": lambda inputs, i: inputs[0] if i == 1 else tf.logical_not(inputs[0]),
    "Maximum": lambda inputs, i: inputs[i] >= inputs[1 - i] if i == 0 else inputs[1] > inputs[0],
    "Minimum": lambda inputs, i: inputs[i] <= inputs[1 - i] if i == 0 else inputs[1] < inputs[0],
    "ClipByValue": lambda inputs, i: tf.logical_and(inputs[0] >= inputs[1], inputs[0] <= inputs[2]),
}
# The gradient of one input is made with the other one.
PRODUCTS = frozenset({
    "Mul", "MulNoNan", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv1D", "Conv2D", "Conv3D",
    "DepthwiseConv2dNative", "Einsum", "SparseMatMul",
})  # fmt: skip
ELEMENTWISE = frozenset({"Mul", "MulNoNan"})
# Linear with coefficients of at most 1: where these give zeros of what is not zero, the product was too small.
SHRINKS = frozenset({"Cast", "Mean", "AvgPool", "RealDiv", "Identity", "Sum"})
# Where a derivative is infinite or not defined, by input.
SINGULAR: dict[str, tuple[int, str]] = {
    "Sqrt": (0, "zero"), "Rsqrt": (0, "zero"), "Log": (0, "zero"), "Reciprocal": (0, "zero"), "Inv": (0, "zero"),
    "Pow": (0, "zero"), "RealDiv": (1, "zero"), "Div": (1, "zero"), "Xlogy": (1, "zero"), "Xdivy": (1, "zero"),
    "Log1p": (0, "minus one"), "Acos": (0, "one"), "Asin": (0, "one"), "Atanh": (0, "one"), "Acosh": (0, "one"),
}  # fmt: skip
PLACES: dict[str, Callable[[Any], Any]] = {
    "zero": lambda x: tf.equal(x, 0),
    "minus one": lambda x: tf.equal(x, -1),
    "one": lambda x: tf.equal(tf.abs(x), 1),
}
SAID = {"zero": "0", "minus one": "-1", "one": "1 or -1"}
SMALLEST = {tf.float16: 2.0**-24, tf.bfloat16: 2.0**-126, tf.float32: 2.0**-126, tf.float64: 2.0**-1022}
LARGEST = {tf.float16: 65504.0}


class Reason(NamedTuple):
    """A code of `report.codes`, and what follows the op's name in its message."""

    code: str
    text: str


def figures(op: Any, inputs: Sequence[Any], gradient: Gradient, arriving: Arriving) -> dict[str, Any]:
    """Scalars that tell why this op may give no gradient; none of most ops."""
    found: dict[str, Any] = {}
    flat = {**OFF, **SATURATED}.get(op.type)
    if flat is not None:
        mask = flat(inputs[0], op.outputs[0])
        found["flat"] = _share(mask)
        if (inputs[0].shape.rank or 0) > 1:
            dead = tf.reduce_all(mask, axis=list(range(inputs[0].shape.rank - 1)))
            found["dead units"], found["units"] = _total(dead), tf.cast(tf.size(dead), tf.float64)
    if op.type == "Softmax":
        found["classes"] = tf.cast(tf.shape(inputs[0])[-1], tf.float64)
    if op.type in TAKES:
        for i in (0, 1, 2)[: len(inputs)]:
            if arriving(op.name, i) is not None:
                found[f"taken {i}"] = _share(TAKES[op.type](inputs, i))
    if op.type in ELEMENTWISE and (cotangent := gradient(op.outputs[0])) is not None:
        for i in (0, 1):
            if arriving(op.name, i) is not None:
                both = tf.logical_and(tf.not_equal(cotangent, 0), tf.not_equal(inputs[1 - i], 0))
                found[f"met {i}"] = _total(both)
    if op.type in SINGULAR:
        index, where = SINGULAR[op.type]
        found["singular"] = _total(PLACES[where](inputs[index]))
        found["negative"] = _total(inputs[index] < 0)
    found |= _covered(op, gradient, arriving)
    return found


def _covered(op: Any, gradient: Gradient, arriving: Arriving) -> dict[str, Any]:
    """In how many of the places where an element-wise op's gradient is no finite number its cotangent is 0."""
    if op.type not in SINGULAR or (cotangent := gradient(op.outputs[0])) is None:
        return {}
    found = {}
    for i in range(len(op.inputs)):
        given = arriving(op.name, i)
        if given is None or given.shape.as_list() != cotangent.shape.as_list() or given.shape.rank is None:
            continue
        wrong = tf.logical_not(tf.math.is_finite(given))
        found[f"wrong {i}"] = _total(wrong)
        found[f"covered {i}"] = _total(tf.logical_and(wrong, tf.equal(cotangent, 0)))
    return found


def _share(mask: Any) -> Any:
    size = tf.cast(tf.maximum(tf.size(mask), 1), tf.float64)
    return _total(mask) / size


def _total(mask: Any) -> Any:
    return tf.cast(tf.math.count_nonzero(mask, dtype=tf.int64), tf.float64)


def why_zero(
    op: Any, index: int, figure: Mapping[str, float], inputs: Sequence[Stats | None], cotangent: Stats | None
) -> Reason:
    """Why an op gives one of its inputs zeros of a gradient that is not zeros; `inputs` are the values it reads."""
    if cotangent is not None and cotangent.size == 0:
        return Reason("GP312", "selects nothing of what it is given")
    if op.type in OFF and figure.get("flat") == 1.0:
        size = inputs[0].size if inputs[0] else 0
        beyond = "" if op.type == "Relu" else " or beyond its upper end"
        return Reason("GP310", f"is off for the whole batch: all {count(size)} inputs are below 0{beyond}")
    if figure.get("classes") == 1.0:
        return Reason("GP311", "is over one class, so that its output is 1 whatever comes in")
    if op.type in SATURATED and figure.get("flat") == 1.0:
        largest = f"{inputs[0].largest:.3g}" if inputs[0] else "?"
        return Reason("GP311", f"is saturated for the whole batch: its inputs go up to {largest}, where it is flat")
    if figure.get(f"taken {index}") == 0.0:
        clips = op.type == "ClipByValue"
        return Reason("GP312", "clips all of this batch" if clips else "takes nothing of this value in this batch")
    small = _underflow(op, index, figure, inputs, cotangent)
    if small:
        return small
    if op.type in PRODUCTS and _all_zero(inputs, 1 - index):
        return Reason("GP312", "multiplies by zeros only")
    if op.type in ELEMENTWISE and figure.get(f"met {index}") == 0.0:
        return Reason("GP312", "multiplies by zeros wherever a gradient arrives")
    if op.type in ("Sign", "Square", "Abs") and _all_zero(inputs, 0):
        return Reason("GP316", "is of zeros only, where its derivative is 0")
    return Reason("GP316", f"has a derivative of 0 at {_these(inputs)}")


def _these(inputs: Sequence[Stats | None]) -> str:
    known = [stats for stats in inputs if stats is not None]
    return f"these values (up to {max(s.largest for s in known):.3g})" if known else "these values"


def _all_zero(inputs: Sequence[Stats | None], index: int) -> bool:
    stats = inputs[index] if index < len(inputs) else None
    return stats is not None and stats.all_zero


def _underflow(
    op: Any, index: int, figure: Mapping[str, float], inputs: Sequence[Stats | None], cotangent: Stats | None
) -> Reason | None:
    """Whether the gradient is there and too small for the dtype of the value that it is of."""
    dtype = op.inputs[index].dtype
    smallest = SMALLEST.get(dtype)
    if smallest is None or cotangent is None or not cotangent.largest:
        return None
    factor = 1.0
    if op.type in PRODUCTS:
        other = inputs[1 - index] if len(inputs) == 2 else None
        if other is None or not other.largest or (op.type in ELEMENTWISE and not figure.get(f"met {index}")):
            return None
        factor = other.largest
    elif op.type not in SHRINKS:
        return None
    if cotangent.largest * factor >= smallest and not (op.type in ELEMENTWISE or op.type in SHRINKS):
        return None
    arrives = f"the largest gradient that arrives is {cotangent.largest:.2g}"
    return Reason("GP313", f"loses it in {dtype.name}: {arrives}, the smallest {dtype.name} is {smallest:.2g}")


def why_not_finite(
    op: Any, index: int, figure: Mapping[str, float], inputs: Sequence[Stats | None], cotangent: Stats | None
) -> Reason:
    """Why an op makes NaN or infinite numbers of a gradient that is finite."""
    dtype = op.inputs[index].dtype
    limit = LARGEST.get(dtype)
    size = max((s.size for s in inputs if s is not None), default=0)
    if figure.get("singular") or figure.get("negative"):
        where = SAID[SINGULAR[op.type][1]]
        places = int(figure["singular"])
        at = f"{where} in {count(places)} of {plural(size, 'place')}" if places else "below 0"
        wrong = figure.get(f"wrong {index}", 0.0)
        if wrong and figure[f"covered {index}"] == wrong:
            return Reason("GP401", f"is computed where its result is not used, and there it reads {at}")
        return Reason("GP402", f"has no finite derivative where it reads {at}")
    if limit is not None and cotangent is not None and op.type in (PRODUCTS | SHRINKS):
        return Reason("GP404", f"overflows {dtype.name}, whose largest number is {limit:.0f}")
    return Reason("GP402", f"has no finite derivative at {_these(inputs)}")
