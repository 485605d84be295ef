"""What `gradpass prune` takes off models as Keras exports them, and what that is worth to who loads and runs them.

    python -m benchmarks.prune [WORD] [--rounds 9] [--calls 5] [--json FILE]

Each model is exported by a process of its own, and pruned by `gradpass prune --no-crosscheck` as a whole process, whose
time and peak memory are told. Loading is the median of the rounds, original and pruned in turns in one process; the
forward time is the median over the rounds of a round's fastest call, its ratio the median of the ratios of one round,
so that what else the machine does falls on both. The memory of a model is the peak of a process that loads it and runs
it once. Ends with 1 where an output of one differs by a bit from the other's, or where no byte is saved. A WORD chooses
the models whose names contain it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.speed_check import EXPORT, measure

# TensorFlow stays out of this process: what it holds counts as the peak of each process it starts.
BERT = """
import sys, tensorflow as tf
from tests.pruning.models import Bert

module = Bert(call_pooler=True, vocabulary=30522, size=512, layers=4, length=64)
tf.saved_model.save(module, sys.argv[2], signatures=module.serve)
"""
MODELS = {
    **dict.fromkeys(("ResNet50", "EfficientNetB0", "MobileNetV2"), EXPORT),
    "BERT-unused-heads": BERT,
}
LOAD = """
import sys
from benchmarks.prune import inputs_of
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
function = loaded.signatures["serving_default"]
function(**inputs_of(function))
"""


@dataclass
class Pair:
    """A figure of the original, and of the pruned model."""

    before: float
    after: float


@dataclass
class Row:
    """What pruning did to one model. Sizes and memory are in MB, `load` in seconds, `forward` in milliseconds."""

    model: str
    disk: Pair
    nodes: Pair
    variables: Pair
    load: Pair
    forward: Pair
    ratio: float
    memory: Pair
    seconds: float
    peak: float
    same: bool


def inputs_of(function: Any) -> dict[str, Any]:
    """A batch of one for a signature: seeded noise, or small integers."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    given = {}
    for name, spec in function.structured_input_signature[1].items():
        shape = [size or 1 for size in spec.shape]
        value = rng.integers(0, 30, size=shape) if spec.dtype.is_integer else rng.normal(size=shape)
        given[name] = tf.constant(value, spec.dtype)
    return given


def compared(paths: list[str], rounds: int, calls: int) -> tuple[list[list[float]], list[list[float]], bool]:
    """Seconds to load each, milliseconds of a forward pass of each, by round, and whether all outputs are the same."""
    import tensorflow as tf

    from benchmarks.carriers import measure as forward

    loads: list[list[float]] = [[] for _ in paths]
    held: list[Any] = []
    for turn in range(rounds + 1):
        held = []
        for path, taken in zip(paths, loads, strict=True):
            start = time.perf_counter()
            held.append(tf.saved_model.load(path))
            if turn:  # the first round is warming up
                taken.append(time.perf_counter() - start)
    functions = {path: one.signatures["serving_default"] for path, one in zip(paths, held, strict=True)}
    given = inputs_of(functions[paths[0]])
    answers = [{k: v.numpy().tobytes() for k, v in function(**given).items()} for function in functions.values()]
    taken_by = forward(functions, given, rounds, calls)
    return loads, [taken_by[path] for path in paths], all(answer == answers[0] for answer in answers)


def row(name: str, folder: Path, rounds: int, calls: int, say: Callable[[str], None]) -> Row:
    """Exports, prunes and measures one model."""
    path, out, told = folder / name, folder / f"{name}-pruned", folder / f"{name}.json"
    say(f"{name}: export")
    subprocess.run([sys.executable, "-c", MODELS[name], name, str(path)], check=True, stdout=subprocess.DEVNULL)
    say(f"{name}: prune")
    command = ["-m", "gradpass", "prune", str(path), "--no-crosscheck", "-o", str(out), "--format", "json"]
    with told.open("w", encoding="utf-8") as file:
        seconds, peak = measure([sys.executable, *command], file)
    report = json.loads(told.read_text(encoding="utf-8"))
    say(f"{name}: memory")
    memory = [measure([sys.executable, "-c", LOAD, str(each)])[1] for each in (path, out)]
    say(f"{name}: loading and forward passes")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        loads, forwards, same = worker.submit(compared, [str(path), str(out)], rounds, calls).result()
    before, after = report["before"], report["after"]
    return Row(
        name,
        Pair(before["bytes"] / 1e6, after["bytes"] / 1e6),
        Pair(before["nodes"], after["nodes"]),
        Pair(before["variables"], after["variables"]),
        Pair(*map(statistics.median, loads)),
        Pair(*map(statistics.median, forwards)),
        statistics.median(a / b for b, a in zip(*forwards, strict=True)),
        Pair(*memory),
        seconds,
        peak,
        same,
    )


def main() -> int:
    """Prints the table; gives the exit status."""
    parser = argparse.ArgumentParser(description="Models before and after `gradpass prune`.")
    parser.add_argument("word", nargs="?", default="", help="only models whose names contain it")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=5, help="forward passes a round")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    chosen = [name for name in MODELS if options.word in name]
    if not chosen:
        parser.error(f"no model has {options.word!r} in its name; there are {', '.join(MODELS)}")
    rows: list[Row] = []
    with Console(stderr=True).status("start") as status:
        for name in chosen:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(row(name, Path(folder), options.rounds, options.calls, status.update))
    Console().print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n", encoding="utf-8")
    return int(any(not each.same or each.disk.after >= each.disk.before for each in rows))


def table(rows: list[Row]) -> Table:
    """The rows as they are printed."""
    found = Table("model", title="before → after `gradpass prune`")
    for heading in ("MB on disk", "nodes", "variables", "load s", "forward ms", "ratio", "MB loaded", "pruned in"):
        found.add_column(heading, justify="right")
    found.add_column("bits")
    for each in rows:
        found.add_row(
            each.model,
            *(
                f"{pair.before:{form}} → {pair.after:{form}}"
                for pair, form in (
                    (each.disk, ",.1f"),
                    (each.nodes, ",.0f"),
                    (each.variables, ",.0f"),
                    (each.load, ".2f"),
                    (each.forward, ".2f"),
                )
            ),
            f"{each.ratio:.3f}",
            f"{each.memory.before:,.0f} → {each.memory.after:,.0f}",
            f"{each.seconds:.1f} s, {each.peak:,.0f} MB",
            "same" if each.same else "differ",
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
