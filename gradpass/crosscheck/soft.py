"""The function that a repaired signature claims to have the gradient of, as an ONNX model at one point.

A bridge leaves nothing of its surrogate in the forward pass. Written with the guarded sum instead, the same repair has
every soft function there, as `hard - (stop_gradient(z) - z)`. Each `StopGradient` becomes an input here, fed with its
value at the point; so do the variables. What is left is an ordinary function whose derivative at the point is, by the
definition of the straight-through estimator, the gradient that the repaired model should have, and that needs no
gradient machinery of TensorFlow to be looked at. What makes floats of integers, truth values or strings is held fast
as well: no gradient of TensorFlow's passes it, though a number that was printed and read again may well be smooth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Skip, attempt
from gradpass.crosscheck.export import Frozen, Tools, freeze, nodes, opened, to_onnx
from gradpass.crosscheck.load import Signature

STOPS = ("StopGradient", "PreventGradient")
# Ops whose gradient in TensorFlow is not the derivative of what they compute, on purpose.
ESTIMATORS = ("FakeQuant", "QuantizeAndDequantize")


@dataclass(frozen=True)
class Soft:
    """An ONNX model and the point at which it stands for the gradient.

    `point` has a value for every input of the model. `targets` are the inputs to differentiate by, as they are called
    for people: float arguments of the signature by name, and the trainable variables that it reads. `outputs` are those
    that are floats; `variables` those targets that are variables. `unlike` names what TensorFlow differentiates in a
    way of its own: a difference may be due to that.
    """

    model: Any
    point: dict[str, Any]
    targets: dict[str, str]
    variables: dict[str, Any]
    outputs: list[str]
    unlike: list[str]


# A target whose gradient moves the loss this much less than the largest one does: rounding, not to be compared.
# Of what was promised there is less to be spared: float32 gives it some digits yet.
FLOOR, PROMISED = 1e-3, 1e-4


def bound(tools: Tools, soft: Soft, free: str) -> Any:
    """The model with one input left, all others constants at the point: onnxruntime folds what they alone make."""
    model = type(soft.model)()
    model.CopyFrom(soft.model)
    del model.graph.input[:]
    for given in soft.model.graph.input:
        if given.name == free:
            model.graph.input.append(given)
        else:
            model.graph.initializer.append(tools.onnx.numpy_helper.from_array(soft.point[given.name], given.name))
    return model


def size(value: Any) -> float:
    """The size of a target's elements (root mean square); 1 for zeros, which have none."""
    return float(np.sqrt(np.mean(np.square(value.astype(np.float64))))) if np.any(value) else 1.0


def weights(soft: Soft, gradients: dict[str, Any]) -> dict[str, float]:
    """How much a random disturbance of each target by its own size moves the loss, by these gradients."""
    return {
        t: 0.0 if g is None else float(np.linalg.norm(g.astype(np.float64))) * size(soft.point[t])
        for t in soft.targets
        for g in [gradients.get(t)]
    }


def floors(soft: Soft, gradients: dict[str, Any], promised: Collection[str]) -> dict[str, float]:
    """By target the weight under which its gradient is no more than the rounding of others."""
    largest = max(weights(soft, gradients).values(), default=0.0)
    return {target: largest * (PROMISED if target in promised else FLOOR) for target in soft.targets}


def coarse(tools: Tools, soft: Soft) -> bool:
    """Whether a part of the model computes in 16 bits, in which small steps are none."""
    types = tools.onnx.TensorProto
    narrow = (types.FLOAT16, types.BFLOAT16)
    graph = soft.model.graph
    return (
        any(value.type.tensor_type.elem_type in narrow for value in (*graph.input, *graph.output))
        or any(value.data_type in narrow for value in graph.initializer)
        or any(a.i in narrow for node in nodes(graph) for a in node.attribute if a.name in ("to", "dtype"))
    )


def flat(soft: Soft, gradients: dict[str, Any], cotangents: dict[str, Any], tiny: float) -> bool:
    """Whether all gradients together move the outputs by less than this, if these are of the size of 1."""
    moved = sum(weight**2 for weight in weights(soft, gradients).values()) ** 0.5
    return bool(moved < tiny * sum(float(np.abs(c).sum()) for c in cotangents.values()))


def soften(
    tools: Tools, signature: Signature, inputs: dict[str, Any], values: dict[int, Any], hold: bool = True
) -> Soft:
    """The signature of a model whose surrogates are in its forward pass, at these inputs.

    `values` are those that variables have at the point, by the ids of the variables; the others have their own.
    Without `hold` what is behind a StopGradient is not held fast: of a hard model it is the hard function itself.
    """
    frozen = attempt(lambda: freeze(tools, signature))
    if frozen.value is None:
        raise Skip(f"its graph cannot be frozen: {frozen.reason}")
    return _softened(tools, frozen.value, inputs, values, hold)


