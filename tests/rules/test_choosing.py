"""Which rule a node gets, and how exact it is there: told by `check`, done by `fix`."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradpass as gp
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import save_expressions

MASK = "tf.cast(v == tf.reduce_max(v, 1, keepdims=True), f)"
EQUAL = "tf.cast(tf.round(v) == 1.0, f)"
ON_VALUE = "tf.one_hot([0, 2], 3, on_value=v[0, 0], dtype=f)"
INDEX = "tf.one_hot(tf.argmax(v, 1), 3, on_value=v[0, 0], dtype=f)"


@pytest.mark.parametrize(
    ("text", "op", "rule", "kind"),
    [
        (MASK, "Equal", "extreme-mask", "estimator"),
        ("tf.cast(v == tf.reduce_max(v[:, :1]), f)", "Equal", "smooth-equal", "estimator"),
        ("tf.cast(v[:3] == tf.reduce_max(v[:3], 1), f)", "Equal", "smooth-equal", "estimator"),
        (ON_VALUE, "OneHot", "soft-one-hot", "exact"),
    ],
)
def test_what_check_tells_is_what_fix_does(text: str, op: str, rule: str, kind: str, tmp_path: Path) -> None:
    source = save_expressions(tmp_path / "m", [text])
    told = next(d.fix for d in gp.check(source, entry="hit_0").diagnostics if d.op == op)
    assert (told.rule, told.kind) == (rule, kind)
    (step,) = repair(read(source)).plan
    assert step.rules[0] == rule and step.kind == kind


def test_a_rule_that_is_not_for_a_node_is_not_forced_on_it(tmp_path: Path) -> None:
    source = save_expressions(tmp_path / "m", [MASK])
    assert repair(read(source), rules={"Equal": "smooth-equal"}).plan[0].rules[0] == "smooth-equal"
    other = save_expressions(tmp_path / "n", ["tf.cast(v == 1.0, f)"])
    (step,) = repair(read(other), rules={"Equal": "extreme-mask"}).plan
    assert step.declined


def test_exact_only_asks_for_the_inputs_that_are_severed(tmp_path: Path) -> None:
    """The value that a one-hot puts is served, the index by which it puts it is not."""
    plan = repair(read(save_expressions(tmp_path / "m", [INDEX])), exact_only=True).plan
    assert {step.cut.op: (step.rules, step.declined is None) for step in plan} == {
        "ArgMax": ([], False),
        "OneHot": (["soft-one-hot"], True),
    }
