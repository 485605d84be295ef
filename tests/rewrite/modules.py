"""Modules whose gradients are severed inside calls, loops and branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def variable(name: str, *shape: int) -> tf.Variable:
    """A random variable whose values depend on its name alone."""
    rng = np.random.default_rng(sum(name.encode()))
    return tf.Variable(rng.normal(size=shape), dtype=tf.float32, name=name)


class NestedCalls(tf.Module):
    """ArgMax two calls down; its index leaves both calls before it is looked up; the codebook is live."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 4, 8)
        self.codebook = variable("codebook", 8, 5)
        self.head = variable("head", 5, 3)

    @tf.function
    def nearest(self, x: Any) -> Any:
        return tf.argmax(x @ self.w, 1)

    @tf.function
    def index(self, x: Any) -> Any:
        return self.nearest(x) + 0

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(self, x: Any) -> dict[str, Any]:
        code = tf.gather(self.codebook, self.index(x))
        logits = code @ self.head
        return {"probabilities": tf.nn.softmax(logits), "index": self.index(x)}


class InsideWhile(tf.Module):
    """Round inside a loop's body: TensorFlow says zeros for w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 3)
        self.v = variable("v", 3)

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        total = tf.zeros([3])
        step = tf.constant(0)
        while step < 4:
            total += tf.round(self.w * x * 3.3) * self.v
            step += 1
        return total


class InsideBranch(tf.Module):
    """A threshold in one branch of a cond."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 3)

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > -100.0, lambda: tf.cast(self.w * x > 0, tf.float32) * x, lambda: x)


class TwoThresholds(tf.Module):
    """The product of two thresholds: closed op by op its gradient is 0 wherever both are off."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([-0.1, -0.2, -0.3], name="a")
        self.b = tf.Variable([-0.1, -0.2, -0.3], name="b")

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        return tf.cast(self.a * x > 0, tf.float32) * tf.cast(self.b * x > 0, tf.float32)


class TwoLayers(tf.Module):
    """Hard units behind hard units: the lower layer is two cuts away from the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = variable("lower", 4, 6)
        self.upper = variable("upper", 6, 5)
        self.head = variable("head", 5, 2)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        hidden = tf.cast(x @ self.lower > 0, tf.float32)
        hidden = tf.cast(hidden @ self.upper > 0.1, tf.float32)
        return hidden @ self.head


class SharedFunction(tf.Module):
    """One function called twice, severed inside; its float result closes there."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 3)

    @tf.function
    def hard(self, x: Any) -> Any:
        return tf.sign(x * self.w)

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        return self.hard(x) + 2 * self.hard(x + 1)


class SideEffects(tf.Module):
    """A call that counts its runs and gives a severed index: inlined, it must still count once a run, and first."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 3, 4)
        self.count = tf.Variable(0.0, trainable=False, name="count")

    @tf.function
    def choose(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return tf.argmax(x @ self.w, 1)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        index = self.choose(x)
        return tf.one_hot(index, 4) * self.count


class ReadsAfterAssign(tf.Module):
    """A call that must wait for an assignment before it: its first node reads what was assigned."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 3, 4)
        self.bias = tf.Variable([0.0, 0.0, 0.0, 0.0], trainable=False, name="bias")

    @tf.function
    def choose(self, x: Any) -> Any:
        return tf.argmax(x @ self.w + self.bias, 1)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        self.bias.assign([0.0, 0.0, 0.0, 1e6])
        index = self.choose(x)
        self.bias.assign([0.0, 0.0, 0.0, 0.0])
        return tf.one_hot(index, 4)


class ReluMask(tf.Module):
    """A mask that starves nobody, an accuracy branch that nobody needs, and one real cut."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 16)
        self.v = variable("v", 16)

    @tf.function(input_signature=[tf.TensorSpec([16], tf.float32, name="x")])
    def serve(self, x: Any) -> dict[str, Any]:
        z = x * self.w
        masked = z * tf.cast(z > 0, tf.float32)
        return {"y": masked + tf.round(self.v * 3), "accuracy": tf.reduce_mean(tf.cast(z > 0.5, tf.float32))}


class LookedUpVariable(tf.Module):
    """tf.gather on a variable inside a layer: ResourceGather by a computed index."""

    def __init__(self) -> None:
        super().__init__()
        self.w = variable("w", 4, 8)
        self.table = variable("table", 8, 3)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        return tf.nn.embedding_lookup(self.table, tf.argmax(x @ self.w, 1))


EVERY = (
    NestedCalls,
    InsideWhile,
    InsideBranch,
    TwoThresholds,
    TwoLayers,
    SharedFunction,
    SideEffects,
    ReadsAfterAssign,
    ReluMask,
    LookedUpVariable,
)


def inputs(module: tf.Module, seed: int = 0) -> dict[str, Any]:
    """Random inputs that fit a module's signature."""
    rng = np.random.default_rng(seed)
    (spec,) = module.serve.input_signature
    return {spec.name: tf.constant(rng.normal(size=[5 if d is None else d for d in spec.shape]), tf.float32)}
