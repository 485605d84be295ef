"""Time and peak memory of reading and analysing generated graphs of 10^4, 10^5 and 10^6 nodes: both must be linear.

    python -m benchmarks.scale [--sizes 10000 100000 1000000] [--kinds flows choice rounds] [--rounds 3] [--json FILE]

Each graph is made in one process and measured in others, which read a tiny graph of its kind first: so the tables of
ops are loaded, and what is measured is the graph's own. Time is the best of all rounds, memory what the peak grew by.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef, TensorInfo
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_INT64, DT_RESOURCE

from gradpass.flow.analysis import analyse
from gradpass.program import savedmodel, wire

TINY = 100
SHAPE = AttrValue(
    list=AttrValue.ListValue(shape=[TensorShapeProto(dim=[TensorShapeProto.Dim(size=8), TensorShapeProto.Dim(size=8)])])
)


class Builder:
    """Writes a SavedModel whose signature is one function, a variable a layer."""

    def __init__(self) -> None:
        self.function = FunctionDef()
        self.function.signature.name = "__inference_model_1"
        self.function.signature.input_arg.add(name="x", type=DT_FLOAT)
        self.variables = 0

    @property
    def nodes(self) -> int:
        """How many nodes the function has so far."""
        return len(self.function.node_def)

    def node(self, op: str, *inputs: str, result: str, **attrs: Any) -> str:
        """Adds a node with the attributes that TensorFlow writes, and gives the string that names its value."""
        attr = {name: AttrValue(type=value) for name, value in attrs.items()}
        name = f"model/layer_{self.variables}/{op}_{self.nodes}"
        self.function.node_def.append(NodeDef(name=name, op=op, input=inputs, attr={**attr, "_output_shapes": SHAPE}))
        return f"{name}:{result}:0"

    def layer(self, before: str) -> str:
        """A dense layer with a variable of its own and an activation."""
        name = f"w{self.variables}"
        self.function.signature.input_arg.add(name=name, type=DT_RESOURCE)
        self.variables += 1
        weight = self.node("ReadVariableOp", name, result="value", dtype=DT_FLOAT)
        product = self.node("MatMul", before, weight, result="product", T=DT_FLOAT)
        scale = self.node("Const", result="output", dtype=DT_FLOAT)
        scaled = self.node("Mul", product, scale, result="z", T=DT_FLOAT)
        return self.node("Tanh", scaled, result="y", T=DT_FLOAT)

    def flows(self, size: int) -> str:
        """A deep residual network: everything gets its gradient."""
        value = "x"
        while self.nodes < size:
            value = self.node("AddV2", value, self.layer(value), result="z", T=DT_FLOAT)
        return value

    def choice(self, size: int) -> str:
        """The same behind an ArgMax: one cut starves every variable."""
        chosen = self.node("ArgMax", self.flows(size), "x", result="output", T=DT_FLOAT, output_type=DT_INT64)
        return self.node("Cast", chosen, result="y", SrcT=DT_INT64, DstT=DT_FLOAT)

    def rounds(self, size: int) -> str:
        """Many layers side by side, each rounded, and added up in a tree: as many cuts as starved variables."""
        values: deque[str] = deque()
        while self.nodes + len(values) < size:
            values.append(self.node("Round", self.layer("x"), result="y", T=DT_FLOAT))
        while len(values) > 1:
            values.append(self.node("AddV2", values.popleft(), values.popleft(), result="z", T=DT_FLOAT))
        return values[0]

    def write(self, path: Path, result: str) -> None:
        """Writes the folder, with this value as the signature's result."""
        signature = self.function.signature
        signature.output_arg.add(name="y", type=DT_FLOAT)
        self.function.ret["y"] = result
        meta = MetaGraphDef()
        meta.meta_info_def.tags.append("serve")
        meta.graph_def.library.function.append(self.function)
        meta.signature_def["serving_default"].outputs["y"].CopyFrom(TensorInfo(name="call:0", dtype=DT_FLOAT))
        objects = meta.object_graph_def
        root, entry = objects.nodes.add(), objects.nodes.add()
        root.children.add(node_id=1, local_name="signatures")
        entry.children.add(node_id=2, local_name="serving_default")
        objects.nodes.add().bare_concrete_function.concrete_function_name = signature.name
        for i in range(self.variables):
            root.children.add(node_id=len(objects.nodes), local_name=f"w{i}")
            objects.concrete_functions[signature.name].bound_inputs.append(len(objects.nodes))
            variable = objects.nodes.add().variable
            variable.name, variable.dtype, variable.trainable = f"w{i}", DT_FLOAT, True
            variable.shape.CopyFrom(SHAPE.list.shape[0])
        path.mkdir()
        (path / "saved_model.pb").write_bytes(wire.delimited(savedmodel.META_GRAPHS, meta.SerializeToString()))


