"""Programs that make the verdict of order 2 hard, for `test_second.py`: bodies as in `truth.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tests.flow.truth import Body, Weights

S = tf.reduce_sum


def call(body: Callable[..., Any], *inputs: Any) -> Any:
    return tf.function(body, autograph=False)(*inputs)


def loop(body: Callable[[Any], Any], start: Any) -> Any:
    return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, body(s)), (tf.constant(0), start))[1]


def outside(body: Callable[..., Any]) -> Body:
    """A loop over x whose body gets the variables' values, read before it."""

    def run(m: Weights, x: Any) -> Any:
        v, w = tf.identity(m.v), tf.identity(m.w)
        return loop(lambda s: body(s, v, w), x)

    return run


def resized(v: Any, method: str) -> Any:
    return tf.image.resize(tf.reshape(v, [1, 4, 3, 1]), [2, 2], method)


def hue(v: Any) -> Any:
    return tf.image.adjust_hue(tf.sigmoid(v)[None], 0.1)


@tf.custom_gradient
def cube(x: Any) -> Any:
    return x**3, lambda dy: 3 * dy * x * x


@tf.custom_gradient
def rounded(x: Any) -> Any:
    return tf.round(x), lambda dy: dy


@tf.custom_gradient
def grown(x: Any) -> Any:
    y = tf.exp(x)
    return y, lambda dy: 2.0 * dy * y


def penalty(m: Weights, x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = S(tf.tanh(x * m.v) * m.w)
    return S(tape.gradient(y, x) ** 2)


def overwritten(m: Weights, x: Any) -> Any:
    v, w = tf.identity(m.v), tf.identity(m.w)
    step = lambda i, a, b: (i + 1, a + tf.round(b) * v, b * w)  # noqa: E731
    return tf.while_loop(lambda i, a, b: i < 3, step, (tf.constant(0), x, v))[1]


def written(m: Weights, x: Any) -> Any:
    v = tf.identity(m.v)
    step = lambda i, array: (i + 1, array.write(i, v[i] * v[i]))  # noqa: E731
    return tf.while_loop(lambda i, _: i < 4, step, (0, tf.TensorArray(tf.float32, 4)))[1].stack() + m.w


def image(v: Any) -> Any:
    return tf.reshape(v, [1, 2, 2, 3])


PLAIN: dict[str, Body] = {
    "product": lambda m, x: S(m.v * m.w),
    "linear": lambda m, x: S(m.v) + S(x * m.w),
    "dense": lambda m, x: tf.matmul(x, m.w, transpose_b=True) + m.v[:, :1],
    "half": lambda m, x: {"a": 0.5 * m.v, "b": tf.stop_gradient(m.w) * tf.stop_gradient(m.w)},
    "tanh": lambda m, x: S(tf.tanh(x * m.v)) + S(m.w),
    "relu": lambda m, x: S(tf.nn.relu(x * m.v)) + tf.nn.relu6(m.w),
    "two layers": lambda m, x: tf.nn.relu(x * m.v) * m.w,
    "softmax": lambda m, x: tf.nn.softmax(x * m.v) + tf.nn.gelu(m.w),
    "round": lambda m, x: S(m.v + m.w * tf.round(m.v)),
    "sign": lambda m, x: S(tf.sign(tf.tanh(m.v)) * m.w),
    "sign alone": lambda m, x: S(tf.sign(tf.tanh(m.v))) + m.w**2,
    "max": lambda m, x: tf.maximum(m.v, m.w) * x,
    "gather": lambda m, x: S(tf.gather(m.table, [0, 2]) ** 2) + S(m.v),
    "norm": lambda m, x: tf.compat.v1.nn.fused_batch_norm(image(m.v), m.w[0], m.w[1])[0],
    "convolution": lambda m, x: tf.nn.conv2d(
        tf.tanh(tf.nn.conv2d(tf.reshape(x, [1, 4, 3, 1]), tf.reshape(m.v, [2, 2, 1, 3]), 1, "SAME")),
        tf.reshape(m.w, [1, 1, 3, 4]), 1, "SAME"),
    "one convolution": lambda m, x: tf.nn.conv2d(
        tf.reshape(x, [1, 4, 3, 1]), tf.reshape(m.v, [2, 2, 1, 3]), 1, "SAME") + m.w[0, 0],
    "pool": lambda m, x: tf.nn.max_pool2d(image(m.v), 2, 1, "SAME") + tf.nn.avg_pool2d(image(m.w), 2, 1, "SAME"),
    "cross entropy": lambda m, x: tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(x), m.v) + S(m.w),
    "bicubic": lambda m, x: resized(m.v, "bicubic") + S(m.w**2),
    "bicubic of tanh": lambda m, x: resized(tf.tanh(m.v), "bicubic") * S(m.w),
    "bicubic of round": lambda m, x: S(resized(tf.round(m.v), "bicubic")) + S(m.w**2),
    "bilinear": lambda m, x: resized(m.v, "bilinear") ** 2 + S(m.w),
    "softsign": lambda m, x: tf.nn.softsign(m.v) + tf.nn.softplus(m.w),
    "hue": lambda m, x: S(hue(m.v)) + S(m.w**2),
    "hue behind stop": lambda m, x: S(tf.stop_gradient(hue(m.v)) * m.w**2),
    "penalty": penalty,
    "unknown shapes": lambda m, x: tf.boolean_mask(m.v, x[:, 0] > -9.0) * tf.boolean_mask(m.w, x[:, 0] > -9.0),
    "custom": lambda m, x: S(cube(m.v * 1.0)) + m.w,
    "custom straight through": lambda m, x: S(rounded(m.v * m.w)),
    "custom that captures": lambda m, x: grown(m.v * m.w),
    "custom in a call": lambda m, x: call(lambda a, b: grown(a) * b, m.v, m.w),
    "custom behind round": lambda m, x: S(tf.round(rounded(m.v * m.w))) + S(m.w),
}  # fmt: skip

