"""The parts that the hands are made of, each against numbers of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from gradpass.crosscheck.autodiff import apart, python
from gradpass.crosscheck.check import Skip
from gradpass.crosscheck.double import doubled
from gradpass.crosscheck.export import CATCH, export, freeze, nodes, to_onnx, tools
from gradpass.crosscheck.inputs import EDGES, Layout, edges
from gradpass.crosscheck.load import load_plain
from gradpass.crosscheck.runtime import Runner
from gradpass.crosscheck.same import same
from gradpass.crosscheck.schema import reached
from gradpass.crosscheck.worth import smoothed

from .conftest import Save, severed

F = TensorProto.FLOAT


def model(
    inner: list[Any], inputs: dict[str, int], outputs: dict[str, int], constants: dict[str, Any] | None = None
) -> Any:
    graph = helper.make_graph(
        inner,
        "g",
        [helper.make_tensor_value_info(name, kind, [2, 3]) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, [2, 3]) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


# The schemas.


def ways(*inner: Any, output: str = "y") -> dict[str, frozenset[str]]:
    return reached(tools(), model(list(inner), {"x": F}, {output: F}), [output])


def test_the_schemas_let_a_smooth_path_through() -> None:
    found = ways(helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Sigmoid", ["e"], ["y"]))
    assert found["x"] == frozenset()


@pytest.mark.parametrize("op", ["Floor", "Sign", "Hardmax", "Round"])
def test_the_schemas_stop_at_a_step(op: str) -> None:
    assert "x" not in ways(helper.make_node(op, ["x"], ["r"]), helper.make_node("Exp", ["r"], ["y"]))


@pytest.mark.parametrize(
    ("to", "passes"), [(TensorProto.INT64, False), (TensorProto.DOUBLE, True), (TensorProto.BOOL, False)]
)
def test_a_cast_passes_by_what_it_casts_to(to: int, passes: bool) -> None:
    found = ways(helper.make_node("Cast", ["x"], ["i"], to=to), helper.make_node("Cast", ["i"], ["y"], to=F))
    assert ("x" in found) == passes


def test_an_index_has_no_way_and_the_data_have() -> None:
    index = helper.make_node("ArgMax", ["x"], ["i"], axis=1)
    found = ways(index, helper.make_node("Gather", ["t", "i"], ["y"]))
    assert "x" not in found and found["t"] == frozenset()


def test_a_branch_is_left_open() -> None:
    def branch(name: str) -> Any:
        return helper.make_graph(
            [helper.make_node("Identity", ["x"], [name])], name, [], [helper.make_tensor_value_info(name, F, None)]
        )

    found = ways(helper.make_node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b")))
    assert found["x"] == {"If"}


def test_of_two_ways_the_one_without_gaps_is_told() -> None:
    found = ways(
        helper.make_node("ReverseSequence", ["x", "n"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    )
    assert found["x"] == frozenset()
    alone = ways(helper.make_node("ReverseSequence", ["x", "n"], ["y"]))
    assert alone["x"] == {"ReverseSequence"}


def test_a_transform_of_fourier_is_open_though_its_schema_forbids_it() -> None:
    assert ways(helper.make_node("DFT", ["x"], ["y"]))["x"] == {"DFT"}


def test_the_known_faults_of_the_schemas_are_there_still() -> None:
    """When onnx mends one, its special case here can go."""
    kinds = onnx.defs.OpSchema.DifferentiationCategory
    for op in ("Cast", "Hardmax"):
        assert onnx.defs.get_schema(op, 18).outputs[0].differentiation_category == kinds.Differentiable
    assert onnx.defs.get_schema("DFT", 17).inputs[0].differentiation_category == kinds.NonDifferentiable


# float64.


def test_a_doubled_model_computes_in_float64() -> None:
    third = np.full((2, 3), np.float32(1) / 3)
    narrow = model([helper.make_node("Mul", ["x", "c"], ["y"])], {"x": F}, {"y": F}, {"c": third})
    wide = doubled(tools(), narrow)
    x = np.random.default_rng(0).normal(size=(2, 3))
    assert Runner(tools(), wide).run({"x": x})["y"].tobytes() == (x * third.astype(np.float64)).tobytes()
    assert narrow.graph.input[0].type.tensor_type.elem_type == F


def test_inner_graphs_are_doubled_too() -> None:
    def branch(name: str, value: float) -> Any:
        constant = numpy_helper.from_array(np.full((2, 3), value, np.float32))
        inner = [
            helper.make_node("Constant", [], [f"{name}c"], value=constant),
            helper.make_node("Add", ["x", f"{name}c"], [name]),
        ]
        return helper.make_graph(inner, name, [], [helper.make_tensor_value_info(name, F, [2, 3])])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("a", 0.1), else_branch=branch("b", 0.2))
    wide = doubled(tools(), model([node], {"x": F}, {"y": F}, {"c": np.array(True)}))
    got = Runner(tools(), wide).run({"x": np.zeros((2, 3))})["y"]
    assert got.dtype == np.float64 and got[0, 0] == np.float64(np.float32(0.1))


# Running.


def test_what_onnxruntime_lacks_the_reference_runs() -> None:
    double = TensorProto.DOUBLE
    kernel = np.random.default_rng(0).normal(size=(1, 1, 1, 1))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", double, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", double, None)],
        [numpy_helper.from_array(kernel, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    runner = Runner(tools(), made)
    assert runner.by == "onnx.reference"
    x = np.random.default_rng(1).normal(size=(1, 1, 2, 2))
    np.testing.assert_allclose(runner.run({"x": x})["y"], x * kernel[0, 0, 0, 0], rtol=1e-12)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        Runner(tools(), made, reference=False)


# Exports.


def test_the_environment_is_as_it_was(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = load_plain(save(severed)).signatures["serving_default"]
    for before in (None, "TRUE"):
        if before is not None:
            monkeypatch.setenv(CATCH, before)
        export(tools(), signature)
        assert os.environ.get(CATCH) == before


def test_an_optimizer_that_raises_is_left_out(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    from tf2onnx.optimizer import _optimizers

    def broken() -> Any:
        raise ZeroDivisionError

    monkeypatch.setitem(_optimizers, "broken", broken)
    signature = load_plain(save(severed)).signatures["serving_default"]
    assert {output.name for output in export(tools(), signature).graph.output} == {"y", "on"}


def test_variables_can_be_inputs(save: Save) -> None:
    signature = load_plain(save(severed)).signatures["serving_default"]
    frozen = freeze(tools(), signature)
    assert {v.name for v in frozen.variables.values()} == {"w:0", "codebook:0"}
    assert {n.op_type for n in nodes(to_onnx(tools(), frozen).graph)} >= {"ArgMax", "Gather"}


def frozen(path: Path) -> Any:
    return freeze(tools(), load_plain(path).signatures["serving_default"])


def test_equal_graphs_are_the_same_whatever_passes_values_on(save: Save) -> None:
    one = frozen(save(lambda x, w, c: {"y": tf.nn.relu(x @ w) + 1.0}))
    other = frozen(
        save(lambda x, w, c: {"y": tf.identity_n([tf.stop_gradient(tf.nn.relu(tf.identity(x) @ w)), x])[0] + 1.0})
    )
    assert same(one, other) and same(other, one)


@pytest.mark.parametrize(
    "build",
    [
        lambda x, w, c: {"y": tf.nn.relu(x @ w) + 1.0000001},
        lambda x, w, c: {"y": tf.nn.relu6(x @ w) + 1.0},
        lambda x, w, c: {"y": tf.nn.relu(tf.matmul(x, tf.transpose(w), transpose_b=True)) + 1.0},
        lambda x, w, c: {"z": tf.nn.relu(x @ w) + 1.0},
        lambda x, w, c: {"y": tf.nn.relu(x @ (w + 0.0)) + 1.0},
    ],
    ids=["constant", "op", "attribute", "name", "more"],
)
def test_graphs_that_differ_are_not_the_same(save: Save, build: Any) -> None:
    assert not same(frozen(save(lambda x, w, c: {"y": tf.nn.relu(x @ w) + 1.0})), frozen(save(build)))


def test_other_outputs_of_one_node_are_not_the_same(save: Save) -> None:
    one, other = (frozen(save(lambda x, w, c, i=i: {"y": tf.unstack(x @ w, 4, axis=1)[i]})) for i in (0, 1))  # type: ignore[misc]
    assert not same(one, other)


def test_a_deep_graph_needs_no_recursion(save: Save) -> None:
    def deep(x: tf.Tensor, w: tf.Variable, c: tf.Variable) -> dict[str, tf.Tensor]:
        y = x @ w
        for i in range(1500):
            y = tf.tanh(y * (1.0 + i))
        return {"y": y}

    path = save(deep)
    assert same(frozen(path), frozen(path))


# Worth.


def linear(slope: Any) -> Any:
    return lambda x: float(slope @ x)


@pytest.mark.parametrize("size", [2, 5, 400])
def test_the_smoothed_gradient_of_a_line_is_its_slope(size: int) -> None:
    rng = np.random.default_rng(0)
    slope, other = rng.normal(size=size), rng.normal(size=size)
    along, against, across = smoothed(linear(slope), np.zeros(size), [slope, -2 * slope, other], 1.0, 2.0, 0)
    assert along is not None and against is not None and across is not None
    assert along.value == pytest.approx(1, abs=0.02 + 4 * along.error) and along.ratio == pytest.approx(
        1, rel=1e-6 if size < 10 else 0.7
    )
    assert against.value == pytest.approx(-1, abs=0.02 + 4 * against.error) and against.ratio == pytest.approx(
        2 * along.ratio
    )
    expected = float(slope @ other / np.linalg.norm(slope) / np.linalg.norm(other))
    assert across.value == pytest.approx(expected, abs=1e-6 if size < 10 else 0.05)


def test_the_smoothed_gradient_of_a_step_is_known() -> None:
    """Of step(x) at 0.3, disturbed by s e, the smoothed value is the normal distribution's: its density the slope."""
    radius, at = 0.5, 0.3
    (found,) = smoothed(lambda x: float(x[0] > 0), np.array([at]), [np.array([1.0])], radius, 5.0, 0)
    assert found is not None and found.value == pytest.approx(1.0)
    slope = float(np.exp(-((at / radius) ** 2) / 2) / radius / np.sqrt(2 * np.pi))
    assert 1 / found.ratio == pytest.approx(slope, rel=0.15)


