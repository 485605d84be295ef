"""Check 5: a second autodiff: onnxruntime's GradientGraphBuilder differentiates the soft function's ONNX model.

It stands in the package onnxruntime-training, last released as 1.19.2 for Python 3.8 to 3.11. That package has the
module `onnxruntime` too, so the two cannot share an environment: this one runs in a process of its own, by a Python
that has it.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Check, Skip, judged
from gradpass.crosscheck.export import Tools
from gradpass.crosscheck.soft import Soft, flat, floors, size

PACKAGE = "onnxruntime-training"
VARIABLE = "GRADPASS_AUTODIFF_PYTHON"
WORKER = Path(__file__).with_name("autodiff_worker.py")
TIMEOUT = 600.0  # seconds
TINY = 1e-6  # of the outputs; less than float32 keeps of a sigmoid near 1
LOSS = "gradpass_loss"
LONGEST = 300  # letters of what it says

# Both hands add float32 in another order, which costs some 1e-6. But among a million relus there is one within rounding
# of its kink, and it moves the gradients of all that is before it by a thousandth; a fault moves them by all of it.
LIMIT = 1e-2
LIMIT_FROM = "float32 rounding: a relu at its kink falls on the other side and moves what is before it by a thousandth"


def python() -> str:
    """A Python that has the package: the one that the environment names, else this one; Skip where there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    try:
        metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise Skip(
            f"{PACKAGE} is not installed; name in {VARIABLE} a Python that has it (it cannot stand beside onnxruntime)"
        ) from None
    return sys.executable


def check_autodiff(
    name: str,
    tools: Tools,
    soft: Soft,
    gradients: dict[str, Any],
    cotangents: dict[str, Any],
    promised: Collection[str],
) -> Check:
    """Compares gradients (by input of the soft model, None where TensorFlow has none) with those of the other hand."""
    interpreter = python()
    if flat(soft, gradients, cotangents, TINY):
        raise Skip("the gradient is smaller here than the rounding of functions that saturate")
    others = differentiate(interpreter, with_loss(tools, soft, cotangents), soft)
    unreached = [soft.targets[t] for t in soft.targets if t in promised and t not in others]
    if unreached:
        told = f"the second autodiff gives no gradient to {', '.join(unreached[:5])}"
        if soft.unlike:
            raise Skip(f"TensorFlow differentiates {', '.join(soft.unlike[:3])} in a way of its own; {told}")
        return Check(name, "failed", reason=told, limit=LIMIT, limit_from=LIMIT_FROM)
    floor = floors(soft, gradients, promised)
    figures = {
        label: apart(gradients.get(t), others.get(t), floor[t] / size(soft.point[t]))
        for t, label in soft.targets.items()
    }
    worst = max(figures.values(), default=0.0)
    wrong = sorted((label for label, figure in figures.items() if not figure <= LIMIT), key=lambda w: -figures[w])
    reason = f"the two gradients differ: {', '.join(f'{label} by {figures[label]:.2g}' for label in wrong[:5])}"
    if not wrong and promised and not any(np.any(gradients[t]) for t in promised if gradients.get(t) is not None):
        raise Skip("every promised gradient is zero at this point: nothing was compared")
    if wrong and soft.unlike:
        raise Skip(f"TensorFlow differentiates {', '.join(soft.unlike[:3])} in a way of its own; {reason}")
    return judged(name, worst, LIMIT, reason, LIMIT_FROM, f"{len(figures)} targets by {PACKAGE}")


def apart(one: Any, other: Any, least: float = 0.0) -> float:
    """How far two gradients are apart, by norm, in parts of the larger or of `least`; None is a gradient of zeros."""
    a, b = (np.zeros(()) if g is None else np.asarray(g, np.float64) for g in (one, other))
    norm = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)), least)
    if not np.isfinite(norm):
        return math.inf
    return float(np.linalg.norm(a - b)) / norm if norm else 0.0


def with_loss(tools: Tools, soft: Soft, cotangents: dict[str, Any]) -> Any:
    """The soft model with one output, the sum of its outputs with these cotangents, in float32."""
    onnx = tools.onnx
    model = type(soft.model)()
    model.CopyFrom(soft.model)
    graph = model.graph
    double = {o.name for o in graph.output if o.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE}
    terms = []
    for i, output in enumerate(soft.outputs):
        value, weight, product, term = output, *(f"{LOSS}_{part}_{i}" for part in ("weight", "product", "term"))
        graph.initializer.append(onnx.numpy_helper.from_array(cotangents[output].astype(np.float32), weight))
        if output in double:
            value = f"{LOSS}_single_{i}"
            graph.node.append(onnx.helper.make_node("Cast", [output], [value], to=onnx.TensorProto.FLOAT))
        graph.node.append(onnx.helper.make_node("Mul", [value, weight], [product]))
        graph.node.append(onnx.helper.make_node("ReduceSum", [product], [term], keepdims=0))
        terms.append(term)
    while len(terms) > 1:
        graph.node.append(onnx.helper.make_node("Add", terms[-2:], [f"{LOSS}_{len(terms)}"]))
        terms[-2:] = [f"{LOSS}_{len(terms)}"]
    graph.node.append(onnx.helper.make_node("Identity", terms, [LOSS]))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(LOSS, onnx.TensorProto.FLOAT, []))
    onnx.checker.check_model(model)
    return model


def differentiate(interpreter: str, model: Any, soft: Soft) -> dict[str, Any]:
    """The gradients that the second autodiff gives, by input; it leaves out what it finds out of reach."""
    with tempfile.TemporaryDirectory(prefix="gradpass-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        names, targets = list(soft.point), list(soft.targets)
        # Names of tensors are no names of files: arrays go by number.
        np.savez(folder / "point.npz", **{str(i): soft.point[n] for i, n in enumerate(names)})
        (folder / "names.txt").write_text("\n".join([LOSS, " ".join(str(names.index(t)) for t in targets), *names]))
        try:
            ran = subprocess.run(
                [interpreter, "-I", str(WORKER), name], capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise Skip(f"{interpreter} with {PACKAGE} did not answer: {problem}") from problem
        if ran.returncode:
            raise Skip(f"{PACKAGE} cannot differentiate this model: {_said(ran.stderr)}")
        with np.load(folder / "gradients.npz") as found:
            return {names[int(key)]: found[key] for key in found.files}


def _said(text: str) -> str:
    """The end of a traceback in short: onnxruntime tells the whole signature of the C++ function first."""
    unknown = re.search(r"gradient builder has not been registered: (\w+)", text)
    if unknown is not None:
        return f"it has no gradient of {unknown[1]}"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST] if lines else "it said nothing"
