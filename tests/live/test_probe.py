"""`gradpass.probe`: what is true by value of models as users write them, and that nothing is said of healthy ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from gradpass.live.frameworks import plain
from gradpass.live.probing import run
from gradpass.live.probing.stats import measure, read
from gradpass.report.codes import all_codes
from tests.live import probed
from tests.live.probed import FAR, HEALTHY, X, Y

BOTH = pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
KINDS = pytest.mark.parametrize("make", [probed.sequential, probed.functional, probed.subclassed])
STARVED = ["first/kernel", "first/bias", "middle/kernel", "middle/bias"]


def codes(report: gp.ProbeReport) -> list[str]:
    return [d.code for d in report.findings]


def short(names: list[str]) -> list[str]:
    """Names without the model's."""
    return ["/".join(name.split("/")[-2:]) for name in names]


def line_of(text: str) -> int:
    lines = Path(probed.__file__).read_text("utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize("make", HEALTHY)
def test_of_a_healthy_model_nothing_is_said_and_nothing_is_changed(make: Any) -> None:
    model, x, y = make()
    before = [v.numpy() for v in model.variables]
    report = gp.probe(model, x, y)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert report.ok and report.findings == [] and report.severed == []
    assert len(report.variables) == len(model.trainable_variables)
    assert all(row.gradient and row.gradient.finite and not row.gradient.all_zero for row in report.variables)
    assert any(layer.weights for layer in report.layers)


def test_batch_normalization_would_have_changed() -> None:
    # Or the test above could not fail.
    model, x, _ = probed.cnn()
    before = [v.numpy() for v in model.non_trainable_variables]
    model(x, training=True)
    assert any((v.numpy() != old).any() for v, old in zip(model.non_trainable_variables, before, strict=True))


@BOTH
@KINDS
def test_dead_relu(module: Any, make: Any) -> None:
    model = make(module, "relu", FAR)
    model(X)
    model.compile("sgd", "mse")
    report = gp.probe(model, X, Y)
    assert codes(report) == ["GP310"]
    (found,) = report.findings
    assert found.op == "Relu" and "all 32 inputs are below 0" in found.message
    assert short(found.starves) == [*STARVED, "last/kernel"]
    assert found.parameters == 12 + 4 + 16 + 4 + 8 and found.fix.kind == "advise"
    if make is probed.subclassed:
        assert found.source is not None and found.source.line == line_of("getattr(tf.nn, activation)(h)")
    with pytest.raises(gp.GradientError, match="GP310") as caught:
        report.raise_for_findings()
    assert caught.value.report is report


@BOTH
@KINDS
@pytest.mark.parametrize(("activation", "op"), [("sigmoid", "Sigmoid"), ("tanh", "Tanh")])
def test_saturated(module: Any, make: Any, activation: str, op: str) -> None:
    model = make(module, activation, 1000.0)
    model(X)
    model.compile("sgd", "mse")
    (found,) = gp.probe(model, X, Y).findings
    assert (found.code, found.op, short(found.starves)) == ("GP311", op, STARVED)
    assert gp.probe(make(module, activation, 0.0), X, loss=tf.reduce_sum).ok


def test_softmax_over_one_class() -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, "softmax")])
    with pytest.warns(UserWarning):
        (found,) = gp.probe(model, X).findings
    assert found.code == "GP311" and "over one class" in found.message


@pytest.mark.parametrize(
    ("function", "code", "op", "line", "starves"),
    [
        (probed.dead, "GP310", "Relu", "hidden = tf.nn.relu(x @ W + B)", ["w", "b", "v"]),
        (probed.saturated, "GP311", "Tanh", "hidden = tf.tanh(x @ W + B)", ["w", "b"]),
    ],
)
def test_plain_functions(function: Any, code: str, op: str, line: str, starves: list[str]) -> None:
    for target in (function, tf.function(function), tf.function(function).get_concrete_function(tf.constant(X))):
        report = gp.probe(target, tf.constant(X))
        assert codes(report) == [code]
        (found,) = report.findings
        assert (found.op, sorted(found.starves)) == (op, sorted(starves))
        assert found.source is not None and found.source.line == line_of(line)
        assert found.source.text == line


