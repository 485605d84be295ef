"""Numbers and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def plural(number: int, noun: str) -> str:
    """ "1 variable", "3 variables"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def count(number: int) -> str:
    """A number in at most a few digits: 940, 12,345, 2.1 M."""
    for limit, unit in ((1_000_000_000, "G"), (1_000_000, "M")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:,}"


def size(number: int) -> str:
    """A number of bytes: 12 bytes, 3.1 kB, 2.4 MB."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return plural(number, "byte")


def whom(names: Sequence[str], noun: str, shown: int = 2) -> str:
    """A list that stays short: `a`, or `a` and `b`, or `a`, `b` and 7 more variables."""
    quoted = [f"`{name}`" for name in names]
    if len(names) <= shown:
        return " and ".join(quoted)
    if len(names) == shown + 1:
        return ", ".join(quoted[:-1]) + " and " + quoted[-1]
    return ", ".join(quoted[:shown]) + f" and {len(names) - shown} more {noun}s"
