"""Repairs in settings that are awkward to check: no false alarm where all is right, and none missed where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradpass.api import fix_file
from gradpass.crosscheck.differences import check_derivative
from gradpass.crosscheck.export import tools
from gradpass.crosscheck.load import load_plain
from gradpass.crosscheck.soft import soften
from gradpass.errors import GradpassError
from gradpass.proof import compare
from gradpass.report.repair import CheckRow
from gradpass.rewrite.build import Recipe

from .conftest import Save

Body = Callable[[Any, tf.Tensor], dict[str, tf.Tensor]]
HANDS = ("derivative", "schema", "worth")
X = tf.TensorSpec([None, 4], tf.float32, "x")


def saved(folder: Path, body: Body, *specs: tf.TensorSpec, **variables: Any) -> Path:
    rng = np.random.default_rng(0)
    module = tf.Module()
    for name, value in {"w": rng.normal(size=(4, 6)), "c": rng.normal(size=(6, 3)), **variables}.items():
        array = np.asarray(value, None if name in variables else np.float32)
        setattr(module, name, tf.Variable(array, name=name))
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1]), tf.constant([1, 0])), 0
    )
    module.run = tf.function(lambda *inputs: body(module, *inputs), input_signature=specs or (X,))
    tf.saved_model.save(module, str(folder), signatures=module.run)
    return folder


def vq(m: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.gather(m.c, tf.argmax(x @ m.w, -1))


def proven(folder: Path, body: Body, *specs: tf.TensorSpec, data: Any = None, **variables: Any) -> dict[str, CheckRow]:
    source = saved(folder / "m", body, *specs, **variables)
    report = fix_file(source, folder / "f", data=data)
    found = {row.name: row for row in report.crosscheck}
    assert {name: row.reason for name, row in found.items() if row.status == "failed"} == {}
    return found


@pytest.mark.parametrize(
    ("body", "variables"),
    [
        (lambda m, x: {"y": vq(m, x) * m.g}, {"g": np.float32(2)}),
        (lambda m, x: {"y": vq(m, x) * tf.cast(m.n, tf.float32)}, {"n": np.int32(2)}),
        (lambda m, x: {"y": vq(m, x) @ m.z}, {"z": np.zeros((3, 2), np.float32)}),
        (lambda m, x: {"y": vq(m, x) * tf.sqrt(m.p)}, {"p": np.float32([4, 1, 1e-4])}),
        (lambda m, x: {"y": vq(m, tf.nn.relu(x))}, {}),
        (lambda m, x: {"y": vq(m, x), "e": tf.zeros([0, 3])}, {}),
    ],
    ids=["scalar", "integer", "zero-layer", "root", "relu", "empty"],
)
def test_all_hands_pass(tmp_path: Path, body: Body, variables: dict[str, Any]) -> None:
    found = proven(tmp_path, body, **variables)
    assert {name: found[name].reason for name in HANDS if found[name].status != "passed"} == {}


@pytest.mark.parametrize("kind", ["kink", "pool", "edge"])
def test_data_with_ties_and_zeros(tmp_path: Path, kind: str) -> None:
    """Such data stand on kinks and steps; the point is beside them."""
    bodies: dict[str, Body] = {
        "kink": lambda m, x: {"y": vq(m, tf.nn.relu(x))},
        "pool": lambda m, x: {"y": vq(m, tf.nn.max_pool1d(x[..., None], 2, 1, "SAME")[..., 0])},
        "edge": lambda m, x: {"y": tf.gather(m.c, tf.cast(tf.floor(x[:, 0] * 3), tf.int32)) + vq(m, x)},
    }
    data = {"kink": np.eye(4), "pool": np.eye(4), "edge": np.full((3, 4), 1.0)}[kind]
    found = proven(tmp_path, bodies[kind], data={"x": data.astype(np.float32)})
    assert found["derivative"].status == "passed" and found["schema"].status == "passed"


@pytest.mark.parametrize(
    ("body", "variables", "says"),
    [
        (lambda m, x: {"y": vq(m, x) + tf.cast(m.n.assign_add(1), tf.float32) * 0},
         {"n": np.int32(0)}, "cannot be frozen"),
        (lambda m, x: {"y": vq(m, x) + tf.cast(m.table.lookup(tf.cast(x[:, :1] > 0, tf.int32)), tf.float32)}, {}, ""),
        (lambda m, x: {"y": vq(m, x * tf.cast(m.h, tf.float32))}, {"h": np.float16([1, 2, 3, 4])}, "16 bits"),
        (lambda m, x: {"a": vq(m, x), "b": tf.cast(vq(m, x), tf.float16)}, {}, "16 bits"),
        (lambda m, x: {"y": tf.cast(vq(m, x), tf.float16)}, {}, "no output is of float32 or float64"),
        (lambda m, x: {"x": vq(m, x)}, {}, "an input and an output are both called x"),
        (lambda m, x: {"y": vq(m, x) + tf.gather(m.v, tf.cast(m.i, tf.int32))[:1, None]},
         {"v": np.ones(50, np.float32), "i": np.arange(50, dtype=np.float32)}, None),
    ],
    ids=["assigns", "table", "half", "half-beside", "half-only", "one-name", "index"],
)  # fmt: skip
def test_what_cannot_be_compared_is_skipped(
    tmp_path: Path, body: Body, variables: dict[str, Any], says: str | None
) -> None:
    row = proven(tmp_path, body, **variables)["derivative"]
    if says is None:
        assert row.status == "passed"
    elif says:
        assert row.status == "skipped" and says in (row.reason or "")


def test_the_argmax_of_keras_has_an_export(tmp_path: Path) -> None:
    """It asks for the sign of zeros by their bits, of which tf2onnx knows nothing."""

    def normal(seed: int) -> Any:
        return keras.initializers.RandomNormal(stddev=1.0, seed=seed)

    class Quantizer(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: tuple[int, ...]) -> None:
            self.scores = self.add_weight(shape=(shape[-1], 8), initializer=normal(1), name="scores")
            self.codes = self.add_weight(shape=(8, 3), initializer=normal(2), name="codes")

        def call(self, x: Any) -> Any:
            return keras.ops.take(self.codes, keras.ops.argmax(keras.ops.matmul(x, self.scores), axis=-1), axis=0)

    dense = keras.layers.Dense(6, "relu", kernel_initializer=normal(3))
    model = keras.Sequential([keras.Input((4,)), dense, Quantizer()])
    model.export(str(tmp_path / "m"), verbose=False)
    found = {row.name: row.status for row in fix_file(tmp_path / "m", tmp_path / "f").crosscheck}
    assert {found[name] for name in ("onnx-original", "onnx-fixed", *HANDS)} == {"passed"}


def test_signs_of_zeros_are_those_of_their_bits(save: Save) -> None:
    lowest = tf.int32.min
    one = save(
        lambda x, w, c: {
            "y": tf.cast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), lowest) < 0, tf.float32) + tf.reduce_sum(w)
        }
    )
    data = {"x": np.float32([[0.0, -0.0, 1.0, -1.0, np.inf], [-np.inf, 1e-40, -1e-40, 2.0, -0.0]])}
    rows = {row.name: row for row in compare(one, one, data=data).crosscheck}
    assert rows["onnx-fixed"].status == "passed" and rows["onnx-fixed"].figure == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_half_a_gradient_of_a_convolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Only float32 is to be had there, and the limit is wide; a random direction alone may be across the gradient."""
    rng = np.random.default_rng(seed)
    kernel, codes = rng.normal(size=(3, 3, 2, 5)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)

    def body(m: Any, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.gather(m.c, tf.argmax(tf.nn.conv2d(x, m.k, 1, "SAME"), -1))}

    honest = Recipe.gradients
    source = saved(tmp_path / "m", body, tf.TensorSpec([2, 6, 6, 2], name="x"), k=kernel, c=codes)
    assert fix_file(source, tmp_path / "right").ok
    monkeypatch.setattr(Recipe, "gradients", lambda *args: [0.5 * g for g in honest(*args)])
    fix_file(source, tmp_path / "half", cross_check=False)
    monkeypatch.undo()
    (row,) = (row for row in compare(source, tmp_path / "half").crosscheck if row.name == "derivative")
    assert row.status == "failed" and row.limit == 0.1 and (row.figure or 0) > 0.3


