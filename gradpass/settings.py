"""Settings of a project: `[tool.gradpass]` in a pyproject.toml, for what else would be typed with every check.

[tool.gradpass]
select = ["GP1"]                  # as --select; what is typed takes the place of what stands here
ignore = ["GP204"]
entry = "all"
wrt = "both"
baseline = "gradpass-baseline.json"   # beside this file

[tool.gradpass.per-node-ignores]  # a node or a scope, with * and ?; for findings without a node: targets
"augmentation/*" = ["GP120"]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gradpass.errors import GradpassError

FILE = "pyproject.toml"
CHOICES = {"wrt": ("variables", "inputs", "both"), "order": (1, 2)}


@dataclass(frozen=True)
class Settings:
    """What a project says; None where it says nothing."""

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    entry: str | None = None
    wrt: str | None = None
    order: int | None = None
    tensorflow: str | None = None
    baseline: Path | None = None
    per_node_ignores: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read(start: Path | None = None) -> Settings:
    """The settings of the project in which a folder lies: the nearest pyproject.toml with a `[tool.gradpass]`."""
    start = start or _here()
    for folder in (start, *start.parents):
        file = folder / FILE
        if file.is_file():
            table = _table(file)
            if table is not None:
                return _settings(file, table)
    return Settings()


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as problem:
        raise GradpassError("the current folder is gone; go to another") from problem


def _table(file: Path) -> dict[str, Any] | None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        tool = tomllib.loads(file.read_text("utf-8")).get("tool", {})
    except (OSError, ValueError) as problem:  # what is no UTF-8 or no TOML is a ValueError
        raise GradpassError(
            f"{file} is not readable as TOML ({problem}); mend it, or run gradpass elsewhere"
        ) from problem
    table = tool.get("gradpass") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise GradpassError(f"{file}: [tool.gradpass] is a table of settings, not {table!r}")
    return table


def _settings(file: Path, table: dict[str, Any]) -> Settings:
    known = {f.name.replace("_", "-"): f.name for f in fields(Settings)}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise GradpassError(f"{file}: there is no setting {key!r} in [tool.gradpass]; there are {', '.join(known)}")
        where = f"{file}: `{key}` in [tool.gradpass]"
        try:
            found[known[key]] = _value(file, key, value)
        except TypeError as problem:
            raise GradpassError(f"{where} {problem}, not {value!r}") from problem
        except GradpassError as problem:
            raise GradpassError(f"{where}: {problem}") from problem
    return Settings(**found)


def _value(file: Path, key: str, value: Any) -> Any:
    if key in ("select", "ignore"):
        return _codes(value)
    if key == "per-node-ignores":
        if not isinstance(value, dict):
            raise TypeError("is a table of patterns with their codes")
        return {pattern: _codes(codes) for pattern, codes in value.items()}
    if key in CHOICES:
        if value not in CHOICES[key] or isinstance(value, bool):
            raise TypeError(f"is one of {', '.join(map(str, CHOICES[key]))}")
        return value
    if not isinstance(value, str):
        raise TypeError("is a text")
    return file.parent / value if key == "baseline" else value


def _codes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise TypeError("is a list of codes")
    from gradpass.report.codes import prefixes

    return prefixes(value)
