"""Shows what a repair changed in a graph, as a unified diff of its nodes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from tensorboard.compat.proto.function_pb2 import FunctionDef

from gradpass.program.graph import Program


def graph_diff(before: Program, after: Program) -> str:
    """The nodes added, removed and re-pointed, function by function."""
    old, new = before.functions.protos, after.functions.protos
    lines: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if (
            a is not None
            and b is not None
            and a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)
        ):
            continue
        names = f"before/{name}" if a else "/dev/null", f"after/{name}" if b else "/dev/null"
        lines += difflib.unified_diff(list(_lines(a)), list(_lines(b)), *names, lineterm="", n=1)
    return "\n".join(lines)


def _lines(function: FunctionDef | None) -> Iterator[str]:
    """A function as text: one line a node, then what it returns."""
    if function is None:
        return
    for node in function.node_def:
        called = f" {node.attr['f'].func.name}" if "f" in node.attr else ""
        custom = f" gradient={node.attr['_gradient_op_type'].s.decode()}" if "_gradient_op_type" in node.attr else ""
        yield f"{node.name} = {node.op}({', '.join(node.input)}){called}{custom}"
    for key, value in sorted(function.ret.items()):
        yield f"return {key} = {value}"