def test_half_a_gradient_that_is_small_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Recipe.gradients
    source = saved(tmp_path / "m", lambda m, x: {"y": vq(m, x)})
    monkeypatch.setattr(Recipe, "gradients", lambda *args: [0.5 * g for g in honest(*args)])
    fix_file(source, tmp_path / "half", cross_check=False, temperature=1e3)
    monkeypatch.undo()
    (row,) = (row for row in compare(source, tmp_path / "half").crosscheck if row.name == "derivative")
    assert row.status == "failed"


def test_a_gradient_that_is_no_number_is_never_near(tmp_path: Path) -> None:
    source = saved(tmp_path / "m", lambda m, x: {"y": tf.tanh(x @ m.w)})
    signature = load_plain(source).signatures["serving_default"]
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 4)), tf.float32)
    soft = soften(tools(), signature, {"x": x}, {})
    gradients = {target: np.full(soft.point[target].shape, np.nan) for target in soft.targets}
    cotangents = {"y": np.ones((3, 6))}
    check = check_derivative("derivative", tools(), soft, gradients, cotangents, set(), 0)
    assert check.status == "failed"


def test_data_that_the_model_does_not_take_are_an_error(tmp_path: Path) -> None:
    source = saved(tmp_path / "m", lambda m, x: {"y": vq(m, x)})
    with pytest.raises(GradpassError, match="the original does not accept the data"):
        fix_file(source, tmp_path / "f", data={"x": np.zeros((5, 7), np.float32)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_a_copy_of_the_original_is_no_repair(tmp_path: Path) -> None:
    source = saved(tmp_path / "m", lambda m, x: {"y": vq(m, x)})
    report = compare(source, source)
    assert [row.name for row in report.failed] == ["verdict"] and report.exit_status == 1
    assert "nothing that starves in the original has a gradient in the other" in str(report.failed[0].reason)
