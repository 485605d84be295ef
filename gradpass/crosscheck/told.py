"""What TensorFlow says of a repaired signature near the point where it stands, for other hands to be asked the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Skip, attempt
from gradpass.crosscheck.gradients import answered, cotangents, sources_of
from gradpass.crosscheck.load import Loaded, Signature
from gradpass.crosscheck.near import NEARBY, assigned, nearby, sources
from gradpass.crosscheck.soft import size
from gradpass.crosscheck.values import Sample

COMPARED = (np.float32, np.float64)  # dtypes of outputs: others are too coarse, or no converter knows them


@dataclass(frozen=True)
class Told:
    """What TensorFlow says of the fixed model at one point: gradients by the path of a variable or name of an input.

    Paths of variables begin with a slash. `inputs` and `values` are those of the point, which is near to a sample and
    to what the trainable variables are, whose elements have these `scales`; `outputs` are those of the model there,
    `promised` the targets that the plan promises.
    """

    inputs: dict[str, Any]
    values: dict[str, Any]
    scales: dict[str, float]
    cotangents: dict[str, Any]
    promised: set[str]
    gradients: dict[str, Any]
    outputs: dict[str, Any]

    @classmethod
    def asked(cls, fixed: Loaded, signature: Signature, samples: list[Sample], promised: list[str], seed: int) -> Told:
        """Asks TensorFlow, under an eager tape, at the first point that says something of every promised target.

        A point where something is not finite, or that the model does not accept, says nothing.
        """
        usable = [sample for sample in samples if not sample.edge]
        if not usable:
            raise Skip("there is no input to check with")
        best: Told | None = None
        # Beside the model's own point its function may end: an index turns negative, a root is taken of less than zero.
        for distance in (NEARBY, 0.0):
            for told in cls._at(fixed, signature, usable, promised, seed, distance):
                if best is None or told.telling > best.telling:
                    best = told
                if best.telling == len(best.promised):
                    return best
            if best is not None:
                return best
        raise Skip("neither at the model's own point nor near to it are all outputs and gradients finite")

    @classmethod
    def _at(
        cls, fixed: Loaded, signature: Signature, samples: list[Sample], promised: list[str], seed: int, distance: float
    ) -> Iterator[Told]:
        import tensorflow as tf

        rng = np.random.default_rng(seed)
        variables = {path: v.numpy() for path, v in sources(fixed, signature, {}).items()}
        values = {path: nearby(value, rng, distance) for path, value in variables.items()}
        for sample in samples:
            weights = {n: c for n, c in cotangents(sample, rng).items() if sample.fixed[n].dtype in COMPARED}
            if not weights:
                raise Skip("no output is of float32 or float64")
            given = {name: value.numpy() for name, value in sample.inputs.items() if value.dtype.is_floating}
            inputs = {
                name: tf.constant(nearby(given[name], rng, distance)) if name in given else value
                for name, value in sample.inputs.items()
            }
            asked = [s for name in promised for s in sources_of(fixed, signature, name, inputs)]
            own = sources(fixed, signature, inputs)
            wanted = {key for key, source in own.items() if any(source is each for each in asked)}
            scales = {key: size(value) for key, value in {**variables, **given}.items()}
            empty = cls(inputs, values, scales, weights, wanted, {}, {})
            told = attempt(lambda empty=empty: empty.again(fixed, signature))  # type: ignore[misc]
            if told.value is not None and told.value.finite:
                yield told.value

    @property
    def telling(self) -> int:
        """How many promised gradients are not zero here; the others tell nothing."""
        return sum(bool(np.any(self.gradients[key])) for key in self.promised if self.gradients[key] is not None)

    @property
    def finite(self) -> bool:
        """Whether all that is compared is."""
        compared = (*self.gradients.values(), *(self.outputs[name] for name in self.cotangents))
        return all(value is None or bool(np.isfinite(value).all()) for value in compared)

    def again(self, fixed: Loaded, signature: Signature) -> Told:
        """The same asked of another model of the same variables."""
        own = sources(fixed, signature, self.inputs)
        with assigned({path: own[path] for path in self.values}, self.values):
            found, outputs = answered(signature, self.inputs, own, self.cotangents)
        dense = {key: _dense(gradient) for key, gradient in found.items()}
        return replace(self, gradients=dense, outputs={name: np.asarray(v.numpy()) for name, v in outputs.items()})


def _dense(gradient: Any) -> Any:
    import tensorflow as tf

    return None if gradient is None else np.asarray(tf.convert_to_tensor(gradient).numpy())
