"""Tells what an op's gradient function gives each input: nothing, zeros, or a gradient of which outputs.

`edges.json` is probed from TensorFlow's gradient registry by `scripts/probe_edges.py`; what differs in older versions
stands in `edges-2.18.json` and the like. An input argument's entry is None (the function returns None for it) or a
string with one character an output argument: `f` the gradient depends on the cotangent of that output, `0` it is a
tensor that does not, `d` as `f` between two lists of equal length of which element i belongs to element i only
(IdentityN). An op that the table does not have has no gradient registered: asking raises LookupError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tensorboard.compat.proto.types_pb2 import DataType

from gradpass.program import opdefs, tables
from gradpass.program.opdefs import OpSig

AttrOf = Callable[[str], Any]  # the AttrValue of that name, or None
Edges = tuple[str | None, ...]  # by input argument, in the order of the op's signature
Kind = Literal["function", "not-differentiable", "call"]
# "sizes": it raises where no size is known; "batch": also where only the first one is not; "wide" and "near-square":
# also for matrices with more rows than columns, or with more than one row more or less; "values": it raises unless all
# sizes are known and all integer inputs are constants.
Need = Literal["rank", "sizes", "batch", "wide", "near-square", "values"]
_PATH = Path(__file__).with_name("edges.json")


class Case(NamedTuple):
    """What holds where every attribute of `when` has one of the values given.

    `raises` is what the function raises; `edges` are None then, unless it answers under TensorFlow 1's control flow.
    """

    when: dict[str, frozenset[Any]]
    edges: Edges | None
    raises: str | None
    needs: Need | None

    def applies(self, signature: OpSig, attr: AttrOf) -> bool:
        """Whether a node with these attributes is of this case."""
        return all(_value(signature, attr, name) in allowed for name, allowed in self.when.items())


class EdgeTable:
    """The facts of one TensorFlow version (`version`, major.minor)."""

    def __init__(self, version: str, rows: dict[str, dict[str, Any]], signature: Callable[[str], OpSig | None]) -> None:
        self.version = version
        self._rows = rows
        self._signature = signature
        self._simple: dict[str, Edges] = {}
        self._cases: dict[str, list[Case]] = {}

    def kind(self, op: str) -> Kind | None:
        """How TensorFlow differentiates the op; None where no gradient is registered (asking raises LookupError)."""
        return self.row(op).get("kind")

    def edges(self, op: str, attr: AttrOf) -> Edges | None:
        """What each input argument gets; None where there is no gradient function or it raises.

        TensorArrays (TF1) have edges and `raises` both: TensorFlow 2 raises where TensorFlow 1 follows these edges.
        """
        simple = self._simple.get(op)
        if simple is not None:
            return simple
        case = self._case(op, attr)
        return case.edges if case else None

    def raises(self, op: str, attr: AttrOf) -> str | None:
        """What a registered gradient function raises whatever it is given ("LookupError: ..."), None if it does not."""
        case = self._case(op, attr)
        return case.raises if case else None

    def needs(self, op: str, attr: AttrOf) -> Need | None:
        """What must be known statically of the inputs lest the function raises."""
        case = self._case(op, attr)
        return case.needs if case else None

    def how(self, op: str) -> str | None:
        """How the row was obtained: the probed nodes, or the reason of an entry written by hand."""
        return self.row(op).get("how")

    def names(self) -> list[str]:
        """All ops of the table, in alphabetic order."""
        return list(self._rows)

    def row(self, op: str) -> dict[str, Any]:
        """The row as it stands in the file; empty for an op without one."""
        return self._rows.get(op, {})

    def cases(self, op: str) -> list[Case]:
        """All cases of an op, of which the first that applies holds; empty unless its kind is "function"."""
        cases = self._cases.get(op)
        if cases is None:
            signature = self._signature(op)
            cases = [_case(signature, case) for case in self.row(op).get("cases", ())] if signature else []
            self._cases[op] = cases
            if len(cases) == 1 and not cases[0].when and cases[0].edges is not None:
                self._simple[op] = cases[0].edges
        return cases

    def _case(self, op: str, attr: AttrOf) -> Case | None:
        cases = self.cases(op)
        if not cases:
            return None
        signature = self._signature(op)
        assert signature is not None
        return next((case for case in cases if case.applies(signature, attr)), None)


def versions() -> list[str]:
    """The TensorFlow versions (major.minor) that there is a table of, the oldest first."""
    return tables.versions(_PATH)


@cache
def table(version: str | None = None) -> EdgeTable:
    """The edge table of a TensorFlow version (major.minor), by default the newest; GradpassError if there is none."""
    found = tables.read(_PATH, version)
    if version is None:
        return EdgeTable(*found, opdefs.get)
    if found.version == table().version:
        return table()
    return EdgeTable(*found, partial(opdefs.get, version=version))


@cache
def table_for(written_by: str) -> EdgeTable:
    """The table of the TensorFlow that wrote a SavedModel ("2.18.1"), or the newest where there is none of that one."""
    return table(tables.fitting(_PATH, written_by))


def changes(old: str, new: str) -> list[str]:
    """The ops whose gradients differ between two versions, or that only one of them has a gradient for."""
    before, after = table(old), table(new)
    return sorted(op for op in {*before.names(), *after.names()} if _facts(before, op) != _facts(after, op))


def _facts(of: EdgeTable, op: str) -> dict[str, Any]:
    return {name: value for name, value in of.row(op).items() if name != "how"}


def _case(signature: OpSig, row: dict[str, Any]) -> Case:
    when = {name: frozenset(values) for name, values in row.get("when", {}).items()}
    facts = row.get("edges")
    edges = None if facts is None else tuple(facts[arg.name] for arg in signature.inputs)
    return Case(when, edges, row.get("raises"), row.get("needs"))


def _value(signature: OpSig, attr: AttrOf, name: str) -> Any:
    """An attribute as edges.json writes it: a DataType's name, a text, an integer or a bool; None if missing."""
    value = attr(name)
    if value is None:
        value = signature.default(name)
        if value is None:
            return None
    field = value.WhichOneof("value")
    if field == "type":
        return DataType.Name(value.type)
    return value.s.decode("latin-1") if field == "s" else getattr(value, field)
