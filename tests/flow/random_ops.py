"""The ops of random programs: each with the kinds of values it takes and gives, and how TensorFlow computes it.

A kind is a letter. Values: F, D, H, C float32, float64, float16 and complex64 of [3, 4]; I and B int32 and bool of [3,
4];
R int32 of [3], each a row; S and P a float32 and a bool scalar; U a float32 vector whose length only a run tells.
Variables of shape [3, 4]: f, d, h, c, i, of the dtype of the capital letter. `"fR>F"` takes a variable and rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

ROWS, COLS = 3, 4
SHAPE = [ROWS, COLS]

DTYPES = {
    "F": tf.float32, "D": tf.float64, "H": tf.float16, "C": tf.complex64, "I": tf.int32, "B": tf.bool, "R": tf.int32,
    "S": tf.float32, "P": tf.bool, "U": tf.float32,
}  # fmt: skip

Op = tuple[str, Callable[..., Any]]


def image(a: Any) -> Any:
    """Four pixels of three colours."""
    return tf.reshape(tf.sigmoid(a), [1, 2, 2, 3])


def flat(a: Any) -> Any:
    return tf.reshape(a, [ROWS * COLS])


def back(a: Any) -> Any:
    return tf.reshape(a, SHAPE)


def whole(a: Any) -> Any:
    """Small whole numbers of any float."""
    return tf.cast(4 * tf.tanh(a), tf.int32)


def plane(a: Any) -> Any:
    """An image of one colour."""
    return tf.reshape(a, [1, ROWS, COLS, 1])


def batch_norm(a: Any, training: bool) -> Any:
    return tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(a, [1, ROWS, 1, COLS]), scale=tf.ones([COLS]), offset=tf.zeros([COLS]),
        mean=tf.zeros([0 if training else COLS]), variance=tf.ones([0 if training else COLS]), is_training=training,
    )  # fmt: skip


def training_norm(a: Any) -> list[Any]:
    result = batch_norm(a, True)
    return [back(result[0]), *spread(result[1], result[2])]


def entropy(a: Any, b: Any) -> list[Any]:
    result = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=a, labels=tf.nn.softmax(b))
    return [tf.broadcast_to(result.loss[:, None], SHAPE), result.backprop]


def pool(a: Any) -> list[Any]:
    values, places = tf.nn.max_pool_with_argmax(plane(a), 2, 1, "SAME")
    return [values[0, :, :, 0], tf.cast(places[0, :, :, 0], tf.int32)]


def orthogonal(a: Any) -> list[Any]:
    q, r = tf.linalg.qr(tf.transpose(a) + tf.eye(COLS, ROWS))
    return [back(q), r[0, 0]]


def spread(*rows: Any) -> list[Any]:
    """Values that broadcast, as wide as a matrix."""
    return [tf.broadcast_to(tf.cast(row, tf.float32), SHAPE) for row in rows]


def array(a: Any, b: Any) -> Any:
    """A TensorArray that is written, read and stacked."""
    held = tf.TensorArray(tf.float32, 3, clear_after_read=False).write(0, a).write(1, b).write(2, tf.round(a))
    return held.read(0) + tf.reduce_sum(held.stack(), 0)


def overwritten(a: Any, b: Any) -> Any:
    """A list whose first element is read after another took its place."""
    held = tf.raw_ops.TensorListFromTensor(tensor=tf.stack([a, b]), element_shape=tf.constant(SHAPE))
    held = tf.raw_ops.TensorListSetItem(input_handle=held, index=0, item=b)
    return tf.raw_ops.TensorListGetItem(
        input_handle=held, index=0, element_shape=tf.constant(SHAPE), element_dtype=tf.float32
    )


@tf.custom_gradient
def custom_one(a: Any, b: Any) -> Any:
    """Rounded, with a derivative for the first argument only."""
    return tf.round(3 * a) * b, lambda dy: (dy, None)


@tf.custom_gradient
def custom_zero(a: Any, b: Any) -> Any:
    """A derivative that is zero by its own word, and one that is true."""
    return a * b, lambda dy: (tf.zeros(SHAPE), dy * a)


@tf.custom_gradient
def custom_two(a: Any, b: Any) -> Any:
    """Two results, crosswise in the backward pass."""
    return (tf.floor(a), b * 2), lambda da, db: (db, da)


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same in a tf.function of its own."""

    def call(*arguments: Any) -> Any:
        return tf.function(function, autograph=False)(*arguments)

    return call


