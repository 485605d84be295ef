"""`gradpass check` against TensorFlow's own answer, each as a whole process, in turns: time and peak memory.

    python -m benchmarks.speed_check [--application MobileNetV3Small | EfficientNetB7 | ...] [--rounds 5] [--json FILE]

TensorFlow's answer is what a user would write to learn which variables get no gradient: load the SavedModel, call its
signature in a function, `tf.gradients` with respect to all trainable variables. Python and the files are warm: one
round of each goes before those that count.
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
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table

# TensorFlow stays out of this process: what it holds counts as the peak of each process it starts.
EXPORT = """
import sys, keras
keras.utils.set_random_seed(0)
getattr(keras.applications, sys.argv[1])(weights=None).export(sys.argv[2], verbose=False)
"""
TENSORFLOW = """
import sys, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
signature = loaded.signatures["serving_default"]

@tf.function(input_signature=[signature.structured_input_signature[1]])
def gradients(inputs):
    found = tf.gradients(list(signature(**inputs).values()), list(signature.trainable_variables))
    if any(gradient is None for gradient in found):
        sys.exit(1)
    return []

gradients.get_concrete_function()
"""


def contestants(path: Path) -> dict[str, list[str]]:
    """Gives the two commands that answer the same question."""
    ways = {"gradpass": ["-m", "gradpass", "check"], "TensorFlow": ["-c", TENSORFLOW]}
    return {name: [sys.executable, *way, str(path)] for name, way in ways.items()}


def measure(command: list[str], output: IO[str] | int = subprocess.DEVNULL) -> tuple[float, float]:
    """Runs a command and gives its wall time in seconds and its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:  # both must find that no application has a severed gradient
        raise SystemExit(error.decode())
    unit = 1 if sys.platform == "darwin" else 1024
    return wall, usage.ru_maxrss * unit / 1e6


def compare(path: Path, rounds: int, say: Callable[[str], None]) -> dict[str, tuple[float, float]]:
    """Runs both in turns and gives the medians of time and memory."""
    commands = contestants(path)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            say(f"{name}, round {turn} of {rounds}")
            runs[name].append(measure(command))
    return {
        name: (statistics.median(run[0] for run in taken[1:]), statistics.median(run[1] for run in taken[1:]))
        for name, taken in runs.items()
    }


def main() -> None:
    """Prints the medians and their ratios."""
    parser = argparse.ArgumentParser(description="Times `gradpass check` against loading and tf.gradients.")
    parser.add_argument("--application", default="MobileNetV3Small", help="a name of keras.applications")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("export") as status:
        path = Path(folder) / options.application
        subprocess.run([sys.executable, "-c", EXPORT, options.application, str(path)], check=True)
        medians = compare(path, options.rounds, status.update)
    table = Table("", "time", "peak memory", title=f"{options.application}, medians of {options.rounds}")
    for name, (seconds, megabytes) in medians.items():
        table.add_row(name, f"{seconds:.2f} s", f"{megabytes:.0f} MB")
    ours, theirs = medians["gradpass"], medians["TensorFlow"]
    table.add_row("ratio", f"{theirs[0] / ours[0]:.1f}", f"{theirs[1] / ours[1]:.1f}")
    Console().print(table)
    if options.json:
        figures = {name: {"seconds": median[0], "megabytes": median[1]} for name, median in medians.items()}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
