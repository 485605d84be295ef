"""What TensorFlow says about the gradients of random programs: many signatures of one SavedModel, loaded once.

`truth.py` asks the same of one large model. Here a program must cost a tenth of a second, so a gradient that is zero
on some data is not traced a second time: the backward function that the tape has built anyway is followed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops

from benchmarks.oracle import SHAPE_ONLY, captured, dense, reached
from benchmarks.unroll import BRANCHES, CALLS, LOOPS, registered, unroll

DRAWS = 3
Draw = Callable[[str], np.ndarray]  # a random value for the variable or input of that name


@dataclass(frozen=True)
class Answer:
    """TensorFlow's answer for one target; `shown` tells how a state was found."""

    state: str
    shown: str


def differentiable(dtype: tf.DType) -> bool:
    return bool(dtype.is_floating or dtype.is_complex)


@contextmanager
def forgetting() -> Iterator[None]:
    """Forgets the custom gradients that were defined inside, as if another process had."""
    registry = ops.gradient_registry._registry
    before = set(registry)
    yield
    for name in set(registry) - before:
        del registry[name]


def made_of(function: Any, seeds: frozenset[int]) -> list[bool]:
    """Which outputs of a function are made of the inputs `seeds`, through calls, branches and loops."""
    graph = function.graph
    reached = {graph.inputs[i].ref() for i in seeds}
    after = {op: {value.op for value in op.inputs} for op in graph.get_operations()}
    for op in TopologicalSorter(after).static_order():
        given = frozenset(i for i, value in enumerate(op.inputs) if value.ref() in reached)
        if given and op.type not in SHAPE_ONLY:
            reached.update(op.outputs[i].ref() for i in _through(op, given))
    return [value.ref() in reached for value in graph.outputs]


def _through(op: tf.Operation, given: frozenset[int]) -> set[int]:
    """Which outputs of an op are made of its inputs `given`."""
    called = op.graph._get_function
    if op.type in CALLS:
        cases = [made_of(called(op.get_attr("f").name), given)]
    elif op.type in LOOPS:
        body = called(op.get_attr("body").name)
        while True:
            more = given | {i for i, of in enumerate(made_of(body, given)) if of}
            if more == given:
                return set(given)
            given = more
    elif op.type in BRANCHES:
        case = op.type.endswith("Case")
        branches = op.get_attr("branches") if case else [op.get_attr("then_branch"), op.get_attr("else_branch")]
        inner = frozenset(i - 1 for i in given if i)
        cases = [made_of(called(branch.name), inner) for branch in branches]
    else:
        return set(range(len(op.outputs)))
    return {i for made in cases for i, of in enumerate(made) if of}


