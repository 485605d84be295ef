"""The op signatures that gradpass reads without TensorFlow are those that TensorFlow registers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_INT32, DT_INT64, DT_STRING

from gradpass.errors import GradpassError, TargetError
from gradpass.program import opdefs
from gradpass.program.opdefs import Arg


def signature(op: str, version: str | None = None) -> opdefs.OpSig:
    found = opdefs.get(op, version)
    assert found is not None
    return found


def types(*values: int) -> AttrValue:
    return AttrValue(list=AttrValue.ListValue(type=values))


def test_arguments_of_each_kind() -> None:
    assert signature("Conv2D").inputs == (Arg("input", type_attr="T"), Arg("filter", type_attr="T"))
    assert signature("Shape").outputs == (Arg("output", type_attr="out_type"),)
    assert signature("ConcatV2").inputs == (
        Arg("values", type_attr="T", number_attr="N"),
        Arg("axis", type_attr="Tidx"),
    )
    assert signature("StringJoin").inputs == (Arg("inputs", dtype=DT_STRING, number_attr="N"),)
    assert signature("IdentityN").outputs == (Arg("output", list_attr="T"),)
    assert signature("VariableV2").outputs == (Arg("ref", type_attr="dtype", ref=True),)
    assert signature("ReadVariableOp").stateful
    assert not signature("AddV2").stateful


def test_an_op_that_tensorflow_does_not_have() -> None:
    assert opdefs.get("__inference_call_17") is None


def test_defaults_that_saved_models_leave_out() -> None:
    assert signature("ArgMax").default("output_type").type == DT_INT64
    assert signature("Conv2D").default("data_format").s == b"NHWC"
    assert list(signature("Conv2D").default("dilations").list.i) == [1, 1, 1, 1]
    assert signature("MatMul").default("transpose_a").b is False
    assert signature("Placeholder").default("shape").shape.unknown_rank
    assert list(signature("Squeeze").default("squeeze_dims").list.i) == []
    assert signature("AddV2").default("T") is None


def test_an_empty_list_is_a_value() -> None:
    assert signature("Squeeze").default("squeeze_dims").WhichOneof("value") == "list"


@pytest.mark.parametrize("port, name, index, dtype", [(0, "output", 0, DT_FLOAT), (2, "output", 2, DT_INT32)])
def test_ports_of_a_list_of_types(port: int, name: str, index: int, dtype: int) -> None:
    attrs = {"T": types(DT_FLOAT, DT_STRING, DT_INT32)}
    op = signature("IdentityN")
    assert opdefs.output_name(op, attrs.get, port) == (name, index)
    assert opdefs.output_dtype(op, attrs.get, port) == dtype
    assert opdefs.arity(op.outputs, attrs.get) == [(op.outputs[0], 3)]


def test_ports_behind_a_list() -> None:
    attrs = {"N": AttrValue(i=3), "T": AttrValue(type=DT_FLOAT), "Tidx": AttrValue(type=DT_INT32)}
    op = signature("ConcatV2")
    assert opdefs.offset(op.inputs, attrs.get, "axis") == 3
    assert opdefs.locate(op.inputs, attrs.get, 3) == (1, 0)
    assert opdefs.input_dtype(op, attrs.get, 3) == DT_INT32
    assert opdefs.flat_count(op.inputs, attrs.get) == 4


def test_a_port_that_a_node_does_not_have() -> None:
    attrs = {"T": AttrValue(type=DT_FLOAT)}
    assert opdefs.output_dtype(signature("AddV2"), attrs.get, 1) == 0
    with pytest.raises(IndexError):
        opdefs.locate(signature("IdentityN").inputs, {"T": types(DT_FLOAT)}.get, 1)
    with pytest.raises(KeyError):
        opdefs.output_offset(signature("AddV2"), attrs.get, "no_such_output")


def test_a_missing_attribute_is_named() -> None:
    with pytest.raises(TargetError, match="Tidx"):
        opdefs.input_dtype(signature("ConcatV2"), {"N": AttrValue(i=2)}.get, 2)


def test_reading_it_imports_no_tensorflow() -> None:
    code = "import sys; from gradpass.program import opdefs; opdefs.get('AddV2'); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_older_versions() -> None:
    assert opdefs.versions()[-1] == opdefs.version()
    assert opdefs.get("AddV2") is opdefs.get("AddV2") is not None
    assert opdefs.get("DecodeWebP", "2.18") is None
    assert opdefs.get("DecodeWebP", "2.20") is not None
    assert signature("TensorListGetItem", "2.20").inputs[2] == Arg("element_shape", dtype=DT_INT32)
    assert signature("TensorListGetItem").inputs[2] == Arg("element_shape", type_attr="Tshape")
    with pytest.raises(GradpassError, match=r"1\.2"):
        opdefs.get("AddV2", "1.2")


@pytest.mark.parametrize("version", opdefs.versions())
def test_the_newest_signatures_read_what_an_older_version_wrote(version: str) -> None:
    gone = set()
    for name in opdefs.names(version):
        new, old = opdefs.get(name), signature(name, version)
        if new is None:
            gone.add(name)
            continue
        for before, after in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
            assert [_read(old, arg) for arg in before] == [_read(new, arg, of=old) for arg in after], name
    assert gone == ({"TfLiteSubgraphExecute"} if version in ("2.18", "2.19") else set())


def _read(op: opdefs.OpSig, arg: Arg, of: opdefs.OpSig | None = None) -> Arg:
    """The argument as a node reads it that has only the attributes of the op `of`: others have their default."""
    if of is None or arg.type_attr is None or arg.type_attr in {a.type_attr for a in of.inputs + of.outputs}:
        return arg
    return arg._replace(type_attr=None, dtype=op.default(arg.type_attr).type)


@pytest.mark.parametrize("version", opdefs.versions())
def test_the_whole_file_parses(version: str) -> None:
    for name in opdefs.names(version):
        op = signature(name, version)
        assert op.fixed_inputs == all(a.number_attr is None and a.list_attr is None for a in op.inputs)


def test_it_says_what_tensorflow_says() -> None:
    tensorflow = pytest.importorskip("tensorflow")
    installed = ".".join(tensorflow.__version__.split(".")[:2])
    with tensorflow.Graph().as_default() as graph:
        x = tensorflow.compat.v1.placeholder(tensorflow.float32, [4, 6])
        tensorflow.split(x, [1, 2, 3], axis=1)
        tensorflow.unique(tensorflow.argmax(x, axis=1))
        tensorflow.raw_ops.IdentityN(input=[x, tensorflow.constant(1)])
        tensorflow.raw_ops.FusedBatchNormV3(x=x[None, None], scale=x[0], offset=x[0], mean=x[0], variance=x[0])
        tensorflow.raw_ops.TensorListReserve(element_shape=[2], num_elements=3, element_dtype=tensorflow.float32)
        tensorflow.raw_ops.VariableV2(shape=[2], dtype=tensorflow.float32)
        seen = set()
        for node in graph.get_operations():
            op = signature(node.type, installed)
            attr = node.node_def.attr.__getitem__
            seen.add(node.type)
            flat = [opdefs.output_dtype(op, attr, i) for i in range(len(node.outputs))]
            assert flat == [y.dtype.base_dtype.as_datatype_enum for y in node.outputs]
            assert opdefs.flat_count(op.inputs, attr) == len(node.inputs)
        assert {"SplitV", "Unique", "IdentityN", "FusedBatchNormV3", "TensorListReserve", "VariableV2"} <= seen
