"""Renders a report as SARIF 2.1.0, for code scanning: one result a finding, the gradient's path as its code flow."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from gradpass.report.codes import Code, find
from gradpass.report.diagnostics import Diagnostic, Report, Severity, Source
from gradpass.report.json import dumps
from gradpass.report.repair import FixReport, Remark, parts
from gradpass.report.suppress import fingerprint
from gradpass.report.words import count, visible

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "note"}
MOST = 25_000  # results that GitHub takes in one file
STEPS = 10  # of a path, on each side of the cut and at both ends: a thousand findings with long paths fill gigabytes
FILES = (".pb", ".meta")  # targets that are a file; of others saved_model.pb is looked at


def render_sarif(report: Report | FixReport) -> str:
    """The SARIF log of a report, or of what a repair left, as text."""
    return dumps(log(report))


def log(told: Report | FixReport) -> dict[str, Any]:
    """The SARIF log as data."""
    report, remarks = parts(told)
    codes = sorted({d.code for d in report.diagnostics})
    if len(report.diagnostics) > MOST:
        text = f"{count(len(report.diagnostics) - MOST)} more findings have no room in this file"
        remarks = [*remarks, Remark("warning", "gradpass", text)]
    prints = _fingerprints(report)
    run = {
        "tool": {
            "driver": {
                "name": "gradpass",
                "version": report.gradpass,
                "semanticVersion": report.gradpass,
                "rules": [_rule(find(code)) for code in codes],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(d, report, codes.index(d.code), print_)
            for d, print_ in zip(report.diagnostics[:MOST], prints[:MOST], strict=True)
        ],
        "invocations": [
            {"executionSuccessful": True, "toolExecutionNotifications": [_notification(remark) for remark in remarks]}
        ],
        "properties": {
            "target": report.target,
            "order": report.order,
            "tensorflowTable": report.tensorflow_table,
            "summary": report.summary,
            "suppressed": report.suppressed,
            "outdated": report.outdated,
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _notification(remark: Remark) -> dict[str, Any]:
    """What is no finding, and is to be known all the same."""
    return {"level": LEVELS[remark.severity], "message": {"text": _unlinked(remark.text)}}


def _rule(code: type[Code]) -> dict[str, Any]:
    """What a code means, for all of its results."""
    explanation = code.explanation()
    whole = [" ".join(part.split()) for part in re.split(r"\n\s*\n", explanation)]
    first = re.split(r"(?<=[.!?])\s", whole[0], maxsplit=1)[0]
    failing, fixed = code.failing.strip(), code.fixed.strip()
    advice = code.advice()
    return {
        "id": code.code,
        "name": code.name,
        "shortDescription": {"text": first},
        "fullDescription": {"text": "\n\n".join(whole)},
        "help": {
            "text": f"{advice}\n\nWithout a gradient:\n\n{failing}\n\nWith one:\n\n{fixed}",
            "markdown": f"{advice}\n\nWithout a gradient:\n\n```python\n{failing}\n```\n\n"
            f"With one:\n\n```python\n{fixed}\n```",
        },
        "defaultConfiguration": {"level": LEVELS[code.severity]},
    }


def _result(diagnostic: Diagnostic, report: Report, rule: int, fingerprint: str) -> dict[str, Any]:
    remarks = [f"{label.capitalize()}: {text}" for label, text in diagnostic.remarks(report)]
    said = [visible(diagnostic.message), *remarks]
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": LEVELS[diagnostic.severity],
        "message": {"text": _unlinked("\n".join(said))},
        "locations": [_place(diagnostic, report)],
        "partialFingerprints": {"gradpassCause/v1": fingerprint},
        "properties": {
            "starves": diagnostic.starves,
            "raises": diagnostic.raises,
            "affects": diagnostic.affects,
            "unused": diagnostic.unused,
            "parameters": diagnostic.parameters,
            "entries": diagnostic.entries,
            "op": diagnostic.op,
            "stack": diagnostic.stack,
            "fix": {"kind": diagnostic.fix.kind, "rule": diagnostic.fix.rule, "reason": diagnostic.fix.reason},
        },
    }
    if _source(diagnostic) is None:
        # What GitHub knows an alert by. Of a line of code its action works it out; of a model's file it cannot.
        result["partialFingerprints"]["primaryLocationLineHash"] = fingerprint
    if diagnostic.cut:
        steps = list(_steps(diagnostic, report))
        result["codeFlows"] = [
            {
                "message": {"text": "the gradient's way from the target to the output, and where it is cut"},
                "threadFlows": [{"locations": steps}],
            }
        ]
    return result


def _place(diagnostic: Diagnostic, report: Report) -> dict[str, Any]:
    """The op that is to blame, else the entry: where in the graph, and where in the source if that is known."""
    place: dict[str, Any] = {}
    if diagnostic.node is not None:
        qualified = "/".join(part for part in (diagnostic.function, diagnostic.node) if part)
        logical = {"name": diagnostic.node, "fullyQualifiedName": qualified, "kind": "operation"}
    else:
        name = ", ".join(diagnostic.entries) or report.target
        logical = {"name": name, "fullyQualifiedName": name, "kind": "signature" if diagnostic.entries else "model"}
    place["logicalLocations"] = [logical]
    place["physicalLocation"] = _in_model(report)
    source = _source(diagnostic)
    if source is not None:
        region: dict[str, Any] = {"startLine": source.line}
        if source.text:
            region["snippet"] = {"text": source.text}
        place["physicalLocation"] = {"artifactLocation": _artifact(source.file), "region": region}
    return place


def _source(diagnostic: Diagnostic) -> Source | None:
    """The user's line, if it stands in a file: nobody can open what was typed at a prompt."""
    source = diagnostic.source
    return None if source is None or source.file.startswith("<") else source


