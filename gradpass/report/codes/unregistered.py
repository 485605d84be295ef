"""GP1xx: TensorFlow has no gradient function, has lost it, or has one that raises."""

from __future__ import annotations

from gradpass.report.codes.base import Code
from gradpass.report.site import Site


class NoRegisteredGradient(Code):
    """TensorFlow has no gradient function for this op at all. Asked for one it raises LookupError, and it asks
    whenever the op lies between *any* input of a called function and its result: one such op on the data's path makes
    TensorFlow raise for every variable of the function, also for those that never pass through it.
    """

    code = "GP109"
    name = "no-registered-gradient"
    message = "{what} has no gradient registered, so TensorFlow raises LookupError: {whom} {gets}"
    help = (
        "compute the same with ops that have a gradient, or give it one: "
        '`@tf.RegisterGradient("{op}")` above `def gradient(op, *cotangents): ...`'
    )
    says = "LookupError"
    failing = """
v = tf.Variable([[2.0, 1.0], [1.0, 3.0]])

def loss():
    return tf.reduce_sum(tf.raw_ops.MatrixLogarithm(input=tf.cast(v, tf.complex64) ** 2))
"""
    fixed = """
v = tf.Variable([[2.0, 1.0], [1.0, 3.0]])

def loss():
    values, vectors = tf.linalg.eigh(v + tf.transpose(v))
    return tf.reduce_sum(vectors @ tf.linalg.diag(tf.math.log(values ** 2)) @ tf.transpose(vectors))
"""


class RaisesBeside(Code):
    """TensorFlow has no gradient function for this op. No target needs one: none of them is computed through it. But
    the op stands between an input of a called function and its result, and TensorFlow differentiates a call with
    respect to all its inputs, the data too. So it raises LookupError for everybody. Inline, the same graph
    differentiates.
    """

    code = "GP120"
    name = "raises-beside"
    message = "{what} is on the way of the data alone, but has no gradient, so TensorFlow raises: {whom} {gets}"
    help = "put tf.stop_gradient around its result, or do it to the data before the model"
    says = "LookupError"
    failing = """
v = tf.Variable([[[[2.0]]]])
image = tf.constant([[[[0.1, 0.7, 0.8], [0.5, 0.2, 0.4]]]])

def loss():
    bright = tf.function(lambda x: tf.image.adjust_hue(x, 0.1) * v)
    return tf.reduce_sum(bright(image))
"""
    fixed = """
v = tf.Variable([[[[2.0]]]])
image = tf.constant([[[[0.1, 0.7, 0.8], [0.5, 0.2, 0.4]]]])

def loss():
    bright = tf.function(lambda x: tf.stop_gradient(tf.image.adjust_hue(x, 0.1)) * v)
    return tf.reduce_sum(bright(image))
"""

    @classmethod
    def fits(cls, site: Site) -> bool:
        """An op without any gradient function that severs nobody."""
        return site.cut.how == "raises" and site.cut.error is None and site.bystander


class RaisingGradient(Code):
    """TensorFlow has a gradient function for this op, and the function raises: for these dtypes or attributes, where a
    shape is not known before the run, or because of how the model was loaded. It takes the whole call with it, so that
    every variable of the function gets the error, also those that never pass through the op.
    """

    code = "GP115"
    name = "raising-gradient"
    message = "the gradient function of {what} raises {error}: {whom} {gets}"
    help = "give the op what its gradient function asks for: static shapes, int32 indices, float32 values"
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


class RefusesSlices(Code):
    """The gradient of tf.gather along the first axis is tf.IndexedSlices: some rows, and where they belong. Most
    gradient functions make a dense tensor of it. This one does not and raises; so does every custom gradient of a
    loaded model. The gradient of tf.gather_nd puts slices into each other, which no function can give back.

    A product with 1.0 between this op and the gather changes no value and makes the gradient dense.
    """

    code = "GP126"
    name = "refuses-slices"
    message = "the gradient function of {what} raises {error}: {whom} {gets}"
    help = "gather from 1.0 * y in place of y, or use tf.gather for tf.gather_nd: its gradient is dense then"
    says = "TypeError"
    failing = """
v = tf.Variable([[0.1, 0.7, 0.8], [0.5, 0.2, 0.4]])

def loss():
    colours = tf.image.rgb_to_hsv(v)
    return tf.reduce_sum(tf.gather(colours, [1]))
"""
    fixed = """
v = tf.Variable([[0.1, 0.7, 0.8], [0.5, 0.2, 0.4]])

def loss():
    colours = tf.image.rgb_to_hsv(v)
    return tf.reduce_sum(tf.gather(1.0 * colours, [1]))
"""

    @classmethod
    def fits(cls, site: Site) -> bool:
        """An op of which TensorFlow says that it cannot do with tf.IndexedSlices."""
        return "IndexedSlices" in (site.cut.error or "")


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


class ColourAdjustment(Code):
    """The colour ops of tf.image are smooth, but TensorFlow registers no derivative for them: it raises LookupError, or
    gives None for tf.image.hsv_to_rgb.
    """

    code = "GP123"
    name = "colour-adjustment"
    ops = ("AdjustContrast", "AdjustContrastv2", "AdjustHue", "AdjustSaturation", "HSVToRGB")
    message = "{what} changes colours, and TensorFlow registers no gradient for that: {whom} {gets}"
    help = "write it as arithmetic (contrast: mean + factor * (image - mean)), or adjust the images before the model"
    says = "LookupError"
    failing = """
v = tf.Variable([[[[0.1, 0.7, 0.8], [0.5, 0.2, 0.4]]]])

def loss():
    return tf.reduce_sum(tf.image.adjust_contrast(v, 2.0) ** 2)
"""
    fixed = """
v = tf.Variable([[[[0.1, 0.7, 0.8], [0.5, 0.2, 0.4]]]])

def loss():
    mean = tf.reduce_mean(v, axis=[-3, -2], keepdims=True)
    return tf.reduce_sum((mean + 2.0 * (v - mean)) ** 2)
"""
