"""What TensorFlow itself says about each target of a model of any size, for `conformance.py`.

    python -m benchmarks.truth live FOLDER MODEL ...     makes models of the zoo, saves each, and asks the live function
    python -m benchmarks.truth loaded FOLDER MODEL ...   loads them in this process, which did not make them, and asks

Both print a line of JSON for each model: gradpass's answer and TensorFlow's for each variable and input. It asks as
`oracle.py` does, with four differences. Targets are told by their path, since names repeat in real models. Loops are
unrolled for `structure` (`unroll.py` says why). A gradient that is zero on all data is followed back through the graph
that TensorFlow made of it, to tell a zero of the data from one of the graph; between draws the weights move, so that
this is seldom needed. And inputs are targets too.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.oracle import captured, dense, reached, value_of
from benchmarks.unroll import registered, unroll
from benchmarks.zoo import Made, zoo
from gradpass.crosscheck.load import load_plain
from gradpass.flow.analysis import analyse
from gradpass.flow.verdict import Target
from gradpass.program import savedmodel, trace

ENTRY = "serving_default"
DRAWS = 4
WHOLE = 2  # ids, masks and segments: all models of the zoo take any whole numbers below this
UNKNOWN = 2  # what stands for a size that the signature leaves open
MOVE = 0.3  # how far the weights move between draws, relative to their spread
# What TensorFlow raises in the making of gradients; the last two where a function is to give back slices in slices.
RAISED = (
    LookupError, NotImplementedError, TypeError, ValueError, AttributeError, AssertionError,
    tf.errors.InternalError, tf.errors.InvalidArgumentError,
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A function with the targets it is asked about: variables by path, and inputs by the name of their argument."""

    function: Any
    variables: dict[str, tf.Variable]
    inputs: dict[str, tf.TensorSpec]

    def __call__(self, given: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        """Calls the function and gives its outputs that can have a cotangent."""
        if self.function.structured_input_signature[0]:
            result = self.function(*given.values())
        else:
            result = self.function(**given)
        return [value for value in tf.nest.flatten(result) if value.dtype.is_floating]

    def draw(self, rng: np.random.Generator) -> dict[str, tf.Tensor]:
        """Makes random inputs."""
        made = {}
        for name, spec in self.inputs.items():
            shape = [size or UNKNOWN for size in spec.shape.as_list()]
            drawn = rng.standard_normal(shape) if spec.dtype.is_floating else rng.integers(WHOLE, size=shape)
            made[name] = tf.constant(drawn, spec.dtype)
        return made

    def names(self) -> list[tuple[str, str]]:
        """The kind and path of each target."""
        return [*(("variable", path) for path in self.variables), *(("input", name) for name in self.inputs)]


def specs(function: Any) -> dict[str, tf.TensorSpec]:
    """The arguments of a function, by name."""
    args, kwargs = function.structured_input_signature
    return {**{spec.name: spec for spec in args}, **kwargs}


def differentiable(target: Any) -> bool:
    """Whether a tape takes a tensor, a variable or what a TensorSpec describes."""
    return bool(target.dtype.is_floating or target.dtype.is_complex)


def move(variables: list[tf.Variable], rng: np.random.Generator) -> None:
    """Moves weights a little, those that are all alike too."""
    for variable in variables:
        value = variable.numpy()
        spread = MOVE * (float(np.std(value)) or 1.0)
        variable.assign((value + spread * rng.standard_normal(value.shape)).astype(value.dtype))


def cotangents(outputs: list[tf.Tensor], rng: np.random.Generator) -> list[tf.Tensor]:
    """Makes random cotangents."""
    return [tf.constant(rng.standard_normal(value.shape), value.dtype) for value in outputs]


def ask(asked: Asked, given: dict[str, tf.Tensor], rng: np.random.Generator) -> list[Any] | str:
    """Differentiates once, under an eager tape with random cotangents; an error is its name."""
    targets = [*asked.variables.values(), *given.values()]
    try:
        with tf.GradientTape() as tape:
            tape.watch([target for target in targets if differentiable(target)])
            outputs = asked(given)
        found: list[Any] = tape.gradient(outputs, targets, cotangents(outputs, rng))
    except RAISED as error:
        return f"{type(error).__name__}: {str(error).strip()[:200]}"
    return found


def seen(gradient: Any) -> str:
    """Tells what one gradient shows; a zero that was multiplied by an infinity is not seen as either."""
    if gradient is None:
        return "none"
    value = dense(gradient).numpy()
    if np.any(value[np.isfinite(value)]):
        return "flows"
    return "zero" if np.all(np.isfinite(value)) else "not finite"


def state(
    asked: Asked, fresh: Callable[[], Asked], rng: np.random.Generator
) -> tuple[list[str], list[bool], str | None, float]:
    """Gives each target's state, whether it is a zero by data, what TensorFlow raised, and its first answer's time.

    A zero by data flows: the tensor that TensorFlow computes is made of the cotangents. `fresh` gives the function as
    it is before the first tape.
    """
    asked(asked.draw(rng))  # what fails here is no answer about gradients
    answers = ["none"] * len(asked.names())
    by_data = [False] * len(answers)
    took = 0.0
    for draw in range(DRAWS):
        start = time.perf_counter()
        gradients = ask(asked, asked.draw(rng), rng)
        took = took or time.perf_counter() - start
        if isinstance(gradients, str):
            return raising(asked), by_data, gradients, took
        for i, gradient in enumerate(gradients):
            if draw == 0 or seen(gradient) == "flows":
                answers[i] = seen(gradient)
        if not {"zero", "not finite"} & set(answers):
            return answers, by_data, None, took
        move([target for target in asked.variables.values() if target.dtype.is_floating], rng)
    made = followed(fresh(), rng)
    for i, answer in enumerate(answers):
        if answer in {"zero", "not finite"} and made[i] == "flows":
            answers[i], by_data[i] = "flows", True
    return answers, by_data, None, took


def raising(asked: Asked) -> list[str]:
    """The answers where TensorFlow raises: whatever the function uses and can be differentiated has none."""
    held = {id(variable) for variable in asked.function.variables}
    used = [id(variable) in held for variable in asked.variables.values()]
    numbers = [differentiable(spec) for spec in asked.inputs.values()]
    return ["raises" if hit else "none" for hit in [*used, *numbers]]


def followed(asked: Asked, rng: np.random.Generator) -> list[str]:
    """Follows the gradients that TensorFlow makes under a tape back to the cotangents, through calls and loops."""
    outputs = asked(asked.draw(rng))

    def differentiate(given: dict[str, tf.Tensor], seeds: list[tf.Tensor]) -> list[tf.Tensor]:
        targets = [*asked.variables.values(), *given.values()]
        with tf.GradientTape() as tape:
            tape.watch([target for target in targets if differentiable(target)])
            outputs = asked(given)
        found = tape.gradient(outputs, targets, seeds)
        return [tf.zeros([0]) if gradient is None else value_of(gradient) for gradient in found]

    like = [tf.TensorSpec(value.shape, value.dtype) for value in outputs]
    traced = tf.function(differentiate, autograph=False).get_concrete_function(asked.inputs, like)
    seeds = traced.inputs[len(asked.inputs) :][: len(like)]
    with tf.Graph().as_default():
        placed = {value.ref(): tf.compat.v1.placeholder(value.dtype, value.shape) for value in traced.inputs}
        unroll(traced.graph.get_operations(), placed)
        starts = {placed[seed.ref()].ref() for seed in seeds}
        return ["flows" if reached(placed[value.ref()], starts) else "zero" for value in traced.outputs]


def structure(asked: Asked) -> list[str]:
    """Differentiates the inlined graph and follows each gradient back to the cotangents."""
    function = asked.function
    variables = {id(variable.handle): variable for variable in function.variables}
    with tf.Graph().as_default() as graph:
        placed: dict[Any, tf.Tensor] = {}
        here: dict[int, tf.Variable] = {}
        for outer, inner in captured(function):
            like = variables.get(id(outer))
            if like is None:
                placed[inner.ref()] = tf.compat.v1.placeholder(inner.dtype, inner.shape)
            else:
                if id(like) not in here:
                    name = f"target_{len(here)}"
                    here[id(like)] = tf.compat.v1.get_variable(name, like.shape, like.dtype, use_resource=True)
                placed[inner.ref()] = here[id(like)].handle
        inputs = []
        for inner in function.inputs[: len(function.inputs) - len(function.captured_inputs)]:
            placed[inner.ref()] = tf.compat.v1.placeholder(inner.dtype, inner.shape)
            inputs.append((inner.op.name, placed[inner.ref()]))
        unroll(function.graph.get_operations(), placed)
        outputs = [placed[value.ref()] for value in function.outputs if value.dtype.is_floating]
        seeds = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in outputs]
        cut = [value for op in graph.get_operations() if op.inputs and not registered(op) for value in op.outputs]
        targets = {("variable", path): here.get(id(target)) for path, target in asked.variables.items()}
        targets |= {("input", name): dict(inputs)[name] for name in asked.inputs}
        used = {key: target for key, target in targets.items() if target is not None and differentiable(target)}
        found = dict(zip(used, tf.gradients(outputs, list(used.values()), seeds, stop_gradients=cut), strict=True))
    starts = {seed.ref() for seed in seeds}
    return [judged(found.get(key), starts) for key in asked.names()]


