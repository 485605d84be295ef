"""Check 4: the repaired model's gradient against central differences of its soft function, by onnxruntime.

Along a direction v, `(f(x + h v) - f(x - h v)) / 2h` is the derivative up to h^2 where f is smooth, and up to a share
of the kinks in between where it is not. How much it changes with twice the step tells how far off it is, together with
what the rounding of f can do, which grows with 1/h (Numerical Recipes, section 5.7).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradpass.crosscheck.check import Check, Skip, attempt, judged
from gradpass.crosscheck.double import doubled
from gradpass.crosscheck.export import Tools
from gradpass.crosscheck.runtime import Runner
from gradpass.crosscheck.soft import Soft, coarse, flat, floors, size, weights
from gradpass.crosscheck.values import deviation

# TensorFlow's gradient has the rounding of float32 through the depth of the network. Differences in float32 have that
# and their own, and a network of a million relus has kinks in any interval. A wrong sign or factor is off by 1.
WIDE, NARROW = 1e-3, 1e-1
LIMIT_FROM = {
    WIDE: "rounding of TensorFlow's float32 gradient; the differences are in float64",
    NARROW: "rounding and kinks in differences of float32: this model has ops that onnxruntime has in float32 only",
}
STEPS = {WIDE: (1e-5, 1e-6, 1e-7), NARROW: (1e-4, 1e-3, 1e-2)}  # in parts of a target's own size
# Of the outputs: onnxruntime's sigmoid near 1 keeps no more in its type, and near 0 is 1 less that.
TINY = {WIDE: 1e-12, NARROW: 1e-6}
SECONDS = 2.0  # after which no further direction is begun
ALONG = 2.0  # standard deviations
CLOSE = 1e-3  # of an output's range
CLEAR = 3.0  # times the error of a derivative: what is farther off than the limit, but not than this, is not clear
ALONE = 16  # single targets at most

Point = dict[str, Any]


@dataclass(frozen=True)
class Slope:
    """A directional derivative by differences, and how far off it may be."""

    value: float
    error: float


def summed(outputs: dict[str, Any], cotangents: dict[str, Any]) -> float:
    """The sum of outputs with their cotangents, in float64."""
    return float(sum(np.vdot(c, outputs[name].astype(np.float64)) for name, c in cotangents.items()))


def _alike(single: Runner, double: Runner, point: Point, names: Collection[str]) -> bool:
    """Whether a model and its copy in float64 give the same at a point, up to rounding."""
    wide = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in point.items()}
    one, other = single.run(point), double.run(wide)
    return all(deviation([one[name]], [other[name]]) <= CLOSE for name in names)


class Function:
    """A model's sum with cotangents, of its inputs; in float64 where onnxruntime has all of its ops in that."""

    def __init__(self, tools: Tools, soft: Soft, cotangents: dict[str, Any]) -> None:
        doubling = attempt(lambda: Runner(tools, doubled(tools, soft.model), reference=False))
        self.limit = NARROW if doubling.value is None else WIDE
        single = Runner(tools, soft.model)
        self._cotangents = cotangents
        if doubling.value is not None and not _alike(single, doubling.value, soft.point, cotangents):
            self.limit = NARROW  # in float64 a hard step may fall on the other side
        self._runner = doubling.value if doubling.value is not None and self.limit == WIDE else single
        # What float64 runs on is float64; what is float64 in the model stays so in any case.
        self.dtype = np.float64 if self.limit == WIDE else np.float32
        self.point = {name: self._typed(value) for name, value in soft.point.items()}

    def _typed(self, value: Any) -> Any:
        return value.astype(self.dtype) if value.dtype == np.float32 else value

    def __call__(self, point: Point) -> float:
        """The value, summed in float64."""
        return summed(self._runner.run(point), self._cotangents)

    def slope(self, direction: Point, step: float) -> Slope:
        """The derivative along a direction, by this step and by twice as much."""
        one, two = self._difference(direction, step), self._difference(direction, 2 * step)
        return Slope(one, abs(two - one) + float(np.finfo(self.dtype).eps) * self.size / step)

    @cached_property
    def size(self) -> float:
        """The size of the value where it is computed."""
        outputs = self._runner.run(self.point)
        sizes = {name: np.abs(outputs[name].astype(np.float64)) for name in self._cotangents}
        return float(sum(np.vdot(np.abs(c), sizes[name]) for name, c in self._cotangents.items()))

    def _difference(self, direction: Point, step: float) -> float:
        ends = []
        for sign in (1, -1):
            moved = {n: (self.point[n] + sign * step * v).astype(self.point[n].dtype) for n, v in direction.items()}
            ends.append(self({**self.point, **moved}))
        return (ends[0] - ends[1]) / (2 * step)


