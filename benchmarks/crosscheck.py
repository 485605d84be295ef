"""What the cross-check costs beside tf2onnx's own conversion, and how far two autodiffs agree on real networks.

    python -m benchmarks.crosscheck [WORD] [--rounds 3] [--json FILE]

Cost: each application gets a head that looks up a codebook by argmax, so that all of its variables starve, and is
repaired by `gradpass fix --no-crosscheck`. Then `python -m tf2onnx.convert` of the original and `gradpass crosscheck`
of both run in turns, as whole processes; the ratio is the median of the ratios of one round. Ends with 1 where a check
fails, or the ratio of the ResNet50 is 3 or more.

Agreement: TensorFlow's gradient of the application itself (random weights) against that of onnxruntime-training's
GradientGraphBuilder, by a Python that GRADPASS_AUTODIFF_PYTHON names: the relative difference by norm of the gradient
of each variable, at several points. Among a million relus one may lie within rounding of its kink, and then all that is
before it differs by a thousandth at that point; so the point with the least is told, and how many of all are within
1e-5. Ends with 1 where no point of an application is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.speed_check import measure

# TensorFlow stays out of this process: what it holds counts as the peak of each process it starts.
EXPORT = """
import sys, keras, tensorflow as tf

class Codebook(keras.layers.Layer):
    def build(self, shape):
        self.scores = self.add_weight(shape=(shape[-1], 64), name="scores")
        self.codes = self.add_weight(shape=(64, 16), name="codes")

    def call(self, x):
        return tf.gather(self.codes, tf.argmax(x @ self.scores, axis=-1))

keras.utils.set_random_seed(0)
name, size, path, headed = sys.argv[1:]
shape = (int(size), int(size), 3)
options = {"include_top": False, "pooling": "avg"} if headed == "yes" else {}
model = getattr(keras.applications, name)(weights=None, input_shape=shape, **options)
if headed == "yes":
    model = keras.Sequential([model, Codebook()])
