"""GP50x: a training step asks for gradients, and does something else with them than train the model."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class NothingApplied(Code):
    """The step computes gradients and no variable changes by them: `optimizer.apply_gradients` is missing, or stands
    where it is not reached. The loss is computed and told, and stays what it is.
    """

    code = "GP500"
    name = "nothing-applied"
    message = "{entry} computes gradients for {whom} and applies none: no variable changes"
    help = "apply them in the step: optimizer.apply_gradients(zip(gradients, variables))"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, v)
    return value
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, v)
    v.assign_sub(0.1 * gradient)
    return value
"""


class GradientUnused(Code):
    """The step computes gradients for these variables and assigns them nothing, while others do change: a list that is
    cut short, an `apply_gradients` that is missing for the second of two optimizers.
    """

    code = "GP501"
    name = "gradient-unused"
    message = "the gradients of {whom} are computed and never applied"
    help = "hand them to apply_gradients too, each with its variable: zip(gradients, variables, strict=True)"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable(3.0)

def loss():
    return w * tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    dv, dw = tape.gradient(value, [v, w])
    w.assign_sub(0.1 * dw)
    return value
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable(3.0)

def loss():
    return w * tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip([v, w], tape.gradient(value, [v, w])):
        variable.assign_sub(0.1 * gradient)
    return value
"""


class NotAsked(Code):
    """A model that the step uses has trainable variables which are in no list of sources: no gradient is computed for
    them and nothing is assigned to them. They stay what they were when they were made.
    """

    code = "GP502"
    name = "not-in-the-list"
    message = "{entry} asks no gradient for {whom} and assigns {them} nothing: nothing trains {them}"
    help = "ask for all that is to learn: tape.gradient(loss, model.trainable_variables); or set trainable = False"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.v = tf.Variable([1.0, 2.0], name="v")
        self.w = tf.Variable(3.0, name="w")

    def __call__(self):
        return self.w * tf.reduce_sum(self.v ** 2)

model = Model()
v = model.v

def loss():
    return model()

def step():
    with tf.GradientTape() as tape:
        value = loss()
    model.w.assign_sub(0.1 * tape.gradient(value, model.w))
"""
    fixed = """
class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.v = tf.Variable([1.0, 2.0], name="v")
        self.w = tf.Variable(3.0, name="w")

    def __call__(self):
        return self.w * tf.reduce_sum(self.v ** 2)

model = Model()
v = model.v

def loss():
    return model()

def step():
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip(variables, tape.gradient(value, variables)):
        variable.assign_sub(0.1 * gradient)
"""


class WrongVariables(Code):
    """The gradient of one variable goes into another: the list that is zipped with the gradients is not the one that
    they were computed for, or stands in another order. The shapes happen to fit, so nothing else says so.
    """

    code = "GP503"
    name = "wrong-variables"
    message = "the gradients of {whom} are applied to {others}"
    help = "zip the gradients with the list that they were computed for: zip(gradients, variables)"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w * v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [v, w])
    for gradient, variable in zip(gradients, [w, v]):
        variable.assign_sub(0.1 * gradient)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w * v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [v, w])
    for gradient, variable in zip(gradients, [v, w]):
        variable.assign_sub(0.1 * gradient)
"""


class BeforeTheTape(Code):
    """A part of the way from the variable to the loss is computed where the tape does not record: before its `with`
    block, after it, or within `stop_recording`. The tape knows of no connection and answers None.
    """

    code = "GP504"
    name = "outside-the-tape"
    message = "{what} is computed outside of the tape: {whom} {gets}"
    help = "compute everything from the model to the loss inside of the with block of the tape"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(tf.exp(v))

def step():
    features = tf.exp(v)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(features)
    gradient = tape.gradient(value, v)
    if gradient is not None:
        v.assign_sub(0.1 * gradient)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(tf.exp(v))

def step():
    with tf.GradientTape() as tape:
        features = tf.exp(v)
        value = tf.reduce_sum(features)
    gradient = tape.gradient(value, v)
    if gradient is not None:
        v.assign_sub(0.1 * gradient)
"""


class NotWatched(Code):
    """The tape was made with `watch_accessed_variables=False` and nobody told it to watch this variable: it answers
    None.
    """

    code = "GP505"
    name = "not-watched"
    message = "the tape watches no variables by itself, and nobody has it watch {whom}: {gets}"
    help = "call tape.watch(variables) first in the block, or leave watch_accessed_variables=False out"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        value = loss()
    gradient = tape.gradient(value, v)
    if gradient is not None:
        v.assign_sub(0.1 * gradient)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(v)
        value = loss()
    gradient = tape.gradient(value, v)
    if gradient is not None:
        v.assign_sub(0.1 * gradient)
