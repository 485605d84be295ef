"""A checkpoint is copied part by part: never more than a bound is held, and what is written is one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.pruning import checkpoint
from gradpass.pruning.checkpoint import Checkpoint
from tests.pruning.programs import answers


def model(path: Path) -> Path:
    """Twelve weights of 4,000 bytes, of which every third is dead."""
    module = tf.Module()
    module.weights = [tf.Variable(tf.fill([1000], float(i))) for i in range(12)]

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def serve(x: Any) -> Any:
        kept = [weight for i, weight in enumerate(module.weights) if i % 3]
        return {"y": x[0, 0] + tf.add_n([tf.reduce_sum(weight) for weight in kept])}

    tf.saved_model.save(module, str(path), {"serving_default": serve})
    return path


def test_no_more_is_held_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "AT_ONCE", 8000)
    written: list[int] = []
    save = tf.raw_ops.SaveV2

    def counted(**arguments: Any) -> Any:
        written.append(sum(tensor.numpy().nbytes for tensor in arguments["tensors"] if tensor.dtype != tf.string))
        return save(**arguments)

    monkeypatch.setattr(tf.raw_ops, "SaveV2", counted)
    source = model(tmp_path / "m")
    written.clear()
    gp.prune(source, tmp_path / "out", cross_check=False)
    assert written == [8000] * 4  # the object graph goes with the first
    shards = sorted(path.name for path in (tmp_path / "out" / "variables").iterdir())
    assert shards == [*(f"variables.data-0000{i}-of-00004" for i in range(4)), "variables.index"]
    np.testing.assert_array_equal(answers(tmp_path / "out")["y"], answers(source)["y"])


def test_a_small_one_is_one_file(tmp_path: Path) -> None:
    gp.prune(model(tmp_path / "m"), tmp_path / "out", cross_check=False)
    names = sorted(path.name for path in (tmp_path / "out" / "variables").iterdir())
    assert names == ["variables.data-00000-of-00001", "variables.index"]


@pytest.mark.parametrize("dtype", ["bfloat16", "half", "int8", "bool", "complex64", "string", "uint16"])
def test_every_dtype_keeps_its_bits(dtype: str, tmp_path: Path) -> None:
    values = {"a": tf.cast([0, 1, 2], "float32"), "b": tf.constant([3, 4], tf.int64)}
    kind = tf.dtypes.as_dtype(dtype)
    values["c"] = tf.constant(["x", "yz"]) if kind == tf.string else tf.cast([0, 1, 1], kind)
    names = list(values)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "ckpt"), tensor_names=names, shape_and_slices=[""] * 3, tensors=list(values.values())
    )
    before = Checkpoint(tmp_path / "ckpt")
    before.write(tmp_path / "copy", ["a", "c"], None)
    after = Checkpoint(tmp_path / "copy")
    assert set(after.dtypes) == {"a", "c"} and after.dtypes["c"] == kind
    assert before.same("c", "c", after) and before.same("a", "a", after) and not before.same("a", "b")
