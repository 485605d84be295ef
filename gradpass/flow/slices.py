"""Tells which gradients come as slices (`tf.IndexedSlices`: some rows and where they belong), and who cannot take them.

The gradient of `tf.gather` is slices. Most gradient functions make a dense tensor of a cotangent that is; some hand
slices on, and some raise. So does a custom gradient once it is loaded, since a restored function takes tensors only.
The gradient of `tf.gather_nd` puts slices into slices, which no function can give back. The gradients of branches must
be slices of one form.

`slices.json` is probed by `scripts/probe_slices.py`; what differs in older versions stands in `slices-2.18.json` and
the like. An op that makes no slices and makes dense tensors of all that it is given has no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gradpass.flow import process
from gradpass.flow.facts import Facts, inferred_shape, recorded_shape, static_shape
from gradpass.program import opdefs, tables
from gradpass.program.graph import Node, Value
from gradpass.program.model import Shape, shape_of

INT64 = 9
PATH = Path(__file__).with_name("slices.json")
LOADED = "TypeError, since a loaded custom gradient takes no cotangent that is tf.IndexedSlices, as tf.gather makes it"
NESTED = "InternalError, since TensorFlow puts tf.IndexedSlices into each other, which no function can give back"

Test = Literal["always", "set", "zero", "column", "unknown", "unreduced"]


class Slices(NamedTuple):
    """The form of a gradient that is slices.

    `wide` tells of each level, the innermost first, whether the shape of the whole is of int64 and not of int32; there
    are several where slices are in slices, and then `node` is what put them there.
    """

    wide: tuple[bool, ...] = (False,)
    node: Node | None = None


PLAIN = Slices()  # also what a dense tensor becomes beside slices


class Condition(NamedTuple):
    """On what it hangs: `of` names an attribute (`set`: it is true) or an input.

    `zero`: the input is the constant 0; `column`: it is known to have the shape [n, 1]; `unknown`: it is no constant;
    `unreduced`: the shapes tell that the input itself is not stretched to fit the other one.
    """

    test: Test
    of: str = ""


class Row(NamedTuple):
    """What an op's gradient function does with slices.

    `makes` are the inputs whose gradient is slices whatever comes, `hands` those whose gradient is slices where the
    cotangent is; `nests` tells that those it makes hold the cotangent as it came. `raises` has for outputs what it
    raises where their cotangent is slices. The shape of what it makes is of int64 where the input `wide` is; what it
    hands on keeps its own, unless it `resets` it to int32.
    """

    makes: Mapping[str, Condition]
    hands: Mapping[str, Condition]
    raises: Mapping[str, tuple[Condition, str]]
    nests: bool
    wide: str = ""
    resets: bool = False


class Given(NamedTuple):
    """Which flat inputs of a node are given slices; or what its gradient function raises."""

    inputs: Mapping[int, Slices]
    error: str | None = None


DENSE = Given({})


def given_slices(node: Node, fact: Facts, come: Mapping[int, Slices], handles: bool) -> Given:
    """What becomes of cotangents of which those of the outputs `come` are slices.

    `handles` tells whether TensorFlow knows the shapes of the variables that are read here.
    """
    if fact.custom == "process":
        return _of_process(node, come)
    if fact.custom is not None:
        return (
            Given({}, LOADED) if come else Given({i: PLAIN for i, width in enumerate(fact.custom.widths) if width > 1})
        )
    found = row(node)
    return DENSE if found is None else _given(node, fact, found, come, handles)


def makes_slices(node: Node, fact: Facts) -> bool:
    """Whether the node may give slices where none come."""
    if fact.custom is not None:
        return True
    found = row(node)
    return found is not None and bool(found.makes)


def row(node: Node) -> Row | None:
    """The row of a node's op; None where it has none."""
    derived = node.kind.derived
    if row not in derived:
        derived[row] = table(tables.fitting(PATH, node.function.program.tensorflow)).get(node.op)
    found: Row | None = derived[row]
    return found


@cache
def table(version: str | None = None) -> dict[str, Row]:
    """The rows of a TensorFlow version (major.minor), by default the newest."""
    return {op: _row(content) for op, content in tables.read(PATH, version).rows.items()}


