"""Check 6: what ONNX itself says of the exported path: the differentiability category of each op's inputs and outputs.

The categories stand in the op schemas (onnx/defs, `OpSchema.DifferentiationCategory`). Two of them are wrong: Cast is
called differentiable whatever it casts to, and Hardmax is called so too. Where a schema says nothing (If, Loop, Scan,
the quantized and random ops and some thirty more), a path through the op is left open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

from gradpass.crosscheck.check import Check, Skip, judged
from gradpass.crosscheck.export import Tools
from gradpass.crosscheck.soft import Soft

LIMIT_FROM = "no promised target may be out of reach by the schemas of its path"
# onnx/defs/math/defs.cc calls it differentiable as it does Softmax; its value is a one-hot vector.
STEPS = frozenset({"Hardmax"})
DFT_FROM = "DFT"  # its input is called non-differentiable, its output nothing at all; the transform is linear

Edge = Literal["yes", "open", "no"]


def check_schema(name: str, tools: Tools, soft: Soft, promised: Collection[str]) -> Check:
    """Whether a float output is reached from each promised target (inputs of the soft model) by the schemas."""
    reach = reached(tools, soft.model, soft.outputs)
    asked = [target for target in soft.targets if target in promised]
    if not asked:
        raise Skip("no promised target is in the soft graph's export")
    cut = [soft.targets[target] for target in asked if target not in reach]
    through = {target: reach[target] for target in asked if reach.get(target)}
    ops = sorted({op for gaps in through.values() for op in gaps})
    if not cut and len(through) == len(asked):
        raise Skip(f"every path goes through {', '.join(ops)}, of which the schemas say nothing")
    if cut and soft.unlike:
        raise Skip(
            f"{', '.join(soft.unlike[:3])} has a gradient that is in no schema, and cuts off {', '.join(cut[:5])}"
        )
    gaps = f"{len(through)} of {len(asked)} targets only through {', '.join(ops)}, of which the schemas say nothing"
    reason = f"cut off by the categories of the schemas: {', '.join(cut[:5])}"
    return judged(name, float(len(cut)), 0.0, reason, LIMIT_FROM, gaps if through else None)


def reached(tools: Tools, model: Any, outputs: Collection[str]) -> dict[str, frozenset[str]]:
    """The values that outputs can be differentiated by: by name the ops left open on the way with the fewest of them.

    Values of inner graphs are not told apart: an If or Loop is one op, left open.
    """
    opset = {each.domain: each.version for each in model.opset_import}
    found: dict[str, frozenset[str]] = dict.fromkeys(outputs, frozenset())
    for node in reversed(model.graph.node):
        given = [(found[value], i) for i, value in enumerate(node.output) if value in found]
        for value, edge in _edges(tools, node, opset, [i for _, i in given]):
            if edge == "no" or not value:
                continue
            way = min((gaps for gaps, _ in given), key=len) | ({node.op_type} if edge == "open" else frozenset())
            if value not in found or len(way) < len(found[value]):
                found[value] = way
    return found


def _edges(tools: Tools, node: Any, opset: dict[str, int], wanted: list[int]) -> Iterator[tuple[str, Edge]]:
    """What an op's schema says of each of its inputs, for those of its outputs that are wanted."""
    if not wanted:
        return
    inner = [attribute for attribute in node.attribute if attribute.HasField("g") or attribute.graphs]
    if inner:
        yield from ((value, "open") for value in (*node.input, *_outer(inner)))
        return
    schema = tools.onnx.defs.get_schema(node.op_type, opset[node.domain], node.domain)
    out = [_category(tools, _formal(schema.outputs, i)) for i in wanted]
    for i, value in enumerate(node.input):
        into = _category(tools, _formal(schema.inputs, i))
        if node.op_type == DFT_FROM:
            yield value, "open"
        elif _step(tools, node) or into == "no" or all(each == "no" for each in out):
            yield value, "no"
        else:
            yield value, "yes" if into == "yes" and "yes" in out else "open"


def _formal(parameters: Any, i: int) -> Any:
    """The declaration of a parameter; the last one of a schema may stand for many."""
    return parameters[min(i, len(parameters) - 1)]


def _category(tools: Tools, parameter: Any) -> Edge:
    kinds = tools.onnx.defs.OpSchema.DifferentiationCategory
    told: dict[Any, Edge] = {kinds.Differentiable: "yes", kinds.NonDifferentiable: "no"}
    return told.get(parameter.differentiation_category, "open")


def _step(tools: Tools, node: Any) -> bool:
    """Whether an op is flat, though its schema calls it differentiable."""
    if node.op_type != "Cast":
        return node.op_type in STEPS
    types = tools.onnx.TensorProto
    to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
    return to not in (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16)


def _outer(attributes: list[Any]) -> Iterator[str]:
    """The names that inner graphs read; those of their own are no names outside."""
    for attribute in attributes:
        for graph in (attribute.g, *attribute.graphs):
            for node in graph.node:
                yield from node.input
                yield from _outer([a for a in node.attribute if a.HasField("g") or a.graphs])
