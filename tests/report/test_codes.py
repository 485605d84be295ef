"""Each code's examples are run: TensorFlow answers what the code says, and `check` finds this very code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass import check
from gradpass.errors import GradpassBug, GradpassError
from gradpass.report.codes import Code, all_codes, code_of_op, find

CODES = list(all_codes().values())
every_code = pytest.mark.parametrize("code", CODES, ids=lambda code: code.code)


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"tf": tf}
    exec(source, names)
    return names


def first(loss: Any, v: tf.Variable) -> Any:
    with tf.GradientTape() as tape:
        value = loss()
    return tape.gradient(value, v)


def answer(loss: Any, v: tf.Variable, order: int = 1) -> str:
    """What TensorFlow gives for v, in the words of `Code.says`; "a gradient" is finite and not all zeros."""
    try:
        with tf.GradientTape() as tape:
            value = loss() if order == 1 else first(loss, v)
        gradient = tape.gradient(value, v)
    except (LookupError, TypeError) as error:
        return type(error).__name__
    if gradient is None:
        return "None"
    values = tf.convert_to_tensor(gradient).numpy()
    assert np.isfinite(values).all()
    return "a gradient" if values.any() else "zeros"


def saved(names: dict[str, Any], path: Path) -> Path:
    """The example as a SavedModel: v and w on the module, `loss` its signature, `other` a second one."""
    module = tf.Module()
    module.v, module.w = names["v"], names.get("w")
    signatures = {
        name: tf.function(names[function], input_signature=[])
        for name, function in (("serving_default", "loss"), ("other", "other"))
        if function in names
    }
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


@every_code
def test_failing_example_fails_as_it_says(code: type[Code], tmp_path: Path) -> None:
    names = run(code.failing)
    if code.loaded:
        loaded = tf.saved_model.load(str(saved(names, tmp_path / "m")))
        names = {"v": loaded.v, "loss": lambda: next(iter(loaded.signatures["serving_default"]().values()))}
    assert answer(names["loss"], names["v"], code.order) == code.says


@every_code
def test_fixed_example_has_a_gradient(code: type[Code]) -> None:
    names = run(code.fixed)
    assert answer(names["loss"], names["v"], code.order) == "a gradient"


@every_code
def test_check_finds_the_code_in_the_failing_example_only(code: type[Code], tmp_path: Path) -> None:
    before = check(saved(run(code.failing), tmp_path / "failing"), order=code.order)
    assert [d.code for d in before.diagnostics] == [code.code]
    assert before.diagnostics[0].severity == code.severity
    assert before.ok == (code.severity == "note")
    after = check(saved(run(code.fixed), tmp_path / "fixed"), order=code.order)
    assert after.diagnostics == []


@every_code
def test_texts(code: type[Code]) -> None:
    assert re.fullmatch(r"GP[1-9]\d\d", code.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.name)
    assert len(code.explanation()) > 40 and code.explanation()[-1] == "."
    assert code.help and not code.help.endswith(".")
    assert (code.refusal is not None) <= (code.fix == "refuse")


def test_names_are_unique_and_findable() -> None:
    assert len({code.name for code in CODES}) == len(CODES)
    for code in CODES:
        assert find(code.code.lower()) is code and find(code.name) is code
    with pytest.raises(GradpassError, match="no code 'GP999'"):
        find("GP999")


def test_no_op_has_two_codes() -> None:
    ops = [op for code in CODES for op in code.ops]
    assert len(set(ops)) == len(ops)
    assert code_of_op("ArgMin") is find("GP102") and code_of_op("MatMul") is None


def test_a_code_number_is_given_once() -> None:
    with pytest.raises(GradpassBug, match="share the code GP102"):
        type("Again", (Code,), {"code": "GP102"})
    assert find("GP102").name == "hard-argmax"
