"""Compares a fixed SavedModel with its original by means that share no code with gradpass.

    python -m benchmarks.pair ORIGINAL FIXED MODEL [ENTRY]

prints a JSON list of claims, each with its figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from benchmarks.models import Arrays, RealModel, model
from benchmarks.oracle import constants, variables
from gradpass.crosscheck.load import load_plain

INPUTS = 100
ONNX_INPUTS = 20
ONNX_LIMIT = 1e-4  # of the output's range, as the issue demands
STEPS = 10


@dataclass
class Claim:
    """Something promised, whether it holds, and the measured figure."""

    claim: str
    holds: bool
    figure: str


def unchanged(original: Any, fixed: Any, folders: tuple[Path, Path]) -> Iterator[Claim]:
    """Compares signatures, variables and assets."""
    described = [{name: describe(function) for name, function in one.signatures.items()} for one in (original, fixed)]
    yield Claim("signatures unchanged", described[0] == described[1], ", ".join(sorted(described[0])))
    values = [values_by_name(one) for one in (original, fixed)]
    elements = sum(len(value[1]) for value in values[0].values())
    yield Claim("variables unchanged", values[0] == values[1], f"{len(values[0])} variables, {elements:,} bytes")
    files = [{str(file.relative_to(one)): file.read_bytes() for file in payload(one)} for one in folders]
    yield Claim("assets and checkpoint unchanged", files[0] == files[1], f"{len(files[0])} files")


def describe(function: Any) -> tuple[str, str]:
    """Tells names, types and shapes of a signature's inputs and outputs."""
    outputs = sorted((name, repr(spec)) for name, spec in function.structured_outputs.items())
    return repr(function.structured_input_signature), repr(outputs)


def values_by_name(loaded: Any) -> dict[str, tuple[bool, bytes]]:
    """Gives the value of each variable that a signature captures, as bytes, with its trainability."""
    captured = [variable for function in loaded.signatures.values() for variable in function.variables]
    return {variable.name: (variable.trainable, variable.numpy().tobytes()) for variable in captured}


def payload(folder: Path) -> list[Path]:
    """Lists the files of a SavedModel that hold no graph."""
    parts = [folder / name for name in ("variables", "assets", "assets.extra")]
    return [file for part in parts for file in part.rglob("*") if file.is_file()]


def same_bits(original: Any, fixed: Any, real: RealModel) -> Claim:
    """Runs both on random inputs and compares bytes; outputs that never change would prove nothing."""
    rng = np.random.default_rng(1)
    different, seen = 0, set()
    for _ in range(INPUTS):
        feed = constants(real.inputs(rng))
        left, right = (b"".join(bits(function(**feed))) for function in (original, fixed))
        different += left != right
        seen.add(left)
    figure = f"{different} of {INPUTS} inputs differ; {len(seen)} distinct outputs"
    return Claim("outputs bit-identical", different == 0 and len(seen) > INPUTS // 2, figure)


def bits(outputs: dict[str, tf.Tensor]) -> list[bytes]:
    """Gives the bytes of the outputs in the order of their names."""
    return [outputs[name].numpy().tobytes() for name in sorted(outputs)]


def agrees_with_onnx(name: str, path: Path, function: Any, entry: str, real: RealModel) -> Claim:
    """Exports with tf2onnx's command line and compares what onnxruntime and TensorFlow answer."""
    claim = f"ONNX of the {name} agrees"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        what = ["--saved-model", str(path), "--tag", "serve", "--signature_def", entry, "--output", str(file)]
        command = [sys.executable, "-m", "tf2onnx.convert", *what]
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}  # tf2onnx revives Python objects
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode or not file.exists():
            return Claim(claim, False, done.stderr.strip().rpartition("\n")[2])
        onnx.checker.check_model(str(file), full_check=True)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    worst = 0.0
    for _ in range(ONNX_INPUTS):
        inputs = real.inputs(rng)
        mine = function(**constants(inputs))
        names = [output.name for output in session.get_outputs()]
        for output, value in zip(names, session.run(names, inputs), strict=True):
            worst = max(worst, apart(mine[output].numpy(), value))
    return Claim(claim, worst <= ONNX_LIMIT, f"{worst:.1e} of the range (limit {ONNX_LIMIT:.0e})")


def apart(left: np.ndarray, right: np.ndarray) -> float:
    """Gives the greatest difference relative to the range of the values."""
    difference = float(np.max(np.abs(left - right)))
    return difference / float(np.ptp(left)) if difference else 0.0


def learns(targets: list[tf.Variable], function: Any, inputs: Arrays, labels: Arrays, real: RealModel) -> list[float]:
    """Takes steps of SGD on the variables and gives the loss before each step and after the last."""
    losses = []
    for step in range(STEPS + 1):
        with tf.GradientTape() as tape:
            value = real.loss(function(**constants(inputs)), labels)
        losses.append(float(value))
        if step < STEPS:
            for target, gradient in zip(targets, tape.gradient(value, targets), strict=True):
                if gradient is not None:
                    target.assign_sub(real.RATE * tf.convert_to_tensor(gradient))
    return losses


def starved(loaded: Any, function: Any, inputs: Arrays, labels: Arrays, real: RealModel) -> list[str]:
    """Names the variables for which TensorFlow has no gradient of the loss."""
    targets = variables(loaded)
    with tf.GradientTape() as tape:
        value = real.loss(function(**constants(inputs)), labels)
    gradients = tape.gradient(value, list(targets.values()))
    return [name for name, gradient in zip(targets, gradients, strict=True) if gradient is None]


def training(loaded: tuple[Any, Any], functions: tuple[Any, Any], real: RealModel) -> Iterator[Claim]:
    """Lets both learn the same lesson with the variables that the original starves."""
    inputs, labels = real.lesson(np.random.default_rng(3))
    names = starved(loaded[0], functions[0], inputs, labels, real)
    losses = []
    for one, function in zip(loaded, functions, strict=True):
        targets = [variables(one)[name] for name in names]
        losses.append(learns(targets, function, inputs, labels, real))
    before, after = losses
    stuck = bool(names) and len(set(before)) == 1
    figure = f"{len(names)} gradients None; loss {before[0]:.6f} stays {before[-1]:.6f}"
    yield Claim("the original cannot learn", stuck, figure)
    lower = after[0] == before[0] and after[-1] < after[0]
    figure = f"loss {after[0]:.6f} to {after[-1]:.6f} in {STEPS} steps of SGD at {real.RATE}"
    yield Claim("the fixed one learns", lower, figure)


def claims(original: Path, fixed: Path, real: RealModel, entry: str) -> Iterator[Claim]:
    """Makes all comparisons; the training is the last, since it changes the loaded variables."""
    models = load_plain(original), load_plain(fixed)
    loaded = models[0].root, models[1].root
    functions = loaded[0].signatures[entry], loaded[1].signatures[entry]
    yield from unchanged(*loaded, (original, fixed))
    yield same_bits(*functions, real)
    for name, path, function in zip(("original", "fixed"), (original, fixed), functions, strict=True):
        yield agrees_with_onnx(name, path, function, entry, real)
    yield from training(loaded, functions, real)


def main(original: str, fixed: str, name: str, entry: str = "serving_default") -> None:
    """Prints the claims."""
    print(json.dumps([asdict(claim) for claim in claims(Path(original), Path(fixed), model(name), entry)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
