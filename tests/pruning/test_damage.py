"""Folders that are damaged or lack a part: one line that says so, and nothing written, hidden names included."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import gradpass as gp
from tests.pruning import oddities  # noqa: F401  it adds its models
from tests.pruning.models import MODELS
from tests.pruning.oracles import OBJECTS, assert_same_answers, loaded, values
from tests.pruning.test_refusals import changed

DATA, INDEX, GRAPH = "variables/variables.data-00000-of-00001", "variables/variables.index", "saved_model.pb"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "model"
    MODELS["lists_and_dicts"](path)
    return path


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    shutil.copytree(model, path)
    return path


def refused(path: Path) -> str:
    """What is said of a model that cannot be pruned; and nothing is left of the try."""
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    with pytest.raises(gp.GradpassError) as caught:
        gp.prune(path, cross_check=False)
    assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    said = str(caught.value)
    assert "\n" not in said
    return said


def in_shards(path: Path) -> Path:
    """Writes the checkpoint anew in two files; gives the second."""
    prefix = path / "variables" / "variables"
    held = {**values(path), OBJECTS: tf.train.load_checkpoint(str(prefix)).get_tensor(OBJECTS)}
    for file in prefix.parent.iterdir():
        file.unlink()
    names = sorted(held)
    parts = [f"{prefix}-part-{i}" for i in range(2)]
    for part, mine in zip(parts, (names[:4], names[4:]), strict=True):
        tensors = [held[name] for name in mine]
        tf.raw_ops.SaveV2(prefix=part, tensor_names=mine, shape_and_slices=[""] * len(mine), tensors=tensors)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix), delete_old_dirs=False)
    return path / "variables" / "variables.data-00001-of-00002"


def test_shards(copy: Path) -> None:
    """A checkpoint in several files is one as good as another; without one of them it is none."""
    second = in_shards(copy)
    report = gp.prune(copy, cross_check=False)
    assert_same_answers(loaded(copy), loaded(Path(str(report.output))))
    shutil.rmtree(str(report.output))
    second.unlink()
    assert "cannot be read" in refused(copy)


@pytest.mark.parametrize("lost", [DATA, INDEX, "variables", GRAPH])
def test_what_is_missing(lost: str, copy: Path) -> None:
    path = copy / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(copy)


@pytest.mark.parametrize("file", [DATA, INDEX, GRAPH])
@pytest.mark.parametrize(
    "change",
    [lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: bytes(len(raw))],
    ids=["empty", "half", "zeros"],
)
def test_what_is_damaged(file: str, change: Callable[[bytes], bytes], copy: Path) -> None:
    path = copy / file
    path.write_bytes(change(path.read_bytes()))
    refused(copy)


def test_a_bit_of_a_weight(copy: Path) -> None:
    """TensorFlow keeps a checksum of every tensor."""
    raw = bytearray((copy / DATA).read_bytes())
    kept = values(copy)["items/3/.ATTRIBUTES/VARIABLE_VALUE"].tobytes()
    raw[raw.index(kept)] ^= 1
    (copy / DATA).write_bytes(raw)
    assert "items/3" in refused(copy)


@pytest.mark.parametrize(
    "word",
    [
        "VarHandleOp",
        "StatefulPartitionedCall",
        "__inference__traced_save",
        "RestoreV2",
        "items/1/.ATTR",
        "_user_object",
    ],
)
def test_a_word_of_the_graph(word: str, copy: Path) -> None:
    """Parts of the file are parsed when they are first asked for, wherever that is: what is no text is damage."""
    raw = (copy / GRAPH).read_bytes()
    text = word.encode()
    assert text in raw
    (copy / GRAPH).write_bytes(raw.replace(text, text[:-1] + b"\xff"))
    assert "save it again" in refused(copy)


def test_a_call_that_does_not_fit(model: Path, tmp_path: Path) -> None:
    """A graph that was broken before is no fault of who prunes it."""

    def change(nodes: Any) -> None:
        nodes["serving_default_x"].attr["dtype"].type = 3

    assert "is damaged" in refused(changed(model, tmp_path / "model", change))
