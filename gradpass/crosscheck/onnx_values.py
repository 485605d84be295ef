"""Check 2: both models through tf2onnx and onnxruntime, compared with TensorFlow on the same inputs.

Also a second opinion on the written graph: whatever is in it must be known to a converter by other people.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gradpass.crosscheck.check import Check, Outcome, Skip, attempt, judged
from gradpass.crosscheck.export import freeze, to_onnx, tools
from gradpass.crosscheck.load import Signature
from gradpass.crosscheck.runtime import Runner
from gradpass.crosscheck.same import same
from gradpass.crosscheck.values import Outputs, Sample, deviation

# In parts of the output's range. float32 has a step of 6e-8; other kernels add the same numbers in another order, which
# costs some hundred steps over the depth of a real network, while a wrong op is off by percents. It is the figure that
# the project promises for real models (issue "the main job, end to end").
LIMIT = 1e-4
ONE = "frozen, both are the same graph, and one export serves for both"
LIMIT_FROM = "float32 sums in another order, over the depth of real networks; in parts of an output's range"


@dataclass(frozen=True)
class Apart:
    """How far an ONNX model is from TensorFlow, by output: on random and the user's data, and at each edge."""

    usual: dict[str, float]
    edges: dict[str, dict[str, float]]


def onnx_checks(names: list[str], original: Signature, fixed: Signature, samples: list[Sample]) -> list[Check]:
    """The two checks: the original's export, which may be impossible, and the fixed model's, which is not so then."""
    using = tools()
    frozen = attempt(lambda: freeze(using, original)), attempt(lambda: freeze(using, fixed))
    one = frozen[0].value is not None and frozen[1].value is not None and same(frozen[0].value, frozen[1].value)
    # A bridge leaves nothing in an export. To make the same one twice would cost as much as all other checks.
    first = attempt(lambda: Runner(using, to_onnx(using, frozen[0].given())))
    second = first if one else attempt(lambda: Runner(using, to_onnx(using, frozen[1].given())))
    before = attempt(lambda: _apart(first.given(), samples, lambda sample: sample.original))
    after = attempt(lambda: _apart(second.given(), samples, lambda sample: sample.fixed))
    row = _original_check(names[0], before)
    return [row, _fixed_check(names[1], after, row, before.value, ONE if one else None)]


def _original_check(name: str, outcome: Outcome[Apart]) -> Check:
    if outcome.value is None:
        return Check(name, "skipped", limit=LIMIT, reason=outcome.reason, limit_from=LIMIT_FROM)
    figure, told = _worst(outcome.value.usual)
    if figure <= LIMIT:
        beyond = [kind for kind, figures in outcome.value.edges.items() if not _worst(figures)[0] <= LIMIT]
        # No two libraries share what is there: rounding over rounding where zeros are normalised, inf for NaN.
        rough = f"another library gives other values on {', '.join(beyond)} inputs, where nothing is asked of a repair"
        return Check(name, "passed", figure, LIMIT, rough if beyond else None, LIMIT_FROM)
    # No fault of the repair: a hard op on a near tie, or an op that tf2onnx carries in another sense.
    reason = f"this export of the original differs from TensorFlow: {told}"
    return Check(name, "skipped", figure if math.isfinite(figure) else None, LIMIT, reason, LIMIT_FROM)


def _fixed_check(
    name: str, outcome: Outcome[Apart], before: Check, original: Apart | None, passed: str | None
) -> Check:
    possible = before.status == "passed"
    if outcome.value is None:
        reason = f"the original can be exported, this cannot: {outcome.reason}" if possible else outcome.reason
        return Check(name, "failed" if possible else "skipped", limit=LIMIT, reason=reason, limit_from=LIMIT_FROM)
    figure, told = _worst(outcome.value.usual)
    if figure > LIMIT and before.figure is not None and not possible:
        told = f"so does the original's: {told}"
        return Check(name, "skipped", figure if math.isfinite(figure) else None, LIMIT, told, LIMIT_FROM)
    for kind, figures in outcome.value.edges.items():
        # An edge counts where the original's own export knows what to give there.
        if original is not None and kind in original.edges and _worst(original.edges[kind])[0] <= LIMIT:
            there, what = _worst(figures)
            if not there <= LIMIT:
                told = ", ".join(filter(None, [told, f"on {kind} inputs {what}"]))
            figure = max(figure, there)
    return judged(name, figure, LIMIT, f"onnxruntime differs from TensorFlow: {told}", LIMIT_FROM, passed)


def _worst(figures: dict[str, float]) -> tuple[float, str]:
    beyond = (f"{output} by {figure:.2g} of its range" for output, figure in figures.items() if not figure <= LIMIT)
    return max(figures.values(), default=0.0), ", ".join(beyond)


def _apart(runner: Runner, samples: list[Sample], expected: Callable[[Sample], Outputs]) -> Apart:
    """How far the ONNX model is from TensorFlow; Skip says which outputs it has not."""
    missing = {name for sample in samples for name in expected(sample)} - set(runner.outputs)
    if missing:
        raise Skip(f"tf2onnx loses the outputs {sorted(missing)}")

    def apart(some: list[Sample]) -> dict[str, float]:
        got = [runner.run({name: value.numpy() for name, value in sample.inputs.items()}) for sample in some]
        return {
            name: deviation([expected(s)[name] for s in some], [g[name] for g in got]) for name in expected(some[0])
        }

    edges = {}
    for sample in samples:
        if sample.edge:
            there = attempt(partial(apart, [sample]))
            edges[sample.kind] = dict.fromkeys(runner.outputs, math.inf) if there.value is None else there.value
    usual = [sample for sample in samples if not sample.edge]
    return Apart(apart(usual) if usual else {}, edges)
