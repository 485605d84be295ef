#!/usr/bin/env python
"""Stands in for a Python that has onnxruntime-training: gives the gradients by differences instead, in float64.

Called as the worker is (`-I WORKER FOLDER`), it reads and writes the same files.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

STEP = 1e-3


def main(folder: Path) -> None:
    loss, targets, *names = (folder / "names.txt").read_text().split("\n")
    with np.load(folder / "point.npz") as saved:
        point = {names[int(key)]: saved[key] for key in saved.files}
    session = ReferenceEvaluator(onnx.load(folder / "model.onnx"))
    gradients = {}
    for number in targets.split():
        target = names[int(number)]
        gradients[number] = np.zeros(point[target].shape)
        for at in np.ndindex(point[target].shape):
            ends = []
            for sign in (1, -1):
                moved = point[target].copy()
                moved[at] += sign * STEP
                ends.append(float(session.run([loss], {**point, target: moved})[0]))
            gradients[number][at] = (ends[0] - ends[1]) / (2 * STEP)
    # As the builder does: what has no gradient is left out.
    gradients = {number: gradient for number, gradient in gradients.items() if gradient.any()}
    np.savez(folder / "gradients.npz", **gradients)


main(Path(sys.argv[-1]))
