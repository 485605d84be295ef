"""GP1xx: what nobody can differentiate: on purpose, in Python, as text, by search."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code


class StopGradient(Code):
    """tf.stop_gradient (or an op that refuses gradients on purpose) stands between the targets and the loss. It is
    meant to end the gradient, so gradpass leaves it.
    """

    code = "GP108"
    name = "stop-gradient"
    ops = ("StopGradient", "PreventGradient")
    message = "{what} ends the gradient on purpose: {whom} {gets}"
    help = "remove `tf.stop_gradient` where these are to learn; where it is meant, add `--ignore GP108`"
    fix = "refuse"
    refusal = "it is meant to end the gradient"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(tf.stop_gradient(v) ** 2)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)
"""


class PythonCall(Code):
    """tf.numpy_function and tf.compat.v1.py_func run Python of which TensorFlow knows nothing, so nothing can be
    differentiated. tf.py_function does differentiate what TensorFlow ops do inside it.
    """

    code = "GP111"
    name = "python-call"
    ops = ("PyFunc", "PyFuncStateless")
    message = "{what} runs Python code that TensorFlow cannot differentiate: {whom} {gets}"
    help = "compute it with TensorFlow ops; `tf.py_function(f, [x], tf.float32)` differentiates those in f"
    fix = "refuse"
    refusal = "what the Python code computes is not in the graph"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(tf.numpy_function(lambda x: x * 2, [v], tf.float32))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v * 2)
"""


class TextDetour(Code):
    """A number that becomes text loses its gradient, also where the text is read as a number again."""

    code = "GP112"
    name = "text-detour"
    ops = ("AsString", "StringFormat", "SerializeTensor", "EncodeWav")
    message = "{what} turns numbers into text, where gradients end: {whom} {gets}"
    help = "compute the loss from the number itself, and keep the text beside it"
    fix = "refuse"
    refusal = "a text has no derivative and no useful surrogate"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(tf.strings.to_number(tf.strings.as_string(v)))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v)
"""


class DiscreteDecoding(Code):
    """Non-maximum suppression and CTC decoding search: what they return is a list of places or of symbols, which
    has no derivative.
    """

    code = "GP113"
    name = "discrete-decoding"
    ops = (
        "NonMaxSuppression",
        "NonMaxSuppressionV2",
        "NonMaxSuppressionV3",
        "NonMaxSuppressionV4",
        "NonMaxSuppressionV5",
        "NonMaxSuppressionWithOverlaps",
        "CombinedNonMaxSuppression",
        "CTCGreedyDecoder",
        "CTCBeamSearchDecoder",
    )
    message = "{what} searches, and a search has no derivative: {whom} {gets}"
    help = "look up the scores of what it selects: `tf.gather(scores, selected)`"
    helps: ClassVar = {
        "CombinedNonMaxSuppression": "train on the boxes and scores that go into it, and search only to predict",
        **dict.fromkeys(
            ("CTCBeamSearchDecoder", "CTCGreedyDecoder"),
            "train on what it decodes: `tf.nn.ctc_loss(labels, logits, label_length, logit_length)`",
        ),
    }
    fix = "refuse"
    refusal = "a search has no useful surrogate"
    failing = """
v = tf.Variable([0.9, 0.6])
boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]])

def loss():
    return tf.reduce_sum(tf.cast(tf.image.non_max_suppression(boxes, v, 2), tf.float32))
"""
    fixed = """
v = tf.Variable([0.9, 0.6])
boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]])

def loss():
    return tf.reduce_sum(tf.gather(v, tf.image.non_max_suppression(boxes, v, 2)))
"""
