"""tf.cond and tf.switch_case."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, choice, function, hue, program, value
from tests.flow.truth import Weights


@program("StatelessIf", "Floor: v", "Round: v")
def if_severs_in_both(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    return S(tf.cond(S(x) > 0, lambda: tf.round(a) * b, lambda: tf.floor(a) + b))


@program("StatelessIf")
def if_severs_in_one(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    return S(tf.cond(S(x) > 0, lambda: tf.round(a) * b, lambda: tf.tanh(a) + b))


@program("If")
def if_reads_in_one(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(x) > 0, lambda: m.v * m.w, lambda: m.w * x))


@program("If", "Round: v")
def if_reads_in_one_and_severs(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(x) > 0, lambda: tf.round(m.v) * m.w, lambda: m.w * x))


@program("If", "Greater: v")
def if_whose_predicate_alone_reads(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(m.v * x) > 0, lambda: m.w * x, lambda: m.w + x))


@program("If")
def if_with_an_unused_output(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(x) > 0, lambda: (m.w * x, m.v * x), lambda: (m.w + x, m.v + x))[0])


@program("If", "Round: v")
def if_with_an_unused_live_output(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(x) > 0, lambda: (m.w * tf.round(m.v), m.v * x), lambda: (m.w + x, m.v + x))[0])


@program("If", "ArgMax: v")
def if_with_a_whole_output(m: Weights, x: Any) -> Any:
    best, other = tf.cond(
        S(x) > 0, lambda: (tf.argmax(m.v * x, 1), m.w * x), lambda: (tf.zeros([4], tf.int64), m.w + x)
    )
    return S(tf.one_hot(best, 3) * other)


@program("If", "AdjustHue: v")
def if_unregistered_in_one(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(x) > 0, lambda: hue(m.v * x), lambda: m.w * x))


@program("If StatefulPartitionedCall", "Ceil: v")
def if_calls(m: Weights, x: Any) -> Any:
    half = function(lambda a: tf.math.ceil(m.v) * a)
    return S(tf.cond(S(x) > 0, lambda: half(m.w * x), lambda: half(x)))


@program("If", "Round: v")
def if_in_if(m: Weights, x: Any) -> Any:
    inner = lambda: tf.cond(x[0, 0] > 0, lambda: tf.round(m.v) * m.w, lambda: m.w * x)  # noqa: E731
    return S(tf.cond(S(x) > 0, inner, lambda: tf.tanh(m.w)))


@program("StatelessCase")
def case_severs_in_two_of_three(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    return S(tf.switch_case(choice(x), [lambda: tf.round(a) * b, lambda: tf.tanh(a) * b, lambda: tf.floor(a) + b]))


@program("Case", "Round: v")
def case_reads_in_one_and_severs(m: Weights, x: Any) -> Any:
    return S(tf.switch_case(choice(x), [lambda: tf.round(m.v) * m.w, lambda: m.w * x, lambda: tf.floor(m.w) + x]))


@program("Case", "Cast: v")
def case_whose_index_alone_reads(m: Weights, x: Any) -> Any:
    return S(tf.switch_case(choice(m.v * x), [lambda: m.w * x, lambda: m.w + x, lambda: tf.tanh(m.w)]))
