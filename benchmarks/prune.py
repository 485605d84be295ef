"""What `gradpass prune` saves, and what it costs: `python -m benchmarks.prune [WORD] [--rounds 9] [--json FILE]`.

Each model is exported as its users do, with random weights, and pruned by the command in a process of its own, whose
time and peak memory are taken. Then original and pruned are loaded, each in a process of its own and in turns, for the
time and the memory that a consumer needs; and both are called in turns in one process. Outputs must be the same bits,
in TensorFlow 2 and in a TF1 session.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# TensorFlow stays out of this process: what it holds counts as the peak of each process that it starts.
EXPORT = """
import sys, keras
keras.utils.set_random_seed(0)
getattr(keras.applications, sys.argv[1])(weights=None).export(sys.argv[2], verbose=False)
"""
BERT = """
import sys, keras, tensorflow as tf
keras.utils.set_random_seed(0)
layers, width, heads, words = 4, 256, 4, 30522
inputs = keras.Input((128,), dtype="int32")
x = embedded = keras.layers.Embedding(words, width, name="words")(inputs)
for i in range(layers):
    attended = keras.layers.MultiHeadAttention(heads, width // heads, name=f"attention_{i}")(x, x)
    x = keras.layers.LayerNormalization()(x + attended)
    x = keras.layers.LayerNormalization()(x + keras.layers.Dense(width)(keras.layers.Dense(4 * width, "gelu")(x)))
encoder = keras.Model(inputs, {
    "sequence": x,
    "pooled": keras.layers.Dense(width, "tanh", name="pooler")(x[:, 0]),
    "words": keras.layers.Dense(words, name="language_model")(x),
})
ids = keras.Input((128,), dtype="int32", name="ids")

class Tagger(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder, self.tags = encoder, keras.layers.Dense(9, name="tags")

    def call(self, ids):
        return self.tags(self.encoder(ids)["sequence"])

model = Tagger()
model(tf.zeros([1, 128], tf.int32))
model.export(sys.argv[2], verbose=False)
"""
MODELS = dict.fromkeys(("ResNet50", "EfficientNetB0", "MobileNetV2"), EXPORT) | {"BERT with unused heads": BERT}
LOAD = """
import sys, time
import tensorflow as tf
start = time.perf_counter()
loaded = tf.saved_model.load(sys.argv[1])
print(time.perf_counter() - start)
"""
CALL = """
import json, statistics, sys, time
import numpy as np, tensorflow as tf
paths, rounds = sys.argv[1:3], int(sys.argv[3])
loaded = [tf.saved_model.load(path) for path in paths]
functions = [one.signatures["serving_default"] for one in loaded]
((name, spec),) = functions[0].structured_input_signature[1].items()
rng = np.random.default_rng(0)
shape = [2 if size is None else size for size in spec.shape]
value = rng.integers(0, 1000, shape) if spec.dtype.is_integer else rng.random(shape)
x = tf.constant(value, spec.dtype)
outputs = [list(function(**{name: x}).values()) for function in functions]
same = all(np.array_equal(a, b) for a, b in zip(*outputs))
for path in paths:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def["serving_default"]
        fetches = [info.name for info in signature.outputs.values()]
        outputs.append(session.run(fetches, {signature.inputs[name].name: x.numpy()}))
same = same and all(np.array_equal(a, b) for a, b in zip(*outputs[2:]))
taken = [[], []]
for turn in range(rounds + 1):
    for i in (turn % 2, 1 - turn % 2):
        start = time.perf_counter()
        for output in functions[i](**{name: x}).values():
            output.numpy()
        if turn:
            taken[i].append(time.perf_counter() - start)
ratio = statistics.median(b / a for a, b in zip(*taken))
print(json.dumps({"same": bool(same), "forward": [statistics.median(each) for each in taken], "ratio": ratio}))
"""


@dataclass
class Row:
    """One model: sizes before and after, the command's seconds and MB, a consumer's before and after."""

    model: str
    bytes: tuple[int, int]
    nodes: tuple[int, int]
    variables: tuple[int, int]
    prune_seconds: float
    prune_mb: float
    load_seconds: tuple[float, float]
    load_mb: tuple[float, float]
    forward_seconds: tuple[float, float]
    forward_ratio: float
    same: bool


def run(*words: str) -> tuple[str, float, float]:
    """Runs Python; gives what it prints, its wall time in seconds and its peak memory in MB."""
    start = time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=error, env=environment, text=True
        )
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            error.seek(0)
            raise SystemExit(f"{' '.join(words)[:200]} ended with {process.returncode}: {error.read()[-2000:]}")
    return text, time.perf_counter() - start, usage.ru_maxrss / 1024


def measure(name: str, folder: Path, rounds: int, say: Callable[[str], None]) -> Row:
    """The row of one model."""
    say(f"{name}: exporting it")
    before, after = str(folder / name), str(folder / f"{name}-pruned")
    run("-c", MODELS[name], name, before)
    say(f"{name}: pruning it")
    command = ("-m", "gradpass", "prune", before, "-o", after, "--no-crosscheck", "--format", "json", "--force")
    taken = [run(*command) for _ in range(3)]
    told: dict[str, Any] = json.loads(taken[0][0])
    loads: dict[str, list[tuple[float, float]]] = {before: [], after: []}
    for turn in range(rounds):
        say(f"{name}: loading, round {turn + 1}")
        for path in (before, after) if turn % 2 else (after, before):
            text, _, mb = run("-c", LOAD, path)
            loads[path].append((float(text), mb))
    say(f"{name}: calls")
    called = json.loads(run("-c", CALL, before, after, str(4 * rounds))[0])

    def both(key: str) -> tuple[int, int]:
        return told["before"][key], told["after"][key]

    def medians(place: int) -> tuple[float, float]:
        return tuple(statistics.median(one[place] for one in loads[path]) for path in (before, after))  # type: ignore[return-value]

    return Row(
        name, both("bytes"), both("nodes"), both("variables"),
        statistics.median(seconds for _, seconds, _ in taken), max(mb for _, _, mb in taken),
        medians(0), medians(1), tuple(called["forward"]), called["ratio"], called["same"],
    )  # fmt: skip


def main() -> int:
    """Prints the table; 1 where an output is not the same."""
    parser = argparse.ArgumentParser(description="What pruning saves on disk, in memory and in time.")
    parser.add_argument("word", nargs="?", default="", help="only models whose names contain it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("start") as status:
        for name in MODELS:
            if options.word in name:
                rows.append(measure(name, Path(folder), options.rounds, status.update))
    table = Table("model", title="before → after; prune in a process of its own, without the cross-check")
    headings = ("MB on disk", "nodes", "variables", "prune s", "prune MB", "load s", "load MB", "forward", "same bits")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        megabytes = [f"{size / 1e6:.1f}" for size in row.bytes]
        table.add_row(
            row.model,
            " → ".join(megabytes),
            "{:,} → {:,}".format(*row.nodes),
            "{} → {}".format(*row.variables),
            f"{row.prune_seconds:.1f}",
            f"{row.prune_mb:.0f}",
            "{:.2f} → {:.2f}".format(*row.load_seconds),
            "{:.0f} → {:.0f}".format(*row.load_mb),
            f"{row.forward_ratio:.3f}",
            "yes" if row.same else "NO",
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(not all(row.same for row in rows))


if __name__ == "__main__":
    sys.exit(main())
