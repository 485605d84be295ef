"""TensorFlow's own answers to the gradient of the gradients of a SavedModel, from a process of its own.

    python -m tests.flow.second_truth SAVEDMODEL < QUESTIONS

QUESTIONS is a JSON list of the paths of variables in the object graph. What is printed is a JSON object: entry -> path
-> [state, structure]. A gradient of order 2 flows if it depends on cotangents of both orders.
"""

from __future__ import annotations

import json
import sys
from functools import reduce
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from benchmarks import unroll as unrolling
from benchmarks.oracle import dense, reached, value_of
from gradpass.crosscheck.load import load_plain
from tests.flow.truth import DRAWS, MOVE, RAISED, differentiated, inlined, told, trainable, unchanged

Answers = dict[str, dict[str, list[str]]]


def ask(path: Path) -> Answers:
    """TensorFlow's answers for all trainable variables of a SavedModel, of a fresh process."""
    answers: Answers = told("tests.flow.second_truth", trainable(path), str(path))
    return answers


def answers(path: Path, paths: list[str]) -> Answers:
    """Asks about every entry."""
    loaded = load_plain(path)
    targets = [reduce(getattr, asked.split("/"), loaded.root) for asked in paths]
    functions = loaded.root.signatures
    structures = {name: structure(function, targets) for name, function in functions.items()}
    answer = {}
    for name, function in unchanged(functions):
        states = state(function, targets)
        answer[name] = {path: [*both] for path, *both in zip(paths, states, structures[name], strict=True)}
    return answer


def state(function: Any, targets: list[tf.Variable]) -> list[str]:
    """What nested eager tapes give each target, for random cotangents and weights."""
    rng = np.random.default_rng(0)
    answer = ["none"] * len(targets)
    held = {id(variable) for variable in function.variables}
    for _ in range(DRAWS):
        inputs = {
            name: tf.constant(rng.standard_normal([size or 2 for size in spec.shape]), spec.dtype)
            for name, spec in function.structured_input_signature[1].items()
        }
        function(**inputs)  # what fails here is no answer about gradients
        try:
            found = twice(function, targets, inputs, rng)
        except RAISED as problem:
            print(type(problem).__name__, str(problem)[:300], file=sys.stderr)
            return ["raises" if id(target) in held else "none" for target in targets]
        for i, gradient in enumerate(found):
            if gradient is not None and answer[i] != "flows":
                value = dense(gradient).numpy()
                answer[i] = "nan" if np.isnan(value).any() else "flows" if value.any() else "zero"
        for target in targets:
            target.assign_add(tf.constant(MOVE * rng.standard_normal(target.shape), target.dtype))
    return answer


def twice(function: Any, targets: list[tf.Variable], inputs: dict[str, tf.Tensor], rng: np.random.Generator) -> Any:
    """The gradients of the gradients."""
    with tf.GradientTape() as outer:
        outer.watch(targets)
        with tf.GradientTape() as inner:
            inner.watch(targets)
            outputs = [y for y in function(**inputs).values() if y.dtype.is_floating]
        seeds = [tf.constant(rng.standard_normal(y.shape), y.dtype) for y in outputs]
        gradients = [value_of(g) for g in inner.gradient(outputs, targets, seeds) if g is not None]
    if not gradients:
        return [None] * len(targets)
    return outer.gradient(gradients, targets, [tf.constant(rng.standard_normal(g.shape), g.dtype) for g in gradients])


def longest_twice(relation: list[set[int]], variables: list[int], once: Any = unrolling.longest) -> int:
    """How often a loop's body must stand there: a gradient of order 2 passes the loop back, forth and back again."""
    return 3 * int(once(relation, variables)) + 1


def structure(function: Any, targets: list[tf.Variable]) -> list[str]:
    """What `tf.gradients` of `tf.gradients` gives on the inlined graph, ops without a gradient being cuts."""
    with mock.patch.object(unrolling, "longest", longest_twice):
        return _structure(function, targets)


def _structure(function: Any, targets: list[tf.Variable]) -> list[str]:
    with tf.Graph().as_default() as graph:
        ys, here, _ = inlined(function)
        used = [i for i, target in enumerate(targets) if id(target) in here]
        xs = [here[id(targets[i])] for i in used]
        gradients, seeds = differentiated(graph, ys, xs)
        answer = ["none"] * len(targets)
        second, more = differentiated(graph, [value_of(g) for g in gradients if g is not None], xs)
    for i, gradient in zip(used, second, strict=True):
        if gradient is not None:
            starts = [{seed.ref() for seed in group} for group in (seeds, more)]
            answer[i] = "flows" if all(reached(value_of(gradient), start) for start in starts) else "zero"
    return answer


if __name__ == "__main__":
    print(json.dumps(answers(Path(sys.argv[1]), json.load(sys.stdin))))
