"""All that the gradient edge table cannot find out by itself, each with its reason.

`HINTS` help to build a node that trial does not find; what its gradient function answers is still probed. `FACTS` are
written by hand after reading the gradient function. `CALLS` are ops whose gradient is that of the functions they call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from probe_build import Spec, const, made, shaped


class Hint(NamedTuple):
    """Inputs and attributes with which an op can be built, and why trial does not find them; `keep` is not varied."""

    why: str
    inputs: tuple[Spec, ...]
    attrs: dict[str, Any]
    keep: tuple[str, ...] = ()


FIVE = [1] * 5
IMAGES_3D = shaped(4, 4, 4, 4, 4)


def hint(why: str, *inputs: Spec, keep: tuple[str, ...] = (), **attrs: Any) -> Hint:
    """A hint whose attributes are given as Python values."""
    return Hint(why, inputs, attrs, keep)


def _csr() -> Spec:
    """A CSR sparse matrix: a variant that carries a dtype and a shape."""
    return made(_csr_tensor)


def _csr_tensor() -> tf.Tensor:
    dense = tf.compat.v1.placeholder(tf.float32, [4, 4])
    return tf.raw_ops.DenseToCSRSparseMatrix(dense_input=dense, indices=tf.constant([[0, 1]], tf.int64))


def _array() -> Spec:
    """The handle of a TensorArray: a vector, while the handles of variables are scalars."""
    return made(lambda: tf.compat.v1.placeholder(tf.resource, [2]))


SHAPE_FIRST = "the first input is the shape of a 5-D image"
CSR = "the variant must carry a dtype and a shape"
ARRAY = "the handle is a vector"

CALLS = {
    "PartitionedCall": "no function is registered; TensorFlow differentiates the called function",
    "StatefulPartitionedCall": "no function is registered; TensorFlow differentiates the called function",
    "SymbolicGradient": "no function is registered; the runtime differentiates the called function",
    "If": "the gradient is another If of the branches' gradients",
    "StatelessIf": "the gradient is another If of the branches' gradients",
    "Case": "the gradient is another Case of the branches' gradients",
    "StatelessCase": "the gradient is another Case of the branches' gradients",
    "While": "the gradient is another While of the body's gradient",
    "StatelessWhile": "the gradient is another While of the body's gradient",
}

HINTS: dict[str, Hint] = {
    "SplitV": hint(
        "a scalar for size_splits, and an int8 one, end the process (CHECKs in its shape function)",
        shaped(4, 4), const([2, 2]), const(0), num_split=2, keep=("Tlen",),
    ),
    "BatchToSpaceND": hint("crops that fit", shaped(4, 4, 4, 4), const([2, 2]), const([[0, 0], [0, 0]])),
    "SpaceToBatchND": hint("paddings that fit", shaped(4, 4, 4, 4), const([2, 2]), const([[0, 0], [0, 0]])),
    "AvgPool3DGrad": hint(SHAPE_FIRST, const([4, 4, 4, 4, 4]), IMAGES_3D, ksize=FIVE, strides=FIVE),
    "Conv3DBackpropInputV2": hint(
        SHAPE_FIRST, const([4, 4, 4, 4, 4]), shaped(1, 1, 1, 4, 4), IMAGES_3D, strides=FIVE,
    ),
    "RaggedTensorToTensor": hint(
        "row_partition_types is a list of words from a documentation page",
        const([4, 4]), shaped(8), shaped(), shaped(5), num_row_partition_tensors=1, row_partition_types=["ROW_SPLITS"],
    ),
    "SparseTensorToCSRSparseMatrix": hint("three inputs of different rank", shaped(3, 2), shaped(3), const([4, 4])),
    "DenseToCSRSparseMatrix": hint("indices of the dense input's rank", shaped(4, 4), shaped(3, 2)),
    "CSRSparseMatrixToDense": hint(CSR, _csr()),
    "CSRSparseMatrixToSparseTensor": hint(CSR, _csr()),
    "SparseMatrixAdd": hint(CSR, _csr(), _csr(), shaped(), shaped()),
    "SparseMatrixMatMul": hint(CSR, _csr(), shaped(4, 4)),
    "SparseMatrixMul": hint(CSR, _csr(), shaped()),
    "SparseMatrixSoftmax": hint(CSR, _csr()),
    "SparseMatrixSparseMatMul": hint(CSR, _csr(), _csr()),
    "SparseMatrixTranspose": hint(CSR, _csr()),
    "TensorArrayConcatV3": hint(ARRAY, _array(), shaped()),
    "TensorArrayGatherV3": hint(ARRAY, _array(), shaped(4), shaped()),
    "TensorArrayReadV3": hint(ARRAY, _array(), shaped(), shaped()),
    "TensorArrayScatterV3": hint(ARRAY, _array(), shaped(4), shaped(4, 4), shaped()),
    "TensorArraySplitV3": hint(ARRAY, _array(), shaped(4, 4), shaped(4), shaped()),
    "TensorArrayWriteV3": hint(ARRAY, _array(), shaped(), shaped(4), shaped()),
}  # fmt: skip

FACTS: dict[str, tuple[str, dict[str, str | None]]] = {
    "EagerPyFunc": (
        "the gradient is another EagerPyFunc of all cotangents; it raises (AssertionError) where the Python function "
        "is gone, and there the op itself cannot run either",
        {"input": "f"},
    ),
    "Exit": (
        "an Enter in the gradient's loop; it raises (AttributeError) where the graph lost its loop contexts",
        {"data": "f"},
    ),
    "RefExit": ("as Exit", {"data": "f"}),
}

# Gradient functions that raise whatever they are asked. The probe makes sure that they do.
_OLD_ARRAY = "it calls TensorArrayGradV3, which does not take the handles of TensorArrays of versions 1 and 2"
RAISES: dict[str, str] = {
    "DebugGradientIdentity": "it serves the debugger only, which registers its ops first",
    "DebugGradientRefIdentity": "it serves the debugger only, which registers its ops first",
    "LoopCond": "the function lacks an argument; nobody asks for a gradient of a bool",
    "PreventGradient": "this op is there to raise",
    "QuantizeAndDequantizeV4Grad": "the function takes one cotangent, the op has three outputs",
    "SparseDenseCwiseAdd": "not implemented",
    "SparseMatrixMul": "not implemented",
    "SparseSparseMaximum": "not implemented",
    "SparseSparseMinimum": "not implemented",
    "TPUEmbeddingActivations": "it needs the collections of a TPU training graph",
    "TopK": "it is TopKV2's function and gives two gradients for the one input",
    "XlaClusterOutput": "outside xla.compile()",
    "_EagerConst": "this op is there to be optimised away",
    **{
        f"TensorArray{what}{version}": _OLD_ARRAY
        for what in ("Concat", "Gather", "Read", "Scatter", "Split", "Write")
        for version in ("", "V2")
    },
}
