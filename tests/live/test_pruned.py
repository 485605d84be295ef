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
    for each in (pruned, model):
        each.save(tmp_path / "model.keras")
        again = module.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(TOKENS, verbose=0), model.predict(TOKENS, verbose=0))
        assert len(again.weights) == len(each.weights)
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
    module.layers.Dense(2)(b)  # Keras 3.12 wants that somebody reads it
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
    with pytest.raises(GradpassError, match="no output 'fourth'; there are first, second, third"):
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
    elif kind == "lent":
        lender = layers.Dense(5, name="effect", use_bias=False)
        dead = lender(hidden)

        class Borrower(layers.Layer):  # type: ignore[misc]
            def call(self, t: Any) -> Any:
                return tf.matmul(t, lender.kernel)

        hidden = Borrower(name="borrower")(hidden)
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


def subclassed(module: Any) -> Any:
    class Wasteful(module.Model):  # type: ignore[misc]
        """Calls a layer whose output it drops, and has one that it never calls."""

        def __init__(self) -> None:
            super().__init__()
            self.body = module.layers.Dense(4, name="body")
            self.norm = module.layers.BatchNormalization(name="norm")
            self.dropped = module.layers.Dense(3, name="dropped")
            self.never = module.layers.Dense(3, name="never")
            self.never.build((None, 5))
            self.top = module.layers.Dense(2, name="top", kernel_regularizer="l2")

        def call(self, x: Any, training: Any = None) -> Any:
            hidden = self.norm(self.body(x), training=training)
            self.dropped(hidden)
            return {"out": self.top(hidden), "hidden": hidden}

    model = Wasteful()
    model(X)
    return model


def values(function: Any, *inputs: Any, **how: Any) -> list[Any]:
    return [np.asarray(tensor) for tensor in tf.nest.flatten(function(*inputs, **how))]


def same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


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


class Module(tf.Module):
    """A module with an unused variable, one whose product is dropped, and a table."""

    def __init__(self, table: bool = False, mutable: bool = False) -> None:
        super().__init__()
        self.w, self.dropped, self.unused = (tf.Variable(tf.ones(5) * i, name=n) for i, n in enumerate("abc", 2))
        self.steps = tf.Variable(0, trainable=False, name="steps")
        if table:
            filled = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1]), tf.constant([5.0, 6.0]))
            self.table = tf.lookup.StaticHashTable(filled, 0.0)
        if mutable:
            self.table = tf.lookup.experimental.MutableHashTable(tf.int32, tf.float32, 0.0)

    def __call__(self, x: Any, y: Any) -> Any:
        self.steps.assign_add(1)
        tf.reduce_sum(x * self.dropped)
        scale = self.table.lookup(tf.constant(1)) if hasattr(self, "table") else 1.0
        return (x * self.w * scale,)


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


def test_what_cannot_be_pruned() -> None:
    with pytest.raises(GradpassError, match="changes while it runs"):
        gp.prune(Module(mutable=True), X, X)
    with pytest.raises(GradpassError, match="give inputs"):
        gp.prune(subclassed(keras))
    with pytest.raises(GradpassError, match="no output 'c'; there are a, b"):
        gp.prune(lambda x: {"a": x, "b": x}, X, loss={"c"})


def random_model(module: Any, rng: Any, depth: int, name: str) -> Any:
    """A model of random layers and of models of random layers, of which random outputs are read."""
    layers = module.layers
    count = int(rng.integers(1, 3))
    inputs = {f"{name}_i{i}": module.Input((3,), name=f"{name}_i{i}") for i in range(count)}
    kinds: Any = [dict, list]
    as_dict = kinds[rng.integers(2)] is dict
    known = list(inputs.values())
    inner = (
        [random_model(module, rng, depth - 1, f"{name}{j}") for j in range(int(rng.integers(1, 3)))] if depth else []
    )
    shared = layers.Dense(3, name=f"{name}_shared")
    for step in range(int(rng.integers(2, 5))):
        a, b = (known[rng.integers(len(known))] for _ in range(2))
        choice = rng.integers(5)
        if choice < 3 and inner:
            model, taken = inner[rng.integers(len(inner))]
            given = {key: known[rng.integers(len(known))] for key in taken}
            asks_dict = isinstance(model.input, dict)
            known += tf.nest.flatten(model(given if asks_dict else list(given.values())))
        elif choice == 3:
            known.append(layers.Add(name=f"{name}_add{step}")([a, b]))
        else:
            known.append(layers.Dense(3, name=f"{name}_dense{step}")(shared(a)))
    chosen = [known[i] for i in rng.choice(len(known), min(len(known), 1 + int(rng.integers(3))), replace=False)]
    # What is an input as well is given on, so that there is a layer at each end.
    chosen = [layers.ReLU(name=f"{name}_o{i}")(tensor) for i, tensor in enumerate(chosen)]
    for tensor in inputs.values():
        layers.ReLU()(tensor)  # Keras 3.12 wants inputs that somebody reads
    outputs: Any = {f"o{i}": tensor for i, tensor in enumerate(chosen)} if as_dict else chosen
    made = module.Model(inputs if as_dict else list(inputs.values()), outputs, name=name)
    return made, list(inputs)


@both
@pytest.mark.parametrize("seed", range(6))
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
