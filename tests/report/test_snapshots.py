"""Each code's failing example as `gradpass check` shows it, the whole text; `python -m tests.report.test_snapshots`
writes the files anew, for eyes to read what changed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gradpass import check
from gradpass.report.codes import Code, all_codes
from gradpass.report.text import PLAIN_WIDTH, plain
from tests.report.test_codes import every_code, found, run, saved

SNAPSHOTS = Path(__file__).parent / "snapshots"


def shown(code: type[Code], folder: Path) -> str:
    """What a user reads who saves the example with its lines, and checks it from the folder where it stands."""
    file = folder / "example.py"
    file.write_text(code.failing.lstrip(), "utf-8")
    start = Path.cwd()
    os.chdir(folder)
    try:
        names = run(file.read_text("utf-8"), file)
        if code.live is not None:
            return plain(found(code, names, folder).render, PLAIN_WIDTH)
        saved(names, Path("model"), save_debug_info=True)
        return plain(check("model", order=code.order).render, PLAIN_WIDTH)
    finally:
        os.chdir(start)


@every_code
def test_the_whole_text(code: type[Code], tmp_path: Path) -> None:
    assert shown(code, tmp_path) == (SNAPSHOTS / f"{code.code}.txt").read_text("utf-8")


def test_a_snapshot_is_of_a_code() -> None:
    assert {file.stem for file in SNAPSHOTS.iterdir()} == set(all_codes())


def write() -> None:
    """Writes all snapshots anew, and no others."""
    SNAPSHOTS.mkdir(exist_ok=True)
    for file in SNAPSHOTS.iterdir():
        file.unlink()
    for code in all_codes().values():
        with tempfile.TemporaryDirectory() as folder:
            (SNAPSHOTS / f"{code.code}.txt").write_text(shown(code, Path(folder).resolve()), "utf-8")


if __name__ == "__main__":
    write()
