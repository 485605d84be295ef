"""`gradpass.fix` on live targets: same values, same variables, and a gradient; in `fit` and in loops of one's own."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from gradpass.live.frameworks import plain
from tests.live.models import LAYERS, ArgmaxModel, accuracy, wrong

S = tf.reduce_sum
X = np.float32(np.random.default_rng(0).random((32, 3)))
Y = np.float32(np.random.default_rng(1).random((32, 2)))
both = pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])


def rounding(module: Any, *more: Any) -> Any:
    return module.Sequential(
        [module.layers.Input((3,)), module.layers.Dense(4), LAYERS[module.__name__](), *more, module.layers.Dense(2)]
    )


def functional(module: Any) -> Any:
    x = module.Input((3,))
    hidden = module.layers.Dense(4, kernel_regularizer="l2")(x)
    hidden = module.layers.Dropout(0.2, seed=1)(module.layers.BatchNormalization()(hidden))
    return module.Model(x, module.layers.Dense(2, activity_regularizer="l1")(LAYERS[module.__name__]()(hidden)))


MODELS: dict[str, Callable[[Any], Any]] = {"Sequential": rounding, "functional": functional, "subclassed": ArgmaxModel}


def gradients(function: Callable[..., Any], variables: Any, *inputs: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(function(*inputs))
        value = S([S(t) for t in outputs if t.dtype.is_floating])
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in tape.gradient(value, variables)]


def fixed_quietly(*args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gp.GradientWarning)
        return gp.fix(*args, **options)


# Keras models


@both
@pytest.mark.parametrize("kind", MODELS)
def test_a_fixed_model_trains_the_variables_of_the_original_in_fit(module: Any, kind: str, tmp_path: Path) -> None:
    module.utils.set_random_seed(1)
    model = MODELS[kind](module)
    model.compile(module.optimizers.SGD(0.1), "mse")
    model(X[:1])
    fixed = fixed_quietly(model, X, Y)
    assert isinstance(fixed, module.Model) and not fixed.before.ok
    starved = {t.name for t in fixed.before.targets if t.starved}
    served = starved - {t.name for t in fixed.after.targets if t.starved}
    assert served and fixed.report.crosscheck[0].status == "passed"
    assert model.predict(X, verbose=0).tobytes() == fixed.predict(X, verbose=0).tobytes()
    assert [id(plain(v)) for v in fixed.trainable_variables] == [id(plain(v)) for v in model.trainable_variables]
    assert len(fixed.variables) == len(model.variables)
    before = {name: v.numpy() for name, v in named(model).items()}
    losses = fixed.fit(X, Y, batch_size=10, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = named(model)
    assert served <= {name for name, v in after.items() if (v.numpy() != before[name]).any()}
    assert model.evaluate(X, Y, verbose=0) == fixed.evaluate(X, Y, verbose=0)
    fixed.save(tmp_path / "saved")
    loaded = gp.load(tmp_path / "saved")
    (output,) = loaded(X).values()
    np.testing.assert_array_equal(output, fixed(X))
    assert not {t.name for t in gp.check(tmp_path / "saved").targets if t.starved} & served


def named(model: Any) -> dict[str, Any]:
    return {getattr(v, "path", v.name.removesuffix(":0")): v for v in model.trainable_variables}


@both
@pytest.mark.parametrize("kind", ["Sequential", "functional"])
def test_a_keras_file_holds_a_fixed_model(module: Any, kind: str, tmp_path: Path) -> None:
    model = MODELS[kind](module)
    model.compile(module.optimizers.Adam(0.1), "mse")
    fixed = gp.fix(model, X, Y, kernel="gaussian", temperature=0.5)
    fixed.fit(X, Y, verbose=0)
    fixed.save(tmp_path / "fixed.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = module.models.load_model(tmp_path / "fixed.keras")
    assert int(again.optimizer.iterations.numpy()) == 1 and model.optimizer is fixed.optimizer
    assert again.plan == fixed.plan and float(again.temperature.numpy()) == 0.5
    np.testing.assert_array_equal(again.predict(X, verbose=0), fixed.predict(X, verbose=0))
    one, other = (gradients(lambda x, m=m: m(x), list(map(plain, m.trainable_variables)), X) for m in (fixed, again))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.fit(X, Y, verbose=0).history["loss"]


def test_a_keras_file_loads_in_another_process(tmp_path: Path) -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(keras.ops.round(keras.layers.Dense(4)(x))))
    fixed = gp.fix(model)
    fixed.save(tmp_path / "fixed.keras")
    script = (
        "import sys, keras, numpy, gradpass.keras\n"
        f"model = keras.models.load_model({str(tmp_path / 'fixed.keras')!r})\n"
        "print(model.plan[0].rules, float(model(numpy.ones((1, 3)))[0, 0]))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["['soft-round']", str(float(fixed(np.ones((1, 3)))[0, 0]))]


def test_a_subclassed_model_says_why_no_keras_file_holds_it(tmp_path: Path) -> None:
    fixed = fixed_quietly(ArgmaxModel(keras), X)
    with pytest.raises(gp.GradpassError, match="save a SavedModel"):
        fixed.save(tmp_path / "fixed.keras")


@both
def test_the_losses_that_layers_add_count(module: Any) -> None:
    model = functional(module)
    model.compile("sgd", "mse")
    fixed = gp.fix(model, X, Y)
    # Batch statistics, dropout and both kinds of regularisation, in training: one step of each gives the same loss.
    model.layers[2].momentum = 1.0
    fixed(X, training=True)
    model(X, training=True)
    assert len(fixed.losses) == len(model.losses) == 2
    assert fixed.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)


@both
def test_batch_normalization_updates_its_statistics_in_training_only(module: Any) -> None:
    model = functional(module)
    fixed = gp.fix(model, X)
    moving = next(v for v in model.variables if "moving_mean" in getattr(v, "path", v.name))
    start = moving.numpy()
    fixed(X, training=False)
    np.testing.assert_array_equal(moving.numpy(), start)
    fixed(X, training=True)
    assert (moving.numpy() != start).any()


@both
def test_masks_reach_the_loss(module: Any) -> None:
    class Rounded(module.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.supports_masking = True

        def call(self, x: Any) -> Any:
            return tf.round(3.0 * x)

    model = module.Sequential(
        [
            module.layers.Input((5,), dtype="int32"),
            module.layers.Embedding(10, 4, mask_zero=True),
            Rounded(),
            module.layers.LSTM(3, return_sequences=True),
        ]
    )
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(2).integers(0, 3, (8, 5)), np.float32(np.random.default_rng(3).random((8, 5, 3)))
    fixed = gp.fix(model, x, y)
    assert fixed.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    assert fixed.after.ok and fixed.fit(x, y, verbose=0).history["loss"]
    # Without the mask the loss is another: this test sees it.
    unmasked = float(tf.reduce_mean((model.predict(x, verbose=0) - y) ** 2))
    assert abs(unmasked - fixed.evaluate(x, y, verbose=0)) > 1e-3


def test_several_inputs_and_outputs_by_name_with_a_loss_each() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = LAYERS["keras"]()(keras.layers.Dense(3)(a))
    model = keras.Model(
        {"a": a, "b": b}, {"p": keras.layers.Dense(1, name="p")(hidden), "q": keras.layers.Dense(2, name="q")(b)}
    )
    model.compile("sgd", {"p": "mse", "q": wrong})
    x, y = {"a": X, "b": Y}, {"p": Y[:, :1], "q": Y}
    fixed = gp.fix(model, x, y)
    assert [step.rules for step in fixed.plan] == [["soft-round"], ["soft-round"]] and fixed.after.ok
    before = [v.numpy() for v in model.trainable_variables]
    assert set(fixed.fit(x, y, verbose=0).history) >= {"loss", "p_loss", "q_loss"}
    assert all((v.numpy() != old).any() for v, old in zip(model.trainable_variables, before, strict=True))
    assert set(fixed(x)) == {"p", "q"}


def test_losses_by_name_in_any_order_of_any_structure() -> None:
    x = keras.Input((3,))
    late, early = keras.layers.Dense(1, name="late")(x), keras.layers.Dense(2, name="early")(x)
    for outputs in ({"late": late, "early": early}, [late, early]):
        model = keras.Model(x, outputs)
        model.compile("sgd", {"late": wrong, "early": "mse"})
        labels = {"late": Y[:, :1], "early": Y}
        fixed = gp.fix(model, X, labels)
        assert [d.entries for d in fixed.before.diagnostics] == [["loss"]]
        before = [v.numpy() for v in model.trainable_variables]
        fixed.fit(X, labels, verbose=0)
        assert all((v.numpy() != old).any() for v, old in zip(model.trainable_variables, before, strict=True))
        assert model.evaluate(X, labels, verbose=0) == fixed.evaluate(X, labels, verbose=0)


@both
def test_a_compiled_loss_that_severs_is_repaired_too(module: Any) -> None:
    module.utils.set_random_seed(3)
    model = module.Sequential([module.layers.Input((3,)), module.layers.Dense(2)])
    model.compile(module.optimizers.Adam(0.05), accuracy)
    assert {t.state for t in gp.check(model, X, Y).targets} == {"none"}
    fixed = gp.fix(model, X, Y)
    assert [d.code for d in fixed.before.diagnostics] == ["GP119"]
    assert fixed.after.ok and fixed.loss_fn is fixed.loss
    np.testing.assert_array_equal(fixed.loss_fn(Y, Y[::-1].copy()), accuracy(Y, Y[::-1].copy()))
    losses = fixed.fit(X, Y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.evaluate(X, Y, verbose=0) == fixed.evaluate(X, Y, verbose=0)


@both
def test_a_loss_object_keeps_its_reduction(module: Any) -> None:
    class Wrong(module.losses.Loss):  # type: ignore[misc]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return wrong(y_true, y_pred)

    model = module.Sequential([module.layers.Input((3,)), module.layers.Dense(2)])
    loss = Wrong(reduction="sum", name="wrong")
    model.compile(module.optimizers.SGD(0.01), loss)
    fixed = gp.fix(model, X, Y)
    weights = np.float32(np.arange(32) % 2)
    assert fixed.loss is not loss and fixed.loss.reduction == "sum"
    one, other = (m.evaluate(X, Y, sample_weight=weights, batch_size=32, verbose=0) for m in (model, fixed))
    assert one == other
    losses = fixed.fit(X, Y, sample_weight=weights, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@both
def test_it_is_compiled_as_the_original_is(module: Any) -> None:
    x = module.Input((3,))
    rounded = LAYERS[module.__name__]()(module.layers.Dense(3)(x))
    outputs = {"p": module.layers.Dense(1, name="p")(rounded), "q": module.layers.Dense(2, name="q")(x)}
    model = module.Model(x, outputs)
    model.compile(
        "sgd", {"p": "mse", "q": "mse"}, loss_weights={"p": 1.0, "q": 5.0}, metrics={"q": ["mae"]}, run_eagerly=True
    )
    labels = {"p": Y[:, :1], "q": Y}
    fixed = gp.fix(model, X, labels)
    assert fixed.run_eagerly is True
    one, other = (m.evaluate(X, labels, verbose=0, return_dict=True) for m in (model, fixed))
    assert one == other and any("mae" in name for name in one)
    model.compile("sgd", {"p": "mse", "q": "mse"}, jit_compile=True, steps_per_execution=4)
    again = gp.fix(model, X, labels)
    assert again.jit_compile is True
    assert any("mae" in name for name in fixed.fit(X, labels, validation_data=(X, labels), verbose=0).history)


@both
def test_a_training_step_of_ones_own_is_not_left_out_silently(module: Any) -> None:
    class Own(module.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            raise AssertionError("not the original's, with the original's call")

    x = module.Input((3,))
    model = Own(x, module.layers.Dense(2)(LAYERS[module.__name__]()(module.layers.Dense(3)(x))))
    model.compile("sgd", "mse")
    fixed = gp.fix(model, X, Y)
    assert fixed.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    with pytest.raises(gp.GradpassError, match="has a train_step of its own"):
        fixed.fit(X, Y, verbose=0)


@both
def test_it_can_be_pickled(module: Any) -> None:
    model = rounding(module)
    model.compile("adam", "mse")
    fixed = gp.fix(model, X, Y)
    fixed.fit(X, Y, verbose=0)
    again = pickle.loads(pickle.dumps(fixed))
    np.testing.assert_array_equal(again.predict(X, verbose=0), fixed.predict(X, verbose=0))
    assert again.plan == fixed.plan and int(again.optimizer.iterations.numpy()) == 1


def test_a_loss_that_is_given() -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    fixed = gp.fix(model, X, Y, loss=wrong)
    fixed.compile(keras.optimizers.SGD(0.1), fixed.loss_fn, metrics=["mae"])
    history = fixed.fit(X, Y, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] and "mae" in history


def test_mixed_precision_and_xla() -> None:
    policy = "mixed_float16"
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(4, dtype=policy),
            LAYERS["keras"](dtype=policy),
            keras.layers.Dense(2, dtype="float32"),
        ]
    )
    fixed = gp.fix(model, X)
    fixed.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=True)
    before = [v.numpy() for v in model.trainable_variables]
    losses = fixed.fit(X, Y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all((v.numpy() != old).any() for v, old in zip(model.trainable_variables, before, strict=True))


def test_the_temperature_anneals_in_fit() -> None:
    fixed = gp.fix(rounding(keras), X, temperature=2.0)
    fixed.compile("sgd", "mse")
    history = fixed.fit(X, Y, epochs=3, verbose=0, callbacks=[gp.keras.TemperatureSchedule(0.5, epochs=2)]).history
    np.testing.assert_allclose(history["temperature"], [2.0, 1.0, 0.5], rtol=1e-6)  # float32 of an exponential


def test_a_loop_of_ones_own() -> None:
    model = rounding(keras)
    fixed, optimizer = gp.fix(model, X), keras.optimizers.SGD(0.05)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((fixed(x, training=True) - y) ** 2)
        found = tape.gradient(loss, fixed.trainable_variables)
        optimizer.apply_gradients(zip(found, fixed.trainable_variables, strict=True))
        return loss

    losses = [float(step(X, Y)) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_a_healthy_model_stays_what_it_is() -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    fixed = gp.fix(model, X)
    assert fixed.plan == [] and fixed.report.outcome == "nothing to repair" and fixed.before.ok and fixed.after.ok
    np.testing.assert_array_equal(fixed(X), model(X))


def test_what_cannot_be_repaired_is_said() -> None:
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(2),
            keras.layers.Lambda(tf.stop_gradient),
            keras.layers.Dense(2),
        ]
    )
    with pytest.warns(gp.GradientWarning, match="GP108"):
        fixed = gp.fix(model, X)
    assert not fixed.report.ok and "stopped on purpose" in str(fixed.plan)


def test_the_plan_and_the_reports_read() -> None:
    fixed = gp.fix(rounding(keras), X)
    assert "GP103 Round" in str(fixed.plan) and "soft-round" in str(fixed.plan)
    (d,) = fixed.before.diagnostics
    assert d.source is not None and d.source.text == "return tf.round(3.0 * x)"
    text = str(fixed.report)
    assert "starved targets" in text and "same variables" in text and "/kernel" in text
    assert "<" in fixed.report._repr_html_()


# Functions and modules

V, C = tf.Variable([0.3, 0.9, 1.4], name="v"), tf.Variable([1.0, 2.0, 3.0], name="c")


@tf.function
def thresholded(x: Any) -> Any:
    return {"open": tf.cast(x < V, tf.float32) * C, "index": tf.argmax(V)}


@pytest.mark.parametrize(
    "target",
    [
        thresholded,
        thresholded.get_concrete_function(tf.TensorSpec([None])),
        thresholded.python_function,
        tf.function(thresholded.python_function, jit_compile=True),
    ],
    ids=["tf.function", "ConcreteFunction", "callable", "jit_compile"],
)
def test_a_function_of_any_kind(target: Any) -> None:
    fixed = gp.fix(target, tf.TensorSpec([None]))
    x = tf.constant([0.5])
    given, wanted = fixed(x), thresholded(x)
    assert given.keys() == wanted.keys()
    assert all(given[key].numpy().tobytes() == wanted[key].numpy().tobytes() for key in given)
    assert gradients(thresholded, [V], x) == [None]
    hidden, open_ = gradients(fixed, [V, C], x)
    assert np.isfinite(hidden).all() and hidden.all()
    np.testing.assert_array_equal(open_, gradients(thresholded, [C], x)[0])
    assert {id(v) for v in fixed.variables} == {id(V), id(C)}
    inside = tf.function(lambda x: gradients_symbolic(fixed, x))
    np.testing.assert_array_equal(inside(x), hidden)


def gradients_symbolic(function: Any, x: Any) -> Any:
    with tf.GradientTape() as tape:
        value = S(function(x)["open"])
    return tape.gradient(value, V)


def test_the_temperature_counts_from_the_next_tape_on(tmp_path: Path) -> None:
    fixed = gp.fix(lambda x: S(tf.cast(x < V, tf.float32)), tf.ones([3]), temperature=1.0)
    x = tf.constant([0.5, 0.5, 0.5])
    (wide,) = gradients(fixed, [V], x)
    fixed.temperature.assign(0.25)
    (narrow,) = gradients(fixed, [V], x)
    (again,) = gradients(gp.fix(lambda x: S(tf.cast(x < V, tf.float32)), x, temperature=0.25), [V], x)
    assert (wide != narrow).any()
    np.testing.assert_array_equal(narrow, again)
    fixed.save(tmp_path / "saved")
    loaded = gp.load(tmp_path / "saved")
    assert float(loaded.temperature.numpy()) == 0.25
    assert loaded(x)["output_0"] == fixed(x)


def test_a_module_with_a_table_and_a_counter() -> None:
    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], [0, 1])
            self.table = tf.lookup.StaticHashTable(keys, -1)
            self.weights = tf.Variable([0.2, 0.7], name="weights")
            self.calls = tf.Variable(0, trainable=False, name="calls")

        def __call__(self, words: Any) -> Any:
            self.calls.assign_add(1)
            return tf.gather(tf.sign(self.weights - 0.5), self.table.lookup(words))

    module = Module()
    fixed = gp.fix(module, tf.constant(["a", "b"]))
    assert module.calls.numpy() == 0
    (gradient,) = gradients(fixed, [module.weights], tf.constant(["b", "b"]))
    assert gradient[0] == 0.0 and gradient[1] > 0.0 and module.calls.numpy() == 1


class Pair(NamedTuple):
    """What a user's function takes and gives."""

    first: Any
    second: Any


