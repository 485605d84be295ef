"""GitHub annotations: the commands' form, and that the runner reads back what was meant."""

from __future__ import annotations

import re

from gradpass.report.github import render_github
from tests.report.frozen import NASTY, nasty, several

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
        "`tf.reduce_sum(tf.nn.softmax(scores) * values, -1)`"
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
    assert message.startswith(report.diagnostics[0].message) and NASTY in message


def test_a_file_with_commas_and_colons_stays_one_property() -> None:
    report = several()
    source = report.diagnostics[0].source
    assert source is not None
    object.__setattr__(source, "file", "C:\\a,b=c%.py")
    _, properties, _ = read(render_github(report).splitlines()[0])
    assert properties["file"] == "C:\\a,b=c%.py" and properties["line"] == "42"


def test_nothing_found_is_nothing_said() -> None:
    assert render_github(several().filtered(select=("GP9",))) == ""
