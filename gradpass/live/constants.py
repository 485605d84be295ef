"""What a traced function reads as a constant: values of variables that were taken before, tensors under their names.

TensorFlow copies a small eager tensor into the graph as a Const and captures a large one; either way it is a constant,
and no tape follows it back to what it was computed from.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from gradpass.live.frameworks import is_variable, name_of, plain
from gradpass.program.model import UNNAMED, Copy, Model
from gradpass.program.trace import handle_of
from gradpass.report.sources import whose

MOST_OBJECTS = 10_000  # looked into for names
DEPTH = 6  # of objects in objects


def named_tensors(target: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The eager tensors and float arrays that a target can reach, by the names that the user gave them."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in reachable(target):
        array = _value(value)
        if array is not None and array.dtype.kind in "fcV" and array.size:
            found.setdefault(name, array)
    return found


def own_names(target: Any) -> dict[int, str]:
    """How the user writes the variables and tensors that a target can reach or that stand beside it, by `handle_of`."""
    found: dict[int, str] = {}
    for name, value in (*reachable(target), *_beside(target)):
        if name and (is_variable(value) or tf.is_tensor(value)):
            found.setdefault(handle_of(plain(value)), name)
    return found


def called(variable: Any, written: Mapping[int, str]) -> str:
    """The name that the user gave a variable, or else how it is written (`own_names`); of a tensor only that."""
    how = written.get(handle_of(plain(variable)))
    if not is_variable(variable):
        return how or f"tensor of shape {tuple(variable.shape)}"
    name = name_of(variable)
    return how if how and UNNAMED.match(name) else name


def read_constants(
    function: tf.types.experimental.ConcreteFunction, model: Model
) -> list[tuple[np.ndarray[Any, Any], tuple[str, str] | None]]:
    """The float constants of a traced function, each with the place of its node; None for one that is captured."""
    found: list[tuple[np.ndarray[Any, Any], tuple[str, str] | None]] = []
    for outer in function.captured_inputs:
        array = _value(outer)
        if array is not None and array.dtype.kind in "fcV":
            found.append((array, None))
    for name in model.program.functions:
        inner = model.program.function(name)
        for node in inner.nodes:
            if node.op == "Const" and tf.as_dtype(node.attr("dtype").type).is_floating:
                found.append((tf.make_ndarray(node.attr("value").tensor), (name, node.name)))
    return found


def copies(function: tf.types.experimental.ConcreteFunction, model: Model, target: Any) -> dict[Any, Copy]:
    """The variables, by key, whose value a traced function reads as a constant in place of the variable.

    That a constant equals a variable bit for bit is no accident where it has several different elements; a single
    number counts only if something that the function can reach under a name holds it.
    """
    constants = read_constants(function, model)
    if not constants:
        return {}
    named = named_tensors(target)
    found = {}
    for key, variable in model.live.variables.items() if model.live else ():
        if model.entries and any(entry.captures.get(key) for entry in model.entries.values()):
            continue
        value = variable.numpy() if is_variable(variable) else None
        if value is None or value.dtype.kind not in "fcV":
            continue
        name = next((n for n, array in named.items() if _same(array, value)), None)
        telling = value.size > 1 and bool((value != value.flat[0]).any())
        if name is None and not telling:
            continue
        match = next((place for array, place in constants if _same(array, value)), ...)
        if match is not ...:
            found[key] = Copy(name, match)
    return found


def names_read(function: tf.types.experimental.ConcreteFunction, model: Model, target: Any) -> list[str]:
    """The names of the tensors among what a traced function reads as constants."""
    arrays = [array for array, _ in read_constants(function, model)]
    return [name for name, value in named_tensors(target).items() if any(_same(value, array) for array in arrays)]


def _value(item: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(item, np.ndarray):
        return item
    if is_variable(item) or not tf.is_tensor(item) or not hasattr(item, "numpy") or not hasattr(item, "dtype"):
        return None
    return None if item.dtype in (tf.resource, tf.variant) else np.asarray(item.numpy())


def _same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def reachable(target: Any) -> Iterator[tuple[str, Any]]:
    """What hangs on a target, with how it is written: globals and closures of functions, attributes of objects."""
    seen: set[int] = set()
    todo: list[tuple[str, Any, int]] = [("", target, 0)]
    while todo and len(seen) < MOST_OBJECTS:
        name, item, depth = todo.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield name, item
        if depth < DEPTH:
            todo += [(inner, value, depth + 1) for inner, value in _inside(name, item, depth == 0)]


def _beside(target: Any) -> Iterator[tuple[str, Any]]:
    """What stands in the file in which a function is written."""
    if isinstance(target, tf.types.experimental.PolymorphicFunction):
        target = target.python_function
    yield from getattr(inspect.unwrap(target), "__globals__", {}).items() if callable(target) else ()


def _inside(name: str, item: Any, asked: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(item, tf.types.experimental.PolymorphicFunction):
        item = item.python_function
    if isinstance(item, functools.partial):
        yield from ((name, part) for part in (item.func, *item.args, *item.keywords.values()))
        return
    if inspect.ismethod(item):
        yield "self", item.__self__
        item = item.__func__
    if inspect.isfunction(item):
        # What a library's function reads is not the user's to name.
        if asked or whose(item.__code__.co_filename) == "user":
            yield from _read_by(item)
    elif isinstance(item, dict):
        yield from ((f"{name}[{key!r}]", value) for key, value in item.items())
    elif isinstance(item, (list, tuple)):
        yield from ((f"{name}[{i}]", value) for i, value in enumerate(item))
    elif hasattr(item, "__dict__") and not isinstance(item, (type, ModuleType)) and not tf.is_tensor(item):
        yield from ((f"{name}.{key}" if name else key, value) for key, value in vars(item).items() if key[0] != "_")
        for method in ("call", "__call__"):
            function = getattr(type(item), method, None)
            if inspect.isfunction(function) and whose(function.__code__.co_filename) == "user":
                yield from _read_by(function)


def _read_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and closure of a function that it reads."""
    read = inspect.getclosurevars(inspect.unwrap(function))
    yield from read.nonlocals.items()
    yield from read.globals.items()
