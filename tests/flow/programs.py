"""Hand-made graphs for each op that runs functions, for variables on their way into them, and for lists of tensors.

A name says what happens to whom. `ops` must be in the graph, so that a program tests what it was written for; `cuts`
are the ops that sever, each with the variables that it starves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tests.flow.truth import SHAPE, Body, Weights

S = tf.reduce_sum
raw = tf.raw_ops


@dataclass(frozen=True)
class Program:
    """A program, the ops that it is about, and whom blame names: "Round: v"."""

    body: Body
    ops: frozenset[str]
    cuts: tuple[str, ...]


PROGRAMS: dict[str, Program] = {}


def program(ops: str, *cuts: str) -> Callable[[Body], Body]:
    """Adds a function to the programs, under its name."""

    def add(body: Body) -> Body:
        PROGRAMS[body.__name__] = Program(body, frozenset(ops.split()), cuts)
        return body

    return add


def function(body: Callable[..., Any]) -> Any:
    """A called function."""
    return tf.function(body, autograph=False)


def loop(body: Callable[..., Any], *start: Any, trips: Any = 3) -> list[Any]:
    """A loop over some values."""
    counted = tf.while_loop(
        lambda i, *values: i < trips,
        lambda i, *values: (i + 1, *tf.nest.flatten(body(*values))),
        (tf.constant(0), *start),
    )
    return list(counted[1:])


def ids(x: Any) -> Any:
    """Rows of the table, chosen by the data."""
    return tf.cast(tf.abs(x[:, 0]) * 3, tf.int32) % 6


def choice(x: Any) -> Any:
    """0, 1 or 2, as the data says."""
    return tf.cast(tf.abs(x[0, 0]) * 4, tf.int32) % 3


def hue(x: Any) -> Any:
    """An op without a registered gradient."""
    return tf.image.adjust_hue(tf.sigmoid(x)[None], 0.1)[0]


def zeros() -> Any:
    return tf.zeros(SHAPE)


def value(variable: Any) -> Any:
    return tf.convert_to_tensor(variable)


def read(handle: Any) -> Any:
    return raw.ReadVariableOp(resource=handle, dtype=tf.float32)


# Calls


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


# Branches


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


# Loops


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


# Lists of tensors


@program("TensorListStack TensorListSetItem", "Round: v")
def list_of_two(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2).write(0, tf.round(m.v)).write(1, tf.tanh(m.w))
    return S(array.stack())


@program("TensorListGetItem")
def list_element_chosen_by_the_data(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2).write(0, tf.tanh(m.v)).write(1, tf.tanh(m.w))
    return S(array.read(choice(x) % 2))


@program("TensorListFromTensor TensorListGather", "ArgMax: v")
def list_gathered_by_an_index(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 4).unstack(m.w)
    return S(array.gather(tf.argmax(m.v[:, 0], output_type=tf.int32)[None]))


@program("TensorListPushBack TensorListPopBack", "Round: v")
def list_pushed_and_popped(m: Weights, x: Any) -> Any:
    empty = raw.EmptyTensorList(element_shape=[4, 3], max_num_elements=4, element_dtype=tf.float32)
    pushed = raw.TensorListPushBack(input_handle=empty, tensor=tf.round(m.v))
    pushed = raw.TensorListPushBack(input_handle=pushed, tensor=tf.tanh(m.w))
    rest, last = raw.TensorListPopBack(input_handle=pushed, element_shape=[4, 3], element_dtype=tf.float32)
    _, first = raw.TensorListPopBack(input_handle=rest, element_shape=[4, 3], element_dtype=tf.float32)
    return S(first * last)


@program("TensorListConcatV2", "Floor: v")
def list_concatenated(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2, infer_shape=False).write(0, tf.floor(m.v)).write(1, m.w[:2])
    return S(array.concat() ** 2)


@program("TensorListSplit")
def list_split(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2, infer_shape=False).split(tf.tanh(m.v), [1, 3])
    return S(array.read(0)) + S(m.w)


@program("TensorListScatterIntoExistingList")
def list_scattered(m: Weights, x: Any) -> Any:
    handle = raw.TensorListReserve(element_shape=[3], num_elements=4, element_dtype=tf.float32)
    handle = raw.TensorListScatterIntoExistingList(input_handle=handle, tensor=tf.tanh(m.v), indices=[0, 1, 2, 3])
    return S(raw.TensorListStack(input_handle=handle, element_shape=[3], element_dtype=tf.float32)) + S(m.w)


@program("TensorListSetItem While", "Round: v")
def list_through_a_loop(m: Weights, x: Any) -> Any:
    written = tf.while_loop(
        lambda i, array: i < 3,
        lambda i, array: (i + 1, array.write(i, tf.round(m.v) * m.w)),
        (tf.constant(0), tf.TensorArray(tf.float32, 3)),
    )[1]
    return S(written.stack())


@program("TensorListSetItem PartitionedCall", "Round: v")
def list_through_a_call(m: Weights, x: Any) -> Any:
    spec = tf.TensorSpec([], tf.variant)
    handle = raw.TensorListReserve(element_shape=[4, 3], num_elements=2, element_dtype=tf.float32)
    write = tf.function(
        lambda h, a, b: raw.TensorListSetItem(
            input_handle=raw.TensorListSetItem(input_handle=h, index=0, item=tf.round(a)), index=1, item=tf.tanh(b)
        ),
        autograph=False, input_signature=[spec, tf.TensorSpec(SHAPE), tf.TensorSpec(SHAPE)],
    )  # fmt: skip
    handle = write(handle, value(m.v), value(m.w))
    return S(raw.TensorListStack(input_handle=handle, element_shape=[4, 3], element_dtype=tf.float32))


# Variables


@program("ResourceGather")
def gather_rows(m: Weights, x: Any) -> Any:
    return S(tf.gather(m.table, ids(x)) * m.v)


@program("ResourceGather", "Cast: v")
def gather_rows_by_a_computed_index(m: Weights, x: Any) -> Any:
    return S(tf.gather(m.table, ids(m.v * x)) * m.w)


@program("ResourceGather", "Round: table")
def gather_rows_and_round(m: Weights, x: Any) -> Any:
    return S(tf.round(tf.gather(m.table, ids(x))) * m.w)


@program("ResourceGatherNd While")
def gather_nd_of_a_variable_in_a_loop(m: Weights, x: Any) -> Any:
    return S(loop(lambda s: s * tf.gather_nd(m.v, [[0], [1], [2], [3]]), x * m.w)[0])


@program("ResourceGatherNd While StatefulPartitionedCall")
def gather_nd_of_a_variable_in_a_call_in_a_loop(m: Weights, x: Any) -> Any:
    return S(loop(function(lambda s: s * tf.gather_nd(m.v, [[0], [1], [2], [3]])), x * m.w)[0])


@program("ResourceGatherNd While", "ArgMax: w")
def gather_nd_by_what_a_variable_says_in_a_loop(m: Weights, x: Any) -> Any:
    """The shape of the places is not known once it is loaded, so nothing is refused."""
    return S(loop(lambda s: s * tf.gather_nd(m.v, tf.argmax(m.w, 1)[:, None]), x * 1.0)[0])


@program("ResourceGatherNd If")
def gather_nd_of_a_variable_in_a_branch(m: Weights, x: Any) -> Any:
    rows = [[0], [1], [2], [3]]
    return S(tf.cond(x[0, 0] > 0, lambda: m.w + tf.gather_nd(m.v, rows), lambda: m.w - tf.gather_nd(m.v, rows)))


@program("While")
def gather_nd_of_a_variable_in_a_condition(m: Weights, x: Any) -> Any:
    going = lambda i, s: (i < 3) & (tf.gather_nd(m.moving, [[0, 0]])[0] < 9.0)  # noqa: E731
    return S(tf.while_loop(going, lambda i, s: (i + 1, s * m.v), (0, x * m.w))[1])


@program("ResourceScatterNdUpdate While")
def scatter_of_rows_in_a_loop(m: Weights, x: Any) -> Any:
    def body(s: Any) -> Any:
        raw.ResourceScatterNdUpdate(ref=m.moving.handle, indices=[[0]], updates=tf.ones([1, 3]))
        return s * m.v

    return S(loop(body, x * m.w)[0])


@program("ResourceScatterNdUpdate While")
def scatter_of_numbers_in_a_loop(m: Weights, x: Any) -> Any:
    def body(s: Any) -> Any:
        raw.ResourceScatterNdUpdate(ref=m.moving.handle, indices=[[0, 1]], updates=tf.ones([1]))
        return s * m.v

    return S(loop(body, x * m.w)[0])


@program("ResourceGatherNd", "Cast: v")
def gather_elements(m: Weights, x: Any) -> Any:
    index = tf.stack([ids(m.v * x), ids(x) % 3], 1)
    return S(tf.gather_nd(m.table, index)) + S(m.w)


@program("ResourceGather StatefulPartitionedCall")
def gather_in_a_call(m: Weights, x: Any) -> Any:
    look = function(lambda rows: tf.gather(m.table, rows))
    return S(look(ids(x)) * m.v)


@program("ResourceGather While", "Floor: table")
def gather_in_a_loop(m: Weights, x: Any) -> Any:
    rows = ids(x)
    return S(loop(lambda s: s * m.w + tf.floor(tf.gather(m.table, rows)), x)[0])


@program("AssignVariableOp", "Round: w")
def read_after_assign(m: Weights, x: Any) -> Any:
    m.moving.assign(tf.round(m.w))
    return S(m.moving * m.v * tf.round(m.w))


@program("AssignVariableOp")
def target_read_after_it_is_assigned(m: Weights, x: Any) -> Any:
    m.v.assign(tf.tanh(m.w))
    return S(m.v * x)


@program("AssignVariableOp", "Round: v")
def target_read_before_and_after_it_is_assigned(m: Weights, x: Any) -> Any:
    old = tf.round(m.v)
    m.v.assign(tf.tanh(m.w))
    return S(old * x) + S(tf.round(m.v) * m.w)


@program("AssignAddVariableOp")
def target_read_after_it_is_added_to(m: Weights, x: Any) -> Any:
    m.v.assign_add(tf.tanh(m.w))
    return S(m.v * x)


@program("AssignSubVariableOp StatefulPartitionedCall")
def target_changed_in_a_call(m: Weights, x: Any) -> Any:
    change = function(lambda a: m.v.assign_sub(a * m.w))
    change(x)
    return S(m.v * m.v)


@program("AssignAddVariableOp While")
def state_kept_in_a_loop(m: Weights, x: Any) -> Any:
    def step(s: Any) -> Any:
        m.moving.assign_add(m.w * x)
        return s + m.moving * m.v

    return S(loop(step, x)[0])


@program("ResourceScatterUpdate")
def rows_written(m: Weights, x: Any) -> Any:
    m.table.scatter_update(tf.IndexedSlices(m.v[:1], tf.constant([0])))
    return S(tf.gather(m.table, ids(x)) * m.w)


# Zeros that travel


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


# What leads nowhere


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


# Custom gradients


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


# Recursion


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
