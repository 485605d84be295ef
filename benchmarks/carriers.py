"""What a forward pass costs with each carrier: original, bridge, guarded sum, soft; in turns in one process.

    python -m benchmarks.carriers [WORD] [--rounds 15] [--calls 40] [--json FILE]

Nodes are those of the graph that TensorFlow runs, after Grappler, as the runtime itself reports it. Latency is the
median over the rounds of a round's fastest call; the ratio is the median of the ratios of one round, each to the
original beside it, so that what else the machine does falls on both. Ends with 1 where a bridge's graph has other
nodes than the original's. A WORD chooses the models whose names contain it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow.python.eager import context

import gradpass as gp
from benchmarks.models import model as real_model

CARRIERS: dict[str, dict[str, Any]] = {
    "bridge": {},
    "sum": {"carrier": "sum"},
    "soft": {"mode": "soft"},
}
Inputs = dict[str, np.ndarray]


class Model(tf.Module):
    """A model of one function of x [batch, size] and weights [size, size]."""

    def __init__(self, function: Callable[[Any, Any], Any], batch: int, size: int) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.w = tf.Variable(rng.normal(size=[size, size]) / size**0.5, dtype=tf.float32, name="w")
        self.table = tf.Variable(rng.normal(size=[size, size]), dtype=tf.float32, name="table")
        self.function = function
        spec = tf.TensorSpec([batch, size], tf.float32, name="x")
        self.serve = tf.function(self._run, input_signature=[spec])

    def _run(self, x: Any) -> Any:
        return self.function(x, self)


def lookup(x: Any, model: Any) -> Any:
    """A nearest code, looked up."""
    return tf.gather(model.table, tf.argmax(x @ model.w, 1)) @ tf.transpose(model.table)


def thresholds(x: Any, model: Any) -> Any:
    """Three layers of hard units."""
    for _ in range(3):
        x = tf.cast(x @ model.w > 0, tf.float32)
    return x @ model.table


def rounding(x: Any, model: Any) -> Any:
    """A quantised layer between two others."""
    return tf.nn.relu(tf.round(8 * (x @ model.w)) / 8) @ model.table


SMALL = {"lookup": lookup, "thresholds": thresholds, "rounding": rounding}
REAL = ("mobilenet_codebook",)


@dataclass
class Cost:
    """What one carrier costs in one model."""

    model: str
    carrier: str
    nodes: int
    milliseconds: float
    ratio: float


def make(name: str, path: Path) -> Inputs:
    """Writes a model and gives one input of its signature."""
    rng = np.random.default_rng(1)
    if name in SMALL:
        model = Model(SMALL[name], 64, 256)
        tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve})
        return {"x": rng.normal(size=[64, 256]).astype(np.float32)}
    real = real_model(name)
    real.build(path, path)
    return real.inputs(rng)


def nodes(function: Any, inputs: dict[str, Any]) -> Counter[str]:
    """The ops that TensorFlow runs for one call, counted by name: the optimised graph that the runtime reports."""
    context.enable_run_metadata()
    context.export_run_metadata()  # what has been run since it was last asked for
    try:
        function(**inputs)
        ran = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return Counter(node.op for graph in ran.partition_graphs for node in graph.node)


def measure(functions: dict[str, Any], inputs: dict[str, Any], rounds: int, calls: int) -> dict[str, list[float]]:
    """Milliseconds of the fastest call of each round, by variant; all variants in turns, each time in another order."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for turn in range(rounds + 1):
        for name in order:
            best = float("inf")
            for _ in range(calls):
                start = time.perf_counter()
                for value in functions[name](**inputs).values():
                    value.numpy()
                best = min(best, time.perf_counter() - start)
            if turn:  # the first round is warming up
                taken[name].append(1e3 * best)
        order.append(order.pop(0))
    return taken


def costs(name: str, folder: Path, rounds: int, calls: int, say: Callable[[str], None]) -> list[Cost]:
    """The rows of one model."""
    say(f"{name}: making it")
    path = folder / name
    inputs = {key: tf.constant(value) for key, value in make(name, path).items()}
    loaded = {"original": tf.saved_model.load(str(path))}
    for carrier, options in CARRIERS.items():
        say(f"{name}: {carrier}")
        gp.fix(path, folder / f"{name}-{carrier}", cross_check=False, **options)
        loaded[carrier] = tf.saved_model.load(str(folder / f"{name}-{carrier}"))
    functions = {variant: one.signatures["serving_default"] for variant, one in loaded.items()}
    counted = {variant: nodes(function, inputs).total() for variant, function in functions.items()}
    say(f"{name}: calls")
    taken = measure(functions, inputs, rounds, calls)
    return [
        Cost(
            name,
            variant,
            counted[variant],
            statistics.median(times),
            statistics.median(t / o for t, o in zip(times, taken["original"], strict=True)),
        )
        for variant, times in taken.items()
    ]


def main() -> int:
    """Prints the table; gives the exit status."""
    parser = argparse.ArgumentParser(description="Forward cost of original, bridge, guarded sum and soft mode.")
    parser.add_argument("word", nargs="?", default="", help="only models whose names contain it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=40, help="calls a round and variant")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    chosen = [name for name in (*SMALL, *REAL) if options.word in name]
    if not chosen:
        parser.error(f"no model has {options.word!r} in its name; there are {', '.join((*SMALL, *REAL))}")
    rows: list[Cost] = []
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("start") as status:
        for name in chosen:
            rows += costs(name, Path(folder), options.rounds, options.calls, status.update)
    table = Table("model", "carrier", title=f"forward pass, TensorFlow {tf.__version__}")
    for heading in ("nodes", "ms", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.model, row.carrier, f"{row.nodes}", f"{row.milliseconds:.3f}", f"{row.ratio:.3f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    counted = {(row.model, row.carrier): row.nodes for row in rows}
    return int(any(counted[name, "bridge"] != counted[name, "original"] for name in chosen))


if __name__ == "__main__":
    sys.exit(main())