@pytest.mark.parametrize(
    ("function", "mask", "op", "said"),
    [
        (probed.masked_by_lengths, [0] * 8, "Mul", "multiplies by `SequenceMask/"),
        (probed.selected, [False] * 8, "GatherV2", "selects nothing"),
        (probed.taken, [False] * 8, "SelectV2", "takes nothing of this value"),
    ],
)
def test_masks_that_are_data(function: Any, mask: list[Any], op: str, said: str) -> None:
    report = gp.probe(function, X, np.asarray(mask))
    assert codes(report) == ["GP312"]
    (found,) = report.findings
    assert found.op == op and said in found.message and found.starves == ["w"]
    assert found.source is not None
    some = np.asarray(mask)
    some[0] = 1
    assert gp.probe(function, X, some).ok


def test_a_mask_that_is_an_input() -> None:
    w = tf.Variable(tf.ones([3, 2]), name="w")

    def loss(x: Any, mask: Any) -> Any:
        return tf.reduce_sum((x @ w) * mask)

    (found,) = gp.probe(loss, X, np.zeros((8, 2), "float32")).findings
    assert found.code == "GP312" and "multiplies by the input `mask`" in found.message


@BOTH
def test_a_loss_whose_weights_are_zeros(module: Any) -> None:
    model = probed.sequential(module, "relu", 0.0)
    model.compile("sgd", probed.weighted)
    (found,) = gp.probe(model, X, Y).findings
    assert found.code == "GP312" and found.op == "Mul" and len(found.starves) == 6
    assert found.source is not None and found.source.line == line_of("return tf.reduce_sum(each * weights)")


def test_the_branch_not_taken_and_the_norm_at_zero() -> None:
    zeros = np.zeros((2, 3), "float32")
    (found,) = gp.probe(probed.log_not_taken, zeros).findings
    assert (found.code, found.op) == ("GP401", "Log") and "6 of 6 places" in found.message
    assert found.source is not None and "tf.math.log" in found.source.text
    (found,) = gp.probe(probed.distance, X).findings
    assert (found.code, found.op, found.starves) == ("GP402", "Sqrt", ["w"])
    assert "0 in 1 of 1 place" in found.message


def test_a_value_that_is_no_number() -> None:
    w = tf.Variable([2.0, 3.0], name="w")
    (found,) = gp.probe(lambda x: tf.reduce_mean(tf.sqrt(w - x) * 2.0 + w), np.asarray([1.0, 9.0], "float32")).findings
    assert (found.code, found.op) == ("GP400", "Sqrt") and "numbers below 0" in found.message
    (found,) = gp.probe(lambda x: tf.reduce_sum(w * x), np.asarray([1.0, np.nan], "float32")).findings
    assert found.code == "GP400" and "is an input that holds NaN" in found.message
    (found,) = gp.probe(lambda x: tf.reduce_mean(w * x), np.zeros((0, 2), "float32")).findings
    assert (found.code, found.op) == ("GP400", "Mean") and "there is nothing to compute it of" in found.message


def test_a_division_by_zero_on_the_branch_not_taken() -> None:
    w = tf.Variable([0.0, 3.0], name="w")
    (found,) = gp.probe(lambda: tf.reduce_sum(tf.where(w > 0, 1.0 / w, 0.0))).findings
    assert (found.code, found.op) == ("GP401", "RealDiv")


@BOTH
def test_underflow_of_mixed_precision(module: Any) -> None:
    layers = module.layers
    model = module.Sequential(
        [layers.Input((3,)), layers.Dense(4, dtype="mixed_float16"), layers.Dense(2, dtype="float32")]
    )
    model.compile("sgd", lambda y, p: 1e-12 * tf.reduce_mean((y - p) ** 2))
    report = gp.probe(model, X, Y)
    assert codes(report) == ["GP313"]
    (found,) = report.findings
    assert found.op == "Cast" and "float16" in found.message and len(found.starves) == 2


