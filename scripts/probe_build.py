"""Builds nodes of any op by trial, in a reproducible order: attributes and inputs that TensorFlow accepts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, types_pb2
from tensorflow.python.framework import dtypes

OpDef: TypeAlias = Any  # an op_def_pb2.OpDef; TensorFlow's protobuf classes have no types
AttrDef: TypeAlias = Any
Attrs = dict[str, Any]  # AttrValues by name
AttrValue = attr_value_pb2.AttrValue

PREFERRED = (  # a type attribute takes the first of these that the op allows
    dtypes.float32, dtypes.float64, dtypes.complex64, dtypes.int32, dtypes.int64, dtypes.bool, dtypes.variant,
    dtypes.resource, dtypes.string, dtypes.complex128, dtypes.half, dtypes.bfloat16, dtypes.int8, dtypes.uint8,
    dtypes.int16, dtypes.uint16, dtypes.uint32, dtypes.uint64, dtypes.qint8, dtypes.quint8, dtypes.qint32,
)  # fmt: skip
TEXTS = ("", "ab,bc->ac", "ab->b", "a")
INT_LISTS: tuple[list[int], ...] = ([1, 1, 1, 1], [1, 1, 1, 1, 1], [0], [2, 2], [1, 2, 2, 1], [0, 1], [])
RANKS = (2, 4, 1, 3, 0, 5, None)
PLAIN = 3 * len(RANKS)  # the number of attempts that give all inputs one rank
SIZES = (4, 2, 1, 3, 8, 6)
SIZE = 4


class Spec(NamedTuple):
    """One input: a placeholder of a shape (`dims` None: unknown rank), a constant, or a tensor that `make` builds."""

    dims: tuple[int | None, ...] | None = None
    value: Any = None
    make: Callable[[], tf.Tensor] | None = None


class Attempt(NamedTuple):
    """One way to build a node: its attributes and its flat inputs."""

    attrs: Attrs
    inputs: tuple[Spec, ...]


def shaped(*dims: int | None) -> Spec:
    """A placeholder of that shape."""
    return Spec(dims)


def const(value: Any) -> Spec:
    """A constant of the input's dtype."""
    return Spec(value=value)


def made(make: Callable[[], tf.Tensor]) -> Spec:
    """An input that needs a node of its own, e.g. a handle."""
    return Spec(make=make)


def type_values(attr: AttrDef) -> list[Any]:
    """The dtypes that a type attribute may have, the preferred ones first."""
    allowed = list(attr.allowed_values.list.type) or [t.as_datatype_enum for t in PREFERRED]
    rank = {t.as_datatype_enum: i for i, t in enumerate(PREFERRED)}
    return [AttrValue(type=t) for t in sorted(allowed, key=lambda t: (rank.get(t, len(rank)), t))]


def attempts(op: OpDef, limit: int) -> Iterator[Attempt]:
    """Ways to build a node, the plain ones first, then seeded random ones."""
    for i in range(limit):
        rng = random.Random(f"{op.name}/{i}")
        attrs = {a.name: _attr(a, op, rng, i) for a in op.attr}
        yield Attempt(attrs, tuple(_specs(op, attrs, rng, i)))


def hinted(op: OpDef, inputs: tuple[Spec, ...], given: dict[str, Any]) -> Attempt:
    """The attempt of a hint: its inputs, its attributes as Python values, and plain values for all other attributes."""
    attrs = {a.name: _attr(a, op, random.Random(op.name), 0) for a in op.attr}
    kinds = {a.name: a.type for a in op.attr}
    attrs.update({name: _python_attr(kinds[name], value) for name, value in given.items()})
    return Attempt(attrs, inputs)


def build(graph: tf.Graph, op: OpDef, attempt: Attempt) -> tf.Operation:
    """The node itself; raises whatever TensorFlow says about attributes or inputs that do not fit."""
    tensors, kinds = [], []
    for (arg, dtype), spec in zip(flat(op.input_arg, attempt.attrs), attempt.inputs, strict=True):
        tensor = _tensor(dtype, spec)
        ref = op.input_arg[arg].is_ref
        tensors.append(tf.raw_ops.VariableV2(shape=tensor.shape, dtype=dtype) if ref and not spec.make else tensor)
        kinds.append(dtype._as_ref if ref else dtype)
    return graph._create_op_internal(op.name, tensors, None, kinds, "probed", dict(attempt.attrs), op)


def flat(args: Any, attrs: Attrs) -> list[tuple[int, tf.DType]]:
    """For each flat tensor of some arguments: the argument's index, and the dtype."""
    out: list[tuple[int, tf.DType]] = []
    for i, arg in enumerate(args):
        if arg.type_list_attr:
            out += [(i, dtypes.as_dtype(t)) for t in attrs[arg.type_list_attr].list.type]
        else:
            kind = attrs[arg.type_attr].type if arg.type_attr else arg.type
            out += [(i, dtypes.as_dtype(kind))] * (int(attrs[arg.number_attr].i) if arg.number_attr else 1)
    return out


