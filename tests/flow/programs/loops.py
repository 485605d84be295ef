"""Loops."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, choice, function, hue, loop, program, value, zeros
from tests.flow.truth import SHAPE, Weights


@program("StatelessWhile")
def while_live(m: Weights, x: Any) -> Any:
    a = value(m.v)
    return S(loop(lambda s: tf.tanh(s * a), value(m.w))[0])


@program("StatelessWhile", "Round: v")
def while_severs(m: Weights, x: Any) -> Any:
    a = value(m.v)
    return S(loop(lambda s: s + tf.round(a), value(m.w))[0])


@program("While", "Round: v")
def while_reads_and_severs(m: Weights, x: Any) -> Any:
    return S(loop(lambda s: s * m.w + tf.round(m.v), x)[0])


@program("While", "Less: v")
def while_whose_predicate_alone_reads(m: Weights, x: Any) -> Any:
    return S(
        tf.while_loop(
            lambda i, s: tf.logical_and(i < 4, S(s) < S(tf.abs(m.v)) + 9.0),
            lambda i, s: (i + 1, s * m.w),
            (tf.constant(0), x),
        )[1]
    )


@program("StatelessWhile", "Cast: v")
def while_trips_depend_on_a_variable(m: Weights, x: Any) -> Any:
    trips = tf.cast(1.0 + tf.abs(m.v[0, 0]), tf.int32)
    a = value(m.w)
    return S(loop(lambda s: s * a, x, trips=trips)[0])


@program("StatelessWhile", "Round: v")
def while_hands_on_what_it_severs_last(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b, c: (tf.round(b), 2 * c, tf.tanh(c)), x, zeros(), value(m.v), trips=choice(x))[0] * m.w)


@program("StatelessWhile")
def while_hands_on_three_values_live(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b, c: (b, c, tf.tanh(a)), x, value(m.w), value(m.v), trips=choice(x))[0])


@program("StatelessWhile", "Floor: v")
def while_hands_on_in_steps(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b, c: (a + b, b + c, c + tf.floor(c)), x, value(m.w), tf.floor(m.v))[0])


@program("StatelessWhile")
def while_overwrites(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b: (a * 2, tf.ones(SHAPE)), value(m.w), 2 * m.v, trips=choice(x))[1])


@program("StatelessWhile")
def while_overwrites_what_nobody_uses(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b: (a * 2, tf.ones(SHAPE)), value(m.w), 2 * m.v)[0])


@program("StatelessWhile")
def while_with_an_unused_variable(m: Weights, x: Any) -> Any:
    return S(loop(lambda a, b: (a * 2, b * 2), value(m.w), value(m.v))[0])


@program("StatelessWhile", "ArgMax: v")
def while_carries_an_index(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    best = loop(lambda k, s: (tf.argmax(tf.gather(tf.transpose(a), k % 3) * a[:, 0]), s * b[0]),
                tf.constant(0, tf.int64), x)  # fmt: skip
    return tf.cast(best[0], tf.float32) + S(best[1])


@program("StatelessWhile", "Round: v")
def while_in_while(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    return S(loop(lambda s: loop(lambda t: t * b + tf.round(a), s)[0], x)[0])


@program("While", "Round: v")
def while_in_while_reads(m: Weights, x: Any) -> Any:
    return S(loop(lambda s: loop(lambda t: t * m.w + tf.round(m.v), s)[0], x)[0])


@program("While If", "Round: v")
def while_in_if(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(x) > 0, lambda: loop(lambda s: s * m.w + tf.round(m.v), x)[0], lambda: m.w * x))


@program("While If", "Round: v")
def if_in_while_same_variables(m: Weights, x: Any) -> Any:
    return S(loop(lambda s: tf.cond(S(s) > 0, lambda: s * m.w + tf.round(m.v), lambda: s + m.w + tf.round(m.v)), x)[0])


@program("While If")
def if_in_while_other_variables(m: Weights, x: Any) -> Any:
    return S(loop(lambda s: tf.cond(S(s) > 0, lambda: s * m.w, lambda: s + m.v), x)[0])


@program("StatelessWhile StatelessIf")
def if_in_while_of_values(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    return S(loop(lambda s: tf.cond(S(s) > 0, lambda: s * a, lambda: s + b), x)[0])


@program("While StatefulPartitionedCall", "Round: v")
def call_in_while_in_call(m: Weights, x: Any) -> Any:
    step = function(lambda s: s * m.w + tf.round(m.v))
    return S(function(lambda s: loop(step, s)[0])(x))


@program("StatelessWhile", "AdjustHue: v")
def while_unregistered(m: Weights, x: Any) -> Any:
    a, b = value(m.v), value(m.w)
    return S(loop(lambda s: s * b + hue(a), x)[0])


@program("StatelessWhile", "Round: v")
def map_over_a_tensor(m: Weights, x: Any) -> Any:
    return S(tf.map_fn(lambda row: tf.round(row[0]) * row[1], (value(m.v), value(m.w)), fn_output_signature=tf.float32))


@program("StatelessWhile")
def scan_over_a_tensor(m: Weights, x: Any) -> Any:
    b = value(m.w)
    return S(tf.scan(lambda s, row: tf.tanh(s * row + b[0]), value(m.v)))


@program("StatelessWhile TensorListGetItem", "Floor: v")
def fold_over_a_tensor(m: Weights, x: Any) -> Any:
    return S(tf.foldl(lambda s, row: s + tf.floor(row), value(m.v), tf.zeros([3]))) + S(m.w)