def test_structures_are_those_of_the_user() -> None:
    def swapped(pair: Pair, scale: float) -> Pair:
        return Pair([pair.second], {"rounded": tf.round(V * pair.first) * scale})

    given = Pair(tf.ones([3]), tf.zeros([2]))
    fixed = gp.fix(swapped, given, 2.0)
    answer = fixed(given, 2.0)
    assert type(answer) is Pair and isinstance(answer.first, list)
    np.testing.assert_array_equal(answer.second["rounded"], swapped(given, 2.0).second["rounded"])


def test_ragged_inputs_and_outputs() -> None:
    fixed = gp.fix(lambda r: tf.ragged.map_flat_values(tf.round, r * V[0]), tf.ragged.constant([[1.0, 2.0], [3.0]]))
    r = tf.ragged.constant([[1.0, 2.0, 4.0], [3.0]])
    assert fixed(r).to_list() == tf.ragged.map_flat_values(tf.round, r * V[0]).to_list()


def test_bits_survive_that_a_sum_would_lose() -> None:
    x = tf.constant([-0.2, np.inf, np.nan, 0.2])
    fixed = gp.fix(lambda x: tf.round(x * V[0]), x)
    assert fixed(x).numpy().tobytes() == tf.round(x * V[0]).numpy().tobytes()
    assert np.signbit(fixed(x).numpy()[0])


