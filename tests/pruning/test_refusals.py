"""What cannot be told apart is refused before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

import gradpass as gp
from gradpass.program import edit, savedmodel
from gradpass.pruning.objects import Removal
from tests.pruning.programs import saved


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(lambda m, x: {"y": x @ m.a}, tmp_path_factory.mktemp("refused") / "m")


def changed(source: Path, out: Path, change: Any) -> Path:
    """A copy of which the top-level graph is changed."""
    shutil.copytree(source, out)
    read = savedmodel.read(source)
    graph = tf.compat.v1.GraphDef.FromString(read.program.graph.proto.SerializeToString())
    change({node.name: node for node in graph.node})
    proto = type(read.program.graph.proto).FromString(graph.SerializeToString())
    (out / "saved_model.pb").write_bytes(edit.encode(read, [], graph=proto))
    return out


def test_a_name_that_a_dead_and_a_living_variable_bear(model: Path, tmp_path: Path) -> None:
    def share(nodes: Any) -> None:
        nodes["b"].attr["shared_name"].s = nodes["a"].attr["shared_name"].s

    source = changed(model, tmp_path / "m", share)
    with pytest.raises(gp.GradpassError, match="two variables bear the name 'a' in the graph"):
        gp.prune(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_name_that_two_dead_variables_bear_is_no_matter(model: Path, tmp_path: Path) -> None:
    def share(nodes: Any) -> None:
        nodes["b"].attr["shared_name"].s = nodes["c"].attr["shared_name"].s

    report = gp.prune(changed(model, tmp_path / "m", share), tmp_path / "out", cross_check=False)
    assert sorted(report.removed) == ["b", "c", "count"]


def graphs(shared: str) -> tuple[SavedObjectGraph, TrackableObjectGraph]:
    """Objects `alive` and `dead` below the root, which share a node of the checkpoint, or a key of it."""
    mine, theirs = SavedObjectGraph(), TrackableObjectGraph()
    root, other = mine.nodes.add(), theirs.nodes.add()
    for i, name in enumerate(("alive", "dead"), 1):
        root.children.add(node_id=i, local_name=name)
        mine.nodes.add().variable.name = name
        other.children.add(node_id=1 if shared == "node" else i, local_name=name)
        key = "same" if shared == "key" else name
        theirs.nodes.add().attributes.add(name="VARIABLE_VALUE", checkpoint_key=key)
    root.user_object.identifier = "_generic_user_object"
    return mine, theirs


@pytest.mark.parametrize(("shared", "told"), [("node", "share a variable"), ("key", "share the key 'same'")])
def test_a_variable_of_the_checkpoint_that_two_objects_share(shared: str, told: str) -> None:
    mine, theirs = graphs(shared)
    with pytest.raises(gp.GradpassError, match=told):
        Removal(mine, {2}, {}).checkpoint(theirs)


def test_objects_with_values_of_their_own(tmp_path: Path) -> None:
    mine, theirs = graphs("nothing")
    left, lost = Removal(mine, {2}, {}).checkpoint(theirs)
    assert lost == {"dead"} and [child.local_name for child in left.nodes[0].children] == ["alive"]


def test_several_metagraphs(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    file = tmp_path / "m" / "saved_model.pb"
    raw = file.read_bytes()
    file.write_bytes(raw + raw)  # a protobuf twice over is the message with its repeated fields twice
    with pytest.raises(gp.GradpassError, match="several MetaGraphs"):
        gp.prune(tmp_path / "m", tmp_path / "out")


def test_a_model_of_variables_alone(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(gp.GradpassError, match="has no function and no signature, only variables"):
        gp.prune(tmp_path / "m", tmp_path / "out")
