"""Causes become diagnostics: who shares one, which code, what is said of each."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given
from tensorboard.compat.proto.attr_value_pb2 import AttrValue

from gradpass.errors import GradpassError
from gradpass.flow.verdict import EntryVerdict
from gradpass.report.build import build
from gradpass.report.codes import all_codes
from gradpass.report.diagnostics import GradientError
from gradpass.report.json import render_json, schema
from tests.report.verdicts import cut, model, target, verdict


def codes(*verdicts: EntryVerdict, **changes: Any) -> list[str]:
    return [d.code for d in build(model(**changes), verdicts).diagnostics]


def test_targets_of_one_op_share_one_diagnostic() -> None:
    report = build(
        model(), [verdict([target("a", "none"), target("b"), target("c", "none")], cuts=[cut("ArgMax", [0, 2])])]
    )
    (found,) = report.diagnostics
    assert (found.code, found.name, found.severity) == ("GP102", "hard-argmax", "error")
    assert found.message == "`ArgMax` picks an index, which has no derivative: `a` and `c` get None"
    assert (found.starves, found.parameters, found.entries) == (["a", "c"], 12, ["serving_default"])
    assert (found.fix.kind, found.fix.rule) == ("estimator", "softmax-argmax")
    assert [t.diagnostics for t in report.targets] == [[0], [], [0]]
    assert report.summary == {
        "targets": 3, "flows": 1, "zero": 0, "none": 2, "raises": 0, "parameters": 18, "starved_parameters": 12,
    }  # fmt: skip


def test_a_target_of_two_cuts_has_two_diagnostics() -> None:
    report = build(model(), [verdict([target("a", "none")], cuts=[cut("Greater", [0]), cut("Round", [0])])])
    assert [d.code for d in report.diagnostics] == ["GP101", "GP103"]
    assert report.targets[0].diagnostics == [0, 1]


@pytest.mark.parametrize(
    ("op", "how", "code"),
    [
        ("Less", "none", "GP101"), ("Cast", "none", "GP104"), ("TopKV2", "zero", "GP105"), ("Sign", "zero", "GP301"),
        ("StopGradient", "none", "GP108"), ("AdjustHue", "raises", "GP123"), ("DenseBincount", "raises", "GP121"),
        ("Range", "none", "GP100"), ("FusedBatchNormV3", "zero", "GP300"), ("MyOwnOp", "raises", "GP109"),
    ],
)  # fmt: skip
def test_code_of_a_cut(op: str, how: str, code: str) -> None:
    assert codes(verdict([target("a", "none")], cuts=[cut(op, [0], how)]), nodes={op: op}) == [code]


def test_a_lost_custom_gradient_is_told_apart_from_an_op_without_one() -> None:
    lost = model({"branch": "IdentityN"})
    node = lost.program.graph.by_name["branch"]
    node.kind.attrs["_gradient_op_type"] = AttrValue(s=b"CustomGradient-7")
    judged = verdict([target("a", "raises")], cuts=[cut("IdentityN", [0], "raises", "branch")])
    (found,) = build(lost, [judged]).diagnostics
    assert (found.code, found.fix.kind) == ("GP110", "refuse")


def test_an_op_that_raises_says_who_suffers_without_passing_it() -> None:
    hue = cut("AdjustHue", [0], "raises")
    everybody = cut("AdjustHue", [0, 1], "raises")
    judged = verdict([target("a", "raises"), target("w", "raises", "flows")], cuts=[hue], raising=[everybody])
    report = build(model({"AdjustHue": "AdjustHue"}), [judged])
    (found,) = report.diagnostics
    assert (found.starves, found.raises, found.parameters) == (["a"], ["a", "w"], 6)
    assert any("`w`" in note for note in found.notes)
    assert [t.diagnostics for t in report.targets] == [[0], [0]]


def test_an_op_on_the_data_path_alone_starves_nobody_and_is_found() -> None:
    judged = verdict([target("w", "raises", "flows")], raising=[cut("AdjustHue", [0], "raises")])
    (found,) = build(model({"AdjustHue": "AdjustHue"}), [judged]).diagnostics
    assert (found.starves, found.raises, found.severity) == ([], ["w"], "error")
    assert found.message.endswith("`w` gets an error")


def test_zeros_that_hide_a_cut_are_told() -> None:
    judged = verdict([target("w", "zero", "none")], cuts=[cut("Round", [0], node="while/Round")])
    (found,) = build(model(), [judged]).diagnostics
    assert found.code == "GP103" and found.message.endswith("`w` gets zeros")
    assert any("hides the cut" in note for note in found.notes)


def test_disconnected_unused_integer_and_no_float_output_are_told_apart() -> None:
    targets = [target("dead", "none"), target("other", "none"), target("count", "none", dtype="int32"), target("fine")]
    report = build(model(), [verdict(targets, disconnected=[0, 1], uncaptured=[1])])
    assert {d.code: d.starves for d in report.diagnostics} == {
        "GP201": ["dead"],
        "GP202": ["other"],
        "GP205": ["count"],
    }
    assert "entry `serving_default`" in next(d.message for d in report.diagnostics if d.code == "GP202")
    assert codes(verdict(targets[:2], disconnected=[0, 1], float_outputs=False)) == ["GP203"]


def test_a_gradient_that_tensorflow_loses_on_a_sound_way_is_found() -> None:
    assert codes(verdict([target("w", "zero", "flows")])) == ["GP302"]


def test_entries_share_the_diagnostic_of_an_op() -> None:
    def entry(name: str) -> EntryVerdict:
        return verdict(
            [target("a", "none"), target("b", "none")], name, cuts=[cut("ArgMax", [0 if name == "one" else 1])]
        )

    report = build(model(), [entry("one"), entry("two")])
    shared = report.diagnostics[0]
    assert (shared.entries, shared.starves, shared.parameters) == (["one", "two"], ["a", "b"], 12)


def test_a_name_that_two_variables_share_gives_way_to_the_path() -> None:
    targets = [
        target("kernel", "none", path="a/kernel"),
        target("kernel", "none", path="b/kernel"),
        target("bias", "none"),
    ]
    (found,) = build(model(), [verdict(targets, cuts=[cut("ArgMax", [0, 1, 2])])]).diagnostics
    assert found.starves == ["a/kernel", "b/kernel", "bias"]


def test_a_note_alone_is_no_finding() -> None:
    report = build(model(orphans=3), [verdict([target("a")])])
    (note,) = report.diagnostics
    assert (note.code, note.severity, note.unused, note.parameters) == (
        "GP204",
        "note",
        ["orphan_0", "orphan_1", "orphan_2"],
        18,
    )
    assert "72 bytes" in note.message
    assert report.ok and report.exit_status == 0
    report.raise_for_findings()


def test_what_the_plan_declines_is_the_reason() -> None:
    judged = verdict([target("a", "none")], cuts=[cut("ArgMax", [0])])
    (found,) = build(model(), [judged], {(None, "ArgMax"): "its axis is computed at run time"}).diagnostics
    assert (found.fix.kind, found.fix.rule, found.fix.reason) == (
        "refuse",
        "softmax-argmax",
        "its axis is computed at run time",
    )


def test_an_op_without_a_rule_says_so() -> None:
    (found,) = build(model(), [verdict([target("a", "none")], cuts=[cut("HistogramSummary", [0])])]).diagnostics
    assert (found.fix.kind, found.fix.reason) == ("refuse", "gradpass has no rule for HistogramSummary")


def test_select_and_ignore_keep_the_indices_right() -> None:
    judged = verdict([target("a", "none"), target("b", "zero")], cuts=[cut("ArgMax", [0]), cut("Sign", [1], "zero")])
    report = build(model(orphans=1), [judged])
    only = report.filtered(select=("GP3",))
    assert [d.code for d in only.diagnostics] == ["GP301"] and [t.diagnostics for t in only.targets] == [[], [0]]
    assert not only.ok
    assert report.filtered(ignore=("GP1", "GP301")).ok
    assert [d.code for d in report.diagnostics] == ["GP102", "GP301", "GP204"]


def test_findings_raise_with_the_report() -> None:
    report = build(model(), [verdict([target("a", "none")], cuts=[cut("ArgMax", [0])])])
    with pytest.raises(GradientError, match="GP102") as caught:
        report.raise_for_findings()
    assert caught.value.report is report and isinstance(caught.value, GradpassError)


states = st.sampled_from(["flows", "zero", "none", "raises"])


@st.composite
def verdicts(draw: st.DrawFn) -> EntryVerdict:
    """An entry as the analysis may give it, with whatever causes."""
    count = draw(st.integers(0, 5))
    structures = st.sampled_from(["flows", "zero", "none"])
    dtypes = st.sampled_from(["float32", "float32", "bfloat16", "int64"])
    targets = [
        target(f"v{i % 3}", draw(states), draw(structures), path=f"p{i}", dtype=draw(dtypes)) for i in range(count)
    ]
    some = st.lists(st.integers(0, count - 1), unique=True, max_size=count) if count else st.just([])
    ops = st.lists(st.sampled_from(["ArgMax", "Sign", "Unique", "Greater"]), unique=True)
    return verdict(
        targets,
        cuts=[cut(op, draw(some)) for op in draw(ops)],
        raising=[cut(op, draw(some), "raises") for op in draw(ops)],
        disconnected=draw(some), uncaptured=draw(some), float_outputs=draw(st.booleans()),
    )  # fmt: skip


@given(verdicts(), st.integers(0, 2))
def test_everybody_starved_has_a_diagnostic_and_the_json_fits_the_schema(judged: EntryVerdict, orphans: int) -> None:
    nodes = {op: op for op in ("ArgMax", "Sign", "Unique", "Greater")}
    report = build(model(nodes, orphans), [judged])
    for one in report.targets:
        assert one.diagnostics or not one.starved
        assert all(report.diagnostics[i].code in all_codes() for i in one.diagnostics)
    jsonschema.validate(json.loads(render_json(report)), schema())
    assert str(report).endswith("\n")
