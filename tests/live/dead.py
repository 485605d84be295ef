"""Models with dead parts, and how a pruned one is proved."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from gradpass.live.frameworks import name_of, plain

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


def values(function: Any, *inputs: Any, **how: Any) -> list[Any]:
    return [np.asarray(tensor) for tensor in tf.nest.flatten(function(*inputs, **how))]


def same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


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


def towers(module: Any) -> Any:
    """Two towers in one model, of which one is read; the other is fed by a layer of the model around."""
    layers = module.layers
    left, right = module.Input((5,), name="left"), module.Input((4,), name="right")
    a = layers.Dense(3, name="tower_a")(left)
    b = layers.BatchNormalization(name="norm_b")(layers.Dense(3, name="tower_b")(right))
    b = layers.Dropout(0.5, name="drop_b")(b)  # draws by itself, and nobody misses that
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


def otherwise(module: Any) -> Any:
    """A nested model that is called otherwise than it was made, and one that is given a mask."""
    layers = module.layers
    a, b = module.Input((5,), name="a"), module.Input((5,), name="b")
    pair = module.Model([a, b], [layers.Dense(5, name="p")(a), layers.Dense(2, name="q")(b)], name="pair")
    y = module.Input((5, 1), name="y")
    sums = layers.GlobalAveragePooling1D(name="sums")
    masked = module.Model(y, [sums(y), layers.Dense(2, name="r")(y)], name="masked")
    x = module.Input((5,), name="x")
    first, _ = pair({"a": x, "b": layers.Dense(5, name="fed")(x)})
    mask = layers.Lambda(lambda t: t > 0.5, output_shape=(5,), name="mask")(x)
    mean, _ = masked(layers.Reshape((5, 1), name="shaped")(first), mask=mask)
    return module.Model(x, mean, name="otherwise")


def lambdas(module: Any) -> Any:
    layers = module.layers
    x = module.Input((5,), name="inner_x")
    hidden = layers.Lambda(lambda t: 2.0 * t, name="double")(layers.Dense(4, name="first")(x))
    dead = layers.Lambda(lambda t: t + 1.0, name="dead_lambda")(layers.Dense(4, name="dead_dense")(hidden))
    inner = module.Model(x, (hidden, dead), name="inner")
    x = module.Input((5,), name="x")
    return module.Model(x, layers.Dense(1, name="top")(inner(x)[0]))


def heads(module: Any, kind: str) -> Any:
    layers = module.layers
    x = module.Input((5,), name="x")
    hidden = layers.Dense(4, name="body")(x)
    outputs = {name: layers.Dense(2, name=name)(hidden) for name in ("first", "second", "third")}
    return module.Model(x, outputs if kind == "dict" else list(outputs.values()))


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