"""


class ForeignOptimizer(Code):
    """An optimizer keeps slots (momentum, second moments) for the variables with which it was built, and refuses
    others: it was used for another model before, or for a part of this one.
    """

    code = "GP506"
    name = "foreign-optimizer"
    message = "the optimizer was built for other variables: {error}"
    help = (
        "make an optimizer for each set of variables, or build it with all: optimizer.build(model.trainable_variables)"
    )
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
import keras

v = keras.Variable([1.0, 2.0], name="v")
other = keras.Variable([1.0, 2.0])
optimizer = keras.optimizers.Adam()
optimizer.build([other])

def loss():
    return tf.reduce_sum(v * v)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    optimizer.apply_gradients([(tape.gradient(value, v), v)])
"""
    fixed = """
import keras

v = keras.Variable([1.0, 2.0], name="v")
optimizer = keras.optimizers.Adam()
optimizer.build([v])

def loss():
    return tf.reduce_sum(v * v)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    optimizer.apply_gradients([(tape.gradient(value, v), v)])
"""


class TapeUsedTwice(Code):
    """A tape forgets what it recorded as soon as it is asked for a gradient. Asked again it raises RuntimeError."""

    code = "GP507"
    name = "tape-used-twice"
    message = "a tape is asked for gradients twice, and it keeps its record only once"
    help = "ask once for all, tape.gradient(loss, [*a, *b]); or tf.GradientTape(persistent=True); or a tape a loss"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable(3.0)

def loss():
    return w * tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
    w.assign_sub(0.1 * tape.gradient(value, w))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable(3.0)

def loss():
    return w * tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape(persistent=True) as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
    w.assign_sub(0.1 * tape.gradient(value, w))
"""


class LossNotScalar(Code):
    """A gradient is of one number. Of several, the tape takes their sum, so that the step grows with the batch: mostly
    a reduce_mean is missing, or a Keras loss has reduction="none".
    """

    code = "GP508"
    name = "loss-not-scalar"
    severity = "warning"
    message = "the loss has the shape {shape}: the tape differentiates the sum of its elements"
    help = "reduce it on purpose, by tf.reduce_mean; or by tf.reduce_sum, where the sum is meant"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return v ** 2

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_mean(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
"""


class LabelsBroadcast(Code):
    """Predictions of the shape [n, 1] and labels of the shape [n] make [n, n] together: each prediction is compared
    with each label. The loss falls to that of the mean label, and no further.
    """

    code = "GP509"
    name = "labels-broadcast"
    severity = "warning"
    message = "{what} compares {shape}: each prediction with each label"
    help = "bring both to one shape: tf.expand_dims(labels, -1), or tf.squeeze(predictions, -1)"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([[1.0], [2.0]])
labels = tf.constant([0.5, 1.5])

def loss():
    return tf.reduce_mean((v - labels) ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
"""
    fixed = """
v = tf.Variable([[1.0], [2.0]])
labels = tf.constant([0.5, 1.5])

def loss():
    return tf.reduce_mean((v - tf.expand_dims(labels, -1)) ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
"""


class Reassigned(Code):
    """The variable is assigned between the forward pass and the gradient. The gradient is that at the old value, and
    is applied to the new one: the order of the lines is mostly an accident.
    """

    code = "GP514"
    name = "reassigned-before-gradient"
    severity = "warning"
    message = (
        "{whom} is assigned after the loss read it and before its gradient is taken, which is that of the old value"
    )
    help = "take the gradient first, and assign afterwards"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign(0.99 * v)
    v.assign_sub(0.1 * tape.gradient(value, v))
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, v)
    v.assign(0.99 * v)
    v.assign_sub(0.1 * gradient)
"""


class AssignedWithoutGradient(Code):
    """The step computes gradients, and changes this trainable variable by something that none of them goes into."""

    code = "GP515"
    name = "assigned-without-gradient"
    severity = "warning"
    message = "{whom} is assigned what no gradient goes into, though its gradient is computed"
    help = "assign what is made of its gradient: a variable that only shrinks does not learn"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable(3.0)

def loss():
    return w * tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    dv, dw = tape.gradient(value, [v, w])
    v.assign_sub(0.1 * v)
    w.assign_sub(0.1 * dw)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable(3.0)

def loss():
    return w * tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    dv, dw = tape.gradient(value, [v, w])
    v.assign_sub(0.1 * dv)
    w.assign_sub(0.1 * dw)
"""


class NoGradientAsked(Code):
    """The step runs the model and asks no tape for a gradient, so there is nothing to train it with."""

    code = "GP516"
    name = "no-gradient-asked"
    message = "{entry} asks for no gradient: nothing in it can train a model"
    help = "compute the loss inside of a tf.GradientTape, then ask it: tape.gradient(loss, variables)"
    fix = "advise"
    says = "a gradient"
    live = "gp.check_step(step)"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    return loss()
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)

def step():
    with tf.GradientTape() as tape:
        value = loss()
    v.assign_sub(0.1 * tape.gradient(value, v))
"""
