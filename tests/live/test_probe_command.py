"""`gradpass probe`: exit statuses, formats, how arrays find their inputs, and one line for what a user did wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.live import probed
from tests.live.probed import FAR, X, Y
from tests.test_cli import Ran, error

MODULE = "tests.live.command_targets"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `dead` and `live` SavedModels."""
    path = tmp_path_factory.mktemp("saved")
    for name, bias in (("dead", FAR), ("live", 1.0)):
        module = probed.Branching(bias)
        tf.saved_model.save(module, str(path / name), {"serving_default": module.serve, "other": module.serve})
    return path


def arrays(path: Path, *given: Any, **named: Any) -> Path:
    file = path / "batch.npz"
    np.savez(file, *given, **named)
    return file


def test_a_saved_model(folder: Path, tmp_path: Path) -> None:
    ran = Ran("probe", folder / "dead", "--data", arrays(tmp_path, x=X))
    assert (ran.status, ran.err) == (1, "")
    assert "GP310" in ran.out and "0 of 3 variables" in ran.out
    ran = Ran("probe", folder / "live", "--data", arrays(tmp_path, np.abs(X)), "--entry", "other")
    assert ran.status == 0 and "3 of 3 variables get a gradient" in ran.out


def test_a_module(tmp_path: Path) -> None:
    assert Ran("probe", f"{MODULE}:healthy", "--data", arrays(tmp_path, y=Y, x=X)).status == 0
    assert Ran("probe", f"{MODULE}:healthy", "--data", arrays(tmp_path, X, Y)).status == 0
    assert Ran("probe", f"{MODULE}:dead_model", "--data", arrays(tmp_path, X)).status == 1
    assert Ran("probe", f"{MODULE}:dead", "--data", arrays(tmp_path, x=X)).status == 1


def test_arrays_go_by_name(tmp_path: Path) -> None:
    ones, zeros = np.ones((8, 3)), np.zeros((8, 3))
    y = np.ones((8, 1))
    masked = Ran("probe", f"{MODULE}:two_inputs", "--data", arrays(tmp_path, mask=zeros, y=y, values=ones))
    assert masked.status == 1 and "GP312" in masked.out
    assert Ran("probe", f"{MODULE}:two_inputs", "--data", arrays(tmp_path, mask=ones, y=y, values=ones)).status == 0
    file = arrays(tmp_path, lengths=np.zeros(8, "int32"), x=X)
    assert "GP312" in Ran("probe", f"{MODULE}:masked_by_lengths", "--data", file).out


def test_formats(folder: Path, tmp_path: Path) -> None:
    data = arrays(tmp_path, x=X)
    told = json.loads(Ran("probe", folder / "dead", "--data", data, "--format", "json").out)
    assert [finding["code"] for finding in told["findings"]] == ["GP310"]
    page = tmp_path / "page.html"
    ran = Ran("probe", folder / "dead", "--data", data, "--format", "html", "-o", page)
    assert (ran.status, ran.out) == (1, "")
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>") and "<svg" in text and "GP310" in text


def test_what_is_wrong_is_told_in_a_line(folder: Path, tmp_path: Path) -> None:
    live, data = folder / "live", arrays(tmp_path, x=X)
    assert "--data" in error("probe", live)
    assert "cannot be read" in error("probe", live, "--data", tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("x")
    assert "no .npz file" in error("probe", live, "--data", tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", X)
    assert "one array" in error("probe", live, "--data", tmp_path / "one.npy")
    objects = tmp_path / "objects.npz"
    np.savez(objects, x=np.asarray([{}], dtype=object))
    assert "plain arrays" in error("probe", live, "--data", objects)
    (tmp_path / "named").mkdir()
    named = arrays(tmp_path / "named", z=X)
    assert "there is no array `x`" in error("probe", live, "--data", named)
    (tmp_path / "shaped").mkdir()
    assert "has the shape (None, 3)" in error("probe", live, "--data", arrays(tmp_path / "shaped", x=X[:, :2]))
    (tmp_path / "words").mkdir()
    assert "of float32" in error("probe", live, "--data", arrays(tmp_path / "words", x=np.asarray([["a"] * 3])))
    assert "no entry 'none'" in error("probe", live, "--data", data, "--entry", "none")
    assert "choose one" in error("probe", live, "--data", data, "--entry", "all")
    assert "one entry" in error("probe", f"{MODULE}:healthy", "--data", data, "--entry", "none")
    assert "no module" in error("probe", "nobody.made:this", "--data", data)
    assert "has no 'this'" in error("probe", f"{MODULE}:this", "--data", data)
    assert "there is no array `mask`" in error("probe", f"{MODULE}:two_inputs", "--data", arrays(tmp_path, values=X))
    assert "there is no array `lengths`" in error(
        "probe", f"{MODULE}:masked_by_lengths", "--data", arrays(tmp_path, x=X)
    )
    assert "sarif" in error("probe", live, "--data", data, "--format", "sarif")
    assert "labels go nowhere" in error("probe", f"{MODULE}:dead_model", "--data", arrays(tmp_path, x=X, y=Y))
