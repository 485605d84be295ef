"""Quantised numbers: the shadow is what they stand for, in every mode, and has no derivative outside the range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import V, save_expressions, with_pb

MODES = {
    "combined": "tf.quint8, mode='MIN_COMBINED'",
    "combined-signed": "tf.qint8, mode='MIN_COMBINED'",
    "first": "tf.quint8, mode='MIN_FIRST'",
    "scaled": "tf.qint8, mode='SCALED'",
    "scaled-narrow": "tf.qint8, mode='SCALED', narrow_range=True",
    "scaled-unsigned": "tf.quint8, mode='SCALED'",
}
LOW, HIGH = -1.0, 2.13  # 0 is no multiple of the step away from the lower end


def expression(options: str) -> str:
    back = options.split("mode=")[1]
    low = 0.0 if "quint8, mode='SCALED'" in options else LOW
    return (
        f"tf.quantization.dequantize(*tf.quantization.quantize(v, {low}, {HIGH}, tf.{options.removeprefix('tf.')}), "
        f"mode={back})"
    )


class Loaded:
    """All modes in one SavedModel, repaired, and loaded."""

    def __init__(self, folder: Path, **options: Any) -> None:
        original = save_expressions(folder / "original", [expression(o) for o in MODES.values()])
        repaired = repair(read(original), entry="all", **options)
        assert repaired.pb is not None and not [s.declined for s in repaired.plan if s.declined]
        self.original = tf.saved_model.load(str(original))
        self.fixed = tf.saved_model.load(str(with_pb(original, folder / "fixed", repaired.pb)))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tmp_path_factory.mktemp("cold"), mode="soft", temperature=1e-3)


each_mode = pytest.mark.parametrize("name", [f"hit_{i}" for i in range(len(MODES))], ids=MODES)


@each_mode
def test_soft_value_tends_to_the_quantised_one(cold: Loaded, name: str) -> None:
    """Within 1e-4 where a step is above 1e-2."""
    hard, soft = (m.signatures[name]()["y"].numpy() for m in (cold.original, cold.fixed))
    np.testing.assert_allclose(soft, hard, rtol=0, atol=1e-4)


@each_mode
def test_bits_stay_and_the_derivative_is_straight_within_the_range(straight: Loaded, name: str) -> None:
    hard, fixed = (m.signatures[name]()["y"].numpy() for m in (straight.original, straight.fixed))
    assert hard.tobytes() == fixed.tobytes()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(straight.fixed.signatures[name]()["y"])
    found = tape.gradient(y, straight.fixed.v).numpy()
    inside = (hard.max() > V) & (hard.min() < V)
    assert inside.any() and not inside.all()
    # The staircase at temperature 1 has slopes between 1 / (2 tanh(1/2)) cosh(1/2)^-2 = 0.85 and 1.09.
    assert (found[inside] > 0.84).all() and (found[inside] < 1.09).all()
    np.testing.assert_array_equal(found[(hard.max() < V - 0.1) | (hard.min() > V + 0.1)], 0)
