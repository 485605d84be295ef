"""The gradient edge table says what TensorFlow does: fixed facts, a new probe of some ops, and tf.gradients itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.types_pb2 import DataType

from gradpass.flow import edges
from gradpass.program import opdefs

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
INSTALLED = ".".join(metadata.version("tensorflow").split(".")[:2])
TABLE = edges.table(INSTALLED)
Table = edges.EdgeTable


@pytest.fixture(params=edges.versions())
def table(request: pytest.FixtureRequest) -> Table:
    return edges.table(request.param)


def attrs(**values: Any) -> Callable[[str], Any]:
    """An attribute look-up: dtypes as DT_ names, bools and texts."""
    made = {}
    for name, value in values.items():
        if isinstance(value, bool):
            made[name] = AttrValue(b=value)
        elif value.startswith("DT_"):
            made[name] = AttrValue(type=DataType.Value(value))
        else:
            made[name] = AttrValue(s=value.encode())
    return made.get


@pytest.mark.parametrize(
    "op, expected",
    [
        ("ArgMax", (None, None)),
        ("Round", (None,)),
        ("Rint", (None,)),
        ("Floor", (None,)),
        ("Ceil", (None,)),
        ("FloorDiv", (None, None)),
        ("Sign", ("0",)),
        ("Gather", ("f", None)),
        ("GatherV2", ("f", None, None)),
        ("ResourceGather", ("f", None)),
        ("ReadVariableOp", ("f",)),
        ("Select", (None, "f", "f")),
        ("SelectV2", (None, "f", "f")),
        ("Reshape", ("f", None)),
        ("MatMul", ("f", "f")),
        ("AddV2", ("f", "f")),
        ("BiasAdd", ("f", "f")),
        ("Conv2D", ("f", "f")),
        ("ConcatV2", ("f", None)),
        ("Pack", ("f",)),
        ("Unpack", ("f",)),
        ("Split", (None, "f")),
        ("SplitV", ("f", None, None)),
        ("StridedSlice", ("f", None, None, None)),
        ("IdentityN", ("d",)),
        ("TopKV2", ("f0", "00")),
        ("FusedBatchNormV3", ("f00000", "f00000", "f00000", None, None)),
        ("TensorListFromTensor", ("f", None)),
        ("TensorListStack", ("f", None)),
        ("TensorListGetItem", ("f", None, None)),
        ("TensorListSetItem", ("f", None, "f")),
        ("TensorArrayReadV3", (None, None, "f")),
        ("TensorArrayWriteV3", (None, None, "f", "f")),
        ("SparseTensorDenseMatMul", (None, "f", None, "f")),
    ],
)
def test_facts(table: Table, op: str, expected: tuple[str | None, ...]) -> None:
    assert table.kind(op) == "function"
    assert table.edges(op, attrs(T="DT_FLOAT")) == expected
    assert table.edges(op, attrs(T="DT_FLOAT")) == expected  # the second look-up takes another way


@pytest.mark.parametrize(
    "source, target, expected",
    [
        ("DT_FLOAT", "DT_HALF", ("f",)),
        ("DT_BFLOAT16", "DT_DOUBLE", ("f",)),
        ("DT_COMPLEX64", "DT_FLOAT", ("f",)),
        ("DT_FLOAT", "DT_INT32", (None,)),
        ("DT_INT32", "DT_FLOAT", (None,)),
        ("DT_BOOL", "DT_FLOAT", (None,)),
        ("DT_FLOAT", "DT_FLOAT8_E5M2", (None,)),
    ],
)
def test_cast_flows_between_floats_only(table: Table, source: str, target: str, expected: tuple[str | None]) -> None:
    assert table.edges("Cast", attrs(SrcT=source, DstT=target)) == expected


def test_attributes_that_decide(table: Table) -> None:
    assert table.edges("ResizeBicubic", attrs(T="DT_FLOAT")) == ("f", None)
    assert table.edges("ResizeBicubic", attrs(T="DT_HALF")) == (None, None)
    assert table.edges("Svd", attrs(T="DT_FLOAT", compute_uv=False)) == ("f00",)
    # Left out, the attribute has its default, and this default is True.
    assert table.edges("Svd", attrs(T="DT_FLOAT")) == ("fff",)


def test_functions_that_raise(table: Table) -> None:
    assert table.edges("CudnnRNN", attrs(is_training=False)) is None
    assert "is_training must be set" in (table.raises("CudnnRNN", attrs(is_training=False)) or "")
    assert table.raises("CudnnRNN", attrs()) is None
    assert (table.raises("PreventGradient", attrs()) or "").startswith("LookupError")
    assert (table.raises("TensorArrayReadV3", attrs()) or "").startswith("AssertionError")
    assert table.raises("AddV2", attrs()) is None


def test_kinds(table: Table) -> None:
    assert table.kind("StopGradient") == "not-differentiable"
    assert table.edges("StopGradient", attrs()) is None
    assert table.kind("StatefulPartitionedCall") == table.kind("While") == table.kind("If") == "call"
    for missing in ("AdjustHue", "AdjustContrastv2", "Bincount", "no such op"):
        assert table.kind(missing) is None
        assert table.edges(missing, attrs()) is None
        assert table.raises(missing, attrs()) is None


def test_what_must_be_known_statically(table: Table) -> None:
    assert table.needs("Qr", attrs(T="DT_FLOAT")) == "sizes"
    assert table.needs("ExtractImagePatches", attrs(T="DT_FLOAT")) == "rank"
    assert table.needs("MatMul", attrs(T="DT_FLOAT")) is None
    assert table.needs("Mean", attrs(Tidx="DT_INT64")) == "values"
    assert table.needs("Mean", attrs(Tidx="DT_INT32")) is None


def test_every_row_reads(table: Table) -> None:
    for op in table.names():
        signature = opdefs.get(op, table.version)
        assert signature is not None
        if table.kind(op) != "function":
            continue
        assert table.how(op)
        rows = [case.edges for case in table.cases(op)]
        assert rows
        assert not table.cases(op)[-1].when
        for row in rows:
            assert row is None or len(row) == len(signature.inputs)
            for fact in row or ():
                assert fact is None or (len(fact) == len(signature.outputs) and set(fact) <= set("f0d"))


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow")


@pytest.fixture
def scripts() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


PROBED = (
    "Abs", "ArgMax", "AvgPool", "BiasAdd", "Cast", "ConcatV2", "Conv2D", "Cumsum", "Einsum", "Exit", "GatherV2",
    "FusedBatchNormV3", "IdentityN", "MatMul", "PreventGradient", "Qr", "ReadVariableOp", "ResizeBicubic", "Reshape",
    "Prod", "Round", "SelectV2", "Sign", "SplitV", "StopGradient", "StridedSlice", "Sum", "TensorArrayReadV3",
    "TensorListGetItem", "While",
)  # fmt: skip


@pytest.mark.usefixtures("tf", "scripts")
def test_a_new_probe_finds_the_same() -> None:
    from probe_edges import edge_rows

    rows = edge_rows(frozenset(PROBED) | {"AdjustHue"})
    assert sorted(rows) == sorted(PROBED)
    assert rows == {op: TABLE.row(op) for op in PROBED}


def test_the_table_has_what_the_registry_has(tf: Any) -> None:
    from tensorflow.python.framework import ops

    for op in opdefs.names(INSTALLED):
        try:
            function = ops.gradient_registry.lookup(op)
        except LookupError:
            assert TABLE.kind(op) in (None, "call"), op
            continue
        assert TABLE.kind(op) in (("not-differentiable",) if function is None else ("function", "call")), op


X = np.array([[0.3, -1.2, 0.8], [1.7, 0.4, -0.6]], np.float32)
Y = np.array([[1.1, 0.7, -0.2], [0.9, -0.5, 1.3]], np.float32)
IMAGE = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 4, 4, 2)
SQUARE = np.array([[2.0, 0.3], [0.1, 1.5]], np.float32)
ONES = np.ones(2, np.float32)
LIVE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Abs", {"x": X}, {}),
    ("AddV2", {"x": X, "y": Y}, {}),
    ("ArgMax", {"input": X, "dimension": 1}, {}),
    ("AvgPool", {"value": IMAGE}, {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "SAME"}),
    ("BatchMatMulV2", {"x": X[None], "y": np.ascontiguousarray(Y.T)[None]}, {}),
    ("BiasAdd", {"value": X, "bias": Y[0]}, {}),
    ("Cast", {"x": X}, {"DstT": "float64"}),
    ("Cast", {"x": X}, {"DstT": "int32"}),
    ("Ceil", {"x": X}, {}),
    ("ClipByValue", {"t": X, "clip_value_min": np.float32(-1), "clip_value_max": np.float32(1)}, {}),
    ("ConcatV2", {"values": [X, Y, X], "axis": 0}, {}),
    ("Conv2D", {"input": IMAGE, "filter": IMAGE[0, :2, :2, :, None] + 0.1}, {"strides": [1] * 4, "padding": "SAME"}),
    ("Cumsum", {"x": X, "axis": 1}, {}),
    ("DynamicStitch", {"indices": [np.array([0, 2], np.int32), np.array([1, 3], np.int32)], "data": [X, Y]}, {}),
    ("FloorDiv", {"x": X, "y": Y}, {}),
    ("FloorMod", {"x": X, "y": Y}, {}),
    ("FusedBatchNormV3",
     {"x": IMAGE, "scale": ONES, "offset": ONES, "mean": ONES, "variance": ONES}, {"is_training": False}),
    ("GatherNd", {"params": X, "indices": np.array([[1, 2], [0, 0]])}, {}),
    ("GatherV2", {"params": X, "indices": np.array([1, 0, 1]), "axis": 0}, {}),
    ("IdentityN", {"input": [X, Y]}, {}),
    ("LeakyReluGrad", {"gradients": X, "features": Y}, {}),
    ("MatMul", {"a": X, "b": np.ascontiguousarray(Y.T)}, {}),
    ("Maximum", {"x": X, "y": Y}, {}),
    ("MaxPoolWithArgmax", {"input": IMAGE}, {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "SAME"}),
    ("OneHot", {"indices": np.array([1, 0]), "depth": 3, "on_value": np.float32(1), "off_value": np.float32(0)}, {}),
    ("Pack", {"values": [X, Y]}, {}),
    ("PadV2", {"input": X, "paddings": np.ones((2, 2), np.int32), "constant_values": np.float32(2)}, {}),
    ("Qr", {"input": SQUARE}, {}),
    ("Reshape", {"tensor": X, "shape": np.array([3, 2])}, {}),
    ("ResizeBilinear", {"images": IMAGE, "size": np.array([2, 2], np.int32)}, {}),
    ("Round", {"x": X}, {}),
    ("SelectV2", {"condition": X > 0, "t": X, "e": Y}, {}),
    ("SelfAdjointEigV2", {"input": SQUARE}, {"compute_v": True}),
    ("Sign", {"x": X}, {}),
    ("SparseToDense",
     {"sparse_indices": np.array([[0], [2]]), "output_shape": np.array([4]), "sparse_values": Y[0, :2],
      "default_value": X[0, 0]}, {}),
    ("Split", {"axis": 1, "value": X}, {"num_split": 3}),
    ("SplitV", {"value": X, "size_splits": np.array([1, 2]), "axis": 1}, {"num_split": 2}),
    ("StridedSlice", {"input": X, "begin": np.array([0, 0]), "end": np.array([1, 2]), "strides": np.array([1, 1])}, {}),
    ("Sum", {"input": X, "axis": np.array([1])}, {}),
    ("Svd", {"input": SQUARE}, {}),
    ("TensorScatterUpdate", {"tensor": X, "indices": np.array([[1]]), "updates": Y[:1]}, {}),
    ("TopKV2", {"input": X, "k": 2}, {}),
    ("Unpack", {"value": X}, {"num": 2}),
    ("UnsortedSegmentSum", {"data": X, "segment_ids": np.array([1, 0]), "num_segments": 2}, {}),
]  # fmt: skip


@pytest.mark.parametrize("op, inputs, given", LIVE, ids=[f"{op}-{i}" for i, (op, _, _) in enumerate(LIVE)])
def test_tf_gradients_says_the_same(tf: Any, op: str, inputs: dict[str, Any], given: dict[str, Any]) -> None:
    """An input's gradient is None, does not change with an output's cotangent (`0`), or does (`f`, `d`)."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        lists = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
        # Placeholders, since constants could be folded away before they are run.
        fed = {name: [_tensor(tf, v) for v in values] for name, values in lists.items()}
        arguments = {name: fed[name] if isinstance(value, list) else fed[name][0] for name, value in inputs.items()}
        result = getattr(tf.raw_ops, op)(**arguments, **given)
        node = tf.nest.flatten(result)[0].op
        if TABLE.kind(op) == "not-differentiable" or TABLE.kind(op) is None:
            expected: tuple[str | None, ...] = (None,) * len(inputs)
        else:
            found = TABLE.edges(op, lambda name: node.node_def.attr[name])
            assert found is not None
            expected = found
        xs = [x for values in fed.values() for x in values]
        ys = [y for y in node.outputs if y.dtype.is_floating]
        if not ys:
            assert set(expected) == {None}
            return
        seeds = [tf.compat.v1.placeholder(y.dtype, y.shape) for y in ys]
        gradients = tf.nest.flatten(tf.gradients(ys, xs, grad_ys=seeds), expand_composites=False)
        values = [np.asarray(rng.normal(size=session.run(y).shape)) for y in ys]
        base = dict(zip(seeds, values, strict=True))
        changes = [""] * len(gradients)
        for seed in seeds:
            changed = {**base, seed: base[seed] * -2.5 + 0.3}
            for i, g in enumerate(gradients):
                if g is not None:
                    tensor = tf.convert_to_tensor(g)
                    same = np.array_equal(session.run(tensor, base), session.run(tensor, changed))
                    changes[i] += "0" if same else "f"
        live = [None if g is None else letters for g, letters in zip(gradients, changes, strict=True)]
        assert live == _flat(op, node, expected)


