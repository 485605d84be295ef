"""Writes which inputs' values decide the shape of an op's outputs into gradpass/flow/shapes.json.

    python scripts/probe_shapes.py          writes the file for the installed TensorFlow, the newest that is known
    python scripts/probe_shapes.py --check  exits 1 if the file differs from what it would write

TensorFlow's own shape inference is asked: a node of each op (probe_build.py makes it) with constants only, then with
one input at a time that is no constant. Where that makes a known shape unknown, the input's value decides it. A shape
that is unknown even so (Where, Unique, StringSplit) is taken to be decided by all inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import tensorflow as tf
from probe_build import Attempt, OpDef, Spec, attempts, build, const, flat, hinted, shaped
from probe_ops import in_another_process, registered_ops
from probe_store import command

SHAPES = Path(__file__).resolve().parent.parent / "gradpass" / "flow" / "shapes.json"
TRIES = 60  # attempts for one op
ENOUGH = 6  # of those that TensorFlow accepts

_BOXES = (shaped(4, 4), shaped(4), const(2))
HINTS: dict[str, tuple[Spec, ...]] = {  # inputs that trial does not find
    "Reshape": (shaped(4, 4), const([2, 8])),
    "StridedSlice": (shaped(4, 4), const([0, 0]), const([2, 2]), const([1, 1])),
    "Pad": (shaped(4, 4), const([[0, 1], [1, 0]])),
    "PadV2": (shaped(4, 4), const([[0, 1], [1, 0]]), const(0)),
    "MirrorPad": (shaped(4, 4), const([[0, 1], [1, 0]])),
    "NonMaxSuppression": _BOXES,
    "NonMaxSuppressionV2": (*_BOXES, const(0.5)),
    "NonMaxSuppressionV3": (*_BOXES, const(0.5), const(0.5)),
    "NonMaxSuppressionV4": (*_BOXES, const(0.5), const(0.5)),
    "NonMaxSuppressionV5": (*_BOXES, const(0.5), const(0.5), const(0.5)),
    "ResizeBilinear": (shaped(1, 4, 4, 3), const([8, 8])),
    "ResizeNearestNeighbor": (shaped(1, 4, 4, 3), const([8, 8])),
}

Row = dict[str, list[str]]  # output argument -> input arguments


def main() -> int:
    """The command; its exit status."""
    return command(__doc__, {SHAPES: shape_rows})


def shape_rows() -> dict[str, Row]:
    """The rows of all ops that have one, found in another process: some shape functions end theirs.

    They do so on attributes that nobody would give; such an op gets no row.
    """
    rows: dict[str, Row] = {}
    for op, row in in_another_process(shape_row, registered_ops()):
        if row is None:
            print(f"{op.name}: its shape function ends the process, so it gets no row")
        elif row:
            rows[op.name] = row
    return rows


def shape_row(op: OpDef) -> Row:
    """For each output argument whose shape depends on values, the input arguments that have them."""
    if any(attr.type in ("func", "list(func)") for attr in op.attr):
        return {}  # what runs a function has the shapes of that function's results
    known: set[str] = set()
    unknown: set[str] = set()
    reads: dict[str, set[str]] = {}
    accepted = 0
    hints = [hinted(op, HINTS[op.name], {})] if op.name in HINTS else []
    for attempt in chain(hints, attempts(op, TRIES)):
        fixed = _constant(op, attempt)
        if fixed is None or (answer := _known(op, fixed)) is None:
            continue
        known |= {name for name, is_known in answer.items() if is_known}
        unknown |= {name for name, is_known in answer.items() if not is_known}
        for argument, varied in _varied(op, fixed):
            for name, is_known in (_known(op, varied) or {}).items():
                if answer[name] and not is_known:
                    reads.setdefault(name, set()).add(argument)
        accepted += 1
        if accepted == ENOUGH:
            break
    for name in unknown - known:
        reads[name] = {arg.name for arg in op.input_arg}
    order = [arg.name for arg in op.input_arg]
    return {arg.name: sorted(reads[arg.name], key=order.index) for arg in op.output_arg if reads.get(arg.name)}


def _constant(op: OpDef, attempt: Attempt) -> Attempt | None:
    """The attempt with a constant for each input that can be one; None where a shape is open."""
    specs = []
    for (_, dtype), spec in zip(flat(op.input_arg, attempt.attrs), attempt.inputs, strict=True):
        if spec.make is None and spec.value is None:
            if spec.dims is None or None in spec.dims:
                return None
            if dtype.is_floating or dtype.is_integer or dtype.is_complex or dtype.is_bool:
                specs.append(Spec(value=np.ones(spec.dims)))
                continue
        specs.append(spec)
    return Attempt(attempt.attrs, tuple(specs))


def _varied(op: OpDef, attempt: Attempt) -> Iterator[tuple[str, Attempt]]:
    """For each constant the attempt with a placeholder of its shape instead."""
    arguments = [op.input_arg[arg].name for arg, _ in flat(op.input_arg, attempt.attrs)]
    for i, spec in enumerate(attempt.inputs):
        if spec.value is not None:
            open_one = shaped(*np.shape(spec.value))
            yield arguments[i], Attempt(attempt.attrs, (*attempt.inputs[:i], open_one, *attempt.inputs[i + 1 :]))


def _known(op: OpDef, attempt: Attempt) -> dict[str, bool] | None:
    """For each output argument whether all its shapes are known; None where TensorFlow does not take the node."""
    graph = tf.Graph()
    try:
        with graph.as_default():
            found = [output.shape.is_fully_defined() for output in build(graph, op, attempt).outputs]
    except (ValueError, TypeError, NotImplementedError, KeyError, OverflowError, tf.errors.OpError):
        return None
    answer = {arg.name: True for arg in op.output_arg}
    for (arg, _), is_known in zip(flat(op.output_arg, attempt.attrs), found, strict=True):
        answer[op.output_arg[arg].name] &= is_known
    return answer


if __name__ == "__main__":
    sys.exit(main())
