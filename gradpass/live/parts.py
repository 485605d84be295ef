"""The functions that a live target is repaired as: its call, in training and in inference, and its loss."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradpass.errors import GradpassError, TargetError
from gradpass.live.capsule import Part
from gradpass.live.frameworks import has_loss, is_functional, keras_of
from gradpass.live.left import left_graph, said, user_line
from gradpass.live.target import Prepared, positional
from gradpass.report.words import quoted

Losses = dict["str | int | None", "Callable[..., Any] | None"]
CALL, TRAINING, INFERENCE, LOSS = "call", "training", "inference", "loss"


def conformed(inputs: Sequence[Any], specs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs as the traced function takes them: tensors of its dtypes and ranks, in its structure."""
    if len(inputs) != len(specs):
        raise TypeError(f"{len(specs)} inputs are taken, not {len(inputs)}")
    given, wanted = tf.nest.flatten(list(inputs)), tf.nest.flatten(list(specs))
    if len(given) != len(wanted):
        raise TypeError(f"{len(wanted)} tensors are taken as inputs, not {len(given)}")
    flat = [_conform(value, spec) for value, spec in zip(given, wanted, strict=True)]
    return tuple(tf.nest.pack_sequence_as(list(specs), flat))


def _conform(value: Any, spec: Any) -> Any:
    if not isinstance(spec, tf.TensorSpec):
        return value
    tensor = tf.convert_to_tensor(value) if tf.is_tensor(value) else tf.convert_to_tensor(np.asarray(value))
    if tensor.dtype != spec.dtype:
        tensor = tf.cast(tensor, spec.dtype)
    rank = spec.shape.rank
    if rank is not None and tensor.shape.rank == rank - 1 and spec.shape[-1] == 1:
        return tensor[..., tf.newaxis]  # as Keras's functional models do
    if not spec.shape.is_compatible_with(tensor.shape):
        raise TypeError(
            f"an input of the shape {spec.shape} is taken, not {tensor.shape}; give gradpass a "
            f"tf.TensorSpec with None for what varies"
        )
    return tensor


def outputs_of(structure: Any, target: Any) -> Any:
    """What the user knows as the outputs of a part."""
    return structure["outputs"] if keras_of(target) is not None else structure


def call_parts(prepared: Prepared) -> tuple[dict[str, Part], tuple[Any, ...]]:
    """The functions that are repaired, and the specs of the inputs that they take."""
    keras = keras_of(prepared.owner)
    if keras is None:
        specs = tuple(tf.nest.map_structure(_spec, item) for item in prepared.inputs)
        return {CALL: _part(prepared, _of_call(prepared), specs)}, specs
    prepared.build()
    specs = tuple(tf.nest.map_structure(_any_batch, item) for item in _keras_inputs(prepared))
    made = {}
    for name, training in ((TRAINING, True), (INFERENCE, False)):
        made[name] = _part(prepared, tf.function(_run(prepared.owner, keras, training), autograph=False), specs)
    return made, specs


def _of_call(prepared: Prepared) -> Any:
    # A tf.function may have been traced for other inputs before; what is saved is one that was not.
    return tf.function(prepared.called or prepared.function, autograph=prepared.autograph)


def _part(prepared: Prepared, function: Any, specs: tuple[Any, ...]) -> Part:
    try:
        return Part(function, function.get_concrete_function(*specs))
    except Exception as error:  # whatever the user's own code raises
        left = left_graph(error)
        line = left.source if left else user_line(error)
        where = f" ({line.file}:{line.line})" if line else ""
        what = f"{quoted(left.what)} takes a value out of the graph" if left else said(error)
        raise TargetError(f"{quoted(prepared.label)} cannot be traced{where}: {what}") from error


def _run(model: Any, keras: Any, training: bool) -> Callable[..., Any]:
    """The model's call with all that comes of it: outputs, losses that layers add, and masks of the outputs."""
    takes = {} if not _cares(model, keras) else {"training": training}

    def run(*inputs: Any) -> dict[str, Any]:
        outputs = model(*inputs, **takes)
        # Keras has no public reader of the mask that goes along with a tensor (Keras 3 to 3.15 and tf_keras keep it in
        # this attribute, which compiled losses look at); a test fails when it moves.
        masks = [getattr(tensor, "_keras_mask", None) for tensor in tf.nest.flatten(outputs)]
        here = tf.compat.v1.get_default_graph()
        losses = [loss for loss in added_losses(model)[0] if getattr(loss, "graph", None) is here]
        return {"outputs": outputs, "losses": losses, "masks": masks}

    return run


def _cares(model: Any, keras: Any) -> bool:
    return isinstance(model, keras.Model) or "training" in inspect.signature(model.call).parameters


def added_losses(model: Any) -> tuple[list[Any], list[Any]]:
    """The losses of a Keras model: those that its layers added in a call, and those that it computes of weights alone.

    The former are kept, whenever they were added; the latter are made anew at each look.
    """
    first, second = model.losses, model.losses
    kept = {id(loss) for loss in first}
    return [loss for loss in second if id(loss) in kept], [loss for loss in second if id(loss) not in kept]


