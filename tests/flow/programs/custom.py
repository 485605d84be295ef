"""Custom gradients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, function, loop, program, value
from tests.flow.truth import Weights


@tf.custom_gradient
def straight(x: Any) -> Any:
    return tf.round(x), lambda dy: dy


@tf.custom_gradient
def half(x: Any, y: Any) -> Any:
    return x * y, lambda dy: (dy * y, None)


@program("IdentityN PartitionedCall")
def custom_gradient_in_a_call(m: Weights, x: Any) -> Any:
    return S(function(straight)(value(m.v)) * m.w)


@program("IdentityN", "IdentityN: w")
def custom_gradient_that_gives_none(m: Weights, x: Any) -> Any:
    return S(half(value(m.v), value(m.w)))


@program("IdentityN", "Round: v")
def custom_gradient_behind_a_cut(m: Weights, x: Any) -> Any:
    return S(straight(tf.round(m.v))) + S(m.w)


# What a custom gradient captured may be out of its reach in a loop or a branch.


@tf.custom_gradient
def squared(x: Any) -> Any:
    return x * x, lambda dy: 2.0 * dy * x


def reversed_by(factor: Any) -> Any:
    """The reversal of a gradient, by a factor that is captured."""
    return tf.custom_gradient(lambda x: (tf.identity(x), lambda dy: -factor * dy))


@program("StatelessWhile IdentityN")
def custom_gradient_captures_from_outside_the_loop(m: Weights, x: Any) -> Any:
    turn = reversed_by(tf.tanh(x))
    return S(loop(lambda a: tf.sin(turn(a)), value(m.v))[0]) + S(m.w)


@program("StatelessWhile IdentityN")
def custom_gradient_captures_inside_the_loop(m: Weights, x: Any) -> Any:
    return S(loop(lambda a: squared(tf.sin(a)), value(m.v))[0]) + S(m.w)


@program("StatelessWhile IdentityN")
def custom_gradient_captures_of_an_outer_loop(m: Weights, x: Any) -> Any:
    def outer(a: Any) -> Any:
        turn = reversed_by(tf.tanh(a))
        return loop(lambda b: tf.sin(turn(b)), a)[0]

    return S(loop(outer, value(m.v))[0]) + S(m.w)


@program("StatelessWhile IdentityN PartitionedCall")
def custom_gradient_captures_in_a_call_in_the_loop(m: Weights, x: Any) -> Any:
    return S(loop(function(lambda a: squared(tf.sin(a))), value(m.v))[0]) + S(m.w)


@program("If IdentityN")
def custom_gradient_captures_in_a_branch(m: Weights, x: Any) -> Any:
    return S(tf.cond(S(m.moving) > 0, lambda: squared(tf.sin(m.v)), lambda: value(m.v))) + S(m.w)


@program("StatelessIf IdentityN")
def custom_gradient_captures_from_outside_the_branch(m: Weights, x: Any) -> Any:
    y = tf.sin(m.v)
    return S(tf.cond(S(m.moving) > 0, lambda: squared(y), lambda: y)) + S(m.w)


@program("If IdentityN")
def custom_gradient_captures_in_a_call_in_a_branch(m: Weights, x: Any) -> Any:
    called = function(lambda a: squared(tf.sin(a)))
    return S(tf.cond(S(m.moving) > 0, lambda: called(m.v), lambda: value(m.v))) + S(m.w)


@program("StatelessWhile IdentityN")
def custom_gradient_captures_in_a_loop_of_a_call_in_a_branch(m: Weights, x: Any) -> Any:
    def looping(a: Any) -> Any:
        turn = reversed_by(tf.tanh(a))
        return loop(lambda b: tf.sin(turn(b)), a)[0]

    called = function(looping)
    return S(tf.cond(S(m.moving) > 0, lambda: called(value(m.v)), lambda: value(m.v))) + S(m.w)
