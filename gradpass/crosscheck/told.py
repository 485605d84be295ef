"""What TensorFlow says of a repaired signature near the point where it stands, for other hands to be asked the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Skip
from gradpass.crosscheck.gradients import answered, cotangents, sources_of
from gradpass.crosscheck.load import Loaded, Signature
from gradpass.crosscheck.soft import size
from gradpass.crosscheck.values import Sample

NEARBY = 1e-2  # in parts of a variable's own size


@dataclass(frozen=True)
class Told:
    """What TensorFlow says of the fixed model at one sample: gradients by the path of a variable or name of an input.

    Paths of variables begin with a slash. `values` are what the trainable ones had, near to their own, whose elements
    have these `scales`; `outputs` are those of the model there, `promised` the targets that the plan promises.
    """

    sample: Sample
    values: dict[str, Any]
    scales: dict[str, float]
    cotangents: dict[str, Any]
    gradients: dict[str, Any]
    outputs: dict[str, Any]
    promised: set[str]

    @classmethod
    def asked(cls, fixed: Loaded, signature: Signature, samples: list[Sample], promised: list[str], seed: int) -> Told:
        """Asks TensorFlow, under an eager tape, at the first sample that says something of every promised target."""
        usable = [sample for sample in samples if not sample.edge]
        if not usable:
            raise Skip("there is no input to check with")
        rng = np.random.default_rng(seed)
        variables = {path: v.numpy() for path, v in sources(fixed, signature, {}).items()}
        values = {path: nearby(value, rng) for path, value in variables.items()}
        best: Told | None = None
        for sample in usable:
            asked = [s for name in promised for s in sources_of(fixed, signature, name, sample.inputs)]
            own = sources(fixed, signature, sample.inputs)
            wanted = {key for key, source in own.items() if any(source is each for each in asked)}
            scales = {path: size(value) for path, value in {**variables, **_arrays(sample.inputs)}.items()}
            told = cls(sample, values, scales, cotangents(sample, rng), {}, {}, wanted).again(fixed, signature)
            if best is None or told.telling > best.telling:
                best = told
            if best.telling == len(wanted):
                break
        assert best is not None
        return best

    @property
    def telling(self) -> int:
        """How many promised gradients are not zero here; the others tell nothing."""
        return sum(bool(np.any(self.gradients[key])) for key in self.promised if self.gradients[key] is not None)

    def again(self, fixed: Loaded, signature: Signature) -> Told:
        """The same asked of another model of the same variables."""
        own = sources(fixed, signature, self.sample.inputs)
        with _assigned({path: own[path] for path in self.values}, self.values):
            found, outputs = answered(signature, self.sample.inputs, own, self.cotangents)
        dense = {key: _dense(gradient) for key, gradient in found.items()}
        return replace(self, gradients=dense, outputs={name: np.asarray(v.numpy()) for name, v in outputs.items()})


def nearby(value: Any, rng: np.random.Generator) -> Any:
    """A value a hundredth of its size away.

    At the point where training starts, with its zeros and ones, whole channels stand exactly on the kink of a relu, of
    which libraries take one side or the other.
    """
    return np.asarray(value + NEARBY * size(value) * rng.standard_normal(value.shape), value.dtype)


@contextmanager
def _assigned(variables: dict[str, Any], values: dict[str, Any]) -> Iterator[None]:
    """Gives variables other values for a while."""
    before = {path: variable.numpy() for path, variable in variables.items()}
    try:
        for path, variable in variables.items():
            variable.assign(values[path])
        yield
    finally:
        for path, variable in variables.items():
            variable.assign(before[path])


def sources(loaded: Loaded, signature: Signature, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a signature can be differentiated by: its float inputs, and the trainable variables that it reads."""
    place = paths(loaded.root)
    found = {name: value for name, value in inputs.items() if value.dtype.is_floating}
    found |= {place[id(v)]: v for v in signature.variables if v.trainable and v.dtype.is_floating and id(v) in place}
    return found


def paths(root: Any) -> dict[int, str]:
    """The paths of the objects of a loaded model, the shortest of each, by their ids."""
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


def _arrays(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in inputs.items() if value.dtype.is_floating}


def _dense(gradient: Any) -> Any:
    import tensorflow as tf

    return None if gradient is None else np.asarray(tf.convert_to_tensor(gradient).numpy())
