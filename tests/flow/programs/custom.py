"""Custom gradients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, function, program, value
from tests.flow.truth import Weights


@tf.custom_gradient
def straight(x: Any) -> Any:
    return tf.round(x), lambda dy: dy


@tf.custom_gradient
def half(x: Any, y: Any) -> Any:
    return x * y, lambda dy: (dy * y, None)


@program("IdentityN PartitionedCall")
def custom_gradient_in_a_call(m: Weights, x: Any) -> Any:
    return S(function(straight)(value(m.v)) * m.w)


@program("IdentityN", "IdentityN: w")
def custom_gradient_that_gives_none(m: Weights, x: Any) -> Any:
    return S(half(value(m.v), value(m.w)))


@program("IdentityN", "Round: v")
def custom_gradient_behind_a_cut(m: Weights, x: Any) -> Any:
    return S(straight(tf.round(m.v))) + S(m.w)
