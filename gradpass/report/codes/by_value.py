"""GP31x, GP40x: what a gradient is by value, for one batch of data; found by `gradpass.probe`."""

from __future__ import annotations

from gradpass.report.codes.base import Code

PROBE = "gp.probe(loss, variables=[v])"


class DeadUnits(Code):
    """All inputs of a ReLU are below 0 for the whole batch, where it is flat: its output is zeros, and so is every
    gradient through it. If the next batches look alike, the weights before it never move again. Mostly a learning rate
    that was too high for one step, a bias far below 0, or an input that was not normalised.
    """

    code = "GP310"
    name = "dead-units"
    severity = "warning"
    message = "{what} {why}: {whom} {gets}"
    help = "start again with a lower learning rate or other weights, normalise its input, or use `tf.nn.leaky_relu(x)`"
    fix = "advise"
    says = "zeros"
    live = PROBE
    failing = """
v = tf.Variable([[0.5, -1.0], [1.0, 0.3]])
x = tf.constant([[1.0, 2.0], [3.0, 4.0]])

def loss():
    return tf.reduce_sum(tf.nn.relu(x @ v - 10.0))
"""
    fixed = """
v = tf.Variable([[0.5, -1.0], [1.0, 0.3]])
x = tf.constant([[1.0, 2.0], [3.0, 4.0]])

def loss():
    return tf.reduce_sum(tf.nn.leaky_relu(x @ v - 10.0))
"""


class Saturated(Code):
    """A sigmoid, tanh or softmax is so far out for the whole batch that its derivative rounds to 0: beyond 17 of a
    sigmoid and 9 of a tanh in float32. Weights that start too large or data that is not scaled lead there. A softmax
    over one class is 1 whatever comes in.
    """

    code = "GP311"
    name = "saturated"
    severity = "warning"
    message = "{what} {why}: {whom} {gets}"
    help = "scale down what comes in, by smaller weights or a normalisation, and give logits to a loss that takes them"
    fix = "advise"
    says = "zeros"
    live = PROBE
    failing = """
v = tf.Variable([2.0, 3.0])

def loss():
    return tf.reduce_sum(tf.sigmoid(100.0 * v))
"""
    fixed = """
v = tf.Variable([2.0, 3.0])

def loss():
    return tf.reduce_sum(tf.sigmoid(v))
"""


class ZeroMask(Code):
    """For this batch the value is multiplied by zeros, never taken by a tf.where, or no row of it is selected. Every op
    has a gradient, and all of it is zeros. With masks and weights that come with the data this may be the batch (all
    lengths 0, nothing of that class), or the mask may be made wrongly.
    """

    code = "GP312"
    name = "zero-mask"
    severity = "warning"
    message = "{what} {why}: {whom} {gets}"
    help = (
        "look at the mask, weight or index that this batch gives; one that leaves nothing is mostly inverted or padding"
    )
    fix = "advise"
    says = "zeros"
    live = PROBE
    failing = """
v = tf.Variable([[0.5, -1.0, 2.0], [1.0, 0.0, 3.0]])
lengths = tf.Variable([0, 0])

def loss():
    mask = tf.sequence_mask(lengths, maxlen=3, dtype=tf.float32)
    return tf.reduce_sum(v * mask)
"""
    fixed = """
v = tf.Variable([[0.5, -1.0, 2.0], [1.0, 0.0, 3.0]])
lengths = tf.Variable([2, 3])

def loss():
    mask = tf.sequence_mask(lengths, maxlen=3, dtype=tf.float32)
    return tf.reduce_sum(v * mask)
"""


class Underflow(Code):
    """The gradient is there and becomes smaller than the smallest number of a 16-bit float, 6e-8 in float16. What is
    left is zeros. In mixed precision a loss is therefore scaled up before its gradient is taken, and the gradient is
    scaled down again in float32.
    """

    code = "GP313"
    name = "underflow"
    severity = "warning"
    message = "{what} {why}: {whom} {gets}"
    help = "multiply the loss (compile with a keras.optimizers.LossScaleOptimizer, or do it yourself), or use bfloat16"
    fix = "advise"
    says = "zeros"
    live = PROBE
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    half = tf.cast(v, tf.float16)
    return 1e-9 * tf.reduce_sum(tf.cast(half, tf.float32))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    half = tf.cast(v, tf.float16)
    return 1e-9 * 2.0 ** 15 * tf.reduce_sum(tf.cast(half, tf.float32))
