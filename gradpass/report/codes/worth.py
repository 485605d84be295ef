"""GP60x: what the cross-check finds of a repair: a gradient that is there, and is worth nothing."""

from __future__ import annotations

from gradpass.report.codes.base import Code


class PointsNowhere(Code):
    """The repaired model gives a gradient that does not point where its outputs go. The cross-check disturbs the
    variables at random and looks how the hard outputs change on average; the gradient of that average has a cosine with
    the surrogate's gradient of next to nothing, at each size of disturbance that was tried. Training along it is a
    random walk. That happens where the temperature is far from the scale of the values, and where a discrete value goes
    through a function that is flat at whole numbers and steep between them: the soft value sees the slope, the hard one
    never does.
    """

    code = "GP600"
    name = "surrogate-points-nowhere"
    severity = "warning"
    message = "the derivative that {what} was given points nowhere for {whom}"
    help = "no temperature that was tried does better; choose another rule for that op (`--rule`), or train without it"
    fix = "advise"
    live = "gp.fix(loss, crosscheck=True).after"
    failing = """
v = tf.Variable([0.4, 1.6])

def loss():
    turns = tf.round(v)
    wave = tf.sin(2.0 * 3.14159265 * turns)
    return turns[0] - turns[1] + 20.0 * tf.reduce_sum(wave)
"""
    fixed = """
v = tf.Variable([0.4, 1.6])

def loss():
    turns = v + tf.stop_gradient(tf.round(v) - v)
    return turns[0] - turns[1]
"""