def judged(gradient: Any, starts: set[Any]) -> str:
    """Tells what a gradient tensor is made of."""
    if gradient is None:
        return "none"
    return "flows" if reached(value_of(gradient), starts) else "zero"


def answer(asked: Asked, fresh: Callable[[], Asked], verdict: list[Target]) -> dict[str, Any]:
    """Both answers for each target; the trainable variables of the function that gradpass leaves out; times."""
    rng = np.random.default_rng(0)
    trainable = {variable.ref() for variable in asked.function.variables if variable.trainable}
    unasked = trainable - {variable.ref() for variable in asked.variables.values()}
    true = structure(fresh())
    states, by_data, error, took = state(asked, fresh, rng)
    ours = {(str(target.kind), target.path): target for target in verdict}
    return {
        "targets": [
            {"kind": kind, "path": path, "ours": [ours[kind, path].state, ours[kind, path].structure],
             "tensorflow": [s, t], "by_data": d}
            for (kind, path), s, t, d in zip(asked.names(), states, true, by_data, strict=True)
        ],
        "unasked": [variable.deref().name for variable in unasked],
        "raised": error,
        "tensorflow_seconds": took,
    }  # fmt: skip


def judge(read: Any, entry: str) -> tuple[int, list[Target]]:
    """Analyses a model: its nodes and its targets."""
    (verdict,) = analyse(read, entry, "both")
    return sum(len(read.program.function(name).nodes) for name in read.program.functions), verdict.targets


