"""The gradient edge tables of all TensorFlow versions: which one is used, and in what they differ."""

from __future__ import annotations

from typing import Any

import pytest

from gradpass.errors import GradpassError
from gradpass.flow import edges
from gradpass.program import opdefs
from tests.flow.test_edges import TABLE, attrs


def test_a_version_without_a_table() -> None:
    with pytest.raises(GradpassError, match=r"1\.2; choose one of .*2\.18"):
        edges.table("1.2")


def test_the_default_is_the_newest() -> None:
    assert edges.table() is edges.table(edges.versions()[-1])
    assert edges.versions() == sorted(edges.versions(), key=lambda v: [int(n) for n in v.split(".")])
    assert [edges.table(v).version for v in edges.versions()] == edges.versions() == opdefs.versions()


@pytest.mark.parametrize("written, used", [("2.18.0", "2.18"), ("2.19.1-rc2", "2.19"), ("1.15.5", None), ("", None)])
def test_the_table_of_the_writer(written: str, used: str | None) -> None:
    assert edges.table_for(written) is edges.table(used)


def test_what_changed_in_2_19() -> None:
    """Reductions over axes in int64 began to raise where anything is unknown, and Prod ceased to raise always."""
    reductions = {"EuclideanNorm", "Max", "Min", "Sum"}
    assert set(edges.changes("2.18", "2.19")) == reductions | {"Prod"}
    long = attrs(Tidx="DT_INT64")
    for op in reductions:
        assert (edges.table("2.18").needs(op, long), edges.table("2.19").needs(op, long)) == (None, "values")
    assert (edges.table("2.18").raises("Prod", long) or "").startswith("TypeError")
    assert edges.table("2.19").raises("Prod", long) is None
    assert edges.changes("2.19", "2.21") == []


AXES: list[tuple[Any, bool]] = [([2, 3], True), ([2, 3], False), ([None, 3], True), (None, True)]


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("op", ["EuclideanNorm", "Max", "Mean", "Prod", "Sum"])
def test_reductions_live(op: str, dtype: str) -> None:
    """Where the table says "values", it raises unless all sizes and the axis are known."""
    tf = pytest.importorskip("tensorflow")
    attr = attrs(Tidx=f"DT_{dtype.upper()}")
    for shape, constant in AXES:
        with tf.Graph().as_default():
            x = tf.compat.v1.placeholder(tf.float32, shape)
            axis = tf.constant([1], dtype) if constant else tf.compat.v1.placeholder(dtype, [1])
            y = getattr(tf.raw_ops, op)(input=x, axis=axis)
            known = constant and shape == [2, 3]
            if TABLE.raises(op, attr) or (TABLE.needs(op, attr) == "values" and not known):
                with pytest.raises(TypeError):
                    tf.gradients(y, x)
            else:
                assert tf.gradients(y, x) != [None]


def test_indices_in_int64_live() -> None:
    tf = pytest.importorskip("tensorflow")
    assert TABLE.raises("TopKV2", attrs(index_type="DT_INT32")) is None
    assert (TABLE.raises("TopKV2", attrs(index_type="DT_INT64")) or "").startswith("TypeError")
    assert (TABLE.raises("ConcatV2", attrs(Tidx="DT_INT64")) or "").startswith("TypeError")
    with tf.Graph().as_default():
        x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
        with pytest.raises(TypeError):
            tf.gradients(tf.raw_ops.TopKV2(input=x, k=2, index_type=tf.int64)[0], x)
        with pytest.raises(TypeError):
            tf.gradients(tf.raw_ops.ConcatV2(values=[x, x], axis=tf.constant(1, tf.int64)), x)
