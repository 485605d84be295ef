"""Check 1: the original and the fixed model give the same bytes (or, in soft mode, how far they are apart)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Check, Disagreement, Skip, attempt
from gradpass.crosscheck.inputs import EDGES, Inputs, Layout, draw, edges, given, layouts, like
from gradpass.crosscheck.load import Signature

Outputs = dict[str, Any]

# Later checks look at the first few samples again; keeping all of them would hold a large model's outputs in memory.
KEPT = 4
LIMIT_FROM = "straight-through keeps every bit"
VARIES = object()  # equal to nothing, so an output that has varied once never looks constant again


@dataclass(frozen=True)
class Sample:
    """One input with what both models made of it; `kind` is "random", "data" (the user's), or one of `EDGES`."""

    inputs: Inputs
    original: Outputs
    fixed: Outputs
    kind: str

    @property
    def edge(self) -> bool:
        """Whether the input is at an edge, and no example of what the model is for."""
        return self.kind in EDGES


def compare_values(name: str, soft: bool, samples: Iterator[Sample], kept: list[Sample]) -> Check:
    """Compares all samples and leaves the first few and those at the edges in `kept`."""
    apart: dict[str, int] = {}
    total: dict[str, int] = {}
    collected: dict[str, list[tuple[Any, Any]]] = {}
    constant: dict[str, Any] = {}
    for sample in samples:
        keep = len(kept) < KEPT or sample.edge
        if keep:
            kept.append(sample)
        if sample.original.keys() != sample.fixed.keys():
            raise Disagreement(f"the outputs {sorted(sample.original)} have become {sorted(sample.fixed)}")
        for output, expected in sample.original.items():
            got = sample.fixed[output]
            if (expected.dtype, expected.shape) != (got.dtype, got.shape):
                was, became = (f"{v.dtype}{list(v.shape)}" for v in (expected, got))
                raise Disagreement(f"the output {output!r} was {was} and has become {became}")
            apart[output] = apart.get(output, 0) + differing(expected, got)
            total[output] = total.get(output, 0) + expected.size
            if expected.size and not sample.edge:
                first = constant.setdefault(output, expected.flat[0])
                alike = ((expected == first) | ((expected != expected) & (first != first))).all()
                constant[output] = first if alike else VARIES
            if soft and keep:
                collected.setdefault(output, []).append((expected, got))
    if soft:
        figures = {
            output: deviation([e for e, _ in pairs], [g for _, g in pairs]) for output, pairs in collected.items()
        }
        told = ", ".join(f"{output} {figure:.2g}" for output, figure in figures.items())
        worst = max(figures.values(), default=0.0)
        return Check(name, "passed", worst if np.isfinite(worst) else None, reason=f"by output, of its range: {told}")
    if any(apart.values()):
        told = ", ".join(f"{output} in {n} of {total[output]}" for output, n in apart.items() if n)
        return Check(name, "failed", float(sum(apart.values())), 0.0, f"elements with other bytes: {told}", LIMIT_FROM)
    blind = [output for output, value in constant.items() if value is not VARIES]
    empty = [output for output, n in total.items() if not n]
    unseen = [f"constant on all of these inputs: {', '.join(blind)}"] if blind else []
    unseen += [f"always empty: {', '.join(empty)}"] if empty else []
    return Check(name, "passed", 0.0, 0.0, "; ".join(unseen) or None, LIMIT_FROM)


def run_both(
    original: Signature, fixed: Signature, samples: int, seed: int, data: dict[str, Any] | None = None
) -> Iterator[Sample]:
    """Runs both models on the same inputs, always in step, so that state they carry along stays comparable.

    First on the user's `data`, if there is any; what is drawn then has its shapes. Last at the edges.
    """
    _same_signature(original, fixed)
    rng = np.random.default_rng(seed)
    specs = original.inputs
    if data is not None:
        sample = _run(original, fixed, given(specs, data), "data")
        if not isinstance(sample, Sample):
            raise Skip(f"the original does not accept the data: {sample}")
        yield sample
        specs = like(specs, data)
    drawn = attempt(lambda: _first_accepted(original, fixed, specs, rng))
    if data is not None and isinstance(drawn.problem, Skip):
        return  # these data are what it takes, and nothing at random
    layout, first = drawn.given()
    yield first
    for i in range(1, samples):
        sample = _run(original, fixed, draw(specs, layout, rng, positive=i % 2 == 1), "random")
        if isinstance(sample, Sample):
            yield sample
    for kind, inputs in edges(specs, layout, rng):
        sample = _run(original, fixed, inputs, kind)
        if isinstance(sample, Sample):
            yield sample


def own(signature: Signature, data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The user's arrays for this entry; None where it has other inputs than the data are for."""
    return {name: data[name] for name in signature.inputs} if signature.inputs.keys() == data.keys() else None


def _same_signature(original: Signature, fixed: Signature) -> None:
    was = {name: (spec.dtype.name, str(spec.shape)) for name, spec in original.inputs.items()}
    became = {name: (spec.dtype.name, str(spec.shape)) for name, spec in fixed.inputs.items()}
    if was != became:
        raise Disagreement(f"the inputs {was} have become {became}")


def _first_accepted(
    original: Signature, fixed: Signature, specs: dict[str, Any], rng: np.random.Generator
) -> tuple[Layout, Sample]:
    reason = ""
    for layout in layouts(specs):
        sample = _run(original, fixed, draw(specs, layout, rng, positive=False), "random")
        if isinstance(sample, Sample):
            return layout, sample
        reason = sample
    raise Skip(f"the original accepts none of the random inputs tried; at last it said {reason}")


def _run(original: Signature, fixed: Signature, inputs: Inputs, kind: str) -> Sample | str:
    """Both outputs, or what the original said against these inputs; the fixed model may not object alone."""
    expected = attempt(lambda: _arrays(original.call(inputs)))
    got = attempt(lambda: _arrays(fixed.call(inputs)))
    if expected.value is None:
        return expected.reason or ""
    if got.value is None:
        raise Disagreement(f"the fixed model raises where the original does not: {got.reason}")
    return Sample(inputs, expected.value, got.value, kind)


def _arrays(outputs: dict[str, Any]) -> Outputs:
    return {name: np.asarray(tensor.numpy()) for name, tensor in outputs.items()}


def differing(expected: Any, got: Any) -> int:
    """In how many elements two arrays of one dtype differ, bit for bit: -0.0 is not 0.0, a NaN equals itself."""
    if expected.tobytes() == got.tobytes() and not expected.dtype.hasobject:
        return 0
    if expected.dtype.hasobject:
        return int(sum(a != b for a, b in zip(expected.ravel(), got.ravel(), strict=True)))
    size = expected.dtype.itemsize
    a, b = (np.frombuffer(v.tobytes(), np.uint8).reshape(-1, size) for v in (expected, got))
    return int(np.count_nonzero((a != b).any(axis=1)))


def deviation(expected: list[Any], got: list[Any]) -> float:
    """The largest difference in parts of the output's range over all samples; inf where there is no such number."""
    if any(e.shape != g.shape for e, g in zip(expected, got, strict=True)):
        return float("inf")
    flat_expected, flat_got = (np.concatenate([v.ravel() for v in arrays]) for arrays in (expected, got))
    if flat_expected.dtype.hasobject:
        return 0.0 if [*map(_text, flat_expected)] == [*map(_text, flat_got)] else float("inf")
    a, b = (v.astype(np.complex128 if v.dtype.kind == "c" else np.float64) for v in (flat_expected, flat_got))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = a[np.isfinite(a)]
    if same.all():
        return 0.0
    if not (np.isfinite(a) & np.isfinite(b))[~same].all():
        return float("inf")
    # A constant output has no range; its size, or 1 for zeros, is the next best yardstick.
    span = float(np.abs(finite - finite[0]).max()) or float(np.abs(finite).max()) or 1.0
    return float(np.abs(a - b)[~same].max()) / span


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
