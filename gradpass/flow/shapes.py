"""Tells what shapes hang on: a count by `shape(where(x > 0))[0]` depends on x, one by `shape(x)[0]` does not.

`shapes.json` has for the outputs of an op the inputs whose values decide their shape. It is written by
`scripts/probe_shapes.py` from TensorFlow's shape inference.
"""

from __future__ import annotations

from pathlib import Path

from gradpass.program import opdefs, tables
from gradpass.program.graph import Node

PATH = Path(__file__).with_name("shapes.json")

# The result says how large a tensor is, not what is in it: no value of the input reaches the output.
SHAPE_ONLY = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "VariableShape", "BroadcastGradientArgs", "Empty"}
)


def deciding(node: Node, port: int) -> frozenset[int]:
    """The flat inputs whose values decide the shape of an output; of its other inputs only the shapes do."""
    known: frozenset[int] | None = node.kind.derived.get((deciding, port, len(node.inputs)))
    if known is None:
        known = node.kind.derived[deciding, port, len(node.inputs)] = _deciding(node, port)
    return known


def _deciding(node: Node, port: int) -> frozenset[int]:
    row = tables.newest(PATH).rows.get(node.op)
    signature = node.kind.signature
    if row is None or signature is None:
        return frozenset()
    arg, _ = opdefs.locate(signature.outputs, node.attr, port)
    names = row.get(signature.outputs[arg].name, ())
    wanted: set[int] = set()
    at = 0
    for source, number in opdefs.arity(signature.inputs, node.attr):
        if source.name in names:
            wanted.update(range(at, at + number))
        at += number
    return frozenset(wanted)
