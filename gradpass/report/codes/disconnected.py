"""GP2xx: there is no way from the target to the loss at all."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class Disconnected(Code):
    """The entry reads these targets, but nothing that is computed from them reaches a float output: a dead branch, a
    head that is not returned, a value that only goes into a print or a shape.
    """

    code = "GP201"
    name = "disconnected"
    message = "no float output of {entry} depends on {whom}: no gradient"
    help = "use what is computed with it in the loss, or return it; if nothing needs it, leave the layer out"
    fix = "advise"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    unused = tf.exp(v)
    return tf.reduce_sum(w)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w) + tf.reduce_sum(tf.exp(v))
"""


class ThroughAssignment(Code):
    """What is computed from these targets is assigned to a variable. A variable holds a number and not how it came
    about: whoever reads it later gets a gradient for that variable, and nothing goes on to what it was computed from.
    """

    code = "GP207"
    name = "through-assignment"
    message = "what is computed from {whom} is assigned to a variable, and a variable passes no gradient on"
    help = "use the tensor itself in the loss, and assign it besides: `new = f(x); w.assign(new); loss(new)`"
    fix = "refuse"
    refusal = "a variable's value carries no gradient"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([0.0, 0.0], trainable=False)

def loss():
    w.assign(tf.tanh(v))
    return tf.reduce_sum(w)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([0.0, 0.0], trainable=False)

def loss():
    new = tf.tanh(v)
    w.assign(new)
    return tf.reduce_sum(new)
"""


class LossWithoutModel(Code):
    """No target reaches a float output of this entry: what it returns is computed from something else. Often arguments
    of a loss are swapped, labels are compared with labels, or the predictions are computed and not used.
    """

    code = "GP208"
    name = "loss-without-model"
    message = "no float output of {entry} depends on the model: {whom} {gets}"
    help = "compute the loss from what the model returns: are arguments swapped, or labels compared to labels?"
    fix = "advise"
    failing = """
v = tf.Variable([1.0, 2.0])
labels = tf.constant([0.5, 1.5])

def loss():
    predictions = tf.exp(v)
    return tf.reduce_mean((labels - labels) ** 2)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
labels = tf.constant([0.5, 1.5])

def loss():
    predictions = tf.exp(v)
    return tf.reduce_mean((predictions - labels) ** 2)
"""


class UnusedByEntry(Code):
    """Other functions of the SavedModel use these variables, this entry does not: it cannot give them a gradient."""

    code = "GP202"
    name = "unused-by-entry"
    message = "{entry} does not use {whom}: no gradient"
    help = "call its layer in this entry (values from outside are constants), or check another by `--entry NAME`"
    fix = "advise"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w)

def other():
    return tf.reduce_sum(v)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w) + tf.reduce_sum(v)

def other():
    return tf.reduce_sum(v)
"""


class NoFloatOutput(Code):
    """A gradient starts at a float. This entry returns only whole numbers, truth values or texts, so there is nothing
    to differentiate, whatever happens inside.
    """

    code = "GP203"
    name = "no-float-output"
    message = "{entry} has no float output to differentiate: {whom} {gets}"
    help = "return the scores too, `{'scores': scores, 'classes': tf.argmax(scores, -1)}`, or return the loss"
    fix = "advise"
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    return tf.argmax(v, axis=1)
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    return {"scores": v, "classes": tf.argmax(v, axis=1)}
"""


class OrphanVariables(Code):
    """No function of the SavedModel uses these variables: layers that were built and never called, optimizer slots,
    counters, the second copy of all weights in a Keras export. They cost space and get no gradient; they are no fault
    of any entry.
    """

    code = "GP204"
    name = "orphan-variables"
    severity = "note"
    message = "no function uses {whom}: {bytes} of weights that nothing can train"
    help = "call the layer if it is to learn; `gradpass prune` removes what is dead, as the copy of a Keras export"
    fix = "prune"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w) + tf.reduce_sum(v)
"""


class IntegerTarget(Code):
    """TensorFlow differentiates with respect to floats only; for a target of whole numbers it warns in its log and
    answers None.
    """

    code = "GP205"
    name = "integer-target"
    message = "{whom} holds no floats: TensorFlow gives no gradient"
    help = "make it floats, `tf.Variable([2.0, 3.0])`, or mark it `trainable=False` if it is not to learn"
    fix = "advise"
    failing = """
v = tf.Variable([2, 3])

def loss():
    return tf.reduce_sum(tf.cast(v * v, tf.float32))
"""
    fixed = """
v = tf.Variable([2.0, 3.0])

def loss():
    return tf.reduce_sum(v * v)
"""
