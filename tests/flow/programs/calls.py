"""Calls of functions, and recursion."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, function, hue, program, read, value
from tests.flow.truth import Weights


@program("PartitionedCall", "Round: v")
def call_severs_one_argument(m: Weights, x: Any) -> Any:
    return S(function(lambda a, b: tf.round(a) * b)(value(m.v), value(m.w)))


@program("StatefulPartitionedCall", "Round: v")
def call_reads_captured_variables(m: Weights, x: Any) -> Any:
    return S(function(lambda a: tf.round(m.v) * m.w * a)(x))


@program("StatefulPartitionedCall", "Floor: w")
def variables_passed_down_three_calls(m: Weights, x: Any) -> Any:
    inner = function(lambda: tf.floor(m.w) + m.v)
    middle = function(lambda a: inner() * a)
    return S(function(lambda a: middle(a) + middle(2 * a))(x))


@program("StatefulPartitionedCall")
def variable_aliased_one_of_two_live(m: Weights, x: Any) -> Any:
    return S(function(lambda a, b: tf.round(read(a)) * tf.tanh(read(b)))(m.v.handle, m.v.handle) * m.w)


@program("StatefulPartitionedCall", "Floor: v", "Round: v")
def variable_aliased_both_severed(m: Weights, x: Any) -> Any:
    return S(function(lambda a, b: tf.round(read(a)) * tf.floor(read(b)))(m.v.handle, m.v.handle) * m.w)


@program("StatefulPartitionedCall", "Round: v")
def same_function_for_two_variables_in_either_place(m: Weights, x: Any) -> Any:
    severs = function(lambda a, b: tf.round(read(a)) + tf.tanh(read(b)))
    return S(severs(m.v.handle, m.w.handle)) + S(severs(m.v.handle, m.w.handle) ** 2)


@program("StatefulPartitionedCall")
def same_function_crosswise(m: Weights, x: Any) -> Any:
    severs = function(lambda a, b: tf.round(read(a)) + tf.tanh(read(b)))
    return S(severs(m.v.handle, m.w.handle)) + S(severs(m.w.handle, m.v.handle))


@program("StatefulPartitionedCall", "Round: v")
def call_returns_a_handle(m: Weights, x: Any) -> Any:
    a, b = function(lambda: (m.v.handle, m.w.handle))()
    return S(tf.round(read(a)) * read(b))


@program("PartitionedCall", "Round: v")
def unused_output_is_live(m: Weights, x: Any) -> Any:
    return S(function(lambda a, b: (tf.round(a) * b, tf.tanh(a)))(value(m.v), value(m.w))[0])


@program("PartitionedCall")
def unused_output_is_severed(m: Weights, x: Any) -> Any:
    return S(function(lambda a, b: (a * b, tf.round(a)))(value(m.v), value(m.w))[0])


@program("PartitionedCall")
def unused_output_is_unregistered(m: Weights, x: Any) -> Any:
    return S(function(lambda a, b: (a * b, hue(a)))(value(m.v), value(m.w))[0])


@program("PartitionedCall")
def unused_call_is_unregistered(m: Weights, x: Any) -> Any:
    function(hue)(value(m.v))
    return S(m.v * m.w)


@program("PartitionedCall", "AdjustHue: v")
def unregistered_in_a_call_behind_nothing(m: Weights, x: Any) -> Any:
    return S(function(hue)(value(m.v))) + S(m.w)


@program("PartitionedCall", "AdjustHue: v", "Round: v")
def unregistered_in_a_call_whose_result_is_rounded(m: Weights, x: Any) -> Any:
    return S(tf.round(function(hue)(value(m.v)))) + S(m.w)


@program("PartitionedCall", "AdjustHue: v", "StopGradient: v")
def unregistered_behind_stop_gradient(m: Weights, x: Any) -> Any:
    return S(function(hue)(tf.stop_gradient(m.v))) + S(m.w)


@program("PartitionedCall")
def unregistered_on_the_input_of_a_nested_call(m: Weights, x: Any) -> Any:
    inner = function(hue)
    return S(function(lambda a, b: inner(a) * b)(x, value(m.v)))


@program("PartitionedCall", "ArgMax: v")
def call_with_whole_arguments_and_results(m: Weights, x: Any) -> Any:
    best, same, n = function(lambda a, b, n: (tf.argmax(a, 1), b, n + 1))(value(m.v), value(m.w), tf.constant(2))
    return S(tf.one_hot(best, 3) * same) + tf.cast(n, tf.float32)


@program("PartitionedCall", "Round: v")
def argument_handed_back(m: Weights, x: Any) -> Any:
    a, b = function(lambda a, b: (b, a))(value(m.v), value(m.w))
    return S(tf.tanh(a)) + S(tf.round(b))


@program("PartitionedCall", "Round: v")
def call_compiled_by_xla(m: Weights, x: Any) -> Any:
    return S(tf.function(lambda a, b: tf.round(a) * b, autograph=False, jit_compile=True)(value(m.v), value(m.w)))


@program("PartitionedCall")
def captured_constants(m: Weights, x: Any) -> Any:
    with tf.init_scope():
        scale = tf.constant(2.0)
    return S(function(lambda a: tf.tanh(a) * scale)(value(m.v)))


@program("StatefulPartitionedCall", "Round: w")
def the_gradient_of_a_call_in_the_graph(m: Weights, x: Any) -> Any:
    energy = function(lambda a: S(tf.tanh(a * m.v) * tf.round(m.w)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = energy(x)
    return S(tape.gradient(loss, x) ** 2)


@program("StatefulPartitionedCall", "Round: v")
def two_outputs_of_the_entry(m: Weights, x: Any) -> Any:
    rounded = function(lambda: tf.round(m.v))()
    return {"a": S(rounded), "b": S(m.w * x), "c": tf.argmax(rounded, 1)}


DEPTH = 3


def recursive(depth: int, x: Any) -> Any:
    """A function that calls the next of its kind in one branch, its arguments moved on by one."""

    def step(a: Any, b: Any, c: Any) -> Any:
        deeper = recursive(depth - 1, x) if depth else function(lambda a, b, c: tf.tanh(a))
        return tf.cond(x[depth, 0] > 0, lambda: deeper(b, tf.round(c), c), lambda: tf.tanh(a))

    return function(step)


@program("StatelessIf PartitionedCall", "Round: table")
def recursion_unrolled(m: Weights, x: Any) -> Any:
    return S(recursive(DEPTH, x)(value(m.v), value(m.w), m.table[:4]) * x)
