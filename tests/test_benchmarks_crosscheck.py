"""The benchmark of the cross-check tells what it measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.crosscheck import Agreement, Cost, agreement_table, check_table, cost_table
from benchmarks.hands import counts, table
from gradpass.rules.base import rules


def cells(table: object) -> list[list[object]]:
    return [list(column.cells) for column in table.columns]  # type: ignore[attr-defined]


def test_tables() -> None:
    cost = Cost("net", 10.0, 25.0, 2.5, 900.0, 1100.0, {"values": ("passed", 1.5), "worth": ("skipped", 0.0)})
    assert cells(cost_table([cost])) == [["net"], ["10.0"], ["25.0"], ["2.50"], ["900, 1,100"]]
    assert cells(check_table([cost])) == [["values", "worth"], ["passed, 1.5 s", "skipped, 0.0 s"]]
    agreed = Agreement("net", 7, [3e-6, 2e-3, 9e-6], [1e-6, 1e-6, 2e-6])
    assert cells(agreement_table([agreed])) == [["net"], ["7"], ["3.0e-06"], ["2 of 3"], ["1.0e-06"]]


def test_all_hands_on_one_rule(tmp_path: Path) -> None:
    found = counts("soft-round", "bridge", tmp_path)
    assert found.examples == len(next(rule for rule in rules() if rule.name == "soft-round").hits)
    assert found.failures == [] and found.ended["derivative"]["passed"] == found.examples
    assert sum(found.ended["worth"].values()) == found.examples
    assert cells(table(found))[0] == list(found.ended)
