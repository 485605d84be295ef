"""What programs are made with.

A name says what happens to whom. `ops` must be in the graph, so that a program tests what it was written for; `cuts`
are the ops that sever, each with the variables that it starves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tests.flow.truth import SHAPE, Body

S = tf.reduce_sum
raw = tf.raw_ops


@dataclass(frozen=True)
class Program:
    """A program, the ops that it is about, and whom blame names: "Round: v"."""

    body: Body
    ops: frozenset[str]
    cuts: tuple[str, ...]


PROGRAMS: dict[str, Program] = {}


def program(ops: str, *cuts: str) -> Callable[[Body], Body]:
    """Adds a function to the programs, under its name."""

    def add(body: Body) -> Body:
        PROGRAMS[body.__name__] = Program(body, frozenset(ops.split()), cuts)
        return body

    return add


def function(body: Callable[..., Any]) -> Any:
    """A called function."""
    return tf.function(body, autograph=False)


def loop(body: Callable[..., Any], *start: Any, trips: Any = 3) -> list[Any]:
    """A loop over some values."""
    counted = tf.while_loop(
        lambda i, *values: i < trips,
        lambda i, *values: (i + 1, *tf.nest.flatten(body(*values))),
        (tf.constant(0), *start),
    )
    return list(counted[1:])


def ids(x: Any) -> Any:
    """Rows of the table, chosen by the data."""
    return tf.cast(tf.abs(x[:, 0]) * 3, tf.int32) % 6


def choice(x: Any) -> Any:
    """0, 1 or 2, as the data says."""
    return tf.cast(tf.abs(x[0, 0]) * 4, tf.int32) % 3


def hue(x: Any) -> Any:
    """An op without a registered gradient."""
    return tf.image.adjust_hue(tf.sigmoid(x)[None], 0.1)[0]


def zeros() -> Any:
    return tf.zeros(SHAPE)


def value(variable: Any) -> Any:
    return tf.convert_to_tensor(variable)


def read(handle: Any) -> Any:
    return raw.ReadVariableOp(resource=handle, dtype=tf.float32)