def _keras_inputs(prepared: Prepared) -> tuple[Any, ...]:
    """The inputs of a Keras target without the labels; of a functional model those that it declares."""
    if is_functional(prepared.owner):
        structure = prepared.owner.input if len(prepared.owner.inputs) > 1 else prepared.owner.inputs[0]
        return (tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure),)
    return prepared.inputs


def _spec(leaf: Any) -> Any:
    if isinstance(leaf, tf.TypeSpec) or not tf.is_tensor(leaf):
        return leaf
    return tf.TensorSpec(leaf.shape, leaf.dtype) if isinstance(leaf, tf.Tensor) else tf.type_spec_from_value(leaf)


def _any_batch(leaf: Any) -> Any:
    """The spec of an input with any batch size, as `fit` has another one in its last step."""
    spec = _spec(leaf)
    if isinstance(spec, tf.TensorSpec) and spec.shape.rank:
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    if isinstance(spec, tf.RaggedTensorSpec) and spec.shape.rank:
        return tf.RaggedTensorSpec([None, *spec.shape[1:]], spec.dtype, spec.ragged_rank, spec.row_splits_dtype)
    return spec


def losses_of(target: Any, loss: Any) -> Losses:
    """The losses as functions of labels and outputs (or of outputs alone), by output: its place or its name.

    One loss is that of all outputs together, under None.
    """
    keras = keras_of(target)
    if loss is None:
        if not has_loss(target):
            return {}
        loss = target.loss

    def function(each: Any) -> Callable[..., Any] | None:
        named = (keras or importlib.import_module("keras")).losses.get(each) if isinstance(each, str) else each
        return getattr(named, "call", named)  # type: ignore[no-any-return]

    if isinstance(loss, dict):
        return {name: function(each) for name, each in loss.items()}
    if isinstance(loss, (list, tuple)):
        return {place: function(each) for place, each in enumerate(loss)}
    return {None: function(loss)}


def of_output(key: str | int | None, structure: Any, target: Any) -> Any:
    """What of some outputs, or labels, a loss is about."""
    if key is None or structure is None:
        return structure
    if isinstance(structure, dict) and key in structure:
        return structure[key]
    flat = tf.nest.flatten(structure)
    if isinstance(key, str):
        names = list(getattr(target, "output_names", ()))
        if key not in names:
            raise GradpassError(f"a loss is for {key!r}, and the model has the outputs {', '.join(names)}")
        key = names.index(key)
    if key >= len(flat):
        raise GradpassError(f"there are more losses than outputs ({len(flat)}); give one loss an output")
    return flat[key]


def loss_part(loss: Callable[..., Any], prepared: Prepared, labels: Any, outputs: Any) -> Part:
    """A loss as a function of labels and outputs; its targets are the outputs."""
    specs = tf.nest.map_structure(_spec_of_symbolic, outputs)
    args: tuple[Any, ...] = (specs,)
    if positional(loss) == 2:
        args = (tf.nest.map_structure(_any_batch, labels), specs)
    before = sum(_width(spec) for spec in tf.nest.flatten(list(args[:-1])))
    part = _part(prepared, tf.function(loss), args)
    wide = sum(_width(spec) for spec in tf.nest.flatten([args[-1]]))
    return Part(part.function, part.concrete, frozenset(range(before, before + wide)))


def _width(spec: Any) -> int:
    return len(tf.nest.flatten(spec, expand_composites=True)) if isinstance(spec, tf.TypeSpec) else 0


def _spec_of_symbolic(tensor: Any) -> Any:
    return tf.TensorSpec(tensor.shape, tensor.dtype) if isinstance(tensor, tf.Tensor) else tensor


def serving(parts: dict[str, Part], specs: tuple[Any, ...], prepared: Prepared) -> Any:
    """What a SavedModel serves: the call in inference, where its inputs and outputs are plain tensors."""
    part = parts.get(INFERENCE, parts.get(CALL))
    assert part is not None
    flat = tf.nest.flatten(list(specs))
    outputs = tf.nest.flatten(outputs_of(part.concrete.structured_outputs, prepared.owner))
    if not all(isinstance(s, tf.TensorSpec) for s in flat) or not all(
        isinstance(t, (tf.TensorSpec, tf.Tensor)) for t in outputs
    ):
        return None
    names = [f"input_{i}" if len(flat) > 1 else "inputs" for i in range(len(flat))]

    def serve(**inputs: Any) -> dict[str, Any]:
        packed = tf.nest.pack_sequence_as(list(specs), [inputs[name] for name in names])
        given = outputs_of(part.function(*packed), prepared.owner)
        return {f"output_{i}": tensor for i, tensor in enumerate(tf.nest.flatten(given))}

    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in zip(names, flat, strict=True)}
    return tf.function(serve, autograph=False).get_concrete_function(**named)
