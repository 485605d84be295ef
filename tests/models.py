"""Small SavedModels for tests, made from expressions in a variable `v`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

V = np.array([[0.31, -1.2, 0.84], [2.3, 0.15, -0.4], [-0.77, 1.61, 0.52], [0.05, -0.33, 1.27]])
C = np.array([[0.5, -1.0, 2.0, 0.25, 1.5], [1.25, 0.75, -0.5, 3.0, -2.0], [-1.75, 0.1, 0.9, -0.6, 0.4]])


class Expressions(tf.Module):
    """One signature for each expression, all of one variable `v` [4, 3]; signature `hit_3` is the third expression."""

    def __init__(self, expressions: list[str], dtype: tf.DType) -> None:
        super().__init__()
        self.v = tf.Variable(V, dtype=dtype, name="v")
        self.dtype = dtype
        self.signatures_ = {f"hit_{i}": self._signature(text) for i, text in enumerate(expressions)}

    def _signature(self, text: str) -> Any:
        @tf.function(input_signature=[], autograph=False)
        def run() -> dict[str, tf.Tensor]:
            return {"y": evaluate(text, self.v, self.dtype)}

        return run


def evaluate(text: str, v: Any, dtype: tf.DType) -> tf.Tensor:
    """An example expression's value."""
    value: tf.Tensor = eval(text, {"tf": tf, "v": tf.convert_to_tensor(v), "c": tf.constant(C, dtype), "f": dtype})
    return value


def save_expressions(path: Path, expressions: list[str], dtype: tf.DType = tf.float32) -> Path:
    """Writes them as one SavedModel."""
    module = Expressions(expressions, dtype)
    tf.saved_model.save(module, str(path), signatures=module.signatures_)
    return path


def save(module: tf.Module, path: Path) -> Path:
    """Writes a module whose `serve` is the serving_default signature."""
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return path


def with_pb(source: Path, out: Path, pb: bytes) -> Path:
    """A copy of a SavedModel with another saved_model.pb."""
    import shutil

    shutil.copytree(source, out)
    (out / "saved_model.pb").write_bytes(pb)
    return out


def gradients(function: Any, variables: list[Any], inputs: dict[str, Any] | None = None, seed: int = 0) -> list[Any]:
    """Gradients of a signature's float outputs under an eager tape, for a random cotangent; None stays None."""
    rng = np.random.default_rng(seed)
    with tf.GradientTape() as tape:
        outputs = {k: y for k, y in sorted(function(**(inputs or {})).items()) if y.dtype.is_floating}
        cotangents = [tf.constant(rng.normal(size=y.shape), y.dtype) for y in outputs.values()]
        parts = [tf.reduce_sum(y * c) for y, c in zip(outputs.values(), cotangents, strict=True)]
        loss = tf.add_n([tf.cast(part, tf.float64) for part in parts])
    found = tape.gradient(loss, variables)
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in found]
