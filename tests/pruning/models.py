"""SavedModels in which something is dead, each with what must go and what must stay; by tf.Module and tf.function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

F32 = tf.float32


@dataclass(frozen=True)
class Split:
    """What must go and what must stay: variables by their paths in the object graph (TensorFlow 1: by name).

    `tables` are the objects of tables that must go, and `assets` their files; `keys` those of the checkpoint, where
    they are not called by the paths.
    """

    dead: frozenset[str]
    alive: frozenset[str]
    tables: frozenset[str] = frozenset()
    assets: frozenset[str] = frozenset()
    keys: frozenset[str] | None = None


Builder = Callable[[Path], Split]
MODELS: dict[str, Builder] = {}
SEEDS = count()


def shown(builder: Builder) -> Builder:
    """Adds a builder to those that every oracle looks at."""
    MODELS[builder.__name__] = builder
    return builder


def split(dead: str, alive: str, tables: str = "", assets: str = "", keys: str | None = None) -> Split:
    """A Split of names in one string each, with blanks between."""
    sets = (frozenset(names.split()) for names in (dead, alive, tables, assets))
    return Split(*sets, keys=None if keys is None else frozenset(keys.split()))


def variable(*shape: int, name: str | None = None, dtype: tf.DType = F32) -> tf.Variable:
    """A variable of random values, none of them zero, and other ones for each variable."""
    rng = np.random.default_rng(next(SEEDS))
    return tf.Variable(tf.cast(rng.uniform(0.1, 1, size=shape), dtype), name=name)


def serving(function: Callable[..., Any], *specs: tf.TensorSpec) -> Any:
    """A function as it is traced for a signature."""
    return tf.function(function, input_signature=list(specs), autograph=False)


X = tf.TensorSpec([None, 4], F32, name="x")
IDS = tf.TensorSpec([None, 5], tf.int32, name="ids")


class Dense(tf.Module):
    """A layer with a kernel and a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = variable(inputs, outputs, name="kernel")
        self.bias = variable(outputs, name="bias")

    def __call__(self, x: Any) -> Any:
        return tf.tanh(x @ self.kernel + self.bias)


