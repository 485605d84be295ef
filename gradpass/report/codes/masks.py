"""GP3xx: a constant makes zeros of the gradient, though every op on the way has one."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class ConstantMask(Code):
    """A constant in the graph hides the value: it is multiplied by zeros, a tf.where with a constant condition never
    takes it, or a constant boolean mask selects none of it. Every op on the way has a gradient, and all of it is zeros
    for any data, so nothing warns and the weights never move.

    It is mostly a mask that was meant to come with the data: a tf.sequence_mask of lengths that are all 0, a padding
    mask computed once from an empty batch, a loss weight of 0.
    """

    code = "GP304"
    name = "constant-mask"
    severity = "warning"
    message = "{what} {mask}: {whom} {gets}"
    help = "give the mask (or weight) as an input of the function, or make the constant other than zeros"
    fix = "advise"
    says = "zeros"
    failing = """
v = tf.Variable([[0.5, -1.0, 2.0], [1.0, 0.0, 3.0]])
lengths = [0, 0]

def loss():
    mask = tf.sequence_mask(lengths, maxlen=3, dtype=tf.float32)
    return tf.reduce_sum(v * mask)
"""
    fixed = """
v = tf.Variable([[0.5, -1.0, 2.0], [1.0, 0.0, 3.0]])
lengths = [2, 3]

def loss():
    mask = tf.sequence_mask(lengths, maxlen=3, dtype=tf.float32)
    return tf.reduce_sum(v * mask)
"""
