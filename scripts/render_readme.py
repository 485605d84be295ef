"""Puts what `gradpass check` prints today into the README; `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from gradpass import check
from gradpass.demo import make
from gradpass.report.text import plain

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- rendered by scripts/render_readme.py -->\n", "<!-- end -->\n"
WIDTH = 100


def rendered() -> str:
    """The verdict on the demo's model, as it stands in the README."""
    start = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "quantizer")
        os.chdir(folder)  # so that the report names the model and its script as a user would
        try:
            text = plain(check("quantizer").render, WIDTH)
        finally:
            os.chdir(start)
    return f"```text\n$ gradpass check quantizer\n{text}```\n"


def main() -> int:
    """Renders or checks; 1 if the README is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if the README is out of date")
    arguments = parser.parse_args()
    old = README.read_text("utf-8")
    before, _, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        parser.error(f"{README} lacks the markers {BEGIN.strip()} and {END.strip()}")
    new = f"{before}{BEGIN}{rendered()}{END}{after}"
    if arguments.check:
        if new != old:
            print("README.md is out of date; run python scripts/render_readme.py", file=sys.stderr)
        return int(new != old)
    README.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
