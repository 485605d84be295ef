"""The way through an op that makes TensorFlow raise: from whom it concerns to the output, through calls and loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program.trace import of_function


def hue(x: Any) -> Any:
    return tf.image.adjust_hue(x, 0.1)


called = tf.function(hue)


def in_a_loop(x: Any, w: Any) -> Any:
    return tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, hue(y)), [0, x])[1] * w


def through_another_turn(x: Any, w: Any) -> Any:
    """What the op makes leaves the loop an iteration later, by another variable: a way that is not looked for."""
    return tf.while_loop(lambda i, y, z: i < 2, lambda i, y, z: (i + 1, hue(y), y), [0, x, x])[2] * w


# The program, and the way from x or w: the op itself is `hue`.
WAYS: list[tuple[str, Callable[[Any, Any], Any], list[str]]] = [
    ("in a call", lambda x, w: called(x) * w,
     ["x", "hue", "adjust_hue/Identity", "Identity", "PartitionedCall", "mul", "Identity", "output_0"]),
    ("in a loop", in_a_loop,
     ["x", "hue", "adjust_hue/Identity", "Identity", "while", "mul", "Identity", "output_0"]),
    ("through another turn", through_another_turn, ["hue"]),
    ("in a branch", lambda x, w: tf.cond(w[0] > 0, lambda: hue(x), lambda: x * w),
     ["x", "hue", "adjust_hue/Identity", "Identity", "cond", "Identity", "Identity", "output_0"]),
    ("a target comes before other inputs", lambda x, w: called(x + tf.exp(w)),
     ["w", "Exp", "add", "hue", "adjust_hue/Identity", "Identity", "PartitionedCall", "Identity", "output_0"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "way"), [w[1:] for w in WAYS], ids=[w[0] for w in WAYS])
def test_way_through_an_op_that_raises(body: Callable[[Any, Any], Any], way: list[str]) -> None:
    w = tf.Variable([1.0, 2.0, 3.0], name="w")
    function = tf.function(lambda x: body(x, w), autograph=False)
    (verdict,) = analyse(of_function(function.get_concrete_function(tf.TensorSpec([2, 2, 3], name="x"))))
    (cut,) = verdict.raising
    assert [plain(name) for name in cut.path if "ReadVariableOp" not in name] == way


def plain(name: str) -> str:
    """A node's name without the scopes and numbers of control flow."""
    name = name.removeprefix("while/").removeprefix("cond/")
    return "hue" if name.endswith("AdjustHue") else "Identity" if name.startswith("Identity_") else name