def check_derivative(
    name: str,
    tools: Tools,
    soft: Soft,
    gradients: dict[str, Any],
    cotangents: dict[str, Any],
    promised: Collection[str],
    seed: int,
) -> Check:
    """Compares gradients (by input of the soft model, None where TensorFlow has none) along random directions."""
    if not soft.targets:
        raise Skip("nothing that can be differentiated reaches a float output of the soft graph")
    endless = [soft.targets[t] for t, g in gradients.items() if g is not None and not np.isfinite(g).all()]
    if endless:
        told = f"TensorFlow's gradient is not finite: {', '.join(endless[:5])}"
        return Check(name, "failed", None, WIDE, told, LIMIT_FROM[WIDE])
    if coarse(tools, soft):
        raise Skip("a part of it computes in 16 bits, in which the steps of differences are none")
    function = Function(tools, soft, cotangents)
    if flat(soft, gradients, cotangents, TINY[function.limit]) and any(g is not None for g in gradients.values()):
        raise Skip("the gradient is smaller here than the rounding of functions that saturate")
    rng = np.random.default_rng(seed)
    limit = function.limit
    floor, weight = floors(soft, gradients, promised), weights(soft, gradients)
    worst, unsure, sure = 0.0, 0, 0
    wrong: dict[str, float] = {}
    for targets in _directions(list(soft.targets), rng):
        # A fault shows along every direction, a kink within rounding only along one.
        answers: list[float | None] = []
        while len(answers) < 2 and (not answers or (answers[-1] is not None and not answers[-1] <= limit)):
            direction = {t: _direction(soft.point[t], gradients.get(t), rng) for t in targets}
            least = max(min(floor[t] for t in targets), sum(weight[t] ** 2 for t in targets) ** 0.5)
            answers.append(_compared(function, direction, gradients, least, limit))
        known = [answer for answer in answers if answer is not None]
        if not known:
            unsure += 1
            continue
        sure += 1
        figure = min(known) if min(known) <= limit else max(known)
        worst = max(worst, figure)
        if len(targets) == 1 and not figure <= limit:
            wrong[soft.targets[targets[0]]] = figure
    if worst <= limit and promised and not any(weight[target] for target in promised):
        raise Skip("every promised gradient is zero at this point, and so is the derivative: nothing was compared")
    if not sure:
        raise Skip("the soft function is too rough here: two step sizes do not agree along any direction")
    told = ", ".join(f"{label} by {figure:.2g}" for label, figure in sorted(wrong.items(), key=lambda w: -w[1])[:5])
    reason = f"the gradient is not that of the soft function: {told or 'in all targets together'}"
    if not worst <= limit and soft.unlike:
        raise Skip(f"TensorFlow differentiates {', '.join(soft.unlike[:3])} in a way of its own; {reason}")
    ran = f"along {sure} directions" + (f"; {unsure} more are too rough for differences" if unsure else "")
    return judged(name, worst, limit, reason, LIMIT_FROM[limit], ran)


def _direction(value: Any, gradient: Any, rng: np.random.Generator) -> Any:
    """A random direction with a part along the gradient: one that is across it by chance would tell nothing."""
    v = rng.standard_normal(value.shape)
    if gradient is not None and np.any(gradient):
        v = v + ALONG * gradient.astype(np.float64) / float(np.linalg.norm(gradient))
    return v * size(value)


def _directions(targets: list[str], rng: np.random.Generator) -> Iterator[list[str]]:
    """All targets at once, then one by one: in random order as far as the time goes, so that no end is always cut."""
    started = time.monotonic()
    if len(targets) > 1:
        yield targets
    for i in rng.permutation(len(targets))[:ALONE]:
        if time.monotonic() - started < SECONDS or len(targets) == 1:
            yield [targets[i]]


def _compared(
    function: Function, direction: Point, gradients: dict[str, Any], least: float, limit: float
) -> float | None:
    """How far both derivatives along a direction are apart, in parts of their size; None where steps do not agree.

    They are not taken for smaller than `least`.
    """
    known = {target: gradients[target] for target in direction if gradients.get(target) is not None}
    told = sum(float(np.vdot(g.astype(np.float64), direction[target])) for target, g in known.items())
    best = Slope(0.0, float("inf"))
    for step in STEPS[limit]:
        slope = function.slope(direction, step)
        best = min(best, slope, key=lambda s: s.error)
        if best.error <= limit * max(abs(told), abs(best.value), least) / 2:
            break
    scale = max(abs(told), abs(best.value), least)
    apart = abs(best.value - told)
    if best.error > limit * scale or limit * scale < apart <= CLEAR * best.error:
        return None
    return float(apart / scale) if scale else 0.0
