"""GP22x: variables by how little they are used: what `gradpass prune` removes, and what it only tells."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class DeadVariables(Code):
    """No output and no side effect of any entry needs these variables: a layer that is never called or whose output
    nobody reads, the second copy of every weight in a Keras export, the slots that an optimizer kept for them. They
    cost memory and disk wherever the model is loaded. `gradpass prune` takes them out of the functions, the object
    graph, what saves and restores, and the checkpoint.
    """

    code = "GP220"
    name = "dead-variables"
    severity = "note"
    message = "nothing needs {whom}: {bytes} of weights"
    help = "`gradpass prune` (gp.prune in Python) removes dead variables; call the layer if it is to learn"
    fix = "prune"
    live = "gp.prune(loss).report"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    unread = tf.square(v)
    return tf.reduce_sum(w)
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def loss():
    return tf.reduce_sum(w) + tf.reduce_sum(tf.square(v))
"""


class DeadForLoss(Code):
    """These variables make outputs that the loss does not read: a pooler, an auxiliary head, class numbers. Training
    never changes them. They are left alone, since somebody may read the outputs; `gradpass prune --prune=loss` removes
    them together with those outputs.
    """

    code = "GP221"
    name = "dead-for-loss"
    severity = "note"
    message = "{entry} needs {whom} for {outputs} alone, which no loss reads: {bytes} of weights"
    help = "`gradpass prune --prune=loss` (only_loss=True in Python) removes such outputs with their variables"
    fix = "prune"
    live = "gp.prune(model, loss=lambda outputs: outputs[0]).report"
    failing = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def model():
    return tf.reduce_sum(w), tf.reduce_sum(v)

def loss():
    return model()[0]
"""
    fixed = """
v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

def model():
    return tf.reduce_sum(w * v), tf.reduce_sum(v)

def loss():
    return model()[0]
"""


class OtherEntryOnly(Code):
    """These variables serve other signatures or functions of the model than the one that is looked at. Whoever serves
    that one alone carries them for nothing; only who saves the model can know.
    """

    code = "GP222"
    name = "other-entry-only"
    severity = "note"
    message = "{entry} needs nothing of {whom}: {bytes} of weights for {others} alone"
    help = "save the model with the signatures that are to be served, and nothing else"
    fix = "advise"
    live = "gp.prune(path, dry_run=True)"
    failing = """
import tempfile

v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

@tf.function(input_signature=[])
def loss():
    return tf.reduce_sum(w)

@tf.function(input_signature=[])
def other():
    return tf.reduce_sum(v)

model = tf.Module()
model.variables_of_both = [v, w]
path = tempfile.mkdtemp()
tf.saved_model.save(model, path, {"serving_default": loss, "other": other})
"""
    fixed = """
import tempfile

v = tf.Variable([1.0, 2.0])
w = tf.Variable([3.0, 4.0])

@tf.function(input_signature=[])
def loss():
    return tf.reduce_sum(w) + tf.reduce_sum(v)

model = tf.Module()
model.variables_of_both = [v, w]
path = tempfile.mkdtemp()
tf.saved_model.save(model, path, {"serving_default": loss})
"""
