"""`gradpass prune` and `gradpass fix --prune` on the command line: what is printed, written, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.report.json import schema
from tests.test_cli import Ran, error


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras export with two outputs, one of them whole numbers: every weight is there twice."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(8, "tanh", name="hidden")(x)
    kind = keras.ops.argmax(keras.layers.Dense(3, name="kinds")(hidden), axis=-1)
    model = keras.Model(x, {"value": keras.layers.Dense(1, name="value")(hidden), "kind": kind})
    path = tmp_path_factory.mktemp("exported") / "model"
    model.export(str(path), verbose=False)
    return path


def files(folder: Path) -> set[str]:
    """All that is in a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_prune_says_what_it_did(exported: Path, tmp_path: Path) -> None:
    ran = Ran("prune", exported, "-o", tmp_path / "out")
    assert ran.status == 0 and ran.out.endswith(f"wrote {tmp_path / 'out'}\n")
    assert "note[GP220]: nothing needs `_all_variables/0" in ran.out
    assert "GP221" in ran.out and "variables    12        6          50 %" in ran.out
    assert "failed" not in ran.out and files(tmp_path) >= {"out/saved_model.pb", "out/variables/variables.index"}
    assert not [name for name in files(tmp_path) if name.startswith(".")]


def test_prune_json_fits_the_schema(exported: Path, tmp_path: Path) -> None:
    ran = Ran("prune", exported, "-o", tmp_path / "out", "--format", "json", "--no-crosscheck")
    data = json.loads(ran.out)
    jsonschema.validate(data, {**schema(), "$ref": "#/$defs/prune"})
    assert (data["before"]["variables"], data["after"]["variables"]) == (12, 6)
    assert data["after"]["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert data["removed"] == [f"_all_variables/{i}" for i in range(6)] and data["crosscheck"] == []


def test_prune_of_the_loss(exported: Path, tmp_path: Path) -> None:
    ran = Ran("prune", exported, "-o", tmp_path / "out", "--prune=loss")
    assert ran.status == 0 and "removed outputs: `serve: kind`, `serving_default: kind`" in ran.out
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    given = loaded.signatures["serving_default"](tf.ones([2, 4]))
    whole = tf.saved_model.load(str(exported)).signatures["serving_default"](tf.ones([2, 4]))
    assert given.keys() == {"value"} and not hasattr(loaded, "serve")
    np.testing.assert_array_equal(given["value"], whole["value"])
    assert len(loaded.variables) == 4
    served = keras.layers.TFSMLayer(str(tmp_path / "out"), call_endpoint="serving_default")(tf.ones([2, 4]))
    np.testing.assert_array_equal(served["value"], whole["value"])


def test_the_loss_may_be_named(exported: Path, tmp_path: Path) -> None:
    report = gp.prune(exported, tmp_path / "out", loss=["kind"], only_loss=True, cross_check=False)
    assert report.outputs == ["serve: value", "serving_default: value"]
    assert tf.saved_model.load(str(tmp_path / "out")).signatures["serve"](tf.ones([2, 4])).keys() == {"kind"}
    assert "has no output 'nope'; it has kind, value" in error("prune", str(exported), "--prune=loss", "--loss", "nope")


def test_a_dry_run_writes_nothing(exported: Path, tmp_path: Path) -> None:
    ran = Ran("prune", exported, "-o", tmp_path / "out", "--dry-run")
    assert ran.status == 0 and ran.out.endswith("dry run: nothing was written\n") and files(tmp_path) == set()


def test_the_second_time_nothing_is_dead(exported: Path, tmp_path: Path) -> None:
    gp.prune(exported, tmp_path / "once", cross_check=False)
    ran = Ran("prune", tmp_path / "once", "-o", tmp_path / "twice")
    assert ran.status == 0 and ran.out.endswith("nothing is dead: nothing was written\n")
    assert not (tmp_path / "twice").exists()


def test_what_is_there_is_not_replaced_unasked(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "--force" in error("prune", str(exported), "-o", str(tmp_path / "out"))
    assert Ran("prune", exported, "-o", tmp_path / "out", "--force", "--no-crosscheck").status == 0


def test_fix_prunes_first(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x")
    hidden = keras.ops.round(keras.layers.Dense(8, name="hidden")(x))
    model = keras.Model(x, keras.layers.Dense(1, name="value")(hidden))
    model.export(str(tmp_path / "m"), verbose=False)
    ran = Ran("fix", tmp_path / "m", "-o", tmp_path / "out", "--prune", "--format", "json")
    data = json.loads(ran.out)
    jsonschema.validate(data, {**schema(), "$ref": "#/$defs/fix"})
    assert ran.status == 0 and data["prune"]["removed"] and data["before"]["target"] == str(tmp_path / "m")
    assert data["before"]["summary"]["none"] == 2 and data["after"]["summary"]["flows"] == 4
    assert {row["status"] for row in data["crosscheck"] + data["prune"]["crosscheck"]} <= {"passed", "skipped"}
    assert files(tmp_path) & {"m-pruned", ".out"} == set() and len(list(tmp_path.iterdir())) == 2
    # What `harden` gives back is the pruned original, since the other weights are gone.
    gp.harden(tmp_path / "out", tmp_path / "hard")
    before = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"](tf.ones([2, 4]))
    after = tf.saved_model.load(str(tmp_path / "hard")).signatures["serving_default"](tf.ones([2, 4]))
    np.testing.assert_array_equal(*before.values(), *after.values())


def test_fix_with_nothing_to_repair_writes_what_is_pruned(exported: Path, tmp_path: Path) -> None:
    report = gp.fix(exported, tmp_path / "out", prune="loss", cross_check=False)
    assert report.output == str(tmp_path / "out") and report.plan == []
    assert len(tf.saved_model.load(str(tmp_path / "out")).variables) == 4


def damaged(exported: Path, folder: Path, how: str) -> Path:
    """A copy with a fault in its checkpoint."""
    shutil.copytree(exported, folder)
    data, index = folder / "variables/variables.data-00000-of-00001", folder / "variables/variables.index"
    if how == "no data":
        data.unlink()
    elif how == "short data":
        data.write_bytes(data.read_bytes()[:40])
    elif how == "damaged index":
        index.write_bytes(b"x" * 60)
    elif how == "no shard":
        data.rename(data.with_name("variables.data-00001-of-00002"))
    return folder


@pytest.mark.parametrize("how", ["no data", "short data", "damaged index", "no shard"])
def test_a_damaged_checkpoint_is_refused(how: str, exported: Path, tmp_path: Path) -> None:
    source = damaged(exported, tmp_path / "m", how)
    before = files(tmp_path)
    told = error("prune", str(source), "--no-crosscheck")
    assert "checkpoint" in told or "cannot be read" in told
    assert files(tmp_path) == before


@pytest.mark.parametrize("target", ["m.pb", "m.meta"])
def test_what_is_no_savedmodel_is_refused(target: str, exported: Path, tmp_path: Path) -> None:
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    (tmp_path / "m.pb").write_bytes(graph.SerializeToString())
    meta: Any = tf.compat.v1.MetaGraphDef(graph_def=graph)
    (tmp_path / "m.meta").write_bytes(meta.SerializeToString())
    assert "is no SavedModel" in error("prune", str(tmp_path / target))
