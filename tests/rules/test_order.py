"""Order: what hits cannot say: expected rows, ranks, values that keep their gradient, in_top_k, sizes, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import Repair, repair
from gradpass.rules.rounding import soft_round
from tests.models import C, V, gradients, save_expressions, with_pb


class Fixed:
    """One expression as a SavedModel, original and repaired, both loaded."""

    def __init__(self, folder: Path, text: str, dtype: tf.DType = tf.float64, **options: Any) -> None:
        original = save_expressions(folder / "original", [text], dtype)
        self.repair: Repair = repair(read(original), entry="all", **options)
        assert self.repair.pb is not None, [step.declined for step in self.repair.plan]
        self.original = tf.saved_model.load(str(original))
        self.module = tf.saved_model.load(str(with_pb(original, folder / "fixed", self.repair.pb)))

    def hard(self) -> np.ndarray:
        value: np.ndarray = self.original.signatures["hit_0"]()["y"].numpy()
        return value

    def value(self) -> np.ndarray:
        value: np.ndarray = self.module.signatures["hit_0"]()["y"].numpy()
        return value

    def gradient(self) -> np.ndarray:
        (found,) = gradients(self.module.signatures["hit_0"], [self.module.v])
        return np.asarray(found)


SOFT: dict[str, Any] = {"mode": "soft", "absolute_temperature": True, "temperature": 0.5}


def softsort(anchors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """SoftSort's weights by their formula, T = 0.5."""
    scores = np.exp(-np.abs(anchors[..., :, None] - x[..., None, :]) / 0.5)
    return scores / scores.sum(-1, keepdims=True)


def test_rows_gathered_by_a_soft_argsort_are_expected_rows(tmp_path: Path) -> None:
    fixed = Fixed(tmp_path, "tf.gather(c, tf.argsort(v[0], direction='DESCENDING'))", **SOFT)
    np.testing.assert_array_equal(fixed.hard(), C[np.argsort(-V[0])])
    expected = softsort(np.sort(V[0])[::-1], V[0]) @ C
    np.testing.assert_allclose(fixed.value(), expected, rtol=0, atol=1e-14)  # sums of three terms of size 1


@pytest.mark.parametrize("direction", ["ASCENDING", "DESCENDING"])
@pytest.mark.parametrize("axis", [0, 1])
def test_argsort_of_argsort_is_the_expected_rank(tmp_path: Path, direction: str, axis: int) -> None:
    text = f"tf.cast(tf.argsort(tf.argsort(v, {axis}, '{direction}'), {axis}), f)"
    fixed = Fixed(tmp_path, text, **SOFT)
    x = np.moveaxis(V, axis, -1)
    ordered = np.sort(x, -1) if direction == "ASCENDING" else np.sort(x, -1)[:, ::-1]
    expected = softsort(x, ordered) @ np.arange(x.shape[-1])
    np.testing.assert_allclose(fixed.value(), np.moveaxis(expected, -1, axis), rtol=0, atol=1e-14)


def test_a_permutation_sorted_from_its_last_place_on(tmp_path: Path) -> None:
    """top_k of the indices themselves, not of their negatives: the ranks in reverse."""
    fixed = Fixed(tmp_path, "tf.cast(tf.math.top_k(tf.argsort(v), 2).indices, f)", **SOFT)
    expected = (softsort(V, np.sort(V, -1)) @ np.arange(3))[:, ::-1][:, :2]
    np.testing.assert_allclose(fixed.value(), expected, rtol=0, atol=1e-14)


def test_indices_that_are_no_permutation_are_not_inverted(tmp_path: Path) -> None:
    """The two best of three: sorting their indices is another question, which tends to the hard answer too."""
    text = "tf.cast(tf.argsort(tf.math.top_k(v, 2).indices), f)"
    fixed = Fixed(tmp_path, text, mode="soft", absolute_temperature=True, temperature=1e-3)
    np.testing.assert_allclose(fixed.value(), fixed.hard(), rtol=0, atol=1e-12)
    assert fixed.value().shape == (4, 2)


