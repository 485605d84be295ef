"""Order 2: the table of second derivatives, and the verdict, against TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings

from gradpass import check
from gradpass.errors import GradpassError, TargetError
from gradpass.flow import derivative, edges
from gradpass.flow.second import follow_second
from gradpass.program import opdefs
from gradpass.program.savedmodel import read
from gradpass.report.json import schema
from tests.flow import second_truth, truth
from tests.flow.second_programs import CONTROL, PLAIN, resized
from tests.flow.test_edges import LIVE, SCRIPTS, attrs
from tests.models import save
from tests.random_graphs import COLS, ROWS, Graph, Module, graphs, run

INSTALLED = ".".join(metadata.version("tensorflow").split(".")[:2])


@pytest.fixture(params=derivative.versions())
def table(request: pytest.FixtureRequest) -> edges.EdgeTable:
    return derivative.table(request.param)


@pytest.mark.parametrize(
    "op, expected",
    [
        ("AddV2", ("...f", "...f")),
        ("Mul", (".f.f", "f..f")),
        ("Tanh", (".ff",)),
        ("Relu", (".0f",)),
        ("MatMul", (".f.f", "f..f")),
        ("IdentityN", ("..d",)),
        ("Softplus", ("f.f",)),
        ("ResizeBicubic", ("r..r ResizeBicubicGrad", None)),
        ("ResizeBilinear", ("...n ResizeBilinearGrad", None)),
    ],
)
def test_facts(table: edges.EdgeTable, op: str, expected: tuple[str | None, ...]) -> None:
    assert table.edges(op, attrs(T="DT_FLOAT")) == expected


def test_attributes_that_decide(table: edges.EdgeTable) -> None:
    assert table.edges("ResizeBicubic", attrs(T="DT_HALF")) == (None, None)
    inference = table.edges("FusedBatchNormV3", attrs(is_training=False))
    training = table.edges("FusedBatchNormV3", attrs(is_training=True))
    assert inference is not None and training is not None
    # In training the statistics are made of the data.
    assert (inference[0] or "")[0] == "0" and (training[0] or "")[0] == "f"


def test_every_row_reads(table: edges.EdgeTable) -> None:
    for op in table.names():
        signature = opdefs.get(op, table.version)
        assert signature is not None and not table.cases(op)[-1].when
        for case in table.cases(op):
            assert case.edges is not None and len(case.edges) == len(signature.inputs)
            for fact in case.edges:
                letters, _, missing = (fact or "").partition(" ")
                assert fact is None or len(letters) == len(signature.inputs) + 2 * len(signature.outputs)
                assert set(letters) <= set(".f0doFZrn") and bool(missing) == bool(set(letters) & set("FZrn"))


def test_there_is_a_table_for_every_version() -> None:
    assert derivative.versions() == edges.versions()


@pytest.fixture
def scripts() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


PROBED = frozenset(
    {"Exp", "MatMul", "Relu", "ResizeBicubic", "ResizeBilinear", "Svd", "IdentityN", "FusedBatchNormV3", "Pow", "While"}
)


@pytest.mark.usefixtures("scripts")
def test_a_new_probe_finds_the_same() -> None:
    from probe_second import second_rows

    rows = second_rows(PROBED)
    assert sorted(rows) == sorted(PROBED - {"While"})
    assert rows == {op: derivative.table(INSTALLED).row(op) for op in rows}


def single(op: str) -> bool:
    """Whether an op has a derivative in the table, and no lists, which programs test."""
    signature = opdefs.get(op)
    assert signature is not None
    known = op in derivative.table(INSTALLED).names()
    return known and all(arg.single for arg in (*signature.inputs, *signature.outputs))


ONCE = [(op, inputs, given) for op, inputs, given in LIVE if single(op)]


@pytest.mark.parametrize("op, inputs, given", ONCE, ids=[f"{op}-{i}" for i, (op, _, _) in enumerate(ONCE)])
def test_tf_gradients_says_the_same(op: str, inputs: dict[str, Any], given: dict[str, Any]) -> None:
    """The whole derivative of a gradient by each input, through the outputs too, and by each cotangent."""
    with tf.Graph().as_default():
        fed = {name: _tensor(value) for name, value in inputs.items()}
        result = getattr(tf.raw_ops, op)(**fed, **given)
        node = tf.nest.flatten(result)[0].op
        first, second = (of.table(INSTALLED).edges(op, node.node_def.attr.__getitem__) for of in (edges, derivative))
        signature = opdefs.get(op)
        assert first is not None and second is not None and signature is not None
        ys = [y for y in node.outputs if y.dtype.is_floating]
        seeds = [tf.compat.v1.placeholder(y.dtype, y.shape) for y in ys]
        xs = list(fed.values())  # in the order of the signature
        if not ys:
            assert set(first) == {None}  # nobody asks an integer
            return
        places = [i for i, y in enumerate(node.outputs) if y.dtype.is_floating]
        for x, fact in zip(tf.gradients(ys, xs, seeds), second, strict=True):
            if fact is None:
                continue
            letters, _, missing = fact.partition(" ")
            if "r" in letters:
                with pytest.raises(LookupError, match=missing):
                    tf.gradients(x, seeds)
                continue
            width = len(xs) + len(node.outputs)
            inward, outward, seeded = letters[: len(xs)], letters[len(xs) : width], letters[width:]
            # Through an output it goes where the op itself has a gradient.
            through = [
                any(outward[p] in "f0" and (first[i] or "")[p : p + 1] != "" for p in places) for i in range(len(xs))
            ]
            expected = [inward[i] in "f0" or through[i] for i in range(len(xs))]
            answers = tf.gradients(tf.convert_to_tensor(x), [*xs, *seeds])
            floats = [v.dtype.is_floating for v in xs]
            assert [a is not None for a in answers[: len(xs)]] == [
                e and f for e, f in zip(expected, floats, strict=True)
            ]
            assert [a is not None for a in answers[len(xs) :]] == [seeded[p] in "f0" for p in places]


def _tensor(value: Any) -> Any:
    constant = tf.constant(value)
    return tf.compat.v1.placeholder_with_default(constant, constant.shape) if constant.dtype.is_floating else constant


@pytest.fixture(scope="module", params=["plain", "control"])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bodies = {"plain": PLAIN, "control": CONTROL}[request.param]
    path = tmp_path_factory.mktemp(request.param) / "m"
    return truth.save(path, {_key(name): body for name, body in bodies.items()}, experimental_custom_gradients=True)


def _key(name: str) -> str:
    return name.replace(" ", "_").replace(":", "")


def test_verdicts_are_tensorflows(programs: Path) -> None:
    """State by nested tapes over the loaded signature in a fresh process, structure by tf.gradients of tf.gradients."""
    answers = second_truth.ask(programs)
    model = read(programs)
    wrong = {}
    for entry in model.entries:
        (verdict,) = follow_second(model, entry)
        for target in verdict.targets:
            told, true = [target.state, target.structure], answers[entry][target.path]
            # Which branch runs is a matter of data: in the other one a derivative is zero by data.
            by_data = true == ["zero", "flows"] and told == ["flows", "flows"] and "case" in entry
            if target.captured and told != true and not by_data:
                wrong[entry, target.path] = told, true
    assert not wrong


class Bent(Module):
    """A random program whose outputs are made non-linear."""

    @tf.function(input_signature=[tf.TensorSpec([ROWS, COLS], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        outputs = run(self.graph, [self.a, self.b], x, flat=False)
        return {f"y{i}": y * tf.tanh(y) if i else y for i, y in enumerate(outputs)}


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_random_graph(graph: Graph) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        judge(graph, folder)
    finally:
        shutil.rmtree(folder)


def judge(graph: Graph, folder: Path) -> None:
    """One random graph, whose loaded function is differentiated in this process: it has no custom gradient."""
    source = save(Bent(graph), folder / "m")
    (verdict,) = follow_second(read(source))
    loaded = tf.saved_model.load(str(source))
    function, variables = loaded.signatures["serving_default"], [loaded.a, loaded.b]
    structures = second_truth.structure(function, variables)
    states = second_truth.state(function, variables)
    told = {t.name: (t.state, t.structure) for t in verdict.targets if t.captured}
    for name, state, structure in zip("ab", states, structures, strict=True):
        if name in told:
            assert told[name][1] == structure, (name, told, structures)
            # A ReLU that is off, or a branch that is not taken, gives zeros by data.
            by_data = told[name][0] == "flows" and state == "zero"
            assert told[name][0] == state or by_data, (name, told, states)


class Scorer(tf.Module):
    """w (x v): each linear, their product not."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.v = tf.Variable(np.ones([4, 3]), dtype=tf.float32, name="v")
        self.w = tf.Variable(np.ones([4, 3]), dtype=tf.float32, name="w")
        self.body = body

    @tf.function(input_signature=[tf.TensorSpec([4, 3], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": self.body(self, x)}


def saved(body: Any, path: Path) -> Path:
    return save(Scorer(body), path)


def codes(path: Path) -> list[tuple[str, str | None, list[str], list[str]]]:
    return [
        (d.code, d.node and d.node.rpartition("/")[2], d.starves, d.raises) for d in check(path, order=2).diagnostics
    ]


def test_what_is_said_of_a_missing_derivative(tmp_path: Path) -> None:
    path = saved(lambda m, x: resized(m.v, "bicubic") ** 2 + tf.reduce_sum(m.w), tmp_path / "m")
    report = check(path, order=2)
    assert codes(path) == [
        ("GP116", "ResizeBicubic", ["v"], ["v", "w"]),
        ("GP206", None, ["w"], []),
    ]
    assert "(ResizeBicubicGrad)" in report.diagnostics[0].message
    assert report.exit_status == 1 and check(path).exit_status == 0


def test_what_is_said_of_one_that_ends_in_silence(tmp_path: Path) -> None:
    path = saved(lambda m, x: resized(m.v, "bilinear") ** 2 + m.w[0, 0] ** 2, tmp_path / "m")
    (found,) = check(path, order=2).diagnostics
    assert (found.code, found.op, found.starves) == ("GP117", "ResizeBilinear", ["v"])


def test_a_linear_model_is_no_error(tmp_path: Path) -> None:
    path = saved(lambda m, x: x * m.v + m.w, tmp_path / "m")
    report = check(path, order=2)
    assert codes(path) == [("GP206", None, ["v", "w"], [])]
    assert report.ok and {t.structure for t in report.targets} == {"none"}
    assert " parameters, in the gradient of the gradient\n" in str(report)


def test_a_target_without_a_gradient_keeps_the_reason_for_that(tmp_path: Path) -> None:
    path = saved(lambda m, x: tf.tanh(tf.round(m.v)) * m.w**2, tmp_path / "m")
    assert codes(path) == [(check(path).diagnostics[0].code, "Round", ["v"], [])]


def test_variables_of_one_name_are_told_apart(tmp_path: Path) -> None:
    module = tf.Module()
    module.a, module.b, module.c = (tf.Variable(1.0, name=name) for name in ("w2", "w", "w"))
    serve = tf.function(lambda: module.a**3 + module.b + module.c, input_signature=[], autograph=False)
    tf.saved_model.save(module, str(tmp_path), serve)
    assert {t.path: t.structure for t in check(tmp_path, order=2).targets} == {"a": "flows", "b": "none", "c": "none"}


def test_relu_is_a_note(tmp_path: Path) -> None:
    path = saved(lambda m, x: tf.nn.relu(x * m.v) + m.w**2, tmp_path / "m")
    assert codes(path) == [("GP303", "Relu", ["v"], [])] and check(path, order=2).ok


def test_targets_are_differentiated_by_each_other(tmp_path: Path) -> None:
    """The gradient by x is linear in v: v has a second derivative only where x is a target too."""
    path = saved(lambda m, x: x * m.v + m.w, tmp_path / "m")
    structures = {t.name: t.structure for t in check(path, order=2, wrt="both").targets}
    assert structures == {"v": "flows", "w": "none", "x": "flows"}


def test_no_tensorflow_is_imported(tmp_path: Path) -> None:
    path = saved(lambda m, x: tf.tanh(m.v * x) * m.w, tmp_path / "m")
    source = (
        "import sys\nfrom gradpass.cli import main\n"
        f"status = main(['check', {str(path)!r}, '--order', '2', '--format', 'json'])\n"
        "assert status == 0 and 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    jsonschema.validate(told, schema())
    assert told["summary"]["flows"] == 2 and told["order"] == 2


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    """A loop of TensorFlow 1, and a Python function whose derivative is Python too."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [], "x")
        tf.compat.v1.disable_control_flow_v2()
        try:
            tf.while_loop(lambda s: s < 9.0, lambda s: s * x, [x])
        finally:
            tf.compat.v1.enable_control_flow_v2()
    frozen = tmp_path / "frozen.pb"
    frozen.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(TargetError, match="loop of TensorFlow 1"):
        check(frozen, order=2)
    path = saved(lambda m, x: tf.py_function(lambda a: a * a, [m.v], tf.float32), tmp_path / "m")
    with pytest.raises(TargetError, match="EagerPyFunc"):
        check(path, order=2)
    with pytest.raises(GradpassError, match="1 or 2"):
        check(path, order=3)  # type: ignore[arg-type]