def test_what_does_not_change_has_no_smoothed_gradient() -> None:
    calls = []

    def flat(x: Any) -> float:
        calls.append(x)
        return 7.0

    assert smoothed(flat, np.zeros(9), [np.ones(9)], 1.0, 60.0, 0) == [None]
    assert len(calls) == 16  # eight pairs are enough to see that


def test_across_in_many_dimensions_is_told_from_along() -> None:
    rng = np.random.default_rng(1)
    slope = rng.normal(size=20_000)
    across = rng.normal(size=20_000)
    across -= slope * (slope @ across) / (slope @ slope)
    along, away = smoothed(linear(slope), rng.normal(size=20_000), [slope, across], 1.0, 3.0, 0)
    assert along is not None and along.bottom > 0.5
    assert away is not None and away.top < 0.05


# The second autodiff.


def test_how_far_gradients_are_apart() -> None:
    assert apart(None, None) == 0.0
    assert apart(np.ones(4), -np.ones(4)) == 2.0
    assert apart(None, np.ones(4)) == 1.0
    assert apart(np.full(4, 1e-9), None, least=1e-3) == pytest.approx(2e-6)


def test_a_python_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADPASS_AUTODIFF_PYTHON", raising=False)
    monkeypatch.setattr(
        "importlib.metadata.version",
        lambda _: (_ for _ in ()).throw(__import__("importlib").metadata.PackageNotFoundError),
    )
    with pytest.raises(Skip, match="onnxruntime-training is not installed; name in GRADPASS_AUTODIFF_PYTHON"):
        python()


