"""Gradients that are slices (tf.IndexedSlices): who makes them, who hands them on, and who cannot take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, function, loop, program, raw, value, zeros
from tests.flow.truth import SHAPE, Weights

ALL = [0, 1, 2, 3]


@tf.custom_gradient
def twice(x: Any) -> Any:
    return 2.0 * x, lambda dy: tf.add(dy, dy)


@tf.custom_gradient
def swap(x: Any, y: Any) -> Any:
    return (y * 2.0, x * 3.0), lambda dx, dy: (tf.multiply(dy, 3.0), tf.multiply(dx, 2.0))


@tf.custom_gradient
def own_rows(x: Any) -> Any:
    """Rows by a gradient that is slices."""
    places = tf.stop_gradient(tf.cast(x[:2, 0] * 0.0, tf.int32))
    return tf.gather(x, places), lambda dy: tf.IndexedSlices(dy, places, tf.shape(x))


def some(x: Any) -> Any:
    return tf.gather(x, [0, 1])


def rows(x: Any) -> Any:
    return tf.gather(x, ALL)


def rows_nd(x: Any) -> Any:
    """Indices of one column."""
    return tf.gather_nd(x, [[i] for i in ALL])


def either(yes: Callable[[Any], Any], no: Callable[[Any], Any], m: Weights, x: Any) -> Any:
    return tf.cond(S(m.moving) > 0, lambda: yes(x), lambda: no(x))


def behind(how: Callable[[Any], Any], name: str, ops: str = "GatherV2 IdentityN") -> None:
    """A program in which rows are taken of something that is made of a custom gradient's result."""

    def body(m: Weights, x: Any) -> Any:
        return S(how(twice(value(m.v) * m.w)))

    body.__name__ = f"custom_gradient_slices_{name}"
    program(ops)(body)


# Who makes slices: what stands in front of a custom gradient says it.
behind(rows, "of_gather")
behind(rows_nd, "of_gather_nd", "GatherNd IdentityN")
behind(lambda y: tf.gather_nd(y, [[0, 1], [1, 2]]), "of_gather_nd_by_two_columns_are_none", "GatherNd IdentityN")
behind(lambda y: tf.gather(y, [0, 1], axis=1), "of_gather_of_columns_are_none")
behind(lambda y: tf.gather(y, [[0], [1], [2], [0]], batch_dims=1), "of_gather_by_batch_are_none")
behind(lambda y: tf.nn.embedding_lookup(y, ALL), "of_an_embedding")
behind(
    lambda y: raw.SparseSegmentSum(data=y, indices=[0, 1], segment_ids=[0, 1], sparse_gradient=True),
    "of_segments",
    "SparseSegmentSum",
)
behind(
    lambda y: raw.SparseSegmentSum(data=y, indices=[0, 1], segment_ids=[0, 1]), "of_dense_segments", "SparseSegmentSum"
)
behind(
    lambda y: tf.gather(tf.RaggedTensor.from_row_lengths(y, [2, 2]), [0, 1]).flat_values, "of_ragged_rows",
    "RaggedGather",
)  # fmt: skip
behind(lambda y: tf.RaggedTensor.from_row_lengths(y, [2, 2]).to_tensor(), "of_ragged_to_dense", "RaggedTensorToTensor")
behind(own_rows, "of_a_custom_gradient", "IdentityN")

# Who hands them on.
behind(lambda y: rows(tf.identity(y)), "through_identity")
behind(lambda y: rows(tf.identity_n([y, tf.sin(y)])[0]), "through_identity_n")
behind(lambda y: rows(-y), "through_minus")
behind(lambda y: rows(tf.cast(y, tf.float64)), "through_cast")
behind(lambda y: rows(y + tf.ones(SHAPE)), "through_a_sum")
behind(lambda y: rows(y - 1.0), "through_a_difference_with_a_number")
behind(lambda y: rows(twice(y[:1]) + tf.ones(SHAPE)), "through_a_stretched_sum_are_none")
behind(lambda y: rows(twice(y[0]) + tf.ones(SHAPE)), "through_a_sum_with_a_row_are_none")
behind(lambda y: rows(tf.add_n([y, tf.ones(SHAPE)])), "through_add_n", "AddN")
behind(lambda y: rows(tf.nn.bias_add(y, [1.0, 2.0, 3.0])), "through_bias_add", "BiasAdd")
behind(lambda y: rows(tf.concat([y, y], 0)), "through_concat", "ConcatV2")
behind(lambda y: rows(tf.concat([y, tf.ones(SHAPE)], -1)), "through_concat_of_columns", "ConcatV2")
behind(lambda y: rows(tf.tensor_scatter_nd_add(y, [[0]], [[1.0, 2.0, 3.0]])), "through_scatter", "TensorScatterAdd")
behind(lambda y: rows(tf.math.floormod(y, 3.0)), "through_floormod", "FloorMod")
behind(lambda y: rows(tf.ensure_shape(y, SHAPE)), "through_ensure_shape", "EnsureShape")
behind(lambda y: rows(2.0 * y), "through_a_product_are_none")
behind(lambda y: rows(tf.reshape(y, [6, 2])), "through_reshape_are_none")
behind(lambda y: some(tf.stack([y, y])), "through_stack_are_none", "Pack")
behind(lambda y: rows(y) + tf.nn.relu(y), "beside_a_dense_part_are_none")
behind(lambda y: rows(y) + rows_nd(y), "of_two_uses", "GatherNd GatherV2")


