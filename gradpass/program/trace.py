"""A function that was traced in this process, as a `Model`: the one place where a live graph becomes a Program.

It goes the way of the file: TensorFlow's own GraphDef of the function, with the shapes that it knows. What only the
process has (gradients that the user registered, the Python behind a custom gradient) is asked in `flow.process`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradpass.program.debuginfo import DebugInfo, Trace, traces
from gradpass.program.graph import Program, Value
from gradpass.program.model import Entry, Model, Shape, Variable

LIVE = "live"


class Named(NamedTuple):
    """A variable that a model is to train, under the name by which its user knows it; a tensor in its place is none."""

    name: str
    variable: Any
    trainable: bool


def of_function(
    function: tf.types.experimental.ConcreteFunction,
    listed: Iterable[Named] = (),
    called: Mapping[int, str] | None = None,
    label: str | None = None,
    inline: bool = False,
) -> Model:
    """The model that is this concrete function: entry "live"; its variables the listed and then all that it captures.

    `called` has names for what nobody lists, by `handle_of`. With `inline` a training step runs it as a part of itself,
    under its own tape. A function that `tf.saved_model.load` gave is not meant: TensorFlow knows less of it than of a
    traced one. Give the folder instead.
    """
    graph = tf.Graph()
    function.add_to_graph(graph)
    raw = graph.as_graph_def(add_shapes=True).SerializeToString()
    program = Program(raw)
    program.tensorflow = tf.version.VERSION
    body = program.function(function.function_def.signature.name)

    called = called or {}
    names: set[str] = set()
    variables: dict[Any, Variable] = {}
    for item in listed:
        key = handle_of(item.variable)
        variables.setdefault(key, variable_of(key, item.variable, names, item.name, item.trainable))
    by_handle = {handle_of(variable): variable for variable in function.variables}
    captured = function.captured_inputs
    split = len(body.arguments) - len(captured)
    captures: dict[Any, list[Value]] = {key: [] for key in variables}
    for argument, outer in zip(body.arguments[split:], captured, strict=True):
        key = id(outer)
        if key in by_handle:
            if key not in variables:
                variables[key] = variable_of(key, by_handle[key], names, called.get(key))
            captures.setdefault(key, []).append(argument.output(0))
        elif outer.dtype not in (tf.resource, tf.variant) and hasattr(outer, "numpy"):
            program.given[argument.output(0)] = np.asarray(outer.numpy())
    inputs = {argument.name: argument.output(0) for argument in body.arguments[:split]}
    outputs = dict(zip(output_names(function.structured_outputs, len(body.results)), body.results, strict=True))
    entry = Entry(LIVE, body, inputs, outputs, captures, inline)
    return Model(
        Path(label or body.name or LIVE), LIVE, raw, program, variables, {LIVE: entry},
        captured=set(captures), read_debug_info=lambda: _debug_info(graph, program),
    )  # fmt: skip


def _debug_info(graph: tf.Graph, program: Program) -> DebugInfo:
    """The stacks in which the nodes of a graph's functions were made; of functions read from disk there are none."""
    found: dict[tuple[str, str], Trace] = {}
    for name in program.functions:
        # `tf.Operation.traceback` is public, the graphs of called functions are not. TensorFlow's own writer of debug
        # information (saved_model/save.py) asks in this way in TensorFlow 2.18 to 2.21; a test fails when it moves.
        info = getattr(graph._get_function(name), "graph_debug_info", None)
        if info is not None:
            found.update(traces(info, name))
    return DebugInfo(found)


def handle_of(variable: Any) -> int:
    """What tells a variable from others, also from its other Python objects; a tensor is told by itself.

    Of a variable of several replicas it is the first one's, which functions read that are traced outside of replicas.
    """
    if isinstance(variable, tf.distribute.DistributedValues):
        variable = variable.values[0]
    return id(variable.handle if isinstance(variable, tf.Variable) else variable)


def variable_of(
    key: int, variable: Any, taken: set[str], called: str | None = None, trainable: bool | None = None
) -> Variable:
    """A variable under the name that it is called by, or its own; a second one of that name gets a number."""
    plain = name = called or variable.name.removesuffix(":0")
    count = 0
    while name in taken:
        count += 1
        name = f"{plain}_{count}"
    taken.add(name)
    shape: Shape = None if variable.shape.rank is None else tuple(variable.shape.as_list())
    trains = variable.trainable if trainable is None else trainable
    return Variable(key, plain, name, variable.dtype.base_dtype.as_datatype_enum, shape, trains)


def output_names(structure: Any, count: int) -> list[str]:
    """A name for each flat output: the keys and places that lead to it ("loss", "output_0", "heads/1")."""
    names = ["/".join(path) or "output_0" for path in _paths(structure)]
    names = [f"output_{name}" if name[0].isdigit() else name for name in names]
    # Composite tensors (ragged, sparse) are several values under one name.
    return names if len(names) == count == len(set(names)) else [f"output_{i}" for i in range(count)]


def _paths(structure: Any) -> Iterator[tuple[str, ...]]:
    """The way to each leaf, in the order of `tf.nest.flatten`; None is no output."""
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from ((str(key), *rest) for rest in _paths(structure[key]))
    elif isinstance(structure, (list, tuple)):
        for i, item in enumerate(structure):
            yield from ((str(i), *rest) for rest in _paths(item))
    elif structure is not None:
        yield ()
