"""Shows what a repair changed in a graph, as a unified diff of its nodes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.program.graph import Program

GRAPH = "graph"  # how the top-level graph is called among the functions


def graph_diff(before: Program, after: Program) -> str:
    """The nodes added, removed and re-pointed, function by function."""
    old, new = _texts(before), _texts(after)
    lines: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if a != b:
            names = f"before/{name}" if a else "/dev/null", f"after/{name}" if b else "/dev/null"
            lines += difflib.unified_diff(a or [], b or [], *names, lineterm="", n=1)
    return "\n".join(lines)


def _texts(program: Program) -> dict[str, list[str]]:
    """The top-level graph and every function as lines: one a node, then what a function returns."""
    texts = {name: _lines(f.node_def, f.ret) for name, f in program.functions.protos.items()}
    return {GRAPH: _lines(program.graph.proto.node, {}), **texts}


def _lines(nodes: Iterable[NodeDef], results: Mapping[str, str]) -> list[str]:
    lines = []
    for node in nodes:
        called = f" {node.attr['f'].func.name}" if "f" in node.attr else ""
        custom = f" gradient={node.attr['_gradient_op_type'].s.decode()}" if "_gradient_op_type" in node.attr else ""
        lines.append(f"{node.name} = {node.op}({', '.join(node.input)}){called}{custom}")
    return lines + [f"return {key} = {value}" for key, value in sorted(results.items())]