@pytest.mark.parametrize("carrier", ["bridge", "sum"])
def test_values_of_top_k_keep_their_gradient_and_get_no_second(tmp_path: Path, carrier: str) -> None:
    """The rounded values and the indices are severed, and the values in between flow: once, not twice."""
    text = "tf.reduce_sum((lambda t: tf.round(t.values) * tf.gather(c[0], t.indices))(tf.math.top_k(v, 2)), 1)"
    fixed = Fixed(tmp_path, text, carrier=carrier, absolute_temperature=True, temperature=0.5)
    assert fixed.value().tobytes() == fixed.hard().tobytes()
    v = tf.constant(V)
    with tf.GradientTape() as tape:
        tape.watch(v)
        values = tf.math.top_k(v, 2).values
        chosen = tf.nn.softmax(-tf.abs(values[..., :, None] - v[..., None, :]) / 0.5)
        soft = tf.linalg.matvec(chosen, tf.constant(C[0, :3]))
        y = tf.reduce_sum(soft_round(values, tf.constant(0.5, tf.float64)) * soft, 1)
    cotangent = np.random.default_rng(0).normal(size=4)
    expected = tape.gradient(y, v, output_gradients=tf.constant(cotangent))
    np.testing.assert_allclose(fixed.gradient(), expected, rtol=0, atol=1e-14)


def test_top_k_of_something_severed_carries_it_in_its_values(tmp_path: Path) -> None:
    fixed = Fixed(tmp_path, "tf.math.top_k(tf.round(4 * v), 2).values", tf.float32)
    assert fixed.value().tobytes() == fixed.hard().tobytes()
    assert fixed.gradient().any()


def test_approximate_top_k(tmp_path: Path) -> None:
    fixed = Fixed(tmp_path, "tf.gather(c[:, 0], tf.math.approx_max_k(v, 2)[1])", tf.float32)
    assert fixed.value().tobytes() == fixed.hard().tobytes()
    exact = Fixed(tmp_path / "exact", "tf.gather(c[:, 0], tf.math.top_k(v, 2)[1])", tf.float32)
    np.testing.assert_array_equal(fixed.gradient(), exact.gradient())
    assert fixed.gradient().any()


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_in_top_k_by_its_lead(tmp_path: Path, k: int) -> None:
    """The op takes float32 only, so this is no hit; the soft value by hand."""
    text = f"tf.cast(tf.math.in_top_k([0, 1, 2, 7], v, {k}), f)"
    fixed = Fixed(tmp_path, text, tf.float32, **SOFT)
    straight = Fixed(tmp_path / "straight", text, tf.float32)
    assert straight.value().tobytes() == straight.hard().tobytes()
    expected = []
    for row, target in zip(V.astype(np.float32), [0, 1, 2, 7], strict=True):
        if target > 2:
            expected.append(0.0)
        elif k > 2:
            expected.append(1.0)
        else:
            lead = row[target] - np.sort(np.delete(row, target))[::-1][k - 1]
            expected.append(1 / (1 + np.exp(-lead / 0.5)))
    np.testing.assert_allclose(fixed.value(), expected, rtol=0, atol=1e-6)  # float32
    assert np.isfinite(straight.gradient()).all() and straight.gradient().any() == (k < 3)
    assert np.isfinite(fixed.gradient()).all()


def test_in_top_k_of_infinite_scores(tmp_path: Path) -> None:
    text = "tf.cast(tf.math.in_top_k([0, 1], tf.concat([v[:2], [[float('inf')], [-float('inf')]]], 1), 1), f)"
    fixed = Fixed(tmp_path, text, tf.float32)
    assert fixed.value().tobytes() == fixed.hard().tobytes()
    assert np.isfinite(fixed.gradient()).all()


def test_in_top_k_without_rivals_leaves_the_temperature_of_others(tmp_path: Path) -> None:
    """A row whose other scores are -inf is decided; its lead is no part of the spread."""
    row = "[[0.0, -float('inf'), -float('inf')]]"
    text = f"tf.cast(tf.math.in_top_k([0, 0], tf.concat([v[:1], {row}], 0), 1), f)"
    fixed = Fixed(tmp_path, text, tf.float32, mode="soft")
    lead = V[0, 0] - V[0, 2]
    np.testing.assert_allclose(fixed.value(), [1 / (1 + np.exp(-lead / np.std([lead, 0]))), 1], atol=1e-6)  # float32


def test_ranks_of_many_entries_need_no_weights(tmp_path: Path) -> None:
    """5,000 entries: weights would be 25 million, which is more than are made."""
    x = "tf.reshape(v, [12, 1]) * (1 + tf.range(417, dtype=f) / 417)"
    text = f"tf.cast(tf.argsort(tf.argsort(tf.reshape({x}, [-1]))), f)"
    fixed = Fixed(tmp_path, text, tf.float64, **SOFT)
    entries = (V.reshape(12, 1) * (1 + np.arange(417) / 417)).reshape(-1)
    expected = softsort(entries, np.sort(entries)) @ np.arange(entries.size)
    np.testing.assert_allclose(fixed.value(), expected, rtol=0, atol=1e-8)  # 5,000 ranks of up to 5,000
    assert np.isfinite(fixed.gradient()).all() and fixed.gradient().any()