def _softened(tools: Tools, frozen: Frozen, inputs: dict[str, Any], values: dict[int, Any], hold: bool) -> Soft:
    if hold and any(node.op in STOPS for function in frozen.graph.library.function for node in function.node_def):
        raise Skip("a stop_gradient inside a loop or branch has another value each time, which no input can hold")
    held = {name: values.get(id(variable), variable.numpy()) for name, variable in frozen.variables.items()}
    imported = attempt(lambda: _Running(frozen, held))
    if imported.value is None:
        raise Skip(f"its graph cannot be frozen: {imported.reason}")
    running = imported.value
    used = running.used(hold)
    variables = {name: variable for name, variable in frozen.variables.items() if name in used}
    stops = [name for name in used if hold and running.stops(name)]
    point = {name: value.numpy() for name, value in inputs.items()}
    point |= {f"{name}:0": held[name] for name in variables}
    fast = attempt(lambda: running.values(inputs, stops))
    if fast.value is None:
        raise Skip(f"what TensorFlow holds fast cannot be computed on its own: {fast.reason}")
    point |= dict(zip((f"{name}:0" for name in stops), fast.value, strict=True))
    free = {name: _spec(point[f"{name}:0"]) for name in [*variables, *stops]}
    shaped = {tensor.rpartition(":")[0]: _spec(point[name]) for name, tensor in frozen.inputs.items()}
    # Known shapes fold more of the graph; of a loop tf2onnx then may leave both int32 and int64, which onnx refuses.
    exported = attempt(lambda: to_onnx(tools, frozen, opened(frozen, {**free, **shaped}), free))
    if exported.value is None:
        exported = attempt(lambda: to_onnx(tools, frozen, opened(frozen, free), free))
    if exported.value is None:
        raise Skip(f"it has no export with its variables as inputs: {exported.reason}")
    model = exported.value
    read = {value.name for value in model.graph.input}
    named = {name: name for name, value in inputs.items() if value.dtype.is_floating}
    trained = {f"{k}:0": v for k, v in variables.items() if v.trainable and v.dtype.is_floating}
    named |= {name: variable.name.rpartition(":")[0] for name, variable in trained.items()}
    floats = {tools.onnx.TensorProto.FLOAT, tools.onnx.TensorProto.DOUBLE}
    return Soft(
        model,
        {name: value for name, value in point.items() if name in read},
        {name: label for name, label in named.items() if name in read},
        trained,
        [output.name for output in model.graph.output if output.type.tensor_type.elem_type in floats],
        sorted({name for node in _all(frozen.graph) for name in _unlike(node)}),
    )


def _spec(value: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    return tf.dtypes.as_dtype(value.dtype if value.dtype.kind != "O" else "string"), value.shape


class _Running:
    """A frozen graph in TensorFlow, its variables fed."""

    def __init__(self, frozen: Frozen, held: dict[str, Any]) -> None:
        import tensorflow as tf

        graph = opened(frozen, {name: _spec(value) for name, value in held.items()})
        self._frozen = frozen
        self._held = held
        self._wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])

    def used(self, hold: bool) -> list[str]:
        """The nodes that the outputs need; of what is behind one that is held fast, only that one."""
        used: dict[str, None] = {}
        queue = [tensor.partition(":")[0] for tensor in self._frozen.outputs.values()]
        while queue:
            name = queue.pop()
            if name not in used:
                used[name] = None
                if not (hold and self.stops(name)):
                    op = self._wrapped.graph.get_operation_by_name(name)
                    queue += [before.name for before in (*(value.op for value in op.inputs), *op.control_inputs)]
        return list(used)

    def stops(self, name: str) -> bool:
        """Whether no gradient passes a node whatever it computes: it is told so, or makes floats of other things."""
        import tensorflow as tf

        op = self._wrapped.graph.get_operation_by_name(name)
        if op.type in STOPS:
            return True
        if len(op.outputs) != 1 or not op.inputs or not op.outputs[0].dtype.is_floating:
            return False
        return not any(
            value.dtype.is_floating or value.dtype.is_complex or value.dtype in (tf.variant, tf.resource)
            for value in op.inputs
        )

    def values(self, inputs: dict[str, Any], wanted: list[str]) -> list[Any]:
        """What nodes give for these inputs."""
        import tensorflow as tf

        if not wanted:
            return []
        element = self._wrapped.graph.as_graph_element
        feeds = [element(name) for name in (*self._frozen.inputs.values(), *(f"{name}:0" for name in self._held))]
        function = self._wrapped.prune(feeds, [element(f"{name}:0") for name in wanted])
        given = [inputs[name] for name in self._frozen.inputs]
        return [np.asarray(v.numpy()) for v in function(*given, *map(tf.convert_to_tensor, self._held.values()))]


def _all(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _unlike(node: Any) -> Iterator[str]:
    if node.op.startswith(ESTIMATORS):
        yield node.op
    elif node.op == "IdentityN" and "_gradient_op_type" in node.attr:
        yield f"the custom gradient of {node.name}"
