"""Renders a report as SARIF 2.1.0, for code scanning: one result a finding, the gradient's path as its code flow."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from gradpass.report.codes import Code, find
from gradpass.report.diagnostics import Diagnostic, Report, Severity
from gradpass.report.suppress import fingerprint

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "note"}


def render_sarif(report: Report) -> str:
    """The SARIF log of a report, as text."""
    return json.dumps(log(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def log(report: Report) -> dict[str, Any]:
    """The SARIF log of a report, as data."""
    codes = sorted({d.code for d in report.diagnostics})
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
            for d, print_ in zip(report.diagnostics, prints, strict=True)
        ],
        "properties": {
            "target": report.target,
            "order": report.order,
            "tensorflowTable": report.tensorflow_table,
            "summary": report.summary,
            "suppressed": report.suppressed,
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


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
    said = [diagnostic.message, *(f"Note: {note}" for note in diagnostic.notes), f"Help: {diagnostic.help}"]
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": LEVELS[diagnostic.severity],
        "message": {"text": "\n".join(said)},
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
    if diagnostic.source is not None:
        region: dict[str, Any] = {"startLine": diagnostic.source.line}
        if diagnostic.source.text:
            region["snippet"] = {"text": diagnostic.source.text}
        place["physicalLocation"] = {"artifactLocation": _artifact(diagnostic.source.file), "region": region}
    return place


def _artifact(file: str) -> dict[str, str]:
    path = PurePath(file)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    return {"uri": quote(path.as_posix()), "uriBaseId": "%SRCROOT%"}


def _steps(diagnostic: Diagnostic, report: Report) -> Iterator[dict[str, Any]]:
    """One location a node of the path, with what becomes of the gradient there."""
    path = diagnostic.path
    cut = diagnostic.cut or 0
    kinds = {target.name: target.kind for target in report.targets}
    last = len(path) - 1
    for i, name in enumerate(path):
        if i == cut:
            said = f"`{name}` ({diagnostic.op}) severs the gradient here"
            place = _place(diagnostic, report)
        else:
            if i == 0:
                kind, said = kinds.get(name, "target"), f"`{name}` is starved"
            elif i == last:
                kind, said = "output", f"the gradient sets out from the output `{name}`"
            else:
                kind, said = "operation", f"`{name}`, before the cut" if i < cut else f"`{name}`, behind the cut"
            place = {"logicalLocations": [{"name": name, "fullyQualifiedName": name, "kind": kind}]}
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
