"""What is probed in tests, as users write it, in a file of its own: its lines are shown in findings."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")
Y = RNG.normal(size=(8, 2)).astype("float32")
FAR = -1000.0  # a bias by which a unit is off, whatever comes in


def sequential(module: Any, activation: str, bias: float) -> Any:
    start = module.initializers.Constant(bias)
    return module.Sequential(
        [
            module.layers.Input((3,)),
            module.layers.Dense(4, "tanh", name="first"),
            module.layers.Dense(4, activation, bias_initializer=start, name="middle"),
            module.layers.Dense(2, name="last"),
        ]
    )


def functional(module: Any, activation: str, bias: float) -> Any:
    start = module.initializers.Constant(bias)
    x = module.Input((3,))
    h = module.layers.Dense(4, "tanh", name="first")(x)
    h = module.layers.Dense(4, bias_initializer=start, name="middle")(h)
    h = module.layers.Activation(activation)(h)
    return module.Model(x, module.layers.Dense(2, name="last")(h))


def subclassed(module: Any, activation: str, bias: float) -> Any:
    class Model(module.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            start = module.initializers.Constant(bias)
            self.first = module.layers.Dense(4, "tanh", name="first")
            self.middle = module.layers.Dense(4, bias_initializer=start, name="middle")
            self.last = module.layers.Dense(2, name="last")

        def call(self, x: Any) -> Any:
            h = self.middle(self.first(x))
            h = getattr(tf.nn, activation)(h)
            return self.last(h)

    return Model()


W = tf.Variable(RNG.normal(size=(3, 4)).astype("float32"), name="w")
B = tf.Variable([FAR, FAR, FAR, FAR], name="b")
V = tf.Variable(RNG.normal(size=(4,)).astype("float32"), name="v")


def dead(x: Any) -> Any:
    hidden = tf.nn.relu(x @ W + B)
    return tf.reduce_sum(hidden * V)


def saturated(x: Any) -> Any:
    hidden = tf.tanh(x @ W + B)
    return tf.reduce_sum(hidden * V)


def masked_by_lengths(x: Any, lengths: Any) -> Any:
    mask = tf.sequence_mask(lengths, maxlen=8, dtype=tf.float32)
    return tf.reduce_sum(tf.reduce_sum((x @ W) ** 2, axis=1) * mask)


def selected(x: Any, keep: Any) -> Any:
    rows = tf.boolean_mask(x @ W, keep)
    return tf.reduce_sum(rows**2)


def taken(x: Any, keep: Any) -> Any:
    return tf.reduce_sum(tf.where(keep[:, tf.newaxis], x @ W, 1.0))


def weighted(labels: Any, outputs: Any) -> Any:
    """A loss whose class weights leave nothing of classes that are not 1."""
    each = tf.reduce_mean((labels - outputs) ** 2, axis=1)
    weights = tf.cast(labels[:, 0] > 1e6, tf.float32)
    return tf.reduce_sum(each * weights)


def log_not_taken(x: Any) -> Any:
    return tf.reduce_sum(tf.where(x > 0, tf.math.log(x * V[0] * 0.0 + x), 0.0))


def distance(x: Any) -> Any:
    return tf.norm(x @ W - x @ W)


@tf.function
def inner(x: Any) -> Any:
    if tf.reduce_sum(x) > 1e9:
        x = x + 1.0
    return tf.nn.relu(x @ W + B)


@tf.function
def plain_inner(x: Any) -> Any:
    return tf.nn.relu(tf.nn.silu(x @ W) * 0.0 + x @ W + B)


@tf.function
def calling(x: Any) -> Any:
    return tf.reduce_sum(plain_inner(x) * V)


@tf.function
def calling_converted(x: Any) -> Any:
    return tf.reduce_sum(inner(x) * V)


@tf.function
def nested(x: Any) -> Any:
    return tf.reduce_sum(tf.nn.silu(inner(x)) * V)


class Counting(tf.Module):
    """Reads what a call in a call has assigned."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable([1.0, 2.0], name="w")
        self.scale = tf.Variable(1.0, trainable=False, name="scale")

    @tf.function
    def innermost(self) -> None:
        self.scale.assign(5.0)

    @tf.function
    def inner(self) -> None:
        self.innermost()

    @tf.function
    def __call__(self) -> Any:
        self.inner()
        return tf.reduce_sum(self.w * self.scale)


class Branching(tf.Module):
    """A module with branches and loops in loops that read variables, and a counter; for files."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones([3, 4]), name="w")
        self.b = tf.Variable(tf.fill([4], bias), name="b")
        self.k = tf.Variable(2.0, name="k")
        self.calls = tf.Variable(0.0, trainable=False, name="calls")

    @tf.function
    def inner(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        if tf.reduce_sum(x) > 0:
            x = x * self.k
        for _ in tf.range(2):
            for _ in tf.range(2):
                x = x + 0.1 * tf.sin(self.k * x)
        return tf.nn.relu(x @ self.w + self.b)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        return {"y": tf.reduce_sum(self.inner(x), 1)}


def mlp() -> tuple[Any, Any, Any]:
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(16, "relu"), layers.Dropout(0.3), layers.Dense(16, "tanh"), layers.Dense(2)]
    )
    model.compile("adam", "mse")
    return model, X, Y


def cnn() -> tuple[Any, Any, Any]:
    layers = keras.layers
    image = layers.Input((16, 16, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3)(image)))
    x = layers.Dropout(0.2)(layers.MaxPooling2D()(x))
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(8, 3, activation="relu")(x))
    model = keras.Model(image, layers.Dense(5, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, RNG.random((8, 16, 16, 3)), RNG.integers(0, 5, 8)


def lstm() -> tuple[Any, Any, Any]:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((7,)),
            layers.Embedding(20, 8, mask_zero=True),
            layers.LSTM(6, return_sequences=True),
            layers.GRU(4),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    return model, RNG.integers(0, 20, (8, 7)), RNG.integers(0, 2, (8, 1))


def transformer() -> tuple[Any, Any, Any]:
    layers = keras.layers
    tokens = layers.Input((7,))
    x = layers.Embedding(20, 8)(tokens)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
        x = layers.LayerNormalization()(x + layers.Dense(8, "silu")(layers.Dense(16, "gelu")(x)))
    model = keras.Model(tokens, layers.Dense(20)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, RNG.integers(0, 20, (8, 7)), RNG.integers(0, 20, (8, 7))


def embedding() -> tuple[Any, Any, Any]:
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.Input((5,)), layers.Embedding(1000, 8), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    )
    model.compile("adam", "mse")
    return model, RNG.integers(0, 1000, (8, 5)), Y


def old_recurrent() -> tuple[Any, Any, Any]:
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.Input((5, 3)), layers.LSTM(6, return_sequences=True), layers.BatchNormalization(), layers.LSTM(4)]
    )
    model.compile("adam", "mse")
    return model, RNG.random((8, 5, 3)), RNG.random((8, 4))


HEALTHY = (mlp, cnn, lstm, transformer, embedding, old_recurrent)