"""


class Vanishing(Code):
    """The gradient gets smaller from layer to layer: in one far from the loss it is less than 1/100,000 of what it is
    in one near to it. No learning rate serves both; the first layers stay as they were made. Chains of sigmoids or
    tanhs do this, and small weights.
    """

    code = "GP314"
    name = "vanishing-gradient"
    severity = "warning"
    message = "the gradient vanishes on the way to {what}: {why}"
    help = "use ReLU-like activations, normalisation between the layers or connections that skip some of them"
    fix = "advise"
    says = "a gradient"
    live = "gp.probe(loss)"
    failing = """
v = tf.Variable([0.5])
later = tf.Variable([1.0])

def loss():
    x = tf.tanh(v)
    for _ in range(20):
        x = 0.5 * tf.tanh(x)
    return tf.reduce_sum(x + tf.sigmoid(later * x + later))
"""
    fixed = """
v = tf.Variable([0.5])
later = tf.Variable([1.0])

def loss():
    x = tf.tanh(v)
    for _ in range(20):
        x = x + 0.5 * tf.tanh(x)
    return tf.reduce_sum(x + tf.sigmoid(later * x + later))
"""


class MostlyDead(Code):
    """Nine in ten units of an activation or more have no gradient for any example of this batch: they are off (ReLU) or
    saturated (sigmoid, tanh). The rest still learns, with less than was paid for.
    """

    code = "GP315"
    name = "mostly-dead"
    severity = "note"
    message = "{what} {why}"
    help = "probe with more data; if they stay so, lower the learning rate or normalise what comes in"
    fix = "advise"
    says = "a gradient"
    live = PROBE
    failing = """
v = tf.Variable(tf.ones([2, 20]))
bias = tf.constant([0.0] + 19 * [-100.0])

def loss():
    return tf.reduce_sum(tf.nn.relu(tf.constant([[1.0, 2.0], [3.0, 4.0]]) @ v + bias))
"""
    fixed = """
v = tf.Variable(tf.ones([2, 20]))

def loss():
    return tf.reduce_sum(tf.nn.relu(tf.constant([[1.0, 2.0], [3.0, 4.0]]) @ v))
"""


class ZeroDerivative(Code):
    """At these values the derivative of the op is 0: the square of a difference that is 0, a normalisation of a single
    value, gradients that cancel. If it is so for every batch, what is before it is not trained. A loss that is at its
    minimum says the same.
    """

    code = "GP316"
    name = "zero-derivative"
    severity = "warning"
    message = "{what} {why}: {whom} {gets}"
    help = "see whether the loss is at its minimum already; if not, compute it otherwise where this op is flat"
    fix = "advise"
    says = "zeros"
    live = PROBE
    failing = """
v = tf.Variable([0.0, 0.0])

def loss():
    return tf.reduce_sum(tf.square(v))
"""
    fixed = """
v = tf.Variable([0.5, 0.0])

def loss():
    return tf.reduce_sum(tf.square(v))
"""


class ZeroWeights(Code):
    """A layer whose weights are all zeros lets nothing through to what is before it. Where the weights get a gradient
    themselves this ends with the first step (a residual branch or adapter that starts at 0 is made so); where they get
    none, it never ends.
    """

    code = "GP317"
    name = "zero-weights"
    severity = "note"
    message = "{what} {why}: {whom} {gets} until that moves"
    help = "if it is not meant to start at 0, give it another initial value"
    fix = "advise"
    says = "zeros"
    live = PROBE
    failing = """
v = tf.Variable([1.0, 2.0])
scale = tf.Variable([0.0, 0.0])

def loss():
    return tf.reduce_sum(tf.square(v * scale + 1.0))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
scale = tf.Variable([0.1, 0.1])

def loss():
    return tf.reduce_sum(tf.square(v * scale + 1.0))