model.export(path, verbose=False)
"""
APPLICATIONS = {"MobileNetV2": 96, "ResNet50": 64}  # with the pixels of an edge
POINTS = 5
CLOSE = 1e-5
LARGE, TIMES = "ResNet50", 3.0


@dataclass
class Cost:
    """Seconds of whole processes and peaks of memory in MB; `rows` are the checks with their status and seconds."""

    application: str
    convert: float
    crosscheck: float
    ratio: float
    peak_convert: float
    peak_crosscheck: float
    rows: dict[str, tuple[str, float]]


@dataclass
class Agreement:
    """How far the two gradients are apart at each point: the largest over all variables, and the median."""

    application: str
    variables: int
    largest: list[float]
    median: list[float]


def export(name: str, size: int, path: Path, headed: bool) -> None:
    """The application as a SavedModel, by a process of its own."""
    command = [sys.executable, "-c", EXPORT, name, str(size), str(path), "yes" if headed else "no"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cost(name: str, size: int, folder: Path, rounds: int, say: Callable[[str], None]) -> Cost:
    """Exports and repairs an application, and takes the time of both commands in turns."""
    original, fixed, told = folder / name, folder / f"{name}-fixed", folder / "told.json"
    say(f"{name}: export and repair")
    export(name, size, original, headed=True)
    run = [sys.executable, "-m"]
    subprocess.run([*run, "gradpass", "fix", str(original), "--no-crosscheck"], check=True, stdout=subprocess.DEVNULL)
    convert = [*run, "tf2onnx.convert", "--saved-model", str(original), "--output", str(folder / "model.onnx")]
    check = [*run, "gradpass", "crosscheck", str(original), str(fixed), "--format", "json"]
    taken: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for turn in range(rounds):
        say(f"{name}: round {turn + 1} of {rounds}")
        with told.open("w", encoding="utf-8") as file:
            taken.append((measure(convert), measure(check, file)))
    rows = json.loads(told.read_text(encoding="utf-8"))["crosscheck"]
    converted, checked = zip(*taken, strict=True)
    return Cost(
        name,
        statistics.median(seconds for seconds, _ in converted),
        statistics.median(seconds for seconds, _ in checked),
        statistics.median(b[0] / a[0] for a, b in taken),
        statistics.median(peak for _, peak in converted),
        statistics.median(peak for _, peak in checked),
        {row["name"]: (row["status"], row["seconds"]) for row in rows},
    )


def agreement(name: str, path: str) -> Agreement:
    """The gradients of both autodiffs at several points."""
    import numpy as np
    import tensorflow as tf

    from gradpass.crosscheck.autodiff import apart, differentiate, python, with_loss
    from gradpass.crosscheck.export import tools
    from gradpass.crosscheck.load import load_plain
    from gradpass.crosscheck.surrogates import Known
    from gradpass.crosscheck.told import Told
    from gradpass.crosscheck.values import Sample

    loaded = load_plain(Path(path))
    signature = loaded.signatures["serving_default"]
    found = Agreement(name, 0, [], [])
    for point in range(POINTS):
        rng = np.random.default_rng(point)
        inputs = {
            name: tf.constant(rng.normal(size=[size or 1 for size in spec.shape]), spec.dtype)
            for name, spec in signature.inputs.items()
        }
        outputs = {name: value.numpy() for name, value in signature.call(inputs).items()}
        told = Told.asked(loaded, signature, [Sample(inputs, outputs, outputs, "random")], [], point)
        known = Known(tools(), signature, loaded, told)
        mine = known.gradients(told)
        theirs = differentiate(python(), with_loss(tools(), known.soft, known.cotangents), known.soft)
        figures = [apart(mine[target], theirs[target]) for target in known.soft.targets]
        found.variables = len(figures)
        found.largest.append(max(figures))
        found.median.append(statistics.median(figures))
    return found


def agreements(name: str, size: int, folder: Path) -> Agreement:
    """The agreement on one application, in a process of its own."""
    path = folder / f"{name}-whole"
    export(name, size, path, headed=False)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        return worker.submit(agreement, name, str(path)).result()


def main() -> int:
    """Prints the tables; gives the exit status."""
    parser = argparse.ArgumentParser(description="The cross-check beside tf2onnx, and two autodiffs side by side.")
    parser.add_argument("word", nargs="?", default="", help="only applications whose names contain it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    chosen = {name: size for name, size in APPLICATIONS.items() if options.word in name}
    if not chosen:
        parser.error(f"no application has {options.word!r} in its name; there are {', '.join(APPLICATIONS)}")
    costs, agreed = [], []
    with Console(stderr=True).status("start") as status, tempfile.TemporaryDirectory() as folder:
        for name, size in chosen.items():
            costs.append(cost(name, size, Path(folder), options.rounds, status.update))
            if "GRADPASS_AUTODIFF_PYTHON" in os.environ:
                status.update(f"{name}: two autodiffs")
                agreed.append(agreements(name, size, Path(folder)))
    console = Console()
    console.print(cost_table(costs))
    console.print(check_table(costs))
    if agreed:
        console.print(agreement_table(agreed))
    else:
        console.print("no second autodiff: GRADPASS_AUTODIFF_PYTHON names no Python that has onnxruntime-training")
    if options.json:
        told: dict[str, Any] = {"cost": [*map(asdict, costs)], "agreement": [*map(asdict, agreed)]}
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    slow = any(each.ratio >= TIMES for each in costs if each.application == LARGE)
    failed = any(status == "failed" for each in costs for status, _ in each.rows.values())
    return int(slow or failed or any(min(each.largest) > CLOSE for each in agreed))


def cost_table(costs: list[Cost]) -> Table:
    """The costs as they are printed."""
    found = Table("application", title="tf2onnx's conversion and the whole cross-check")
    for heading in ("tf2onnx, s", "cross-check, s", "ratio", "MB"):
        found.add_column(heading, justify="right")
    for each in costs:
        found.add_row(
            each.application,
            f"{each.convert:.1f}",
            f"{each.crosscheck:.1f}",
            f"{each.ratio:.2f}",
            f"{each.peak_convert:,.0f}, {each.peak_crosscheck:,.0f}",
        )
    return found


def check_table(costs: list[Cost]) -> Table:
    """What each check of the cross-checks said, and how long it took."""
    found = Table("check", *(each.application for each in costs), title="the checks")
    for name in costs[0].rows:
        told = (each.rows[name] for each in costs)
        found.add_row(name, *(f"{status}, {seconds:.1f} s" for status, seconds in told))
    return found


def agreement_table(agreed: list[Agreement]) -> Table:
    """The agreements as they are printed."""
    found = Table("application", title="TensorFlow's gradient and onnxruntime-training's, by variable")
    for heading in ("variables", "largest", f"points within {CLOSE:g}", "median of all"):
        found.add_column(heading, justify="right")
    for each in agreed:
        close = sum(largest <= CLOSE for largest in each.largest)
        found.add_row(
            each.application,
            str(each.variables),
            f"{min(each.largest):.1e}",
            f"{close} of {len(each.largest)}",
            f"{statistics.median(each.median):.1e}",
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
