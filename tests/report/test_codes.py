"""Each code's examples are run: TensorFlow answers what the code says, and `check` finds this very code."""

from __future__ import annotations

import ast
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import gradpass
from gradpass import Report, check
from gradpass.errors import GradpassBug, GradpassError
from gradpass.report.codes import Code, all_codes, code_of_op, find

CODES = list(all_codes().values())
every_code = pytest.mark.parametrize("code", CODES, ids=lambda code: code.code)


def run(source: str, file: str | Path = "<example>") -> dict[str, Any]:
    names: dict[str, Any] = {"tf": tf}
    exec(compile(source, file, "exec"), names)
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
    if not np.isfinite(values).all():
        return "NaN"
    return "a gradient" if values.any() else "zeros"


def saved(names: dict[str, Any], path: Path, **options: Any) -> Path:
    """The example as a SavedModel: v and w on the module, `loss` its signature, `other` a second one."""
    module = tf.Module()
    module.v, module.w = names["v"], names.get("w")
    signatures = {
        name: tf.function(names[function], input_signature=[])
        for name, function in (("serving_default", "loss"), ("other", "other"))
        if function in names
    }
    tf.saved_model.save(module, str(path), signatures, tf.saved_model.SaveOptions(**options))
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


def found(code: type[Code], names: dict[str, Any], path: Path) -> Report:
    """What gradpass finds in an example: in the file that is made of it, or by the call that the code gives."""
    if code.live is not None:
        return eval(code.live, {"gp": gradpass}, names)  # type: ignore[no-any-return]
    return check(saved(names, path), order=code.order)


@every_code
def test_check_finds_the_code_in_the_failing_example_only(code: type[Code], tmp_path: Path) -> None:
    before = found(code, run(code.failing), tmp_path / "failing")
    assert [d.code for d in before.diagnostics] == [code.code]
    assert before.diagnostics[0].severity == code.severity
    assert before.ok == (code.severity == "note")
    after = found(code, run(code.fixed), tmp_path / "fixed")
    assert after.diagnostics == []


@every_code
def test_texts(code: type[Code]) -> None:
    assert re.fullmatch(r"GP[1-9]\d\d", code.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.name)
    assert len(code.explanation()) > 40 and code.explanation()[-1] == "."
    assert all(text and not text.endswith(".") for text in (code.help, *code.helps.values()))
    assert (code.refusal is not None) <= (code.fix == "refuse")


def quantities() -> dict[str, Any]:
    """What the Python in a help may name, each as it is meant there."""
    x = tf.Variable([0.3, 0.9, 0.5])
    scores, image = tf.Variable([[0.1, 0.7, 0.2]]), tf.Variable(tf.random.stateless_uniform([1, 4, 4, 3], [1, 2]))
    halves = tf.constant([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    p = tf.sigmoid(x)
    return {
        "tf": tf, "w": tf.Variable(x), "x": x, "y": tf.tanh(x) / 2.0, "width": 0.1, "f": tf.exp, "loss": tf.reduce_sum,
        "scores": scores, "labels": [1], "truth": [[0.0, 1.0, 0.0]], "selected": [0],
        "edges": tf.linspace(0.0, 1.0, 5), "boundaries": tf.constant([0.2, 0.6]), "indices": [0, 2], "depth": 3,
        "start": x[0], "stop": x[1], "step": x[2], "off": x[0], "on": x[1], "first": x[0], "second": x[1],
        "k": 2, "n": 3, "weights": x, "values": [0, 2, 2], "logits": scores, "temperature": 0.5, "p": p,
        "rate": tf.exp(x), "shape": [4, 3], "rounded": tf.round(x), "cast": tf.cast(x, tf.int32),
        "low": x[0], "high": x[1], "stored": tf.constant([0, 100, 255], tf.uint8), "image": image, "factor": 0.5,
        "rows": halves, "columns": halves, "hsv": image,
    }  # fmt: skip


def ctc() -> dict[str, Any]:
    """The same where scores are those of symbols, over three steps of time."""
    logits = tf.Variable(tf.random.stateless_normal([3, 1, 4], [1, 2]))
    return quantities() | {"labels": [[1]], "logits": logits, "label_length": [1], "logit_length": [3]}


HELPS = {f"{code.code}-{op}": text for code in CODES for op, text in (("any", code.help), *code.helps.items())}
HELPS["GP123-explanation"] = find("GP123").explanation()


def written(text: str) -> list[ast.stmt]:
    """The Python between a text's backquotes; the rest is for the shell, or begins what a user would go on with."""
    quoted = (part for part in re.findall(r"`([^`]+)`", text) if not re.match(r"gradpass |--|@|def ", part))
    return [statement for part in quoted for statement in ast.parse(part).body]


def proposals(key: str, names: dict[str, Any]) -> list[Any]:
    """What the Python in a help gives, run in order."""
    found = []
    for statement in written(HELPS[key]):
        if isinstance(statement, ast.Expr):
            found += tf.nest.flatten(eval(ast.unparse(statement), names))
        else:
            exec(ast.unparse(statement), names)
    return found


@pytest.mark.parametrize("key", [key for key, text in HELPS.items() if written(text)])
def test_what_a_help_proposes_has_a_gradient(key: str) -> None:
    with tf.GradientTape(persistent=True) as tape:
        names = ctc() if "ctc_loss" in HELPS[key] else quantities()
        found = proposals(key, names)
        losses = [tf.reduce_sum(tf.exp(value)) for value in found if tf.is_tensor(value) and value.dtype.is_floating]
    assert losses or all(map(callable, found))
    trained = [value for value in (*names.values(), *found) if isinstance(value, tf.Variable)]
    for loss in losses:
        gradients = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, trained) if g is not None]
        assert any(g.any() for g in gradients) and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    ("key", "original"),
    [
        ("GP100-LinSpace", "tf.raw_ops.LinSpace(start=start, stop=stop, num=n)"),
        ("GP100-OneHot", "tf.one_hot(indices, depth, on, off)"),
        ("GP100-Range", "tf.range(start, start + 2.5 * step, step)"),
        ("GP103-any", "rounded"),
        ("GP104-any", "tf.cast(cast, tf.float32)"),
        ("GP116-Softsign", "tf.nn.softsign(x)"),
        ("GP121-any", "tf.math.bincount(values, weights=weights, minlength=n)"),
        ("GP122-any", "tf.unique(x).y"),
        ("GP123-AdjustContrastv2", "tf.image.adjust_contrast(image, factor)"),
        ("GP123-AdjustSaturation", "tf.image.adjust_saturation(image, factor)"),
        ("GP123-HSVToRGB", "tf.image.hsv_to_rgb(hsv)"),
        ("GP124-Dequantize", "tf.quantization.dequantize(tf.bitcast(stored, tf.quint8), low, high)"),
        ("GP301-any", "tf.sign(x)"),
    ],
)
def test_what_a_help_says_to_be_the_same_is(key: str, original: str) -> None:
    names = quantities()
    np.testing.assert_allclose(proposals(key, names)[-1], eval(original, names), rtol=1e-5, atol=1e-6)


@every_code
def test_texts_name_what_tensorflow_has(code: type[Code]) -> None:
    texts = " ".join((code.message, code.help, *code.helps.values(), code.explanation(), code.refusal or ""))
    for name in re.findall(r"\btf((?:\.\w+)+)", texts):
        assert attrgetter(name[1:])(tf) is not None


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