def loaded(path: Path) -> dict[str, Any]:
    """Judges a SavedModel and asks TensorFlow, which loads it."""
    start = time.perf_counter()
    nodes, verdict = judge(savedmodel.read(path), ENTRY)
    took = time.perf_counter() - start
    paths = [target.path for target in verdict if target.kind == "variable"]
    kept = []

    def fresh() -> Asked:
        kept.append(load_plain(path))
        root, function = kept[-1].root, kept[-1].root.signatures[ENTRY]
        return Asked(function, {path: reduce(getattr, path.split("/"), root) for path in paths}, specs(function))

    start = time.perf_counter()
    asked = fresh()
    loading = time.perf_counter() - start
    told = answer(asked, fresh, verdict)
    told["tensorflow_seconds"] += loading
    return {"nodes": nodes, "seconds": took, **told}


def live(made: Made) -> dict[str, Any]:
    """Judges a model that was made in this process and asks TensorFlow."""
    function = made.live()
    start = time.perf_counter()
    read = trace.of_function(function)
    nodes, verdict = judge(read, trace.LIVE)
    took = time.perf_counter() - start
    listed = {target.path for target in verdict if target.kind == "variable"}
    keys = {variable.path: variable.key for variable in read.variables.values() if variable.path in listed}
    handles = {id(variable.handle): variable for variable in function.variables}
    variables = {path: handles[key] for path, key in keys.items()}

    def fresh() -> Asked:
        again = made.live()
        return Asked(again, variables, specs(again))

    told = answer(Asked(function, variables, specs(function)), fresh, verdict)
    return {"nodes": nodes, "seconds": took, **told}


def main(how: str, folder: str, *names: str) -> None:
    """Prints a line for each model."""
    for name in names:
        path = Path(folder, name)
        if how == "live":
            tf.random.set_seed(0)
            made = zoo()[name]()
            made.save(path)
            told = live(made)
        else:
            told = loaded(path)
        print(json.dumps(told), flush=True)
        gc.collect()  # graphs and what they belong to know each other


if __name__ == "__main__":
    main(*sys.argv[1:])
