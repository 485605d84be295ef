"""Keras layers whose graphs are not plain: recurrent loops, attention, and layers as they are while training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks.zoo import Made, serve

STEPS, WIDTH, UNITS = 5, 6, 4


def stacked(layers: Callable[[], list[Any]], training: bool) -> Made:
    """Makes a stack of layers over a sequence."""
    import keras

    sequence = keras.Input((STEPS, WIDTH))
    value = sequence
    for layer in layers():
        value = layer(value)
    network = keras.Model(sequence, value)

    def call(given: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output": network(given, training=training)}

    return serve(network, call, tf.TensorSpec([None, STEPS, WIDTH], tf.float32, "sequence"))


def recurrent(kind: str, **options: Any) -> list[Any]:
    """Makes two recurrent layers, the second giving its last step only."""
    import keras

    layer = getattr(keras.layers, kind)
    return [layer(UNITS, return_sequences=True, **options), layer(UNITS, **options), keras.layers.Dense(2)]


def bidirectional() -> list[Any]:
    """Makes a layer that reads both ways, forwards by an LSTM and backwards by a GRU, with masking before it."""
    import keras

    both = keras.layers.Bidirectional(
        keras.layers.LSTM(UNITS, return_sequences=True),
        backward_layer=keras.layers.GRU(UNITS, return_sequences=True, go_backwards=True),
    )
    return [keras.layers.Masking(), both, keras.layers.Dense(2)]


def convolutional() -> list[Any]:
    """Makes a recurrent layer of convolutions."""
    import keras

    return [
        keras.layers.Reshape((STEPS, WIDTH, 1)),
        keras.layers.ConvLSTM1D(UNITS, 3, return_sequences=True),
        keras.layers.TimeDistributed(keras.layers.Dense(2)),
    ]


def attention(causal: bool) -> list[Any]:
    """Makes self-attention with a residual path and normalisation."""
    import keras

    class Block(keras.layers.Layer):
        """Attends to itself."""

        def __init__(self) -> None:
            super().__init__()
            self.attend = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
            self.norm = keras.layers.LayerNormalization()
            self.feed = keras.layers.Dense(WIDTH, activation="gelu")

        def call(self, x: Any) -> Any:
            return self.feed(self.norm(x + self.attend(x, x, use_causal_mask=causal)))

    return [Block(), Block()]


def regularised() -> list[Any]:
    """Makes layers that behave differently in training: their statistics are of the batch, their noise is on."""
    import keras

    return [
        keras.layers.Conv1D(UNITS, 3),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("silu"),
        keras.layers.SpatialDropout1D(0.2),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dense(UNITS),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.GroupNormalization(2),
        keras.layers.GlobalMaxPooling1D(),
    ]


STACKS: dict[str, tuple[Callable[[], list[Any]], bool]] = {
    "LSTM": (partial(recurrent, "LSTM"), False),
    "LSTM-unrolled": (partial(recurrent, "LSTM", unroll=True), False),
    "GRU": (partial(recurrent, "GRU"), False),
    "GRU-dropout-training": (partial(recurrent, "GRU", dropout=0.2, recurrent_dropout=0.2), True),
    "SimpleRNN": (partial(recurrent, "SimpleRNN"), False),
    "ConvLSTM1D": (convolutional, False),
    "Bidirectional-Masking": (bidirectional, False),
    "MultiHeadAttention": (partial(attention, False), False),
    "MultiHeadAttention-causal-training": (partial(attention, True), True),
    "BatchNorm-Dropout-inference": (regularised, False),
    "BatchNorm-Dropout-training": (regularised, True),
}
MODELS = {name: partial(stacked, *stack) for name, stack in STACKS.items()}
