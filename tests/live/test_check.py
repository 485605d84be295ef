"""`gradpass.check` on what users have in their scripts: models, layers, modules, functions, and Python beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from gradpass.live.frameworks import plain
from tests.live.models import ArgmaxModel, helper_with_numpy

S = tf.reduce_sum
X = np.random.default_rng(0).random((8, 3))
Y = np.random.default_rng(1).random((8, 2))


def states(report: gp.Report) -> dict[str, str]:
    return {t.name: t.state for t in report.targets}


def codes(report: gp.Report) -> list[str]:
    return [d.code for d in report.diagnostics]


def tape_says(model: Any, loss: Callable[[], Any]) -> list[str]:
    """What TensorFlow gives each trainable variable in a training step of Keras's kind."""

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        found = tape.gradient(value, [plain(v) for v in model.trainable_variables])
        return [0.0 if g is None else 1.0 for g in found]

    return ["flows" if float(g) else "none" for g in step()]


def dense(module: Any) -> Any:
    return module.Sequential([module.layers.Input((3,)), module.layers.Dense(4, "relu"), module.layers.Dense(2)])


def functional(module: Any) -> Any:
    x = module.Input((3,))
    return module.Model(x, module.layers.Dense(2)(module.layers.Dense(4, "tanh")(x)))


def nested(module: Any) -> Any:
    x = module.Input((3,))
    return module.Model(x, dense(module)(module.layers.Dense(3)(x)))


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("make", [dense, functional, nested])
def test_a_healthy_model_of_each_kind(module: Any, make: Any) -> None:
    model = make(module)
    model.compile("sgd", "mse")
    for report in (gp.check(model), gp.check(model, X), gp.check(model, X, Y)):
        assert report.ok and report.diagnostics == []
        assert set(states(report).values()) == {"flows"}
        assert len(report.targets) == len(model.trainable_variables)


def test_names_are_those_of_keras() -> None:
    model = dense(keras)
    assert [t.name for t in gp.check(model, X).targets] == [v.path for v in model.trainable_variables]


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_severed_subclassed_model(module: Any) -> None:
    model = ArgmaxModel(module)
    model(tf.ones([1, 3]))
    report = gp.check(model, X)
    assert codes(report) == ["GP102", "GP209"]
    severed, unused = report.diagnostics
    assert severed.source is not None and severed.source.text == "codes = tf.argmax(self.scores(x), axis=-1)"
    assert severed.source.file.endswith("models.py") and severed.op == "ArgMax"
    assert len(severed.starves) == 2 and len(unused.starves) == 2
    said = tape_says(model, lambda: S(model(tf.cast(X, tf.float32), training=True)))
    assert [t.state for t in report.targets] == said
    with pytest.raises(gp.GradientError, match="GP102"):
        report.raise_for_findings()


def test_an_unbuilt_model_is_built_by_the_trace() -> None:
    report = gp.check(ArgmaxModel(keras), X)
    assert codes(report) == ["GP102", "GP209"] and len(report.targets) == 6


def test_the_compiled_loss_is_part_of_what_is_judged() -> None:
    model = dense(keras)
    model.compile("sgd", loss=lambda truth, p: tf.reduce_mean(tf.cast(tf.round(p) == truth, tf.float32)))
    assert gp.check(model, X).ok
    report = gp.check(model, X, Y)
    assert not report.ok and set(states(report).values()) == {"none"}
    assert any(d.op in ("Round", "Equal") for d in report.diagnostics)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), lambda labels, p: S((labels - p) ** 2), S])
def test_a_loss_in_every_form(loss: Any) -> None:
    inputs = (X,) if loss is S else (X, Y)
    assert gp.check(dense(keras), *inputs, loss=loss).ok


def test_a_loss_that_swaps_labels_and_predictions_for_labels() -> None:
    report = gp.check(dense(keras), X, Y, loss=lambda labels, p: S((labels - labels) ** 2))
    assert codes(report) == ["GP208"] and "inputs_1" in report.diagnostics[0].notes[0]


