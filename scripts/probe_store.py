"""Lays out a table as gradpass/program/tables.py reads it: the newest TensorFlow whole, older ones as what differs."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.program import tables

Rows = dict[str, Any]


def command(about: str | None, probes: Mapping[Path, Callable[[], Rows]]) -> int:
    """What each script that fills tables does: it writes them, or with --check compares; the exit status."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file is not up to date")
    check = parser.parse_args().check
    version = ".".join(tf.__version__.split(".")[:2])
    files = {part: text for path, probe in probes.items() for part, text in layout(path, version, probe()).items()}
    old = stale(files)
    for path in old:
        print(f"{path.name} {'is not up to date' if check else 'written'}")
        if check:
            print("\n".join(difference(path, files[path])))
    if not check:
        write(files)
    if not old:
        print(f"up to date with TensorFlow {version}")
    return 1 if check and old else 0


def layout(path: Path, version: str, rows: Rows) -> dict[Path, str]:
    """The files of a table, with their text, once a version has these rows and all other versions what they had."""
    known = {other: tables.read(path, other).rows for other in tables.versions(path)}
    known[version] = json.loads(json.dumps(rows))  # as it will be read: tuples are lists
    newest = max(known, key=tables.order)
    base = known.pop(newest)
    parts = {tables.part_path(path, older): _text(older, _changes(base, of)) for older, of in known.items()}
    return {path: _text(newest, base), **parts}


def write(files: dict[Path, str]) -> None:
    """Puts the files in place."""
    for path, text in files.items():
        path.write_text(text, "utf-8")
    tables.newest.cache_clear()


def stale(files: dict[Path, str]) -> list[Path]:
    """Those of the files that have another text, or are missing."""
    return [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]


def difference(path: Path, text: str) -> list[str]:
    """The first lines in which a file is not as it should be."""
    old = path.read_text("utf-8").splitlines() if path.exists() else []
    return list(difflib.unified_diff(old, text.splitlines(), "stored", "installed", lineterm="", n=0))[:40]


def _changes(base: Rows, rows: Rows) -> Rows:
    """What must be changed in `base` to have `rows`; None takes a row away."""
    return {op: rows.get(op) for op in base.keys() | rows.keys() if base.get(op) != rows.get(op)}


def _text(version: str, rows: Rows) -> str:
    """The file: one op a line, so that a change shows what it changes."""
    lines = (f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'))}" for name, row in sorted(rows.items()))
    return f'{{"version":"{version}","ops":{{\n' + ",\n".join(lines) + "\n}}\n"
