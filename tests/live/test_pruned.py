"""`gradpass.prune` on functional Keras models: same values, the very same variables, fewer of them, same gradients."""

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
from gradpass.live.frameworks import plain
from gradpass.live.layers import HISTORY, functional_of, made_by
from tests.live.dead import (
    TOKENS,
    X,
    affecting,
    bert,
    both,
    handles,
    heads,
    lambdas,
    levels,
    otherwise,
    proved,
    random_model,
    same,
    towers,
    twice,
    values,
)


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
    for each in (pruned, model):
        each.save(tmp_path / "model.keras")
        again = module.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(TOKENS, verbose=0), model.predict(TOKENS, verbose=0))
        assert len(again.weights) == len(each.weights)
    pruned.export(str(tmp_path / "export"), **({"verbose": False} if module is keras else {}))
    assert (tmp_path / "export" / "saved_model.pb").exists()
    assert gp.prune(pruned) is pruned and "nothing is dead" in str(pruned.report)


MODELS = {
    "towers": (towers, ["tower_b", "norm_b", "drop_b", "feeder"]),
    "levels": (levels, ["deep", "after_deep"]),
    "twice": (twice, ["lost", "q"]),
    "otherwise": (otherwise, ["q", "r"]),
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
def test_the_masks_of_inputs_that_stay(module: Any) -> None:
    layers = module.layers
    a, b = module.Input((5, 4), name="a"), module.Input((5, 4), name="b")
    attention = layers.MultiHeadAttention(2, 2, name="attention")
    inner = module.Model([a, b], [layers.Dense(2, name="lost")(a), attention(b, b)], name="inner")
    ids = module.Input((5,), dtype="int32", name="ids")
    first, second = (layers.Embedding(7, 4, mask_zero=True, name=name) for name in ("one", "two"))
    shifted = layers.Lambda(lambda t: (t + 3) % 7, output_shape=(5,), name="shifted")(ids)
    model = module.Model(ids, inner([first(shifted), second(ids)])[1])
    proved(model, TOKENS["ids"], ["lost", "one", "shifted"])


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
    pruned = proved(model, X, ["tower_b", "norm_b", "drop_b", "feeder"])
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
    module.layers.Dense(2)(b)  # Keras 3.12 wants that somebody reads it
    model = module.Model([a, b], module.layers.Dense(2)(a))
    assert gp.prune(model, [X, X]) is model


@both
def test_a_sequential_model_with_a_model_in_it(module: Any) -> None:
    inner = towers(module)
    model = module.Sequential([module.Input((5,)), module.layers.Dense(5, name="before"), inner])
    pruned = proved(model, X, ["tower_b", "norm_b", "drop_b", "feeder"])
    assert isinstance(pruned, module.Sequential) and len(pruned.layers) == 2


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
def test_metrics_in_one_list(module: Any) -> None:
    """In Keras 3 it has an item for each output, in tf_keras all are of every output."""
    model = heads(module, "list")
    model.compile("sgd", ["mse", None, "mae"], metrics=["mae", "mse", "mape"])
    model.evaluate(X, [np.ones((8, 2))] * 3, verbose=0)
    pruned = gp.prune(model, X, only_loss=True)
    told = pruned.evaluate(X, [np.ones((8, 2))] * 2, verbose=0, return_dict=True)
    ours = {name.removeprefix("first_").removeprefix("third_") for name in told if "loss" not in name}
    assert ours == ({"mae", "mape"} if module is keras else {"mae", "mse", "mape"})
    assert not any("second" in name for name in told)


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
    with pytest.raises(GradpassError, match="no output 'fourth'; there are first, second, third"):
        gp.prune(model, loss={"fourth": "mse"})
    with pytest.raises(GradpassError, match="2 losses for 3 outputs"):
        gp.prune(model, loss=["mse", None])
    with pytest.raises(GradpassError, match="no loss reads an output"):
        gp.prune(model, loss=[None, None, None], only_loss=True)


@both
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("loss", "it adds a loss"),
        ("shared state", "it changes a variable that others read"),
        ("print", "it runs PrintV2"),
        ("lent", "others read its variables"),
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
def test_the_names_of_the_next_layers_are_as_they_would_be(module: Any) -> None:
    functional_of.cache_clear()
    module.layers.ReLU()
    first = int(module.layers.ReLU().name.rpartition("_")[2])
    functional_of(module)
    assert int(module.layers.ReLU().name.rpartition("_")[2]) == first + 1


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


@both
@pytest.mark.parametrize("seed", range(4))
def test_random_models(module: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, taken = random_model(module, rng, 2, "m")
    x: Any = {name: np.float32(rng.normal(size=(2, 3))) for name in taken}
    x = x if isinstance(model.input, dict) else list(x.values())
    pruned = gp.prune(model, x)
    same(values(model, x, training=False), values(pruned, x, training=False))
    assert set(handles(pruned)) <= set(handles(model)) and gp.prune(pruned, x) is pruned
    with tf.GradientTape() as tape:
        flat = tf.nest.flatten(model(x))
        value = tf.add_n([tf.reduce_sum(tensor) for tensor in flat])
    # What went has no gradient, and what has none would have gone.
    left = set(handles(pruned))
    weights = [plain(v) for v in model.trainable_variables]
    for variable, gradient in zip(weights, tape.gradient(value, weights), strict=True):
        assert (gradient is not None) == (id(variable) in left)
