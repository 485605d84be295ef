"""State that a loop carries: what stands for it is a loop variable beside it, put in by `rewrite.state`."""

from __future__ import annotations

import re

from gradpass.program.graph import Node
from gradpass.rules.base import Rule, Site
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow

TAKEN = re.compile(r"(^|/)gradpass/(carried|taken)(_\d+)?$")


class CarriedState(Rule):
    """A whole number that a loop carries is, in the next step, what its surrogate was at the end of this one.

    The loop gets one more variable: the one-hot row of an index (its weights in soft mode), the value of another
    number. The op that takes it up gives the number itself; its derivative is that of the variable. So the gradient of
    a greedy decoder goes from a later step's look-up to the argmax of an earlier one. As in Bengio, Léonard,
    Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013, a
    step's surrogate is taken at the hard values of the steps before.
    """

    name = "carried-state"
    ops = ("ArgMax", "Cast", "SelectV2")
    internal = True
    hits = (
        "tf.gather(c, tf.while_loop(lambda i, k: i < 2, lambda i, k: (i + 1, tf.argmax(tf.gather(v[:3], k), 1)), "
        "(0, tf.constant([0, 2], tf.int64)))[1])",
        "tf.gather(c, tf.while_loop(lambda i, k: i < 2, lambda i, k: (i + 1, tf.cast(tf.gather(c[:, 0], k) > "
        "v[:2, 0], tf.int32)), (0, tf.constant([0, 2])))[1])",
        "tf.while_loop(lambda i, k, s: i < 2, lambda i, k, s: (i + 1, k, s + tf.gather(c, k)), "
        "(0, tf.argmax(v, 1), tf.zeros([4, 5], f)))[2]",
        "tf.cast(tf.while_loop(lambda i, b: i < 2, lambda i, b: (i + 1, b & (v[i] > 0)), "
        "(0, tf.constant([True, True, True])))[1], f)",
    )

    def serves(self, node: Node) -> bool:
        return TAKEN.search(node.name) is not None

    def shadow(self, site: Site) -> Shadow:
        if site.node.op == "SelectV2":
            taken = site.shadow(2)
            if taken is None:
                site.decline("what the loop carries beside it has no surrogate")
            return taken
        carried = site.numeric(0)
        if site.node.op == "ArgMax":
            return Categorical(carried, tf.cast(tf.range(tf.shape(carried)[-1]), site.dtype), counts=True)
        return Probability(carried) if site.node.output_dtype(0) == tf.bool.as_datatype_enum else Numeric(carried)
