"""Writes what the installed TensorFlow does with gradients that are slices into gradpass/flow/slices*.json.

    python scripts/probe_slices.py           writes the rows of the installed minor version, keeps those of others
    python scripts/probe_slices.py --check   exits 1 if the files differ from what it would write

Each gradient function is called on nodes of different shapes and attributes (probe_build.py makes them), once with
dense cotangents, once with `tf.IndexedSlices` for each output alone, and once for all. A condition (flow/slices.py
`Condition`) is the first one that tells apart the nodes where something happens from those where it does not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import edge_overrides
import tensorflow as tf
from probe_build import Attempt, AttrValue, OpDef, Spec, attempts, build, const, flat, hinted, shaped
from probe_facts import Unbuilt, mark, pretend_older
from probe_ops import in_another_process, registered_ops
from probe_store import command
from tensorflow.python.eager import backprop_util
from tensorflow.python.framework import ops, tensor_util

from gradpass.flow.slices import PATH, Condition, unreduced

TRIES = 120  # attempts for one op
ENOUGH = 12  # of those that its gradient function takes
ALWAYS = Condition("always")
UNREDUCED = Condition("unreduced")
ORDER = ("always", "set", "zero", "column", "unknown", "unreduced")
NO_SLICES: frozenset[int] = frozenset()
INT, LONG = AttrValue(type=tf.int32.as_datatype_enum), AttrValue(type=tf.int64.as_datatype_enum)

Hint = tuple[tuple[Spec, ...], dict[str, Any]]
_MATRIX = shaped(4, 4)
HINTS: dict[str, tuple[Hint, ...]] = {
    "GatherV2": (  # its shape function ends the process on some of what trial finds
        ((_MATRIX, shaped(3), const(0)), {}),
        ((_MATRIX, shaped(3), const(1)), {}),
        ((_MATRIX, shaped(3), shaped()), {}),
        ((_MATRIX, shaped(4, 2), const(1)), {"batch_dims": 1}),
        ((shaped(4), shaped(), const(0)), {}),
    ),
    # Trial finds no indices of one column beside others.
    "GatherNd": (((_MATRIX, shaped(3, 1)), {}), ((_MATRIX, shaped(3, 2)), {}), ((_MATRIX, shaped(2, 3, 1)), {})),
    "ResourceGatherNd": (
        ((_MATRIX, shaped(3, 1)), {}),
        ((_MATRIX, shaped(3, 2)), {}),
        ((_MATRIX, shaped(2, 3, 1)), {}),
    ),
}


class Answer(NamedTuple):
    """The flat inputs to which a gradient function gives slices, slices in slices, and slices of a whole whose shape is
    of int64; or what it raised.
    """

    slices: frozenset[int]
    nested: frozenset[int]
    wide: frozenset[int]
    error: str | None = None


class Seen(NamedTuple):
    """A node that was asked.

    `inputs` and `outputs` have the argument of each flat place, `can` the outputs whose cotangent can be slices,
    `holds` the conditions that hold for all of the node, `unreduced` the inputs that are not stretched, `answers` what
    came of slices at some outputs. `long` are the arguments of int64, `keeps` the inputs whose slices keep the int64 of
    those that came.
    """

    inputs: list[int]
    outputs: list[int]
    can: frozenset[int]
    holds: frozenset[Condition]
    unreduced: frozenset[int]
    answers: dict[frozenset[int], Answer]
    long: frozenset[int]
    keeps: frozenset[int]


Observed = tuple[frozenset[Condition], bool]  # what holds, and whether it happened


def main() -> int:
    """The command; its exit status."""
    return command(__doc__, {PATH: slices_rows})


def slices_rows(only: frozenset[str] | None = None) -> dict[str, Any]:
    """The rows of all ops that have one, or of some."""
    asked = [op for op in registered_ops() if (only is None or op.name in only) and _has_function(op.name)]
    rows = {}
    for op, row in in_another_process(slices_row, asked):
        if row is None:
            raise SystemExit(f"{op.name}: its shape function ends the process; HINTS has to say something")
        if row:
            rows[op.name] = row
    return rows


def slices_row(op: OpDef) -> dict[str, Any]:
    """What the gradient function does with slices; empty where it neither makes nor keeps any."""
    seen = list(_seen(op))
    makes, hands, raises = {}, {}, {}
    for i, arg in enumerate(op.input_arg):
        places = [(node, place) for node in seen for place, argument in enumerate(node.inputs) if argument == i]
        made = [(_holds(node, place), place in node.answers[NO_SLICES].slices) for node, place in places]
        makes[arg.name] = _condition(op, made)
        handed = [
            (_holds(node, place), place in node.answers[node.can].slices)
            for node, place in places
            if node.can and node.answers[node.can].error is None
        ]
        hands[arg.name] = None if makes[arg.name] else _condition(op, handed)
    for o, arg in enumerate(op.output_arg):
        errors = [
            (node.holds, node.answers[frozenset({place})].error)
            for node in seen
            for place in node.can
            if node.outputs[place] == o
        ]
        condition = _condition(op, [(holds, error is not None) for holds, error in errors])
        if condition:
            texts = Counter(error for _, error in errors if error is not None)
            raises[arg.name] = [condition, texts.most_common(1)[0][0]]
    makers = [(node, place) for node in seen for place in node.answers[NO_SLICES].slices]
    wide = _told_by(op, [(node.long, place in node.answers[NO_SLICES].wide) for node, place in makers])
    kept = [(node, place) for node in seen for place in node.answers[node.can].slices if node.can]
    resets = any(place not in node.keeps for node, place in kept if not makers)
    nests = any(answer.nested for node in seen for answer in node.answers.values())
    found = {"makes": _said(makes), "hands": _said(hands), "raises": raises, "nests": nests}
    found |= {"wide": wide, "resets": resets}
    return {key: value for key, value in found.items() if value}


def _told_by(op: OpDef, observed: list[tuple[frozenset[int], bool]]) -> str:
    """The input whose dtype tells whether the whole has a shape of int64; none where it never has."""
    if not any(wide for _, wide in observed):
        return ""
    fitting = [i for i in range(len(op.input_arg)) if all((i in long) == wide for long, wide in observed)]
    if not fitting:
        raise SystemExit(f"{op.name}: no input tells when the shape of the whole is of int64")
    return str(op.input_arg[fitting[0]].name)


def _said(conditions: dict[str, list[str] | None]) -> dict[str, list[str]]:
    return {name: condition for name, condition in conditions.items() if condition is not None}


def _holds(node: Seen, place: int) -> frozenset[Condition]:
    return node.holds | {UNREDUCED} if place in node.unreduced else node.holds


def _condition(op: OpDef, observed: list[Observed]) -> list[str] | None:
    """The condition under which something happens, as slices.json has it; None where it never does."""
    if not any(happened for _, happened in observed):
        return None
    known = {condition for holds, _ in observed for condition in holds}
    for condition in sorted(known, key=lambda c: (ORDER.index(c.test), c.of)):
        if all((condition in holds) == happened for holds, happened in observed):
            return [word for word in condition if word]
    raise SystemExit(f"{op.name}: no condition of flow/slices.py tells when it makes, keeps or refuses slices")


def _seen(op: OpDef) -> Iterator[Seen]:
    """Nodes that the gradient function takes with dense cotangents, each also with other flags."""
    found = 0
    for attempt in _attempts(op):
        flags = [a.name for a in op.attr if a.type == "bool"]
        flipped = [{}, *({name: AttrValue(b=not attempt.attrs[name].b)} for name in flags)]
        flipped += [{a.name: LONG} for a in op.attr if a.type == "type" and attempt.attrs[a.name].type == INT.type]
        nodes = [_asked(op, Attempt({**attempt.attrs, **flip}, attempt.inputs)) for flip in flipped]
        if nodes[0] is not None:
            yield from (node for node in nodes if node is not None)
            found += 1
            if found == ENOUGH:
                return


def _attempts(op: OpDef) -> Iterator[Attempt]:
    hints = HINTS.get(op.name)
    if hints:
        return (hinted(op, inputs, attrs) for inputs, attrs in hints)
    hint = edge_overrides.HINTS.get(op.name)
    return chain([hinted(op, hint.inputs, hint.attrs)] if hint else [], () if hint else attempts(op, TRIES))


def _asked(op: OpDef, attempt: Attempt) -> Seen | None:
    """All answers for one node; None where TensorFlow, or the gradient function with dense cotangents, refuses it."""
    try:
        node, plain = _answer(op, attempt, NO_SLICES)
        if plain.error is not None:
            return None
        can = frozenset(
            i
            for i, y in enumerate(node.outputs)
            if backprop_util.IsTrainable(y) and y.dtype not in (tf.variant, tf.resource) and y.shape.rank != 0
        )
        some = {frozenset({i}) for i in can} | {can} - {NO_SLICES}
        answers = {NO_SLICES: plain, **{which: _answer(op, attempt, which)[1] for which in some}}
        keeps = _answer(op, attempt, can, wide=True)[1].wide
    except Unbuilt:
        return None
    holds = {ALWAYS, *(Condition("set", a.name) for a in op.attr if a.type == "bool" and node.get_attr(a.name))}
    inputs = [i for i, _ in flat(op.input_arg, attempt.attrs)]
    for i, tensor in zip(inputs, node.inputs, strict=True):
        if tensor.dtype.is_integer and inputs.count(i) == 1:
            name = op.input_arg[i].name
            value = tensor_util.constant_value(tensor)
            if value is None:
                holds.add(Condition("unknown", name))
            elif not value.any():
                holds.add(Condition("zero", name))
            if tensor.shape.rank == 2 and tensor.shape[1] == 1:
                holds.add(Condition("column", name))
    shapes = [None if x.shape.rank is None else tuple(x.shape.as_list()) for x in node.inputs]
    kept = {i for i in range(2) if unreduced(shapes[i], shapes[1 - i])} if len(shapes) == 2 else set()
    outputs = [i for i, _ in flat(op.output_arg, attempt.attrs)]
    long = frozenset(i for i, tensor in zip(inputs, node.inputs, strict=True) if tensor.dtype == tf.int64)
    return Seen(inputs, outputs, can, frozenset(holds), frozenset(kept), answers, long, keeps)


def _answer(op: OpDef, attempt: Attempt, which: frozenset[int], wide: bool = False) -> tuple[tf.Operation, Answer]:
    """The node, and what its gradient function answers to slices at some outputs, with a shape of int64 if `wide`."""
    with tf.Graph().as_default() as graph, tf.device("/CPU:0"):
        if op.HasField("deprecation"):
            pretend_older(op.deprecation.version - 1)
        try:
            node = build(graph, op, attempt)
        except (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError, tf.errors.OpError) as problem:
            raise Unbuilt(str(problem)) from problem
        with tf.name_scope("gradients/"):
            cotangents = [_cotangent(y, i in which, wide) for i, y in enumerate(node.outputs)]
            try:
                result = ops.get_gradient_function(node)(node, *cotangents)
            except Exception as problem:  # whatever it is, it is the answer: a user sees it too
                text = str(problem).partition("\n")[0]
                return node, Answer(NO_SLICES, NO_SLICES, NO_SLICES, f"{type(problem).__name__}: {text}")
    gradients = list(result) if isinstance(result, (list, tuple)) else [result]
    slices = {i: g for i, g in enumerate(gradients) if isinstance(g, tf.IndexedSlices)}
    nested = frozenset(i for i, g in slices.items() if isinstance(g.values, tf.IndexedSlices))
    whole = frozenset(i for i, g in slices.items() if g.dense_shape is not None and g.dense_shape.dtype == tf.int64)
    return node, Answer(frozenset(slices), nested, whole)


def _cotangent(y: tf.Tensor, as_slices: bool, wide: bool) -> Any:
    """A fresh cotangent of an output; None where TensorFlow gives none."""
    if not backprop_util.IsTrainable(y):
        return None
    if not as_slices:
        return tf.identity(mark(y))
    rows = None if y.shape.rank is None else [None, *y.shape[1:]]
    values = tf.compat.v1.placeholder(y.dtype.base_dtype, rows)
    return tf.IndexedSlices(
        values, tf.compat.v1.placeholder(tf.int32, [None]), tf.shape(y, tf.int64 if wide else tf.int32)
    )


def _has_function(op: str) -> bool:
    """Whether an op has a gradient function of its own, which does not only raise."""
    if op in edge_overrides.CALLS or op in edge_overrides.FACTS or op in edge_overrides.RAISES:
        return False
    try:
        return ops.gradient_registry.lookup(op) is not None
    except LookupError:
        return False


if __name__ == "__main__":
    sys.exit(main())
