"""GP1xx: numbers that are made coarse."""

from __future__ import annotations

from typing import ClassVar

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
    help = "keep the value, pass the gradient on: `x + tf.stop_gradient(rounded - x)`, x being what is rounded"
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
    message = "{what} casts floats to integers or bools, where gradients end: {whom} {gets}"
    help = "leave the cast out, or pass the gradient on: `x + tf.stop_gradient(tf.cast(cast, x.dtype) - x)`"
    failing = """
v = tf.Variable([0.4, 1.6])

def loss():
    return tf.reduce_sum(tf.cast(tf.cast(v, tf.int32), tf.float32) ** 2)
"""
    fixed = """
v = tf.Variable([0.4, 1.6])

def loss():
    cast = tf.cast(v, tf.int32)
    return tf.reduce_sum((v + tf.stop_gradient(tf.cast(cast, v.dtype) - v)) ** 2)
"""


class Quantised(Code):
    """tf.quantization.quantize rounds to one of 256 numbers, and neither it nor its inverse has a gradient registered:
    TensorFlow raises LookupError at tf.quantization.dequantize, and gives None where the numbers are cast to floats.

    tf.quantization.fake_quant_with_min_max_vars and quantize_and_dequantize_v2 compute the same floats and pass a
    straight-through gradient on.
    """

    code = "GP124"
    name = "quantised"
    ops = ("QuantizeV2", "Dequantize", "QuantizeDownAndShrinkRange", "Requantize")
    message = "{what} works on quantised numbers, which have no gradient: {whom} {gets}"
    help = "round in floats: `tf.quantization.quantize_and_dequantize_v2(x, low, high, range_given=True)`"
    helps: ClassVar = {
        "Dequantize": "compute it in floats: `low + (high - low) * tf.cast(stored, tf.float32) / 255.0` for 8 bits",
    }
    failing = """
v = tf.Variable([-0.4, 1.6])

def loss():
    stored = tf.quantization.quantize(v, -3.0, 3.0, tf.quint8).output
    return tf.reduce_sum(tf.cast(tf.bitcast(stored, tf.uint8), tf.float32) ** 2)
"""
    fixed = """
v = tf.Variable([-0.4, 1.6])

def loss():
    rounded = tf.quantization.quantize_and_dequantize_v2(v, -3.0, 3.0, range_given=True)
    return tf.reduce_sum(rounded ** 2)
"""
