"""`gradpass.prune` on what is no functional model: subclassed models, layers, modules, functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.errors import GradpassError
from gradpass.live.frameworks import plain
from tests.live.dead import (
    Module,
    X,
    both,
    same,
    subclassed,
    values,
)


def regularized(model: Any) -> Any:
    """The losses of weights, which are the last ones and need no call."""
    return model.losses[-1:]


@both
def test_a_subclassed_model(module: Any, tmp_path: Path) -> None:
    model = subclassed(module)
    pruned = gp.prune(model, X)
    report = pruned.report
    assert report.layers == ["dropped", "never"] and len(report.removed) == 4
    assert report.crosscheck[0].status == "passed"
    assert report.before.variables - report.after.variables == 4 and report.after.nodes < report.before.nodes
    assert report.before.parameters - report.after.parameters == 3 * 4 + 3 + 3 * 5 + 3
    kept = [v for layer in (model.body, model.norm, model.top) for v in layer.weights]
    assert {id(v) for v in pruned.variables} == {id(plain(v)) for v in kept}
    trained = {id(plain(v)) for v in model.trainable_variables}
    assert [id(v) for v in pruned.trainable_variables] == [id(v) for v in pruned.variables if id(v) in trained]
    before = [v.numpy() for v in pruned.variables]
    same(values(model, X, training=False), values(pruned, X))
    assert pruned(X).keys() == {"out", "hidden"}
    found = []
    # Both as graphs: op by op a norm's derivative has other last bits, pruned or not.
    for function, losses in ((tf.function(model), model), (pruned, pruned)):
        for variable, value in zip(pruned.variables, before, strict=True):
            variable.assign(value)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(X, training=True)["out"] ** 2) + tf.add_n(regularized(losses))
        gradients_ = tape.gradient(loss, pruned.trainable_variables)
        # The moving statistics are changed by the pruned one, too.
        found.append([loss, *gradients_, *(v.numpy() for v in pruned.variables)])
    same(*([np.asarray(each) for each in one] for one in found))
    assert any((v.numpy() != value).any() for v, value in zip(pruned.variables, before, strict=True))
    # What is saved has the values that the variables have then, and those that are needed only.
    pruned.save(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    served = loaded.signatures["serving_default"](inputs=tf.constant(X))
    same(values(pruned, X), [served[f"output_{i}"].numpy() for i in range(2)])
    assert gp.check(tmp_path / "saved").to_json()["summary"]["targets"] == len(pruned.trainable_variables)
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "saved" / "variables" / "variables"))]
    assert len([name for name in names if name.startswith("variables_of_the_target")]) == len(pruned.variables)


@both
def test_a_subclassed_model_without_what_no_loss_reads(module: Any) -> None:
    class Two(module.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = module.layers.Dense(2, name="first"), module.layers.Dense(2, name="second")

        def call(self, x: Any) -> Any:
            return {"a": self.first(x), "b": self.second(x)}

    model = Two()
    model(X)
    model.compile("sgd", {"a": "mse", "b": None})
    told = gp.prune(model, X).report
    (found,) = told.diagnostics
    assert found.code == "GP221" and found.parameters == 12 and told.after is None
    pruned = gp.prune(model, X, only_loss=True)
    assert pruned.report.layers == ["second"] and pruned.report.outputs == ["b"]
    assert pruned(X).keys() == {"a"} and len(pruned.variables) == 2
    same(values(pruned, X), values(lambda x: model(x)["a"], X))


@both
def test_a_layer(module: Any) -> None:
    class Layer(module.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.used = self.add_weight(shape=(5,), name="used")
            self.other = self.add_weight(shape=(7,), name="other")

        def call(self, x: Any) -> Any:
            tf.reduce_sum(self.other)
            return x * self.used

    layer = Layer()
    pruned = gp.prune(layer, X)
    assert [id(v) for v in pruned.variables] == [id(plain(layer.used))] and pruned.report.removed[0].endswith("other")
    same(values(layer, X), values(pruned, X))


@pytest.mark.parametrize("table", [False, True])
def test_a_module(table: bool, tmp_path: Path) -> None:
    module = Module(table)
    pruned = gp.prune(module, X, X)
    assert int(module.steps) == 0  # what was tried has left no trace
    assert pruned.report.removed == ["b", "c"] and not pruned.report.failed
    assert {id(v) for v in pruned.variables} == {id(module.w), id(module.steps)}
    assert [id(v) for v in pruned.trainable_variables] == [id(module.w)]
    same(values(module, X, X), values(pruned, X, X))
    assert int(module.steps) == 2 and isinstance(pruned(X, X), tuple)
    module.w.assign(tf.zeros(5))
    assert not values(pruned, X, X)[0].any()
    pruned.save(tmp_path / "saved")
    with pytest.raises(GradpassError, match="exists"):
        pruned.save(tmp_path / "saved")
    pruned.save(tmp_path / "saved", force=True)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    assert not served(input_0=tf.constant(X), input_1=tf.constant(X))["output_0"].numpy().any()


def test_functions(tmp_path: Path) -> None:
    v, w = tf.Variable([1.0, 2.0], name="v"), tf.Variable([3.0, 4.0], name="w")

    def plain_function(x: Any) -> Any:
        tf.square(w)
        return v * x if tf.reduce_sum(x) > 0 else v

    x = tf.constant([1.0, -2.0])
    for function in (plain_function, tf.function(plain_function)):
        pruned = gp.prune(function, x)
        assert pruned.report.removed == ["w"] and [id(each) for each in pruned.variables] == [id(v)]
        with tf.GradientTape() as tape:
            value = pruned(-x)
        same([tape.gradient(value, v)], [-x])
        clean = gp.prune(pruned, x)
        assert clean.report.after is None and clean.report.outcome == "nothing is dead"
        same(values(clean, x), values(function, x))
        clean.save(tmp_path / "clean", force=True)
        tf.saved_model.load(str(tmp_path / "clean"))


def test_a_traced_function_of_a_model() -> None:
    """Outside of Keras 3 its variables have names that several bear."""
    model = subclassed(keras)
    concrete = tf.function(model).get_concrete_function(tf.TensorSpec([None, 5]))
    for target in (concrete, model.call):
        pruned = gp.prune(target, X)
        assert len(pruned.report.removed) == 2
        held = {id(variable) for variable in pruned.variables}
        assert held.isdisjoint(id(weight.value) for weight in model.dropped.weights)
        assert held.issuperset(id(weight.value) for weight in model.top.weights)
        assert "b'" not in pruned.report.target
        same(values(model, X), values(pruned, X))


def test_what_a_saved_model_would_lose() -> None:
    w, dead = tf.Variable([2.0, 3.0], name="w"), tf.Variable([1.0], name="dead")

    def inner(i: Any, x: Any) -> Any:
        return i + 1, x * w

    def outer(i: Any, x: Any) -> Any:
        return i + 1, tf.while_loop(lambda j, _: j < 2, inner, (0, x))[1]

    def function(x: Any) -> Any:
        tf.square(dead)
        return tf.while_loop(lambda i, _: i < 2, outer, (0, x))[1]

    with pytest.raises(GradpassError, match=r"was not pruned: .* loaded from one `w` would lose a gradient"):
        gp.prune(function, tf.constant([1.0, 1.0]))


def test_what_cannot_be_pruned() -> None:
    with pytest.raises(GradpassError, match="changes while it runs"):
        gp.prune(Module(mutable=True), X, X)
    with pytest.raises(GradpassError, match="give inputs"):
        gp.prune(subclassed(keras))
    with pytest.raises(GradpassError, match="no output 'c'; there are a, b"):
        gp.prune(lambda x: {"a": x, "b": x}, X, loss={"c"})
