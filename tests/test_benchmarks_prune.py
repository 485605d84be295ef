"""The benchmark of pruning sees a difference of one bit, and measures both models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gradpass as gp
from benchmarks.prune import Pair, Row, compared, table
from tests.pruning.models import MODELS
from tests.pruning.oracles import SUFFIX
from tests.pruning.test_oracles import Values, tamper


def test_compared(tmp_path: Path) -> None:
    path = tmp_path / "model"
    MODELS["method_that_is_no_signature"](path)
    pruned = Path(str(gp.prune(path, cross_check=False).output))
    loads, forwards, same = compared([str(path), str(pruned)], 2, 1)
    assert same
    assert [len(taken) for taken in (*loads, *forwards)] == [2] * 4
    assert min(map(min, (*loads, *forwards))) > 0

    def flip(held: Values) -> None:
        held[f"served{SUFFIX}"].view(np.int32)[0, 0] ^= 1 << 20

    tamper(pruned, flip)
    assert not compared([str(path), str(pruned)], 1, 1)[2]


def test_table() -> None:
    pair = Pair(2, 1)
    row = Row("model", pair, pair, pair, pair, pair, 1.0, pair, 3.0, 4.0, same=False)
    cells = [list(column.cells) for column in table([row]).columns]
    assert cells[0] == ["model"] and cells[1] == ["2.0 → 1.0"] and cells[-1] == ["differ"]
