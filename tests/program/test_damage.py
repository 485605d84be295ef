"""Files that no TensorFlow wrote: a word about what is wrong, and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.compat.proto.graph_pb2 import GraphDef

from gradpass import check
from gradpass.errors import TargetError


def graph(change: Callable[[Any], None]) -> bytes:
    """x * x + (the sum over a call of a function), with one thing changed."""
    with tf.Graph().as_default() as made:
        x = tf.compat.v1.placeholder(tf.float32, [4], "x")
        called = tf.function(lambda a: a * 2.0, autograph=False)(x)
        tf.add(tf.multiply(x, x, name="square"), called, name="y")
    proto = GraphDef.FromString(made.as_graph_def().SerializeToString())
    nodes = {node.name: node for node in proto.node}
    change({"y": nodes["y"], "call": nodes["PartitionedCall"], "function": proto.library.function[0]})
    return bytes(proto.SerializeToString())


def drop(field: Any) -> None:
    del field[-1]


def rename(function: Any) -> None:
    name, _, _ = function.ret["identity"].partition(":")
    function.ret["identity"] = f"{name}:nothing:0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: drop(g["y"].input), "has 1 inputs, its op AddV2 takes 2"),
        (lambda g: g["call"].input.append("x"), "too many or too few arguments"),
        (lambda g: g["y"].attr.clear(), "lacks the attribute 'T'"),
        (lambda g: g["y"].input.append(""), "refers to the node ''"),
        (lambda g: rename(g["function"]), "which a .* does not have"),
        (lambda g: g["y"].input.__setitem__(0, "square:one"), "refers to `square:one`"),
    ],
)
def test_a_damaged_graph_is_refused(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pb"
    path.write_bytes(graph(change))
    with pytest.raises(TargetError, match=message):
        check(path)
