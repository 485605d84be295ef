"""GitHub annotations: the commands' form, and that the runner reads back what was meant."""

from __future__ import annotations

import re

from gradpass.report.build import build
from gradpass.report.diagnostics import Source
from gradpass.report.github import render_github
from gradpass.report.repair import CheckRow
from gradpass.report.words import visible
from tests.report.frozen import NASTY, nasty, several
from tests.report.test_text import declined
from tests.report.verdicts import model, target, verdict

COMMAND = re.compile(r"::(error|warning|notice) ([^:\n]*)::([^\n]*)")


def read(line: str) -> tuple[str, dict[str, str], str]:
    """As the runner does (actions/runner, ActionCommand.cs): properties at commas, then the escapes, `%25` last."""
    matched = COMMAND.fullmatch(line)
    assert matched is not None, line
    kind, properties, message = matched.groups()
    pairs = (part.split("=", 1) for part in properties.split(","))
    return kind, {key: back(value, {"%3A": ":", "%2C": ","}) for key, value in pairs}, back(message, {})


def back(text: str, more: dict[str, str]) -> str:
    for code, character in {"%0D": "\r", "%0A": "\n", **more, "%25": "%"}.items():
        text = text.replace(code, character)
    return text


def test_one_command_a_finding() -> None:
    report = several()
    lines = render_github(report).splitlines()
    assert lines[0] == (
        "::error file=my models/net.py,line=42,title=GP102 hard-argmax::`ArgMax` picks an index, which has no "
        "derivative: `a` and `b` get None%0Ahelp: use `tf.nn.softmax(scores)` as weights: "
        "`tf.reduce_sum(tf.nn.softmax(scores) * values, -1)`%0A"
        "fix: `gradpass fix saved_model` adds a derivative: softmax-argmax (estimator)"
    )
    assert [read(line)[0] for line in lines] == ["error", "warning", "error", "notice"]
    assert [read(line)[1]["title"] for line in lines] == [f"{d.code} {d.name}" for d in report.diagnostics]
    assert "file" not in read(lines[1])[1] and "node: Sign" in read(lines[1])[2]


def test_names_come_back_as_they_were() -> None:
    report = nasty()
    report.diagnostics[0].message += " ``" + NASTY
    (line,) = render_github(report).split("\n")[:-1]
    _, properties, message = read(line)
    assert set(properties) == {"title"}
    assert message.startswith(visible(report.diagnostics[0].message)) and visible(NASTY) in message


def test_a_file_with_commas_and_colons_stays_one_property() -> None:
    report = several()
    source = report.diagnostics[0].source
    assert source is not None
    object.__setattr__(source, "file", "C:\\a,b=c%.py")
    _, properties, _ = read(render_github(report).splitlines()[0])
    assert properties["file"] == "C:\\a,b=c%.py" and properties["line"] == "42"


def test_nothing_found_is_nothing_said() -> None:
    healthy = build(model(), [verdict([target("a")])])
    assert render_github(healthy) == ""


def test_what_is_left_out_is_counted() -> None:
    (line,) = render_github(several().filtered(select=("GP3",))).splitlines()[1:]
    kind, properties, message = read(line)
    assert (kind, properties) == ("notice", {"title": "gradpass"})
    assert message.endswith("; 3 left out by code")


def test_a_repair_tells_its_refusals_and_checks() -> None:
    rows = [CheckRow("values", "failed", 3.0, 0.0, NASTY), CheckRow("onnx: a", "skipped", None, None, "op Erfc")]
    told = [read(line) for line in render_github(declined("the rank is unknown", rows)).splitlines()]
    assert told[0][2].endswith("\nfix: none: the rank is unknown")
    assert [(kind, properties["title"]) for kind, properties, _ in told[1:]] == [
        ("error", "cross-check values"),
        ("notice", "cross-check onnx: a"),
        ("notice", "gradpass fix"),
    ]
    assert told[2][2] == "the cross-check `onnx: a` was skipped: op Erfc"


def test_nothing_that_the_runner_prints_moves_a_cursor() -> None:
    report = several()
    report.diagnostics[0].source = Source("a\x1b[31m.py", 1, "")
    report.diagnostics[0].message = "a\x1b[31m\u202e"
    assert "\x1b" not in render_github(report) and "\u202e" not in render_github(report)
