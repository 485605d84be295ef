"""`gradpass prune` on models of Keras and on package.module:attribute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
import tensorflow as tf

from gradpass.report.json import schema
from tests.test_cli import Ran, error

MODULE = """
import keras
import tensorflow as tf
import tf_keras

v, w = tf.Variable([1.0, 2.0], name="v"), tf.Variable([3.0, 4.0], name="w")


@tf.function(input_signature=[tf.TensorSpec([2])])
def function(x):
    unread = tf.tanh(v)
    return x * w


def made(kind):
    x = kind.Input((4,))
    hidden = kind.layers.Dense(5, "tanh", name="hidden")(x)
    inner = kind.Model(x, [hidden, kind.layers.Dense(100, name="pooler")(hidden)])
    y = kind.Input((4,))
    return kind.Model(y, kind.layers.Dense(2, name="head")(inner(y)[0]), name="outer")


def build():
    return made(keras)


def old():
    return made(tf_keras)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder with a module of its own name, in which the command runs."""
    name = f"pruned_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    keras.utils.set_random_seed(0)
    yield name


def parameters(folder: str) -> int:
    return sum(int(tf.size(v)) for v in getattr(tf.saved_model.load(folder), "variables", ()))


@pytest.mark.parametrize("build", ["build", "old"])
def test_a_model_of_keras_becomes_a_savedmodel_without_copies(here: str, build: str) -> None:
    ran = Ran("prune", f"{here}:{build}", "--format", "json")
    data = json.loads(ran.out)
    jsonschema.validate(data, {**schema(), "$ref": "#/$defs/prune"})
    assert ran.status == 0 and data["output"] == f"{build}-pruned" and data["layers"] == ["pooler"]
    assert data["before"]["parameters"] - data["after"]["parameters"] == 600
    assert {row["status"] for row in data["crosscheck"]} <= {"passed", "skipped"}
    saved = tf.train.load_checkpoint(f"{build}-pruned/variables/variables").get_variable_to_shape_map()
    assert sum(int(np.prod(s)) for key, s in saved.items() if "VARIABLE_VALUE" in key) == 37
    assert parameters(f"{build}-pruned") == 37


def test_a_keras_file_becomes_one(here: str) -> None:
    import importlib

    module: Any = importlib.import_module(here)
    model = module.build()
    model.save("outer.keras")
    ran = Ran("prune", "outer.keras")
    assert ran.status == 0 and ran.out.endswith("wrote outer-pruned.keras\n") and "removed layers: `pooler`" in ran.out
    loaded = keras.models.load_model("outer-pruned.keras")
    x = np.float32(np.random.default_rng(0).random((3, 4)))
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.count_params() == 37 and model.count_params() == 637


def test_a_function_becomes_a_savedmodel(here: str) -> None:
    ran = Ran("prune", f"{here}:function", "-o", "out")
    assert ran.status == 0 and ran.out.endswith("wrote out\n") and "nothing needs `v`" in ran.out
    given = tf.saved_model.load("out").signatures["serving_default"](tf.ones([2]))
    np.testing.assert_array_equal(*given.values(), [3.0, 4.0])


def test_what_is_refused_or_asked_for_only(here: str) -> None:
    assert "--entry is for a graph on disk" in error("prune", f"{here}:build", "--entry", "x")
    assert "let out.keras be a folder" in error("prune", f"{here}:function", "-o", "out.keras")
    ran = Ran("prune", f"{here}:build", "--dry-run")
    assert ran.status == 0 and ran.out.endswith("dry run: nothing was written\n")
    assert Ran("prune", f"{here}:build", "-o", "once.keras").status == 0
    assert Ran("prune", "once.keras").out.endswith("nothing is dead\n")
    assert [path.name for path in Path().iterdir() if path.name not in (f"{here}.py", "__pycache__")] == ["once.keras"]
