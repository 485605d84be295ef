"""GP1xx: an op on the way from a target to the loss gives no gradient."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class SeveringOp(Code):
    """TensorFlow registers no derivative for this op: its gradient function answers None.

    Whatever comes before the op and reaches the loss only through it gets None. Some ops cannot have a derivative
    (their result is a number of things, a text, a shape); for others TensorFlow merely does not have one.
    """

    code = "GP100"
    name = "severing-op"
    message = "{what} gives its input no gradient: {whom} {gets}"
    help = "compute the same with ops that have a gradient, or give the op one with tf.custom_gradient"
    failing = """
v = tf.Variable(2.0)

def loss():
    return tf.reduce_sum(tf.range(v, v + 3.0))
"""
    fixed = """
v = tf.Variable(2.0)

def loss():
    return tf.reduce_sum(v + tf.range(3.0))
"""


class HardThreshold(Code):
    """A comparison answers true or false. Its answer does not change when its input moves a little, so its derivative
    is 0 nearly everywhere and TensorFlow registers none: what comes before the comparison gets None.

    Thresholds in a model (a mask, a gate, an accuracy as a loss) learn through a surrogate: the forward pass keeps
    the hard answer, the backward pass uses the derivative of a smooth step, the chance that the comparison is true.
    """

    code = "GP101"
    name = "hard-threshold"
    ops = ("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "ApproximateEqual")
    message = "{what} answers true or false, which has no derivative: {whom} {gets}"
    help = "use a smooth step such as tf.sigmoid, or let `gradpass fix` keep the threshold and add its derivative"
    failing = """
v = tf.Variable([-0.3, 0.2, 0.9])

def loss():
    return tf.reduce_sum(tf.cast(v > 0.1, tf.float32))
"""
    fixed = """
v = tf.Variable([-0.3, 0.2, 0.9])

def loss():
    return tf.reduce_sum(tf.sigmoid(10.0 * (v - 0.1)))
"""


class HardArgmax(Code):
    """An index is a whole number: it does not change when the scores move a little, and then it jumps.

    TensorFlow answers None for everything that reaches the loss only through tf.argmax or tf.argmin, also where the
    index is used to look something up (tf.gather) or to make a one-hot row. The surrogate is the softmax of the scores:
    a distribution over indices, which makes of a look-up an expectation.
    """

    code = "GP102"
    name = "hard-argmax"
    ops = ("ArgMax", "ArgMin")
    message = "{what} picks an index, which has no derivative: {whom} {gets}"
    help = "weight the choices by tf.nn.softmax of the scores; `gradpass fix` keeps the index and adds that derivative"
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2]])
codes = tf.constant([1.0, 2.0, 4.0])

def loss():
    return tf.reduce_sum(tf.gather(codes, tf.argmax(v, axis=1)))
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2]])
codes = tf.constant([1.0, 2.0, 4.0])

def loss():
    return tf.reduce_sum(tf.nn.softmax(v) * codes)
"""


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


class HardRanking(Code):
    """tf.math.top_k gives its values a gradient; its indices, and the ranks that tf.argsort makes of them, have none: a
    rank is a whole number that jumps when two entries change places.
    """

    code = "GP105"
    name = "hard-ranking"
    ops = ("TopK", "TopKV2", "ApproxTopK", "InTopK", "InTopKV2")
    message = "{what} is used for its indices, and ranks have no derivative: {whom} {gets}"
    help = "use the values of tf.math.top_k instead of looking them up by index, or a soft rank"
    failing = """
v = tf.Variable([0.3, 0.9, 0.5])

def loss():
    return tf.reduce_sum(tf.cast(tf.math.top_k(v, 2).indices, tf.float32))
"""
    fixed = """
v = tf.Variable([0.3, 0.9, 0.5])

def loss():
    return tf.reduce_sum(tf.math.top_k(v, 2).values)
"""


class Sampling(Code):
    """What is drawn from a discrete distribution does not change smoothly with the distribution's parameters, so
    TensorFlow gives the parameters None or raises. A relaxation (Gumbel-softmax) or a score-function estimator does
    have a gradient.
    """

    code = "GP106"
    name = "discrete-sampling"
    ops = (
        "Multinomial",
        "StatelessMultinomial",
        "RandomPoisson",
        "RandomPoissonV2",
        "StatelessRandomPoisson",
        "StatefulRandomBinomial",
        "StatelessRandomBinomial",
    )
    message = "{what} draws a sample, which has no derivative: {whom} {gets}"
    help = "draw from a relaxation: softmax((logits + Gumbel noise) / temperature), or use the expectation"
    failing = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    return tf.reduce_sum(tf.cast(tf.random.categorical(v, 4), tf.float32))
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.2]])

def loss():
    noise = -tf.math.log(-tf.math.log(tf.random.uniform([4, 3], 0.01, 0.99, seed=1)))
    return tf.reduce_sum(tf.nn.softmax(v + noise) * tf.range(3.0))
"""


class Counting(Code):
    """A histogram, a bucket or a place in a sorted list is a count; it stays the same until a value crosses an edge.

    TensorFlow gives the values None. Weights of a count (tf.math.bincount with weights) do have an exact derivative,
    which TensorFlow does not register: there it raises LookupError.
    """

    code = "GP107"
    name = "counting"
    ops = (
        "Bucketize",
        "LowerBound",
        "UpperBound",
        "HistogramFixedWidth",
        "Bincount",
        "DenseBincount",
        "SparseBincount",
        "RaggedBincount",
    )
    message = "{what} counts or finds a bin, which has no derivative: {whom} {gets}"
    help = "use soft bins (a sum of smooth steps), or tf.math.unsorted_segment_sum where weights are counted"
    says = "LookupError"
    failing = """