def test_rows_by_a_long_argsort_are_declined(tmp_path: Path) -> None:
    """Their weights would take more memory than the machine of the hard graph may have."""
    keys = "tf.reshape(v, [12, 1]) * (1 + tf.range(1000, dtype=f))"
    text = f"tf.gather(tf.range(12000, dtype=f), tf.argsort(tf.reshape({keys}, [-1])))"
    result = repair(read(save_expressions(tmp_path / "long", [text])))
    assert result.pb is None
    assert [step.declined for step in result.plan if step.declined and "12,000 places" in step.declined]


def test_mask_of_the_maximum_is_its_softmax(tmp_path: Path) -> None:
    text = "tf.cast(tf.equal(tf.reduce_max(v, [0], keepdims=True), v), f)"
    fixed = Fixed(tmp_path, text, **SOFT)
    expected = np.exp(V / 0.5) / np.exp(V / 0.5).sum(0)
    np.testing.assert_allclose(fixed.value(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "text",
    [
        "tf.cast(tf.equal(tf.reduce_max(v + 1.0, 1, keepdims=True), v), f)",  # of another value
        "(lambda s: tf.cast(tf.equal(tf.reduce_max(s, 1), s), f))(v[:3])",  # broadcast along another axis
    ],
)
def test_other_equalities_with_a_maximum_are_no_masks(tmp_path: Path, text: str) -> None:
    fixed = Fixed(tmp_path, text, **SOFT)
    assert np.ptp(fixed.value().sum(1)) > 1e-3  # weights would sum to 1


def test_coordinates_mix_as_if_independent(tmp_path: Path) -> None:
    fixed = Fixed(tmp_path, "tf.gather_nd(c, tf.stack([tf.argmax(v, 1), 1 + tf.argmin(v, 1)], -1))", **SOFT)
    best, worst = (np.exp(s * V / 0.5) / np.exp(s * V / 0.5).sum(1, keepdims=True) for s in (1, -1))
    expected = np.einsum("bi,ij,bj->b", best, C[:, 1:4], worst)
    np.testing.assert_allclose(fixed.value(), expected, rtol=0, atol=1e-14)


POWERS = {"sparse": 1, "p3/2": 2, "p4/3": 3}


def projected(scores: np.ndarray, power: int) -> np.ndarray:
    """max(x - theta, 0) ** power with theta by bisection, so that each row sums to 1."""
    low, high = scores.max(-1, keepdims=True) - 1, scores.max(-1, keepdims=True)
    for _ in range(100):
        middle = (low + high) / 2
        above = (np.maximum(scores - middle, 0) ** power).sum(-1, keepdims=True) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.maximum(scores - low, 0) ** power)


@pytest.mark.parametrize("choice", POWERS)
def test_choices_by_sparser_projections(tmp_path: Path, choice: str) -> None:
    """argmax, top_k and the mask of a maximum take the projection that was asked for."""
    soft = {"mode": "soft", "absolute_temperature": True, "temperature": 2.0, "choice": choice}
    cases = {
        "tf.one_hot(tf.argmax(v, 1), 3, dtype=f)": V,
        "tf.one_hot(tf.math.top_k(v, 2).indices, 3, dtype=f)": -np.abs(
            np.sort(V)[:, ::-1][:, :2, None] - V[:, None, :]
        ),
        "tf.cast(tf.equal(tf.reduce_max(v, 1, keepdims=True), v), f)": V,
    }
    for i, (text, scores) in enumerate(cases.items()):
        fixed = Fixed(tmp_path / str(i), text, **soft)
        np.testing.assert_allclose(fixed.value(), projected(scores / 2.0, POWERS[choice]), rtol=0, atol=1e-13)
        assert np.isfinite(fixed.gradient()).all() and fixed.gradient().any()


def test_so_many_weights_need_the_entropic_choice(tmp_path: Path) -> None:
    keys = "tf.reshape(v, [12, 1]) * (1 + tf.range(400, dtype=f))"
    text = f"tf.cast(tf.argsort(tf.argsort(tf.reshape({keys}, [-1]))), f)"
    result = repair(read(save_expressions(tmp_path / "many", [text])), choice="sparse")
    assert [step.declined for step in result.plan if step.declined and "entropic choice does without" in step.declined]
