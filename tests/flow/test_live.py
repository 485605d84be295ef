"""Functions of this process: what is known of them that a file does not tell, and the gradients that users register."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.program.trace import of_function
from tests.models import V

S = tf.reduce_sum


@tf.custom_gradient
def rounded(x: Any) -> Any:
    """A straight-through estimator that the user wrote."""
    return tf.round(x), lambda upstream: upstream


@tf.custom_gradient
def product(x: Any, y: Any) -> Any:
    """One with a None."""
    return x * y, lambda upstream: (upstream * 2.0, None)


@tf.custom_gradient
def broken(x: Any) -> Any:
    """One that raises."""

    def gradient(upstream: Any) -> Any:
        raise RuntimeError(f"no gradient for {upstream.dtype.name}")

    return x * 2.0, gradient


@tf.custom_gradient
def own_rows(x: Any) -> Any:
    """One that puts what it is given into slices."""
    places = tf.stop_gradient(tf.cast(x[:2, 0] * 0.0, tf.int32))
    return tf.gather(x, places), lambda upstream: tf.IndexedSlices(upstream, places, tf.shape(x))


@tf.custom_gradient
def squared(x: Any) -> Any:
    """One that reads a tensor of the forward pass."""
    return x * x, lambda upstream: upstream * 2.0 * x


LARGE = tf.ones([200])  # small eager tensors are copied into the graph


def scaled_by(factor: Any) -> Any:
    """One that reads an eager tensor."""
    return tf.custom_gradient(lambda x: (tf.identity(x), lambda upstream: upstream * factor[0]))


def outside(v: Any, body: Callable[[Any], Any]) -> Any:
    return S(body(tf.sin(v)))


def loop(body: Callable[[Any], Any], start: Any) -> Any:
    return tf.while_loop(lambda i, _: i < 2, lambda i, s: (i + 1, body(s)), (tf.constant(0), start))[1]


def answers(function: Any, variables: list[Any]) -> list[str]:
    """What TensorFlow answers to a gradient of all outputs; nothing here is zero by its data."""
    try:
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(function())
        found = tape.gradient(outputs, variables, [tf.random.normal(y.shape) for y in outputs])
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError, AssertionError, tf.errors.OpError):
        return ["raises"] * len(variables)
    return ["none" if g is None else "flows" if np.any(tf.convert_to_tensor(g)) else "zero" for g in found]


CASES: dict[str, Callable[[Any, Any], Any]] = {
    "plain": lambda v, w: S(v * w),
    "severed": lambda v, w: S(tf.round(v) * w),
    "custom gradient": lambda v, w: S(rounded(v) * w),
    "custom gradient with None": lambda v, w: S(product(v, w)),
    "custom gradient in a loop": lambda v, w: S(loop(lambda s: s + rounded(v) * w, tf.zeros_like(V, tf.float32))),
    "custom gradient that raises": lambda v, w: S(broken(v)) + S(w),
    "nested loops": lambda v, w: S(loop(lambda s: loop(lambda t: t + v, s) * w, tf.ones_like(V, tf.float32))),
    "a branch in a loop": lambda v, w: S(
        loop(lambda s: tf.cond(S(s) > 10, lambda: s * v, lambda: s + w), tf.ones_like(V, tf.float32))
    ),
    "lists": lambda v, w: {"b": S(v), "a": [S(tf.round(w)), S(w)]},
    "rows of a custom gradient that takes them": lambda v, w: S(tf.gather(rounded(v), [0, 2]) * tf.gather(w, [0, 1])),
    "rows of a custom gradient that does not": lambda v, w: S(tf.gather(product(v, w), [0, 2])) + S(w),
    "rows of a custom gradient made dense": lambda v, w: S(1.0 * product(v, w)[:2]),
    "rows of a custom gradient that gives rows": lambda v, w: S(tf.gather_nd(own_rows(-v), [[0], [1]])) + S(w),
    "custom gradient in a branch, of the branch": lambda v, w: outside(
        v, lambda y: tf.cond(S(w) < 99, lambda: squared(tf.sin(y)), lambda: y)
    ),
    "custom gradient in a branch, of outside": lambda v, w: outside(
        v, lambda y: tf.cond(S(w) < 99, lambda: squared(y), lambda: y)
    ),
    "custom gradient in a call in a branch": lambda v, w: outside(
        v, lambda y: tf.cond(S(w) < 99, lambda: tf.function(squared, autograph=False)(y), lambda: y)
    ),
    "custom gradient in a loop, of outside": lambda v, w: outside(v, lambda y: loop(lambda s: s + squared(y), w)),
    "custom gradient in a loop, of an eager tensor": lambda v, w: S(loop(lambda s: scaled_by(LARGE)(s) + v, w)),
    "custom gradient of an eager tensor": lambda v, w: S(scaled_by(LARGE)(v) + w),
    "rows of rows": lambda v, w: S(tf.gather_nd(tf.gather_nd(v, [[0], [1]]), [[1], [0]])) + S(w),
    "unregistered": lambda v, w: S(tf.unique(tf.reshape(v, [-1])).y) + S(w),
}


@pytest.mark.parametrize("name", CASES)
def test_a_live_function_is_judged_as_tensorflow_does(name: str) -> None:
    v, w = tf.Variable(V, dtype=tf.float32, name="v"), tf.Variable(V * 0.5, dtype=tf.float32, name="v")
    function = tf.function(lambda: CASES[name](v, w), autograph=False)
    (verdict,) = analyse(of_function(function.get_concrete_function()))
    assert [t.state for t in verdict.targets] == answers(function, [v, w])
    assert [t.path for t in verdict.targets] == ["v", "v_1"]


def test_outputs_bear_the_names_of_the_structure() -> None:
    v = tf.Variable(V, dtype=tf.float32)
    function = tf.function(lambda: {"b": S(v), "a": [S(v), None, v], "c": (v,)}, autograph=False)
    (entry,) = of_function(function.get_concrete_function()).entry(None)
    assert list(entry.outputs) == ["a/0", "a/2", "b", "c/0"]


def test_ragged_outputs_are_numbered() -> None:
    v = tf.Variable([1.0, 2.0, 3.0])
    function = tf.function(lambda: tf.RaggedTensor.from_row_lengths(v, [1, 2]), autograph=False)
    (entry,) = of_function(function.get_concrete_function()).entry(None)
    assert list(entry.outputs) == ["output_0", "output_1"]


@pytest.fixture
def registered_bincount() -> Any:
    """A gradient that a user registers for an op of TensorFlow's, for as long as a test runs."""

    @tf.RegisterGradient("DenseBincount")
    def gradient(op: Any, upstream: Any) -> Any:
        return None, None, tf.gather(upstream, op.inputs[0])

    yield
    del ops.gradient_registry._registry["DenseBincount"]