def assign(variable: Any, value: Any) -> Any:
    variable.assign(tf.tanh(value))
    return variable.read_value()


def assign_add(variable: Any, value: Any) -> Any:
    before = variable.read_value()
    variable.assign_add(0.1 * tf.tanh(value))
    return before * 2.0 + variable


# Differentiable in what is a float.
LIVE: dict[str, Op] = {
    "add": ("FF>F", lambda a, b: a + b),
    "mul": ("FF>F", lambda a, b: a * b),
    "sub": ("FF>F", lambda a, b: a - 0.5 * b),
    "divide": ("FF>F", lambda a, b: a / (1.5 + tf.abs(b))),
    "maximum": ("FF>F", tf.maximum),
    "difference": ("FF>F", tf.math.squared_difference),
    "atan2": ("FF>F", tf.atan2),
    "tanh": ("F>F", tf.tanh),
    "minus": ("F>F", tf.negative),
    "sine": ("F>F", tf.sin),
    "sigmoid": ("F>F", tf.sigmoid),
    "erf": ("F>F", tf.math.erf),
    "softplus": ("F>F", tf.nn.softplus),
    "leaky_relu": ("F>F", tf.nn.leaky_relu),
    "relu": ("F>F", tf.nn.relu),
    "softmax": ("F>F", tf.nn.softmax),
    "log_softmax": ("F>F", tf.nn.log_softmax),
    "cumsum": ("F>F", lambda a: tf.cumsum(a, 1, reverse=True)),
    "reverse": ("F>F", lambda a: tf.reverse(a, [1])),
    "roll": ("F>F", lambda a: tf.roll(a, 1, 0)),
    "transpose": ("F>F", lambda a: back(tf.transpose(a))),
    "pad": ("F>F", lambda a: tf.pad(a[1:, ::2], [[1, 0], [2, 0]])),
    "mirror": ("F>F", lambda a: tf.pad(a[:, :2], [[0, 0], [1, 1]], "REFLECT")),
    "halves": ("FF>F", lambda a, b: tf.concat([a[:, :2], b[:, 2:]], 1)),
    "tile": ("F>F", lambda a: tf.tile(a[:1], [ROWS, 1])),
    "expand": ("F>F", lambda a: tf.broadcast_to(a[0], SHAPE)),
    "center": ("F>F", lambda a: a - tf.reduce_mean(a, 1, keepdims=True)),
    "largest": ("F>F", lambda a: a + tf.reduce_max(a, 0)),
    "product": ("F>F", lambda a: a + tf.reduce_prod(a, 1, keepdims=True)),
    "matmul": ("FF>F", lambda a, b: tf.matmul(tf.matmul(a, b, transpose_b=True), b)),
    "einsum": ("FF>F", lambda a, b: tf.einsum("ij,kj->ik", a, b) @ tf.ones(SHAPE)),
    "convolution": ("FF>F", lambda a, b: tf.nn.conv2d(
        plane(a), tf.reshape(b[:2, :2], [2, 2, 1, 1]), 1, "SAME")[0, :, :, 0]),
    "max_pool": ("F>F", lambda a: tf.nn.max_pool2d(plane(a), 2, 1, "SAME")[0, :, :, 0]),
    "average_pool": ("F>F", lambda a: tf.nn.avg_pool2d(plane(a), 2, 1, "SAME")[0, :, :, 0]),
    "bias": ("FF>F", lambda a, b: tf.nn.bias_add(a, b[0])),
    "clip": ("FS>F", lambda a, s: tf.clip_by_value(a, -1.0, s)),
    "scale": ("FS>F", lambda a, s: a * s),
    "where": ("BFF>F", tf.where),
    "rows": ("FR>F", tf.gather),
    "gather_nd": ("FR>F", lambda a, r: tf.gather_nd(a, r[:, None])),
    "variable_rows": ("fR>F", tf.gather),
    # Of known shape: else it hangs on TensorFlow's shape inference whether a loaded loop with it can be imported.
    "variable_nd": ("fR>F", lambda v, r: tf.gather_nd(v, tf.ensure_shape(r, [ROWS])[:, None])),
    "scatter_nd": ("FR>F", lambda a, r: tf.scatter_nd(r[:, None], a, tf.constant(SHAPE))),
    "scatter_add": ("FFR>F", lambda a, b, r: tf.tensor_scatter_nd_add(a, r[:, None], b)),
    "scatter_update": ("FFR>F", lambda a, b, r: tf.tensor_scatter_nd_update(a, r[:, None], b)),
    "segments": ("FR>F", lambda a, r: tf.math.unsorted_segment_sum(a, r, ROWS)),
    "segments_max": ("FR>F", lambda a, r: tf.maximum(tf.math.unsorted_segment_max(a, r, ROWS), -3.0)),
    "embed": ("FR>F", tf.nn.embedding_lookup),
    "band": ("F>F", lambda a: tf.linalg.band_part(a, 1, 0)),
    "diagonal": ("F>F", lambda a: a + tf.linalg.diag_part(a)[:, None]),
    "resize": ("F>F", lambda a: tf.image.resize(plane(a), [6, 2])[0, ::2, :, 0] @ tf.ones([2, 4])),
    "depth": ("F>F", lambda a: back(tf.nn.space_to_depth(image(a), 2))),
    "fake_quantised": ("F>F", lambda a: tf.quantization.fake_quant_with_min_max_args(a, -2, 2)),
    "fake_quantised_range": ("FS>F", lambda a, s: tf.quantization.fake_quant_with_min_max_vars(
        a, -3.0 - tf.abs(s), 3.0)),
    "remainder": ("FF>F", lambda a, b: tf.math.floormod(a, 2.0 + tf.abs(b))),
    "igamma": ("FF>F", lambda a, b: tf.math.igamma(1.0 + tf.abs(a), tf.abs(b))),
    "identity": ("F>F", tf.identity),
    "gradients_named": ("F>F", lambda a: tf.ensure_shape(a, SHAPE)),
    "noise": ("F>F", lambda a: a * tf.random.uniform(SHAPE, 0.5, 1.0)),
    "cross_entropy": ("FF>F", lambda a, b: a * tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(b), a)[:, None]),
    "labels": ("FR>F", lambda a, r: a * tf.nn.sparse_softmax_cross_entropy_with_logits(r, a)[:, None]),
    "inference_norm": ("F>F", lambda a: back(batch_norm(a, False)[0])),
    "array": ("FF>F", array),
    "overwritten": ("FF>F", overwritten),
    "stitch": ("FF>F", lambda a, b: tf.dynamic_stitch([[0, 2], [1]], [a[:2], b[1:2]])),
    "sort": ("F>F", lambda a: tf.sort(a, 1)),
    "sum": ("F>S", tf.reduce_sum),
    "mean": ("F>S", tf.reduce_mean),
    "half_square": ("F>S", tf.nn.l2_loss),
    "entry": ("F>S", lambda a: a[1, 2]),
    "trace": ("F>S", lambda a: tf.linalg.trace(a[:, :3])),
    "add_scalars": ("SS>S", lambda s, t: s + t * t),
    "to_double": ("F>D", lambda a: tf.cast(a, tf.float64)),
    "from_double": ("D>F", lambda a: tf.cast(a, tf.float32)),
    "double_mul": ("DD>D", lambda a, b: a * b),
    "to_half": ("F>H", lambda a: tf.cast(a, tf.float16)),
    "from_half": ("H>F", lambda a: tf.cast(a, tf.float32)),
    "half_tanh": ("HH>H", lambda a, b: tf.tanh(a) + b),
    "complex": ("FF>C", tf.complex),
    "cast_complex": ("F>C", lambda a: tf.cast(a, tf.complex64)),
    "real": ("C>F", tf.math.real),
    "imaginary": ("C>F", tf.math.imag),
    "modulus": ("C>F", tf.abs),
    "from_complex": ("C>F", lambda a: tf.cast(a, tf.float32)),
    "complex_mul": ("CC>C", lambda a, b: a * tf.math.conj(b)),
    "fourier": ("C>C", tf.signal.fft),
    "kept": ("FB>U", tf.boolean_mask),
    "chosen": ("F>U", lambda a: tf.boolean_mask(a, a > 0)),
    "sum_kept": ("FU>F", lambda a, u: a + tf.reduce_sum(u)),
    "kept_sine": ("U>U", tf.sin),
    "assign": ("fF>F", assign),
    "assign_add": ("fF>F", assign_add),
    "custom_one": ("FF>F", called(custom_one)),
    "custom_zero": ("FF>F", called(custom_zero)),
    "custom_bare": ("FF>F", custom_one),
    "silu": ("F>F", called(tf.nn.silu)),
}  # fmt: skip