@program("GatherV2 IdentityN")
def custom_gradient_slices_at_one_of_two_results(m: Weights, x: Any) -> Any:
    a, b = swap(value(m.v), value(m.w))
    return S(rows(a)) + S(b)


# Through calls, branches and loops.
behind(function(rows), "of_a_call", "PartitionedCall")
behind(lambda y: rows(function(tf.identity)(y)), "into_a_call_are_none", "PartitionedCall")
behind(lambda y: rows(loop(lambda a: 2.0 * a, y)[0]), "into_a_loop_are_none")
behind(lambda y: loop(rows, y)[0], "of_a_loop_are_none")


@program("PartitionedCall")
def custom_gradient_slices_into_a_call_of_a_custom_gradient_are_none(m: Weights, x: Any) -> Any:
    return S(rows(function(twice)(value(m.v))))


@program("StatelessWhile")
def custom_gradient_slices_in_a_loop(m: Weights, x: Any) -> Any:
    return S(loop(lambda a: rows(twice(a)), value(m.v))[0])


@program("StatelessIf")
def custom_gradient_slices_of_both_branches(m: Weights, x: Any) -> Any:
    return S(either(rows, rows, m, twice(value(m.v))))


@program("StatelessIf")
def custom_gradient_slices_of_one_branch(m: Weights, x: Any) -> Any:
    return S(either(rows, tf.sin, m, twice(value(m.v))))


@program("StatelessIf")
def custom_gradient_slices_of_one_branch_of_two_that_reads(m: Weights, x: Any) -> Any:
    return S(either(rows, lambda y: zeros(), m, twice(value(m.v))))


@program("StatelessIf")
def custom_gradient_slices_into_branches_with_custom_gradients(m: Weights, x: Any) -> Any:
    return S(rows(either(twice, twice, m, value(m.v))))


@program("StatelessIf")
def custom_gradient_slices_through_branches(m: Weights, x: Any) -> Any:
    return S(rows(either(tf.identity, tf.identity, m, twice(value(m.v)))))


# Gradient functions of TensorFlow that cannot take them.


@program("RGBToHSV GatherV2")
def slices_to_colours(m: Weights, x: Any) -> Any:
    return S(rows(tf.image.rgb_to_hsv(tf.sigmoid(value(m.v))))) + S(m.w)


@program("RFFT GatherV2")
def slices_to_a_fourier_transform(m: Weights, x: Any) -> Any:
    return S(tf.abs(rows(tf.signal.rfft(value(m.v)))))


@program("Svd GatherV2")
def slices_to_singular_vectors(m: Weights, x: Any) -> Any:
    return S(tf.abs(some(tf.linalg.svd(value(m.v)[:3])[1])))


@program("Svd GatherV2")
def slices_to_singular_values_are_taken(m: Weights, x: Any) -> Any:
    return S(some(tf.linalg.svd(value(m.v)[:3])[0]))


@program("ConcatV2 GatherV2")
def slices_to_a_concat_by_a_computed_axis(m: Weights, x: Any) -> Any:
    return S(rows(tf.concat([value(m.v), value(m.w)], tf.cast(S(x) * 0.0, tf.int32))))


# Slices in slices, which no function can give back.


@program("GatherNd")
def slices_in_slices_of_a_variable(m: Weights, x: Any) -> Any:
    return S(rows_nd(rows_nd(value(m.v)))) + S(m.w)


