"""Random inputs for a signature that nobody explained: dtypes and known sizes from its specs, the rest by trying."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Skip

Inputs = dict[str, Any]

# In the order of trying; the first that the model accepts serves. Small is quick, large is for those that convolve or
# pool without padding, and for sound.
SIZES = (3, 16, 64, 256, 4096, 65536)
LARGEST = 1 << 24  # elements of one input
RANKS = (2, 1, 0, 3, 4)
# Integers below a bound: the whole of a pixel or byte first, then what small vocabularies and axes accept.
BOUNDS = (256, 8, 2, 1)


@dataclass(frozen=True)
class Layout:
    """What the specs leave open: sizes (one for all, or another for each axis), rank, and the bound of integers."""

    size: int
    alike: bool
    rank: int
    bound: int

    def shape(self, spec: Any) -> tuple[int, ...]:
        known = [None] * self.rank if spec.shape.rank is None else spec.shape.as_list()
        return tuple(self._unknown(axis) if n is None else n for axis, n in enumerate(known))

    def _unknown(self, axis: int) -> int:
        """The same axis has the same size in all inputs, so that batches agree, and a batch need not grow."""
        if self.alike:
            return self.size
        return self.size + axis if axis else SIZES[0]


def layouts(specs: dict[str, Any]) -> Iterator[Layout]:
    """All layouts worth trying for these specs, the likely ones first."""
    no_rank = any(s.shape.rank is None for s in specs.values())
    no_size = no_rank or any(None in s.shape.as_list() for s in specs.values())
    integers = any(s.dtype.is_integer for s in specs.values())
    for size, rank, alike, bound in itertools.product(
        SIZES if no_size else SIZES[:1],
        RANKS if no_rank else RANKS[:1],
        (False, True) if no_size else (True,),
        BOUNDS if integers else BOUNDS[:1],
    ):
        layout = Layout(size, alike, rank, bound)
        if all(math.prod(layout.shape(spec)) <= LARGEST for spec in specs.values()) or size == SIZES[0]:
            yield layout


def draw(specs: dict[str, Any], layout: Layout, rng: np.random.Generator, positive: bool) -> Inputs:
    """One random input for each spec; floats in [0, 1) where `positive`, like images and probabilities, else normal."""
    return {name: _random(name, spec, layout, rng, positive) for name, spec in specs.items()}


EDGES = ("zeros", "ties", "huge", "tiny", "denormal")


def edges(specs: dict[str, Any], layout: Layout, rng: np.random.Generator) -> Iterator[tuple[str, Inputs]]:
    """Inputs at the edges, each with its name: zeros, few different values, huge, tiny and denormal ones.

    Only zeros where no input has floats: False and the empty string among them.
    """
    import tensorflow as tf

    yield "zeros", {name: tf.zeros(layout.shape(spec), spec.dtype) for name, spec in specs.items()}
    if not any(spec.dtype.is_floating for spec in specs.values()):
        return
    for kind in EDGES[1:]:
        random = draw(specs, layout, rng, positive=False)
        yield kind, {name: _edge(kind, value) if value.dtype.is_floating else value for name, value in random.items()}


def _edge(kind: str, value: Any) -> Any:
    import ml_dtypes  # TensorFlow's own, for the ranges of bfloat16 and float8, which numpy has not
    import tensorflow as tf

    if kind == "ties":
        return tf.round(value)
    limits = ml_dtypes.finfo(value.dtype.as_numpy_dtype)  # type: ignore[no-untyped-call]
    tiny = float(limits.smallest_normal)
    # A draw is seldom larger than 4, and so nearly all of the last kind are denormal.
    factor = {"huge": float(limits.max) ** 0.75, "tiny": tiny**0.75, "denormal": tiny / 4}[kind]
    # In numpy: TensorFlow's own threads make zeros of denormal numbers.
    return tf.constant(value.numpy() * np.asarray(factor, limits.dtype))


def given(specs: dict[str, Any], data: dict[str, Any]) -> Inputs:
    """The user's arrays as inputs, cast to the dtypes of the specs."""
    import tensorflow as tf

    return {
        name: tf.constant(data[name]) if spec.dtype == tf.string else tf.cast(data[name], spec.dtype)
        for name, spec in specs.items()
    }


def like(specs: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The specs with the shapes of the user's arrays: what is drawn then has them too."""
    import tensorflow as tf

    return {name: tf.TensorSpec(np.shape(data[name]), spec.dtype, name) for name, spec in specs.items()}


def _random(name: str, spec: Any, layout: Layout, rng: np.random.Generator, positive: bool) -> Any:
    import tensorflow as tf

    shape, dtype = layout.shape(spec), spec.dtype

    def floats() -> Any:
        return rng.random(shape) if positive else rng.standard_normal(shape)

    values: Any
    if dtype.is_floating:
        values = floats()
    elif dtype.is_complex:
        values = floats() + 1j * floats()
    elif dtype.is_integer:
        values = rng.integers(0, min(layout.bound, dtype.max + 1), shape, np.int64)
    elif dtype.is_bool:
        values = rng.random(shape) < 0.5
    elif dtype == tf.string:
        return tf.strings.as_string(rng.integers(0, 10, shape))
    else:
        raise Skip(f"the input {name!r} is of dtype {dtype.name}, which has no random values")
    return tf.cast(values, dtype)
