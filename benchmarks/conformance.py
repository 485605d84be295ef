"""The verdict against TensorFlow's on every variable and input of real models with random weights.

    python -m benchmarks.conformance [MODEL ...] [--list] [--json FILE]

Each model of the zoo (or those whose names contain a given word) is made in a process and compared there as a live
function, and again as the SavedModel that it becomes, in another process that loads it. `state` is asked by an eager
tape, `structure` by `tf.gradients` on the inlined graph (`truth.py`). It ends with 1 if anything disagrees, or if a
model cannot be made or asked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.zoo import zoo

WIDE = 220  # of a table that goes to a file, where no cell may break
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
BATCH = 6  # models that one process makes or loads; importing what it needs takes longer than most models


@dataclass
class Row:
    """What came out for a model, live or loaded. `by_data` counts gradients that flow and were zeros on all data."""

    model: str
    how: str
    nodes: int = 0
    targets: int = 0
    agree: int = 0
    disagree: list[str] = field(default_factory=list)
    by_data: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    tensorflow_seconds: float = 0.0
    raised: str | None = None
    failed: str | None = None

    @property
    def good(self) -> bool:
        return self.failed is None and not self.disagree


def truths(how: str, folder: str, names: list[str]) -> list[dict[str, Any] | str]:
    """Asks about models, in one process as long as that lives; where it ends too early, the last line that it said."""
    found: list[dict[str, Any] | str] = []
    while len(found) < len(names):
        command = [sys.executable, "-m", "benchmarks.truth", how, folder, *names[len(found) :]]
        done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if len(found) < len(names):
            found.append((done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1])
    return found


def compared(row: Row, told: dict[str, Any]) -> None:
    """Counts the targets on which both answers are the same, and names those on which one is not."""
    for target in told["targets"]:
        ours, tensorflow = "/".join(target["ours"]), "/".join(target["tensorflow"])
        if ours == tensorflow:
            row.agree += 1
        else:
            row.disagree.append(f"{target['kind']} {target['path']}: {ours}, TensorFlow {tensorflow}")
        row.by_data += target["by_data"]
    row.disagree += [f"{name}: not listed" for name in told["unasked"]]
    row.targets = len(told["targets"])
    row.answers = dict(Counter("/".join(target["ours"]) for target in told["targets"]))
    row.nodes, row.seconds = told["nodes"], told["seconds"]
    row.raised, row.tensorflow_seconds = told["raised"], told["tensorflow_seconds"]


def examine(names: list[str]) -> list[Row]:
    """Makes models and compares each live, then loaded."""
    with tempfile.TemporaryDirectory() as folder:
        told = {how: truths(how, folder, names) for how in ("live", "loaded")}
    rows = []
    for i, name in enumerate(names):
        for how, answers in told.items():
            answer, row = answers[i], Row(name, how)
            if isinstance(answer, str):
                row.failed = answer
            else:
                compared(row, answer)
            rows.append(row)
    return rows


def batches(names: list[str]) -> Iterator[list[str]]:
    """Groups what one process may do: models of one family, since a family may change the process to its needs."""
    for _, family in groupby(names, lambda name: name.partition("/")[0]):
        members = list(family)
        for i in range(0, len(members), BATCH):
            yield members[i : i + BATCH]


def table(rows: list[Row]) -> Table:
    """Draws the table."""
    drawn = Table(box=box.MARKDOWN)
    for head in ("model", "", "nodes", "targets", "agree", "disagree", "state/structure", "gradpass", "TensorFlow"):
        drawn.add_column(head, justify="left" if head in {"model", "", "state/structure"} else "right")
    for row in rows:
        verdicts = ", ".join(f"{count} {answer}" for answer, count in sorted(row.answers.items()))
        verdicts += f" ({row.by_data} zero by data)" if row.by_data else ""
        counts = f"{row.nodes:,}", str(row.targets), str(row.agree), str(len(row.disagree))
        times = f"{row.seconds:.3f} s", f"{row.tensorflow_seconds:.2f} s"
        drawn.add_row(row.model, row.how, *counts, row.failed or verdicts, *times, style=None if row.good else "red")
    return drawn


def main() -> None:
    """Examines the chosen models and prints the table."""
    parser = argparse.ArgumentParser(description="Compares gradpass with TensorFlow on every target of real models.")
    parser.add_argument("words", nargs="*", metavar="MODEL", help="only models whose names contain this")
    parser.add_argument("--list", action="store_true", help="print the names of the models, and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file for the rows")
    options = parser.parse_args()
    names = [name for name in zoo() if not options.words or any(word in name for word in options.words)]
    if not names:
        parser.error("no model has such a name; --list prints all")
    if options.list:
        print("\n".join(names))
        return
    rows: list[Row] = []
    for batch in batches(names):
        print(", ".join(batch), file=sys.stderr, flush=True)
        rows += examine(batch)
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    console.print(table(rows))
    for row in rows:
        for line in row.disagree:
            console.print(f"{row.model} {row.how}: {line}", style="red", markup=False)
    print(f"{sum(row.agree for row in rows)} of {sum(row.targets for row in rows)} targets agree")
    sys.exit(0 if all(row.good for row in rows) else 1)


if __name__ == "__main__":
    main()
