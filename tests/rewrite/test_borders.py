"""A severed whole number at the border of a loop or branch: what is refused says what to do, and that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import gradients, save, with_pb

Body = Callable[[Any, Any], Any]
TABLE = tf.constant([[1.0, 2.0, 0.5], [0.25, 1.0, 3.0], [2.0, -1.0, 1.0]])
FIRST = tf.constant([0, 1, 1])


class Two(tf.Module):
    """`body(v, w)` of two variables."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.v = tf.Variable([[0.3, -0.2, 0.5], [1.0, 0.2, 0.1], [0.4, 0.9, -0.3]], name="v")
        self.w = tf.Variable(2.0, name="w")
        self.body = body

    @tf.function(input_signature=[], autograph=False)
    def serve(self) -> dict[str, Any]:
        return {"y": self.body(self.v, self.w)}


def loop(step: Callable[[Any, Any], Any], start: Any) -> Any:
    return tf.while_loop(lambda i, state: i < 3, lambda i, state: (i + 1, step(i, state)), (0, start))[1]


def chosen(v: Any) -> Any:
    return tf.argmax(v, 1, output_type=tf.int32)


def ends(v: Any, w: Any) -> Any:
    return w * tf.while_loop(lambda x: x * v[0, 0] < 5.0, lambda x: [2 * x], [1.0], maximum_iterations=6)[0]


def masked_steps(v: Any, w: Any) -> Any:
    return w * loop(lambda i, x: tf.where(x * v[0, 0] < 5.0, 2 * x, x), tf.constant(1.0))


def counts_steps(v: Any, w: Any) -> Any:
    steps = tf.cast(tf.reduce_sum(v), tf.int32)
    return w * tf.while_loop(lambda i, x: i < steps, lambda i, x: (i + 1, 2 * x), (0, 1.0))[1]


def masked_count(v: Any, w: Any) -> Any:
    steps = tf.cast(tf.reduce_sum(v), tf.int32)
    goes_on = tf.unstack(tf.cast(tf.range(3) < steps, tf.float32))
    x = tf.constant(1.0)
    for on in goes_on:
        x = on * 2 * x + (1 - on) * x
    return w * x


def enters_a_branch(v: Any, w: Any) -> Any:
    k = chosen(v)
    return w * tf.cond(w > 0, lambda: tf.gather(TABLE, k), lambda: TABLE)


def looked_up_before_a_branch(v: Any, w: Any) -> Any:
    rows = tf.gather(TABLE, chosen(v))
    return w * tf.cond(w > 0, lambda: rows, lambda: TABLE)


def leaves_a_branch(v: Any, w: Any) -> Any:
    return w * tf.gather(TABLE, tf.cond(w > 0, lambda: chosen(v), lambda: FIRST))


def looked_up_in_a_branch(v: Any, w: Any) -> Any:
    return w * tf.cond(w > 0, lambda: tf.gather(TABLE, chosen(v)), lambda: TABLE)


CASES: list[tuple[Body, str, Body]] = [
    (ends, "run a fixed number of steps, and in each choose with tf.where", masked_steps),
    (counts_steps, "run a fixed number of steps, and in each choose with tf.where", masked_count),
    (enters_a_branch, "hand in what it is used for", looked_up_before_a_branch),
    (leaves_a_branch, "let the branch give what it is used for", looked_up_in_a_branch),
]


@pytest.mark.parametrize(("body", "reason", "instead"), CASES, ids=lambda p: getattr(p, "__name__", ""))
def test_refused_with_a_way_out_that_works(body: Body, reason: str, instead: Body, tmp_path: Path) -> None:
    result = repair(read(save(Two(body), tmp_path / "refused")))
    assert result.pb is None and result.plan
    assert all(reason in (step.declined or "") for step in result.plan)
    source = save(Two(instead), tmp_path / "m")
    result = repair(read(source))
    assert result.pb is not None and [step.declined for step in result.plan] == [None] * len(result.plan)
    fixed = tf.saved_model.load(str(with_pb(source, tmp_path / "f", result.pb)))
    original = tf.saved_model.load(str(source))
    before, after = (m.signatures["serving_default"]()["y"].numpy() for m in (original, fixed))
    assert before.tobytes() == after.tobytes()
    for gradient in gradients(fixed.signatures["serving_default"], [fixed.v, fixed.w]):
        assert gradient is not None and np.isfinite(gradient).all() and gradient.any()