class Block(tf.Module):
    """A layer of a transformer: one head of attention, two dense layers, a norm after each."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (variable(size, size) for _ in range(4))
        self.up, self.down = variable(size, 2 * size), variable(2 * size, size)
        self.scale = [variable(size) for _ in range(2)]

    def __call__(self, h: Any) -> Any:
        scores = tf.einsum("bid,bjd->bij", h @ self.query, h @ self.key) / h.shape[-1] ** 0.5
        h = self._norm(h + tf.nn.softmax(scores) @ (h @ self.value) @ self.out, 0)
        return self._norm(h + tf.nn.relu(h @ self.up) @ self.down, 1)

    def _norm(self, h: Any, which: int) -> Any:
        mean, variance = tf.nn.moments(h, -1, keepdims=True)
        return (h - mean) * tf.math.rsqrt(variance + 1e-6) * self.scale[which]


class Bert(tf.Module):
    """A transformer by hand with a pooler and a language-model head, of which `serve` gives the hidden states only."""

    def __init__(
        self, call_pooler: bool, vocabulary: int = 40, size: int = 8, layers: int = 2, length: int = 5
    ) -> None:
        super().__init__()
        self.call_pooler = call_pooler
        self.tokens = variable(vocabulary, size, name="tokens")
        self.positions = variable(length, size, name="positions")
        self.blocks = [Block(size) for _ in range(layers)]
        self.pooler = Dense(size, size)
        self.lm_head = Dense(size, vocabulary)
        self.serve = serving(self._run, tf.TensorSpec([None, length], tf.int32, name="ids"))

    def _run(self, ids: Any) -> Any:
        h = tf.gather(self.tokens, ids) + self.positions
        for block in self.blocks:
            h = block(h)
        if self.call_pooler:
            self.pooler(h[:, 0])
        return {"hidden": h}


BLOCK = "query key value out up down scale/0 scale/1"
BERT_ALIVE = "tokens positions " + " ".join(f"blocks/{i}/{name}" for i in range(2) for name in BLOCK.split())
BERT_DEAD = "pooler/kernel pooler/bias lm_head/kernel lm_head/bias"


@shown
def bert_pooler_dropped(path: Path) -> Split:
    module = Bert(call_pooler=True)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split(BERT_DEAD, BERT_ALIVE)


@shown
def bert_pooler_never_called(path: Path) -> Split:
    module = Bert(call_pooler=False)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split(BERT_DEAD, BERT_ALIVE)


@shown
def two_towers(path: Path) -> Split:
    module = tf.Module()
    module.query = [Dense(4, 6), Dense(6, 3)]
    module.item = [Dense(4, 6), Dense(6, 3)]

    def run(x: Any) -> Any:
        query, item = x, x
        for layer in module.query:
            query = layer(query)
        for layer in module.item:
            item = layer(item)
        tf.reduce_sum(query * item, 1)
        return {"query": query}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    each = [f"{i}/{name}" for i in range(2) for name in ("kernel", "bias")]
    return split(" ".join(f"item/{e}" for e in each), " ".join(f"query/{e}" for e in each))


@shown
def loop_with_a_dead_value(path: Path) -> Split:
    """The loop makes two values, one after the other; nobody reads the second one after the loop."""
    module = tf.Module()
    module.alive, module.dead, module.last = variable(4, 4), variable(4, 4), variable(4, 2)

    def run(x: Any) -> Any:
        def body(i: Any, h: Any, unused: Any) -> Any:
            return i + 1, tf.tanh(h @ module.alive), unused + h @ module.dead

        _, h, _ = tf.while_loop(lambda i, h, unused: i < 3, body, (tf.constant(0), x, tf.zeros_like(x)))
        return {"y": h @ module.last}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "alive last")


@shown
def loop_that_carries_variables(path: Path) -> Split:
    """Values of variables go through a loop untouched; that of one is read behind it, that of another in its test."""
    module = tf.Module()
    module.read, module.dead, module.until = variable(4, 2), variable(4, 3), tf.Variable(2.5)

    def run(x: Any) -> Any:
        def body(i: Any, h: Any, read: Any, dead: Any, until: Any) -> Any:
            return i + 1.0, tf.tanh(h), read, dead, until

        start = (tf.constant(0.0), x, tf.identity(module.read), tf.identity(module.dead), tf.identity(module.until))
        _, h, read, _, _ = tf.while_loop(lambda i, h, read, dead, until: i < until, body, start)
        return {"y": h @ read}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "read until")


@shown
def loop_that_rotates(path: Path) -> Split:
    """What one turn of the loop makes and nobody reads is what the next turn starts with."""
    module = tf.Module()
    module.first, module.later, module.dead = (variable(4, 4) for _ in range(3))

    def run(x: Any) -> Any:
        def body(i: Any, h: Any, ahead: Any) -> Any:
            def inner(j: Any, g: Any, unused: Any) -> Any:
                return j + 1, tf.tanh(g @ module.later), unused @ module.dead

            return i + 1, ahead, tf.while_loop(lambda j, *_: j < 2, inner, (0, h, h))[1]

        return {"y": tf.while_loop(lambda i, *_: i < 3, body, (0, x, x @ module.first))[1]}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "first later")


@shown
def branches_with_a_dead_value(path: Path) -> Split:
    module = tf.Module()
    module.one, module.other = variable(4, 2), variable(4, 2)
    module.dead_one, module.dead_other = variable(4, 3), variable(4, 3)

    def run(x: Any) -> Any:
        y, _ = tf.cond(
            tf.reduce_sum(x) > 0,
            lambda: (x @ module.one, x @ module.dead_one),
            lambda: (x @ module.other, x @ module.dead_other),
        )
        return {"y": y}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead_one dead_other", "one other")


@shown
def cases_with_a_dead_value(path: Path) -> Split:
    """tf.switch_case, within a loop, within a call."""
    module = tf.Module()
    module.ways = [variable(4, 4) for _ in range(3)]
    module.dead = [variable(4, 4) for _ in range(3)]

    @tf.function(autograph=False)
    def step(i: Any, h: Any) -> Any:
        def way(k: int) -> Any:
            return lambda: (tf.tanh(h @ module.ways[k]), h @ module.dead[k])

        return tf.switch_case(i, [way(k) for k in range(3)])

    def run(x: Any) -> Any:
        def body(i: Any, h: Any, unused: Any) -> Any:
            new, also = step(i, h)
            return i + 1, new, also

        return {"y": tf.while_loop(lambda i, *_: i < 3, body, (tf.constant(0), x, x))[1]}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead/0 dead/1 dead/2", "ways/0 ways/1 ways/2")


@shown
def nested_call_with_a_dead_value(path: Path) -> Split:
    module = tf.Module()
    module.alive, module.dead = Dense(4, 2), Dense(4, 3)

    @tf.function(autograph=False)
    def both(x: Any) -> Any:
        return tf.function(module.alive.__call__)(x), tf.function(module.dead.__call__)(x)

    def run(x: Any) -> Any:
        return {"y": both(x)[0]}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead/kernel dead/bias", "alive/kernel alive/bias")


@shown
def called_twice(path: Path) -> Split:
    """One function is called twice; each of its two values is read of one of the calls."""
    module = tf.Module()
    module.one, module.other, module.dead = variable(4, 4), variable(4, 4), variable(4, 4)

    @tf.function(autograph=False)
    def three(x: Any) -> Any:
        return x @ module.one, x @ module.other, x @ module.dead

    def run(x: Any) -> Any:
        return {"y": three(three(x)[0])[1]}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "one other")


@shown
def several_signatures(path: Path) -> Split:
    """Each signature has a variable of its own; one is read for an integer output only."""
    module = tf.Module()
    module.shared, module.of_embed, module.of_choose = variable(4, 4), variable(4, 2), variable(4, 3)
    module.dead = variable(4, 5)
    module.score = serving(lambda x: {"y": x @ module.shared}, X)
    module.embed = serving(lambda x: {"y": x @ module.shared @ module.of_embed}, X)
    module.choose = serving(lambda x: {"y": tf.argmax(x @ module.of_choose, 1)}, X)
    signatures = {"serving_default": module.score, "embed": module.embed, "choose": module.choose}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return split("dead", "shared of_embed of_choose")


@shown
def method_that_is_no_signature(path: Path) -> Split:
    module = tf.Module()
    module.served, module.of_method, module.dead = variable(4, 2), variable(4, 3), variable(4, 5)
    module.serve = serving(lambda x: {"y": x @ module.served}, X)
    module.method = serving(lambda x: x @ module.of_method, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "served of_method")


@shown
def traced_several_times(path: Path) -> Split:
    """A method that was traced for two shapes and both values of a flag: all that can be called is alive."""
    module = tf.Module()
    module.learning, module.serving, module.dead = (variable(4, 4) for _ in range(3))

    @tf.function(autograph=False)
    def method(x: Any, training: bool = False) -> Any:
        return x @ module.learning if training else x @ module.serving

    for shape in ([1, 4], [2, 2, 4]):
        method(tf.zeros(shape))
    method(tf.zeros([1, 4]), training=True)
    module.method = method
    module.serve = serving(lambda x: {"y": method(x)}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "learning serving")


@shown
def loaded_inside(path: Path) -> Split:
    """A SavedModel that was loaded, called, and saved in another."""
    inner, module = tf.Module(), tf.Module()
    inner.alive, inner.dead = variable(4, 4), variable(4, 3)
    inner.call = serving(lambda x: x @ inner.alive, X)
    tf.saved_model.save(inner, f"{path}-inner")
    module.inner, module.alive, module.dead = tf.saved_model.load(f"{path}-inner"), variable(4, 2), variable(4, 5)
    module.serve = serving(lambda x: {"y": module.inner.call(x) @ module.alive}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead inner/dead", "alive inner/alive")


@shown
def two_inputs(path: Path) -> Split:
    module = tf.Module()
    module.left, module.right, module.dead = variable(4, 2), variable(4, 2), variable(4, 2)

    def run(x: Any, z: Any, unused: Any) -> Any:
        tf.reduce_sum(unused @ module.dead)
        return {"y": x @ module.left + z @ module.right}

    specs = [tf.TensorSpec([None, 4], F32, name=name) for name in ("x", "z", "unused")]
    module.serve = serving(run, *specs)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "left right")
