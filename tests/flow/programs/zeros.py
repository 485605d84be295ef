"""Zeros that travel, and what leads nowhere."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, choice, function, hue, loop, program, raw, value
from tests.flow.truth import Weights


@program("IdentityN TopKV2")
def whole_edge_of_an_op_between(m: Weights, x: Any) -> Any:
    _, k = tf.identity_n([value(m.v), tf.constant(2)])
    return S(tf.math.top_k(m.w, k).values)


@program("IdentityN", "Round: v")
def side_output_of_identity_n(m: Weights, x: Any) -> Any:
    a, b = tf.identity_n([value(m.v), value(m.w)])
    return S(tf.round(a) * b)


@program("IdentityN")
def unused_output_of_identity_n(m: Weights, x: Any) -> Any:
    return S(tf.identity_n([value(m.v), value(m.w)])[1])


@program("Unpack", "Sign: v")
def zeros_of_sign_through_unstack(m: Weights, x: Any) -> Any:
    return S(tf.unstack(tf.sign(m.v))[1]) + S(m.w)


@program("PartitionedCall", "Sign: v")
def zeros_of_sign_through_a_call(m: Weights, x: Any) -> Any:
    return S(function(tf.sign)(tf.tanh(m.v))) + S(m.w)


@program("StatelessWhile", "Sign: v")
def zeros_of_sign_through_a_loop(m: Weights, x: Any) -> Any:
    return S(loop(lambda s: 2 * s, tf.sign(m.v))[0]) + S(m.w)


@program("StatelessWhile")
def zeros_of_sign_in_a_loop_that_may_not_run(m: Weights, x: Any) -> Any:
    return S(loop(tf.sign, value(m.v), trips=choice(x))[0]) + S(m.w)


@program("AdjustHue OneHot", "AdjustHue: v", "ArgMax: v")
def unregistered_behind_an_index(m: Weights, x: Any) -> Any:
    return S(hue(tf.one_hot(tf.argmax(m.v, 1), 3))) + S(m.w)


@program("Shape")
def shape_alone(m: Weights, x: Any) -> Any:
    return S(tf.ones(raw.Shape(input=m.v) + tf.cast(x[0, 0] > 9, tf.int32)) * S(m.w))


@program("StatelessWhile StatelessIf", "Round: v")
def if_in_while_carries_both(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b: tf.cond(S(x) > 0, lambda: (b, tf.round(b)), lambda: (a, 2 * b)),
                  value(m.w), tf.round(m.v))[0])  # fmt: skip
