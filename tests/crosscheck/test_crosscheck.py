"""A repaired model passes; every planted fault is found by the check that is there for it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gradpass.crosscheck import crosscheck

from .conftest import ROWS, Save, checks, repaired, severed

ALL = ["values", "onnx-original", "onnx-fixed", "verdict"]


def test_a_repaired_model_passes_all(original: Path, fixed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    answers = checks(original, fixed, ["w", "codebook"], progress=told.append)
    assert list(answers) == ALL
    assert {check.status for check in answers.values()} == {"passed"}
    assert answers["values"].figure == 0.0
    assert answers["values"].limit == 0.0
    assert answers["onnx-fixed"].figure is not None
    assert answers["onnx-fixed"].figure <= 1e-4
    assert len(told) >= 4
    assert capfd.readouterr().out == ""


def test_a_copy_of_a_severed_model_fails_the_promise_only(original: Path) -> None:
    answers = checks(original, original, ["w", "codebook"])
    assert [answers[name].status for name in ALL] == ["passed", "passed", "passed", "failed"]
    assert answers["verdict"].figure == 1.0
    assert answers["verdict"].reason == "w (None)"


def test_a_promise_to_nobody_fails(original: Path, fixed: Path) -> None:
    verdict = checks(original, fixed, ["w", "ghost"])["verdict"]
    assert verdict.status == "failed"
    assert "ghost" in (verdict.reason or "")
    assert "w (" not in (verdict.reason or "")


def test_a_promised_zero_fails(original: Path, save: Save) -> None:
    zero = save(lambda x, w, c: {**severed(x, w, c), "y": severed(x, w, c)["y"] + 0.0 * tf.reduce_sum(w)})
    assert checks(original, zero, ["w"])["verdict"].reason == "w (zero)"


def test_a_promised_nan_fails(original: Path, save: Save) -> None:
    nan = save(lambda x, w, c: {**severed(x, w, c), "y": severed(x, w, c)["y"] + tf.reduce_sum(tf.sqrt(0.0 * w))})
    answers = checks(original, nan, ["w"])
    assert answers["values"].status == "passed"
    assert answers["verdict"].reason == "w (not finite)"


def test_without_a_promise_the_verdict_is_skipped(original: Path) -> None:
    assert checks(original, original)["verdict"].status == "skipped"


@pytest.mark.parametrize("constant", [1.0, 3.0])
def test_one_ulp_in_a_constant_is_found(save: Save, constant: float) -> None:
    near = float(np.nextafter(np.float32(constant), np.float32(9)))

    def shifted(by: float) -> Path:
        return save(lambda x, w, c: {"y": tf.gather(c, tf.argmax(x @ w, -1)) * by})

    values = checks(shifted(constant), shifted(near))["values"]
    assert values.status == "failed"
    assert values.figure is not None
    assert values.figure > 0
    assert "y in " in (values.reason or "")


def test_a_lost_sign_of_zero_is_found(save: Save) -> None:
    minus = save(lambda x, w, c: {"y": tf.nn.relu(x @ w) * -1.0})
    plus = save(lambda x, w, c: {"y": tf.where(x @ w > 0.0, x @ w * -1.0, tf.zeros_like(x @ w))})
    assert checks(minus, plus)["values"].status == "failed"


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda x, w, c: {**severed(x, w, c), "on": tf.cast(x @ w > 0.5, tf.int64)}, "int32.*int64"),
        (lambda x, w, c: {"z": severed(x, w, c)["y"], "on": severed(x, w, c)["on"]}, "'y'.*'z'"),
        (lambda x, w, c: {**severed(x, w, c), "y": severed(x, w, c)["y"][:, :2]}, r"\[3, 3\].*\[3, 2\]"),
        (lambda x, w, c: severed(tf.ensure_shape(x, [7, 5]), w, c), "raises where the original does not"),
    ],
    ids=["dtype", "name", "shape", "raises"],
)
def test_a_changed_output_is_told(original: Path, save: Save, build: object, says: str) -> None:
    answers = checks(original, save(build), ["codebook"])  # type: ignore[arg-type]
    assert answers["values"].status == "failed"
    assert re.search(says, answers["values"].reason or "")


@pytest.mark.parametrize("spec", [tf.TensorSpec([None, 5], tf.float64, "x"), tf.TensorSpec([None, 5], tf.float32, "q")])
def test_a_changed_input_is_told(original: Path, save: Save, spec: tf.TensorSpec) -> None:
    other = save(lambda x, w, c: severed(tf.cast(x, tf.float32), w, c), spec)
    values = checks(original, other)["values"]
    assert values.status == "failed"
    assert "the inputs" in (values.reason or "")


def test_a_missing_entry_is_told(original: Path) -> None:
    answers = crosscheck(original, original, entries=["serving_default", "no"], promised={}, mode="straight-through")
    assert [check.name for check in answers[:4]] == [f"{name} of serving_default" for name in ALL]
    assert answers[4].status == "failed"
    assert "no entry 'no'" in (answers[4].reason or "")


def test_an_op_that_tf2onnx_cannot_carry_is_named(save: Save) -> None:
    model = save(lambda x, w, c: {"y": x @ w, "h": tf.histogram_fixed_width(x @ w, [0.0, 1.0], 5)})
    answers = checks(model, model)
    assert answers["values"].status == "passed"
    for name in ("onnx-original", "onnx-fixed"):
        assert answers[name].status == "skipped"
        assert answers[name].reason == "tf2onnx cannot carry HistogramFixedWidth"


def test_an_op_that_only_the_repair_brought_in_fails(save: Save) -> None:
    def with_histogram(x: tf.Tensor, w: tf.Variable, c: tf.Variable) -> dict[str, tf.Tensor]:
        never = tf.cast(tf.reduce_sum(tf.histogram_fixed_width(x, [0.0, 1.0], 5)) < 0, tf.float32)
        return {"y": x @ w + never}

    answers = checks(save(lambda x, w, c: {"y": x @ w}), save(with_histogram))
    assert [answers[name].status for name in ALL[:3]] == ["passed", "passed", "failed"]
    assert "HistogramFixedWidth" in (answers["onnx-fixed"].reason or "")


def test_a_captured_tensor_is_frozen_too(save: Save) -> None:
    large = tf.constant(
        np.random.default_rng(0).normal(size=(5, 200)), tf.float32
    )  # a small one becomes a Const anyway
    model = save(lambda x, w, c: {"y": x @ large})
    answers = checks(model, model)
    assert answers["onnx-fixed"].status == "passed"


def test_soft_mode_tells_how_far(original: Path, save: Save) -> None:
    soft = save(lambda x, w, c: {"y": tf.nn.softmax(x @ w) @ c, "on": tf.cast(x @ w > 0.5, tf.int32)})
    answers = checks(original, soft, ["w", "codebook"], mode="soft")
    assert {check.status for check in answers.values()} == {"passed"}
    assert answers["values"].limit is None
    assert answers["values"].figure is not None
    assert 0.01 < answers["values"].figure < 2
    assert "y 0." in (answers["values"].reason or "")
    assert "on 0," in (answers["values"].reason or "") + ","


def test_random_ops_are_no_fault(save: Save) -> None:
    noisy = save(lambda x, w, c: {"y": x @ w + tf.random.normal([4])})
    values = checks(noisy, noisy)["values"]
    assert values.status == "skipped"
    assert "random" in (values.reason or "")


def test_state_is_kept_in_step(tmp_path: Path) -> None:
    module = tf.Module()
    module.count = tf.Variable(0.0, name="count")
    module.run = tf.function(lambda x: {"y": x * module.count.assign_add(1.0)}, input_signature=[ROWS])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.run)
    assert checks(tmp_path / "m", tmp_path / "m")["values"].status == "passed"


def test_an_output_that_never_varies_is_told(save: Save) -> None:
    model = save(lambda x, w, c: {"y": x @ w, "on": x @ w > 1e9})
    values = checks(model, model)["values"]
    assert values.status == "passed"
    assert values.reason == "constant on all of these inputs: on"


@pytest.mark.parametrize("missing", ["tf2onnx", "onnxruntime", "onnx"])
def test_missing_machinery_is_a_reason(original: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    answers = checks(original, original)
    for name in ("onnx-original", "onnx-fixed"):
        assert answers[name].status == "skipped"
        assert missing in (answers[name].reason or "")


def test_a_crash_is_an_answer(original: Path, fixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted\nsecond line")

    monkeypatch.setattr("gradpass.crosscheck.run.check_promises", broken)
    answers = checks(original, fixed, ["w"])
    assert answers["verdict"].status == "failed"
    assert answers["verdict"].reason == "ZeroDivisionError: planted"
    assert answers["onnx-fixed"].status == "passed"


def test_a_model_that_does_not_load_fails_all(original: Path, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    answers = checks(original, tmp_path, ["w"])
    assert list(answers) == ALL
    assert {check.status for check in answers.values()} == {"failed"}


def test_gradients_through_the_bridge_are_those_of_a_fresh_load(original: Path, fixed: Path) -> None:
    # Twice in one process: each load registers its custom gradients under names of its own.
    for _ in range(2):
        assert checks(original, fixed, ["w", "codebook"], samples=2)["verdict"].status == "passed"


@pytest.mark.parametrize("build", [severed, repaired])
def test_the_fixture_computes_what_it_says(save: Save, build: object) -> None:
    assert checks(save(severed), save(build))["values"].status == "passed"  # type: ignore[arg-type]
