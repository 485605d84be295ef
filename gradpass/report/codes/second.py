"""What `check --order 2` finds: targets whose gradient of the gradient is not there."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code

RESIZES = dict.fromkeys(
    ("ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "ScaleAndTranslate"),
    "a resize is a matrix product, which has both: `tf.einsum('yi,bijc,xj->byxc', rows, image, columns)`",
)


class SecondDerivativeMissing(Code):
    """The op has a gradient, but that gradient is computed by an op which has none: it can be differentiated once, not
    twice. A gradient penalty, a Hessian or a meta-learning step through it makes TensorFlow raise, for every variable
    of the function, also for those that never pass through the op.
    """

    code = "GP116"
    name = "second-derivative-missing"
    message = "{what} has no second gradient ({error}): {whom} {gets}"
    help = "compute it with ops that can be differentiated twice, such as products, powers and tf.exp"
    helps: ClassVar = {**RESIZES, "Softsign": "use `x / (1.0 + tf.abs(x))`, the same with two derivatives"}
    fix = "refuse"
    refusal = "`gradpass fix` repairs gradients of order 1"
    says = "LookupError"
    order = 2
    failing = """
v = tf.Variable(tf.reshape(tf.range(16.0), [1, 4, 4, 1]))

def loss():
    return tf.reduce_sum(tf.image.resize(v, [2, 2], "bicubic") ** 2)
"""
    fixed = """
v = tf.Variable(tf.reshape(tf.range(16.0), [1, 4, 4, 1]))
halves = tf.constant([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])

def loss():
    return tf.reduce_sum(tf.einsum("yi,bijc,xj->byxc", halves, v, halves) ** 2)
"""


class SecondDerivativeEnds(Code):
    """The op has a gradient, and that gradient is computed by an op that TensorFlow has marked as not differentiable,
    though what it computes can be differentiated. TensorFlow raises nothing: it answers None, or what is left of the
    second derivative, which is wrong.
    """

    code = "GP117"
    name = "second-derivative-ends"
    message = "the second gradient of {what} ends at {error}: {whom} {gets}"
    help = "compute it with ops that can be differentiated twice, such as products, powers and tf.exp"
    helps: ClassVar = RESIZES
    fix = "refuse"
    refusal = "`gradpass fix` repairs gradients of order 1"
    order = 2
    failing = """
v = tf.Variable(tf.reshape(tf.range(16.0), [1, 4, 4, 1]))

def loss():
    return tf.reduce_sum(tf.image.resize(v, [2, 2], "bilinear") ** 2)
"""
    fixed = """
v = tf.Variable(tf.reshape(tf.range(16.0), [1, 4, 4, 1]))
halves = tf.constant([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])

def loss():
    return tf.reduce_sum(tf.einsum("yi,bijc,xj->byxc", halves, v, halves) ** 2)
"""


class NoSecondDerivative(Code):
    """No gradient of order 1 depends on these targets: the outputs are linear in them, and in the product with every
    other target. That is no fault of the graph. TensorFlow answers None, or zeros where the model is called as a
    function.
    """

    code = "GP206"
    name = "no-second-derivative"
    severity = "note"
    message = "{entry} is linear in {whom}: there is no second gradient"
    help = "nothing is wrong; a loss that is not linear in the outputs (a square, a cross-entropy) has one"
    fix = "advise"
    order = 2
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v * [3.0, 4.0])
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 3)
"""


class ConstantDerivative(Code):
    """The derivative of this op is constant wherever it exists (ReLU, max pooling): TensorFlow gives zeros for the
    second, and so does mathematics. Smooth relatives (softplus, GELU, average pooling) have one.
    """

    code = "GP303"
    name = "constant-derivative"
    severity = "note"
    message = "the derivative of {what} is piecewise constant, the second one zeros: {whom} {gets}"
    help = "use `tf.nn.softplus(x)` for ReLU, or `tf.nn.avg_pool2d` for max pooling, if second gradients matter"
    fix = "advise"
    says = "zeros"
    order = 2
    failing = """
v = tf.Variable([1.0, -2.0])

def loss():
    return tf.reduce_sum(tf.nn.relu(v))
"""
    fixed = """
v = tf.Variable([1.0, -2.0])

def loss():
    return tf.reduce_sum(tf.nn.softplus(v))
"""
