"""The benchmark of the cross-check tells what it measured."""

from __future__ import annotations

from benchmarks.crosscheck import Agreement, Cost, agreement_table, check_table, cost_table


def cells(table: object) -> list[list[object]]:
    return [list(column.cells) for column in table.columns]  # type: ignore[attr-defined]


def test_tables() -> None:
    cost = Cost("net", 10.0, 25.0, 2.5, 900.0, 1100.0, {"values": ("passed", 1.5), "worth": ("skipped", 0.0)})
    assert cells(cost_table([cost])) == [["net"], ["10.0"], ["25.0"], ["2.50"], ["900, 1,100"]]
    assert cells(check_table([cost])) == [["values", "worth"], ["passed, 1.5 s", "skipped, 0.0 s"]]
    agreed = Agreement("net", 7, [3e-6, 2e-3, 9e-6], [1e-6, 1e-6, 2e-6])
    assert cells(agreement_table([agreed])) == [["net"], ["7"], ["3.0e-06"], ["2 of 3"], ["1.0e-06"]]
