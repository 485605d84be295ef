"""The conformance benchmark's yardstick tells all answers apart, even if they look alike; a wrong verdict is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from benchmarks import conformance, truth
from benchmarks.zoo import Made, serve, zoo

X = tf.TensorSpec([2, 3], tf.float32, "x")
Answers = dict[str, tuple[str, str]]
FLOWS, ZERO, NONE = ("flows", "flows"), ("zero", "zero"), ("none", "none")


@tf.custom_gradient
def straight(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Rounds; the gradient uses a value of the function that calls it."""
    return tf.round(x), lambda gradient: gradient * tf.sigmoid(x)


@tf.custom_gradient
def closed(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Hands on its input, and zeros for any gradient."""
    return tf.identity(x), lambda gradient: tf.zeros_like(x)


@tf.custom_gradient
def counted(x: tf.Tensor) -> tuple[Any, Any]:
    """Rounds to a float and to a whole number, which never has a gradient."""
    return (tf.round(x), tf.cast(x, tf.int32)), lambda gradient, _: gradient


def loop(body: Callable[[Any], Any], start: Any) -> Any:
    return tf.while_loop(lambda i, _: i < 3, lambda i, value: (i + 1, body(value)), (0, start))[1]


def nested(x: Any, v: Any, w: Any) -> Any:
    """A loop in a loop, whose own variables a loaded model loses."""
    inner = lambda i, y: tf.while_loop(lambda j, _: j < i, lambda j, z: (j + 1, tf.tanh(z * w)), (0, y * v))[1]  # noqa: E731
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, inner(i, y)), (1, x))[1]


# name: y of x, v and w; the answers for v and for w, live and loaded
CASES: dict[str, tuple[Callable[[Any, Any, Any], Any], Answers, Answers]] = {
    "a cut": (lambda x, v, w: tf.round(x * v) + w, {"v": NONE, "w": FLOWS}, {"v": NONE, "w": FLOWS}),
    "zeros of the table": (lambda x, v, w: tf.sign(x * v) + w, {"v": ZERO, "w": FLOWS}, {"v": ZERO, "w": FLOWS}),
    "zeros by data": (
        lambda x, v, w: tf.nn.relu(-1 - x * x * v * v) + w, {"v": FLOWS, "w": FLOWS}, {"v": FLOWS, "w": FLOWS}),
    "zeros by data in a loop": (
        lambda x, v, w: loop(lambda s: s + tf.nn.relu(-1 - x * x * v * v) + w, x),
        {"v": FLOWS, "w": FLOWS}, {"v": FLOWS, "w": FLOWS}),
    "a loop hides a cut": (
        lambda x, v, w: loop(lambda s: s + tf.round(v) * w, x),
        {"v": ("zero", "none"), "w": FLOWS}, {"v": ("zero", "none"), "w": FLOWS}),
    "a chain through a loop": (
        lambda x, v, w: tf.while_loop(lambda i, *_: i < 3, lambda i, a, b, c: (i + 1, b, c, x * tf.round(w) * v),
                                      (0, x, x, x))[1],
        {"v": FLOWS, "w": ("zero", "none")}, {"v": FLOWS, "w": ("zero", "none")}),
    "a branch": (
        lambda x, v, w: tf.cond(tf.reduce_sum(x) > 0, lambda: x * v, lambda: x * tf.round(w)),
        {"v": FLOWS, "w": NONE}, {"v": FLOWS, "w": NONE}),
    "what loading loses": (nested, {"v": FLOWS, "w": FLOWS}, {"v": FLOWS, "w": ("zero", "flows")}),
    "no gradient at all": (
        lambda x, v, w: tf.raw_ops.AdjustHue(images=(x * v)[None], delta=0.1)[0] + w,
        {"v": ("raises", "none"), "w": ("raises", "flows")}, {"v": ("raises", "none"), "w": ("raises", "flows")}),
    "a custom gradient": (
        lambda x, v, w: straight(x * v) + tf.round(w), {"v": FLOWS, "w": NONE}, {"v": FLOWS, "w": NONE}),
    "a custom gradient of a whole number": (
        lambda x, v, w: counted(x * v)[0] + tf.cast(counted(x * w)[1], tf.float32),
        {"v": FLOWS, "w": NONE}, {"v": FLOWS, "w": NONE}),
    "a custom gradient in a loop": (
        lambda x, v, w: loop(lambda s: straight(s * v) + closed(w), x),
        {"v": FLOWS, "w": ZERO}, {"v": ("raises", "flows"), "w": ("raises", "zero")}),
}  # fmt: skip
BY_DATA = {"zeros by data", "zeros by data in a loop"}


def model(name: str) -> Made:
    v, w = (tf.Variable([[0.3, -0.7, 1.1]], name=letter) for letter in "vw")
    body = CASES[name][0]
    return serve({"v": v, "w": w}, lambda x: {"y": body(x, v, w)}, X)


def told(answers: dict[str, Any]) -> Answers:
    """TensorFlow's answers for the variables."""
    return {target["path"][-1]: tuple(target["tensorflow"]) for target in variables(answers)}


def by_data(answers: dict[str, Any]) -> list[str]:
    """The variables whose gradient flows and was zero on all data."""
    return [target["path"][-1] for target in variables(answers) if target["by_data"]]


def variables(answers: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for target in answers["targets"] if target["kind"] == "variable"]


@pytest.mark.parametrize("name", CASES)
def test_a_live_function_is_asked(name: str) -> None:
    _, live, _ = CASES[name]
    answers = truth.live(model(name))
    assert told(answers) == live
    assert by_data(answers) == (["v"] if name in BY_DATA else [])


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_is_asked(name: str, tmp_path: Path) -> None:
    _, _, loaded = CASES[name]
    model(name).save(tmp_path / "model")
    answers = truth.loaded(tmp_path / "model")
    assert told(answers) == loaded
    assert by_data(answers) == (["v"] if name in BY_DATA else [])


def test_inputs_are_asked() -> None:
    number = tf.TensorSpec([], tf.int32, "number")
    w = tf.Variable([1.0, 2.0, 3.0], name="w")
    made = serve([w], lambda x, number: {"y": tf.round(x) * tf.gather(w, number)}, X, number)
    answers = truth.live(made)
    inputs = {t["path"]: tuple(t["tensorflow"]) for t in answers["targets"] if t["kind"] == "input"}
    assert inputs == {"x": NONE, "number": NONE}
    assert told(answers) == {"w": FLOWS}


def test_a_model_of_the_zoo_agrees_live_and_loaded_in_another_process() -> None:
    live, loaded = conformance.examine(["discrete/nested_loops"])
    assert (live.how, live.failed, live.disagree) == ("live", None, [])
    assert (loaded.how, loaded.failed, loaded.disagree) == ("loaded", None, [])
    assert live.targets == loaded.targets == live.agree == loaded.agree > 0
    assert "zero/flows" in loaded.answers
    assert "zero/flows" not in live.answers


def test_a_model_that_cannot_be_made_is_a_failure_of_its_own() -> None:
    rows = conformance.examine(["discrete/codebook", "discrete/no_such_model", "discrete/codebook_too"])
    failed = {(row.model.partition("/")[2], row.how): row.failed for row in rows if not row.good}
    assert {name for name, _ in failed} == {"no_such_model", "codebook_too"}
    assert "no_such_model" in str(failed["no_such_model", "live"])
    assert [row.targets for row in rows if row.model == "discrete/codebook"] == [4, 4]


def test_a_process_serves_one_family() -> None:
    names = [*(f"a/{i}" for i in range(conformance.BATCH + 1)), "b/0"]
    assert list(conformance.batches(names)) == [names[:-2], names[-2:-1], names[-1:]]


ANSWER = {"kind": "variable", "path": "w", "ours": ["none", "none"], "tensorflow": ["none", "none"], "by_data": False}
TOLD = {"nodes": 1, "seconds": 0.1, "tensorflow_seconds": 0.1, "raised": None, "unasked": []}


@pytest.mark.parametrize(
    ("change", "unasked", "good"),
    [
        ({}, [], True),
        ({"tensorflow": ["zero", "none"]}, [], False),
        ({"tensorflow": ["none", "zero"]}, [], False),
        ({}, ["forgotten"], False),
    ],
)
def test_a_wrong_verdict_is_seen(
    change: dict[str, Any], unasked: list[str], good: bool,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    answers = {**TOLD, "targets": [{**ANSWER, **change}], "unasked": unasked}
    monkeypatch.setattr(conformance, "truths", lambda *_: [answers])
    monkeypatch.setattr("sys.argv", ["conformance", "discrete/codebook", "--json", str(tmp_path / "rows.json")])
    with pytest.raises(SystemExit) as ended:
        conformance.main()
    assert ended.value.code == (0 if good else 1)
    assert ("discrete/codebook live: " in capsys.readouterr().out) is not good
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["how"] for row in rows] == ["live", "loaded"]


def test_every_family_names_its_models_without_its_packages() -> None:
    families = {name.partition("/")[0] for name in zoo()}
    files = {path.stem for path in Path(conformance.__file__).with_name("zoo").glob("*.py")}
    assert families == files - {"__init__"}