# Where a gradient ends, in None or zeros; and what integers and bools do.
CUTTING: dict[str, Op] = {
    "round": ("F>F", lambda a: tf.round(3 * a)),
    "floor": ("F>F", tf.floor),
    "ceil": ("F>F", tf.math.ceil),
    "rint": ("F>F", tf.math.rint),
    "sign": ("F>F", tf.sign),
    "floor_div": ("FF>F", lambda a, b: tf.math.floordiv(a, 1.0 + tf.abs(b))),
    "stop": ("F>F", tf.stop_gradient),
    "ones": ("F>F", lambda a: tf.ones(tf.shape(a))),
    "zeros_like": ("F>F", lambda a: tf.zeros_like(a) + 1.0),
    "sized": ("U>F", lambda u: tf.fill(SHAPE, tf.cast(tf.size(u), tf.float32))),
    "hot": ("R>F", lambda r: tf.one_hot(r, COLS)),
    "hot_scaled": ("RS>F", lambda r, s: tf.one_hot(r, COLS, on_value=s)),
    "argmax": ("F>R", lambda a: tf.math.mod(tf.argmax(a, 1, tf.int32), ROWS)),
    "argmin": ("F>R", lambda a: tf.argmin(a, 0, tf.int32)[:ROWS]),
    "categorical": ("F>R", lambda a: tf.random.categorical(tf.tanh(a)[:, :3], 1, tf.int32)[:, 0]),
    "best": ("F>R", lambda a: tf.math.top_k(a[:, :3], 1).indices[:, 0]),
    "ranks": ("F>I", lambda a: tf.argsort(tf.argsort(a))),
    "truncate": ("F>I", whole),
    "bits": ("F>I", lambda a: tf.bitcast(a, tf.int32)),
    "buckets": ("F>I", lambda a: tf.raw_ops.Bucketize(input=a, boundaries=[-1.0, 0.0, 1.0])),
    "histogram": ("F>I", lambda a: tf.broadcast_to(tf.histogram_fixed_width(a, [-1.0, 1.0], COLS), SHAPE)),
    "search": ("FF>I", lambda a, b: tf.searchsorted(tf.sort(a), b)),
    "double_truncate": ("D>I", lambda a: tf.cast(tf.round(a), tf.int32)),
    "add_whole": ("II>I", lambda i, j: i + j),
    "mul_whole": ("II>I", lambda i, j: i * j - 1),
    "to_float": ("I>F", lambda i: tf.cast(i, tf.float32) / 7),
    "to_rows": ("I>R", lambda i: tf.math.mod(i[:, 1], ROWS)),
    "greater": ("FF>B", lambda a, b: a > b),
    "positive": ("F>B", lambda a: a > 0),
    "same": ("RR>F", lambda r, s: tf.broadcast_to(tf.reduce_mean(tf.cast(tf.equal(r, s), tf.float32)), SHAPE)),
    "even": ("I>B", lambda i: tf.equal(i % 2, 0)),
    "both": ("BB>B", tf.logical_and),
    "not": ("B>B", tf.logical_not),
    "finite": ("F>B", tf.math.is_finite),
    "mask": ("B>F", lambda b: tf.cast(b, tf.float32)),
    "any": ("B>P", tf.reduce_any),
    "total": ("F>P", lambda a: tf.reduce_sum(a) > 0.5),
    "is_large": ("S>P", lambda s: s > 0.5),
    "choose": ("PFF>F", tf.where),
    "where_whole": ("BII>I", tf.where),
    "text": ("F>F", lambda a: tf.strings.to_number(tf.strings.as_string(a))),
    "present": ("FB>F", lambda a, b: a * tf.reduce_sum(tf.cast(tf.where(b), tf.float32))),
    "number": ("P>F", lambda p: tf.fill(SHAPE, tf.cast(p, tf.float32))),
    "in_top": ("FR>F", lambda a, r: tf.cast(tf.math.in_top_k(r, a, 2), tf.float32)[:, None] * tf.ones(SHAPE)),
}  # fmt: skip

