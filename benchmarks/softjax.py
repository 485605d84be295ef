"""gradpass's soft order and choice against SoftJAX: the same function, mode and absolute softness, in turns in one run.

    python -m benchmarks.softjax [--sizes 16,128,...] [--rounds 3] [--seconds 0.3] [--only WORD] [--json FILE]

Values and gradients are compared in float64, times and peak memory are taken in float32, both sides compiled and warm
(tf.function, jax.jit) and given a batch of rows, one process for each side. The last table compares the fastest of the
methods that either has for the same function; the command ends with 1 where the goal is missed: equal numbers (to 1e-9
of the largest), and no slower at any n >= 1,000.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.softjax_worker import MODES

VERSION = "0.1.1"
HINT = (
    f"softjax {VERSION} is not installed here. It wants Python 3.12: make an environment of its own with "
    f"`python3.12 -m venv DIR && DIR/bin/pip install softjax=={VERSION} tensorflow rich`, and run "
    "`DIR/bin/python -m benchmarks.softjax` from the root of the repository."
)
SAME = [
    *(f"argmax:{mode}" for mode in MODES),
    *(f"top_k:{mode}" for mode in MODES),
    *(f"argsort:{mode}" for mode in MODES),
    *(f"quantile:{mode}" for mode in MODES),
    "sort",
    "rank",
    "sort-projected",
    "rank-projected",
]
# Weights of n^2 on both sides; the network keeps as many for each of its 50 and more stages.
LARGEST = {"argsort": 1024, "rank:sorting_network/smooth": 1024}
METHODS = [
    "softsort/smooth",
    "neuralsort/smooth",
    *(f"fast_soft_sort/{mode}" for mode in MODES.values()),
    "sorting_network/smooth",
]
# A call works on a batch: of as many entries where both sides take O(n log n), of fewer where theirs takes n^2.
ENTRIES, ENTRIES_OF_PAIRS = 1 << 18, 1 << 14
LINEAR = ("argmax", "top_k", "quantile")
EQUAL = 1e-9


def rows_of(case: str, n: int) -> int:
    """How many rows of n entries a call gets."""
    return max(1, (ENTRIES if case.partition(":")[0] in LINEAR else ENTRIES_OF_PAIRS) // n)


class Side:
    """One of the two processes."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.softjax_worker", name]
        # A pipe that nobody reads would fill up and stop it; the file lives as long as the process.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def ask(self, **question: Any) -> dict[str, float]:
        """The answer to one question; ends the run with the process's last words where there is none."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise SystemExit(f"{question}: {self.errors.read()[-2000:]}")
        found: dict[str, float] = json.loads(line)
        return found


@dataclass
class Row:
    """A case at a shape: seconds and bytes of both, and how far values and gradients are apart (None: not the same)."""

    case: str
    rows: int
    n: int
    figures: dict[str, dict[str, float]]
    apart: dict[str, float] | None = None

    def ratio(self, what: str) -> float:
        """Their figure over ours: more than 1 is in our favour."""
        return self.figures["theirs"][what] / max(self.figures["ours"][what], 1e-9)


def difference(folder: Path) -> dict[str, float]:
    """The largest difference of values and of gradients, in units of the largest of theirs, or of 1."""
    mine, other = (np.load(folder / f"{name}.npz") for name in ("ours", "theirs"))
    return {k: float(np.abs(mine[k] - other[k]).max() / max(np.abs(other[k]).max(), 1.0)) for k in mine.files}


def in_turns(
    sides: dict[str, Side], cases: dict[str, str], shape: dict[str, int], rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """The medians, ours and theirs, over rounds in which both answer, one after the other."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            taken[name].append(side.ask(case=cases[name], **shape, dtype="float32", seconds=seconds))

    def median(answers: list[dict[str, float]]) -> dict[str, float]:
        return {key: float(np.median([answer[key] for answer in answers])) for key in answers[0]}

    return {name: median(answers) for name, answers in taken.items()}


