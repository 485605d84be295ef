"""Metrics of severed predictions are their expectations: Keras compares floats, cast from indices and bools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import V, save_expressions, with_pb

LABELS = np.array([0, 1, 2, 0])
TRUTHS = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


P, Q = softmax(V), sigmoid(V - 0.5)
MATRIX = np.eye(3)[LABELS].T @ P  # truths by predictions
HITS_OF = "(lambda m: 2 * tf.linalg.diag_part(m) / (tf.reduce_sum(m, 0) + tf.reduce_sum(m, 1)))"
COUNTED = "tf.math.count_nonzero"
TRUE = f"tf.constant({TRUTHS.tolist()}, f) > 0.5"
EXPECTED: dict[str, Any] = {
    f"tf.reduce_mean(tf.cast(tf.equal(tf.cast(tf.argmax(v, 1), f), tf.constant({LABELS.tolist()}, f)), f))": np.mean(
        P[np.arange(4), LABELS]
    ),
    f"tf.reduce_mean(tf.cast(tf.equal(tf.constant({TRUTHS.tolist()}, f), tf.cast(v > 0.5, f)), f))": np.mean(
        TRUTHS * Q + (1 - TRUTHS) * (1 - Q)
    ),
    "tf.reduce_mean(tf.cast(tf.cast(v > 0.5, f) < 0.9, f))": np.mean(1 - Q),
    f"tf.math.confusion_matrix({LABELS.tolist()}, tf.argmax(v, 1), 3, dtype=f)": MATRIX,
    f"{HITS_OF}(tf.math.confusion_matrix({LABELS.tolist()}, tf.argmax(v, 1), 3, dtype=f))": 2
    * np.diag(MATRIX)
    / (MATRIX.sum(0) + MATRIX.sum(1)),
    f"{COUNTED}((v > 0.5) & ({TRUE}), dtype=f) / {COUNTED}(v > 0.5, dtype=f)": (Q * TRUTHS).sum() / Q.sum(),
    f"{COUNTED}((v > 0.5) & ({TRUE}), dtype=f) / {TRUTHS.sum()}": (Q * TRUTHS).sum() / TRUTHS.sum(),
}


@pytest.mark.parametrize("text", EXPECTED, ids=range(len(EXPECTED)))
def test_soft_value_is_the_expectation(text: str, tmp_path: Path) -> None:
    source = save_expressions(tmp_path / "m", [text], tf.float64)
    done = repair(read(source), mode="soft", absolute_temperature=True)
    assert done.pb is not None
    value = tf.saved_model.load(str(with_pb(source, tmp_path / "f", done.pb))).signatures["hit_0"]()["y"].numpy()
    np.testing.assert_allclose(value, EXPECTED[text], rtol=1e-12)  # rounding in float64
