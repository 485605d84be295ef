"""Numbers and lists as people read them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

QUOTE = "'"  # for a backquote in a name


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


def visible(text: str) -> str:
    """Text without anything that moves a cursor, turns the direction of reading or ends a line: names may hold it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(name: str) -> str:
    """A name in a sentence, between backquotes."""
    return f"`{visible(name.replace('`', QUOTE))}`"


def command(words: str, path: str) -> str:
    """A command with a path behind it, between backquotes, to be typed as it stands."""
    return quoted(f"{words} {shlex.quote(path)}")


def whom(names: Sequence[str], noun: str, shown: int = 2) -> str:
    """A list that stays short: `a`, or `a` and `b`, or `a`, `b` and 7 more variables."""
    listed = [quoted(name) for name in names[: shown + 1]]
    if len(names) <= shown:
        return " and ".join(listed)
    if len(names) == shown + 1:
        return ", ".join(listed[:-1]) + " and " + listed[-1]
    return ", ".join(listed[:shown]) + f" and {count(len(names) - shown)} more {noun}s"