def _letter(fact: str, same_place: bool) -> str:
    return ("f" if same_place else "0") if fact == "d" else fact


def _tensor(tf: Any, value: Any) -> Any:
    constant = tf.constant(value)
    return tf.compat.v1.placeholder_with_default(constant, constant.shape) if constant.dtype.is_floating else constant


def _flat(op: str, node: Any, expected: tuple[str | None, ...]) -> list[str | None]:
    """The table's facts, by flat input and by flat float output."""
    signature = opdefs.get(op)
    assert signature is not None

    def attr(name: str) -> Any:
        return node.node_def.attr[name]

    outputs = [i for i, (_, n) in enumerate(opdefs.arity(signature.outputs, attr)) for _ in range(n)]
    places = [k for _, n in opdefs.arity(signature.outputs, attr) for k in range(n)]
    floats = [i for i, y in enumerate(node.outputs) if y.dtype.is_floating]
    flat: list[str | None] = []
    for (_, count), fact in zip(opdefs.arity(signature.inputs, attr), expected, strict=True):
        for place in range(count):
            if fact is None:
                flat.append(None)
            else:
                flat.append("".join(_letter(fact[outputs[p]], places[p] == place) for p in floats))
    return flat


def test_tensor_lists_and_variables_live(tf: Any) -> None:
    with tf.Graph().as_default():
        x = tf.constant(X)
        handle = tf.raw_ops.TensorListFromTensor(tensor=x, element_shape=[3])
        handle = tf.raw_ops.TensorListSetItem(input_handle=handle, index=0, item=tf.constant(Y[0]) * x[0])
        item = tf.raw_ops.TensorListGetItem(input_handle=handle, index=1, element_shape=[3], element_dtype=tf.float32)
        all_items = tf.raw_ops.TensorListStack(input_handle=handle, element_shape=[3], element_dtype=tf.float32)
        assert None not in tf.gradients([item, all_items], [x])
        variable = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[2, 3])
        read = tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.float32)
        rows = tf.raw_ops.ResourceGather(resource=variable, indices=[0], dtype=tf.float32)
        assert None not in tf.gradients([read], [variable]) + tf.gradients([rows], [variable])


def test_raising_live(tf: Any) -> None:
    with tf.Graph().as_default():
        x = tf.constant(X)
        array, flow = tf.raw_ops.TensorArrayV3(size=2, dtype=tf.float32)
        flow = tf.raw_ops.TensorArrayWriteV3(handle=array, index=0, value=x, flow_in=flow)
        y = tf.raw_ops.TensorArrayReadV3(handle=array, index=0, flow_in=flow, dtype=tf.float32)
        with pytest.raises(AssertionError):
            tf.gradients(y, x, name="gradients")
        with pytest.raises(LookupError):
            tf.gradients(tf.raw_ops.PreventGradient(input=x), x)
        with pytest.raises(LookupError):
            tf.gradients(tf.raw_ops.AdjustHue(images=x[None], delta=0.1), x)