@BOTH
def test_a_loss_scale_is_that_of_fit(module: Any) -> None:
    layers = module.layers
    model = module.Sequential([layers.Input((3,)), layers.Dense(2, dtype="mixed_float16")])

    def small(y: Any, p: Any) -> Any:
        return 1e-9 * tf.reduce_mean((tf.cast(y, tf.float32) - tf.cast(p, tf.float32)) ** 2)

    model.compile("sgd", small)
    assert codes(gp.probe(model, X, Y)) == ["GP313"]
    kind = getattr(module, "mixed_precision", None) or module.optimizers
    model.compile(kind.LossScaleOptimizer(module.optimizers.SGD()), small)
    report = gp.probe(model, X, Y)
    assert report.ok
    norms = [row.gradient.norm for row in report.variables if row.gradient]
    assert report.layers[0].weights is not None
    np.testing.assert_allclose(report.layers[0].weights.norm, np.hypot(*norms), rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = 1e9 * small(Y, model(X))
    exact = tape.gradient(loss, plain(model.trainable_variables[0])).numpy()
    assert report.variables[0].gradient is not None
    np.testing.assert_allclose(report.variables[0].gradient.norm, 1e-9 * np.linalg.norm(exact), rtol=0.02)  # float16


def test_vanishing_over_depth() -> None:
    def deep(activation: str) -> Any:
        layers = [keras.layers.Dense(16, activation) for _ in range(14)]
        model = keras.Sequential([keras.layers.Input((3,)), *layers, keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        return model

    keras.utils.set_random_seed(0)
    (found,) = gp.probe(deep("sigmoid"), X, Y).findings
    assert found.code == "GP314" and "sequential" in found.message and found.affects and not found.starves
    assert gp.probe(deep("relu"), X, Y).ok


def test_zero_weights_are_a_note_where_they_move_themselves() -> None:
    w, gate = tf.Variable([1.0, 2.0], name="w"), tf.Variable([0.0, 0.0], name="gate")
    report = gp.probe(lambda: tf.reduce_sum((gate * w + 1.0) ** 2))
    assert report.ok and codes(report) == ["GP317"]
    assert "`gate`, which is all zeros" in report.findings[0].message and report.findings[0].starves == ["w"]


def test_mostly_dead_is_a_note() -> None:
    start = keras.initializers.Constant([0.0] + [FAR] * 29)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(30, "relu", bias_initializer=start)])
    report = gp.probe(model, np.ones((8, 3)))
    assert report.ok and codes(report) == ["GP315"]
    assert "29 of 30 units off" in report.findings[0].message or "30 of 30" in report.findings[0].message


def test_none_is_left_to_check() -> None:
    w, lost = tf.Variable([1.0, 2.0], name="w"), tf.Variable([0.3], name="lost")
    report = gp.probe(lambda: tf.reduce_sum(w * 2.0) + tf.reduce_sum(tf.round(lost)))
    assert report.severed == ["lost"] and report.ok
    assert "1 of them gets None (`lost`)" in str(report) and "gradpass.check tells why" in str(report)


def test_of_several_readers_only_the_guilty_one_is_blamed() -> None:
    w = tf.Variable([0.0, 1.0], name="w")

    def loss() -> Any:
        shared = 2.0 * w
        return tf.reduce_sum(tf.where(shared > 0, tf.math.log(shared), 0.0)) + tf.reduce_sum(shared * shared)

    (found,) = gp.probe(loss).findings
    assert (found.code, found.op) == ("GP401", "Log")
    # One reader that is off starves nobody while another is not.
    assert gp.probe(lambda: tf.reduce_sum(tf.nn.relu(w - 9.0)) + tf.reduce_sum(w * 2.0)).findings == []


def test_gradients_that_cancel() -> None:
    w = tf.Variable([1.0, 2.0], name="w")
    (found,) = gp.probe(lambda: tf.reduce_sum(w * 2.0 - w * 2.0)).findings
    assert found.code == "GP316" and "add up to 0" in found.message


def test_statistics_are_those_of_numpy() -> None:
    array = np.asarray([[0.0, -3.0, 4.0], [np.nan, np.inf, 0.0]], "float32")
    stats = read(measure(tf.constant(array)))
    assert (stats.size, stats.zeros, stats.nans, stats.infinite, stats.largest, stats.norm) == (6, 2, 1, 1, 4.0, 5.0)
    assert (stats.zero_share, stats.nan_share, stats.inf_share) == (2 / 6, 1 / 6, 1 / 6)
    big = np.asarray([3e38, 3e38], "float32")  # whose squares float32 does not hold
    np.testing.assert_allclose(read(measure(tf.constant(big))).norm, np.linalg.norm(big.astype("float64")), rtol=1e-6)
    empty = read(measure(tf.zeros([0, 3])))
    assert (empty.size, empty.norm, empty.all_zero) == (0, 0.0, False)
    slices = tf.IndexedSlices(tf.constant([[1.0, 2.0], [3.0, -2.0]]), tf.constant([4, 4]), tf.constant([10, 2]))
    stats = read(measure(slices))
    assert (stats.size, stats.zeros, stats.largest, stats.norm) == (20, 19, 4.0, 4.0)


@pytest.mark.parametrize("make", [probed.sequential, probed.functional])
def test_numbers_of_a_probe_are_those_of_a_tape(make: Any) -> None:
    model = make(keras, "relu", 0.0)
    model.compile("sgd", "mse")
    report = gp.probe(model, X, Y)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((Y - model(X)) ** 2)
    gradients = tape.gradient(loss, [plain(v) for v in model.trainable_variables])
    np.testing.assert_allclose(report.loss.largest, loss.numpy(), rtol=1e-6)
    for row, gradient in zip(report.variables, gradients, strict=True):
        values = gradient.numpy()
        assert row.gradient is not None
        assert (row.gradient.size, row.gradient.zeros) == (values.size, (values == 0).sum())
        np.testing.assert_allclose(row.gradient.norm, np.linalg.norm(values), rtol=1e-5)
        np.testing.assert_allclose(row.gradient.largest, np.abs(values).max(), rtol=1e-5)
    hidden = keras.Model(model.inputs, model.get_layer("first").output)(X).numpy()
    first = next(row for row in report.layers if row.name.endswith("first"))
    np.testing.assert_allclose(first.activation.norm, np.linalg.norm(hidden), rtol=1e-5)
    assert first.weights is not None
    norms = [np.linalg.norm(g.numpy()) for g in gradients[:2]]
    np.testing.assert_allclose(first.weights.norm, np.hypot(*norms), rtol=1e-5)


class Counted(run.Pass):
    """Keeps what a pass made."""

    made: list[tuple[run.Pass, dict[str, Any]]] = []  # noqa: RUF012

    def outputs(self) -> dict[str, Any]:
        found = super().outputs()
        self.made.append((self, found))
        return found


def test_there_is_one_backward_pass_and_a_few_numbers_of_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    gradients = tf.gradients

    def counted(ys: Any, xs: Any, *rest: Any) -> Any:
        calls.append(len(xs))
        return gradients(ys, xs, *rest)

    monkeypatch.setattr(run, "Pass", Counted)
    monkeypatch.setattr(tf, "gradients", counted)
    model = probed.sequential(keras, "relu", 0.0)
    gp.probe(model, X)
    assert len(calls) == 1 and calls[0] > 10
    made, left = Counted.made[-1]
    graph = made.links.between[0].graph
    products = [op for op in graph.get_operations() if op.type == "MatMul"]
    # 3 forward; backward one for each kernel and one for what it is multiplied by.
    assert len(products) == 3 + 3 + 3
    assert all(t.shape.num_elements() == 6 * t.shape[0] for t in (left["values"], left["gradients"], left["edges"]))
    assert all(t.shape.rank == 0 for each in left["figures"] for t in each)


def test_it_is_run_once() -> None:
    w, runs = tf.Variable([1.0], name="w"), []

    def loss() -> Any:
        tf.py_function(lambda: runs.append(1), [], [])
        return tf.reduce_sum(w * w)

    gp.probe(loss, variables=[w])
    assert runs == [1]


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (probed.calling, "return tf.nn.relu(tf.nn.silu(x @ W) * 0.0 + x @ W + B)"),
        (probed.calling_converted, "return tf.nn.relu(x @ W + B)"),  # by autograph: its body has an `if`
    ],
)
def test_called_functions_are_looked_into(function: Any, line: str) -> None:
    report = gp.probe(function, X)
    (found,) = report.findings
    assert (found.code, found.op) == ("GP310", "Relu")
    assert found.source is not None and found.source.line == line_of(line)
    assert not any("Call" in each for each in report.whole)
    for before in (True, False):
        tf.config.run_functions_eagerly(before)
        assert codes(gp.probe(function, X)) == ["GP310"] and tf.config.functions_run_eagerly() == before


