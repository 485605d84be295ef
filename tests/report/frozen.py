"""Frozen graphs made by hand, and reports on them: what drawings and overlays are tested with, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.graph_pb2 import GraphDef

from gradpass import check
from gradpass.program.model import Model
from gradpass.report.build import build
from gradpass.report.diagnostics import Report, Source
from tests.report.verdicts import cut, model, target, verdict

FLOAT = 1
NASTY = "<script>alert('x')</script>|`tick` **b** [l](u)\n%0A::error\r\\| @me &amp; 'q' \"d\", a:b"


class Frozen:
    """A GraphDef in the making: `node` adds an op on floats."""

    def __init__(self) -> None:
        self.graph = GraphDef()

    def node(self, op: str, name: str, *inputs: str) -> str:
        """Adds a node and gives its name."""
        made = self.graph.node.add(op=op, name=name, input=list(inputs))
        made.attr["dtype" if op == "Placeholder" else "T"].type = FLOAT
        if op == "AddN":
            made.attr["N"].i = len(inputs)
        return name

    def report(self, folder: Path) -> Report:
        """What `gradpass check` says of it."""
        path = folder / "frozen.pb"
        path.write_bytes(self.graph.SerializeToString())
        return check(path)


def chain(folder: Path, before: int = 20, behind: int = 20) -> Report:
    """One path: sines, a rounding, cosines."""
    made = Frozen()
    at = made.node("Placeholder", "x")
    for i in range(before):
        at = made.node("Sin", f"block_{i}/sin", at)
    at = made.node("Round", "quantise/Round", at)
    for i in range(behind):
        at = made.node("Cos", f"tail_{i}/cos", at)
    return made.report(folder)


def web(folder: Path, wide: int = 90) -> Report:
    """Many different ops into a rounding and out of it, some of them linked among each other."""
    made = Frozen()
    ops = ("Sin", "Cos", "Tanh", "Exp", "Sigmoid", "Relu", "Elu", "Abs", "Square")
    x = made.node("Placeholder", "x")
    into: list[str] = []
    for i in range(wide):
        into.append(made.node(ops[i % len(ops)], f"encoder/block_{i}/op", into[i // 2] if into else x))
    hard = made.node("Round", "head/quantise", made.node("AddN", "head/sum", *into))
    out = [made.node(ops[i % len(ops)], f"decoder/block_{i}/op", hard) for i in range(wide)]
    out = [made.node("Mul", f"decoder/block_{i}/mul", name, out[i - 1]) for i, name in enumerate(out)]
    made.node("AddN", "decoder/sum", *out)
    return made.report(folder)


def several() -> Report:
    """Findings of all severities: with and without a node, with and without a line."""
    targets = [target("a", "none"), target("b", "none"), target("c", "zero"), target("dead", "none")]
    function = "__inference_serve_42"
    cuts = [cut("ArgMax", [0, 1], function=function, stack=("call",)), cut("Sign", [2], "zero")]
    report = build(_of_floats(model(orphans=2)), [verdict(targets, cuts=cuts, disconnected=[3])])
    report.diagnostics[0].source = Source("my models/net.py", 42, "    code = tf.argmax(scores, 1)")
    return report


def nasty() -> Report:
    """Names that would end a cell, a tag, a line or a command."""
    found = cut("ArgMax", [0, 1], node=NASTY, path=[NASTY, f"{NASTY}/mul", NASTY, "Mul", NASTY])
    targets = [target(NASTY, "none"), target(f"{NASTY}2", "none", path=NASTY)]
    return build(_of_floats(model({NASTY: "ArgMax"})), [verdict(targets, name=NASTY, cuts=[found])])


def _of_floats(made: Model) -> Model:
    """The model, its nodes with the attribute that says so."""
    program = made.program
    for function in (program.graph, *(program.function(name) for name in program.functions)):
        for node in function.nodes:
            node.kind.attrs["T"] = AttrValue(type=FLOAT)
    return made