def _in_model(report: Report) -> dict[str, Any]:
    """The model's own file: GitHub refuses all results where one of them is in no file."""
    file = report.target if report.target.endswith(FILES) else f"{report.target.rstrip('/')}/saved_model.pb"
    return {"artifactLocation": _artifact(file), "region": {"startLine": 1}}


def _artifact(file: str) -> dict[str, str]:
    """A file by its URI; a model brings paths of the machine on which it was made."""
    windows = PureWindowsPath(file)
    path = windows if windows.drive or "\\" in file else PurePosixPath(file)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    return {"uri": quote(path.as_posix(), errors="surrogateescape"), "uriBaseId": "%SRCROOT%"}


def _unlinked(text: str) -> str:
    """A message in which no [brackets](1) are a link."""
    return re.sub(r"(?=[\[\]])", r"\\", text) if "](" in text else text


def _steps(diagnostic: Diagnostic, report: Report) -> Iterator[dict[str, Any]]:
    """One location a node of the path, with what becomes of the gradient there."""
    path = diagnostic.path
    cut = diagnostic.cut or 0
    kinds = {name: target.kind for target in report.targets for name in (target.path, target.name)}
    last = len(path) - 1
    for i, name in enumerate(map(visible, path)):
        if min(i, last - i, abs(i - cut)) > STEPS:
            continue
        if i == cut:
            said = f"`{name}` ({diagnostic.op}) severs the gradient here"
            place = _place(diagnostic, report)
        else:
            if i == 0:
                kind, said = kinds.get(path[i], "target"), f"`{name}` is starved"
            elif i == last:
                kind, said = "output", f"the gradient sets out from the output `{name}`"
            else:
                kind, said = "operation", f"`{name}`, before the cut" if i < cut else f"`{name}`, behind the cut"
            logical = {"name": path[i], "fullyQualifiedName": path[i], "kind": kind}
            place = {"logicalLocations": [logical], "physicalLocation": _in_model(report)}
        yield {
            "location": {**place, "message": {"text": said}},
            "importance": "essential" if i in (0, cut, last) else "important" if abs(i - cut) == 1 else "unimportant",
        }


def _fingerprints(report: Report) -> list[str]:
    """For each diagnostic what stays the same when the model is exported again, as a baseline has it; twins count."""
    times: Counter[tuple[str, str, str]] = Counter()
    found = []
    for diagnostic in report.diagnostics:
        mark = fingerprint(diagnostic)
        times[mark] += 1
        digest = hashlib.sha256("\0".join(mark).encode()).hexdigest()[:32]
        found.append(f"{digest}:{times[mark]}")
    return found
