"""The benchmarks' own yardsticks: what they call TensorFlow's truth is it, and a planted fault does not pass."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import models, oracle, pair, real_models


@tf.function
@tf.custom_gradient
def straight(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Rounds, and gives its input the gradient of its output, scaled by the input to make it capture something."""
    return tf.round(x), lambda gradient: gradient * x


class Yardstick(tf.Module):
    """A variable for each answer: a plain one, one behind an argmax, a sign, and an op that has no gradient at all."""

    def __init__(self) -> None:
        super().__init__()
        names = ("plain", "chosen", "signed", "hue", "bridged")
        self.weights = {name: tf.Variable(tf.ones([3]), name=name) for name in names}

    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, "x")])
    def quiet(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Has gradients of three kinds."""
        index = tf.argmax(x * self.weights["chosen"], axis=-1)
        return {"y": x * self.weights["plain"] + tf.one_hot(index, 3) + tf.sign(x * self.weights["signed"])}

    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, "x")])
    def loud(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Makes TensorFlow raise, also for the variable that does not pass through the op."""
        colour = tf.raw_ops.AdjustHue(images=(x * self.weights["hue"])[None], delta=0.1)
        return {"y": x * self.weights["plain"] + colour[0]}

    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, "x")])
    def custom(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Rounds with a gradient of its own, once by hand and once as TensorFlow does."""
        return {"y": straight(x * self.weights["bridged"]) + tf.round(x * self.weights["chosen"])}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = str(tmp_path_factory.mktemp("yardstick") / "model")
    module = Yardstick()
    signatures = {"quiet": module.quiet, "loud": module.loud, "custom": module.custom}
    tf.saved_model.save(module, folder, signatures, tf.saved_model.SaveOptions(experimental_custom_gradients=True))
    return lambda: tf.saved_model.load(folder)


@pytest.fixture
def yardstick(saved: Any) -> Any:
    return saved()


@pytest.mark.parametrize(
    ("entry", "state", "structure"),
    [
        ("quiet", {"plain": "flows", "signed": "zero"}, {"plain": "flows", "signed": "zero"}),
        ("loud", {"plain": "raises", "hue": "raises"}, {"plain": "flows"}),
        ("custom", {"bridged": "flows"}, {"bridged": "flows"}),
    ],
)
def test_the_oracle_tells_all_answers_apart(
    yardstick: Any, entry: str, state: dict[str, str], structure: dict[str, str]
) -> None:
    targets = oracle.variables(yardstick)
    rng = np.random.default_rng(0)
    draws = [{"x": rng.standard_normal((2, 3)).astype(np.float32)}]
    nothing = dict.fromkeys(targets, "none")
    assert oracle.structure(yardstick.signatures[entry], targets) == {**nothing, **structure}
    assert oracle.state(yardstick.signatures[entry], targets, draws, rng) == {**nothing, **state}


def test_the_oracle_refuses_a_graph_that_a_tape_has_changed(yardstick: Any) -> None:
    function, targets = yardstick.signatures["quiet"], oracle.variables(yardstick)
    rng = np.random.default_rng(0)
    oracle.state(function, targets, [one_input(rng)], rng)
    with pytest.raises(SystemExit, match="load the model anew"):
        oracle.structure(function, targets)


def one_input(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal((2, 3)).astype(np.float32)}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (lambda x: {"y": tf.identity(x)}, True),
        (lambda x: {"y": tf.math.nextafter(x, tf.fill(x.shape, np.float32(np.inf)))}, False),
    ],
)
def test_one_last_bit_is_seen(other: Any, same: bool) -> None:
    real: Any = SimpleNamespace(inputs=one_input)
    assert pair.same_bits(lambda x: {"y": x}, other, real).holds is same


def test_negative_zero_is_not_zero() -> None:
    zero, negative = (pair.bits({"y": tf.constant([value])}) for value in (0.0, -0.0))
    assert zero != negative


def test_outputs_that_never_change_prove_nothing() -> None:
    real: Any = SimpleNamespace(inputs=one_input)
    constant = {"y": tf.constant([1.0])}
    assert not pair.same_bits(lambda x: constant, lambda x: constant, real).holds


def test_a_changed_variable_and_a_changed_file_are_seen(yardstick: Any, tmp_path: Path) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder, content in zip(folders, ("one", "two"), strict=True):
        (folder / "assets").mkdir(parents=True)
        (folder / "assets" / "words.txt").write_text(content)
    assert [claim.holds for claim in pair.unchanged(yardstick, yardstick, folders)] == [True, True, False]
    before = pair.values_by_name(yardstick)
    variable = oracle.variables(yardstick)["plain"]
    variable.assign(np.nextafter(variable.numpy(), np.float32(2)))
    assert pair.values_by_name(yardstick) != before


def test_a_model_that_cannot_learn_is_told_from_one_that_can(yardstick: Any) -> None:
    def loss(outputs: dict[str, tf.Tensor], _: Any) -> tf.Tensor:
        return tf.reduce_mean(tf.square(outputs["y"]))

    real: Any = SimpleNamespace(loss=loss, RATE=0.1)
    inputs = {"x": np.ones((2, 3), np.float32)}
    targets, function = oracle.variables(yardstick), yardstick.signatures["quiet"]
    stuck = pair.learns([targets["chosen"]], function, inputs, {}, real)
    moving = pair.learns([targets["plain"]], function, inputs, {}, real)
    assert len(set(stuck)) == 1
    assert moving[-1] < moving[0] == stuck[0]


def test_a_wrong_verdict_is_seen() -> None:
    truth = {"w": {"state": "none", "structure": "none"}, "v": {"state": "flows", "structure": "flows"}}
    targets = [{"name": name, "kind": "variable", **answer} for name, answer in truth.items()]
    report = {"entries": [{"name": real_models.ENTRY, "targets": targets}], "diagnostics": []}
    assert real_models.agreement(report, truth)[0]
    assert not real_models.agreement(report, {**truth, "w": {"state": "zero", "structure": "none"}})[0]
    assert not real_models.agreement(report, {"w": truth["w"]})[0]
    finding = {"severity": "error", "op": "ArgMax", "starves": ["w"]}
    named = real_models.named({"diagnostics": [finding]}, truth, {"ArgMax": 1})
    assert [holds for _, holds, _ in named] == [True, True]
    named = real_models.named({"diagnostics": [finding]}, truth, {"ArgMax": 1, "Greater": 2})
    assert [holds for _, holds, _ in named] == [False, True]


@pytest.mark.parametrize("name", models.names())
def test_a_real_model_offers_inputs_and_a_lesson(name: str) -> None:
    real = models.model(name)
    inputs, labels = real.lesson(np.random.default_rng(0))
    single = real.inputs(np.random.default_rng(0))
    assert {key: value.shape[1:] for key, value in inputs.items()} == {key: v.shape[1:] for key, v in single.items()}
    assert labels and sum(real.CUTS.values()) > 0