"""


class NotFinite(Code):
    """The loss itself is NaN or infinite, so no gradient of it is of use. The op that is named is the first that makes
    such a number of finite ones: a logarithm of 0, a division by 0, the mean of nothing, a number too large.
    """

    code = "GP400"
    name = "not-finite"
    message = "the loss is no finite number, since {what} {why}: {whom} {gets}"
    help = "keep it away from there: `tf.maximum(x, 1e-6)` below a logarithm or a division, or clip what grows"
    fix = "advise"
    says = "NaN"
    live = PROBE
    failing = """
v = tf.Variable([0.0, 1.0])

def loss():
    return tf.reduce_sum(v * tf.math.log(v))
"""
    fixed = """
v = tf.Variable([0.0, 1.0])

def loss():
    return tf.reduce_sum(tf.math.xlogy(v, tf.maximum(v, 1e-6)))
"""


class BranchNotTaken(Code):
    """A tf.where (or a mask) leaves an op's result out, and its gradient is NaN all the same: TensorFlow multiplies the
    gradient 0 of what was left out by the op's infinite derivative, and 0 times infinity is NaN.
    """

    code = "GP401"
    name = "branch-not-taken"
    message = "{what} {why}: {whom} {gets}"
    help = (
        "make its input safe first, `safe = tf.where(x > 0, x, 1.0)`, and leave its result out with a second tf.where"
    )
    fix = "advise"
    says = "NaN"
    live = PROBE
    failing = """
v = tf.Variable([0.0, 1.0])

def loss():
    return tf.reduce_sum(tf.where(v > 0, tf.math.log(v), 0.0))
"""
    fixed = """
v = tf.Variable([0.0, 1.0])

def loss():
    safe = tf.where(v > 0, v, 1.0)
    return tf.reduce_sum(tf.where(v > 0, tf.math.log(safe), 0.0))
"""


class InfiniteDerivative(Code):
    """The value is finite and its derivative is not: a square root (so also a norm or a standard deviation) at 0, a
    power below 1 at 0, an arc cosine at 1. What arrives there goes on as NaN or infinity.
    """

    code = "GP402"
    name = "infinite-derivative"
    message = "{what} {why}: {whom} {gets}"
    help = "stay away from that place by a small number: `tf.sqrt(tf.maximum(x, 1e-12))`"
    fix = "advise"
    says = "NaN"
    live = PROBE
    failing = """
v = tf.Variable([0.0, 0.0])

def loss():
    return tf.norm(v)
"""
    fixed = """
v = tf.Variable([0.3, 0.4])

def loss():
    return tf.norm(v)
"""


class Exploding(Code):
    """The gradient grows from layer to layer: in one far from the loss it is more than 100,000 times what it is in one
    near to it. A step that suits the last layer throws the first one far away, and the next loss is NaN.
    """

    code = "GP403"
    name = "exploding-gradient"
    severity = "warning"
    message = "the gradient explodes on the way to {what}: {why}"
    help = "use smaller initial weights or normalisation, and clip: `tf.clip_by_norm(x, 1.0)`, clipnorm= in Keras"
    fix = "advise"
    says = "a gradient"
    live = "gp.probe(loss)"
    failing = """
v = tf.Variable([1e-9])
later = tf.Variable([1.0])

def loss():
    x = v
    for _ in range(20):
        x = 3.0 * x
    return tf.reduce_sum(later * x)
"""
    fixed = """
v = tf.Variable([1e-9])
later = tf.Variable([1.0])

def loss():
    x = v
    for _ in range(20):
        x = 1.1 * x
    return tf.reduce_sum(later * x)
"""


class Overflow(Code):
    """A gradient becomes larger than a 16-bit float can be, 65504 in float16, and goes on as infinity. Mostly the loss
    is scaled too far, or a sum over many values has no mean.
    """

    code = "GP404"
    name = "overflow"
    message = "{what} {why}: {whom} {gets}"
    help = "scale the loss less (LossScaleOptimizer lowers its scale by itself and skips the step), or use bfloat16"
    fix = "advise"
    says = "NaN"
    live = PROBE
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    half = tf.cast(v, tf.float16)
    return 1e6 * tf.reduce_sum(tf.cast(half, tf.float32))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    half = tf.cast(v, tf.float16)
    return 1e3 * tf.reduce_sum(tf.cast(half, tf.float32))
"""