v = tf.Variable([0.1, 0.7, 0.8])

def loss():
    return tf.reduce_sum(tf.math.bincount([0, 1, 1], weights=v) ** 2)
"""
    fixed = """
v = tf.Variable([0.1, 0.7, 0.8])

def loss():
    return tf.reduce_sum(tf.math.unsorted_segment_sum(v, [0, 1, 1], 2) ** 2)
"""


class StopGradient(Code):
    """tf.stop_gradient (or an op that refuses gradients on purpose) stands between the targets and the loss. It is
    meant to end the gradient, so gradpass leaves it.
    """

    code = "GP108"
    name = "stop-gradient"
    ops = ("StopGradient", "PreventGradient")
    message = "{what} ends the gradient on purpose: {whom} {gets}"
    help = "remove the tf.stop_gradient if these targets are to learn"
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


class NoRegisteredGradient(Code):
    """TensorFlow has no gradient function for this op at all. Asked for one it raises LookupError, and it asks
    whenever the op lies between *any* input of a called function and its result: one such op on the data's path makes
    TensorFlow raise for every variable of the function, also for those that never pass through it.
    """

    code = "GP109"
    name = "no-registered-gradient"
    message = "{what} has no gradient registered, so TensorFlow raises LookupError: {whom} {gets}"
    help = "compute the same with ops that have a gradient, or wrap the op in tf.custom_gradient"
    says = "LookupError"
    failing = """
v = tf.Variable([2.0, 2.0, 1.0])

def loss():
    return tf.reduce_sum(tf.unique(v).y ** 2)
"""
    fixed = """
v = tf.Variable([2.0, 2.0, 1.0])

def loss():
    places = tf.unique(v).idx
    count = tf.math.bincount(places, dtype=tf.float32)
    return tf.reduce_sum(tf.math.unsorted_segment_sum(v, places, 2) / count * tf.constant([4.0, 2.0]))
"""


class RaisingGradient(Code):
    """TensorFlow has a gradient function for this op, and the function raises: for these dtypes or attributes, where a
    shape is not known before the run, where the gradient that it is given is tf.IndexedSlices (as tf.gather makes it),
    or because of how the model was loaded. It takes the whole call with it, so that every variable of the function gets
    the error, also those that never pass through the op.
    """

    code = "GP115"
    name = "raising-gradient"
    message = "the gradient function of {what} raises {error}: {whom} {gets}"
    help = (
        "give the op what its gradient function asks for: static shapes, int32 indices, float32 values; a product with "
        "1.0 in front of tf.gather makes a dense tensor of tf.IndexedSlices"
    )
    says = "TypeError"
    failing = """
v = tf.Variable([3.0, 1.0, 2.0])

@tf.function
def loss():
    return tf.reduce_sum(tf.math.top_k(v, 2, index_type=tf.int64).values)
"""
    fixed = """
v = tf.Variable([3.0, 1.0, 2.0])

@tf.function
def loss():
    return tf.reduce_sum(tf.math.top_k(v, 2).values)
"""


class LostCustomGradient(Code):
    """The op carries a custom gradient (tf.custom_gradient) by a name that this SavedModel does not register. In the
    process that saved it the name is known and all is well; in a fresh process TensorFlow raises LookupError, or
    silently uses another function of the same name.

    tf.saved_model.save keeps custom gradients only with SaveOptions(experimental_custom_gradients=True).
    """

    code = "GP110"
    name = "lost-custom-gradient"
    message = "the custom gradient of {what} was not saved, so TensorFlow raises LookupError: {whom} {gets}"
    help = "save again with tf.saved_model.SaveOptions(experimental_custom_gradients=True)"
    fix = "refuse"
    refusal = "the gradient function is not in the SavedModel"
    says = "LookupError"
    failing = """
v = tf.Variable([1.0, 2.0])

@tf.function
def loss():
    # What a loaded SavedModel looks like: the name of a gradient that nobody registered in this process.
    with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": "CustomGradient-lost"}):
        return tf.reduce_sum(tf.identity_n([v * 2.0])[0])
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

@tf.custom_gradient
def doubled(x):
    return 2.0 * x, lambda upstream: 2.0 * upstream

def loss():
    return tf.reduce_sum(doubled(v))
"""


class PythonCall(Code):
    """tf.numpy_function and tf.compat.v1.py_func run Python of which TensorFlow knows nothing, so nothing can be
    differentiated. tf.py_function does differentiate what TensorFlow ops do inside it.
    """

    code = "GP111"
    name = "python-call"
    ops = ("PyFunc", "PyFuncStateless")
    message = "{what} runs Python code that TensorFlow cannot differentiate: {whom} {gets}"
    help = "use TensorFlow ops, or tf.py_function with TensorFlow ops inside"
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
    help = "keep the number beside the text, and compute the loss from the number"
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
    message = "{what} searches and returns what it found, which has no derivative: {whom} {gets}"
    help = "train on what goes into the search (scores and boxes, or tf.nn.ctc_loss), and search only to predict"
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
