"""Small functions over three variables, saved, and what pruning leaves of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradpass.program import savedmodel
from gradpass.program.model import Model
from gradpass.pruning.disk import prune_to
from gradpass.pruning.prune import Pruned, prune

X = np.float32([[0.5, -1.0, 2.0]])
Body = Callable[[Any, Any], Any]


class Three(tf.Module):
    """Variables a, b and c [3, 3], and one function of them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.a, self.b, self.c = (tf.Variable(rng.random((3, 3)), dtype=tf.float32, name=name) for name in "abc")
        self.count = tf.Variable(0.0, trainable=False, name="count")
        self.serve = tf.function(lambda x: body(self, x), [tf.TensorSpec([None, 3], tf.float32, "x")])


def saved(body: Body, path: Path, **options: Any) -> Path:
    """A SavedModel of a function (module, x) -> outputs by name."""
    module = Three(body)
    tf.saved_model.save(module, str(path), {"serving_default": module.serve}, tf.saved_model.SaveOptions(**options))
    return path


def pruned(body: Body, path: Path, **options: Any) -> tuple[Model, Pruned]:
    """The model before, and what pruning makes of it; every bit of every output is as it was."""
    source = saved(body, path / "model", **options)
    model = savedmodel.read(source)
    out = path / "pruned"
    report = prune_to(
        source, out, entry=None, loss=None, without_rest=False, dry_run=False, cross_check=False, force=False,
        progress=lambda _: None,
    )  # fmt: skip
    if report.output is not None:
        before, after = (answers(each) for each in (source, out))
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, strict=True)
    return model, prune(model)


def answers(path: Path) -> dict[str, Any]:
    """What the signature gives for X, right after loading."""
    given = tf.saved_model.load(str(path)).signatures["serving_default"](x=tf.constant(X))
    return {name: value.numpy() for name, value in given.items()}


def removed(done: Pruned) -> set[str]:
    """The names of the variables that went."""
    return {variable.name for variable in done.removed}


def ops(model: Model) -> Counter[str]:
    """How many nodes of each op the functions have that the signature runs; saver and tables are left out."""
    names = [n for n in model.program.functions if "traced_" not in n and "creator" not in n]
    return Counter(node.op for name in names for node in model.program.function(name).nodes)
