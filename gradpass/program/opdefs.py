"""Tells the arguments, dtypes and attribute defaults of every TensorFlow op without importing TensorFlow.

`ops.json` is written by `scripts/probe_edges.py` from the op registry; what differs in older versions stands in
`ops-2.18.json` and the like. A signature is one line there and is parsed when its op is first asked for, so that
loading the file costs a few milliseconds. The signatures of the newest version also read what older ones wrote: where
TensorFlow changes an op, its arguments stay, and new attributes have a default that means what was before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from gradpass.errors import TargetError
from gradpass.program import tables

AttrOf = Callable[[str], Any]  # the AttrValue of that name, or None


class Arg(NamedTuple):
    """One argument of an op: a tensor, `number_attr` tensors of one dtype, or as many as `list_attr` has types.

    The dtype (a DataType number) is either fixed or that of the attribute `type_attr`; `ref` tells a reference to such
    a tensor (TF1 variables), whose dtype is given here as that of the tensor.
    """

    name: str
    dtype: int | None = None
    type_attr: str | None = None
    number_attr: str | None = None
    list_attr: str | None = None
    ref: bool = False

    @property
    def single(self) -> bool:
        """Whether the argument is always exactly one tensor."""
        return self.number_attr is None and self.list_attr is None

    def count(self, attr: AttrOf) -> int:
        """How many tensors the argument is for a node with these attributes."""
        if self.list_attr is not None:
            return len(_value(attr, self.list_attr).list.type)
        return int(_value(attr, self.number_attr).i) if self.number_attr is not None else 1

    def dtype_at(self, attr: AttrOf, index: int) -> int:
        """The DataType number of the index-th tensor of the argument."""
        if self.list_attr is not None:
            return int(_value(attr, self.list_attr).list.type[index])
        if self.type_attr is not None:
            return int(_value(attr, self.type_attr).type)
        assert self.dtype is not None
        return self.dtype


class OpSig:
    """The signature of one op. `fixed_inputs` and `fixed_outputs` say that every argument there is a single tensor."""

    __slots__ = ("_defaults", "fixed_inputs", "fixed_outputs", "inputs", "name", "outputs", "stateful")

    def __init__(self, name: str, inputs: str, outputs: str, stateful: bool, defaults: dict[str, Any]) -> None:
        self.name = name
        self.inputs = tuple(_parse_arg(text) for text in inputs.split())
        self.outputs = tuple(_parse_arg(text) for text in outputs.split())
        self.stateful = stateful
        self.fixed_inputs = all(arg.single for arg in self.inputs)
        self.fixed_outputs = all(arg.single for arg in self.outputs)
        self._defaults = defaults

    def default(self, attr: str) -> Any:
        """The attribute's default as an AttrValue, None where it has none. Shared: do not change it."""
        value = self._defaults.get(attr)
        if isinstance(value, dict):
            value = self._defaults[attr] = _attr_value(value)
        return value

    def __repr__(self) -> str:
        return f"<OpSig {self.name}>"


def get(op: str, version: str | None = None) -> OpSig | None:
    """The signature of an op in a version, by default the newest.

    None for an op that TensorFlow does not register (a function's name, a custom op).
    """
    parsed = _parsed[version]
    signature = parsed.get(op)
    if signature is None:
        row = _table(version).rows.get(op)
        if row is None:
            return None
        signature = parsed[op] = OpSig(op, *row)
    return signature


def version() -> str:
    """The newest TensorFlow version (major.minor) whose op registry is known."""
    return _table(None).version


def versions() -> list[str]:
    """The TensorFlow versions whose op registries are known, the oldest first."""
    return tables.versions(_PATH)


def names(version: str | None = None) -> list[str]:
    """All ops of a version, by default the newest."""
    return list(_table(version).rows)


def arity(args: Sequence[Arg], attr: AttrOf) -> list[tuple[Arg, int]]:
    """Each argument with the number of its tensors, for a node with these attributes."""
    return [(arg, 1 if arg.single else arg.count(attr)) for arg in args]


