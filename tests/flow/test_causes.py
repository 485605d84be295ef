"""The catalogue of causes: what TensorFlow says beside what gradpass says, and whom it blames.

Three answers are compared for each row of `causes.py`: what the row says a tape gives `v` where the loss is traced;
what TensorFlow gives every variable of the loaded signature in a fresh process, `state` and `structure`; what
`analyse` gives them.

No row: the causes that no graph shows, because the fault is in Python. 22 (`.numpy()` on a tensor), 23
(`model.predict` under the tape), 25 (a variable rebound to a tensor), 26 (a constant that is not watched), 44
(gradients that nobody applies) and 45 (applied to other variables) are found where Python is seen, by the check of a
training step. 19 (the second order is missing) belongs to `--order 2`.
"""

from __future__ import annotations

from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.flow.verdict import EntryVerdict
from gradpass.program.model import Model
from gradpass.program.savedmodel import read
from gradpass.report.build import build
from gradpass.report.diagnostics import Diagnostic
from tests.flow import causes
from tests.flow.causes import ROWS, Row, S
from tests.flow.truth import SHAPE, Answers, Weights, ask, save


class Catalogue(NamedTuple):
    """The rows as a SavedModel, each a signature: as gradpass reads it, and TensorFlow's answers."""

    model: Model
    verdicts: dict[str, EntryVerdict]
    truth: Answers


def entry(row: Row) -> str:
    return f"cause_{row.number}_{row.name.replace(' ', '_').replace('-', '_')}"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    bodies = {entry(row): row.body for row in ROWS}
    path = save(tmp_path_factory.mktemp("causes") / "m", bodies, save_debug_info=True)
    model = read(path)
    (truth,) = ask(path)
    return Catalogue(model, {verdict.name: verdict for verdict in analyse(model, "all", "both")}, truth)


@pytest.mark.parametrize("row", ROWS, ids=entry)
def test_the_row_says_what_tensorflow_says(row: Row) -> None:
    weights = Weights()
    target = getattr(weights, row.target)
    try:
        gradient = traced(row, weights, target)
    except LookupError:
        assert row.says == "LookupError"
        return
    assert row.says == seen(gradient)


def traced(row: Row, weights: Weights, target: tf.Variable) -> Any:
    """The gradient of a program that is no called function, but part of a trace; run unless nobody needs to."""
    found = []

    @tf.function(autograph=False)
    def differentiate() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.nest.flatten(row.body(weights, tf.ones(SHAPE)))
        gradient = tape.gradient([y for y in loss if y.dtype.is_floating], target)
        found.append(gradient)
        return gradient if gradient is not None else tf.zeros([])

    value = differentiate()
    return None if found[0] is None else value.numpy()


def seen(gradient: np.ndarray[Any, Any] | None) -> str:
    if gradient is None:
        return "None"
    return "NaN" if np.isnan(gradient).any() else "flows" if gradient.any() else "zeros"


@pytest.mark.parametrize("row", ROWS, ids=entry)
def test_the_verdict_is_tensorflows(row: Row, catalogue: Catalogue) -> None:
    truth = catalogue.truth[entry(row)]
    ours = {target.path: [target.state, target.structure] for target in catalogue.verdicts[entry(row)].targets}
    asked = f"weights/{row.target}"
    if row.by_data:
        # Structure is TensorFlow's; values say no more than the row does.
        assert {"zeros": "zero", "NaN": "nan"}[row.says] == truth[asked][0]
        truth = {**truth, asked: ["flows", truth[asked][1]]}
    assert ours == truth
    assert ours[asked][0] == row.state


@pytest.mark.parametrize("row", ROWS, ids=entry)
def test_blamed_by_code_op_and_node(row: Row, catalogue: Catalogue) -> None:
    report = build(catalogue.model, analyse(catalogue.model, entry(row)))
    (target,) = (target for target in report.targets if target.name == row.target)
    found = [report.diagnostics[i] for i in target.diagnostics]
    assert tuple(named(diagnostic) for diagnostic in found) == row.blamed


@pytest.mark.parametrize("row", [row for row in ROWS if row.blamed and row.blamed[0][1]], ids=entry)
def test_blamed_at_the_line_that_a_user_wrote(row: Row, catalogue: Catalogue) -> None:
    report = build(catalogue.model, analyse(catalogue.model, entry(row)))
    places = [diagnostic.source for diagnostic in report.diagnostics if diagnostic.node is not None]
    assert places
    for source in places:
        assert source is not None and Path(source.file).name == Path(causes.__file__).name
        assert source.line in lines(row.written) and source.text


def lines(code: CodeType) -> set[int]:
    """The lines of a function, and of those in it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {line for _, _, line in code.co_lines() if line}.union(*map(lines, inner))


def named(diagnostic: Diagnostic) -> tuple[str, str | None, str | None]:
    return diagnostic.code, diagnostic.op, diagnostic.node


@tf.custom_gradient
def straight(x: Any) -> Any:
    return tf.round(x), lambda dy: dy


def test_cause_37_custom_gradient_lost(tmp_path: Path) -> None:
    """Saved with its gradient it flows. Without it a fresh process raises, where this one would find it."""
    bodies = {"serving_default": lambda m, x: S(straight(tf.convert_to_tensor(m.v))) + S(m.w)}
    kept = save(tmp_path / "kept", bodies, experimental_custom_gradients=True)
    lost = save(tmp_path / "lost", bodies, experimental_custom_gradients=False)
    truths = dict(zip((lost, kept), ask(lost, kept), strict=True))
    for path in lost, kept:
        (verdict,) = analyse(read(path), wrt="both")
        assert {t.path: [t.state, t.structure] for t in verdict.targets} == truths[path]["serving_default"]
    report = build(read(lost), analyse(read(lost)))
    assert [(d.code, d.op, d.starves, d.raises) for d in report.diagnostics if d.severity != "note"] == [
        ("GP110", "IdentityN", ["v"], ["v", "w"])
    ]


def test_cause_31_weights_of_no_function(tmp_path: Path) -> None:
    """Weights that no function uses are no targets: a note sums them up."""
    path = save(tmp_path / "m", {"serving_default": lambda m, x: S(m.v * x)})
    report = build(read(path), analyse(read(path)))
    assert [target.name for target in report.targets] == ["v"]
    assert [(d.code, d.severity, d.unused) for d in report.diagnostics] == [
        ("GP204", "note", ["w", "table", "whole", "moving"])
    ]


def test_causes_30_and_32_say_what_the_loss_does_depend_on(catalogue: Catalogue) -> None:
    for name, depends in ("cause_30_unused_head", ["x", "w"]), ("cause_32_the_loss_is_of_the_labels_alone", ["x"]):
        verdict = catalogue.verdicts[name]
        assert verdict.depends == depends, name
