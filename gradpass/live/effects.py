"""What a call of a Keras layer does beside giving outputs: losses that it adds, what it assigns, prints, raises."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.live.frameworks import keras_of, plain
from gradpass.live.layers import HISTORY, Call
from gradpass.live.parts import added_losses
from gradpass.program.trace import handle_of, of_function
from gradpass.pruning.needs import Needs

SEEDS = {"seed", "seed2"}  # the attributes of ops that draw random numbers from a state of their own


class Effects(NamedTuple):
    """`reason` is what a call does that is missed whoever reads its outputs; `assigned` are the variables, by handle,
    that it changes."""

    reason: str | None
    assigned: set[int]


def effects_of(call: Call) -> Effects:
    """What a call in a functional model does in training; random numbers that a layer draws for itself are nothing."""
    layer = call.layer
    keras = keras_of(layer)
    if keras is None:  # an operation of Keras 3
        return Effects(None, set())
    found: list[str] = []
    takes = {"training": True} if "training" in inspect.signature(layer.call).parameters else {}
    leaves = tf.nest.flatten((call.args, call.kwargs))
    places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, HISTORY)]

    def run(*tensors: Any) -> Any:
        new = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            new[place] = tensor
        args, kwargs = tf.nest.pack_sequence_as((call.args, call.kwargs), new)
        outputs = layer(*args, **{**kwargs, **takes})
        here = tf.compat.v1.get_default_graph()
        if any(getattr(loss, "graph", None) is here for loss in added_losses(layer)[0]):
            found.append("adds a loss")
        return outputs

    specs = [_spec(leaves[place]) for place in places]
    # Not autograph: Keras applies it by itself where it does.
    concrete = tf.function(run, autograph=False).get_concrete_function(*specs)
    model = of_function(concrete)
    needs = Needs(model.program)
    (entry,) = model.entries.values()
    variables = {value: key for key, values in entry.captures.items() for value in values}
    own = {handle_of(plain(variable)) for variable in concrete.variables}
    assigned: set[int] = set()
    for node in entry.function.nodes:
        if not needs.has_effect(node):
            continue
        changed = {variables[value] for value in node.inputs if value in variables} & own
        if changed:
            assigned |= changed
        elif not node.kind.attrs.keys() >= SEEDS:
            found.append(f"runs {node.op}")
    return Effects(found[0] if found else None, assigned)


def _spec(tensor: Any) -> Any:
    """The spec of a tensor of Keras's graph."""
    known = getattr(tensor, "type_spec", None)  # of tf_keras
    if known is not None:
        return known
    if getattr(tensor, "sparse", False):
        return tf.SparseTensorSpec(tensor.shape, tensor.dtype)
    if getattr(tensor, "ragged", False):
        return tf.RaggedTensorSpec(tensor.shape, tensor.dtype, getattr(tensor, "ragged_rank", None))
    return tf.TensorSpec(tensor.shape, tensor.dtype)
