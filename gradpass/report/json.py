"""Renders a report as JSON; `schema.json` beside this file describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradpass.report.diagnostics import Report
from gradpass.report.probe import ProbeReport
from gradpass.report.pruned import PruneReport
from gradpass.report.repair import FixReport


def render_json(report: Report | FixReport | ProbeReport | PruneReport) -> str:
    """The JSON text of a report."""
    return dumps(report.to_json())


def dumps(data: dict[str, Any]) -> str:
    """JSON in ASCII: a name may hold what no encoding has, or what turns the direction in which a terminal writes."""
    # A number that JSON does not have must stop us here, not the reader.
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of a report; `$defs/fix` there is that of `fix --format json`."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))
    return loaded
