"""Loading for signatures alone: what cannot be revived does no harm, what signatures need stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.crosscheck.load import load_plain
from gradpass.program import savedmodel, wire
from gradpass.program.writer import write_saved_model

from .conftest import ROWS, Save, checks, severed


def edit_objects(folder: Path, change: Any) -> None:
    """Changes the object graph of a SavedModel in place."""

    def edited(objects: memoryview) -> bytes:
        graph = SavedObjectGraph.FromString(bytes(objects))
        change(graph)
        return bytes(graph.SerializeToString())

    pb = (folder / "saved_model.pb").read_bytes()
    new = wire.edit(pb, savedmodel.META_GRAPHS, lambda _, m: wire.edit_only(m, savedmodel.OBJECT_GRAPH_DEF, edited))
    (folder / "saved_model.pb").write_bytes(new)


def test_what_cannot_be_revived_does_no_harm(original: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(original, broken)

    def make_optimizer_of_root(graph: SavedObjectGraph) -> None:
        graph.nodes[0].user_object.identifier = "optimizer"
        slot = graph.nodes[0].slot_variables.add(slot_name="m")
        variables = [i for i, node in enumerate(graph.nodes) if node.WhichOneof("kind") == "variable"]
        slot.original_variable_node_id, slot.slot_variable_node_id = variables

    edit_objects(broken, make_optimizer_of_root)
    with pytest.raises((AttributeError, ImportError, ValueError, KeyError)):
        tf.saved_model.load(str(broken))
    assert {c.status for c in checks(original, broken, ["codebook"]).values()} == {"passed"}


def test_the_source_is_not_touched(original: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in original.rglob("*") if p.is_file()}
    folder = load_plain(original).folder
    assert folder is not None
    folder.cleanup()
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in original.rglob("*") if p.is_file()}


def test_loading_twice_gives_separate_models(original: Path) -> None:
    one, two = load_plain(original), load_plain(original)
    one.root.w.assign(tf.zeros_like(one.root.w))
    assert np.count_nonzero(two.root.w.numpy())
    assert one.signatures["serving_default"].outputs == two.signatures["serving_default"].outputs


def test_tables_and_assets_stay(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(str(n) for n in range(5, 10)))
    module = tf.Module()
    module.w = tf.Variable(np.arange(10.0), dtype=tf.float32, name="w")
    text = tf.lookup.TextFileInitializer(
        str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(text, 9)
    spec = tf.TensorSpec([None], tf.string, "word")
    module.run = tf.function(lambda word: {"y": tf.gather(module.w, module.table.lookup(word))}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.run)
    words.unlink()
    loaded = load_plain(tmp_path / "m")
    answer = loaded.signatures["serving_default"].call({"word": tf.constant(["6", "no"])})
    np.testing.assert_array_equal(answer["y"].numpy(), [1.0, 9.0])
    answers = checks(tmp_path / "m", tmp_path / "m", ["w"])
    assert [answers["values"].status, answers["verdict"].status] == ["passed", "passed"]
    assert answers["onnx-original"].status == "skipped"
    assert answers["onnx-original"].reason


def test_keras_models_load_without_keras_objects(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 6)), np.ones((4, 2)), verbose=0)
    model.export(str(tmp_path / "m"), verbose=False)
    kernels = [v.path for v in model.trainable_variables]
    answers = checks(tmp_path / "m", tmp_path / "m", kernels)
    assert {check.status for check in answers.values()} == {"passed"}


@pytest.mark.parametrize("resource", [True, False])
def test_tensorflow_1_models_load(tmp_path: Path, resource: bool) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        w = tf.compat.v1.get_variable("w", [3, 2], use_resource=resource)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "m"), {"x": x}, {"y": x @ w})
    answers = checks(tmp_path / "m", tmp_path / "m", ["w"])
    assert answers["values"].status == "passed"
    # What TensorFlow 2 does not show of a reference variable is said, not guessed.
    assert answers["verdict"].status == ("passed" if resource else "skipped"), answers["verdict"]
    assert answers["onnx-fixed"].status == answers["verdict"].status


def test_frozen_graphs_load(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        tf.argmax(x * 2.0, -1, name="index")
        tf.add(x, 1.0, name="plus")
    (tmp_path / "a.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (tmp_path / "b.pb").write_bytes(graph.as_graph_def().SerializeToString().replace(b"ArgMax", b"ArgMin"))
    same = checks_of_graph(tmp_path / "a.pb", tmp_path / "a.pb")
    assert [c.status for c in same] == ["passed"] * 4
    other = checks_of_graph(tmp_path / "a.pb", tmp_path / "b.pb")
    assert other[0].status == "failed"
    assert "index in" in (other[0].reason or "")


def checks_of_graph(original: Path, fixed: Path) -> list[Any]:
    from gradpass.crosscheck import crosscheck

    return crosscheck(original, fixed, entries=["graph"], promised={"graph": ["x"]}, mode="straight-through")


def test_the_writers_output_loads_and_has_a_fingerprint_of_its_own(original: Path, save: Save, tmp_path: Path) -> None:
    pb = (save(severed) / "saved_model.pb").read_bytes() + wire.delimited(99, b"unknown fields are allowed")
    write_saved_model(original, tmp_path / "out", pb, force=False)
    assert {c.status for c in checks(original, tmp_path / "out", ["codebook"]).values()} == {"passed"}
    read = tf.saved_model.experimental.read_fingerprint
    old, new = read(str(original)), read(str(tmp_path / "out"))
    assert old.saved_model_checksum != new.saved_model_checksum
    assert old.checkpoint_hash == new.checkpoint_hash
    assert new.singleprint()


INTEGERS = tf.TensorSpec([None, None], tf.int32, "x")


@pytest.mark.parametrize(
    ("spec", "build"),
    [
        (INTEGERS, lambda x, w, c: {"y": tf.gather(w, x)}),
        (tf.TensorSpec(None, tf.float32, "x"), lambda x, w, c: {"y": tf.reshape(x, [-1, 5]) @ w}),
        (tf.TensorSpec([None, None, 5], tf.float32, "x"), lambda x, w, c: {"y": tf.reshape(x, [2, -1, 5]) @ w}),
        (tf.TensorSpec([None, 5], tf.complex64, "x"), lambda x, w, c: {"y": tf.abs(x) @ w}),
        (tf.TensorSpec([None, 5], tf.bool, "x"), lambda x, w, c: {"y": tf.cast(x, tf.float32) @ w}),
        (tf.TensorSpec([None, 5], tf.uint8, "x"), lambda x, w, c: {"y": tf.cast(x, tf.float32) @ w}),
        (tf.TensorSpec([None, 5], tf.bfloat16, "x"), lambda x, w, c: {"y": x @ tf.cast(w, tf.bfloat16)}),
    ],
    ids=["bounded", "no-rank", "divisible", "complex", "bool", "uint8", "bfloat16"],
)
def test_inputs_are_found_for(save: Save, spec: tf.TensorSpec, build: Any) -> None:
    model = save(build, spec)
    answers = checks(model, model, ["w"])
    assert answers["values"].status == "passed", answers["values"]
    assert answers["verdict"].status == "passed", answers["verdict"]


def test_a_model_that_accepts_nothing_is_skipped_with_its_words(save: Save) -> None:
    def picky(x: tf.Tensor, w: tf.Variable, c: tf.Variable) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_equal(x, 12345.0, message="only 12345 will do")]):
            return {"y": x @ w}

    answers = checks(save(picky, ROWS), save(picky, ROWS), ["w"])
    assert {check.status for check in answers.values()} == {"skipped"}
    assert "only 12345 will do" in (answers["values"].reason or "")