def same(sides: dict[str, Side], case: str, n: int, rounds: int, seconds: float) -> Row:
    """A case that both have: differences first, then times."""
    shape = {"rows": rows_of(case, n), "n": n}
    with tempfile.TemporaryDirectory() as folder:
        for name, side in sides.items():
            side.ask(case=case, **shape, dtype="float64", seconds=0, out=str(Path(folder) / f"{name}.npz"))
        apart = difference(Path(folder))
    return Row(case, shape["rows"], n, in_turns(sides, dict.fromkeys(sides, case), shape, rounds, seconds), apart)


def fastest(sides: dict[str, Side], function: str, n: int, rounds: int, seconds: float) -> Row:
    """The method of ours against the method of theirs that take the least time forward and backward."""
    shape = {"rows": rows_of(function, n), "n": n}
    methods = [f"{function}:{m}" for m in METHODS if n <= LARGEST.get(f"{function}:{m}", n)]
    best = {}
    for name, cases in (("ours", [function, f"{function}-projected"]), ("theirs", methods)):
        tried = {case: sides[name].ask(case=case, **shape, dtype="float32", seconds=0.1)["both"] for case in cases}
        best[name] = min(tried, key=tried.__getitem__)
    figures = in_turns(sides, best, shape, rounds, seconds)
    return Row(f"{best['ours']} against {best['theirs']}", shape["rows"], n, figures)


def shown(rows: list[Row], title: str) -> Table:
    """Rows as a table."""
    table = Table(
        "case", "rows", "n", "values", "gradients", "forward", "ratio", "with backward", "ratio", "peak MB", "theirs"
    )
    table.title = title
    for row in rows:
        apart = ["-" if row.apart is None else f"{row.apart[what]:.0e}" for what in ("value", "gradient")]
        times = [
            cell
            for what in ("forward", "both")
            for cell in (f"{1e3 * row.figures['ours'][what]:.2f} ms", f"{row.ratio(what):.2f}")
        ]
        peaks = [f"{row.figures[side]['peak'] / 1e6:.1f}" for side in ("ours", "theirs")]
        table.add_row(row.case, f"{row.rows:,}", f"{row.n:,}", *apart, *times, *peaks)
    return table


def missed(rows: list[Row], best: list[Row]) -> list[str]:
    """What the goal demands and a row does not show."""
    far = [f"{r.case} at {r.n}: differs" for r in rows if r.apart and max(r.apart.values()) > EQUAL]
    slow = [r for r in (*rows, *best) if r.n >= 1000 and r.ratio("both") < 1]
    return [*far, *(f"{r.case} at {r.n}: {r.ratio('both'):.2f}" for r in slow)]


def main() -> int:
    """Prints the tables; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description="Compares soft order and choice with SoftJAX.")
    parser.add_argument("--sizes", default="16,128,1024,4096,16384")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each figure of a round")
    parser.add_argument("--only", default="", help="cases whose names contain this word")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    try:
        found = importlib.metadata.version("softjax")
    except importlib.metadata.PackageNotFoundError:
        print(HINT, file=sys.stderr)
        return 2
    if found != VERSION:
        print(f"softjax {found} is installed, and the figures are for {VERSION}", file=sys.stderr)
        return 2
    sizes = [int(n) for n in options.sizes.split(",")]
    sides = {name: Side(name) for name in ("ours", "theirs")}
    rows: list[Row] = []
    best: list[Row] = []
    with Console(stderr=True).status("start") as status:
        for n in sizes:
            for case in SAME:
                if options.only in case and n <= LARGEST.get(case.partition(":")[0], n) and n >= 8:
                    status.update(f"{case}, n = {n:,}")
                    rows.append(same(sides, case, n, options.rounds, options.seconds))
            for function in ("sort", "rank"):
                if options.only in function and n >= 1000:
                    status.update(f"{function}, all of their methods, n = {n:,}")
                    best.append(fastest(sides, function, n, options.rounds, options.seconds))
    console = Console(width=150)
    console.print(shown(rows, f"ratios: SoftJAX {VERSION} over gradpass; differences of the largest entry"))
    console.print(shown(best, "against the fastest of their methods and modes"))
    if options.json:
        figures = {"same": [asdict(row) for row in rows], "fastest": [asdict(row) for row in best]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    failures = missed(rows, best)
    for failure in failures:
        console.print(f"missed: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
