"""An ONNX model in float64: the same graph, all that was float32 twice as wide."""

from __future__ import annotations

from typing import Any

from gradpass.crosscheck.export import Tools


def doubled(tools: Tools, model: Any) -> Any:
    """A copy of a model that computes in float64; onnx's checker raises where an op does not know that type."""
    onnx = tools.onnx
    wide = type(model)()
    wide.CopyFrom(model)
    _widen(onnx, wide.graph)
    onnx.checker.check_model(wide, full_check=True)
    return wide


def _widen(onnx: Any, graph: Any) -> None:
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE

    def tensor(value: Any) -> None:
        if value.data_type == single:
            value.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(value).astype("float64"), value.name)
            )

    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    # What was inferred for the values between is inferred again.
    del graph.value_info[:]
    for value in graph.initializer:
        tensor(value)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == single:
                attribute.i = double
            elif attribute.HasField("t"):
                tensor(attribute.t)
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _widen(onnx, inner)