@program("GatherNd")
def slices_in_slices_of_the_input(m: Weights, x: Any) -> Any:
    return S(rows_nd(rows_nd(x)) * m.w)


@program("GatherNd GatherV2")
def slices_in_slices_of_a_gather(m: Weights, x: Any) -> Any:
    return S(rows(-rows_nd(value(m.v))))


@program("GatherNd GatherV2")
def slices_of_a_gather_of_slices_are_plain(m: Weights, x: Any) -> Any:
    return S(rows_nd(rows(value(m.v))))


@program("GatherNd")
def slices_in_slices_made_dense(m: Weights, x: Any) -> Any:
    return S(rows_nd(rows_nd(2.0 * m.v)))


@program("GatherNd")
def slices_in_slices_beside_others(m: Weights, x: Any) -> Any:
    y = value(m.v)
    return S(rows_nd(rows_nd(y)) + rows_nd(y))


@program("GatherNd PartitionedCall")
def slices_in_slices_of_a_call(m: Weights, x: Any) -> Any:
    return S(function(lambda y: rows_nd(rows_nd(y)))(2.0 * m.v))


@program("GatherNd StatelessWhile")
def slices_in_slices_of_a_loop(m: Weights, x: Any) -> Any:
    return S(loop(lambda y: rows_nd(rows_nd(y)), value(m.v), trips=tf.cast(S(m.moving) * 0.0, tf.int32) + 2)[0])


@program("GatherNd StatelessIf")
def slices_in_slices_of_both_branches(m: Weights, x: Any) -> Any:
    def twofold(y: Any) -> Any:
        return rows_nd(rows_nd(y))

    return S(either(twofold, twofold, m, value(m.v)))


@program("GatherNd StatelessIf")
def slices_in_slices_of_one_branch(m: Weights, x: Any) -> Any:
    return S(either(lambda y: rows_nd(rows_nd(y)), tf.sin, m, value(m.v)))


@program("ResourceGatherNd GatherV2")
def slices_in_slices_of_rows_of_a_variable(m: Weights, x: Any) -> Any:
    return S(rows(m.v.gather_nd([[i] for i in ALL])))


@program("RaggedGather")
def slices_in_slices_of_ragged_rows(m: Weights, x: Any) -> Any:
    ragged = tf.RaggedTensor.from_row_lengths(value(m.v), [2, 2])
    return S(tf.gather(tf.gather(ragged, [0, 1]), [1, 0]).flat_values)


# The shape of the whole is of int64 where tf.gather_nd has such indices, and branches must agree about it.


def found(x: Any) -> Any:
    """Rows by indices of int64, as tf.where gives them."""
    return tf.gather_nd(x, tf.where(x[:, 0] > -99.0))


@program("GatherNd StatelessIf")
def slices_of_int64_in_one_branch(m: Weights, x: Any) -> Any:
    return either(lambda y: S(found(y)), S, m, value(m.v)) + S(m.w)


@program("GatherNd StatelessIf")
def slices_of_int64_in_both_branches(m: Weights, x: Any) -> Any:
    return S(either(found, lambda y: 2.0 * found(y), m, value(m.v)))


@program("GatherNd StatelessIf")
def slices_of_int64_handed_on_in_one_branch(m: Weights, x: Any) -> Any:
    return S(either(lambda y: found(-y), tf.sin, m, value(m.v)))


@program("GatherNd StatelessIf")
def slices_of_int64_through_concat_in_one_branch(m: Weights, x: Any) -> Any:
    return S(either(lambda y: found(tf.concat([y, y], 0))[:4], tf.sin, m, value(m.v)))


@program("GatherNd StatelessIf")
def slices_of_int64_into_branches(m: Weights, x: Any) -> Any:
    return S(found(either(tf.identity, tf.sin, m, value(m.v))))


@program("GatherNd StatelessIf")
def slices_of_int64_into_branches_that_hand_them_on(m: Weights, x: Any) -> Any:
    return S(found(either(tf.identity, tf.negative, m, value(m.v))))


@program("GatherNd StatelessIf")
def slices_in_slices_into_branches(m: Weights, x: Any) -> Any:
    return S(rows_nd(rows_nd(either(tf.identity, tf.sin, m, value(m.v)))))


@program("GatherNd StatelessIf")
def slices_in_slices_deeper_in_one_branch(m: Weights, x: Any) -> Any:
    return S(either(lambda y: rows_nd(rows_nd(y)), lambda y: rows_nd(rows_nd(rows_nd(y))), m, value(m.v)))
