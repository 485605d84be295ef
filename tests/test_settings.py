"""What a project says in its pyproject.toml, and the findings that it lives with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gradpass import settings
from gradpass.cli import commands, main
from gradpass.errors import GradpassError
from gradpass.report.build import build
from gradpass.report.diagnostics import Report
from gradpass.report.suppress import fingerprint, ignoring, known, write
from gradpass.settings import Settings
from tests.models import save_expressions
from tests.report.verdicts import cut, model, target, verdict


def project(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text, "utf-8")
    return folder


def report(*names: str) -> Report:
    """A finding of GP102 at each of some nodes, each starving one target, and a disconnected target."""
    nodes = dict.fromkeys(names, "ArgMax")
    targets = [target(f"v{i}", "none") for i in range(len(names) + 1)]
    cuts = [cut("ArgMax", [i], node=name) for i, name in enumerate(names)]
    return build(model(nodes), [verdict([*targets, target("fine")], cuts=cuts, disconnected=[len(names)])])


def codes(of: Report) -> list[str]:
    return [d.code for d in of.diagnostics]


def test_the_nearest_project_with_settings_is_read(tmp_path: Path) -> None:
    project(tmp_path, '[tool.gradpass]\nselect = ["gp1"]\nwrt = "both"\nbaseline = "known.json"\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    project(tmp_path / "a", '[tool.other]\nselect = ["E"]\n')
    assert settings.read(inner) == Settings(select=("GP1",), wrt="both", baseline=tmp_path / "known.json")


def test_no_project_says_nothing(tmp_path: Path) -> None:
    assert settings.read(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("selct = []", "there is no setting 'selct'"),
        ('select = "GP1"', "is a list of codes, not 'GP1'"),
        ('ignore = ["GP9"]', "no code begins with 'GP9'"),
        ("order = 3", "is one of 1, 2, not 3"),
        ("order = true", "is one of 1, 2, not True"),
        ("entry = 1", "is a text, not 1"),
        ("per-node-ignores = []", "is a table of patterns"),
        ("select = [", "not readable as TOML"),
    ],
)
def test_a_mistake_says_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    project(tmp_path, f"[tool.gradpass]\n{text}\n")
    with pytest.raises(GradpassError, match=says):
        settings.read(tmp_path)


def test_the_settings_are_a_table(tmp_path: Path) -> None:
    project(tmp_path, "[tool]\ngradpass = 3\n")
    with pytest.raises(GradpassError, match="is a table of settings, not 3"):
        settings.read(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("head/ArgMax", ["GP102", "GP201"]),
        ("head", ["GP102", "GP201"]),
        ("hea?", ["GP102", "GP201"]),
        ("*", []),
        ("hea", ["GP102", "GP102", "GP201"]),
        ("v2", ["GP102", "GP102"]),
    ],
)
def test_findings_of_a_node_or_a_scope_are_ignored(pattern: str, left: list[str]) -> None:
    found = ignoring(report("head/ArgMax", "tail/ArgMax"), {pattern: ("GP1", "GP2")})
    assert codes(found) == left
    assert sum(found.suppressed.values()) == 3 - len(left)
    assert [target.diagnostics for target in found.targets if target.name == "fine"] == [[]]


def test_only_the_codes_that_are_named_are_ignored() -> None:
    assert codes(ignoring(report("head/ArgMax"), {"head": ("GP2",)})) == ["GP102", "GP201"]


def test_a_baseline_hides_what_it_has_and_tells_what_is_gone(tmp_path: Path) -> None:
    baseline = tmp_path / "known.json"
    write(report("head/ArgMax", "tail/ArgMax"), baseline)
    again = known(report("head/ArgMax_7", "tail/ArgMax"), baseline)
    assert (codes(again), again.ok, again.suppressed, again.outdated) == ([], True, {"baseline": 3}, 0)
    assert "3 in the baseline" in str(again)
    more = known(report("head/ArgMax", "tail/ArgMax", "new/ArgMax"), baseline)
    assert codes(more) == ["GP102", "GP201"] and more.diagnostics[0].node == "new/ArgMax"
    fewer = known(report(), baseline)
    assert fewer.outdated == 3 and "3 of the baseline no longer found" in str(fewer)


def test_the_same_finding_twice_is_hidden_once_for_each_that_the_baseline_has(tmp_path: Path) -> None:
    one = report("a/ArgMax")
    two = build(
        model({"a/ArgMax": "ArgMax", "a/ArgMax_1": "ArgMax"}),
        [verdict([target("v0", "none")], cuts=[cut("ArgMax", [0], node=n) for n in ("a/ArgMax", "a/ArgMax_1")])],
    )
    assert fingerprint(two.diagnostics[0]) == fingerprint(two.diagnostics[1]) == fingerprint(one.diagnostics[0])
    write(one, tmp_path / "known.json")
    assert len(known(two, tmp_path / "known.json").diagnostics) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "no list of findings"),
        ('{"version": 1, "findings": {}}', "no list of findings"),
        ('{"version": 2, "findings": []}', "version is 2, not 1"),
        ('{"version": 1, "findings": [{}]}', "each a text"),
        ('{"version": 1, "findings": [3]}', "each a text"),
        ('{"version": 1, "findings": [{"code": ["GP102"], "place": "", "starves": ""}]}', "each a text"),
    ],
)
def test_what_is_no_baseline_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text(text, "utf-8")
    with pytest.raises(GradpassError, match=f"no baseline of gradpass .*{why}"):
        known(report(), tmp_path / "known.json")


def test_a_missing_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GradpassError, match="`gradpass check --write-baseline` makes one"):
        known(report(), tmp_path / "known.json")


def test_a_folder_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(GradpassError, match=r"cannot be read \(Is a directory\)"):
        known(report(), tmp_path)


def test_a_code_that_does_not_exist_is_told_with_its_file(tmp_path: Path) -> None:
    project(tmp_path, '[tool.gradpass.per-node-ignores]\n"*" = ["GP9"]\n')
    with pytest.raises(GradpassError, match=r"pyproject.toml: `per-node-ignores` in .*: no code begins with 'GP9'"):
        settings.read(tmp_path)


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(GradpassError, match="current folder is gone"):
        settings.read()


def test_the_command_line_goes_before_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_expressions(tmp_path / "m", ["tf.reduce_sum(tf.cast(tf.argmax(v, 1), tf.float32))"])
    project(tmp_path, '[tool.gradpass]\nignore = ["GP1"]\n')
    monkeypatch.chdir(tmp_path)
    assert main(["check", "m"]) == 0
    assert main(["check", "m", "--ignore", "GP2"]) == 1
    assert main(["check", "m", "--ignore", ""]) == 1


def test_a_baseline_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_expressions(tmp_path / "m", ["tf.reduce_sum(tf.cast(tf.argmax(v, 1), tf.float32))"])
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(commands, ["check", "m", "--write-baseline", "known.json"], standalone_mode=False).return_value == 0
    assert len(json.loads(Path("known.json").read_text("utf-8"))["findings"]) == 1
    assert write(build(model(orphans=2), [verdict([])]), tmp_path / "none.json") == 0  # notes are no findings
    done = run(commands, ["check", "m", "--baseline", "known.json"], standalone_mode=False)
    assert done.return_value == 0 and "1 in the baseline" in done.output
