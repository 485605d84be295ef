"""The hands that do not know each other: all agree on a repair, and each planted fault is found by those it is for."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.api import fix_file
from gradpass.crosscheck import crosscheck
from gradpass.crosscheck.autodiff import VARIABLE
from gradpass.crosscheck.surrogates import Surrogates
from gradpass.errors import GradpassError
from gradpass.program import savedmodel
from gradpass.proof import compare
from gradpass.report.repair import CheckRow
from gradpass.rewrite import harden
from gradpass.rewrite.build import Recipe
from gradpass.rewrite.fix import repair

from .conftest import Save, severed

ALL = ["values", "onnx-original", "onnx-fixed", "verdict", "derivative", "autodiff", "schema", "worth"]
STAND_IN = Path(__file__).with_name("differences_python.py")


@pytest.fixture(scope="module", autouse=True)
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Python that answers as one with onnxruntime-training, unless there is a real one."""
    if os.environ.get(VARIABLE):
        yield
        return
    script = tmp_path_factory.mktemp("python") / "python"
    script.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(script))
        yield


@pytest.fixture(scope="module")
def hard(save: Save) -> Path:
    return save(lambda x, w, c: {"y": severed(x, w, c)["y"]})


@pytest.fixture(scope="module")
def mended(hard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    fixed = tmp_path_factory.mktemp("fixed") / "model"
    assert fix_file(hard, fixed, cross_check=False).ok
    return fixed


def rows(original: Path, fixed: Path, **options: Any) -> dict[str, CheckRow]:
    return {row.name: row for row in compare(original, fixed, **options).crosscheck}


def failed(found: dict[str, CheckRow]) -> set[str]:
    return {name for name, row in found.items() if row.status == "failed"}


def test_all_hands_agree_on_a_repair(hard: Path, mended: Path) -> None:
    found = rows(hard, mended)
    assert list(found) == ALL
    assert {name: row.reason for name, row in found.items() if row.status != "passed"} == {}
    assert all(row.limit_from and row.seconds is not None and row.limit is not None for row in found.values())
    assert found["derivative"].limit == 1e-3 and (found["derivative"].figure or 1.0) < 1e-5
    assert (found["autodiff"].figure or 1.0) < 1e-3
    assert "one export serves for both" in (found["onnx-fixed"].reason or "")
    assert "judged" in (found["worth"].reason or "")


@pytest.mark.parametrize("options", [{"carrier": "sum"}, {"mode": "soft"}, {"temperature": 0.25}], ids=str)
def test_all_hands_agree_however_it_is_carried(hard: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    fix_file(hard, tmp_path / "f", cross_check=False, **options)
    found = rows(hard, tmp_path / "f", mode=options.get("mode", "straight-through"))
    assert failed(found) == set()
    assert [found[name].status for name in ("verdict", "derivative", "autodiff", "schema")] == ["passed"] * 4


def changed_gradient(change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Recipe.gradients
    monkeypatch.setattr(Recipe, "gradients", lambda *args: [change(g) for g in honest(*args)])


def test_a_wrong_sign_in_a_derivative(hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_gradient(lambda g: -g, monkeypatch)
    fix_file(hard, tmp_path / "f", cross_check=False)
    monkeypatch.undo()
    found = rows(hard, tmp_path / "f")
    # Whoever climbs where it should go down, goes nowhere too.
    assert failed(found) == {"derivative", "autodiff", "worth"} - unavailable(found)
    assert "w by" in (found["derivative"].reason or "")
    assert (found["derivative"].figure or 0) > 0.1


def unavailable(found: dict[str, CheckRow]) -> set[str]:
    return {"autodiff"} if found["autodiff"].status == "skipped" else set()


def test_a_wrong_factor_in_a_derivative(hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_gradient(lambda g: 1.05 * g, monkeypatch)
    fix_file(hard, tmp_path / "f", cross_check=False)
    monkeypatch.undo()
    found = rows(hard, tmp_path / "f")
    assert failed(found) == {"derivative", "autodiff"} - unavailable(found)
    assert 0.001 < (found["derivative"].figure or 0) < 0.1


def test_one_ulp_in_the_forward_pass(hard: Path, mended: Path, tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(hard))

    def shifted(module: Any, by: float) -> Path:
        run = loaded.signatures["serving_default"]
        module.w, module.codebook = loaded.w, loaded.codebook
        module.run = tf.function(
            lambda x: {"y": run(x=x)["y"] * by}, input_signature=[tf.TensorSpec([None, 5], tf.float32, "x")]
        )
        path = tmp_path / str(by)
        tf.saved_model.save(module, str(path), signatures=module.run)
        return path

    one = shifted(tf.Module(), 3.0)
    other = shifted(tf.Module(), float(np.nextafter(np.float32(3), np.float32(4))))
    fix_file(other, tmp_path / "f", cross_check=False)
    assert failed(rows(one, tmp_path / "f")) == {"values"}


def test_a_path_that_is_left_severed(hard: Path) -> None:
    answers = crosscheck(
        hard,
        hard,
        entries=["serving_default"],
        promised={"serving_default": ["w"]},
        mode="straight-through",
        surrogates=Surrogates(),
    )
    found = {answer.name: answer for answer in answers}
    assert {name for name, answer in found.items() if answer.status == "failed"} == {"verdict", "autodiff", "schema"}
    assert found["autodiff"].reason == "the second autodiff gives no gradient to w"
    assert found["schema"].reason == "cut off by the categories of the schemas: w"


def test_a_surrogate_without_its_gradient(hard: Path, mended: Path, tmp_path: Path) -> None:
    """The soft graph has a path that the fixed model has not: severed, by other hands than TensorFlow's None."""
    soft = repair(savedmodel.read(hard), carrier="sum")
    answers = crosscheck(
        hard,
        hard,
        entries=["serving_default"],
        promised={"serving_default": ["w"]},
        mode="straight-through",
        surrogates=Surrogates(pb=soft.pb),
    )
    found = {answer.name: answer for answer in answers}
    assert {"verdict", "derivative"} <= {name for name, answer in found.items() if answer.status == "failed"}
    assert found["derivative"].figure == pytest.approx(1.0)
    assert found["schema"].status == "passed"


def waves(x: tf.Tensor, w: tf.Variable, c: tf.Variable) -> dict[str, tf.Tensor]:
    """Rounded, then through a function that is flat at whole numbers, and steep in between."""
    turns = tf.round(3.0 * w)
    wave = tf.sin(2.0 * np.pi * turns)
    return {"y": tf.matmul(x, turns + 20.0 * wave[::-1])}


def test_a_surrogate_orthogonal_to_the_truth(save: Save, tmp_path: Path) -> None:
    original = save(waves)
    fix_file(original, tmp_path / "f", cross_check=False)
    report = compare(original, tmp_path / "f")
    found = {row.name: row for row in report.crosscheck}
    assert failed(found) == {"worth"}
    (finding,) = [d for d in report.left.diagnostics if d.code == "GP600"]
    assert finding.affects == ["w"] and finding.op == "Round" and finding.severity == "warning"
    assert report.exit_status == 1


def test_a_worthless_surrogate_writes_nothing(save: Save, tmp_path: Path) -> None:
    report = fix_file(save(waves), tmp_path / "f")
    assert report.output is None and not (tmp_path / "f").exists()
    assert [row.name for row in report.failed] == ["worth"]
    assert "GP600" in {d.code for d in report.left.diagnostics}


def test_a_better_temperature_is_told(save: Save, tmp_path: Path) -> None:
    """Two scores compete, one by large numbers and one by small: far too hot, only the large ones are felt."""

    def build(x: tf.Tensor, w: tf.Variable, c: tf.Variable) -> dict[str, tf.Tensor]:
        flat = tf.reshape(w, [-1])
        far = tf.cast(1e3 * flat[:4] > 1e6, tf.float32)  # no disturbance reaches this threshold
        near = tf.cast(flat[4:8] > 0.0, tf.float32)
        return {"y": tf.reduce_sum(x) + 100.0 * tf.reduce_sum(far) * tf.ones([3]) + tf.reduce_sum(near) * tf.ones([3])}

    original = save(build)
    fix_file(original, tmp_path / "f", cross_check=False, temperature=1e6, absolute_temperature=True)
    report = compare(original, tmp_path / "f")
    (worth,) = (row for row in report.crosscheck if row.name == "worth")
    assert worth.status == "failed", worth
    (finding,) = [d for d in report.left.diagnostics if d.code == "GP600"]
    assert "--temperature" in finding.help
    better = float(finding.help.split()[1].rstrip("`"))
    fix_file(original, tmp_path / "g", cross_check=False, temperature=better, absolute_temperature=True)
    assert rows(original, tmp_path / "g")["worth"].status == "passed"


def test_a_signature_that_changed_its_dtype(hard: Path, mended: Path, tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(mended))
    module = tf.Module()
    module.w, module.codebook = loaded.w, loaded.codebook
    run = loaded.signatures["serving_default"]
    module.run = tf.function(
        lambda x: {"y": tf.cast(run(x=x)["y"], tf.float64)}, input_signature=[tf.TensorSpec([None, 5], name="x")]
    )
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(tmp_path / "f"), signatures=module.run, options=options)
    found = rows(hard, tmp_path / "f")
    assert failed(found) == {"values"}
    assert "float64" in (found["values"].reason or "")


def test_an_exporter_that_drops_an_op(hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fix_file(hard, tmp_path / "f", cross_check=False, carrier="sum")
    from gradpass.crosscheck import onnx_values

    honest = onnx_values.to_onnx

    def dropping(tools: Any, frozen: Any) -> Any:
        model = honest(tools, frozen)
        last = model.graph.node[-1]
        if last.op_type == "Sub":  # the sum of the carrier: the original has none
            last.op_type = "Identity"
            del last.input[0]
        onnx.checker.check_model(model)
        return model

    monkeypatch.setattr(onnx_values, "to_onnx", dropping)
    assert failed(rows(hard, tmp_path / "f")) == {"onnx-fixed"}


def test_a_fixed_model_tells_by_which_options(hard: Path, tmp_path: Path) -> None:
    fix_file(hard, tmp_path / "f", cross_check=False, temperature=0.5, kernel="gaussian")
    told = harden.options((tmp_path / "f" / "saved_model.pb").read_bytes())
    assert told is not None and (told["temperature"], told["kernel"], told["carrier"]) == (0.5, "gaussian", "bridge")
    loaded = gp.load(tmp_path / "f")
    loaded.temperature.assign(2.0)
    loaded.save(tmp_path / "hot")
    assert harden.options((tmp_path / "hot" / "saved_model.pb").read_bytes()) == told
    assert rows(hard, tmp_path / "hot")["derivative"].status == "passed"  # at the temperature that it has now


def test_without_its_options_the_soft_graph_is_not_known(hard: Path, mended: Path, tmp_path: Path) -> None:
    shutil.copytree(mended, tmp_path / "f")
    pb = tmp_path / "f" / "saved_model.pb"
    pb.write_bytes(harden.without_record(pb.read_bytes()))
    found = rows(hard, tmp_path / "f")
    assert {found[name].status for name in ("derivative", "autodiff", "schema")} == {"skipped"}
    assert found["derivative"].reason == "the fixed model does not tell by which options it was repaired"
    assert found["worth"].status == "passed"  # the gradient itself, and the hard model, are there


def test_a_frozen_graph(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([3, 5], name="x")])
    def run(x: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.range(7.0), tf.argmax(x, -1)) * tf.reduce_sum(x, -1)

    graph = run.get_concrete_function().graph.as_graph_def()
    (tmp_path / "m.pb").write_bytes(graph.SerializeToString())
    report = fix_file(tmp_path / "m.pb", tmp_path / "f.pb")
    assert "failed" not in {row.status for row in report.crosscheck}


def test_a_gradient_of_ones_own_is_no_fault(save: Save, tmp_path: Path) -> None:
    """FakeQuant passes the gradient on, though its values step: differences cannot agree, and say why."""
    original = save(
        lambda x, w, c: {
            "y": tf.gather(tf.quantization.fake_quant_with_min_max_args(c, -3.0, 3.0, 2), tf.argmax(x @ w, -1))
        }
    )
    fix_file(original, tmp_path / "f", cross_check=False)
    found = rows(original, tmp_path / "f")
    assert failed(found) == set()


def test_a_loop_is_skipped_with_its_reason(save: Save, tmp_path: Path) -> None:
    def looped(x: tf.Tensor, w: tf.Variable, c: tf.Variable) -> dict[str, tf.Tensor]:
        y = tf.zeros([5, 3])
        for _ in tf.range(3):
            y += tf.gather(c, tf.argmax(x @ w, -1))[:1] * tf.ones([5, 1])
        return {"y": y}

    original = save(looped)
    fix_file(original, tmp_path / "f", cross_check=False)
    found = rows(original, tmp_path / "f")
    assert failed(found) == set()
    assert "inside a loop" in (found["derivative"].reason or "")


def test_data_of_the_user(hard: Path, mended: Path) -> None:
    rng = np.random.default_rng(0)
    found = rows(hard, mended, data={"x": rng.normal(size=(11, 5))})
    assert failed(found) == set()
    with pytest.raises(GradpassError, match=r"the data are called z; the inputs of .* are: serving_default: x"):
        rows(hard, mended, data={"z": rng.normal(size=(11, 5))})
    with pytest.raises(GradpassError, match="the data are called z"):
        fix_file(hard, mended.parent / "never", data={"z": rng.normal(size=(11, 5))})


def test_data_that_show_what_random_inputs_do_not(save: Save) -> None:
    """The two differ for large sums only, which no random draw has."""
    one = save(lambda x, w, c: {"y": x @ w + 0.0 * tf.cast(tf.reduce_sum(x) > 900.0, tf.float32)})
    other = save(lambda x, w, c: {"y": x @ w + 1.0 * tf.cast(tf.reduce_sum(x) == 1000.0, tf.float32)})
    assert rows(one, other)["values"].status == "passed"
    data = {"x": np.full((2, 5), 100.0, np.float32)}
    assert rows(one, other, data=data)["values"].status == "failed"


@pytest.mark.parametrize("at", ["ties", "huge", "tiny", "denormal"])
def test_edges_are_looked_at(save: Save, at: str) -> None:
    """The two differ at one edge only."""
    differs: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
        "ties": lambda x: tf.reduce_all(x == tf.round(x)) & tf.reduce_any(x != 0.0) & tf.reduce_all(tf.abs(x) < 10.0),
        "huge": lambda x: tf.reduce_max(x) > 1e20,
        "tiny": lambda x: (tf.reduce_max(tf.abs(x)) < 1e-20) & (tf.reduce_max(tf.abs(x)) > 1e-35),
        "denormal": lambda x: (
            tf.reduce_any(tf.bitcast(x, tf.int32) & 0x7FFFFFFF != 0)
            & tf.reduce_all(tf.bitcast(x, tf.int32) & 0x7F800000 == 0)
        ),
    }
    one = save(lambda x, w, c: {"y": x @ w})
    other = save(lambda x, w, c: {"y": tf.where(differs[at](x), tf.ones([3, 4]), x @ w)})
    assert rows(one, other)["values"].status == "failed"


def test_random_samples_are_asked_nothing(save: Save, tmp_path: Path) -> None:
    original = save(lambda x, w, c: {"y": tf.gather(c, tf.random.categorical(x @ w, 1)[:, 0])})
    fix_file(original, tmp_path / "f", cross_check=False)
    found = rows(original, tmp_path / "f")
    assert failed(found) == set()
    assert {found[name].reason for name in ALL[4:]} == {found["values"].reason}
    assert "other outputs after each load" in (found["values"].reason or "")