# Edges.


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.float16, tf.bfloat16])
def test_edges_are_what_they_are_called(dtype: tf.DType) -> None:
    specs = {"x": tf.TensorSpec([64, 64], dtype), "i": tf.TensorSpec([3], tf.int32)}
    drawn = dict(edges(specs, Layout(3, True, 2, 8), np.random.default_rng(0)))
    assert tuple(drawn) == EDGES
    values = {kind: np.abs(inputs["x"].numpy().astype(np.float64)) for kind, inputs in drawn.items()}
    import ml_dtypes

    limits = ml_dtypes.finfo(dtype.as_numpy_dtype)
    assert not values["zeros"].any()
    assert len(np.unique(values["ties"])) < 8
    assert values["huge"].max() > float(limits.max) ** 0.7 and np.isfinite(values["huge"]).all()
    assert 0 < values["tiny"].max() < float(limits.smallest_normal) ** 0.5
    denormal = values["denormal"]
    assert np.mean((denormal > 0) & (denormal < float(limits.smallest_normal))) > 0.9
    assert all(inputs["i"].dtype == tf.int32 for inputs in drawn.values())


def test_without_floats_only_zeros_are_an_edge() -> None:
    drawn = dict(edges({"s": tf.TensorSpec([2], tf.string)}, Layout(3, True, 2, 8), np.random.default_rng(0)))
    assert list(drawn) == ["zeros"] and drawn["zeros"]["s"].numpy().tolist() == [b"", b""]
