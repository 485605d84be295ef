"""Exports of Keras in which something is dead. Keras 3 (since 3.12) writes each weight twice, and needs one of both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
import tf_keras

from gradpass.program.savedmodel import read
from tests.pruning.models import IDS, Dense, Split, X, serving, shown, split, variable

layers = keras.layers


def exported(model: Any, path: Path, dead: Iterable[str] = (), states: str = "no states", shape: Any = None) -> Split:
    """Exports a model of Keras 3, and tells apart the weights whose paths name one of `dead` and the others.

    The copies under `_all_variables` are all dead, but for `states`, which stand there only. The state of a generator
    of random numbers, which the training needs alone, is dead in an export. `shape` is the input's, where it is fixed.
    """
    given = {} if shape is None else {"input_signature": [keras.InputSpec("float32", shape)]}
    model.export(str(path), verbose=False, **given)
    written = {variable.path: variable.name for variable in read(path).variables.values()}
    copies = {way: name for way, name in written.items() if way.startswith("_all_variables/")}
    gone = {way for way, name in copies.items() if states not in name}
    for i, weight in enumerate(model.variables):
        if any(part in weight.path for part in (*dead, "seed_generator")):
            gone.add(f"variables/{i}")
    return Split(frozenset(gone), frozenset(written.keys() - gone))


@shown
def keras_sequential(path: Path) -> Split:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    return exported(model, path)


@shown
def keras_two_outputs(path: Path) -> Split:
    keras.utils.set_random_seed(2)
    x = keras.Input((4,), name="x")
    h = layers.Dense(5, activation="relu")(x)
    model = keras.Model(x, {"score": layers.Dense(1)(h), "class": layers.Dense(3, activation="softmax")(h)})
    return exported(model, path)


@shown
def keras_compiled(path: Path) -> Split:
    """A model that was trained: its optimizer's variables and metrics are no part of the export."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(tf.random.normal([8, 4]), tf.zeros([8, 1]), verbose=0)
    return exported(model, path)


class KerasBert(keras.Model):
    """The transformer again, of Keras layers; its pooler is called and its value dropped."""

    def __init__(self, vocabulary: int = 40, size: int = 8, blocks: int = 2) -> None:
        super().__init__()
        self.tokens = layers.Embedding(vocabulary, size, name="tokens")
        self.attention = [layers.MultiHeadAttention(2, size // 2, name=f"attention_{i}") for i in range(blocks)]
        self.norms = [layers.LayerNormalization(name=f"norm_{i}") for i in range(blocks)]
        self.pooler = layers.Dense(size, activation="tanh", name="pooler")
        self.lm_head = layers.Dense(vocabulary, name="lm_head")

    def call(self, ids: Any) -> Any:
        h = self.tokens(ids)
        for attention, norm in zip(self.attention, self.norms, strict=True):
            h = norm(h + attention(h, h))
        self.pooler(h[:, 0])
        self.lm_head(h)
        return h


@shown
def keras_bert(path: Path) -> Split:
    keras.utils.set_random_seed(4)
    model = KerasBert()
    model(tf.zeros([1, 5], tf.int32))
    return exported(model, path, ["pooler", "lm_head"])


@shown
def keras_module_bert(path: Path) -> Split:
    """The same model in a tf.Module that TensorFlow saves."""
    keras.utils.set_random_seed(4)
    module = tf.Module()
    module.model = KerasBert()
    module.model(tf.zeros([1, 5], tf.int32))
    module.serve = serving(lambda ids: {"hidden": module.model(ids)}, IDS)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    written = {variable.path for variable in read(path).variables.values()}
    dead = {f"model/{layer}/{name}" for layer in ("pooler", "lm_head") for name in ("_kernel", "bias")}
    return Split(frozenset(dead), frozenset(written - dead))


@shown
def keras_words(path: Path) -> Split:
    """Words are looked up within the model."""
    keras.utils.set_random_seed(7)
    word = keras.Input((), dtype="string", name="word")
    places = layers.StringLookup(vocabulary=["red", "green", "blue"])(word)
    return exported(keras.Model(word, layers.Embedding(4, 3)(places)), path)


@shown
def keras_stateful(path: Path) -> Split:
    """A recurrent layer that remembers: its states are written at each call, and read at the next."""
    if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        pytest.skip("Keras 3.12 exports no layer that wants a fixed number of examples")
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((3, 4), batch_size=3), layers.LSTM(2, stateful=True), layers.Dense(1)])
    # Keras 3.12 does not see by itself that the size of a batch is fixed.
    return exported(model, path, states="rnn_state", shape=(3, 3, 4))


def _with_slots(path: Path, optimizer: Any) -> None:
    module = tf.Module()
    module.alive, module.dead, module.optimizer = Dense(4, 2), variable(4, 3), optimizer
    module.serve = serving(lambda x: {"y": module.alive(x)}, X)
    module.optimizer.apply_gradients([(tf.ones_like(each), each) for each in (module.alive.kernel, module.dead)])
    tf.saved_model.save(module, str(path), signatures=module.serve)


@shown
def slots_of_an_old_optimizer(path: Path) -> Split:
    """Slots of a variable that is alive and of one that is dead, and numbers that the optimizer trains on with."""
    _with_slots(path, tf_keras.optimizers.legacy.Adam())
    stay = "Adam/kernel/m Adam/kernel/v optimizer/iter optimizer/beta_1 optimizer/beta_2 optimizer/decay"
    alive = f"alive/kernel alive/bias optimizer/learning_rate {stay}"
    keys = "dead dead/.OPTIMIZER_SLOT/optimizer/m dead/.OPTIMIZER_SLOT/optimizer/v"
    return split("dead Adam/Variable/m Adam/Variable/v", alive, keys=keys)


@shown
def slots_of_an_optimizer(path: Path) -> Split:
    """The same with an optimizer that has no slots as such: its variables are named after those that it trains."""
    _with_slots(path, tf_keras.optimizers.Adam())
    stay = "optimizer/_iterations optimizer/_learning_rate optimizer/_variables/1 optimizer/_variables/2"
    return split("dead optimizer/_variables/3 optimizer/_variables/4", f"alive/kernel alive/bias {stay}")


@shown
def tf_keras_folder(path: Path) -> Split:
    """What model.save(folder) wrote, whose loader makes all layers anew and wants their weights: nothing goes."""
    model = folder_model()
    model.save(str(path), save_format="tf")
    return Split(frozenset(), frozenset(variable.path for variable in read(path).variables.values()))


def folder_model() -> Any:
    """A trained model of tf_keras, of whose two heads one is called and dropped."""

    class Headed(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.unused = tf_keras.layers.Dense(3), tf_keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            h = self.body(x)
            self.unused(h)
            return h

    tf_keras.utils.set_random_seed(6)
    model = Headed()
    model.compile("adam", "mse")
    model.fit(tf.random.normal([8, 4]), tf.zeros([8, 3]), verbose=0)
    return model
