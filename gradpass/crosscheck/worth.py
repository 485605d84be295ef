"""Check 7: whether a surrogate's gradient points where the hard function goes, as far as its smoothed gradient tells.

A hard function f has no gradient, but the function that a normal disturbance makes of it has one: `E[f(x + s e)]` has
the gradient `E[e (f(x + s e) - f(x - s e))] / 2s` (antithetic samples; Nesterov and Spokoiny, Random gradient-free
minimization of convex functions, 2017, equation 26; Berthet et al., Learning with differentiable perturbed optimizers,
2020, use the same smoothing). f here is the original's ONNX model, hard steps and all.

Estimated in all dimensions of a large target that would need as many samples as it has elements. So the disturbance
stays in a subspace of few: the directions in question and random ones, orthonormal. A direction's component of the
smoothed gradient is then measured as well as in a small target, and the random ones tell how long all the rest is: on
average a share of (k - 1) / (d - 1) of its square.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Check, Skip, attempt
from gradpass.crosscheck.soft import Soft, weights

RADII = (3.0, 1.0, 0.3, 0.1)  # of the disturbance, in parts of the target's norm: no surrogate says which one it means
RANDOM = 8  # directions beside those in question
BLOCKS = 8  # of the jackknife
LOOKS = (8, 48, 96, 192, 384, 768, 1536, 3072, 6144)  # numbers of pairs after which to look whether it is clear
FEWEST = 48  # the jackknife of fewer pairs says little; before that only whether anything changes at all
SECONDS = 4.0  # for all targets
CONFIDENCE = 4.0  # standard errors, of an estimate by few blocks that is looked at several times

# In a space of many dimensions two random directions have a cosine of nearly 0, and one of 0.05 still goes downhill.
LIMIT = 0.95
LIMIT_FROM = "1 - cosine; a surrogate fails where the upper end of its interval stays under a cosine of 0.05"

Vector = Any
Gradient = Callable[[float], dict[str, Any]]


@dataclass(frozen=True)
class Cosine:
    """The cosine of a direction with the smoothed gradient, its standard error, and the ratio of the norms."""

    value: float
    error: float
    ratio: float

    @property
    def clear(self) -> bool:
        """Whether the whole interval is on one side of the limit."""
        return abs(self.value - (1 - LIMIT)) > CONFIDENCE * self.error

    @property
    def bottom(self) -> float:
        """The lower end of the interval."""
        return self.value - CONFIDENCE * self.error

    @property
    def top(self) -> float:
        """The upper end of the interval."""
        return self.value + CONFIDENCE * self.error

    def __str__(self) -> str:
        return f"cosine {self.value:.2f} ± {CONFIDENCE * self.error:.2f}, norm ratio {self.ratio:.2g}"


def smoothed(
    f: Callable[[Vector], float], at: Vector, directions: Sequence[Vector], radius: float, seconds: float, seed: int
) -> list[Cosine | None]:
    """The cosines of directions with the gradient at a point of f, smoothed by disturbances of that norm.

    None for a direction of zeros, and for all where f does not change enough for the smoothed gradient to be told from
    zero. Samples are drawn until it is clear on which side of the limit all are, or `seconds` have passed.
    """
    rng = np.random.default_rng(seed)
    basis, known = _basis(directions, at.size, rng)
    k = basis.shape[1]
    scale = radius / k**0.5
    drawn: list[Any] = []
    changes: list[float] = []
    found: list[Cosine | None] = [None] * len(directions)
    started = time.monotonic()
    for look in LOOKS:
        while len(drawn) < look:
            e = rng.standard_normal(k)
            step = scale * (basis @ e)
            drawn.append(e)
            changes.append((f(at + step) - f(at - step)) / (2 * scale))
        if look >= FEWEST:
            found = [_cosine(np.array(drawn), np.array(changes), basis, known, d) for d in directions]
        clear = all(each is not None and each.clear for each in found)
        if clear or not any(changes) or time.monotonic() - started > seconds:
            break
    return found


def _basis(directions: Sequence[Vector], size: int, rng: np.random.Generator) -> tuple[Any, int]:
    """Orthonormal columns: first what the directions span (how many these are is told), then random ones."""
    basis: list[Any] = []

    def add(column: Any) -> None:
        length = float(np.linalg.norm(column))
        rest = column / length if length else column
        for _ in range(2):  # once is not enough in floating point (Giraud et al., 2005: "twice is enough")
            for each in basis:
                rest = rest - (each @ rest) * each
        left = float(np.linalg.norm(rest))
        if left > 1e-6:
            basis.append(rest / left)

    for direction in directions:
        add(direction)
    known = len(basis)
    while len(basis) < min(size, known + RANDOM):
        add(rng.standard_normal(size))
    return np.stack(basis, axis=1), known


def _cosine(drawn: Any, changes: Any, basis: Any, known: int, direction: Vector) -> Cosine | None:
    length = float(np.linalg.norm(direction))
    if length == 0.0:
        return None
    d = direction @ basis / length
    whole = _estimate(drawn, changes, d, known, len(basis))
    blocks = np.array_split(np.arange(len(drawn)), BLOCKS)
    parts = [
        _estimate(np.delete(drawn, block, axis=0), np.delete(changes, block), d, known, len(basis)) for block in blocks
    ]
    if whole is None or any(part is None for part in parts):
        return None
    left = np.array([part[0] for part in parts if part is not None])
    error = float(np.sqrt((BLOCKS - 1) / BLOCKS * np.sum((left - left.mean()) ** 2)))
    return Cosine(whole[0], error, length / whole[1])


def _estimate(drawn: Any, changes: Any, d: Any, known: int, size: int) -> tuple[float, float] | None:
    """The cosine of a direction (in the basis) and the norm of the smoothed gradient; None where that is zero.

    The gradient is the regression of the changes on the disturbances, which for normal ones has the same expectation as
    the mean of their products, and far less noise where f is nearly straight. From its squares the noise is taken out.
    """
    n, k = drawn.shape
    inverse = np.linalg.inv(drawn.T @ drawn)
    gradient = inverse @ (drawn.T @ changes)
    noise = float(np.sum((changes - drawn @ gradient) ** 2)) / (n - k)
    squares = gradient**2 - noise * np.diag(inverse)
    share = (size - known) / (k - known) if k > known else 1.0
    square = max(0.0, float(squares[:known].sum())) + share * max(0.0, float(squares[known:].sum()))
    if square == 0.0:
        return None
    return float(np.clip(gradient @ d / square**0.5, -1.0, 1.0)), square**0.5


@dataclass(frozen=True)
class Nowhere:
    """A target whose surrogate points nowhere, and the temperature that would do best, if one does better."""

    target: str
    cosine: Cosine
    temperature: float | None
    better: Cosine | None


def check_worth(
    name: str,
    hard: Soft,
    promised: Collection[str],
    scales: Mapping[str, float],
    values: Callable[[str], Callable[[Any], float]],
    gradients: dict[str, Any],
    at_temperature: Gradient,
    temperatures: Sequence[float],
    seed: int,
) -> tuple[Check, list[Nowhere]]:
    """Compares gradients (by input of the hard model) of what was promised one with its smoothed ones.

    It goes target by target as far as the time goes, first those that the surrogate says most of. `scales` are the
    sizes of their elements, `values` gives
    the hard function of one target at the point; `at_temperature` gives the gradients at another temperature.
    """
    weight = weights(hard, gradients)
    order = sorted((t for t in promised if gradients.get(t) is not None), key=lambda t: -weight[t])
    if not order:
        raise Skip("no promised target has a gradient to judge")
    started = time.monotonic()
    best: dict[str, Cosine] = {}
    nowhere: list[Nowhere] = []
    flat = 0
    for i, target in enumerate(order):
        left = SECONDS - (time.monotonic() - started)
        if i and left <= 0:
            break
        share = left / (len(order) - i) / len(RADII)
        value = values(target)
        found = [
            cosines[0] for cosines in _at_radii(hard, value, target, scales[target], [gradients[target]], share, seed)
        ]
        if not found:
            flat += 1
        elif max(cosine.top for cosine in found) < 1 - LIMIT:
            lost = max(found, key=lambda cosine: cosine.top)
            nowhere.append(_advised(hard, value, target, scales[target], lost, at_temperature, temperatures, seed))
        else:
            best[target] = max(found, key=lambda cosine: cosine.bottom)
    if nowhere:
        more = [f"{each.target}: {each.cosine}{_advice(each)}" for each in nowhere[:3]]
        reason = f"the surrogate points nowhere for {'; '.join(more)}"
        return Check(name, "failed", 1 - nowhere[0].cosine.value, LIMIT, reason, LIMIT_FROM), nowhere
    sure = {target: cosine for target, cosine in best.items() if cosine.bottom > 1 - LIMIT}
    if not sure:
        told = f"where {flat} targets are disturbed the hard function hardly changes, or cannot be run" if flat else ""
        unsure = f"{len(best)} targets would need more samples than there is time for" if best else ""
        raise Skip("; ".join(filter(None, [told, unsure])))
    worst = min(sure, key=lambda target: sure[target].value)
    told = f"{len(sure)} of {len(order)} targets judged; least: {hard.targets[worst]}: {sure[worst]}"
    return Check(name, "passed", 1 - sure[worst].value, LIMIT, told, LIMIT_FROM), []


def _at_radii(
    hard: Soft,
    value: Callable[[Any], float],
    target: str,
    scale: float,
    gradients: list[Any],
    seconds: float,
    seed: int,
) -> Iterator[list[Cosine]]:
    """The cosines of gradients at each radius at which the hard function changes."""
    at = hard.point[target].astype(np.float64).ravel()

    def f(moved: Vector) -> float:
        return value(moved.reshape(hard.point[target].shape).astype(hard.point[target].dtype))

    size = scale * float(at.size) ** 0.5
    directions = [np.asarray(g, np.float64).ravel() for g in gradients]
    for radius in RADII:
        tried = attempt(partial(smoothed, f, at, directions, radius * size, seconds, seed))
        if tried.value is None:
            continue  # an index out of its range, or as many values as these data have: perhaps not so near by
        if any(cosine is None for cosine in tried.value):
            return  # a smaller disturbance changes even less
        yield [cosine for cosine in tried.value if cosine is not None]


def _advised(
    hard: Soft,
    value: Callable[[Any], float],
    target: str,
    scale: float,
    cosine: Cosine,
    at_temperature: Gradient,
    temperatures: Sequence[float],
    seed: int,
) -> Nowhere:
    """The same target at other temperatures; one is advised whose interval lies above that of the present one."""
    others = {t: at_temperature(t).get(target) for t in temperatures}
    others = {t: g for t, g in others.items() if g is not None and np.any(g) and np.all(np.isfinite(g))}
    found = (
        list(_at_radii(hard, value, target, scale, list(others.values()), SECONDS / len(RADII), seed)) if others else []
    )
    best, at = None, None
    for cosines in found:
        for temperature, each in zip(others, cosines, strict=True):
            sure = each.bottom > max(cosine.top, 1 - LIMIT)
            if sure and (best is None or each.value > best.value):
                best, at = each, temperature
    return Nowhere(hard.targets[target], cosine, at, best)


def _advice(nowhere: Nowhere) -> str:
    if nowhere.temperature is None:
        return " (no temperature that was tried does better)"
    return f" (temperature {nowhere.temperature:g}: {nowhere.better})"