def test_loops_and_custom_gradients() -> None:
    def loss(x: Any) -> Any:
        total = S(tf.nn.silu(x) * V)
        for i in tf.range(1, 4):
            total += S(tf.round(V * tf.cast(i, tf.float32)))
        return total

    x = tf.constant([0.1, 0.2, 0.3])
    fixed = gp.fix(loss, x)
    (gradient,) = gradients(fixed, [V], x)
    assert gradient.all() and fixed.after.ok
    np.testing.assert_array_equal(fixed(x), tf.function(loss)(x))


# Refusals


def test_what_cannot_be_saved_is_refused_with_what_to_do() -> None:
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    holder = {"table": table}

    def loss(words: Any) -> Any:
        return S(tf.gather(tf.round(V), holder["table"].lookup(words)))

    with pytest.raises(gp.GradpassError, match="MutableHashTable"):
        gp.fix(loss, tf.constant(["a"]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: gp.fix(lambda x: S(V * V.numpy() * x), tf.ones([3])),
            r"`V\.numpy\(\)` takes a value out of the graph",
        ),
        (lambda: gp.fix("folder", "out", loss=S), "is read, not run"),
        (lambda: gp.fix(rounding(keras), X, kernel="box"), "box"),
        (lambda: gp.fix(rounding(keras), X, loss=wrong), "give the labels as the last input"),
        (lambda: gp.fix(rounding(keras), X, temperature=0.0), "positive"),
    ],
)
def test_refusals(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(gp.GradpassError, match=says):
        call()


def test_other_shapes_than_were_traced_are_refused() -> None:
    fixed = gp.fix(lambda x: tf.round(V * x), tf.ones([3]))
    with pytest.raises(TypeError, match=r"tf\.TensorSpec with None"):
        fixed(tf.ones([2, 3]))
