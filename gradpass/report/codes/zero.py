"""GP3xx: TensorFlow gives a gradient, and it is zeros whatever the data."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code


class ZeroOp(Code):
    """This op's gradient function returns zeros for what is used of it: the op may have a gradient for another of its
    outputs (the normalised values of a batch normalisation, not its batch mean). Nothing warns: the gradient is there,
    the optimizer applies it, and the weights never move.
    """

    code = "GP300"
    name = "zero-op"
    severity = "warning"
    message = "{what} has a gradient of zeros: {whom} {gets}"
    help = "compute it with ops that have a gradient, or write its derivative yourself by `tf.custom_gradient`"
    helps: ClassVar = dict.fromkeys(
        ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
        "compute mean and variance by `tf.nn.moments(image, [0, 1, 2])`, which has a gradient",
    )
    says = "zeros"
    failing = """
v = tf.Variable(tf.reshape(tf.range(8.0), [2, 2, 2, 1]))

def loss():
    _, mean, _ = tf.compat.v1.nn.fused_batch_norm(v, [1.0], [0.0])
    return tf.reduce_sum(mean)
"""
    fixed = """
v = tf.Variable(tf.reshape(tf.range(8.0), [2, 2, 2, 1]))

def loss():
    mean, variance = tf.nn.moments(v, axes=[0, 1, 2])
    return tf.reduce_sum(mean)
"""


class HardSign(Code):
    """The sign of a number is constant on both sides of 0. TensorFlow registers a gradient of zeros for tf.sign, so
    training goes on without an error and without effect.
    """

    code = "GP301"
    name = "hard-sign"
    severity = "warning"
    ops = ("Sign",)
    message = "{what} has a gradient of zeros: {whom} {gets}"
    help = "use `tf.tanh(x / width)`, or pass the gradient on: `x + tf.stop_gradient(tf.sign(x) - x)`"
    says = "zeros"
    failing = """
v = tf.Variable([-0.4, 1.6])

def loss():
    return tf.reduce_sum(tf.sign(v))
"""
    fixed = """
v = tf.Variable([-0.4, 1.6])

def loss():
    return tf.reduce_sum(tf.tanh(v / 0.5))
"""


class LostOnTheWay(Code):
    """Every op on the way has a gradient, and still TensorFlow answers zeros or None: it loses the gradient at a call.

    The known case is a tf.while_loop inside another one in a *loaded* SavedModel: the variables that the inner loop
    reads get zeros there, without a word, while the same function gives their gradient in the process that made it.
    """

    code = "GP302"
    name = "lost-on-the-way"
    severity = "warning"
    message = "TensorFlow loses the gradient in a loop or call, though all ops have one: {whom} {gets}"
    loaded = True
    help = "read it before the outer loop, `x = tf.identity(w)`, and use x inside"
    says = "zeros"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    def inner(i, total):
        return tf.while_loop(lambda j, t: j < 2, lambda j, t: (j + 1, t + tf.reduce_sum(v * v)), [0, total])
    return tf.while_loop(lambda i, t: i < 2, lambda i, t: (i + 1, inner(i, t)[1]), [0, 0.0])[1]
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    x = tf.identity(v)
    def inner(i, total):
        return tf.while_loop(lambda j, t: j < 2, lambda j, t: (j + 1, t + tf.reduce_sum(x * x)), [0, total])
    return tf.while_loop(lambda i, t: i < 2, lambda i, t: (i + 1, inner(i, t)[1]), [0, 0.0])[1]
"""
