"""Check 3: what the plan promised, asked of TensorFlow: the gradient is there, finite and not zero."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Check, Skip, judged
from gradpass.crosscheck.load import Loaded, Signature
from gradpass.crosscheck.near import assigned, nearby, sources
from gradpass.crosscheck.values import Sample

# A surrogate can be zero by data (a unit that is off, a tie), seldom for several random inputs and cotangents.
COTANGENTS = 2
LIMIT_FROM = "each promised target must have a gradient that is finite and not zero"


def check_promises(
    name: str, loaded: Loaded, signature: Signature, promised: list[str], samples: list[Sample], seed: int
) -> Check:
    """Differentiates the signature under an eager tape; every promised variable must get something.

    Cotangents are random. Ones would not do: the sum of a softmax is constant. Where a gradient is zero the variables
    are moved a little: behind a layer that starts with zeros every gradient is zero, and the repair is right.
    """
    rng = np.random.default_rng(seed)
    wanted = Counter(promised)
    flowing: dict[str, set[int]] = {target: set() for target in wanted}
    seen: dict[str, str] = dict.fromkeys(wanted, "is no variable or input of this signature")
    _ask(loaded, signature, wanted, samples, rng, flowing, seen)
    if "zero" in {seen[target] for target, n in wanted.items() if len(flowing[target]) < n}:
        variables = sources(loaded, signature, {})
        with assigned(variables, {path: nearby(v.numpy(), rng) for path, v in variables.items()}):
            _ask(loaded, signature, wanted, samples, rng, flowing, seen)
    starved = {target: n - len(flowing[target]) for target, n in wanted.items() if len(flowing[target]) < n}
    told = ", ".join(f"{target} ({seen[target]})" for target in starved)
    return judged(name, float(sum(starved.values())), 0.0, told, LIMIT_FROM)


def _ask(
    loaded: Loaded,
    signature: Signature,
    wanted: Counter[str],
    samples: list[Sample],
    rng: np.random.Generator,
    flowing: dict[str, set[int]],
    seen: dict[str, str],
) -> None:
    """Notes in `flowing` which variables of a name got something, and in `seen` what the others got."""
    for sample in (s for s in samples if not s.edge for _ in range(COTANGENTS)):
        for target, gradients in _gradients(loaded, signature, wanted, sample, rng).items():
            for i, gradient in enumerate(gradients):
                answer = _answer(gradient)
                if answer == "flows":
                    flowing[target].add(i)
                elif i not in flowing[target]:
                    seen[target] = answer
        if not any(len(flowing[target]) < n for target, n in wanted.items()):
            break


def _gradients(
    loaded: Loaded, signature: Signature, wanted: Counter[str], sample: Sample, rng: np.random.Generator
) -> dict[str, list[Any]]:
    """The gradients of one sample by promised name; of all variables of that name, if several have it."""
    sources = {target: sources_of(loaded, signature, target, sample.inputs) for target in wanted}
    found: dict[str, list[Any]] = gradients_of(signature, sample.inputs, sources, cotangents(sample, rng))
    return found


def cotangents(sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
    """A random cotangent for each output of numbers that have a gradient, as float64."""
    import tensorflow as tf

    numbers = {name: v for name, v in sample.fixed.items() if v.dtype.kind != "O"}
    dtypes = {name: tf.dtypes.as_dtype(value.dtype) for name, value in numbers.items()}
    floats = [name for name, dtype in dtypes.items() if dtype.is_floating or dtype.is_complex]
    return {name: rng.standard_normal(np.shape(numbers[name])) for name in floats}


def gradients_of(signature: Signature, inputs: dict[str, Any], sources: Any, cotangents: dict[str, Any]) -> Any:
    """The gradients of a structure of sources under an eager tape, in that structure."""
    return answered(signature, inputs, sources, cotangents)[0]


def answered(
    signature: Signature, inputs: dict[str, Any], sources: Any, cotangents: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The gradients of a structure of sources under an eager tape, in that structure, and the outputs by name."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tf.nest.flatten(sources))
        outputs = signature.call(inputs)
        loss = tf.constant(0.0, tf.float64)
        for name, cotangent in cotangents.items():
            value = outputs[name]
            # Differences of outputs that are large and alike must not drown in the sum.
            product = tf.reduce_sum(value * tf.cast(cotangent, value.dtype))
            loss += tf.cast(tf.math.real(product), tf.float64)
    return tape.gradient(loss, sources), outputs


def sources_of(loaded: Loaded, signature: Signature, target: str, inputs: dict[str, Any]) -> list[Any]:
    """What a promised name means: variables of that name, else the object of that path, else an input."""
    named = [v for v in signature.variables if v.name.rpartition(":")[0] == target]
    if named:
        return named
    found: Any = loaded.root
    for part in target.split("/"):
        found = getattr(found, part, None)
    if found is not None:
        return [found]
    if target in inputs:
        return [inputs[target]]
    if hasattr(loaded.root, "prune"):  # the mark of a TensorFlow 1 graph
        raise Skip(
            f"TensorFlow 2 gives no access to {target}, a reference variable of TensorFlow 1, for a tape to watch"
        )
    return []


def _answer(gradient: Any) -> str:
    if gradient is None:
        return "None"
    values = np.asarray(getattr(gradient, "values", gradient))
    if not np.isfinite(values.astype(np.complex128)).all():
        return "not finite"
    return "flows" if np.any(values != 0) else "zero"