def _attr(attr: AttrDef, op: OpDef, rng: random.Random, i: int) -> Any:
    """The default in most attempts; without one, a value that depends on the attempt."""
    explores = attr.type in ("int", "list(int)") and i >= PLAIN and rng.random() < 0.5
    if attr.HasField("default_value") and not explores and attr.default_value.type != types_pb2.DT_INVALID:
        return attr.default_value
    if attr.HasField("default_value") and not explores and attr.type != "type":
        return attr.default_value
    if attr.type == "type":
        return type_values(attr)[0]
    return _python_attr(attr.type, _choice(attr, op, rng, i))


def _choice(attr: AttrDef, op: OpDef, rng: random.Random, i: int) -> Any:
    args = (*op.input_arg, *op.output_arg)
    if attr.type == "int":
        if attr.name in {a.number_attr for a in args}:
            return max(attr.minimum, 2)
        options = [v for v in (1, 2, 0, 3, 4, -1) if not attr.has_minimum or v >= attr.minimum] or [attr.minimum]
        return rng.choice(options) if i else options[0]
    if attr.type == "string":
        texts = list(attr.allowed_values.list.s) or [t.encode() for t in TEXTS]
        return texts[0] if i < len(RANKS) else rng.choice(texts)
    if attr.type == "list(type)":
        allowed = list(attr.allowed_values.list.type) or [types_pb2.DT_FLOAT]
        count = 2 if attr.name in {a.type_list_attr for a in args} else rng.choice((1, 2))
        return [types_pb2.DT_FLOAT if types_pb2.DT_FLOAT in allowed else allowed[0]] * max(count, attr.minimum)
    if attr.type == "list(int)":
        return [1] * (RANKS[i % len(RANKS)] or 4) if i < PLAIN else rng.choice(INT_LISTS)
    if attr.type == "list(shape)":
        return [None] * rng.choice((0, 1, 2))
    plain: dict[str, Any] = {
        "bool": False, "float": rng.choice((0.5, 1.0, 2.0)), "shape": rng.choice((None, [SIZE], [SIZE, SIZE], [])),
        "list(float)": [1.0, 1.5, 1.5, 1.0], "list(string)": [b"a"], "tensor": 1.0, "func": "no_such_function",
        "list(func)": ["no_such_function"], "list(bool)": [False], "list(tensor)": [1.0],
    }  # fmt: skip
    return plain[attr.type]


def _python_attr(kind: str, value: Any) -> Any:
    """A Python value as the AttrValue of an attribute of that kind."""
    if kind.startswith("list("):
        field = _FIELDS[kind[5:-1]]
        return AttrValue(list=AttrValue.ListValue(**{field: [_plain(field, v) for v in value]}))
    return AttrValue(**{_FIELDS[kind]: _plain(_FIELDS[kind], value)})


_FIELDS = {
    "type": "type", "int": "i", "bool": "b", "float": "f", "string": "s", "shape": "shape", "tensor": "tensor",
    "func": "func",
}  # fmt: skip


def _plain(field: str, value: Any) -> Any:
    if field == "s" and isinstance(value, str):
        return value.encode()
    if field == "type":
        return dtypes.as_dtype(value).as_datatype_enum
    if field == "shape":
        return tf.TensorShape(value).as_proto()
    if field == "tensor":
        return tf.make_tensor_proto(value)
    return attr_value_pb2.NameAttrList(name=value) if field == "func" else value


def _specs(op: OpDef, attrs: Attrs, rng: random.Random, i: int) -> Iterator[Spec]:
    """Plain attempts give all inputs one rank and size; later ones mix them. Most make constants of integers."""
    plain = i < PLAIN
    base = RANKS[i % len(RANKS)] if plain else rng.choice((0, 1, 2, 2, 3, 4, 5))
    size = SIZE if plain else rng.choice(SIZES)
    for _, dtype in flat(op.input_arg, attrs):
        rank = base if plain or rng.random() < 0.5 else rng.choice((0, 1, 2, 3, 4))
        spec = Spec()
        if rank is not None:
            spec = shaped(*(size if plain or rng.random() < 0.8 else rng.choice(SIZES) for _ in range(rank)))
        if dtype in (tf.int32, tf.int64):
            style = i // len(RANKS) if plain else rng.choice((0, 1, 2, 3, 3))
            count = rng.choice((1, 2, 3, 4)) if rank is None else max(rank, 1)
            if style == 1:
                spec = const(rng.choice((0, 1)))
            elif style == 2:
                spec = const([rng.choice((0, 1)) if not plain else k % 2 for k in range(count)])
            elif style == 3:
                numbers = [rng.choice((0, 1, 2, 4, 4)) for _ in range(rng.choice((1, 2, 3, 4)))]
                spec = const(numbers if rng.random() < 0.6 else numbers[0])
        yield spec


def _tensor(dtype: tf.DType, spec: Spec) -> tf.Tensor:
    if spec.make is not None:
        return spec.make()
    if spec.value is not None:
        return tf.constant(np.asarray(spec.value), dtype)
    if dtype == tf.resource:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=tf.TensorShape(spec.dims))
    return tf.compat.v1.placeholder(dtype, spec.dims)