def counts(v: Any, w: Any) -> Any:
    return S(tf.math.bincount(tf.constant([0, 1, 1]), weights=v[0], minlength=3, maxlength=3)) + S(w)


def saved(body: Callable[[Any, Any], Any], path: Path, custom: bool = True) -> Path:
    module = tf.Module()
    module.v, module.w = tf.Variable(V, dtype=tf.float32), tf.Variable(V * 0.5, dtype=tf.float32)
    serve = tf.function(lambda: {"y": body(module.v, module.w)}, input_signature=[], autograph=False)
    tf.saved_model.save(module, str(path), serve, tf.saved_model.SaveOptions(experimental_custom_gradients=custom))
    return path


def states(path: Path) -> list[tuple[str, str]]:
    (verdict,) = analyse(read(path))
    return [(t.state, t.structure) for t in verdict.targets]


def test_a_registered_gradient_joins_the_table(tmp_path: Path, registered_bincount: None) -> None:
    assert states(saved(counts, tmp_path / "m")) == [("flows", "flows")] * 2


def test_without_it_the_op_raises(tmp_path: Path) -> None:
    assert states(saved(counts, tmp_path / "m")) == [("raises", "none"), ("raises", "flows")]


def test_a_gradient_that_was_not_saved_is_lost_though_this_process_has_one_of_its_name(tmp_path: Path) -> None:
    path = saved(lambda v, w: S(rounded(v)) + S(w), tmp_path / "m", custom=False)
    assert states(path) == [("raises", "none"), ("raises", "flows")]


def test_a_gradient_under_the_users_own_name_is_known_where_it_is_registered(tmp_path: Path) -> None:
    @tf.RegisterGradient("TestLiveHalves")
    def gradient(op: Any, upstream: Any) -> Any:
        return upstream * 0.5

    def body(v: Any, w: Any) -> Any:
        with tf.compat.v1.get_default_graph().gradient_override_map({"Round": "TestLiveHalves"}):
            return S(tf.round(v) * w)

    assert states(saved(body, tmp_path / "m", custom=False)) == [("flows", "flows")] * 2
    del ops.gradient_registry._registry["TestLiveHalves"]
    assert states(tmp_path / "m") == [("raises", "none"), ("raises", "flows")]