CONTROL: dict[str, Body] = {
    "call": lambda m, x: call(lambda a, b: S(a * tf.tanh(b)), m.v, m.w),
    "unused result": lambda m, x: call(lambda a, b: (a + 1, tf.tanh(a * b)), m.v, m.w)[0],
    "round in a call": lambda m, x: call(lambda a, b: tf.round(a) * b, m.v, m.w),
    "calls": lambda m, x: call(lambda a, b: call(lambda c, d: (c + d, c * d), a, b)[0] * a, m.v, m.w),
    "bicubic unused": lambda m, x: call(lambda a, b: (a * b, resized(a, "bicubic")), m.v, m.w)[0],
    "branch": lambda m, x: tf.cond(S(x) > 0, lambda: S(m.v * m.w), lambda: S(m.v**3)),
    "linear branch": lambda m, x: tf.cond(S(x) > 0, lambda: S(m.v), lambda: S(m.w)),
    "one branch": lambda m, x: tf.cond(S(x) > 0, lambda: S(tf.tanh(m.v)), lambda: S(m.w)),
    "branches": lambda m, x: tf.cond(
        S(x) > 0, lambda: tf.cond(S(m.v) > 0, lambda: m.v * m.w, lambda: m.w), lambda: m.v),
    "round in a branch": lambda m, x: tf.cond(S(x) > 0, lambda: tf.round(m.v) * m.w, lambda: m.w * 1.0) * m.v,
    "bicubic in a branch": lambda m, x: tf.cond(S(x) > 0, lambda: S(resized(m.v, "bicubic")), lambda: S(m.w**2)),
    "branch in a call": lambda m, x: call(lambda a, b: tf.cond(S(a) > 0, lambda: a * b, lambda: b), m.v, m.w),
    "case": lambda m, x: tf.switch_case(tf.cast(x[0, 0] > 0, tf.int32), [lambda: m.v * m.w, lambda: m.w**2]),
    "loop": lambda m, x: loop(lambda s: s * m.v, m.w),
    "linear loop": lambda m, x: loop(lambda s: s + m.v, m.w),
    "call in a loop": lambda m, x: loop(lambda s: call(lambda a, b: a * b, s, m.v), m.w),
    "loop in a loop": lambda m, x: loop(lambda s: s + loop(lambda t: t * m.v, m.w), x),
    "branch in a loop": lambda m, x: loop(lambda s: tf.cond(S(s) > 0, lambda: s * m.v, lambda: s + m.w), x),
    "map": lambda m, x: tf.map_fn(lambda e: e * e, m.v) * m.w,
    "array": written,
    "values: product": outside(lambda s, v, w: s * v + w),
    "values: sum": outside(lambda s, v, w: s + v + w),
    "values: round": outside(lambda s, v, w: s + tf.round(v) * w),
    "values: sign": outside(lambda s, v, w: s + tf.sign(v) * w),
    "values: tanh": outside(lambda s, v, w: s + tf.tanh(v) + w),
    "values: branch": outside(lambda s, v, w: tf.cond(S(s) > 0, lambda: s * v, lambda: s + w)),
    "values: call": outside(lambda s, v, w: s + call(lambda a, b: (a * b, tf.tanh(b)), v, w)[0]),
    "values: bicubic": outside(lambda s, v, w: s + S(resized(v, "bicubic")) * w),
    "values: loop": outside(lambda s, v, w: s + loop(lambda t: t * v, w)),
    "values: overwritten": overwritten,
}  # fmt: skip
