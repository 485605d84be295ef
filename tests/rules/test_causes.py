"""The catalogue of causes, repaired: what can be mended gets a gradient, the rest a reason and a way out.

Every row of `tests/flow/causes.py` that blames an op is repaired as a user would have it, all in one SavedModel. The
causes that no graph shows are told by the report alone (`tests/flow/test_causes.py`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.report.build import build
from gradpass.rewrite.fix import Repair, Step, repair
from tests.flow.causes import ROWS, Row, S
from tests.flow.test_causes import entry, straight
from tests.flow.truth import SHAPE, save
from tests.models import gradients, with_pb

# The causes whose repair is a refusal, and those that wait for rules which do not exist yet; all others are mended.
REFUSED = {18, 21, 29, 35, 36}
WAITING = {
    17: "no rule for the colours of images",
    46: "no rule for the colours of images",
}
# Their samples differ from call to call; those of the stateless ops, which share their rules, do not.
UNSEEDED = {"categorical", "poisson"}
BLAMED = [row for row in ROWS if not row.by_data and row.says != "flows" and row.blamed[0][1] is not None]


def waiting(row: Row) -> Any:
    """The row, marked where it waits for a rule."""
    marks = [pytest.mark.xfail(reason=WAITING[row.number], strict=True)] if row.number in WAITING else []
    return pytest.param(row, id=entry(row), marks=marks)


MENDED = [waiting(row) for row in BLAMED if row.number not in REFUSED]
LEFT = [row for row in BLAMED if row.number in REFUSED]
X = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)


class Catalogue(NamedTuple):
    """The rows as one SavedModel, what a repair made of them, and both loaded."""

    path: Path
    repaired: Repair
    original: Any
    fixed: Any

    def steps(self, row: Row) -> list[Step]:
        (verdict,) = (v for v in self.repaired.before if v.name == entry(row))
        return [step for step in self.repaired.plan if any(step.cut is cut for cut in verdict.cuts)]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("causes")
    path = save(folder / "original", {entry(row): row.body for row in BLAMED})
    repaired = repair(read(path), entry="all")
    assert repaired.pb is not None
    fixed = with_pb(path, folder / "fixed", repaired.pb)
    return Catalogue(path, repaired, tf.saved_model.load(str(path)), tf.saved_model.load(str(fixed)))


@pytest.mark.parametrize("row", MENDED)
def test_mended_with_the_same_bits(row: Row, catalogue: Catalogue) -> None:
    name = entry(row)
    if row.name not in UNSEEDED:
        before, after = (
            [y.numpy().tobytes() for y in model.signatures[name](x=tf.constant(X)).values()]
            for model in (catalogue.original, catalogue.fixed)
        )
        assert before == after
    (gradient,) = gradients(catalogue.fixed.signatures[name], [catalogue.fixed.weights.v], {"x": X})
    assert gradient is not None and np.isfinite(gradient).all() and gradient.any()
    steps = catalogue.steps(row)
    assert [step.rules for step in steps if step.declined is None] and not [s.declined for s in steps if s.declined]


@pytest.mark.parametrize("row", LEFT, ids=entry)
def test_refused_with_a_reason_and_a_way_out(row: Row, catalogue: Catalogue) -> None:
    steps = catalogue.steps(row)
    assert steps and all(step.declined and not step.rules for step in steps)
    report = build(read(catalogue.path), analyse(read(catalogue.path), entry(row)))
    told = [d for d in report.diagnostics if "v" in d.starves]
    assert told and all(d.help for d in told)
    if row.name != "edit distance":  # blamed on the comparison, which has a rule; what follows it has none
        assert all(d.fix.kind == "refuse" and d.fix.reason for d in told)


@tf.custom_gradient
def ordered(x: Any) -> Any:
    """A custom gradient around an op that no rule serves."""
    return tf.linalg.lu(x[:3])[0], lambda dy: tf.pad(dy, [[0, 1], [0, 0]])


@tf.custom_gradient
def swish(x: Any) -> Any:
    """A custom gradient around what has a derivative of its own."""
    return x * tf.sigmoid(x), lambda dy: 7 * dy


ASK = """
import sys, numpy, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
with tf.GradientTape(persistent=True) as tape:
    y = model.signatures["serving_default"](x=tf.ones([4, 3]))["y"]
numpy.savez(sys.argv[2], y=y, **{n: tape.gradient(y, getattr(model.weights, n)) for n in sys.argv[3]})
"""


def fresh(path: Path, wanted: str) -> dict[str, Any]:
    """The value and gradients of a SavedModel in a process that knows none of this one's custom gradients."""
    out = path / "gradients.npz"
    subprocess.run([sys.executable, "-c", ASK, str(path), str(out), wanted], check=True, capture_output=True)
    with np.load(out) as found:
        return dict(found)


def lost(path: Path, function: Any) -> tuple[Path, Repair]:
    bodies = {"serving_default": lambda m, x: S(function(tf.convert_to_tensor(m.v))) + S(m.w * x)}
    original = save(path / "original", bodies, experimental_custom_gradients=False)
    return original, repair(read(original))


@pytest.mark.parametrize(
    ("function", "rules"),
    [(straight, ["lost-gradient", "soft-round"]), (swish, ["lost-gradient"])],
    ids=["rounded", "smooth"],
)
def test_cause_37_lost_gradient_of_what_has_a_rule_or_a_derivative(
    function: Any, rules: list[str], tmp_path: Path
) -> None:
    original, repaired = lost(tmp_path, function)
    assert [(step.rules, step.declined) for step in repaired.plan] == [(rules, None)]
    assert repaired.pb is not None
    found = fresh(with_pb(original, tmp_path / "fixed", repaired.pb), "vw")
    x = tf.constant(np.ones(SHAPE), tf.float32)
    assert (
        found["y"].tobytes()
        == tf.saved_model.load(str(original)).signatures["serving_default"](x=x)["y"].numpy().tobytes()
    )
    assert np.isfinite(found["v"]).all() and found["v"].all() and (found["w"] == 1).all()


def test_cause_37_lost_gradients_beside_and_behind_each_other(tmp_path: Path) -> None:
    """Around a skip nobody is severed, and still everybody raises; of two in a row only the last one does at first."""
    _, repaired = lost(tmp_path, lambda v: v + swish(swish(v)))
    assert repaired.pb is not None and [step.declined for step in repaired.plan] == [None] * len(repaired.plan)
    found = fresh(with_pb(tmp_path / "original", tmp_path / "fixed", repaired.pb), "vw")
    assert np.isfinite(found["v"]).all() and found["v"].all() and (found["w"] == 1).all()


def test_cause_37_lost_gradient_of_what_has_neither(tmp_path: Path) -> None:
    _, repaired = lost(tmp_path, ordered)
    assert repaired.pb is None
    assert [("experimental_custom_gradients" in (s.declined or ""), s.rules) for s in repaired.plan] == [(True, [])]
