"""`gradpass.prune` on live targets: same values, the very same variables, fewer of them, and the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from gradpass.errors import GradpassError
from gradpass.live.frameworks import name_of, plain
from gradpass.live.layers import HISTORY, functional_of, made_by

both = pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
RNG = np.random.default_rng(0)
X = np.float32(RNG.random((8, 5)))
TOKENS = {"ids": RNG.integers(0, 7, (4, 5)), "types": RNG.integers(0, 2, (4, 5))}


def handles(model: Any) -> list[int]:
    return [id(plain(weight)) for weight in model.weights]


def gradients(model: Any, x: Any, places: list[int], of: Any) -> list[Any]:
    """Of the sum of squares of some outputs, for the variables of another model."""
    with tf.GradientTape() as tape:
        flat = tf.nest.flatten(model(x, training=False))
        value = tf.add_n([tf.reduce_sum(tf.square(tf.cast(flat[i], tf.float32))) for i in places])
    found = tape.gradient(value, [plain(v) for v in of.trainable_variables])
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in found]


def proved(model: Any, x: Any, gone: list[str], places: list[int] | None = None, **options: Any) -> Any:
    """The pruned model, proved on its numbers; `gone` are the layers that went."""
    before = tf.nest.flatten(model(x, training=False))
    places = list(range(len(before))) if places is None else places
    pruned = gp.prune(model, x, **options)
    # In tf_keras operations are layers, too.
    assert sorted(name for name in pruned.report.layers if not name.startswith("tf.")) == sorted(gone)
    assert pruned.report.crosscheck[0].status == "passed"
    after = tf.nest.flatten(pruned(x, training=False))
    for place, tensor in zip(places, after, strict=True):
        np.testing.assert_array_equal(before[place], tensor)
    assert set(handles(pruned)) < set(handles(model))
    assert not {name_of(weight) for weight in pruned.weights} & set(pruned.report.removed)
    old = gradients(model, x, places, pruned)
    new = gradients(pruned, x, list(range(len(places))), pruned)
    assert any(g is not None for g in old)
    for one, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(one, other)
    return pruned


def bert(module: Any) -> Any:
    """A backbone with a pooler that the classifier does not read."""
    layers = module.layers
    ids, types = module.Input((5,), dtype="int32", name="ids"), module.Input((5,), dtype="int32", name="types")
    hidden = layers.Embedding(7, 8, mask_zero=True)(ids) + layers.Embedding(2, 8)(types)
    hidden = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(hidden, hidden))
    pooled = layers.Dense(8, activation="tanh", name="pooler")(hidden[:, 0])
    outputs = {"sequence_output": hidden, "pooled_output": pooled}
    backbone = module.Model({"ids": ids, "types": types}, outputs, name="backbone")
    given = {name: module.Input((5,), dtype="int32", name=name) for name in TOKENS}
    return module.Model(given, layers.Dense(3, name="head")(backbone(given)["sequence_output"]), name="classifier")


@both
def test_a_backbone_loses_its_pooler(module: Any, tmp_path: Path) -> None:
    model = bert(module)
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(TOKENS, np.ones((4, 5, 3)), verbose=0)
    pruned = proved(model, TOKENS, ["pooler"])
    assert pruned.report.removed == ["pooler/kernel", "pooler/bias"]
    before, after = pruned.report.before, pruned.report.after
    assert before.parameters - after.parameters == 72 and before.variables - after.variables == 2
    assert after.nodes < before.nodes
    assert pruned.get_layer("backbone").layers[0].name == "ids" and pruned.name == "classifier"
    assert "nothing needs `pooler/kernel` and `pooler/bias`" in str(pruned.report)
    assert model.get_layer("backbone").get_layer("pooler") is not None  # the original is as it was
    # It goes on training from the state that the optimizer had, and the original trains on.
    assert int(pruned.optimizer.iterations) == 1 and pruned.optimizer is not model.optimizer
    assert len(pruned.optimizer.variables) == len(model.optimizer.variables) - 4
    first = pruned.evaluate(TOKENS, np.ones((4, 5, 3)), verbose=0)
    pruned.fit(TOKENS, np.ones((4, 5, 3)), epochs=3, verbose=0)
    assert pruned.evaluate(TOKENS, np.ones((4, 5, 3)), verbose=0)[0] < first[0]
    model.fit(TOKENS, np.ones((4, 5, 3)), verbose=0)
    pruned.save(tmp_path / "model.keras")
    again = module.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(TOKENS, verbose=0), model.predict(TOKENS, verbose=0))
    pruned.export(str(tmp_path / "export"), **({"verbose": False} if module is keras else {}))
    assert (tmp_path / "export" / "saved_model.pb").exists()
    assert gp.prune(pruned) is pruned and "nothing is dead" in str(pruned.report)


def towers(module: Any) -> Any:
    """Two towers in one model, of which one is read; the other is fed by a layer of the model around."""
    layers = module.layers
    left, right = module.Input((5,), name="left"), module.Input((4,), name="right")
    a = layers.Dense(3, name="tower_a")(left)
    b = layers.BatchNormalization(name="norm_b")(layers.Dense(3, name="tower_b")(right))
    both_towers = module.Model([left, right], [a, b], name="towers")
    x = module.Input((5,), name="x")
    a, _ = both_towers([layers.Dropout(0.5, name="drop")(x), layers.Dense(4, name="feeder")(x)])
    return module.Model(x, layers.Dense(1, name="top")(a))


def levels(module: Any) -> Any:
    """Dead in the model in the model in the model."""
    layers = module.layers
    inner_in = module.Input((5,), name="inner_in")
    shared = layers.Dense(4, name="shared")(inner_in)
    inner = module.Model(inner_in, [shared, layers.Dense(4, name="deep")(shared)], name="inner")
    middle_in = module.Input((5,), name="middle_in")
    first, second = inner(middle_in)
    third = layers.Dense(2, name="after_deep")(second)
    middle = module.Model(middle_in, {"a": layers.ReLU(name="relu")(first), "b": third}, name="middle")
    sequence = module.Sequential([module.Input((5,)), layers.Dense(5, name="begin")], name="sequence")
    x = module.Input((5,), name="x")
    return module.Model(x, layers.Dense(1, name="top")(middle(sequence(x))["a"]), name="outer")


def twice(module: Any) -> Any:
    """A layer at two places, of which one is dead, and a nested model that is called twice, each time for another
    output: both stay."""
    layers = module.layers
    tied = layers.Dense(5, name="tied")
    x = module.Input((5,), name="inner_x")
    hidden = tied(x)
    two = module.Model(x, [hidden, layers.Dense(2, name="lost")(tied(hidden))], name="two")
    y = module.Input((5,), name="inner_y")
    outputs = [layers.Dense(2, name="p")(y), layers.Dense(2, name="q")(y), layers.Dense(2, name="r")(y)]
    three = module.Model(y, outputs, name="three")
    x = module.Input((5,), name="x")
    hidden, _ = two(x)
    return module.Model(x, layers.Add(name="sum")([three(hidden)[0], three(x)[2]]))


def lambdas(module: Any) -> Any:
    layers = module.layers
    x = module.Input((5,), name="inner_x")
    hidden = layers.Lambda(lambda t: 2.0 * t, name="double")(layers.Dense(4, name="first")(x))
    dead = layers.Lambda(lambda t: t + 1.0, name="dead_lambda")(layers.Dense(4, name="dead_dense")(hidden))
    inner = module.Model(x, (hidden, dead), name="inner")
    x = module.Input((5,), name="x")
    return module.Model(x, layers.Dense(1, name="top")(inner(x)[0]))


MODELS = {
    "towers": (towers, ["tower_b", "norm_b", "feeder"]),
    "levels": (levels, ["deep", "after_deep"]),
    "twice": (twice, ["lost", "q"]),
    "lambdas": (lambdas, ["dead_lambda", "dead_dense"]),
}


@both
@pytest.mark.parametrize("name", MODELS)
def test_what_reaches_no_output_goes(module: Any, name: str) -> None:
    make, gone = MODELS[name]
    model = make(module)
    pruned = proved(model, X, gone)
    # Those that stay are the very layers that were there, but for the models that lost something.
    kept = {layer.name: layer for layer in pruned.layers if not isinstance(layer, module.Model)}
    for layer in model.layers:
        if layer.name in kept and not isinstance(layer, module.layers.InputLayer):
            assert kept[layer.name] is layer
    assert [tensor.shape for tensor in pruned.inputs] == [tensor.shape for tensor in model.inputs]
    assert pruned.output_names == model.output_names
    pruned.compile("sgd", "mse")
    pruned.fit(X, np.ones((8, *pruned.output_shape[1:])), verbose=0)


@both
def test_mixed_precision_stays(module: Any) -> None:
    before = module.mixed_precision.global_policy()
    module.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = towers(module)
        model.compile("adam", "mse")
        model.fit(X, np.ones((8, 1)), verbose=0)
    finally:
        module.mixed_precision.set_global_policy(before)
    pruned = proved(model, X, ["tower_b", "norm_b", "feeder"])
    assert pruned.get_layer("top").compute_dtype == "float16" and pruned(X).dtype == tf.float16
    assert pruned.dtype_policy.name == model.dtype_policy.name
    assert type(pruned.optimizer) is type(model.optimizer)
    pruned.fit(X, np.ones((8, 1)), verbose=0)


@both
def test_nothing_dead(module: Any) -> None:
    model = module.Sequential([module.Input((5,)), module.layers.Dense(2)])
    assert gp.prune(model) is model
    assert model.report.after is None and not model.report.layers
    # An input that nobody reads stays: who calls the model gives it.
    a, b = module.Input((5,), name="a"), module.Input((5,), name="b")
    model = module.Model([a, b], module.layers.Dense(2)(a))
    assert gp.prune(model, [X, X]) is model


@both
def test_a_sequential_model_with_a_model_in_it(module: Any) -> None:
    inner = towers(module)
    model = module.Sequential([module.Input((5,)), module.layers.Dense(5, name="before"), inner])
    pruned = proved(model, X, ["tower_b", "norm_b", "feeder"])
    assert isinstance(pruned, module.Sequential) and len(pruned.layers) == 2


def heads(module: Any, kind: str) -> Any:
    layers = module.layers
    x = module.Input((5,), name="x")
    hidden = layers.Dense(4, name="body")(x)
    outputs = {name: layers.Dense(2, name=name)(hidden) for name in ("first", "second", "third")}
    return module.Model(x, outputs if kind == "dict" else list(outputs.values()))


@both
@pytest.mark.parametrize("kind", ["dict", "list"])
def test_outputs_that_no_loss_reads(module: Any, kind: str) -> None:
    model = heads(module, kind)
    losses: Any = {"first": "mse", "second": None, "third": "mae"}
    metrics: Any = {"second": ["mae"], "third": ["mse"]}
    if kind == "list":
        losses, metrics = list(losses.values()), [[], ["mae"], ["mse"]]
    model.compile("sgd", losses, metrics=metrics)
    told = gp.prune(model)
    assert told is model and told.report.after is None and not told.report.outputs
    (found,) = told.report.diagnostics
    assert found.code == "GP221" and found.unused == ["second/kernel", "second/bias"]
    assert "for `second` alone" in str(told.report)
    pruned = proved(model, X, ["second"], [0, 2], only_loss=True)
    assert pruned.report.outputs == ["second"] and pruned.output_names == ["first", "third"]
    assert isinstance(pruned(X), dict if kind == "dict" else list)
    y = {name: np.ones((8, 2)) for name in ("first", "third")}
    pruned.fit(X, y if kind == "dict" else list(y.values()), verbose=0)
    assert not any("second" in name for name in pruned.metrics_names)


@both
@pytest.mark.parametrize(
    "loss",
    [
        ["first"],
        {"first"},
        {"first": "mse"},
        ["mse", None, None],
        lambda outputs: tf.reduce_sum(outputs[0]),
        lambda labels, outputs: tf.reduce_mean(labels[0] - outputs[0]),
    ],
)
def test_how_a_loss_is_given(module: Any, loss: Any) -> None:
    pruned = proved(heads(module, "list"), X, ["second", "third"], [0], loss=loss, only_loss=True)
    assert pruned.report.outputs == ["second", "third"] and len(pruned.outputs) == 1


def test_what_is_no_loss() -> None:
    model = heads(keras, "dict")
    with pytest.raises(GradpassError, match="has no output 'fourth'; it has first, second, third"):
        gp.prune(model, loss={"fourth": "mse"})
    with pytest.raises(GradpassError, match="2 losses for 3 outputs"):
        gp.prune(model, loss=["mse", None])
    with pytest.raises(GradpassError, match="no loss reads an output"):
        gp.prune(model, loss=[None, None, None], only_loss=True)


def affecting(module: Any, kind: str) -> Any:
    """A model whose dead half does something beside giving outputs."""
    layers = module.layers

    def loud(t: Any) -> Any:
        tf.print("dead")
        return t

    x = module.Input((5,), name="inner_x")
    norm = layers.BatchNormalization(name="norm")
    hidden = norm(x)
    if kind == "loss":
        dead = layers.Dense(2, activity_regularizer="l2", name="effect")(hidden)
    elif kind == "shared state":
        dead = norm(layers.Dense(5, name="effect")(hidden))
    else:
        dead = layers.Lambda(loud, name="effect")(hidden)
    inner = module.Model(x, [hidden, layers.Dense(1, name="behind")(dead), layers.Dense(1, name="dead")(hidden)])
    x = module.Input((5,), name="x")
    return module.Model(x, layers.Dense(1, name="top")(inner(x)[0]))


@both
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("loss", "it adds a loss"),
        ("shared state", "it changes a variable that others read"),
        ("print", "it runs PrintV2"),
    ],
)
def test_what_a_layer_does_beside_keeps_it(module: Any, kind: str, reason: str) -> None:
    pruned = proved(affecting(module, kind), X, ["dead"])
    assert reason in pruned.report.kept.values() and "kept: " in str(pruned.report)
    assert not {"effect/kernel", "behind/kernel"} & set(pruned.report.removed)


def test_keras_keeps_its_graph_where_we_look_for_it() -> None:
    """What no public function of Keras tells."""
    for module in (keras, tf_keras):
        x = module.Input((5,))
        layer = module.layers.Dense(2)
        y = layer(x)
        assert hasattr(y, HISTORY)
        call, place = made_by(y)
        assert call.layer is layer and call.tensors[0] is x and call.outputs[0] is y and place == 0
        model = module.Model(x, y)
        assert type(model) is functional_of(module) and model._trainable
        model.compile("sgd", "mse")
        assert model._compile_config.config["loss"] == "mse"


@both
def test_a_frozen_model_stays_frozen(module: Any) -> None:
    model = towers(module)
    inner = model.get_layer("towers")
    inner.trainable = False
    inner.get_layer("tower_a").trainable = True
    pruned = gp.prune(model)
    assert [id(plain(v)) for v in pruned.trainable_variables] == [
        id(plain(v))
        for v in model.trainable_variables
        if "feeder" not in v.name and "feeder" not in getattr(v, "path", "")
    ]
    assert inner.get_layer("tower_a").trainable and not pruned.get_layer("towers").trainable


@both
def test_a_train_step_of_its_own_is_not_left_out(module: Any) -> None:
    class Own(module.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            return {"loss": tf.constant(0.0)}

    made = towers(module)
    kept = Own(made.input, made.output)
    assert type(gp.prune(kept)) is type(kept)

    class Other(Own):
        def __init__(self) -> None:
            super().__init__(made.input, made.output)

    with pytest.raises(GradpassError, match="has a train_step of its own"):
        gp.prune(Other())
