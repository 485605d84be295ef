"""Runs an ONNX model: in onnxruntime, and where that has no kernel for an op, in ONNX's own reference in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradpass.crosscheck.export import Tools

LACKING = "NOT_IMPLEMENTED"  # how onnxruntime says that it has no kernel of that op and dtype


class Runner:
    """A model, ready to be run on the CPU. `by` says who runs it; `inputs` are those that the model reads."""

    def __init__(self, tools: Tools, model: Any, reference: bool = True) -> None:
        self.outputs = [output.name for output in model.graph.output]
        self.inputs = [value.name for value in model.graph.input]
        self.by = "onnxruntime"
        options = tools.runtime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = tools.runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as problem:
            # Its exceptions have no public class (onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented).
            if not reference or LACKING not in str(problem):
                raise
            from onnx.reference import ReferenceEvaluator

            self.by = "onnx.reference"
            self._session = ReferenceEvaluator(model)

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs by name; what the model does not read of `feed` is left aside."""
        values = self._session.run(self.outputs, {name: np.asarray(feed[name]) for name in self.inputs})
        return dict(zip(self.outputs, values, strict=True))