@dataclass
class Asked:
    """A concrete function with its targets: variables and inputs, in the function's order, by name."""

    function: Any
    variables: dict[str, tf.Variable]
    inputs: dict[str, tf.TensorSpec]
    draw: Draw
    others: list[tf.Variable]

    def fill(self) -> dict[str, tf.Tensor]:
        """Gives all variables new values, and makes inputs."""
        for variable in [*self.variables.values(), *self.others]:
            variable.assign(self.draw(variable.name.removesuffix(":0")))
        return {name: tf.constant(self.draw(name), spec.dtype) for name, spec in self.inputs.items()}

    def state(self) -> dict[str, Answer]:
        """Differentiates under an eager tape, with random cotangents for every output that has one."""
        answers: dict[str, Answer] = {}
        made: dict[str, bool] = {}
        for _ in range(DRAWS):
            try:
                found, outputs = self._differentiate()
            except Exception as error:  # whatever it is, the user has no gradient
                if isinstance(error, tf.errors.OpError):
                    self.function(**self.fill())  # fails again if it is the program that does, not its gradient
                return self._raising(type(error).__name__)
            for name, gradient in found.items():
                if name not in answers or answers[name].state == "zero":
                    answers[name] = _seen(gradient)
            zeros = {name for name, answer in answers.items() if answer.state == "zero"}
            if zeros and not made:
                made = self._followed(outputs)
            if not any(made[name] for name in zeros):
                return answers
        return {n: Answer("flows", "zero by data") if n in zeros and made[n] else a for n, a in answers.items()}

    def _differentiate(self) -> tuple[dict[str, Any], int]:
        """The gradients of random data, and of how many outputs."""
        given = self.fill()
        targets = {**self.variables, **given}
        with tf.GradientTape() as tape:
            tape.watch([target for target in given.values() if differentiable(target.dtype)])
            results = tf.nest.flatten(self.function(**given))
        outputs = [value for value in results if differentiable(value.dtype)]
        cotangents = [tf.constant(self.draw_like(value), value.dtype) for value in outputs]
        found = tape.gradient(outputs, list(targets.values()), cotangents) if outputs else [None] * len(targets)
        return dict(zip(targets, found, strict=True)), len(outputs)

    def draw_like(self, value: tf.Tensor) -> np.ndarray:
        drawn: np.ndarray = np.random.default_rng(value.shape.num_elements()).uniform(0.5, 1.5, value.shape)
        return drawn * (1 + 0.5j) if value.dtype.is_complex else drawn

    def _raising(self, error: str) -> dict[str, Answer]:
        held = {id(variable) for variable in self.function.variables}
        hit = {name: id(variable) in held for name, variable in self.variables.items()}
        hit |= {name: differentiable(spec.dtype) for name, spec in self.inputs.items()}
        return {name: Answer("raises", error) if of else Answer("none", "not used") for name, of in hit.items()}

    def _followed(self, outputs: int) -> dict[str, bool]:
        """Which targets have a gradient that is made of cotangents, in the backward function that the tape has built.

        Its first arguments are the cotangents of the function's own `outputs`; those of the values that it keeps for
        the backward pass come after them and are zeros.
        """
        functions = self.function._first_order_tape_functions.values()
        (backward,) = (f._backward for f in functions if f._backward is not None)
        seeds = frozenset(range(outputs))
        results = dict(zip((value.ref() for value in backward.outputs), made_of(backward, seeds), strict=True))
        made = [value is not None and results[carrier(value).ref()] for value in backward.structured_outputs]
        graph = self.function.graph
        names = {variable.handle.ref(): name for name, variable in self.variables.items()}
        where = [*self.inputs, *(names.get(_ref(outer)) for outer, _ in captured(self.function))]
        assert len(where) == len(made) and len(graph.inputs) == len(made)
        answer = dict.fromkeys([*self.variables, *self.inputs], False)
        for name, of in zip(where, made, strict=True):
            if name is not None:
                answer[name] |= of
        return answer

    def structure(self) -> dict[str, str]:
        """Differentiates the inlined graph and follows each gradient back to the cotangents. To be asked first."""
        handles = {variable.handle.ref(): name for name, variable in self.variables.items()}
        shapes = {_ref(variable.handle): variable for variable in self.function.variables}
        with tf.Graph().as_default() as graph:
            placed: dict[Any, tf.Tensor] = {}
            targets: dict[str, Any] = {}
            for outer, inner in captured(self.function):
                like = shapes[_ref(outer)]
                mine = tf.compat.v1.get_variable(
                    f"target_{len(placed)}", like.shape, like.dtype, tf.zeros_initializer(), use_resource=True
                )
                placed[inner.ref()] = mine.handle
                if _ref(outer) in handles:
                    targets[handles[_ref(outer)]] = mine
            for name, inner in zip(self.inputs, self.function.inputs, strict=False):
                targets[name] = placed[inner.ref()] = tf.compat.v1.placeholder(inner.dtype, inner.shape)
            unroll(self.function.graph.get_operations(), placed)
            outputs = [placed[value.ref()] for value in self.function.outputs if differentiable(value.dtype)]
            cotangents = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in outputs]
            cut = [value for op in graph.get_operations() if op.inputs and severs(op) for value in op.outputs]
            asked = {n: t for n, t in targets.items() if n in self.variables or differentiable(t.dtype)}
            found = tf.gradients(outputs, list(asked.values()), cotangents, stop_gradients=cut)
            seeds = {cotangent.ref() for cotangent in cotangents}
            answer = dict.fromkeys([*self.variables, *self.inputs], "none")
            for name, gradient in zip(asked, found, strict=True):
                if gradient is not None:
                    answer[name] = "flows" if reached(carrier(gradient), seeds) else "zero"
        return answer


def severs(op: tf.Operation) -> bool:
    """Whether TensorFlow has no gradient for the op: none is registered, or one that can only raise."""
    return op.type == "PreventGradient" or not registered(op)


def carrier(gradient: Any) -> tf.Tensor:
    """The tensor that carries a gradient: rows of rows are what a gather of a gathered variable gives."""
    while isinstance(gradient, tf.IndexedSlices):
        gradient = gradient.values
    return gradient


def _ref(value: Any) -> Any:
    return value.ref()


def _seen(gradient: Any) -> Answer:
    """What the value of a gradient shows; NaN and Inf may come of a zero, too."""
    if gradient is None:
        return Answer("none", "value")
    value = dense(gradient).numpy()
    if np.any(value[np.isfinite(value)]):
        return Answer("flows", "value")
    return Answer("zero", "value" if np.all(np.isfinite(value)) else "not finite")
