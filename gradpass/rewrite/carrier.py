"""How a closed region is put into the graph: what stands between the hard value and those who use it.

- *bridge*: a function of its own with one `IdentityN(hard, sources, others)` whose custom gradient computes the shadow
  again and gives its VJP. Forward bits are the original's, and the forward pass pays nothing.
- *sum*: `hard - (stop_gradient(z) - z)` with z the shadow where it is finite: every bit kept in TensorFlow's own
  execution, at the price of computing the shadow in every forward pass.
- *soft*: the shadow in the hard value's place.

Bits are those of the original graph as it is written. Grappler rewrites some patterns only while a value has a single
user (it drops the relu of `argmax(relu(x))`, and makes `log(x + 1)` a log1p), and then the original itself gives other
bits with it than without: beside such a pattern the fixed graph gives those that the original gives without it.

A custom gradient in a SavedModel is a function of the library, registered under an op type, whose captures are bound to
tensors of the function that it serves (saved_object_graph.proto, CapturedTensor; tensorflow/python/saved_model/
function_deserialization.py `load_function_def_library`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto.function_pb2 import FunctionDef, RegisteredGradient
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.struct_pb2 import StructuredValue

from gradpass.program.graph import OWN, CustomGradient, Program
from gradpass.rewrite.build import Recipe, function_def


@dataclass
class Additions:
    """What a repair adds to a model beside the edited functions."""

    functions: list[FunctionDef] = field(default_factory=list)
    gradients: list[RegisteredGradient] = field(default_factory=list)
    custom: dict[str, CustomGradient] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def fresh(self, program: Program, stem: str) -> str:
        """A function name that is free. TensorFlow strips `__inference_` and the number again when it loads one."""
        serial = 0
        while True:
            name = f"{OWN}{stem}_{serial}"
            if name not in program.functions and name not in self.names:
                self.names.add(name)
                return name
            serial += 1


def argument_names(recipe: Recipe) -> list[str]:
    """How the needs are called as arguments."""
    sources = [f"source_{i}" for i in range(len(recipe.needs.sources))]
    return [*sources, *(f"other_{i}" for i in range(len(recipe.needs.others)))]


def carry(carrier: str, recipe: Recipe, program: Program, objects: SavedObjectGraph | None, new: Additions) -> str:
    """Adds the functions of a closing; names the one to call with (hard, sources, others), soft without hard."""
    if carrier == "bridge":
        assert objects is not None
        return _bridge(recipe, program, objects, new)
    specs = [recipe.value_spec, *recipe.specs]
    names = ["hard", *argument_names(recipe)]
    name = new.fresh(program, carrier)

    def soft(*tensors: Any) -> Any:
        return recipe.shadow(list(tensors))

    def guarded(hard: Any, *tensors: Any) -> Any:
        shadow = recipe.shadow(list(tensors))
        z = tf.where(tf.math.is_finite(shadow), shadow, tf.zeros_like(shadow))
        own = hard if recipe.closing.live else tf.stop_gradient(hard)
        return own - (tf.stop_gradient(z) - z)

    if carrier == "soft":
        new.functions.append(function_def(name, soft, specs[1:], names[1:]))
    else:
        new.functions.append(function_def(name, guarded, specs, names))
    return name


def _bridge(recipe: Recipe, program: Program, objects: SavedObjectGraph, new: Additions) -> str:
    names = ["hard", *argument_names(recipe)]
    specs = [recipe.value_spec, *recipe.specs]
    bridge = new.fresh(program, "bridge")
    gradient = new.fresh(program, "bridge_grad")
    op_type = f"CustomGradient-{bridge}"

    def identity(*tensors: Any) -> Any:
        return tf.raw_ops.IdentityN(input=list(tensors))[0]

    proto = function_def(bridge, identity, specs, names)
    for node in proto.node_def:
        if node.op == "IdentityN":
            node.attr["_gradient_op_type"].s = op_type.encode()
    new.functions.append(proto)

    def backward(*tensors: Any) -> Any:
        cotangents, values = tensors[: len(specs)], list(tensors[len(specs) :])
        own = [tf.identity(cotangents[0])] if recipe.closing.live else []
        return [*own, *recipe.gradients(values, cotangents[0])]

    cotangent_names = [f"result_grads_{i}" for i in range(len(specs))]
    captured_names = [f"captured_{name}" for name in names[1:]]
    new.functions.append(function_def(gradient, backward, [*specs, *specs[1:]], [*cotangent_names, *captured_names]))
    new.gradients.append(RegisteredGradient(gradient_func=gradient, registered_op_type=op_type))
    present = (recipe.closing.live, *(True for _ in recipe.needs.sources), *(False for _ in recipe.needs.others))
    new.custom[op_type] = CustomGradient(gradient, tuple(map(int, present)))
    _describe(objects, bridge, gradient, specs, names, present)
    return bridge


def _describe(
    objects: SavedObjectGraph,
    bridge: str,
    gradient: str,
    specs: list[tf.TensorSpec],
    names: list[str],
    present: tuple[bool, ...],
) -> None:
    """The gradient function's entry in the object graph: its signature, and what its captures are bound to."""
    described = objects.concrete_functions[gradient]
    for name in names[1:]:
        described.bound_inputs.append(len(objects.nodes))
        captured = objects.nodes.add().captured_tensor
        captured.name = f"{name}:0"
        captured.concrete_function = bridge
    whole = described.canonicalized_input_signature.tuple_value.values
    positional = whole.add().tuple_value.values
    positional.add().none_value.SetInParent()
    for i, tensor in enumerate(specs):
        _spec(positional.add(), tensor, f"result_grads_{i}")
    whole.add().dict_value.SetInParent()
    outputs = described.output_signature.list_value.values
    for i, (tensor, given) in enumerate(zip(specs, present, strict=True)):
        if given:
            _spec(outputs.add(), tensor, f"grad_{i}")
        else:
            outputs.add().none_value.SetInParent()


def _spec(value: StructuredValue, tensor: tf.TensorSpec, name: str) -> None:
    value.tensor_spec_value.name = name
    value.tensor_spec_value.dtype = tensor.dtype.as_datatype_enum
    for size in tensor.shape.as_list():
        value.tensor_spec_value.shape.dim.add().size = -1 if size is None else size
