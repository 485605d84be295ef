"""Variables on their way into functions, read by rows, and assigned."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, function, ids, loop, program, raw
from tests.flow.truth import Weights


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
