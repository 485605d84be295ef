"""GP51x: Python stands in the way, where no op of the graph does; found in a live model or function."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class LeftTheGraph(Code):
    """A tensor's value was taken out into Python: `.numpy()`, a function of NumPy, `float()`, `model.predict`, an `if`
    over a tensor. What is computed from it is a number like any other; no tape follows it back. Inside `fit` or a
    tf.function there is no value yet, and TensorFlow raises.
    """

    code = "GP510"
    name = "left-the-graph"
    message = "{what} takes a value out of TensorFlow's graph: {outcome}"
    help = "stay with tensors: `tf.reduce_sum(x)` in place of np.sum, tf.cond of an if, model(x) of model.predict(x)"
    fix = "advise"
    live = "gp.check(loss, variables=[v])"
    failing = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.constant((v.numpy() ** 2).sum())
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)
"""


class FrozenCopy(Code):
    """The loss reads the value that the variable had, and not the variable: it was read before the tape began, or kept
    as an array. A constant has no gradient, and stays what it was when the variable moves on.
    """

    code = "GP511"
    name = "frozen-copy"
    message = "the loss reads a constant that equals {whom}, and not the variable: it {gets}"
    help = "read the variable where the loss is computed, inside the tape, and not a copy of its value"
    fix = "advise"
    live = "gp.check(loss, variables=[v])"
    failing = """
v = tf.Variable([1.0, 2.0])
weights = v.read_value()

def loss():
    return tf.reduce_sum(weights ** 2)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    weights = v.read_value()
    return tf.reduce_sum(weights ** 2)
"""


class NotAVariable(Code):
    """A tape watches variables. A tensor is a constant to it, be it made by tf.constant or by `x = x + 1`, which binds
    the name of a variable to a new tensor and leaves the variable behind.
    """

    code = "GP512"
    name = "not-a-variable"
    message = "{whom} is a tensor, and no tape watches tensors by itself: it {gets}"
    help = "make it a variable, `tf.Variable(x)`, and move it by assign_add and not by x = x + 1; or tape.watch(x)"
    fix = "advise"
    live = "gp.check(loss, variables=[v])"
    failing = """
v = tf.Variable([1.0, 2.0])
v = v - 0.1

def loss():
    return tf.reduce_sum(v ** 2)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
v.assign_sub([0.1, 0.1])

def loss():
    return tf.reduce_sum(v ** 2)
"""


class NotTrainable(Code):
    """The variable was made with `trainable=False`: a counter, the moving statistics of a BatchNormalization, a frozen
    layer. A tape does not watch it, and None is what is meant.
    """

    code = "GP513"
    name = "not-trainable"
    severity = "note"
    message = "{whom} is not trainable: None is no fault"
    help = "ask for model.trainable_variables; if it is to learn, make it with `tf.Variable(x, trainable=True)`"
    fix = "advise"
    live = "gp.check(loss, variables=[v])"
    failing = """
v = tf.Variable([1.0, 2.0], trainable=False)

def loss():
    return tf.reduce_sum(v ** 2)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    return tf.reduce_sum(v ** 2)
"""


class NeverRead(Code):
    """The variable was made and nothing of the call reads it: a layer that is built in `__init__` and not used in
    `call`, a head that belongs to another task, a variable that a function of the same name hides.
    """

    code = "GP209"
    name = "never-read"
    message = "{entry} never reads {whom}: no gradient"
    help = "call its layer on the way to the loss; if nothing needs it, leave the layer out"
    fix = "advise"
    live = "gp.check(loss, variables=[v, w])"
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
    return tf.reduce_sum(v * w)
"""


class Untracked(Code):
    """The call reads trainable variables that the model does not list, so that no optimizer moves them: they hang on an
    object that Keras or tf.Module does not look into, such as a plain Python object, a global or a closure.
    """

    code = "GP210"
    name = "untracked-variables"
    severity = "warning"
    message = "{entry} reads {whom}, and trainable_variables does not list {them}: nothing trains {them}"
    help = "make it an attribute of the layer or module (self.scale = tf.Variable(1.0)), or one of a list or dict there"
    fix = "advise"
    live = "gp.check(model)"
    says = "a gradient"
    failing = """
v = tf.Variable([1.0, 2.0])

class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(3.0)

    def __call__(self):
        return self.scale * tf.reduce_sum(v ** 2)

model = Model()

def loss():
    return model()
"""
    fixed = """
class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable([1.0, 2.0])
        self.scale = tf.Variable(3.0)

    def __call__(self):
        return self.scale * tf.reduce_sum(self.weights ** 2)

model = Model()
v = model.weights

def loss():
    return model()
"""


class NoVariable(Code):
    """The function reads no variable at all, so that there is nothing to train: what it is made of was computed before,
    or its variables are plain tensors by now.
    """

    code = "GP211"
    name = "no-variable"
    message = "{entry} reads no variable: there is nothing to differentiate"
    help = "compute what it reads from the variables inside of it; a tensor that was made before is a constant"
    fix = "advise"
    live = "gp.check(loss)"
    failing = """
v = tf.Variable([1.0, 2.0])
features = tf.tanh(v)

def loss():
    return tf.reduce_sum(features ** 2)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])

def loss():
    features = tf.tanh(v)
    return tf.reduce_sum(features ** 2)
"""