def flat_count(args: Sequence[Arg], attr: AttrOf) -> int:
    """How many tensors all arguments are together."""
    return sum(count for _, count in arity(args, attr))


def locate(args: Sequence[Arg], attr: AttrOf, port: int) -> tuple[int, int]:
    """The argument (as an index into `args`) and the place within it of a flat port; IndexError beyond the last."""
    rest = port
    for i, (_, count) in enumerate(arity(args, attr)):
        if rest < count:
            return i, rest
        rest -= count
    raise IndexError(f"port {port} of {port - rest}")


def offset(args: Sequence[Arg], attr: AttrOf, name: str) -> int:
    """The first flat port of the argument of that name; KeyError where there is none."""
    at = 0
    for arg in args:
        if arg.name == name:
            return at
        at += 1 if arg.single else arg.count(attr)
    raise KeyError(name)


def port_dtype(args: Sequence[Arg], fixed: bool, attr: AttrOf, port: int) -> int:
    """The DataType number of a flat port; 0 beyond the last. `fixed` says that every argument is a single tensor."""
    if fixed:
        return args[port].dtype_at(attr, 0) if port < len(args) else 0
    try:
        i, index = locate(args, attr, port)
    except IndexError:
        return 0
    return args[i].dtype_at(attr, index)


def output_dtype(signature: OpSig, attr: AttrOf, port: int) -> int:
    """The DataType number of a flat output port; 0 where a node has no such port."""
    return port_dtype(signature.outputs, signature.fixed_outputs, attr, port)


def input_dtype(signature: OpSig, attr: AttrOf, port: int) -> int:
    """The DataType number of a flat input port; 0 where a node has no such port."""
    return port_dtype(signature.inputs, signature.fixed_inputs, attr, port)


def output_offset(signature: OpSig, attr: AttrOf, name: str) -> int:
    """The first flat port of an output argument; KeyError where the op has no such argument."""
    return offset(signature.outputs, attr, name)


def output_name(signature: OpSig, attr: AttrOf, port: int) -> tuple[str, int]:
    """The output argument and the place within it of a flat output port: the inverse of `output_offset`."""
    if signature.fixed_outputs:
        return signature.outputs[port].name, 0
    i, index = locate(signature.outputs, attr, port)
    return signature.outputs[i].name, index


_PATH = Path(__file__).with_name("ops.json")
_parsed: defaultdict[str | None, dict[str, OpSig]] = defaultdict(dict)


@cache
def _table(version: str | None) -> tables.Table:
    return tables.read(_PATH, version)


def _parse_arg(text: str) -> Arg:
    """Reads `name:3`, `name:T`, `name:N*T`, `name:N*3` or `name:[Tlist]`, `&name` being a reference."""
    name, _, spec = text.partition(":")
    ref = name[0] == "&"
    name = name.removeprefix("&")
    if spec[0] == "[":
        return Arg(name, list_attr=spec[1:-1], ref=ref)
    number, star, kind = spec.rpartition("*")
    number_attr = number if star else None
    if kind.isdigit():
        return Arg(name, dtype=int(kind), number_attr=number_attr, ref=ref)
    return Arg(name, type_attr=kind, number_attr=number_attr, ref=ref)


def _attr_value(row: dict[str, Any]) -> Any:
    """The AttrValue of {field: value}; a list is {"list": {field: values}}, an unknown shape or size None."""
    ((field, value),) = row.items()
    if field == "list":
        items = {inner: [_plain(inner, v) for v in values] for inner, values in value.items()}
        return AttrValue(list=AttrValue.ListValue(**items))
    return AttrValue(**{field: _plain(field, value)})


def _plain(field: str, value: Any) -> Any:
    if field == "s":
        return value.encode("latin-1")
    if field == "shape":
        if value is None:
            return TensorShapeProto(unknown_rank=True)
        return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in value])
    return value


def _value(attr: AttrOf, name: str) -> Any:
    value = attr(name)
    if value is None:
        raise TargetError(f"a node lacks the attribute {name!r}, which its op needs; save the model again")
    return value
