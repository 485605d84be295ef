"""Random programs of severed and live ops, in nested calls, loops and branches, for the property tests.

A program is a list of instructions over a growing pool of values; `run` executes it with TensorFlow, either as
written or
flat: calls in line, loops unrolled, which is what `structure` speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

ROWS, COLS = 3, 4

FLOAT_OPS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "tanh": lambda a, b: tf.tanh(a),
    "relu": lambda a, b: tf.nn.relu(a - b),
    "round": lambda a, b: tf.round(3 * a),
    "floor": lambda a, b: tf.floor(2 * a) + b,
    "sign": lambda a, b: tf.sign(a),
    "step": lambda a, b: tf.cast(a > b, tf.float32),
    "both": lambda a, b: tf.cast(tf.logical_and(a > 0, b > 0), tf.float32),
    "where": lambda a, b: tf.where(a > 0.1, b, 0.5 * a),
    "mask": lambda a, b: a * tf.cast(a > 0, tf.float32),
    "stop": lambda a, b: tf.stop_gradient(a),
    "int": lambda a, b: tf.cast(tf.cast(4 * a, tf.int32) + 1, tf.float32),
    "pick": lambda a, b: tf.gather(b, tf.math.mod(tf.argmax(a, 1), ROWS)),
    "onehot": lambda a, b: tf.one_hot(tf.argmin(a, 1), COLS),
    "code": lambda a, b: tf.gather(tf.reshape(tf.range(COLS * COLS * 1.0), [COLS, COLS]) / 7, tf.argmax(a, 1)),
    "agree": lambda a, b: a + tf.reduce_mean(tf.cast(tf.equal(tf.argmax(a, 1), tf.argmax(b, 1)), tf.float32)),
    "pair": lambda a, b: tf.concat([a[:, :2], tf.round(b)[:, 2:]], 1),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One instruction: an op on two values of the pool, wrapped in nothing, a call, a loop or a branch."""

    op: str
    left: int
    right: int
    wrap: str


@dataclass(frozen=True)
class Graph:
    """A program and which of its last values are outputs."""

    steps: tuple[Step, ...]
    outputs: int


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Programs of 2 to 7 steps over two variables and the input."""
    steps = []
    for i in range(draw(st.integers(2, 7))):
        pool = 3 + i
        steps.append(
            Step(
                draw(st.sampled_from(sorted(FLOAT_OPS))),
                draw(st.integers(0, pool - 1)),
                draw(st.integers(0, pool - 1)),
                draw(st.sampled_from(["plain", "plain", "plain", "call", "pair", "loop", "branch"])),
            )
        )
    return Graph(tuple(steps), draw(st.integers(1, 2)))


def run(graph: Graph, variables: list[Any], x: Any, flat: bool) -> list[Any]:
    """The program's outputs."""
    pool = [tf.convert_to_tensor(v) for v in variables] + [x]
    for step in graph.steps:
        a, b = pool[step.left], pool[step.right]
        pool.append(_wrapped(step, FLOAT_OPS[step.op], a, b, flat))
    return pool[-graph.outputs :]


def _wrapped(step: Step, op: Any, a: Any, b: Any, flat: bool) -> Any:
    if step.wrap == "call":
        return op(a, b) if flat else tf.function(op, autograph=False)(a, b)
    if step.wrap == "pair":  # a call with a second result that nobody uses
        return op(a, b) if flat else tf.function(lambda p, q: (op(p, q), tf.tanh(p * q)), autograph=False)(a, b)[0]
    if step.wrap == "loop":
        if flat:
            total = tf.zeros([ROWS, COLS])
            for _ in range(2):
                total = total + op(a, b)
            return total
        return tf.while_loop(
            lambda i, total: i < 2, lambda i, total: (i + 1, total + op(a, b)), (tf.constant(0), tf.zeros([ROWS, COLS]))
        )[1]
    if step.wrap == "branch" and not flat:
        return tf.cond(tf.reduce_sum(b) < 1e6, lambda: op(a, b), lambda: a)
    if step.wrap == "branch":
        return tf.where(tf.reduce_sum(tf.stop_gradient(b)) < 1e6, op(a, b), a)
    return op(a, b)


class Module(tf.Module):
    """A random program as a module with a signature."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        rng = np.random.default_rng(len(graph.steps))
        self.a = tf.Variable(rng.normal(size=[ROWS, COLS]), dtype=tf.float32, name="a")
        self.b = tf.Variable(rng.normal(size=[ROWS, COLS]), dtype=tf.float32, name="b")
        self.graph = graph

    @tf.function(input_signature=[tf.TensorSpec([ROWS, COLS], tf.float32, name="x")], autograph=False)
    def serve(self, x: Any) -> dict[str, Any]:
        return {f"y{i}": y for i, y in enumerate(run(self.graph, [self.a, self.b], x, flat=False))}

    @tf.function(input_signature=[tf.TensorSpec([ROWS, COLS], tf.float32)], autograph=False)
    def flat(self, x: Any) -> list[Any]:
        return run(self.graph, [self.a, self.b], x, flat=True)
