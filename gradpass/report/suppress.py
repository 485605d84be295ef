"""Findings that a project has decided to live with: by node or scope, and by a baseline of those that it had.

A finding of a baseline is known again by its code, its node and whom it starves; numbers that TensorFlow appends to the
names of functions and nodes count for nothing, since they change with every export. What is suppressed is counted, and
the count is shown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gradpass.errors import GradpassError, OutputError
from gradpass.report.diagnostics import Diagnostic, Report

VERSION = 1
MARK = ("code", "place", "starves")  # what a finding is known by
NUMBER = re.compile(r"_\d+(?=/|$)")


def ignoring(report: Report, ignores: Mapping[str, tuple[str, ...]]) -> Report:
    """A report without the findings of some codes at some nodes or scopes."""
    hidden = {
        i
        for i, diagnostic in enumerate(report.diagnostics)
        if any(diagnostic.code.startswith(codes) and _at(diagnostic, pattern) for pattern, codes in ignores.items())
    }
    return _without(report, hidden, "ignored")


def known(report: Report, baseline: Path) -> Report:
    """A report without the findings that a baseline has, as often as it has them."""
    left = Counter(_entries(baseline))
    hidden = set()
    for i, diagnostic in enumerate(report.diagnostics):
        mark = fingerprint(diagnostic)
        if left[mark]:
            left[mark] -= 1
            hidden.add(i)
    found = _without(report, hidden, "baseline")
    return replace(found, outdated=found.outdated + left.total())


def write(report: Report, baseline: Path) -> int:
    """Makes a baseline of all findings of a report and counts them; notes are none."""
    marks = sorted(fingerprint(d) for d in report.diagnostics if d.severity != "note")
    rows = [dict(zip(MARK, mark, strict=True)) for mark in marks]
    text = json.dumps({"version": VERSION, "findings": rows}, indent=2, ensure_ascii=False) + "\n"
    try:
        baseline.write_text(text, "utf-8")
    except OSError as problem:
        raise OutputError(f"{baseline} cannot be written ({problem.strerror}); choose another place") from problem
    return len(rows)


def fingerprint(diagnostic: Diagnostic) -> tuple[str, str, str]:
    """By what a finding is known again in another export of the model."""
    function = re.sub(r"^__inference_|_\d+$", "", diagnostic.function or "")
    place = f"{function}:{NUMBER.sub('', diagnostic.node)}" if diagnostic.node is not None else ""
    return diagnostic.code, place, ", ".join(sorted(diagnostic.concerned))


def _at(diagnostic: Diagnostic, pattern: str) -> bool:
    """Whether a finding is at a node or in a scope; one without a node is where all of its targets are."""
    names = [diagnostic.node] if diagnostic.node is not None else diagnostic.concerned
    return bool(names) and all(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*") for name in names)


def _without(report: Report, hidden: set[int], why: str) -> Report:
    return report.kept((i for i in range(len(report.diagnostics)) if i not in hidden), why)


def _entries(baseline: Path) -> list[tuple[str, str, str]]:
    try:
        content: Any = json.loads(baseline.read_text("utf-8"))
    except FileNotFoundError as problem:
        raise GradpassError(
            f"there is no baseline {baseline}; `gradpass check --write-baseline` makes one"
        ) from problem
    except OSError as problem:
        raise GradpassError(f"the baseline {baseline} cannot be read ({problem.strerror}); name another") from problem
    except ValueError as problem:  # no UTF-8, no JSON, no name of a file
        raise _no_baseline(baseline, str(problem)) from problem
    if not isinstance(content, dict) or not isinstance(content.get("findings"), list):
        raise _no_baseline(baseline, "it has no list of findings")
    if content.get("version") != VERSION:
        raise _no_baseline(baseline, f"its version is {content.get('version')!r}, not {VERSION}")
    marks: list[Any] = [
        tuple(row.get(key) for key in MARK) if isinstance(row, dict) else () for row in content["findings"]
    ]
    if not all(mark and all(isinstance(part, str) for part in mark) for mark in marks):
        raise _no_baseline(baseline, f"a finding has {', '.join(MARK)}, each a text")
    return marks


def _no_baseline(baseline: Path, why: str) -> GradpassError:
    return GradpassError(f"{baseline} is no baseline of gradpass ({why}); make it anew with --write-baseline")
