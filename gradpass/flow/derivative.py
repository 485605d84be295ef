"""Tells what the gradient of an op is itself computed from, so that it can be differentiated once more.

`second.json` is probed by `scripts/probe_second.py`, for all ops that have a gradient function of their own; what
differs in older versions stands in `second-2.18.json` and the like. The entry of an input argument is None where it
has no gradient, else a string with a letter for each argument that the gradient may depend on: the inputs of the op,
its outputs, then the cotangents of its outputs. The letters say what `tf.gradients` gives there: `f` a derivative,
`0` zeros, `.` None; `d` and `o` as `f` between two lists of equal length, for equal (`d`) or other (`o`) places only.
`F`, `Z` and `r` are `f`, `0` and `.` where an op without a gradient of its own stands between, which is taken as a cut.
`n` is `.` for a cotangent that the gradient does depend on: an op that is marked as not differentiable stands between.
The name of such an op follows behind a space.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

from gradpass.errors import TargetError
from gradpass.flow.edges import EdgeTable
from gradpass.program import opdefs, tables
from gradpass.program.graph import Node

Source = Literal["input", "output", "cotangent"]
_PATH = Path(__file__).with_name("second.json")
_WORDS = {"f": "", "d": "", "o": "", "F": "", "0": " (zeros)", "Z": " (zeros)", "r": " (cut)", "n": " (None)"}
_PLAIN = {"f": True, "F": True, "0": False, "Z": False}


class Read(NamedTuple):
    """A value that a gradient depends on: which one of the node's (by flat place), and how.

    `flows` is True for a derivative, False for zeros, None for nothing; `missing` tells that an op without a gradient
    stands between, `ended` that the dependence ends there unsaid.
    """

    source: Source
    place: int
    flows: bool | None
    missing: bool
    ended: bool


class Derivative(NamedTuple):
    """What the gradient of one input is computed from, and the op (or the error) that keeps it from being followed."""

    reads: tuple[Read, ...]
    missing: str


Derivatives = tuple["Derivative | None", ...]  # by flat input


@cache
def table(version: str | None = None) -> EdgeTable:
    """The table of a TensorFlow version (major.minor), by default the newest."""
    found = tables.read(_PATH, version)
    return EdgeTable(*found, opdefs.get if version is None else partial(opdefs.get, version=version))


def versions() -> list[str]:
    """The TensorFlow versions (major.minor) that there is a table of, the oldest first."""
    return tables.versions(_PATH)


def told(op: str, version: str) -> list[str]:
    """What the gradient of each input of an op depends on, in words: values, with what their own derivative is."""
    signature = opdefs.get(op, version)
    if signature is None or version not in versions():
        return []
    outputs = [output.name for output in signature.outputs]
    sources = [*(argument.name for argument in signature.inputs), *outputs]
    found = []
    for case in table(version).cases(op):
        for argument, fact in zip(signature.inputs, case.edges or (), strict=True):
            letters, _, missing = (fact or "").partition(" ")
            values = [f"{source}{_WORDS[c]}" for source, c in zip(sources, letters, strict=False) if c != "."]
            how = " and raises" if set(letters) & set("FZr") else ""
            ended = [f"its cotangents by {missing}, which has no gradient{how}"] if missing else []
            if values or ended:
                found.append(f"the gradient of {argument.name} depends on {' and '.join(values + ended)}")
    return list(dict.fromkeys(found))


def derivatives(node: Node) -> Derivatives:
    """What the gradients of a node's inputs are computed from."""
    derived = node.kind.derived
    key = (derivatives, node.function.program.tensorflow, len(node.inputs))
    known: Derivatives | None = derived.get(key)
    if known is None:
        known = derived[key] = _derivatives(node)
    return known


def _derivatives(node: Node) -> Derivatives:
    facts = table(tables.fitting(_PATH, node.function.program.tensorflow)).edges(node.op, node.attr)
    if facts is None:
        raise TargetError(
            f"nothing is known of the second derivative of {node.op} (`{node.name}`); leave --order 2 out"
        )
    signature = opdefs.get(node.op)
    assert signature is not None
    inputs = [count for _, count in opdefs.arity(signature.inputs, node.attr)]
    outputs = [count for _, count in opdefs.arity(signature.outputs, node.attr)]
    groups: tuple[tuple[Source, list[int]], ...] = (("input", inputs), ("output", outputs), ("cotangent", outputs))
    sources: list[tuple[Source, int, int]] = []  # where it is, its first flat place, how many
    for source, counts in groups:
        sources += [(source, start, count) for start, count in zip(accumulate([0, *counts]), counts, strict=False)]
    flat: list[Derivative | None] = []
    for fact, count in zip(facts, inputs, strict=True):
        for place in range(count):
            flat.append(None if fact is None else _derivative(fact, place, sources))
    return tuple(flat)


def _derivative(fact: str, place: int, sources: list[tuple[Source, int, int]]) -> Derivative:
    letters, _, missing = fact.partition(" ")
    reads = []
    for letter, (source, start, count) in zip(letters, sources, strict=True):
        for k in range(count):
            same = k == place
            plain = "f" if (letter == "d" and same) or (letter == "o" and not same) else letter
            if plain not in ".do":
                reads.append(Read(source, start + k, _PLAIN.get(plain), plain in "FZr", plain == "n"))
    return Derivative(tuple(reads), missing)
