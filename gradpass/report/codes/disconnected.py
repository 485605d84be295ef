"""GP2xx: there is no way from the target to the loss at all."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class Disconnected(Code):
    """The entry reads these targets, but nothing that is computed from them reaches a float output: a dead branch, a
    head that is not returned, a value that only goes into an assignment, a print or a shape.
    """

    code = "GP201"
    name = "disconnected"
    message = "nothing computed from {whom} reaches a float output of {entry}: no gradient"
    help = "return what is computed from them, use it in the loss, or drop the layer"
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


class UnusedByEntry(Code):
    """Other functions of the SavedModel use these variables, this entry does not: it cannot give them a gradient."""

    code = "GP202"
    name = "unused-by-entry"
    message = "{entry} does not use {whom}: no gradient"
    help = "choose the entry that uses them with --entry, or add them to this one"
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
    message = "{entry} has no float output, so there is nothing to differentiate: {whom} {gets}"
    help = "return the scores beside the classes, or save an entry that returns the loss"
    fix = "advise"
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    return tf.argmax(v, axis=1)
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    return tf.reduce_max(v, axis=1)
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
    help = "save without what no function uses: uncalled layers, optimizer slots, the copy that a Keras export keeps"
    fix = "advise"
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
    message = "{whom} is no float: TensorFlow gives it no gradient"
    help = "make it a float variable (tf.Variable(10.0)), or mark it trainable=False if it is not to learn"
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
