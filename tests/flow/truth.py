"""Many small programs as one SavedModel, and TensorFlow's own answers about it from a process of its own.

    python -m tests.flow.truth SAVEDMODEL ... < QUESTIONS

QUESTIONS is a JSON object: SavedModel -> the paths of variables in its object graph. What is printed is one, too:
SavedModel -> entry -> path (or X, the input) -> [state, structure]; of a SavedModel of TensorFlow 1, whose loops are no
functions that could be unrolled, only [state]. The SavedModels are loaded one after the other, so that what one of them
brings along, a custom gradient, is not known to those before it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.oracle import captured, dense, reached, value_of
from benchmarks.unroll import registered, unroll
from gradpass.crosscheck.load import load_plain
from gradpass.program import savedmodel

DRAWS = 12
# What TensorFlow raises in the making of gradients; InternalError where a function is to give back slices in slices.
RAISED = (
    LookupError, NotImplementedError, TypeError, ValueError, AttributeError, AssertionError, tf.errors.InternalError,
)  # fmt: skip
MOVE = 0.3  # how far the weights move between draws
Answers = dict[str, dict[str, list[str]]]
SHAPE = [4, 3]
X = "x"
V = np.array([[0.31, -1.2, 0.84], [2.3, 0.15, -0.4], [-0.77, 1.61, 0.52], [0.05, -0.33, 1.27]])
PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}  # the function that they call is not in the SavedModel


class Weights(tf.Module):
    """Variables of the kinds that a model has; a program uses those that it wants."""

    def __init__(self, make: Callable[..., Any] = tf.Variable) -> None:
        super().__init__()
        self.v = make(V, dtype=tf.float32, name="v")
        self.w = make(0.5 * V[::-1], dtype=tf.float32, name="w")
        self.table = make(np.resize(V, [6, 3]), dtype=tf.float32, name="table")
        self.whole = make(10, dtype=tf.int32, name="whole")
        self.moving = make(V, dtype=tf.float32, trainable=False, name="moving")


Body = Callable[[Weights, Any], Any]  # weights and the input x [4, 3] -> one result, or several by name


class Programs(tf.Module):
    """Each program a signature of the same weights."""

    def __init__(self, bodies: Mapping[str, Body]) -> None:
        super().__init__()
        self.weights = Weights()
        self.signatures_ = {name: self._signature(body) for name, body in bodies.items()}

    def _signature(self, body: Body) -> Any:
        @tf.function(input_signature=[tf.TensorSpec(SHAPE, tf.float32, name="x")], autograph=False)
        def run(x: Any) -> dict[str, Any]:
            result = body(self.weights, x)
            return result if isinstance(result, dict) else {"y": result}

        return run


def save(path: Path, bodies: Mapping[str, Body], **options: Any) -> Path:
    """Writes programs as one SavedModel, signatures by name; `options` are those of tf.saved_model.SaveOptions."""
    module = Programs(bodies)
    tf.saved_model.save(module, str(path), module.signatures_, tf.saved_model.SaveOptions(**options))
    return path


def ask(*models: Path) -> list[Answers]:
    """TensorFlow's answers for the trainable variables that some signature captures, all of one fresh process."""
    paths = {str(path): trainable(path) for path in models}
    answers = told("tests.flow.truth", paths, *paths)
    return [answers[path] for path in paths]


def trainable(path: Path) -> list[str]:
    """The paths of the trainable variables of a SavedModel."""
    return [v.path for v in savedmodel.read(path).variables.values() if v.trainable]


def told(module: str, questions: Any, *arguments: str) -> Any:
    """What a module says in a process of its own, JSON in and out."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=json.dumps(questions),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def answers(path: Path, paths: list[str]) -> Answers:
    """Asks about every entry of one SavedModel."""
    loaded = load_plain(path)
    functions = loaded.root.signatures
    held = {id(variable) for function in functions.values() for variable in function.variables}
    old = not hasattr(loaded.root, "weights")
    if old:
        named = {variable.name.removesuffix(":0"): variable for variable in loaded.root.variables}
        found = {name: named[name] for name in paths if name in named}
    else:
        found = {asked: reduce(getattr, asked.split("/"), loaded.root) for asked in paths}
    paths = [asked for asked, variable in found.items() if id(variable) in held]
    targets = [found[asked] for asked in paths]
    # First of all: a function that has been differentiated has other outputs.
    structures = {name: structure(function, targets) for name, function in functions.items() if not old}
    answer = {}
    for name, function in unchanged(functions):
        states = unrun(function, targets) if python(function) else state(function, targets)
        both = zip(states, structures[name], strict=True) if not old else ([state] for state in states)
        answer[name] = {path: [*said] for path, said in zip([*paths, X], both, strict=True)}
    return answer


def unchanged(functions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Signatures by name, each with all variables as they were loaded."""
    everything = list({id(v): v for function in functions.values() for v in function.variables}.values())
    saved = [variable.numpy() for variable in everything]
    for name, function in functions.items():
        for variable, value in zip(everything, saved, strict=True):
            variable.assign(value)
        yield name, function