def test_what_has_a_custom_gradient_and_needs_autograph_is_a_whole() -> None:
    for target in (probed.nested, probed.nested.get_concrete_function(tf.constant(X))):
        report = gp.probe(target, tf.constant(X))
        (found,) = report.findings
        assert found.code == "GP316" and sorted(found.starves) == ["b", "v", "w"]
        assert any("PartitionedCall" in each for each in report.whole)
        assert "probed as a whole" in str(report) and "somewhere inside" in str(report)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name, bias in (("dead", FAR), ("live", 1.0)):
        module = probed.Branching(bias)
        options = tf.saved_model.SaveOptions(save_debug_info=True)
        tf.saved_model.save(module, str(folder / name), module.serve, options)
    return folder


def test_a_file_is_looked_into(saved: Path) -> None:
    x = np.ones((2, 3), "float32")
    (found,) = gp.probe(saved / "dead", x).findings
    assert (found.code, found.op, sorted(found.starves)) == ("GP310", "Relu", ["b", "k", "w"])
    assert found.source is not None and found.source.line == line_of("return tf.nn.relu(x @ self.w + self.b)")


def test_numbers_of_a_file_are_those_of_its_source(saved: Path) -> None:
    # Of a loaded loop in a loop a tape gives zeros.
    x, module = np.ones((2, 3), "float32"), probed.Branching(1.0)
    with tf.GradientTape() as tape:
        loss = module.serve(x)["y"]
    expected = {
        v.name.removesuffix(":0"): np.linalg.norm(g.numpy())
        for v, g in zip(module.trainable_variables, tape.gradient(loss, module.trainable_variables), strict=True)
    }
    calls = module.calls.numpy()
    for report in (
        gp.probe(saved / "live", x),
        gp.probe(module.serve, x),
        gp.probe(module.serve.get_concrete_function(), tf.constant(x)),
    ):
        assert report.ok
        found = {row.name: row.gradient.norm for row in report.variables if row.gradient}
        assert found.keys() == expected.keys()
        for name, norm in found.items():
            np.testing.assert_allclose(norm, expected[name], rtol=1e-5)
    assert module.calls.numpy() == calls


