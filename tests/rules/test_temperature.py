"""The relative temperature: the same surrogate whatever the scale of the weights, and whatever is masked beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from gradpass.rules.base import spread
from tests.models import C, V, gradients, save, save_expressions, with_pb
from tests.rewrite.modules import TwoThresholds, inputs

SCALES = (0.03, 0.3, 1.0, 3.0, 30.0)
LOOKUP = "tf.gather(c, tf.argmax(v, 1))"


def loaded(source: Path, out: Path, **options: Any) -> Any:
    done = repair(read(source), entry="all", **options)
    assert done.pb is not None and not [step.declined for step in done.plan if step.declined]
    return tf.saved_model.load(str(with_pb(source, out, done.pb)))


def smoothed(scale: float) -> np.ndarray:
    """The gradient of the lookup's expected value under noise of the logits' own spread, by its score function.

    E[f(V + n)] with n of standard deviation s has the gradient E[f(V + n) n] / s^2 (Williams, "Simple Statistical
    Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992); a row is independent of the others.
    """
    rng = np.random.default_rng(0)
    cotangent = np.random.default_rng(0).normal(size=[4, 5])
    noise = rng.normal(size=[400_000, 3])
    rows = []
    for row, weight in zip(scale * V, cotangent, strict=True):
        s = row.std()
        worth = (C @ weight)[np.argmax(row + s * noise, axis=1)]
        rows.append(((worth - worth.mean())[:, None] * noise).mean(0) / s)
    return np.array(rows)


def test_relative_temperature_follows_the_scale_of_the_weights(tmp_path: Path) -> None:
    """As the logits are scaled from 0.03 to 30 times, the size of the surrogate's gradient stays a steady part of that
    of the smoothed true one (DESIGN: 0.34 to 0.61); with T = 1 fixed it is off by orders of magnitude."""
    source = save_expressions(tmp_path / "m", [LOOKUP], tf.float64)
    parts: dict[str, list[float]] = {}
    for name, options in (("relative", {}), ("absolute", {"absolute_temperature": True})):
        model = loaded(source, tmp_path / name, **options)
        for scale in SCALES:
            model.v.assign(scale * V)
            (gradient,) = gradients(model.signatures["hit_0"], [model.v])
            parts.setdefault(name, []).append(float(np.linalg.norm(gradient) / np.linalg.norm(smoothed(scale))))
    # A scale is nothing but a factor of the gradient: what is left is rounding in float64.
    np.testing.assert_allclose(parts["relative"], parts["relative"][0], rtol=1e-12, atol=0)
    assert 0.3 < parts["relative"][0] < 1.5
    assert min(parts["absolute"]) < 1e-4 * max(parts["absolute"])


@pytest.mark.parametrize("mask", [-1e4, -65504.0, -1e9, float(np.finfo(np.float32).min), -np.inf])
@pytest.mark.parametrize("added", [False, True])
def test_masked_logits_change_nothing(mask: float, added: bool, tmp_path: Path) -> None:
    """A choice among three with five masked beside them is a choice among three: its gradient is the same."""
    masked = "tf.concat([v + 0 * v, v + m, v[:, :2] + m], 1)" if added else "tf.concat([v, tf.fill([4, 5], m)], 1)"
    masked = masked.replace("m", f"tf.constant({mask!r}, f)".replace("-inf", "float('-inf')"))
    texts = [LOOKUP, f"tf.gather(tf.tile(c, [3, 1]), tf.argmax({masked}, 1))"]
    model = loaded(save_expressions(tmp_path / "m", texts), tmp_path / "f")
    plain, beside = (gradients(model.signatures[f"hit_{i}"], [model.v])[0] for i in (0, 1))
    assert plain.any()
    np.testing.assert_allclose(beside, plain, rtol=1e-5, atol=1e-7)  # float32: the same sums in another order


def test_masked_entries_of_a_threshold(tmp_path: Path) -> None:
    texts = ["tf.cast(v > 0, f)", "tf.cast(tf.concat([v, tf.fill([4, 9], tf.constant(-1e9, f))], 1) > 0, f)[:, :3]"]
    model = loaded(save_expressions(tmp_path / "m", texts), tmp_path / "f")
    plain, beside = (gradients(model.signatures[f"hit_{i}"], [model.v])[0] for i in (0, 1))
    np.testing.assert_allclose(beside, plain, rtol=1e-6)


@pytest.mark.parametrize("axis", [None, -1, 0, 1])
def test_spread_is_the_standard_deviation(axis: int | None) -> None:
    rng = np.random.default_rng(1)
    for size in (1e-30, 1.0, 99.0, 1e5, 1e30):  # float32 whose squares are out of its range among them
        x = (size * rng.normal(size=[7, 9])).astype(np.float32)
        expected = x.astype(np.float64).std(axis, keepdims=axis is not None)
        np.testing.assert_allclose(spread(tf.constant(x), axis).numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(spread(tf.constant(np.full([3, 2], 0.3, np.float32)), None).numpy(), 1.0)
    np.testing.assert_array_equal(spread(tf.constant([[np.nan, -np.inf], [2.0, np.inf]]), -1).numpy(), [[1.0], [1.0]])
    np.testing.assert_array_equal(spread(tf.zeros([0, 3]), None).numpy(), 1.0)


def test_values_without_a_gap_are_no_masks() -> None:
    """Scores that reach far, but without a gap, are all scores."""
    x = np.array([1.0, 40.0, 900.0, 3e4, 2e6], np.float32)
    np.testing.assert_allclose(spread(tf.constant(x), -1).numpy(), [x.astype(np.float64).std()], rtol=1e-6)


def test_one_far_above_has_won_and_is_no_mask() -> None:
    """Left out, its weight would be 1 whatever the others are, and every gradient 0."""
    x = np.array([0.3, -0.2, 0.1, 1e6], np.float32)
    np.testing.assert_allclose(spread(tf.constant(x), -1).numpy(), [x.astype(np.float64).std()], rtol=1e-6)
    np.testing.assert_allclose(spread(tf.constant(-x), -1).numpy(), [x[:3].astype(np.float64).std()], rtol=1e-6)


def test_product_of_two_thresholds_is_closed_once(tmp_path: Path) -> None:
    """Op by op a straight-through gradient is 0 where both are off; one closing for the region has the pair's."""
    module = TwoThresholds()
    x = inputs(module)

    @tf.custom_gradient
    def alone(difference: Any) -> Any:
        def backward(upstream: Any) -> Any:
            p = tf.sigmoid(difference / tf.math.reduce_std(difference))
            return upstream * p * (1 - p) / tf.math.reduce_std(difference)

        return tf.cast(difference > 0, tf.float32), backward

    module.a.assign(-tf.abs(module.a) * tf.sign(x["x"]))
    module.b.assign(-tf.abs(module.b) * tf.sign(x["x"]))  # all of them off
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(alone(module.a * x["x"]) * alone(module.b * x["x"]))
    assert not any(g.numpy().any() for g in tape.gradient(value, [module.a, module.b]))

    source = save(module, tmp_path / "m")
    done = repair(read(source))
    assert done.pb is not None
    bridges = [f for f in done.model.program.functions if "gradpass_bridge_" in f and "grad_0" not in f]
    assert len(bridges) == 1 and sum(len(nodes) for nodes in done.added.values()) == 1
    model = tf.saved_model.load(str(with_pb(source, tmp_path / "f", done.pb)))
    found = gradients(model.signatures["serving_default"], [model.a, model.b], x)
    assert all((g != 0).all() and np.isfinite(g).all() for g in found)


def test_whole_numbers_beyond_float32_stay_apart(tmp_path: Path) -> None:
    """20,000,001 is no float32: with shadows in float64 an equality with its neighbour is not taken for true."""
    index = "(tf.cast(tf.argmax(v, 1), tf.int32) * 20000000 + 1)"
    texts = [f"tf.cast(tf.equal({index}, [40000001, 1, 20000001, 40000001]), f)"]
    texts.append(texts[0].replace("01,", "00,").replace("01])", "00])"))
    source = save_expressions(tmp_path / "m", texts)
    model = loaded(source, tmp_path / "f", mode="soft", temperature=1e-3)
    original = tf.saved_model.load(str(source))
    for name in ("hit_0", "hit_1"):
        hard = original.signatures[name]()["y"].numpy()
        np.testing.assert_allclose(model.signatures[name]()["y"].numpy(), hard, rtol=0, atol=1e-6)
