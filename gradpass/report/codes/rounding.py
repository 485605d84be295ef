"""GP1xx: numbers that are made coarse."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class Rounding(Code):
    """A rounded number is constant between two jumps. TensorFlow registers gradient functions for tf.round, tf.floor
    and tf.math.ceil, and they answer None.

    For quantisation the usual surrogate is the straight-through one: round in the forward pass, pass the gradient on as
    if nothing had been rounded.
    """

    code = "GP103"
    name = "rounding"
    ops = ("Round", "Rint", "Floor", "Ceil", "FloorDiv", "TruncateDiv")
    message = "{what} rounds, and steps have no derivative: {whom} {gets}"
    help = "write v + tf.stop_gradient(tf.round(v) - v), or let `gradpass fix` add a surrogate derivative"
    failing = """
v = tf.Variable([0.4, 1.6])

def loss():
    return tf.reduce_sum(tf.round(v) ** 2)
"""
    fixed = """
v = tf.Variable([0.4, 1.6])

def loss():
    rounded = v + tf.stop_gradient(tf.round(v) - v)
    return tf.reduce_sum(rounded ** 2)
"""


class IntegerCast(Code):
    """TensorFlow follows gradients through floats only. A cast to an integer or to bool ends the way, and a cast back
    to float does not take it up again.
    """

    code = "GP104"
    name = "integer-cast"
    ops = ("Cast", "Bitcast")
    message = "{what} leaves the floats, where gradients end: {whom} {gets}"
    help = "stay in floats, or let `gradpass fix` add a surrogate derivative for the digits that the cast cuts off"
    failing = """
v = tf.Variable([0.4, 1.6])

def loss():
    return tf.reduce_sum(tf.cast(tf.cast(v, tf.int32), tf.float32) ** 2)
"""
    fixed = """
v = tf.Variable([0.4, 1.6])

def loss():
    return tf.reduce_sum(v ** 2)
"""


class Quantised(Code):
    """tf.quantization.quantize rounds to one of 256 numbers, and neither it nor its inverse has a gradient registered:
    TensorFlow raises LookupError.

    tf.quantization.fake_quant_with_min_max_vars and quantize_and_dequantize_v2 compute the same floats and pass a
    straight-through gradient on.
    """

    code = "GP124"
    name = "quantised"
    ops = ("QuantizeV2", "Dequantize", "QuantizeDownAndShrinkRange", "Requantize")
    message = "{what} works on quantised numbers, which have no gradient: {whom} {gets}"
    help = "use tf.quantization.quantize_and_dequantize_v2, which rounds as much and has a gradient"
    says = "LookupError"
    failing = """
v = tf.Variable([-1.0, 1.0])
stored = tf.constant([0, 100, 255], tf.uint8)

def loss():
    weights = tf.quantization.dequantize(tf.bitcast(stored, tf.quint8), v[0], v[1])
    return tf.reduce_sum(weights ** 2)
"""
    fixed = """
v = tf.Variable([-1.0, 1.0])
stored = tf.constant([0, 100, 255], tf.uint8)

def loss():
    weights = v[0] + (v[1] - v[0]) * tf.cast(stored, tf.float32) / 255.0
    return tf.reduce_sum(weights ** 2)
"""
