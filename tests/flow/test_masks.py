"""A constant mask makes zeros of a gradient: found where it is so, with what the mask does, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program.trace import of_function

S = tf.reduce_sum
MULTIPLIES = "multiplies by a constant that is all zeros"
Body = Callable[[Any, Any], Any]


def in_a_loop(v: Any, w: Any) -> Any:
    return S(w) + tf.while_loop(lambda i, t: i < 2, lambda i, t: (i + 1, t + S(v * 0.0)), [0, 0.0])[1]


def in_a_branch(v: Any, w: Any) -> Any:
    return tf.cond(S(w) > 0, lambda: S(v * 0.0), lambda: S(tf.zeros([2, 2]) * v)) + S(w)


# Name, program of v (2, 2) and w (2,), whose gradient is zeros, what the masks do.
MASKED: list[tuple[str, Body, str, set[str]]] = [
    ("product", lambda v, w: S(v * tf.zeros([2, 2]) + w), "v", {MULTIPLIES}),
    ("product of both", lambda v, w: S(v * w * 0.0), "vw", {MULTIPLIES}),
    ("zeros of a shape", lambda v, w: S(v * tf.zeros_like(w)) + S(w), "v", {MULTIPLIES}),
    ("filled by what is dynamic", lambda v, w: S(tf.fill(tf.shape(v), 0.0) * v) + S(w), "v", {MULTIPLIES}),
    ("no nan", lambda v, w: S(tf.math.multiply_no_nan(v, tf.zeros([2, 2])) + w), "v", {MULTIPLIES}),
    ("sequences of length 0", lambda v, w: S(v * tf.sequence_mask([0, 0], 2, tf.float32) + w), "v", {MULTIPLIES}),
    ("not ones", lambda v, w: S(v * tf.cast(~tf.ones([2, 2], tf.bool), tf.float32) + w), "v", {MULTIPLIES}),
    ("a truncated factor", lambda v, w: S(v * tf.cast(tf.cast(0.5, tf.int32), tf.float32) + w), "v", set()),
    ("two ways", lambda v, w: S(v * 0.0) + S(tf.where([[False, True]] * 2, v, w) * 0.0) + S(w), "v", {MULTIPLIES}),
    ("never chosen", lambda v, w: S(tf.where([[False, False]], v, w)), "v",
     {"has a constant condition that is False everywhere, so it never takes this input"}),
    ("always the other", lambda v, w: S(tf.where(tf.ones([2, 2], tf.bool), w, v)), "v",
     {"has a constant condition that is True everywhere, so it never takes this input"}),
    ("no element", lambda v, w: S(tf.boolean_mask(2 * v, [False, False])) + S(w), "v",
     {"takes no element, because its constant mask or indices select none"}),
    ("no index", lambda v, w: S(tf.gather(2 * v, tf.zeros([0], tf.int32))) + S(w), "v",
     {"takes no element, because its constant mask or indices select none"}),
    ("in a loop", in_a_loop, "v", {MULTIPLIES}),
    ("in both branches", in_a_branch, "v", {MULTIPLIES}),
    ("in a call", lambda v, w: tf.function(lambda a: S(a * 0.0), autograph=False)(v) + S(w), "v", {MULTIPLIES}),
]  # fmt: skip

FLOWING: list[tuple[str, Body]] = [
    ("some of a mask", lambda v, w: S(v * tf.sequence_mask([1, 0], 2, tf.float32) + w)),
    ("another way", lambda v, w: S(v * 0.0) + S(v + w)),
    ("one of two branches", lambda v, w: tf.cond(S(w) > 0, lambda: S(v * 0.0) + S(v), lambda: S(v * 0.0)) + S(w)),
    ("some elements", lambda v, w: S(tf.boolean_mask(2 * v, [False, True])) + S(w)),
    ("negative numbers below 0", lambda v, w: S(v * tf.cast(tf.range(-1.0, 1.0) < 0.0, tf.float32) + w)),
    ("a mixed condition", lambda v, w: S(tf.where([[False, True]], v, w))),
    ("by a number", lambda v, w: S(v * 1e-30 + w)),
    ("a variable of zeros", lambda v, w: S(v * tf.identity(w))),
]


def found(body: Body) -> tuple[set[str], set[str], set[str]]:
    """Whose gradient TensorFlow makes all zeros; whom the masks starve, and how, as gradpass says."""
    names = {"v": tf.Variable([[0.5, -1.0], [2.0, 3.0]], name="v"), "w": tf.Variable([1.0, 2.0], name="w")}
    function = tf.function(lambda: body(*names.values()), autograph=False)
    with tf.GradientTape() as tape:
        loss = function()
    gradients = tape.gradient(loss, names)
    dead = {name for name, g in gradients.items() if not np.any(tf.convert_to_tensor(g))}
    (verdict,) = analyse(of_function(function.get_concrete_function()))
    starved = {verdict.targets[i].name for cut in verdict.masks for i in cut.starves}
    return dead, starved, {cut.mask or "" for cut in verdict.masks}


@pytest.mark.parametrize(("body", "whom", "how"), [m[1:] for m in MASKED], ids=[m[0] for m in MASKED])
def test_whom_a_mask_starves(body: Body, whom: str, how: set[str]) -> None:
    dead, starved, words = found(body)
    assert dead == set(whom)
    assert words == how
    assert starved == (set(whom) if how else set())


@pytest.mark.parametrize("body", [f[1] for f in FLOWING], ids=[f[0] for f in FLOWING])
def test_what_lets_something_through_is_no_mask(body: Body) -> None:
    assert found(body) == (set(), set(), set())


def test_asking_leaves_the_graph_as_it_was() -> None:
    v = tf.Variable([1.0, 2.0], name="v")
    model = of_function(tf.function(lambda: S(v * 0.0), autograph=False).get_concrete_function())
    (first,) = analyse(model)
    kinds = [node.kind for name in model.program.functions for node in model.program.function(name).nodes]
    (second,) = analyse(model)
    assert first == second and first.masks
    assert kinds == [node.kind for name in model.program.functions for node in model.program.function(name).nodes]
    assert [target.state for target in second.targets] == ["flows"]
