"""The forward cost of the carriers, by counting: the graph that TensorFlow runs with a bridge is the original's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

import gradpass as gp
from benchmarks import carriers


@pytest.mark.parametrize("name", carriers.SMALL)
def test_a_bridge_costs_no_node(name: str, tmp_path: Path) -> None:
    inputs = {key: tf.constant(value) for key, value in carriers.make(name, tmp_path / "m").items()}
    counted: dict[str, Counter[str]] = {}
    for carrier, options in {"original": None, **carriers.CARRIERS}.items():
        path = tmp_path / ("m" if options is None else carrier)
        if options is not None:
            gp.fix(tmp_path / "m", path, cross_check=False, **options)
        loaded = tf.saved_model.load(str(path))
        counted[carrier] = carriers.nodes(loaded.signatures["serving_default"], inputs)
    assert counted["original"].total() > 5
    assert counted["bridge"] == counted["original"]
    assert counted["sum"].total() > counted["original"].total()


def test_rows_of_a_small_model(tmp_path: Path) -> None:
    rows = carriers.costs("rounding", tmp_path, 2, 2, lambda _: None)
    assert [row.carrier for row in rows] == ["original", *carriers.CARRIERS]
    assert rows[0].ratio == 1.0 and all(row.milliseconds > 0 for row in rows)
