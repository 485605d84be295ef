"""Reads TensorFlow's op registry into the rows of gradpass/program/ops.json (see gradpass/program/opdefs.py)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

Row = list[Any]
Result = TypeVar("Result")
LEFT_OUT = frozenset({"tensor", "list(tensor)", "func", "list(func)"})  # three ops have such a default, none in a model


def registered_ops() -> list[Any]:
    """Every op that the installed TensorFlow registers, the internal ones too, by name."""
    ops = op_def_pb2.OpList()
    ops.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return sorted(ops.op, key=lambda op: str(op.name))


def in_another_process(ask: Callable[[Any], Result], ops: Iterable[Any]) -> Iterator[tuple[Any, Result | None]]:
    """Each op with what is found about it there; None where a shape function ended that process, as some do."""
    pool = _pool()
    for op in ops:
        try:
            yield op, pool.submit(ask, op).result()
        except BrokenProcessPool:
            yield op, None
            pool = _pool()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("fork"))


def op_rows() -> dict[str, Row]:
    """For each op: inputs, outputs, whether it is stateful, and the defaults of its attributes."""
    return {op.name: _row(op) for op in registered_ops()}


def _row(op: Any) -> Row:
    with_default = sorted((a for a in op.attr if a.HasField("default_value")), key=lambda a: str(a.name))
    defaults = {a.name: _default(a.default_value) for a in with_default if a.type not in LEFT_OUT}
    inputs = " ".join(_arg(a) for a in op.input_arg)
    outputs = " ".join(_arg(a) for a in op.output_arg)
    return [inputs, outputs, op.is_stateful, defaults]


def _arg(arg: Any) -> str:
    name = f"&{arg.name}" if arg.is_ref else arg.name
    if arg.type_list_attr:
        return f"{name}:[{arg.type_list_attr}]"
    kind = arg.type_attr or str(arg.type)
    return f"{name}:{arg.number_attr}*{kind}" if arg.number_attr else f"{name}:{kind}"


def _default(value: Any) -> dict[str, Any]:
    field = value.WhichOneof("value")
    if field != "list":
        return {field: _plain(field, getattr(value, field))}
    return {"list": {f.name: [_plain(f.name, v) for v in values] for f, values in value.list.ListFields()}}


def _plain(field: str, value: Any) -> Any:
    if field == "s":
        return value.decode("latin-1")
    if field == "shape":
        return None if value.unknown_rank else [d.size for d in value.dim]
    if field in ("i", "b", "type", "f"):
        return value
    raise TypeError(f"a default of kind {field} is not known to opdefs")