# Several results, which have gradients or not.
SEVERAL: dict[str, Op] = {
    "split": ("FF>FF", lambda a, b: tf.split(tf.concat([a, b], 0), 2)),
    "unstack": ("FF>FF", lambda a, b: tf.unstack(tf.stack([a, b]))),
    "identities": ("FI>FI", lambda a, i: tf.identity_n([a, i])),
    "identities_float": ("FF>FF", lambda a, b: tf.identity_n([a, b])),
    "top": ("F>FI", lambda a: tuple(tf.math.top_k(a, COLS))),
    "training_norm": ("F>FFF", training_norm),
    "moments": ("F>FF", lambda a: spread(*tf.nn.moments(a, 0))),
    "entropy_backprop": ("FF>FF", entropy),
    "pool_argmax": ("F>FI", pool),
    "partition": ("FR>FF", lambda a, r: [tf.broadcast_to(tf.reduce_sum(p, 0), SHAPE)
                                         for p in tf.dynamic_partition(a, tf.minimum(r, 1), 2)]),
    "orthogonal": ("F>FS", orthogonal),
    "custom_two": ("FF>FF", called(custom_two)),
    "custom_bare_two": ("FF>FF", custom_two),
}  # fmt: skip

# TensorFlow has no gradient for an op of these, or refuses.
RAISING: dict[str, Op] = {
    "unique": ("F>U", lambda a: tf.unique(flat(a)).y),
    "unique_ids": ("F>I", lambda a: back(tf.unique(flat(a)).idx)),
    "bincount": ("F>F", lambda a: back(tf.math.bincount(tf.range(12), flat(a), minlength=12, maxlength=12))),
    "hue": ("F>F", lambda a: back(tf.image.adjust_hue(image(a), 0.1))),
    "contrast": ("F>F", lambda a: back(tf.image.adjust_contrast(image(a), 1.5))),
    "next_after": ("FF>F", tf.math.nextafter),
    "prevented": ("F>F", lambda a: tf.raw_ops.PreventGradient(input=a)),
    "line": ("SS>F", lambda s, t: tf.broadcast_to(tf.linspace(s, t, COLS), SHAPE)),
}  # fmt: skip

GROUPS: dict[str, dict[str, Op]] = {"live": LIVE, "cutting": CUTTING, "several": SEVERAL, "raising": RAISING}
OPS: dict[str, Op] = {name: op for group in GROUPS.values() for name, op in group.items()}
# How a value of any kind comes from a float32 matrix, where a program lacks one.
MAKE = {
    "D": "to_double", "H": "to_half", "C": "cast_complex", "I": "truncate", "B": "positive", "R": "argmax", "S": "mean",
    "P": "total", "U": "chosen",
}  # fmt: skip