def test_several_inputs_outputs_and_losses() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, [keras.layers.Dense(2)(a), keras.layers.Dense(2)(tf_round(b))])
    x = {"a": X, "b": Y}
    assert gp.check(model, x).ok and gp.check(model).ok
    model.compile("sgd", ["mse", "mse"])
    assert gp.check(model, x, [Y, Y]).ok


def tf_round(x: Any) -> Any:
    return keras.ops.round(x)


def test_masks_embeddings_and_recurrence() -> None:
    model = keras.Sequential(
        [
            keras.layers.Input((5,), dtype="int32"),
            keras.layers.Embedding(10, 4, mask_zero=True),
            keras.layers.LSTM(3),
            keras.layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    assert gp.check(model, np.random.default_rng(0).integers(0, 10, (8, 5)), Y).ok


def test_mixed_precision() -> None:
    x = keras.Input((3,))
    layer = keras.layers.Dense(4, dtype="mixed_float16")
    model = keras.Model(x, keras.layers.Dense(2, dtype="float32")(layer(x)))
    model.compile("sgd", "mse")
    report = gp.check(model, X, Y)
    assert report.ok and {t.dtype for t in report.targets} == {"float32"}


def test_ragged_inputs() -> None:
    v = tf.Variable([1.0, 2.0])
    report = gp.check(lambda r: S(r * 2.0) * v[0], tf.ragged.constant([[1.0, 2.0], [3.0]]))
    assert report.ok and states(report) == {"v": "flows"}


def test_training_is_how_a_model_is_asked() -> None:
    class OnlyInTraining(keras.layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            return tf.round(x) if training else x

    model = keras.Sequential([keras.layers.Dense(2), OnlyInTraining()])
    assert codes(gp.check(model, X)) == ["GP103"]


def test_a_layer_and_a_module() -> None:
    assert gp.check(keras.layers.Dense(2), X).ok

    class Scale(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor, self.unused = tf.Variable(2.0, name="factor"), tf.Variable(3.0, name="unused")

        def __call__(self, x: Any) -> Any:
            return self.factor * x

    report = gp.check(Scale(), tf.ones([3]))
    assert states(report) == {"factor": "flows", "unused": "none"} and codes(report) == ["GP209"]


V = tf.Variable([1.0, 2.0, 3.0])


def hue(images: Any) -> Any:
    return tf.reduce_mean(tf.image.adjust_hue(images, 0.1)) * V


def test_a_call_is_differentiated_as_a_whole_and_a_function_in_a_step_is_not() -> None:
    images = tf.ones([2, 4, 4, 3])
    assert states(gp.check(tf.function(hue), images)) == {"V": "raises"}
    assert states(gp.check(hue, images)) == {"V": "flows"}
    with tf.GradientTape() as tape, pytest.raises(LookupError):
        tf.function(hue)(images)
    with tf.GradientTape() as tape:
        value = hue(images)
    assert tape.gradient(value, V) is not None


def test_a_function_of_any_kind() -> None:
    function = tf.function(lambda x: S(V * x), jit_compile=True, input_signature=[tf.TensorSpec([3])])
    for target, inputs in ((function, ()), (function.get_concrete_function(), ()), (lambda: S(V), ())):
        assert states(gp.check(target, *inputs)) in ({"V": "flows"}, {"Variable": "flows"})
    assert gp.check(function, wrt="inputs").targets[0].kind == "input"


def test_the_second_order_of_a_live_function() -> None:
    report = gp.check(lambda: S(V * 2.0), order=2)
    assert codes(report) == ["GP206"] and report.order == 2
    assert gp.check(lambda: S(V**3.0), order=2).ok


# What Python does beside the graph


def test_numpy_in_a_helper_is_shown_at_its_line() -> None:
    report = gp.check(lambda x: helper_with_numpy(V * x) * x, tf.ones([3]), variables=[V])
    (d,) = report.diagnostics
    assert d.code == "GP510" and d.source is not None and d.source.text == "return np.sum(tensor)"
    assert "`np.sum()`" in d.message and d.starves == ["V"] and states(report) == {"V": "none"}


def test_a_function_that_leaves_the_graph_is_asked_about_what_it_can_reach() -> None:
    def loss(x: Any) -> Any:
        return tf.constant(np.sum(V.numpy())) + S(other * x)

    other = tf.Variable(1.0, name="other")
    report = gp.check(loss, tf.ones([3]))
    assert states(report) == {"V": "none", "other": "flows"} and report.diagnostics[0].starves == ["V"]


def test_predict_under_the_tape() -> None:
    model = dense(keras)
    report = gp.check(lambda x: S(model.predict(x, verbose=0)), np.float32(X), variables=model.trainable_variables)
    (d,) = report.diagnostics
    assert d.code == "GP510" and "`model.predict()`" in d.message and len(d.starves) == 4
    assert d.source is not None and d.source.file.endswith("test_check.py")


def test_a_layer_that_decides_in_python() -> None:
    class Decides(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if S(x) > 0:
                return x
            return 2.0 * x

    model = keras.Sequential([keras.layers.Dense(2), Decides()])
    (d,) = gp.check(model, X).diagnostics
    assert d.code == "GP510" and "`if`" in d.message and d.source is not None and d.source.text == "if S(x) > 0:"


def test_a_value_that_leaves_beside_the_way_starves_nobody() -> None:
    def loss(x: Any) -> Any:
        return S(V * x) * V.numpy().sum()

    report = gp.check(loss, tf.ones([3]), variables=[V])
    assert states(report) == {"V": "flows"} and codes(report) == ["GP510"] and "cannot trace" in str(report)
    specs = gp.check(loss, tf.TensorSpec([3]), variables=[V])
    assert states(specs) == {"V": "raises"} and "with arrays" in specs.diagnostics[0].notes[-1]


def test_what_is_run_to_see_who_starves_leaves_the_variables_as_they_were() -> None:
    counter = tf.Variable(0.0)

    class Counting(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v, self.counter = V, counter

        def __call__(self) -> Any:
            self.counter.assign_add(1.0)
            return tf.constant(self.v.numpy())

    assert not gp.check(Counting()).ok
    assert float(counter.numpy()) == 0.0


def test_computed_before_the_tape() -> None:
    snapshot, features = V.read_value(), tf.tanh(V)
    (d,) = gp.check(lambda: S(snapshot**2), variables=[V]).diagnostics
    assert d.code == "GP511" and d.starves == ["V"] and "`snapshot`" in d.notes[0]
    (d,) = gp.check(lambda: S(features**2), variables=[V]).diagnostics
    assert d.code == "GP209" and "`features`" in d.notes[0]
    (d,) = gp.check(lambda: S(features**2)).diagnostics
    assert d.code == "GP211" and "`features`" in d.notes[0]


def test_a_large_copy_is_found_too_and_its_likes_are_not() -> None:
    big = tf.Variable(tf.random.stateless_normal([300], [1, 2]), name="big")
    copy = big.numpy()
    (d,) = gp.check(lambda: S(tf.constant(copy) ** 2), variables=[big]).diagnostics
    assert d.code == "GP511" and d.source is not None and "tf.constant(copy)" in d.source.text
    zeros = tf.Variable([0.0, 0.0], name="zeros")
    (d,) = gp.check(lambda: S(tf.zeros([2]) + V[:2]), variables=[zeros]).diagnostics
    assert d.code == "GP209"


def test_a_name_that_was_bound_to_a_tensor() -> None:
    x = tf.Variable(3.0)
    x = x + 1.0
    (d,) = gp.check(lambda: x**2, variables=[x]).diagnostics
    assert d.code == "GP512" and "`x` is a tensor" in d.message
    (d,) = gp.check(lambda: x**2).diagnostics
    assert d.code == "GP211" and "`x`" in d.notes[0]


def test_what_is_not_trainable_is_no_fault() -> None:
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization()])
    model.build((None, 3))
    report = gp.check(model, X, variables=model.variables)
    assert report.ok and codes(report) == ["GP513"]
    assert [name.rpartition("/")[2] for name in report.diagnostics[0].unused] == ["moving_mean", "moving_variance"]
    assert gp.check(model, X).diagnostics == []


def test_integers() -> None:
    count = tf.Variable([2, 3])
    report = gp.check(lambda: S(tf.cast(count * count, tf.float32)))
    assert codes(report) == ["GP205"] and report.diagnostics[0].starves == ["count"]


def test_weights_that_the_model_does_not_track() -> None:
    class Holder:
        def __init__(self) -> None:
            self.dense = keras.layers.Dense(2)

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.hidden = keras.layers.Dense(3), Holder()

        def call(self, x: Any) -> Any:
            return self.hidden.dense(self.first(x))

    report = gp.check(Model(), X)
    assert codes(report) == ["GP210"] and len(report.diagnostics[0].unused) == 2 and not report.ok


def test_a_frozen_layer_is_no_fault() -> None:
    model = dense(keras)
    model.layers[0].trainable = False
    report = gp.check(model, X)
    assert report.ok and report.diagnostics == [] and len(report.targets) == 2


def steps() -> Any:
    with tf.GradientTape() as tape:
        value = S(tf.round(V))
    return tape.gradient(value, V)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gp.check(dense(keras), X),
        lambda: gp.check(ArgmaxModel(keras), X),
        lambda: gp.check(lambda x: helper_with_numpy(V * x) * x, tf.ones([3]), variables=[V]),
        lambda: gp.check(lambda: S(tf.tanh(V.read_value())), variables=[V, tf.constant(3.0)]),
        lambda: gp.check_step(steps),
        lambda: gp.fix(dense(keras), X).before,
    ],
    ids=["healthy", "severed", "left", "tensor", "step", "fixed"],
)
def test_the_json_is_that_of_the_schema(make: Callable[[], gp.Report]) -> None:
    schema = json.loads(resources.files("gradpass.report").joinpath("schema.json").read_text("utf-8"))
    report = make()
    jsonschema.validate(json.loads(json.dumps(report.to_json())), schema)
    for target in report.targets:
        assert all(target.name in report.diagnostics[i].concerned for i in target.diagnostics)


# Refusals


def untracable(x: Any) -> Any:
    return x @ tf.ones([7, 2])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gp.check(3), "not int"),
        (lambda: gp.check(keras.layers.Dense), "give an object to call"),
        (lambda: gp.check(ArgmaxModel(keras)), "does not say what it takes"),
        (lambda: gp.check(dense(keras), X, Y), "is not compiled with a loss"),
        (lambda: gp.check(dense(keras), X, loss="mse"), "give the labels as the last input"),
        (lambda: gp.check(dense(keras), X, Y, loss="mess"), "no loss 'mess'"),
        (lambda: gp.check(dense(keras), X, Y, loss=lambda a, b, c: a), "takes 3 arguments"),
        (lambda: gp.check(dense(keras), object()), "an array, a tensor or a tf.TensorSpec, not object"),
        (lambda: gp.check(lambda: S(V), variables=[3]), "takes variables, not int"),
        (lambda: gp.check(dense(keras), X, entry="serve"), "one entry"),
        (lambda: gp.check("folder", X), "is read, not run"),
        (lambda: gp.check(lambda: S(V), order=3), "order is 1 or 2"),
        (lambda: gp.check(untracable, tf.ones([2, 3])), r"`untracable` cannot be traced \(.*test_check.py:\d+\)"),
    ],
)
def test_refusals_say_what_to_do(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(gp.GradpassError, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)
