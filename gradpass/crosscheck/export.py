"""A signature as an ONNX model, by tf2onnx: frozen as a user would export it, or with its variables as inputs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gradpass.crosscheck.check import Skip, attempt
from gradpass.crosscheck.load import Signature
from gradpass.crosscheck.signbit import without_bits

CATCH = "TF2ONNX_CATCH_ERRORS"  # tf2onnx/constants.py


def machinery(name: str) -> ModuleType:
    """A module that a check needs; Skip where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise Skip(f"{name} cannot be imported ({problem}); install it to have this check") from problem


class Tools:
    """The converter, the checker and the runtime."""

    def __init__(self, tf2onnx: ModuleType, runtime: ModuleType, onnx: ModuleType) -> None:
        self.convert = importlib.import_module("tf2onnx.convert")
        self.loader = importlib.import_module("tf2onnx.tf_loader")
        self.opset = min(max(tf2onnx.constants.OPSET_TO_IR_VERSION), onnx.defs.onnx_opset_version())
        self.runtime = runtime
        self.onnx = onnx


def tools() -> Tools:
    """The converter, the checker and the runtime that are installed; Skip says which is missing."""
    return Tools(*(machinery(name) for name in ("tf2onnx", "onnxruntime", "onnx")))


@dataclass(frozen=True)
class Frozen:
    """A signature as one GraphDef without resources and without calls; only loops and branches keep their functions.

    Each variable is a Const, under the name in `variables`. Inputs and outputs are tensor names by their own.
    """

    graph: Any
    inputs: dict[str, str]
    outputs: dict[str, str]
    variables: dict[str, Any]


def freeze(tools: Tools, signature: Signature) -> Frozen:
    """The signature with its variables and captured tensors as constants."""
    import tensorflow as tf

    names = list(signature.inputs)
    traced = tf.function(lambda *tensors: signature.call(dict(zip(names, tensors, strict=True))))
    function = traced.get_concrete_function(*signature.inputs.values())
    captured = function.captured_inputs
    places = [tensor.op.name for tensor in function.inputs[len(function.inputs) - len(captured) :]]
    # With large_model it is a proto all along; otherwise it becomes a graph and a proto again, twice, with all weights.
    graph = tools.loader.from_function(function, [], [], large_model=True)
    graph = _with_captures(tools.loader.fix_freezing_errors_part2(graph), dict(zip(places, captured, strict=True)))
    owners = {id(variable.handle): variable for variable in signature.variables if hasattr(variable, "handle")}
    return Frozen(
        without_bits(graph),
        dict(zip(names, (tensor.name for tensor in function.inputs), strict=False)),
        # Outputs that are a dict come in the order of its sorted keys.
        dict(zip(sorted(signature.outputs), (tensor.name for tensor in function.outputs), strict=True)),
        {place: owners[id(value)] for place, value in zip(places, captured, strict=True) if id(value) in owners},
    )


def _with_captures(graph: Any, captured: Mapping[str, Any]) -> Any:
    """Puts captured tensors into the graph; freezing does so for variables only, and leaves these as more inputs."""
    import tensorflow as tf

    values = {place: value for place, value in captured.items() if value.dtype != tf.resource}
    for node in graph.node:
        if node.op == "Placeholder" and node.name in values:
            value = values[node.name]
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = value.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return graph


def opened(frozen: Frozen, free: Mapping[str, tuple[Any, Any]]) -> Any:
    """The graph with the nodes of these names as Placeholders of a dtype and shape; nothing of the weights is copied.

    Each must have one output.
    """
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef(versions=frozen.graph.versions, library=frozen.graph.library)
    for node in frozen.graph.node:
        if node.name in free:
            dtype, shape = free[node.name]
            placeholder = graph.node.add(name=node.name, op="Placeholder")
            placeholder.attr["dtype"].type = dtype.as_datatype_enum
            placeholder.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
        else:
            graph.node.add().CopyFrom(node)
    return graph


def to_onnx(tools: Tools, frozen: Frozen, graph: Any = None, free: Collection[str] = ()) -> Any:
    """A checked ONNX model of a frozen graph: or of one made from it, with the nodes in `free` as inputs (`name:0`).

    Skip names ops that tf2onnx cannot carry.
    """
    if not frozen.inputs and not free:
        raise Skip("tf2onnx exports no signature without inputs")
    if frozen.inputs.keys() & frozen.outputs.keys():
        twice = ", ".join(sorted(frozen.inputs.keys() & frozen.outputs.keys()))
        raise Skip(f"an input and an output are both called {twice}, which ONNX does not allow")
    named = {tensor: name for name, tensor in [*frozen.inputs.items(), *frozen.outputs.items()]}

    def convert() -> Any:
        model, _ = tools.convert.from_graph_def(
            frozen.graph if graph is None else graph,
            input_names=[*frozen.inputs.values(), *(f"{name}:0" for name in free)],
            output_names=list(frozen.outputs.values()),
            opset=tools.opset,
            tensors_to_rename=named,
        )
        return model

    # An optimizer of tf2onnx that raises is left out where it copies the model before each: rare, and three times as
    # slow for a ResNet50.
    with _uncopied():
        quick = attempt(convert)
    model = convert() if quick.value is None else quick.value
    # tf2onnx leaves an op that it does not know in the graph as it was, and calls that success.
    foreign = {n.op_type for n in nodes(model.graph) if not tools.onnx.defs.has(n.op_type, domain=n.domain)}
    if foreign:
        raise Skip(f"tf2onnx cannot carry {', '.join(sorted(foreign))}")
    tools.onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def _uncopied() -> Iterator[None]:
    """Lets tf2onnx's optimizers work on the one model there is (tf2onnx/optimizer/__init__.py `optimize_graph`)."""
    before = os.environ.get(CATCH)
    os.environ[CATCH] = "FALSE"
    try:
        yield
    finally:
        del os.environ[CATCH]
        if before is not None:
            os.environ[CATCH] = before


def export(tools: Tools, signature: Signature) -> Any:
    """The signature as a checked ONNX model, its variables frozen; Skip names ops that tf2onnx cannot carry."""
    return to_onnx(tools, freeze(tools, signature))


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes of an ONNX graph, those of its branches and loops among them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)
