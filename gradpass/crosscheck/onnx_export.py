"""Check 2: both models through tf2onnx and onnxruntime, compared with TensorFlow on the same inputs.

Also a second opinion on the written graph: whatever is in it must be known to a converter by other people.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from gradpass.crosscheck.check import Check, Outcome, Skip, attempt, judged
from gradpass.crosscheck.load import Signature
from gradpass.crosscheck.values import Outputs, Sample, deviation

# In parts of the output's range. float32 has a step of 6e-8; other kernels add the same numbers in another order, which
# costs some hundred steps over the depth of a real network, while a wrong op is off by percents. It is the figure that
# the project promises for real models (issue "the main job, end to end").
LIMIT = 1e-4


def onnx_checks(names: list[str], original: Signature, fixed: Signature, samples: list[Sample]) -> list[Check]:
    """The two checks: the original's export, which may be impossible, and the fixed model's, which is not so then."""
    using = tools()
    # Not the edge batch: where a model normalises, zeros leave rounding noise over rounding noise, which no two
    # libraries share (basic-pitch: 0.4 of the range there, 2e-6 on random inputs).
    samples = [s for s in samples if not s.edge]
    first = attempt(lambda: _deviations(using, original, samples, [s.original for s in samples]))
    second = attempt(lambda: _deviations(using, fixed, samples, [s.fixed for s in samples]))
    before = _original_check(names[0], first)
    return [before, _fixed_check(names[1], second, before)]


def _original_check(name: str, outcome: Outcome[dict[str, float]]) -> Check:
    if outcome.value is None:
        return Check(name, "skipped", limit=LIMIT, reason=outcome.reason)
    figure, told = _worst(outcome.value)
    if figure <= LIMIT:
        return Check(name, "passed", figure, LIMIT)
    # No fault of the repair: a hard op on a near tie, or an op that tf2onnx carries in another sense.
    reason = f"this export of the original differs from TensorFlow: {told}"
    return Check(name, "skipped", figure if math.isfinite(figure) else None, LIMIT, reason)


def _fixed_check(name: str, outcome: Outcome[dict[str, float]], before: Check) -> Check:
    possible = before.status == "passed"
    if outcome.value is None:
        reason = f"the original can be exported, this cannot: {outcome.reason}" if possible else outcome.reason
        return Check(name, "failed" if possible else "skipped", limit=LIMIT, reason=reason)
    figure, told = _worst(outcome.value)
    if figure > LIMIT and before.figure is not None and not possible:
        return Check(
            name, "skipped", figure if math.isfinite(figure) else None, LIMIT, f"so does the original's: {told}"
        )
    return judged(name, figure, LIMIT, f"onnxruntime differs from TensorFlow: {told}")


def _worst(figures: dict[str, float]) -> tuple[float, str]:
    beyond = (f"{output} by {figure:.2g} of its range" for output, figure in figures.items() if not figure <= LIMIT)
    return max(figures.values(), default=0.0), ", ".join(beyond)


def _machinery(name: str) -> ModuleType:
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
    return Tools(*(_machinery(name) for name in ("tf2onnx", "onnxruntime", "onnx")))


def _deviations(tools: Tools, signature: Signature, samples: list[Sample], expected: list[Outputs]) -> dict[str, float]:
    """By output, how far onnxruntime is from TensorFlow; Skip says why the model cannot be exported."""
    session = _session(tools, export(tools, signature))
    wanted = [output.name for output in session.get_outputs()]
    got: dict[str, list[Any]] = {name: [] for name in wanted}
    for sample in samples:
        # The export drops inputs that nothing reads.
        feed = {i.name: sample.inputs[i.name].numpy() for i in session.get_inputs()}
        for name, value in zip(wanted, session.run(wanted, feed), strict=True):
            got[name].append(value)
    missing = set(signature.outputs) - set(wanted)
    if missing:
        raise Skip(f"tf2onnx loses the outputs {sorted(missing)}")
    return {name: deviation([e[name] for e in expected], got[name]) for name in signature.outputs}


def export(tools: Tools, signature: Signature) -> Any:
    """The signature as a checked ONNX model, its variables frozen; Skip names ops that tf2onnx cannot carry."""
    import tensorflow as tf

    names = list(signature.inputs)
    traced = tf.function(lambda *tensors: signature.call(dict(zip(names, tensors, strict=True))))
    function = traced.get_concrete_function(*signature.inputs.values())
    tensors = [tensor.name for tensor in function.inputs[: len(names)]]
    outputs = [tensor.name for tensor in function.outputs]
    frozen = tools.loader.from_function(function, [t.name for t in function.inputs if t.dtype != tf.resource], outputs)
    model, _ = tools.convert.from_graph_def(
        _with_captures(function, frozen),
        input_names=tensors,
        output_names=outputs,
        opset=tools.opset,
        # Outputs that are a dict come in the order of its sorted keys.
        tensors_to_rename=dict(zip(tensors + outputs, names + sorted(signature.outputs), strict=True)),
    )
    # tf2onnx leaves an op that it does not know in the graph as it was, and calls that success.
    foreign = {n.op_type for n in _nodes(model.graph) if not tools.onnx.defs.has(n.op_type, domain=n.domain)}
    if foreign:
        raise Skip(f"tf2onnx cannot carry {', '.join(sorted(foreign))}")
    tools.onnx.checker.check_model(model, full_check=True)
    return model


def _with_captures(function: Any, frozen: Any) -> Any:
    """Puts captured tensors into the graph; freezing does so for variables only, and leaves these as more inputs."""
    import tensorflow as tf

    captured = function.captured_inputs
    internal = function.inputs[len(function.inputs) - len(captured) :]
    values = {i.op.name: v for i, v in zip(internal, captured, strict=True) if v.dtype != tf.resource}
    for node in frozen.node:
        if node.op == "Placeholder" and node.name in values:
            value = values[node.name]
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = value.dtype.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return frozen


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _session(tools: Tools, model: Any) -> Any:
    options = tools.runtime.SessionOptions()
    options.log_severity_level = 4
    return tools.runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
