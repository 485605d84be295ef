"""What a graph without signatures ends in."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from gradpass.program.savedmodel import read


def test_all_results_of_an_end_are_outputs(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [4], "x")
        tf.split(x * 2.0, 2, name="halves")
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    (entry,) = read(path).entry(None)
    assert list(entry.outputs) == ["halves", "halves:1"] and list(entry.inputs) == ["x"]


def test_file_names_are_no_inputs_of_a_training_graph(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [4], "x")
        v = tf.compat.v1.get_variable("v", [4])
        tf.reduce_sum(x * v, name="loss")
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        saver.save(session, str(tmp_path / "model"))
    (entry,) = read(tmp_path / "model.meta").entry(None)
    assert list(entry.inputs) == ["x"] and list(entry.outputs) == ["loss"]
