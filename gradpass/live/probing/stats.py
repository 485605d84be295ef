"""Statistics of a tensor, computed where it is made: six numbers leave the graph, whatever its size."""

from __future__ import annotations

from functools import cache
from typing import Any

import tensorflow as tf

from gradpass.report.probe import Stats

Numbers = Any  # a float64 tensor of as many elements as Stats has fields


def measure(value: Any) -> Numbers:
    """The numbers of a float or complex tensor, or of the IndexedSlices that the gradient of a lookup is.

    In the order of `Stats`: elements, zeros, NaN, infinite ones, the largest absolute value and the Euclidean norm,
    both of the finite elements.
    """
    if isinstance(value, tf.IndexedSlices):
        return _of_slices(value)
    if value.dtype.is_complex:
        value = tf.abs(value)
    return _measure(value.dtype)(tf.reshape(value, [-1]))


def read(row: Any) -> Stats:
    """The Stats of numbers that were run."""
    size, zeros, nans, infinite, largest, norm = (float(number) for number in row)
    return Stats(int(size), int(zeros), int(nans), int(infinite), largest, norm)


def _of_slices(slices: Any) -> Numbers:
    """Rows that were looked up several times are added up, as an optimizer does; rows never looked up are zeros."""
    indices, place = tf.unique(tf.reshape(slices.indices, [-1]))
    rows = tf.math.unsorted_segment_sum(slices.values, place, tf.size(indices))
    found = measure(rows)
    whole = tf.cast(tf.reduce_prod(tf.cast(slices.dense_shape, tf.int64)), tf.float64)
    hidden = whole - found[0]
    return found + tf.stack([hidden, hidden, *[tf.zeros([], tf.float64)] * 4])


@cache
def _measure(dtype: tf.DType) -> Any:
    """The function that measures flat tensors of a dtype, traced once: a graph then has one node a tensor for it."""
    signature = [tf.TensorSpec([None], dtype)]
    attributes = {"_noinline": True}
    return tf.function(_numbers, signature, autograph=False, experimental_attributes=attributes)


def _numbers(flat: Any) -> Numbers:
    wide = flat if flat.dtype == tf.float64 else tf.cast(flat, tf.float32)
    finite = tf.math.is_finite(wide)
    kept = tf.where(finite, wide, tf.zeros_like(wide))
    largest = tf.maximum(tf.reduce_max(tf.abs(kept)), 0)  # of nothing it is -inf
    # Scaled first: the squares of what float32 holds may be more, or less, than it holds.
    scale = tf.where(largest > 0, largest, tf.ones_like(largest))
    norm = tf.cast(scale, tf.float64) * tf.sqrt(tf.cast(tf.reduce_sum(tf.square(kept / scale)), tf.float64))
    counts = [tf.size(flat, tf.int64), *(_count(f(wide)) for f in (_is_zero, tf.math.is_nan, tf.math.is_inf))]
    return tf.stack([tf.cast(number, tf.float64) for number in (*counts, largest, norm)])


def _is_zero(tensor: Any) -> Any:
    return tf.equal(tensor, 0)


def _count(mask: Any) -> Any:
    return tf.math.count_nonzero(mask, dtype=tf.int64)
