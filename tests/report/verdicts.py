"""Verdicts and models made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.compat.proto.graph_pb2 import GraphDef

from gradpass.flow.verdict import Cut, EntryVerdict, Target
from gradpass.program.graph import Program
from gradpass.program.model import Model, Variable


def target(name: str, state: str = "flows", structure: str | None = None, **changes: Any) -> Target:
    """A float variable of 6 elements."""
    values: dict[str, Any] = {
        "name": name, "path": f"model/{name}", "kind": "variable", "dtype": "float32", "shape": (2, 3), "parameters": 6,
        "state": state, "structure": structure or ("none" if state == "raises" else state), **changes,
    }  # fmt: skip
    return Target(**values)


def cut(op: str, starves: list[int], how: str = "none", node: str | None = None, **changes: Any) -> Cut:
    """An op of the top-level graph that severs some targets."""
    values: dict[str, Any] = {
        "op": op, "node": node or op, "function": None, "stack": (), "how": how, "starves": starves,
        "parameters": 6 * len(starves), "path": ["a", "MatMul", node or op, "Mul", "y"], **changes,
    }  # fmt: skip
    return Cut(**values)


def verdict(targets: list[Target], name: str = "serving_default", **changes: Any) -> EntryVerdict:
    """An entry with the output y."""
    return EntryVerdict(name, ["y"], targets, **changes)


NODES = {
    "AdjustHue": "AdjustHue", "ArgMax": "ArgMax", "Greater": "Greater", "HistogramSummary": "HistogramSummary",
    "Round": "Round", "Sign": "Sign", "while/Round": "Round", "serve/ArgMax": "ArgMax",
}  # fmt: skip
FUNCTION = "__inference_serve_42"


def model(nodes: dict[str, str] | None = None, orphans: int = 0) -> Model:
    """A model whose graph has the nodes given (name to op), and float variables of 6 elements that nobody uses."""
    graph = GraphDef()
    function = graph.library.function.add()
    function.signature.name = FUNCTION
    for name, op in (NODES if nodes is None else nodes).items():
        graph.node.add(name=name, op=op)
        function.node_def.add(name=name, op=op)
    variables = {i: Variable(i, f"orphan_{i}", f"path/orphan_{i}", 1, (2, 3), True) for i in range(orphans)}
    return Model(Path("saved_model"), "savedmodel", b"", Program(graph), variables, {}, "2.21")
