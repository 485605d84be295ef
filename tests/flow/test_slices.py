"""Gradients that are slices: the table, and what its conditions mean. Programs with them are in programs/slices.py."""

from __future__ import annotations

from typing import Any

import pytest

from gradpass.flow import slices
from gradpass.flow.slices import Condition, unreduced
from gradpass.program import tables
from tests.flow.test_edges import INSTALLED, SCRIPTS

PROBED = ("AddV2", "ConcatV2", "GatherNd", "GatherV2", "IdentityN", "Mul", "RGBToHSV", "SparseSegmentSum", "Svd")


@pytest.mark.parametrize("version", tables.versions(slices.PATH))
def test_the_row_of_each_version(version: str) -> None:
    rows = slices.table(version)
    assert rows["GatherV2"].makes == {"params": Condition("zero", "axis")}
    assert rows["GatherNd"] == slices.Row({"params": Condition("column", "indices")}, {}, {}, True, "indices")
    assert rows["AddV2"].hands == {"x": Condition("unreduced"), "y": Condition("unreduced")}
    assert rows["ConcatV2"].resets and not rows["AddV2"].resets
    assert rows["SparseSegmentSum"].makes == {"data": Condition("set", "sparse_gradient")}
    assert set(rows["Svd"].raises) == {"u", "v"}
    assert "Mul" not in rows


@pytest.mark.skipif(INSTALLED not in tables.versions(slices.PATH), reason="another TensorFlow is installed, or none")
def test_a_new_probe_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from probe_slices import slices_rows

    found = slices_rows(only=frozenset(PROBED))
    rows = tables.read(slices.PATH, INSTALLED).rows
    assert found == {op: rows[op] for op in PROBED if op in rows}


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        ((4, 3), (4, 3), True),
        ((4, 3), (), True),
        ((4, 3), (3,), True),
        ((4, 3), (1, 3), True),
        ((1, 3), (4, 3), False),
        ((3,), (4, 3), False),
        ((3,), (1, 3), False),
        ((None, 3), (4, 3), False),  # it may be 1
        ((None, 3), (1, 3), True),
        ((None, 3), (3,), True),
        ((None, 3), (None, 3), False),
        ((1, None), (4, None), False),
        (None, (4, 3), False),
        ((4, 3), None, False),
    ],
)
def test_what_is_stretched(mine: Any, other: Any, expected: bool) -> None:
    assert unreduced(mine, other) is expected


@pytest.mark.parametrize("mine", [(4, 3), (1, 3), (3,), (None, 3), ()])
@pytest.mark.parametrize("other", [(4, 3), (1, 3), (3,), (1,), (None, 3), (4, None)])
def test_tensorflow_looks_as_far(mine: Any, other: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    with tf.Graph().as_default():
        x, y = tf.compat.v1.placeholder(tf.float32, mine), tf.compat.v1.placeholder(tf.float32, other)
        z = x + y
        values = tf.compat.v1.placeholder(tf.float32, [None, *z.shape[1:]])
        rows = tf.IndexedSlices(values, tf.range(tf.shape(values)[0]), tf.shape(z))
        (gradient,) = tf.gradients(z, [x], [rows])
    assert isinstance(gradient, tf.IndexedSlices) is unreduced(mine, other)