def state(function: Any, targets: list[tf.Variable]) -> list[str]:
    """What an eager tape gives each target and the input, on random data; "nan" where no draw gave a number."""
    rng = np.random.default_rng(0)
    answer = ["none"] * (len(targets) + 1)
    held = {id(variable) for variable in function.variables}
    for _ in range(DRAWS):
        x = tf.constant(rng.standard_normal(SHAPE), tf.float32)
        function(x=x)  # what fails here is no answer about gradients
        try:
            found = differentiate(function, targets, x, lambda y: tf.constant(rng.standard_normal(y.shape), y.dtype))[0]
        except RAISED:
            return [*("raises" if id(target) in held else "none" for target in targets), "raises"]
        for i, gradient in enumerate(found):
            if gradient is not None and answer[i] != "flows":
                value = dense(gradient).numpy()
                answer[i] = "nan" if np.isnan(value).any() else "flows" if value.any() else "zero"
        if not {"nan", "zero"} & set(answer):
            break
        for target in targets:
            if target.dtype.is_floating:
                target.assign_add(tf.constant(MOVE * rng.standard_normal(target.shape), target.dtype))
    return answer


def python(function: Any) -> bool:
    """Tells whether a signature calls back to Python."""
    graph = function.graph.as_graph_def()
    return any(
        node.op in PYTHON for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes
    )


def unrun(function: Any, targets: list[tf.Variable]) -> list[str]:
    """What a tape gives each target and the input of a signature that cannot run here: it is traced only."""
    answer: list[str] = []

    @tf.function(autograph=False)
    def trace(x: tf.Tensor) -> None:
        found, seeds = differentiate(function, targets, x, lambda y: tf.compat.v1.placeholder(y.dtype, y.shape))
        answer.extend(judged(gradient, seeds) for gradient in found)

    trace.get_concrete_function(tf.TensorSpec(SHAPE, tf.float32))
    return answer


def differentiate(
    function: Any, targets: list[tf.Variable], x: tf.Tensor, seed: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[list[Any], list[tf.Tensor]]:
    """The gradients of all float outputs of a signature with respect to targets and input, and the cotangents."""
    with tf.GradientTape() as tape:
        tape.watch([x, *(target for target in targets if target.dtype.is_floating)])
        outputs = [y for y in function(x=x).values() if y.dtype.is_floating]
    seeds = [seed(y) for y in outputs]
    return tape.gradient(outputs, [*targets, x], seeds), seeds


def structure(function: Any, targets: list[tf.Variable]) -> list[str]:
    """What `tf.gradients` gives on the inlined graph, an op without a registered gradient being a cut."""
    with tf.Graph().as_default() as graph:
        outputs, here, (x,) = inlined(function)
        used = [i for i, target in enumerate(targets) if id(target) in here and target.dtype.is_floating]
        found, seeds = differentiated(graph, outputs, [*(here[id(targets[i])] for i in used), x])
    answer = ["none"] * (len(targets) + 1)
    for i, gradient in zip([*used, -1], found, strict=True):
        answer[i] = judged(gradient, seeds)
    return answer


def inlined(function: Any) -> tuple[list[tf.Tensor], dict[int, tf.Variable], list[tf.Tensor]]:
    """The float outputs of a signature in the default graph; a variable there for each one by id; and its inputs."""
    variables = {id(variable.handle): variable for variable in function.variables}
    here: dict[int, tf.Variable] = {}
    placed: dict[Any, tf.Tensor] = {}
    for outer, inner in captured(function):
        like = variables.get(id(outer))
        if like is None:
            placed[inner.ref()] = tf.compat.v1.placeholder(inner.dtype, inner.shape)
            continue
        if id(like) not in here:
            here[id(like)] = tf.compat.v1.get_variable(f"v{len(here)}", like.shape, like.dtype, use_resource=True)
        placed[inner.ref()] = here[id(like)].handle
    given = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
    placed.update((value.ref(), tf.compat.v1.placeholder(value.dtype, value.shape)) for value in given)
    unroll(function.graph.get_operations(), placed)
    outputs = [placed[y.ref()] for y in function.outputs if y.dtype.is_floating]
    return outputs, here, [placed[value.ref()] for value in given]


def differentiated(graph: tf.Graph, ys: list[tf.Tensor], xs: list[Any]) -> tuple[list[Any], list[tf.Tensor]]:
    """Gradients, ops without one being cuts, and the cotangents that they are for."""
    seeds = [tf.compat.v1.placeholder(y.dtype, y.shape) for y in ys]
    cut = [y for op in graph.get_operations() if op.inputs and not registered(op) for y in op.outputs]
    return (tf.gradients(ys, xs, seeds, stop_gradients=cut) if ys else [None] * len(xs)), seeds


def judged(gradient: Any, seeds: list[tf.Tensor]) -> str:
    """Tells what a gradient tensor in a graph is made of."""
    if gradient is None:
        return "none"
    return "flows" if reached(value_of(gradient), {seed.ref() for seed in seeds}) else "zero"


if __name__ == "__main__":
    questions = json.load(sys.stdin)
    print(json.dumps({path: answers(Path(path), questions[path]) for path in sys.argv[1:]}))
