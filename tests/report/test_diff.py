"""The diff of two graphs names what was added, removed and re-pointed, and nothing else."""

from __future__ import annotations

from tensorboard.compat.proto.graph_pb2 import GraphDef

from gradpass.program.graph import Program
from gradpass.report.diff import graph_diff


def program(*nodes: tuple[str, str, list[str]], inner: str = "Neg") -> Program:
    """A graph of (name, op, inputs), with one function that holds one node."""
    graph = GraphDef()
    for name, op, inputs in nodes:
        graph.node.add(name=name, op=op, input=inputs)
    function = graph.library.function.add()
    function.signature.name = "inner"
    function.node_def.add(name="n", op=inner)
    return Program(graph)


BEFORE = [("x", "Placeholder", []), ("r", "Round", ["x"]), ("y", "Neg", ["r"])]


def test_equal_programs_have_no_diff() -> None:
    assert graph_diff(program(*BEFORE), program(*BEFORE)) == ""


def test_a_node_put_between_is_shown_with_its_consumer() -> None:
    after = [*BEFORE[:2], ("s", "IdentityN", ["r", "x"]), ("y", "Neg", ["s"])]
    assert graph_diff(program(*BEFORE), program(*after)).splitlines() == [
        "--- before/graph",
        "+++ after/graph",
        "@@ -2,2 +2,3 @@",
        " r = Round(x)",
        "-y = Neg(r)",
        "+s = IdentityN(r, x)",
        "+y = Neg(s)",
    ]


def test_a_changed_function_is_shown_under_its_name() -> None:
    lines = graph_diff(program(*BEFORE), program(*BEFORE, inner="Abs")).splitlines()
    assert lines[:2] == ["--- before/inner", "+++ after/inner"] and lines[-2:] == ["-n = Neg()", "+n = Abs()"]
