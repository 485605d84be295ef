"""Differentiates an ONNX model by onnxruntime's GradientGraphBuilder, in a process of its own.

Called with a folder: `model.onnx`, `point.npz` (a value for each input, by number), `names.txt` (the loss, the numbers
of the inputs to differentiate by, and the names of all inputs, a line each). Leaves `gradients.npz` there. Nothing of
gradpass is imported: the Python that runs this need not have it.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# Public in no release: the builder is what ORTModule uses (orttraining/python/orttraining_pybind_state.cc, since 1.8).
from onnxruntime.capi._pybind_state import GradientGraphBuilder


def built(model: bytes, loss: str, wanted: set[str]) -> Any:
    """The builder of a gradient graph. Takes out of `wanted` what no gradient reaches; None where nothing is left."""
    while wanted:
        builder = GradientGraphBuilder(model, {loss}, wanted, loss)
        try:
            builder.build()
        except RuntimeError as problem:
            unreached = re.search(r"partial derivative for '(.*)' as it's unreachable", str(problem))
            if unreached is None or unreached[1] not in wanted:
                raise
            wanted.remove(unreached[1])
        else:
            return builder
    return None


def main(folder: Path) -> None:
    loss, targets, *names = (folder / "names.txt").read_text().split("\n")
    with np.load(folder / "point.npz") as saved:
        point = {names[int(key)]: saved[key] for key in saved.files}
    wanted = {names[int(number)] for number in targets.split()}
    builder = built((folder / "model.onnx").read_bytes(), loss, wanted)
    if builder is None:
        np.savez(folder / "gradients.npz")
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(builder.get_model(), options, providers=["CPUExecutionProvider"])
    outputs = {output.name for output in session.get_outputs()}
    found = {name: f"{name}_grad" for name in names if name in wanted and f"{name}_grad" in outputs}
    feed = {value.name: point[value.name] for value in session.get_inputs() if value.name in point}
    values = session.run(list(found.values()), feed)
    gradients = {str(names.index(name)): value for name, value in zip(found, values)}  # noqa: B905 (Python 3.8 may run it)
    np.savez(folder / "gradients.npz", **gradients)


main(Path(sys.argv[1]))