class Run(NamedTuple):
    """One measured process: its graph and verdict, seconds for each step, and by how many bytes its peak grew."""

    nodes: int
    starved: int
    cuts: int
    read: float
    analyse: float
    peak: int


def make(kind: str, size: int, path: Path) -> None:
    """Writes a graph of a kind, of about that many nodes."""
    builder = Builder()
    builder.write(path, getattr(builder, kind)(size))


def measure(tiny: Path, path: Path) -> Run:
    """Reads and analyses a graph, after a tiny one of its kind."""
    analyse(savedmodel.read(tiny))
    before, start = _peak(), time.perf_counter()
    model = savedmodel.read(path)
    middle = time.perf_counter()
    (verdict,) = analyse(model)
    end = time.perf_counter()
    nodes = len(model.entries["serving_default"].function.nodes)
    starved = sum(target.starved for target in verdict.targets)
    return Run(nodes, starved, len(verdict.cuts), middle - start, end - middle, _peak() - before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alone(task: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process: what this one holds would count as the peak of a fork."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, arguments)


def follow(kind: str, sizes: list[int], rounds: int, say: Callable[[str], None]) -> list[Run]:
    """The best of all rounds for each size, the sizes in turns."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {size: Path(folder) / str(size) for size in {TINY, *sizes}}
        for size, path in paths.items():
            say(f"{kind}: makes {size} nodes")
            alone(make, kind, size, path)
        best: dict[int, Run] = {}
        for turn in range(rounds):
            for size in sizes:
                say(f"{kind}: {size} nodes, round {turn + 1} of {rounds}")
                run = alone(measure, paths[TINY], paths[size])
                best[size] = min(best.get(size, run), run, key=lambda r: r.read + r.analyse)
        return [best[size] for size in sizes]


def main() -> None:
    """Prints each kind's figures per node, and how far the slowest is from the fastest."""
    kinds = ["flows", "choice", "rounds"]
    parser = argparse.ArgumentParser(description="Time and memory per node of generated graphs.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    table = Table(
        "graph",
        "nodes",
        "starved",
        "cuts",
        "read",
        "analyse",
        "µs a node",
        "bytes a node",
        "slowest/fastest",
    )
    figures = []
    with Console(stderr=True).status("") as status:
        for kind in options.kinds:
            runs = follow(kind, options.sizes, options.rounds, status.update)
            each = [(run.read + run.analyse) / run.nodes for run in runs]
            for run, seconds in zip(runs, each, strict=True):
                table.add_row(
                    kind, f"{run.nodes:,}", f"{run.starved:,}", f"{run.cuts:,}", f"{run.read:.2f} s",
                    f"{run.analyse:.2f} s", f"{seconds * 1e6:.1f}", f"{run.peak / run.nodes:,.0f}",
                    f"{max(each) / min(each):.2f}" if run is runs[-1] else "", end_section=run is runs[-1],
                )  # fmt: skip
                figures.append({"kind": kind, **run._asdict()})
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