def test_calls_that_are_laid_out_keep_their_order() -> None:
    module = probed.Counting()
    report = gp.probe(module.__call__.get_concrete_function())
    (row,) = report.variables
    assert row.gradient is not None and row.gradient.largest == 5.0 and module.scale.numpy() == 1.0


def test_without_variables_the_inputs_are_asked() -> None:
    report = gp.probe(lambda x: tf.reduce_sum(tf.nn.relu(x - 100.0)), X)
    assert [row.name for row in report.variables] == ["x"] and codes(report) == ["GP310"]
    assert "`x` gets zeros" in report.findings[0].message


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        (probed.dead, (tf.TensorSpec([8, 3]),), "give arrays or tensors, not a tf.TensorSpec"),
        (lambda x: tf.argmax(x, axis=-1), (X,), "no float output that could be differentiated"),
        (lambda x: x * float(x), (X,), "cannot be traced"),
        (lambda x: tf.reshape(x, [7]), (tf.constant(X),), "cannot be traced"),
        (lambda x: tf.reshape(x, tf.cast(x[0, :1] * 0 + 7, tf.int32)), (X,), "cannot be run"),
    ],
)
def test_refusals(target: Any, inputs: Any, message: str) -> None:
    with pytest.raises(gp.GradpassError, match=message) as caught:
        gp.probe(target, *inputs)
    assert "\n" not in str(caught.value)


def test_the_page_of_the_docs_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "probe.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    assert codes(names["report"]) == ["GP310"]
    told = set(re.findall(r"\[(GP\d+)\]", page))
    assert told == {code for code, each in all_codes().items() if each.live and "gp.probe" in each.live}


def test_json_and_html() -> None:
    model = probed.sequential(keras, "relu", FAR)
    report = gp.probe(model, X)
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert [row["name"] for row in told["variables"]] == [v.path for v in model.trainable_variables]
    assert told["findings"][0]["code"] == "GP310" and told["layers"][0]["gradient"]["zero_share"] == 1.0
    from gradpass.report.json import schema

    whole = schema()
    jsonschema.validate(told["findings"][0], {"$ref": "#/$defs/diagnostic", "$defs": whole["$defs"]})
    html = report._repr_html_()
    assert html.count("<rect") == len(report.layers) and "GP310" in html and "gp-bad" in html
    assert "first" in str(report) and "zeros" in str(report) and "█" in str(report)
