"""The table of what decides shapes: a new probe finds the same."""

from __future__ import annotations

import pytest

from gradpass.flow import shapes
from gradpass.program import tables
from tests.flow.test_edges import INSTALLED, SCRIPTS

ROWS = tables.newest(shapes.PATH)
PROBED = ("Fill", "MatMul", "NonMaxSuppressionV3", "Range", "Reshape", "Slice", "TopKV2", "Unique", "Where")


@pytest.mark.skipif(ROWS.version != INSTALLED, reason=f"the table is of TensorFlow {ROWS.version}")
def test_a_new_probe_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from probe_ops import registered_ops
    from probe_shapes import shape_row

    found = {op.name: shape_row(op) for op in registered_ops() if op.name in PROBED}
    assert found == {op: ROWS.rows.get(op, {}) for op in PROBED}
