"""GP1xx: TensorFlow has no gradient function, has lost it, or has one that raises."""

from __future__ import annotations

from typing import ClassVar

from gradpass.report.codes.base import Code
from gradpass.report.site import Site


class NoRegisteredGradient(Code):
    """TensorFlow has no gradient function for this op at all. Asked for one it raises LookupError, and it asks
    whenever the op lies between *any* input of a called function and its result: one such op on the data's path makes
    TensorFlow raise for every variable of the function, also for those that never pass through it.
    """

    code = "GP109"
    name = "no-registered-gradient"
    message = "TensorFlow has no gradient for {what}: {whom} {gets}"
    help = (
        "compute it with ops that have a gradient, or register one that returns a gradient for each input: "
        '`@tf.RegisterGradient("{op}")` above `def gradient(op, *upstream): ...`'
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
    message = "{what} has no gradient; it changes data only, and still {whom} {gets}"
    help = "put `tf.stop_gradient` around its result, or do this to the data before the model, in tf.data"
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
    message = "the gradient function of {what} raises for {whom}: {error}"
    help = "call it so that its gradient function works: mostly with static shapes, int32 indices, float32"
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
    message = "{what} cannot take what tf.gather sends back, and raises for {whom}: {error}"
    help = "tf.gather and tf.gather_nd send it slices: use `tf.gather(1.0 * y, indices)`, with y its result"
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

    tf.saved_model.save writes gradient functions into the model unless it is told not to, by
    SaveOptions(experimental_custom_gradients=False).
    """

    code = "GP110"
    name = "lost-custom-gradient"
    message = "the custom gradient of {what} was not saved: {whom} {gets}"
    help = "save again with `options=tf.saved_model.SaveOptions(experimental_custom_gradients=True)`"
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

    In arithmetic, hsv_to_rgb is `h, s, v = tf.split(hsv, 3, -1)`, `k = (tf.constant([5.0, 3.0, 1.0]) + 6.0 * h) % 6.0`
    and `v - v * s * tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)`. A hue is adjusted by adding to that h between
    tf.image.rgb_to_hsv, which has a gradient, and this.
    """

    code = "GP123"
    name = "colour-adjustment"
    ops = ("AdjustContrast", "AdjustContrastv2", "AdjustHue", "AdjustSaturation", "HSVToRGB")
    message = "{what} changes colours, which TensorFlow gives no gradient: {whom} {gets}"
    help = "adjust the images before the model, or write it as arithmetic: `gradpass explain GP123` shows it"
    helps: ClassVar = {
        **dict.fromkeys(
            ("AdjustContrast", "AdjustContrastv2"),
            "use `mean = tf.reduce_mean(image, [-3, -2], keepdims=True)`, then `mean + factor * (image - mean)`",
        ),
        "AdjustSaturation": (
            "use `bright = tf.reduce_max(image, -1, keepdims=True)`, then `bright + factor * (image - bright)`"
        ),
        "HSVToRGB": (
            "use `h, s, v = tf.split(hsv, 3, -1)`, `k = (tf.constant([5.0, 3.0, 1.0]) + 6.0 * h) % 6.0`, then "
            "`v - v * s * tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)`"
        ),
    }
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
