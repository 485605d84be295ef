"""Runs the scripts that are pages of docs/ and writes below each block what it prints; `--check` only compares."""

from __future__ import annotations

import argparse
import contextlib
import io
import linecache
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from gradpass import GradientWarning

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("training.md", "pruning.md", "crosscheck.md")
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)
SCRIPT = "train.py"


def blocks(page: str) -> list[str]:
    """The code of the page, block by block."""
    return [found[1] for found in BLOCK.finditer(page)]


def printed(code: list[str]) -> list[str]:
    """What each block prints, Keras's warnings about gradients among it; run in a folder of its own, as one script."""
    names: dict[str, Any] = {"__name__": "__main__"}
    told = []
    start = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path(SCRIPT).write_text("\n".join(code), "utf-8")
            linecache.checkcache()
            line = 0
            for block in code:
                out = io.StringIO()
                with contextlib.redirect_stdout(out), warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    # Each block at the lines where it stands in the file.
                    exec(compile("\n" * line + block, str(Path(folder).resolve() / SCRIPT), "exec"), names)
                line += block.count("\n") + 1
                told.append(
                    "".join(f"{text}\n" for text in dict.fromkeys(filter(None, map(warned, caught)))) + out.getvalue()
                )
        finally:
            os.chdir(start)
    return told


def warned(warning: warnings.WarningMessage) -> str:
    """A warning about gradients, as far as it says what is the matter; nothing of any other."""
    text = str(warning.message)
    if issubclass(warning.category, GradientWarning):
        first = next(line for line in text.splitlines() if re.match(r"(error|warning)\[", line))
        return f"GradientWarning: {first} ..."
    return f"UserWarning: {text}" if "Gradients do not exist" in text else ""


def rendered(page: str) -> str:
    """The page with what its blocks print today."""
    told = iter(printed(blocks(page)))

    def with_output(found: re.Match[str]) -> str:
        text = next(told)
        shown = f"\n```text\n{text.rstrip()}\n```\n" if text else ""
        return f"```python\n{found[1]}```\n{shown}"

    return BLOCK.sub(with_output, page)


def main() -> int:
    """Renders or checks; 1 if the page is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a page is out of date")
    arguments = parser.parse_args()
    status = 0
    for page in PAGES:
        old = (DOCS / page).read_text("utf-8")
        new = rendered(old)
        if not arguments.check:
            (DOCS / page).write_text(new, "utf-8")
        elif new != old:
            print(f"{page} is out of date; run python -m scripts.render_pages", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
