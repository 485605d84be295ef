"""Reads tables of facts by op that stand whole for the newest TensorFlow, and for older ones as what differs.

`NAME.json` has all rows of the newest version. `NAME-2.18.json` has those that are others in 2.18, and null for an op
that it does not have. `scripts/probe_store.py` writes them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gradpass.errors import GradpassError

Rows = dict[str, Any]


class Table(NamedTuple):
    """The rows by op of one TensorFlow version (major.minor)."""

    version: str
    rows: Rows


@cache
def newest(path: Path) -> Table:
    """The table of the newest version. Shared: do not change it."""
    return _file(path)


def versions(path: Path) -> list[str]:
    """The versions whose rows are known, the oldest first; none where the table was never written."""
    if not path.exists():
        return []
    older = [part.stem.removeprefix(f"{path.stem}-") for part in path.parent.glob(f"{path.stem}-*.json")]
    return sorted([*older, newest(path).version], key=order)


def read(path: Path, version: str | None = None) -> Table:
    """The table of a version, by default the newest, which does not read the files of the others."""
    base = newest(path)
    if version is None or version == base.version:
        return base
    known = versions(path)
    if version not in known:
        raise GradpassError(f"nothing is known of TensorFlow {version}; choose one of {', '.join(known)}")
    changed = _file(part_path(path, version)).rows
    return Table(version, {op: row for op, row in sorted({**base.rows, **changed}.items()) if row is not None})


@cache
def fitting(path: Path, written_by: str) -> str | None:
    """The version whose rows hold for a file that a TensorFlow wrote ("2.18.1"); None, the newest, if none does."""
    version = ".".join(written_by.split(".")[:2])
    return version if version in versions(path) else None


def part_path(path: Path, version: str) -> Path:
    """Where it stands what differs in an older version."""
    return path.with_name(f"{path.stem}-{version}.json")


def order(version: str) -> tuple[int, ...]:
    """A key that sorts versions."""
    return tuple(int(number) for number in version.split("."))


def _file(path: Path) -> Table:
    content = json.loads(path.read_bytes())
    return Table(content["version"], content["ops"])
