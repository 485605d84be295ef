"""The inlined graph of a function, by TensorFlow's own ops: calls in line, loops unrolled, branches merged.

Grappler, which `oracle.py` uses, leaves loops and branches as they are, and there `tf.gradients` gives zeros for None:
it cannot tell a cut from a derivative that is zero. So here the body of a While stands in the graph several times: as
many as the loop variables that a gradient can pass one after the other. The loop's results are those after no, one, two
or more iterations, an If's those of one of its branches. `Merge` says that: it has a gradient for each of its inputs,
and the graph is differentiated, never run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from graphlib import TopologicalSorter
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import get_gradient_function

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
BRANCHES = {"Case", "If", "StatelessCase", "StatelessIf"}
LOOPS = {"StatelessWhile", "While"}
CUSTOM = "_gradient_op_type"
OPAQUE = (tf.resource, tf.variant)
Placed = dict[Any, tf.Tensor]  # from the values of a function's graph to those of the new graph


def unroll(ops: list[tf.Operation], placed: Placed) -> None:
    """Writes ops of a function's graph into the default graph and adds their values to `placed`."""
    # Not in the order in which they were made: differentiated loops get inputs that are younger than they.
    after = {op: {v.op for v in op.inputs if v.ref() not in placed} for op in ops}
    for op in TopologicalSorter(after).static_order():
        if op.outputs and all(value.ref() in placed for value in op.outputs):
            continue
        inputs = [placed[value.ref()] for value in op.inputs]
        for old, new in zip(op.outputs, results(op, inputs, placed), strict=True):
            if old.dtype not in OPAQUE:
                new.set_shape(old.shape)
            placed[old.ref()] = new


def results(op: tf.Operation, inputs: list[tf.Tensor], placed: Placed) -> list[tf.Tensor]:
    """Gives what an op gives, in the default graph."""
    called = op.graph._get_function
    if op.type in CALLS:
        # A function that was differentiated before, in another caller, has more outputs by now.
        return run(called(op.get_attr("f").name), inputs)[: len(op.outputs)]
    if op.type in LOOPS:
        return loop(called(op.get_attr("body").name), inputs)
    if op.type in BRANCHES:
        return merged([run(called(name), inputs[1:]) for name in branches(op)])
    kept = {name: attr for name, attr in op.node_def.attr.items() if not name.startswith("_") or name == CUSTOM}
    graph = tf.compat.v1.get_default_graph()
    for attr in kept.values():
        for name in [attr.func.name, *(func.name for func in attr.list.func)]:
            if name:
                graph._add_function_recursive(called(name))
    new = graph._create_op_internal(
        op.type, inputs, [value.dtype for value in op.outputs], attrs=kept, op_def=op.op_def, compute_device=False
    )
    if CUSTOM in kept and registered(op):
        new._gradient_function = borrowed(op, placed)
    elif registered(new):
        new._gradient_function = taking_tensors(get_gradient_function(new))
    return list(new.outputs)


def branches(op: tf.Operation) -> list[str]:
    """The names of the functions of which a branching op runs one."""
    if op.type.endswith("Case"):
        return [branch.name for branch in op.get_attr("branches")]
    return [op.get_attr("then_branch").name, op.get_attr("else_branch").name]


