"""What people read: the shape of a finding, long paths, narrow and plain terminals, the table of a repair."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
import time

import jsonschema
import pytest

from gradpass.report.build import build
from gradpass.report.chain import BROKEN, chain
from gradpass.report.concise import render_concise
from gradpass.report.diagnostics import Diagnostic, Report, Source
from gradpass.report.json import render_json, schema
from gradpass.report.repair import CheckRow, FixReport, PlanStep
from gradpass.report.terminal import progress, quiet_tensorflow
from gradpass.report.text import plain, show
from gradpass.report.words import count, size, whom
from tests.report.verdicts import cut, model, target, verdict

PLACE = ("__inference_serve_42", "ArgMax")
ARGMAX = cut("ArgMax", [0], function="__inference_serve_42", stack=("StatefulPartitionedCall", "while"))


def severed() -> Report:
    return build(model(), [verdict([target("a", "none"), target("b")], cuts=[ARGMAX])])


def healthy() -> Report:
    return build(model(), [verdict([target("a"), target("b")])])


def test_a_finding_in_full() -> None:
    assert str(severed()) == (
        "error[GP102]: `ArgMax` picks an index, which has no derivative: `a` gets None\n"
        "  --> node ArgMax of function serve, inside while\n"
        "   |\n"
        "   | a → MatMul ✗ ArgMax → Mul → y\n"
        "   |\n"
        "   = starves: a (6 of 12 parameters)\n"
        "   = help: use `tf.nn.softmax(scores)` as weights: `tf.reduce_sum(tf.nn.softmax(scores) * values, -1)`\n"
        "   = fix: `gradpass fix saved_model` adds a derivative: softmax-argmax (estimator)\n"
        "\n"
        "1 op severs 1 of 2 variables: 6 of 12 parameters\n"
        "For more on a code: `gradpass explain GP102`\n"
    )


def test_a_known_line_is_shown() -> None:
    report = severed()
    report.diagnostics[0].source = Source("model.py", 42, "code = tf.argmax(scores, 1)")
    text = str(report)
    assert "  --> model.py:42\n   |\n 42| code = tf.argmax(scores, 1)\n" in text
    assert render_concise(report).startswith("model.py:42: error[GP102] `ArgMax` picks")


def test_concise_is_one_line_a_finding() -> None:
    assert render_concise(severed()) == (
        "saved_model:__inference_serve_42:ArgMax: error[GP102] `ArgMax` picks an index, which has no derivative: "
        "`a` gets None\n"
    )
    assert render_concise(healthy()) == ""


def test_a_healthy_model_says_so() -> None:
    assert str(healthy()) == "gradients reach all 2 targets, 12 parameters\n"


def test_a_model_without_variables_is_not_called_healthy() -> None:
    assert "nothing to check" in str(build(model(), [verdict([])]))


@pytest.mark.parametrize(
    ("length", "cut_at", "shown"),
    [
        (5, 2, ["0", "1", "2", "3", "4"]),
        (9, 4, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]),
        (12, 5, ["0", "1", "… 2 more …", "4", "5", "6", "… 3 more …", "10", "11"]),
        (9, 1, ["0", "1", "2", "… 4 more …", "7", "8"]),
        (1, 0, ["0"]),
    ],
)
def test_long_stretches_of_a_path_are_counted(length: int, cut_at: int, shown: list[str]) -> None:
    found = Diagnostic("GP102", "x", "error", "", "", node=str(cut_at), path=[str(i) for i in range(length)])
    assert [name for _, name, _ in chain(found)] == shown
    assert sum(hidden for _, _, hidden in chain(found)) == length - sum("more" not in name for name in shown)
    assert [name for before, name, _ in chain(found) if before == BROKEN] == ([str(cut_at)] if cut_at else [])


def test_a_narrow_terminal_breaks_no_name() -> None:
    targets = [target(f"encoder/block_{i}/kernel", "none") for i in range(30)]
    report = build(model(), [verdict(targets, cuts=[cut("ArgMax", list(range(30)))])])
    text = plain(report.render, 60)
    assert "encoder/block_5/kernel and 24 more" in " ".join(text.split())
    assert max(len(row) for row in text.splitlines() if "adds a derivative" not in row) <= 60


def test_numbers_are_short() -> None:
    assert [count(n) for n in (0, 999, 12345, 2_100_000, 7_000_000_000)] == ["0", "999", "12,345", "2.1 M", "7.0 G"]
    assert [size(n) for n in (1, 72, 3100, 2_400_000)] == ["1 byte", "72 bytes", "3.1 kB", "2.4 MB"]
    assert [whom([f"v{i}" for i in range(n)], "target") for n in (1, 2, 3, 4)] == [
        "`v0`", "`v0` and `v1`", "`v0`, `v1` and `v2`", "`v0`, `v1` and 2 more targets",
    ]  # fmt: skip


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(encoding: str, terminal: bool) -> str:
    raw = io.BytesIO()
    file = (Terminal if terminal else io.TextIOWrapper)(raw, encoding=encoding)
    show(severed().render, file)
    file.flush()
    return raw.getvalue().decode(encoding)


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[" in shown("utf-8", terminal=True)
    assert "\x1b[" not in shown("utf-8", terminal=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown("utf-8", terminal=True)


def test_ascii_where_the_stream_has_no_more() -> None:
    text = shown("ascii", terminal=False)
    assert "a -> MatMul x ArgMax -> Mul -> y" in text
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show(repaired().render, file)
    file.seek(0)
    text = file.read()
    assert "-----" in text and "?" not in text


def repaired(**changes: object) -> FixReport:
    plan = [PlanStep(0, "softmax-argmax", "estimator", 17, None, ["softmax-argmax", "expected-gather"])]
    checks = [CheckRow("values", "passed", 0.0, 0.0, None), CheckRow("onnx-fixed", "passed", 2.5e-7, 1e-4, None)]
    values = {
        "before": severed(),
        "after": healthy(),
        "plan": plan,
        "crosscheck": checks,
        "output": "m-fixed",
        **changes,
    }
    return FixReport(**values)  # type: ignore[arg-type]


def test_a_repair_shows_before_after_plan_and_proof() -> None:
    text = str(repaired())
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "a 6 none flows" in rows
    assert "GP102 ArgMax ArgMax estimator: softmax-argmax, expected-gather 17" in rows
    assert "onnx-fixed passed 2.5e-07 0.0001" in rows
    assert rows[-2:] == ["gradients reach all 2 targets, 12 parameters", "wrote m-fixed"]
    assert repaired().exit_status == 0


def declined(reason: str, checks: list[CheckRow]) -> FixReport:
    """A repair that leaves its only finding as it is."""
    found = build(model(), [verdict([target("a", "none"), target("b")], cuts=[ARGMAX])], {PLACE: reason})
    plan = [PlanStep(0, None, None, 0, reason, [])]
    return repaired(before=found, plan=plan, after=None, crosscheck=checks, output=None)


def test_a_declined_step_gives_its_reason() -> None:
    report = declined("its axis is computed at run time", [])
    text = str(report)
    assert "left as it is: its axis is computed at run time" in text
    assert text.endswith("nothing can be repaired, for the reasons given: nothing was written\n")
    assert report.exit_status == 1


def test_a_failed_cross_check_is_the_last_word() -> None:
    rows = [
        CheckRow("values", "failed", 3.0, 0.0, "y differs"),
        CheckRow("onnx-fixed", "skipped", None, None, "op Erfc"),
    ]
    report = repaired(crosscheck=rows, output=None)
    assert str(report).endswith("cross-check failed (values): nothing was written\n")
    assert report.exit_status == 1


def test_the_json_of_a_repair_fits_the_schema() -> None:
    odd = [CheckRow("values", "failed", float("nan"), 0.0, "y is NaN")]
    for report in (repaired(), repaired(crosscheck=odd, output=None), repaired(after=None, diff="@@")):
        data = json.loads(render_json(report))
        jsonschema.validate(data, {**schema(), "$ref": "#/$defs/fix"})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "plan": [{}]}, {**schema(), "$ref": "#/$defs/fix"})


def test_a_spinner_only_on_a_terminal_and_only_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradpass.report.terminal.DELAY", 0.05)
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    with progress("reading") as say:
        say("more")
        time.sleep(0.1)
    assert quiet.getvalue() == ""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with progress("reading") as say:
            say("proving [bold]it")
            time.sleep(0.3)
        terminal.flush()
        assert b"proving [bold]it" in screen.read(65536)


def test_tensorflows_messages_stay_away_unless_something_breaks(capfd: pytest.CaptureFixture[str]) -> None:
    old = sys.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        with os.fdopen(os.dup(2), "w") as own:
            patch.setattr(sys, "stderr", own)
            patch.setattr("gradpass.report.terminal._is_descriptor_2", lambda: True)
            with quiet_tensorflow():
                os.write(2, b"E0000 noise\n")
                print("for you", file=sys.stderr)
            assert capfd.readouterr().err == "for you\n"
            with pytest.raises(RuntimeError), quiet_tensorflow():
                os.write(2, b"E0000 the cause\n")
                raise RuntimeError
            assert capfd.readouterr().err == "E0000 the cause\n"
    assert sys.stderr is old


def test_a_name_moves_no_cursor_and_ends_no_line() -> None:
    wild = "a\n\x1b[31mb\u202ec`d"
    found = build(model(), [verdict([target(wild, "none")], cuts=[cut("ArgMax", [0], path=[wild, "ArgMax", "y"])])])
    for text in (plain(found.render), render_concise(found)):
        assert "\x1b" not in text and "\u202e" not in text
        assert "`a\\n\\x1b[31mb\\u202ec'd` gets None" in " ".join(text.split())
    assert render_concise(found).count("\n") == 1


def test_a_table_takes_no_word_for_markup() -> None:
    wild = "[bold]x[/bold] :smile: [/red]\x1b[31m"
    checks = [CheckRow(wild, "skipped", None, None, wild)]
    text = str(declined(wild, checks)) + str(repaired(output=wild, diff=wild))
    whole = "[bold]x[/bold] :smile: [/red]\\x1b[31m"
    assert text.count(whole) == 5 and " ".join(text.split()).count(whole[:21]) == 6  # a narrow column folds one
    assert "\x1b" not in text


def test_the_command_of_a_repair_can_be_typed() -> None:
    report = severed()
    report.target = "my models/a`b"
    assert "`gradpass fix 'my models/a'b'` adds" in str(report)
    report.target = "my models/it"
    assert "`gradpass fix 'my models/it'` adds" in str(report)


def test_what_codes_leave_out_is_counted() -> None:
    report = severed().filtered(ignore=("GP1",))
    assert report.suppressed == {"codes": 1} and report.to_json()["suppressed"] == {"codes": 1}
    assert str(report).startswith("no finding left: 1 of 2 variables starved, 6 of 12 parameters; 1 left out")
    assert severed().filtered(select=("GP1",)).suppressed == {}


def test_of_many_entries_some_are_named() -> None:
    verdicts = [verdict([target("a", "none")], name=f"e{i}", cuts=[ARGMAX]) for i in range(1500)]
    text = str(build(model(), verdicts))
    assert "= in: entry `e0`, entry `e1`, entry `e2`, entry `e3`, entry `e4`, entry `e5` and 1,494 more" in text
    assert "1 op severs 1,500 of 1,500 variables" in text


def test_concise_tells_how_a_repair_went() -> None:
    rows = render_concise(declined("no rank", [CheckRow("values", "skipped", None, None, "no\nop")])).splitlines()
    assert rows[0].startswith("saved_model:__inference_serve_42:ArgMax: error[GP102]")
    assert rows[1:] == [
        "saved_model: note: the cross-check `values` was skipped: no\\nop",
        "saved_model: note: nothing can be repaired, for the reasons given: nothing was written",
    ]


def test_a_refusal_that_no_finding_tells_is_told() -> None:
    plan = [PlanStep(None, None, None, 0, "it crosses a loop", [])]
    assert [remark.text for remark in repaired(plan=plan).remarks] == [
        "left as it is: it crosses a loop",
        "wrote m-fixed",
    ]
    assert [remark.title for remark in declined("no rank", []).remarks] == ["gradpass fix"]


def test_inputs_have_no_parameters_to_count() -> None:
    x = target("x", "none", kind="input", parameters=0)
    text = str(build(model(), [verdict([x], cuts=[cut("ArgMax", [0], parameters=0)])]))
    assert "\n   = starves: x\n" in text and "\n1 op severs the only input\n" in text
    assert (
        str(build(model(), [verdict([target("x", kind="input", parameters=0)])])) == "gradients reach the only target\n"
    )


def test_large_numbers_are_grouped() -> None:
    targets = [target(f"v{i}", "none") for i in range(1500)]
    text = str(build(model(), [verdict(targets, cuts=[cut("ArgMax", list(range(1500)))])]))
    words = " ".join(text.split())
    assert "`v0`, `v1` and 1,498 more variables" in words and "v5 and 1,494 more (9,000 of 9,000" in words


def test_what_severs_nobody_is_said_to_raise() -> None:
    found = cut("AdjustHue", [0, 1], "raises", path=["AdjustHue"])
    targets = [target("a", "raises", structure="flows"), target("b", "raises", structure="flows")]
    assert "\n1 op raises for 2 of 2 variables: 12 of 12 parameters\n" in str(
        build(model(), [verdict(targets, raising=[found])])
    )
