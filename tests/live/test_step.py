"""`gradpass.check_step` on training steps as users write them: a code for each mistake, and nothing where none is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp

X = np.float32(np.random.default_rng(0).random((8, 3)))
Y = np.float32(np.random.default_rng(1).random((8, 1)))
both = pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])


def mlp(module: Any = keras, *layers: Any) -> Any:
    model = module.Sequential(
        [module.layers.Input((3,)), module.layers.Dense(4, "tanh"), *layers, module.layers.Dense(1)]
    )
    return model


def codes(report: gp.Report) -> list[str]:
    return [d.code for d in report.diagnostics]


def line(report: gp.Report, index: int = 0) -> str:
    source = report.diagnostics[index].source
    assert source is not None and source.file.rpartition("test_step")[0] and source.file.endswith(".py")
    return source.text


def mse(y: Any, p: Any) -> Any:
    return tf.reduce_mean((y - p) ** 2)


# Steps without a fault


def plain_step(module: Any, optimizer: Any, model: Any, loss: Any = mse, change: Any = None) -> Any:
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        if change is not None:
            gradients = change(gradients)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    return step


@both
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad", "Nadam"])
def test_every_optimizer(module: Any, name: str) -> None:
    model = mlp(module)
    before = [v.numpy() for v in model.trainable_variables]
    report = gp.check_step(plain_step(module, getattr(module.optimizers, name)(0.1), model), X, Y)
    assert report.ok and report.diagnostics == []
    assert [t.state for t in report.targets] == ["flows"] * 4
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@both
@pytest.mark.parametrize(
    "change",
    [
        lambda gradients: tf.clip_by_global_norm(gradients, 1.0)[0],
        lambda gradients: [tf.clip_by_norm(g, 1.0) for g in gradients],
        lambda gradients: [g / tf.linalg.global_norm(gradients) for g in gradients],
    ],
    ids=["global_norm", "norm", "normalized"],
)
def test_clipping(module: Any, change: Any) -> None:
    model = mlp(module)
    assert gp.check_step(plain_step(module, module.optimizers.Adam(), model, change=change), X, Y).diagnostics == []


@both
def test_layers_with_statistics_and_randomness(module: Any) -> None:
    model = mlp(module, module.layers.BatchNormalization(), module.layers.Dropout(0.5))
    assert gp.check_step(plain_step(module, module.optimizers.SGD(momentum=0.9), model), X, Y).diagnostics == []


def test_the_step_of_a_keras_model_itself() -> None:
    model = mlp()
    model.compile("adam", "mse")
    assert gp.check_step(model.train_step, (X, Y)).diagnostics == []


def test_a_scaled_loss_in_half_precision() -> None:
    policy = "mixed_float16"
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, dtype=policy), keras.layers.Dense(1)])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = optimizer.scale_loss(mse(y, model(x, training=True)))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)

    assert gp.check_step(step, X, Y).diagnostics == []


def test_two_networks_against_each_other() -> None:
    generator, judge = mlp(), mlp()
    ours, theirs = keras.optimizers.Adam(), keras.optimizers.Adam()

    def step(x: Any) -> None:
        with tf.GradientTape() as one, tf.GradientTape() as other:
            made = tf.repeat(generator(x), 3, axis=1)
            fooled, caught = judge(made), judge(x)
            gain, loss = -tf.reduce_mean(fooled), tf.reduce_mean(fooled) - tf.reduce_mean(caught)
        down = one.gradient(gain, generator.trainable_variables)
        up = other.gradient(loss, judge.trainable_variables)
        ours.apply_gradients(zip(down, generator.trainable_variables, strict=True))
        theirs.apply_gradients(zip(up, judge.trainable_variables, strict=True))

    assert gp.check_step(step, X).diagnostics == []


def test_accumulation_an_average_and_a_frozen_teacher() -> None:
    model, teacher, average = mlp(), mlp(), mlp()
    optimizer = keras.optimizers.SGD(0.1)
    sums = [tf.Variable(tf.zeros_like(v.value), trainable=False) for v in model.trainable_variables]
    count = tf.Variable(0, trainable=False)

    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            value = mse(teacher(x), model(x))
        for total, gradient in zip(sums, tape.gradient(value, model.trainable_variables), strict=True):
            total.assign_add(gradient)
        count.assign_add(1)
        if count % 4 == 0:
            optimizer.apply_gradients(zip(sums, model.trainable_variables, strict=True))
            for total in sums:
                total.assign(tf.zeros_like(total))
        for slow, fast in zip(average.trainable_variables, model.trainable_variables, strict=True):
            slow.assign(0.9 * slow + 0.1 * fast)

    optimizer.build(model.trainable_variables)
    assert gp.check_step(step, X).diagnostics == []


def test_a_gradient_penalty_and_a_step_by_hand() -> None:
    v = tf.Variable([[0.5], [1.0], [2.0]])

    @tf.function(jit_compile=True)
    def step(x: Any) -> None:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                score = tf.reduce_sum(tf.tanh(x @ v))
            slope = inner.gradient(score, x)
            value = score + tf.reduce_mean((tf.norm(slope, axis=1) - 1.0) ** 2)
        v.assign_sub(0.1 * outer.gradient(value, v))

    assert gp.check_step(step, X).diagnostics == []


def test_gradients_that_are_returned_are_used_by_the_caller() -> None:
    model = mlp()

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        return tape.gradient(value, model.trainable_variables)

    assert gp.check_step(step, X, Y).diagnostics == []


def test_steps_within_functions_and_loops() -> None:
    model, optimizer = mlp(), keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    inner = tf.function(plain_step(keras, optimizer, model))

    def nested(x: Any, y: Any) -> Any:
        return inner(x, y)

    def looped(x: Any, y: Any) -> None:
        for _ in tf.range(2):
            with tf.GradientTape() as tape:
                value = mse(y, model(x))
            found = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))

    def forgetful(x: Any, y: Any) -> None:
        for _ in tf.range(2):
            with tf.GradientTape() as tape:
                value = mse(y, tf.round(model(x)))
            tape.gradient(value, model.trainable_variables)

    for step in (nested, looped):
        report = gp.check_step(step, X, Y)
        assert report.diagnostics == [] and [t.state for t in report.targets] == ["flows"] * 4
    report = gp.check_step(forgetful, X, Y)
    assert codes(report) == ["GP103"] and line(report) == "value = mse(y, tf.round(model(x)))"


def test_weights_that_are_moved_back_before_the_step() -> None:
    """Sharpness-aware minimization: the second tape reads what was assigned after the first."""
    model, optimizer = mlp(), keras.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        ascent = tape.gradient(value, variables)
        for v, g in zip(variables, ascent, strict=True):
            v.assign_add(0.05 * g)
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        gradients = tape.gradient(value, variables)
        for v, g in zip(variables, ascent, strict=True):
            v.assign_sub(0.05 * g)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    assert gp.check_step(step, X, Y).diagnostics == []


def test_a_jacobian_and_a_target_network() -> None:
    model, slow, optimizer = mlp(), mlp(), keras.optimizers.SGD()

    def step(x: Any) -> None:
        aim = tf.reduce_max(slow(x), axis=1)
        with tf.GradientTape() as tape:
            value = (aim - model(x)[:, 0]) ** 2
        rows = tape.jacobian(value, model.trainable_variables)
        gradients = [tf.reduce_mean(row, axis=0) for row in rows]
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for a, b in zip(slow.variables, model.variables, strict=True):
            a.assign(0.99 * a + 0.01 * b)

    assert gp.check_step(step, X).diagnostics == []


# Row 44, and the third example of the article: the gradients exist, and are never applied


@both
def test_gradients_that_are_never_applied(module: Any) -> None:
    model = mlp(module)

    def train_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            predictions = model(x, training=True)
            loss = mse(y, predictions)
        gradients = tape.gradient(loss, model.trainable_variables)
        print("a step with", len(gradients), "gradients")
        return loss

    report = gp.check_step(train_step, X, Y)
    assert codes(report) == ["GP500"] and not report.ok
    assert line(report) == "gradients = tape.gradient(loss, model.trainable_variables)"
    assert report.diagnostics[0].affects == [t.name for t in report.targets] and len(report.targets) == 4
    assert {t.state for t in report.targets} == {"flows"}
    assert "apply_gradients" in str(report)


def test_one_of_two_optimizers_is_forgotten() -> None:
    one, other = mlp(), mlp()
    optimizer = keras.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape(persistent=True) as tape:
            a, b = mse(y, one(x)), mse(y, other(x))
        first = tape.gradient(a, one.trainable_variables)
        second = tape.gradient(b, other.trainable_variables)
        optimizer.apply_gradients(zip(first, one.trainable_variables, strict=True))
        del second

    report = gp.check_step(step, X, Y)
    assert codes(report) == ["GP501"]
    assert report.diagnostics[0].affects == [v.path for v in other.trainable_variables]
    assert line(report) == "second = tape.gradient(b, other.trainable_variables)"


# Row 45: gradients applied to other variables, a variable missing from the list


def test_a_list_that_is_cut_short() -> None:
    model = mlp()
    optimizer = keras.optimizers.Adam()

    def step(x: Any, y: Any) -> None:
        head = model.layers[-1].trainable_variables
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        optimizer.apply_gradients(zip(tape.gradient(value, head), head, strict=True))

    report = gp.check_step(step, X, Y)
    assert codes(report) == ["GP502"]
    assert report.diagnostics[0].starves == [v.path for v in model.layers[0].trainable_variables]


@both
def test_a_list_in_another_order(module: Any) -> None:
    layers = [module.layers.Dense(3, use_bias=False) for _ in range(2)]
    model = module.Sequential([module.layers.Input((3,)), *layers])
    optimizer = module.optimizers.Adam()

    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(model(x) ** 2)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, reversed(model.trainable_variables), strict=True))

    report = gp.check_step(step, X)
    assert codes(report) == ["GP503"] and len(report.diagnostics[0].affects) == 2


def test_gradients_for_another_model() -> None:
    model, copy = mlp(), mlp()
    optimizer = keras.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, copy.trainable_variables, strict=True))

    report = gp.check_step(step, X, Y)
    assert codes(report) == ["GP503"]
    assert copy.trainable_variables[0].path in report.diagnostics[0].message
    assert report.diagnostics[0].affects == [v.path for v in model.trainable_variables]


# Rows 24 to 28: what the tape does not see


@both
def test_the_forward_pass_before_the_tape(module: Any) -> None:
    model = mlp(module)
    optimizer = module.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        predictions = model(x, training=True)
        with tf.GradientTape() as tape:
            value = mse(y, predictions)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    report = gp.check_step(step, X, Y)
    assert set(codes(report)) == {"GP504"} and {t.state for t in report.targets} == {"none"}
    assert {d.source.text for d in report.diagnostics if d.source} == {"predictions = model(x, training=True)"}


def test_the_loss_after_the_tape_and_within_stop_recording() -> None:
    v = tf.Variable([1.0, 2.0])

    def after(x: Any) -> None:
        with tf.GradientTape() as tape:
            scores = v * x
        value = tf.reduce_sum(scores**2)
        gradient = tape.gradient(value, v)
        if gradient is not None:
            v.assign_sub(gradient)

    def stopped(x: Any) -> None:
        with tf.GradientTape() as tape:
            with tape.stop_recording():
                scores = v * x
            value = tf.reduce_sum(scores**2)
        gradient = tape.gradient(value, v)
        if gradient is not None:
            v.assign_sub(gradient)

    for step, wanted in ((after, "value = tf.reduce_sum(scores**2)"), (stopped, "scores = v * x")):
        report = gp.check_step(step, tf.ones([2]))
        assert codes(report) == ["GP504"] and line(report) == wanted and report.diagnostics[0].starves == ["v"]


def test_a_variable_that_was_bound_to_a_tensor() -> None:
    x = tf.Variable(2.0)
    x = x + 1.0

    def step() -> Any:
        with tf.GradientTape() as tape:
            y = x**2
        return tape.gradient(y, x)

    report = gp.check_step(step)
    assert codes(report) == ["GP512"] and report.diagnostics[0].starves == ["x"]
    assert line(report) == "return tape.gradient(y, x)"


def test_a_constant_that_is_watched_is_no_fault() -> None:
    x = tf.constant(3.0)

    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x**2
        return tape.gradient(y, x)

    assert gp.check_step(step).ok


def test_moving_statistics_among_the_sources_are_no_fault() -> None:
    model = mlp(keras, keras.layers.BatchNormalization())
    optimizer = keras.optimizers.SGD()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = mse(y, model(x, training=True))
        gradients = tape.gradient(value, model.variables)
        found = [(g, v) for g, v in zip(gradients, model.variables, strict=True) if g is not None]
        optimizer.apply_gradients(found)

    report = gp.check_step(step, X, Y)
    assert report.ok and codes(report) == ["GP513"] and len(report.diagnostics[0].unused) == 2


def test_a_value_that_goes_through_assign() -> None:
    v, w = tf.Variable(2.0, name="v"), tf.Variable(0.0, name="w", trainable=False)

    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            w.assign(v * x)
            y = w**2
        return tape.gradient(y, v)

    report = gp.check_step(step, tf.constant(3.0))
    assert codes(report) == ["GP207"] and line(report) == "w.assign(v * x)"


def test_assigned_between_the_loss_and_its_gradient() -> None:
    model = mlp()

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = mse(y, model(x))
        for v in model.trainable_variables:
            v.assign(0.99 * v)
        for v, gradient in zip(model.trainable_variables, tape.gradient(value, model.trainable_variables), strict=True):
            v.assign(v - 0.1 * gradient)

    report = gp.check_step(step, X, Y)
    assert set(codes(report)) == {"GP514"} and line(report) == "v.assign(0.99 * v)"


# Rows 31 and 32, and what check tells too


def test_layers_that_are_never_called_and_ops_that_sever() -> None:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = keras.layers.Dense(1), keras.layers.Dense(1)
            self.unused.build((None, 3))

        def call(self, x: Any) -> Any:
            return tf.round(self.used(x))

    model, optimizer = Model(), keras.optimizers.SGD()
    model(X)
    report = gp.check_step(plain_step(keras, optimizer, model), X, Y)
    assert codes(report) == ["GP103", "GP209"] and line(report) == "return tf.round(self.used(x))"
    assert {t.state for t in report.targets} == {"none"}


def test_a_loss_that_does_not_depend_on_the_model() -> None:
    model = mlp()
    report = gp.check_step(plain_step(keras, keras.optimizers.SGD(), model, loss=lambda y, p: mse(y, y)), X, Y)
    assert codes(report) == ["GP208"] and "`inputs_1`" in report.diagnostics[0].notes[0]


# Row 22 and 23, and what is told beside


def test_numpy_on_the_way_to_the_loss() -> None:
    model = mlp()

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = tf.constant(np.mean((y - model(x)) ** 2))
        return tape.gradient(value, model.trainable_variables)

    report = gp.check_step(step, X, Y)
    assert codes(report) == ["GP510"] and not report.ok
    assert line(report) == "value = tf.constant(np.mean((y - model(x)) ** 2))"
    assert [t.state for t in report.targets] == ["none"] * 4 and len(report.diagnostics[0].starves) == 4


def test_predict_under_the_tape() -> None:
    model = mlp()

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = mse(y, model.predict(x, verbose=0))
        return tape.gradient(value, model.trainable_variables)

    report = gp.check_step(step, X, Y)
    assert codes(report) == ["GP510"] and "`model.predict()`" in report.diagnostics[0].message


@pytest.mark.parametrize("applied", [True, False])
def test_a_value_told_after_the_gradients_is_no_fault_of_theirs(applied: bool) -> None:
    model = mlp()
    inner = plain_step(keras, keras.optimizers.SGD(), model)

    def step(x: Any, y: Any) -> Any:
        value = inner(x, y)
        return value.numpy()

    report = gp.check_step(step, X, Y)
    assert report.ok and codes(report) == ["GP510"] and line(report) == "return value.numpy()"
    assert report.diagnostics[0].severity == "note" and len(report.targets) == 4


@both
def test_an_optimizer_of_another_model(module: Any) -> None:
    optimizer = module.optimizers.Adam()
    optimizer.build(mlp(module).trainable_variables)
    report = gp.check_step(plain_step(module, optimizer, mlp(module)), X, Y)
    assert codes(report) == ["GP506"] and "apply_gradients" in line(report)


def test_a_tape_that_is_used_twice() -> None:
    v, w = tf.Variable(1.0), tf.Variable(2.0)

    def step() -> None:
        with tf.GradientTape() as tape:
            value = v * w
        v.assign_sub(tape.gradient(value, v))
        w.assign_sub(tape.gradient(value, w))

    report = gp.check_step(step)
    assert codes(report) == ["GP507"] and line(report) == "w.assign_sub(tape.gradient(value, w))"


def test_a_loss_with_a_number_for_each_example() -> None:
    loss = keras.losses.MeanSquaredError(reduction="none")
    report = gp.check_step(plain_step(keras, keras.optimizers.SGD(), mlp(), loss=loss), X, Y)
    assert codes(report) == ["GP508"] and "(8,)" in report.diagnostics[0].message


def test_labels_that_make_a_square() -> None:
    step = plain_step(keras, keras.optimizers.SGD(), mlp())
    report = gp.check_step(step, X, Y[:, 0])
    assert codes(report) == ["GP509"] and "(8, 1) with (8,)" in report.diagnostics[0].message
    assert line(report) == "return tf.reduce_mean((y - p) ** 2)"


def test_whole_numbers() -> None:
    count = tf.Variable(3, name="count")

    def step() -> Any:
        with tf.GradientTape() as tape:
            value = tf.cast(count * count, tf.float32)
        return tape.gradient(value, count)

    assert codes(gp.check_step(step)) == ["GP205"]


def test_a_step_that_cannot_be_traced_is_refused_at_its_line() -> None:
    def step(x: Any) -> Any:
        return x @ tf.ones([7, 1])

    with pytest.raises(gp.GradpassError, match=r"`step` cannot be traced \(.*test_step\.py:\d+\): .*"):
        gp.check_step(step, X)


def test_tapes_are_as_before_afterwards() -> None:
    methods = {name: getattr(tf.GradientTape, name) for name in ("__init__", "__enter__", "gradient", "watch")}
    with pytest.raises(gp.GradpassError):
        gp.check_step(lambda: tf.ones([2]) @ tf.ones([3]))
    assert all(getattr(tf.GradientTape, name) is method for name, method in methods.items())


def test_every_format_tells_it() -> None:
    report = gp.check_step(
        plain_step(keras, keras.optimizers.SGD(), mlp(), loss=lambda y, p: mse(y, tf.round(p))), X, Y
    )
    assert "GP103" in str(report) and "<svg" in report._repr_html_() and report.to_json()["summary"]["none"] == 4
