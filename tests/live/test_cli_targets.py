"""The command line on what is no graph on disk: package.module:attribute, and files of Keras."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

import gradpass as gp
from gradpass.cli import main

MODULE = """
import keras
import tensorflow as tf

print("made by importing")
v = tf.Variable([1.2, 2.7], name="v")
x = keras.Input((3,))
model = keras.Model(x, keras.layers.Dense(2)(keras.ops.round(keras.layers.Dense(4)(x))))
model.compile("sgd", "mse")
number = 3


def build():
    return model


def loss():
    return tf.reduce_sum(tf.round(v))


def of_data(x, y):
    return tf.reduce_sum((tf.round(v * x) - y) ** 2)


def broken():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder with a module of its own name, in which the command runs."""
    name = f"users_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE, "utf-8")
    np.savez(tmp_path / "data.npz", y=np.ones(2, np.float32), x=np.ones(2, np.float32))
    np.savez(tmp_path / "batch.npz", np.ones((4, 3)), np.ones((4, 2)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name


@pytest.mark.parametrize("attribute", ["model", "build", "loss"])
def test_check_an_attribute(here: str, attribute: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{here}:{attribute}", "--format", "json"]) == 1
    out, err = capfd.readouterr()
    report = json.loads(out)  # what the module prints is not among it
    assert [d["code"] for d in report["diagnostics"]] == ["GP103"] and "made by importing" not in out
    assert "importing" in err or attribute != "model"


@pytest.mark.parametrize("style", ["text", "concise", "sarif", "github", "markdown", "html"])
def test_every_format(here: str, style: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{here}:of_data", "--data", "data.npz", "--format", style]) == 1
    assert "GP103" in capfd.readouterr().out


def test_data_goes_by_name_or_in_order(here: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{here}:of_data", "--data", "data.npz", "--wrt", "both", "--format", "json"]) == 1
    targets = json.loads(capfd.readouterr().out)["entries"][0]["targets"]
    assert [(t["name"], t["kind"]) for t in targets] == [("v", "variable"), ("x", "input"), ("y", "input")]
    assert main(["check", f"{here}:model", "--data", "batch.npz", "--format", "json"]) == 1
    entry = json.loads(capfd.readouterr().out)["entries"][0]
    assert len(entry["outputs"]) == 1  # the compiled loss


def test_a_keras_file_is_checked_and_fixed(here: str, capfd: pytest.CaptureFixture[str]) -> None:
    x = keras.Input((3,))
    keras.Model(x, keras.layers.Dense(2)(keras.ops.round(keras.layers.Dense(4)(x)))).save("model.keras")
    assert main(["check", "model.keras"]) == 1
    assert main(["fix", "model.keras", "--format", "json"]) == 0
    report = json.loads(capfd.readouterr().out.partition("For more on a code")[2].partition("\n")[2])
    assert report["output"] == "model-fixed.keras"
    assert {c["name"]: c["status"] for c in report["crosscheck"]}["onnx-fixed"] == "passed"
    assert main(["check", "model-fixed.keras"]) == 0
    assert main(["fix", "model.keras"]) == 2 and "exists" in capfd.readouterr().err
    assert main(["fix", "model.keras", "-o", "folder", "--dry-run"]) == 0 and not Path("folder").exists()


def test_an_attribute_is_fixed_into_a_saved_model(here: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", f"{here}:of_data", "--data", "data.npz", "--temperature", "0.5"]) == 0
    assert "wrote of_data-fixed" in capfd.readouterr().out
    assert main(["check", "of_data-fixed"]) == 0
    assert float(gp.load("of_data-fixed").temperature.numpy()) == 0.5
    assert main(["harden", "of_data-fixed"]) == 0
    assert main(["check", "of_data-fixed-hardened"]) == 1


def test_a_path_that_exists_comes_first(here: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(f"{here}:model").mkdir()
    assert main(["check", f"{here}:model"]) == 2
    assert "saved_model.pb" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere:model"], "there is no module 'nowhere'"),
        (["MODULE:nothing"], "has no 'nothing'; it has keras, tf, v"),
        (["MODULE:number"], "not int"),
        (["MODULE:broken"], r"users_\w+\.py:\d+\): RuntimeError: no such luck"),
        (["MODULE:of_data"], "takes x, y; give inputs"),
        (["MODULE:of_data", "--data", "none.npz"], "none.npz cannot be read"),
        (["MODULE:loss", "--entry", "serve"], "a live target has one entry"),
        (["folder", "--data", "data.npz"], "is read, not run"),
        (["not.keras"], "does not exist"),
        (["MODULE.py"], "no SavedModel folder"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    here: str, words: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *(word.replace("MODULE", here) for word in words)]) == 2
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("gradpass: error:")]

    assert re.search(says, line) and "Traceback" not in err and not out


def test_a_file_that_keras_cannot_load(here: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("broken.keras").write_bytes(b"not a model")
    assert main(["check", "broken.keras"]) == 2
    assert "give the model as package.module:attribute" in capfd.readouterr().err
