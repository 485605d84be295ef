"""`gradpass fix --onnx FILE`: the repaired signature as an ONNX model, or a reason why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.report.json import schema
from tests.pruning.programs import X, answers, saved
from tests.test_cli import Ran, error


def severed(m: Any, x: Any) -> Any:
    return {"y": tf.round(x @ m.a) @ m.b}


def run(path: Path) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": X}), strict=True))


def test_the_file_gives_what_the_model_gives(tmp_path: Path) -> None:
    model = saved(severed, tmp_path / "m")
    ran = Ran("fix", model, "-o", tmp_path / "out", "--onnx", tmp_path / "m.onnx", "--format", "json")
    data = json.loads(ran.out)
    jsonschema.validate(data, {**schema(), "$ref": "#/$defs/fix"})
    assert ran.status == 0 and data["onnx"] == str(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    np.testing.assert_allclose(run(tmp_path / "m.onnx")["y"], answers(model)["y"], rtol=1e-6)  # two float32 matmuls
    # A bridge lives in the gradient only: no sigmoid, no softmax, no more than the original has.
    loaded = onnx.load(str(tmp_path / "m.onnx"))
    assert sorted(node.op_type for node in loaded.graph.node) == ["MatMul", "MatMul", "Round"]


def test_what_no_onnx_can_hold_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        return {"y": tf.round(x @ m.a) + tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32)}

    report = gp.fix(saved(body, tmp_path / "m"), tmp_path / "out", onnx=tmp_path / "m.onnx", cross_check=False)
    assert [row.name for row in report.failed] == ["onnx-file"] and report.exit_status == 1
    assert report.output is None and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    model = saved(severed, tmp_path / "m")
    (tmp_path / "m.onnx").write_text("mine")
    assert "m.onnx exists" in error("fix", str(model), "-o", str(tmp_path / "out"), "--onnx", str(tmp_path / "m.onnx"))
    assert (tmp_path / "m.onnx").read_text() == "mine" and not (tmp_path / "out").exists()
    gp.fix(model, tmp_path / "out", onnx=tmp_path / "m.onnx", cross_check=False, force=True)
    assert run(tmp_path / "m.onnx")["y"].shape == (1, 3)


def test_one_signature_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(gp.GradpassError, match="holds one signature"):
        gp.fix(saved(severed, tmp_path / "m"), tmp_path / "out", entry="all", onnx=tmp_path / "m.onnx")
