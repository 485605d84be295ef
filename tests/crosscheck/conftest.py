"""Tiny SavedModels made by TensorFlow, and a short way to cross-check two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import tensorflow as tf

from gradpass.crosscheck import Check, crosscheck

Build = Callable[[tf.Tensor, tf.Variable, tf.Variable], dict[str, tf.Tensor]]


class Save(Protocol):
    def __call__(self, build: Build, signature: tf.TensorSpec = ...) -> Path: ...


def _soft_argmax_gather(codebook: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """gather(codebook, argmax(logits)) with the derivative of its softmax mixture: what a repaired graph computes."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        p = tf.exp(logits - tf.reduce_logsumexp(logits, -1, keepdims=True))
        upon_p = tf.matmul(upstream, codebook, transpose_b=True)
        upon_logits = p * (upon_p - tf.reduce_sum(upon_p * p, -1, keepdims=True))
        return tf.matmul(tf.one_hot(tf.argmax(logits, -1), 4, axis=0), upstream), upon_logits

    return tf.gather(codebook, tf.argmax(logits, -1)), gradient


soft_argmax_gather = tf.custom_gradient(_soft_argmax_gather)


def severed(x: tf.Tensor, w: tf.Variable, codebook: tf.Variable) -> dict[str, tf.Tensor]:
    logits = x @ w
    return {"y": tf.gather(codebook, tf.argmax(logits, -1)), "on": tf.cast(logits > 0.5, tf.int32)}


def repaired(x: tf.Tensor, w: tf.Variable, codebook: tf.Variable) -> dict[str, tf.Tensor]:
    logits = x @ w
    return {"y": soft_argmax_gather(codebook, logits), "on": tf.cast(logits > 0.5, tf.int32)}


ROWS = tf.TensorSpec([None, 5], tf.float32, name="x")


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a model of an input and two variables of the same values each time."""

    def saved(build: Build, signature: tf.TensorSpec = ROWS) -> Path:
        rng = np.random.default_rng(7)
        module = tf.Module()
        module.w = tf.Variable(rng.normal(size=(5, 4)), dtype=tf.float32, name="w")
        module.codebook = tf.Variable(rng.normal(size=(4, 3)), dtype=tf.float32, name="codebook")
        module.run = tf.function(lambda x: build(x, module.w, module.codebook), input_signature=[signature])
        folder = tmp_path_factory.mktemp("saved") / "model"
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(module, str(folder), signatures=module.run, options=options)
        return folder

    return saved


@pytest.fixture(scope="session")
def original(save: Save) -> Path:
    return save(severed)


@pytest.fixture(scope="session")
def fixed(save: Save) -> Path:
    return save(repaired)


def checks(original: Path, fixed: Path, promised: list[str] | None = None, **more: Any) -> dict[str, Check]:
    """The answers by name, for the entry serving_default."""
    options = {"mode": "straight-through", **more}
    answers = crosscheck(
        original, fixed, entries=["serving_default"], promised={"serving_default": promised or []}, **options
    )
    return {check.name: check for check in answers}


@pytest.fixture(autouse=True)
def no_seed() -> None:
    """Takes back the seed that another test of this process may have set: by it random ops draw the same each time."""
    tf.random.set_seed(None)