def _row(content: dict[str, Any]) -> Row:
    return Row(
        {name: Condition(*words) for name, words in content.get("makes", {}).items()},
        {name: Condition(*words) for name, words in content.get("hands", {}).items()},
        {name: (Condition(*words), error) for name, (words, error) in content.get("raises", {}).items()},
        content.get("nests", False),
        content.get("wide", ""),
        content.get("resets", False),
    )


def _given(node: Node, fact: Facts, found: Row, come: Mapping[int, Slices], handles: bool) -> Given:
    signature = node.kind.signature
    assert signature is not None
    if come and found.raises:
        for name, port in _places(signature.outputs, node):
            condition, error = found.raises.get(name, (None, ""))
            if port in come and condition is not None and _holds(condition, node, port, handles):
                return Given({}, error)
    inputs: dict[int, Slices] = {}
    wide = any(name == found.wide and node.inputs[i].dtype == INT64 for name, i in _places(signature.inputs, node))
    for name, i in _places(signature.inputs, node):
        made, handed = found.makes.get(name), found.hands.get(name)
        ports = fact.rows[i] or ()
        if made is not None and _holds(made, node, i, handles):
            inner = come[min(come)].wide if found.nests and come else ()
            inputs[i] = Slices((*inner, wide), node if inner else None)
        elif handed is not None and ports and all(p in come for p in ports) and _holds(handed, node, i, handles):
            inputs[i] = PLAIN if found.resets else come[ports[0]]
    return Given(inputs)


def _places(arguments: Any, node: Node) -> list[tuple[str, int]]:
    """The name of the argument of each flat place."""
    names = [argument.name for argument, count in opdefs.arity(arguments, node.attr) for _ in range(count)]
    return [(name, i) for i, name in enumerate(names)]


def _of_process(node: Node, come: Mapping[int, Slices]) -> Given:
    """What a gradient function of this process does: it is called with slices."""
    derived = node.kind.derived
    key = (_of_process, tuple(come))
    if key not in derived:
        derived[key] = process.answer(node, recorded_shape, node.function.program.origin == "live", frozenset(come))
    found: process.Answer | None = derived[key]
    assert found is not None
    nested = Slices((False, False), node)
    return Given({i: nested if i in found.nested else PLAIN for i in found.slices}, found.error)


def _holds(condition: Condition, node: Node, place: int, handles: bool) -> bool:
    test, of = condition
    if test == "always":
        return True
    if test == "set":
        attribute = node.attr(of)
        return attribute is not None and bool(attribute.b)
    if test == "unreduced":
        mine, other = node.inputs[place], node.inputs[1 - place]
        return unreduced(_shape(mine, handles), _shape(other, handles))
    assert node.kind.signature is not None
    value = next(node.inputs[i] for name, i in _places(node.kind.signature.inputs, node) if name == of)
    if test == "column":
        shape = _shape(value, handles)
        return shape is not None and len(shape) == 2 and shape[1] == 1
    if test == "unknown":
        return value.node.op != "Const"
    return value.node.op == "Const" and _is_zero(value.node.attr("value").tensor)


def unreduced(mine: Shape, other: Shape) -> bool:
    """Whether an input of a broadcasting op is known to have the shape of the output, as far as TensorFlow looks.

    As tensorflow/python/ops/math_grad.py `_InferGradientReductionAxes`: one open size that may be stretched, in either
    input, and it counts as unknown.
    """
    if mine is None or other is None:
        return False
    rank = max(len(mine), len(other))
    pairs = zip((1,) * (rank - len(mine)) + mine, (1,) * (rank - len(other)) + other, strict=True)
    stretched = len(mine) < rank
    for a, b in pairs:
        if a == 1 and b != 1:
            stretched = True
        elif not (b == 1 and a != 1) and (a is None or b is None):
            return False
    return not stretched


def _shape(value: Value, handles: bool) -> Shape:
    if value.node.op == "Const":
        return shape_of(value.node.attr("value").tensor.tensor_shape)
    return static_shape(value) if handles else inferred_shape(value)


def _is_zero(tensor: Any) -> bool:
    """Whether a TensorProto of whole numbers holds nothing but zeros."""
    return not (any(tensor.int_val) or any(tensor.int64_val) or any(tensor.tensor_content))
