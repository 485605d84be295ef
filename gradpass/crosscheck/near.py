"""The point beside the one where a model stands, and what can be differentiated there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradpass.crosscheck.load import Loaded, Signature
from gradpass.crosscheck.soft import size

NEARBY = 1e-2  # in parts of an element's own size


def nearby(value: Any, rng: np.random.Generator, distance: float = NEARBY) -> Any:
    """A value a hundredth of each element away; zeros move by a hundredth of the size of the others.

    At the point where training starts, with its zeros and ones, whole channels stand exactly on the kink of a relu, of
    which libraries take one side or the other, and a layer behind one of zeros has a gradient of zeros. Data have
    zeros and ties too.
    """
    exact = value.astype(np.float64)
    reach = np.where(exact == 0, size(value), np.abs(exact))
    return np.asarray(exact + distance * reach * rng.standard_normal(value.shape), value.dtype)


@contextmanager
def assigned(variables: dict[str, Any], values: dict[str, Any]) -> Iterator[None]:
    """Gives variables other values for a while, by path."""
    before = {path: variable.numpy() for path, variable in variables.items()}
    try:
        for path, variable in variables.items():
            variable.assign(values[path])
        yield
    finally:
        for path, variable in variables.items():
            variable.assign(before[path])


def sources(loaded: Loaded, signature: Signature, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a signature can be differentiated by: its float inputs by name, the trainable variables it reads by path."""
    place = paths(loaded.root)
    found = {name: value for name, value in inputs.items() if value.dtype.is_floating}
    found |= {place[id(v)]: v for v in signature.variables if v.trainable and v.dtype.is_floating and id(v) in place}
    return found


def paths(root: Any) -> dict[int, str]:
    """The paths of the objects of a loaded model, the shortest of each, by their ids; they begin with a slash."""
    import tensorflow as tf

    found = {id(root): ""}
    queue = [root]
    while queue:
        parent = queue.pop(0)
        for name, child in tf.train.TrackableView.children(parent).items():
            if id(child) not in found:
                found[id(child)] = f"{found[id(parent)]}/{name}"
                queue.append(child)
    return found
