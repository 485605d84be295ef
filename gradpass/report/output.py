"""Where a report goes: the terminal, a pipe, a file; in which format."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradpass.errors import OutputError

if TYPE_CHECKING:
    from gradpass.report.diagnostics import Report
    from gradpass.report.probe import ProbeReport
    from gradpass.report.pruned import PruneReport
    from gradpass.report.repair import FixReport


def emit(report: Report | FixReport | ProbeReport | PruneReport, style: str, output: Path | None) -> None:
    """Prints a report, or writes it to a file."""
    if output is not None:
        _write(_rendered(report, style), output)
    elif style in ("text", "concise"):
        from gradpass.report import text

        if style == "text":
            text.show(report.render, sys.stdout)
        else:
            text.write(_rendered(report, style), sys.stdout)
    else:
        # For programs: the same bytes whatever the terminal, as the HTML says of itself that it is UTF-8.
        click.echo(_rendered(report, style).encode(), nl=False)


def _rendered(report: Report | FixReport | ProbeReport | PruneReport, style: str) -> str:
    """A report in a format; `report/` has a module for each, and a report is its own text."""
    if style == "text":
        return str(report)
    name = style.replace("-", "_")
    rendered: str = getattr(importlib.import_module(f"gradpass.report.{name}"), f"render_{name}")(report)
    return rendered


def _write(text: str, output: Path) -> None:
    """Writes a text to a file, whole or not at all."""
    plain = output.is_file() or not output.exists()
    stage = output.with_name(f".{output.name}.{os.getpid()}") if plain else output  # a pipe or a device is not replaced
    try:
        stage.write_text(text, "utf-8")
        stage.replace(output)
    except OSError as problem:
        if plain:
            with suppress(OSError):
                stage.unlink()
        raise OutputError(f"{output} cannot be written ({problem.strerror}); choose another place with -o") from problem
