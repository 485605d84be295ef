"""Repairs of what has no object graph: TF1 SavedModels and frozen graphs, by the guarded sum, under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import with_pb
from tests.rewrite.modules import TwoLayers

X = np.random.default_rng(3).normal(size=[5, 3]).astype(np.float32)


def tf1_model(path: Path, resource: bool, at_output: bool) -> Path:
    """A threshold in a TF1 graph, inside it or as its very output."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(4)
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", [3, 4], use_resource=resource)
        hard = tf.cast(x @ w > 0, tf.float32, name="hard")
        y = hard if at_output else tf.identity(hard @ v1.get_variable("u", [4, 2], use_resource=resource), name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})
    return path


def session_of(path: Path) -> tuple[Any, Any]:
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    return session, meta.signature_def["serving_default"]


@pytest.mark.parametrize("resource", [True, False])
@pytest.mark.parametrize("at_output", [True, False])
def test_tf1_saved_model(tmp_path: Path, resource: bool, at_output: bool) -> None:
    source = tf1_model(tmp_path / "m", resource, at_output)
    result = repair(read(source))
    assert result.pb is not None and [s.declined for s in result.plan] == [None]
    fixed = with_pb(source, tmp_path / "f", result.pb)
    outputs = []
    for path in (source, fixed):
        session, signature = session_of(path)
        names = (signature.outputs["y"].name, signature.inputs["x"].name)
        outputs.append((names, session.run(names[0], {names[1]: X}).tobytes()))
    assert outputs[0] == outputs[1]
    with session.graph.as_default():
        variables = tf.compat.v1.trainable_variables()
        found = tf.gradients(session.graph.get_tensor_by_name(names[0]), variables)
        for gradient in session.run(found, {names[1]: X}):
            assert np.isfinite(gradient).all() and gradient.any()
    (verdict,) = analyse(read(fixed))
    assert {t.structure for t in verdict.targets} == {"flows"}
    assert repair(read(fixed)).pb is None


def test_frozen_graph(tmp_path: Path) -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    module = TwoLayers()
    frozen = convert_variables_to_constants_v2(module.serve.get_concrete_function())
    file = tmp_path / "frozen.pb"
    file.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    result = repair(read(file))
    assert result.pb is not None and [s.declined for s in result.plan] == [None, None]
    x = np.random.default_rng(0).normal(size=[5, 4]).astype(np.float32)
    values = []
    for data in (file.read_bytes(), result.pb):
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(data), name="")
            y = graph.get_tensor_by_name("Identity:0")
            values.append(session.run(y, {"x:0": x}).tobytes())
            gradient = tf.gradients(y, graph.get_tensor_by_name("x:0"))[0]
            last = None if gradient is None else session.run(gradient, {"x:0": x})
    assert values[0] == values[1]
    assert last is not None and last.any() and np.isfinite(last).all()


def test_tf1_loop_is_refused(tmp_path: Path) -> None:
    """Frames of TF1 loops are not written into; the plan says so."""
    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [3], name="x")
            w = v1.get_variable("w", [3], use_resource=True)
            y = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s * 0.5), [tf.constant(0), tf.round(w * x)])[1]
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, {"y": tf.identity(y, name="y")})
    finally:
        v1.enable_control_flow_v2()
    result = repair(read(tmp_path / "m"))
    assert result.pb is None
    assert ["TF1 while loops" in (s.declined or "") for s in result.plan] == [True]