def run(function: Any, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Writes a function's graph for these inputs."""
    body = function.graph
    # What a custom gradient added to the body, it also captured; that needs no value.
    placed = {given.ref(): value for given, value in zip(body.inputs, inputs, strict=False)}
    unroll(body.get_operations(), placed)
    return [placed[value.ref()] for value in body.outputs]


def loop(function: Any, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Writes a loop's body so often that whatever can come out of it does."""
    rounds = [inputs]
    for _ in range(longest(sources(function.graph), changing(function.graph))):
        rounds.append(run(function, rounds[-1]))
    return merged(rounds)


def changing(body: Any) -> list[int]:
    """The loop variables that an iteration changes and that can carry a gradient."""
    pairs = zip(body.inputs, body.outputs, strict=False)  # see run
    return [i for i, (given, out) in enumerate(pairs) if given is not out and carries(out)]


def carries(value: tf.Tensor) -> bool:
    """Whether a value is a number with a gradient, or a list of them."""
    return bool(value.dtype.is_floating or value.dtype.is_complex or value.dtype == tf.variant)


def sources(graph: Any) -> list[set[int]]:
    """The inputs that each output of a function is computed from, along values that can carry a gradient."""
    made: dict[Any, set[int]] = {value.ref(): {i} for i, value in enumerate(graph.inputs)}
    after = {op: {v.op for v in op.inputs} for op in graph.get_operations()}
    for op in TopologicalSorter(after).static_order():
        given = [made.get(value.ref(), set()) if carries(value) else set() for value in op.inputs]
        for value, used in zip(op.outputs, through(op), strict=True):
            made.setdefault(value.ref(), set().union(*(given[i] for i in used)))
    return [made[value.ref()] for value in graph.outputs]


def through(op: tf.Operation) -> list[set[int]]:
    """The inputs of an op that each of its outputs is computed from."""
    called = op.graph._get_function
    if op.type in CALLS:
        return sources(called(op.get_attr("f").name).graph)[: len(op.outputs)]
    if op.type in BRANCHES:
        found = [sources(called(name).graph) for name in branches(op)]
        return [{i + 1 for case in cases for i in case} for cases in zip(*found, strict=True)]
    if op.type in LOOPS:
        return closure(sources(called(op.get_attr("body").name).graph))
    return [set(range(len(op.inputs)))] * len(op.outputs)


def closure(relation: list[set[int]]) -> list[set[int]]:
    """What each loop variable is computed from, itself included, after any number of iterations."""
    found = [{i, *used} for i, used in enumerate(relation)]
    while (more := [used.union(*(found[i] for i in used)) for used in found]) != found:
        found = more
    return found


def longest(relation: list[set[int]], variables: list[int]) -> int:
    """How many of these loop variables a gradient can pass, at most, without meeting one twice.

    Those that depend on each other count as a group, all of it.
    """
    found = closure(relation)
    groups = {i: {j for j in variables if j in found[i] and i in found[j]} for i in variables}

    @cache
    def behind(i: int) -> int:
        return len(groups[i]) + max((behind(j) for j in variables if j in found[i] and j not in groups[i]), default=0)

    return max((behind(i) for i in variables), default=0)


def merged(cases: list[list[tf.Tensor]]) -> list[tf.Tensor]:
    """Gives, of each result, one of its cases. A resource is the same in all of them, or none that can be followed."""
    return [
        case[0] if all(value is case[0] for value in case) else tf.raw_ops.Merge(inputs=list(case)).output
        for case in zip(*cases, strict=True)
    ]


def taking_tensors(gradient: Any) -> Any:
    """A gradient function that is given no tf.IndexedSlices, on which some raise: they say nothing of what depends."""
    if gradient is None:
        return None
    return lambda op, *given: gradient(op, *(None if v is None else tf.convert_to_tensor(v) for v in given))


def borrowed(op: tf.Operation, placed: Placed) -> Callable[..., list[tf.Tensor | None]]:
    """The gradient function that an op of a function brought along, for its copy in the new graph.

    Such a gradient uses values of that very function: it is called there, and what it adds to the function's graph is
    written into the new one.
    """

    def gradient(_: tf.Operation, *given: Any) -> list[tf.Tensor | None]:
        old = op.graph
        known = len(old.get_operations())
        values = [None if value is None else tf.convert_to_tensor(value) for value in given]  # an integer's is None
        with old.as_default():
            seeds = [value if value is None else tf.compat.v1.placeholder(value.dtype, value.shape) for value in values]
            made = get_gradient_function(op)(op, *seeds)
            made = made if isinstance(made, (list, tuple)) else [made]
            made = [None if value is None else tf.convert_to_tensor(value) for value in made]
        there = placed | {seed.ref(): value for seed, value in zip(seeds, values, strict=True) if seed is not None}
        unroll(old.get_operations()[known:], there)
        return [None if value is None else there[value.ref()] for value in made]

    return gradient


def registered(op: tf.Operation) -> bool:
    """Tells whether TensorFlow knows a gradient function for the op, or knows that it has none."""
    try:
        get_gradient_function(op)
    except LookupError:
        return False
    return True
