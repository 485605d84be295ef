"""Values that differ only where TensorFlow's optimizer rewrites the graphs: looked at once more without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from gradpass.crosscheck import crosscheck, run
from gradpass.crosscheck.check import Check
from tests.pruning.programs import saved


def optimizer_is_off() -> bool:
    return bool(tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer"))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose values are told to differ as long as the optimizer is on, but for two loads of the original."""
    compare = run.compare_values

    def compared(name: str, *arguments: Any) -> Check:
        found = compare(name, *arguments)
        apart = bool(name) and not optimizer_is_off()
        return Check(name, "failed", 3.0, 0.0, "elements with other bytes: y in 3 of 9") if apart else found

    monkeypatch.setattr(run, "compare_values", compared)
    # What two loads of the original are asked, which is asked before, is not what this is about.
    monkeypatch.setattr(run._Pair, "_varies", lambda self: False)
    return saved(lambda m, x: {"y": x @ m.a}, tmp_path / "m")


def values(model: Path, graphs: bool) -> Check:
    rows = crosscheck(model, model, entries=["serving_default"], promised={}, mode="straight-through", graphs=graphs)
    (row,) = [row for row in rows if row.name == "values"]
    return row


def test_they_fail_where_that_is_not_enough(model: Path) -> None:
    assert values(model, graphs=False).status == "failed"


def test_they_pass_with_the_reason_where_it_is(model: Path) -> None:
    row = values(model, graphs=True)
    assert row.status == "passed" and row.figure == 3.0
    assert row.reason is not None and "as they are written both give the same bits" in row.reason
    assert not optimizer_is_off()


def test_a_difference_in_the_graphs_is_one_without_the_optimizer_too(model: Path, tmp_path: Path) -> None:
    other = saved(lambda m, x: {"y": x @ m.b}, tmp_path / "other")
    rows = crosscheck(model, other, entries=["serving_default"], promised={}, mode="straight-through", graphs=True)
    assert rows[0].name == "values" and rows[0].status == "failed"
    assert not optimizer_is_off()
