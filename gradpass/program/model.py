"""What a program means to a user: variables with their names, and entries with their inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from gradpass.errors import TargetError
from gradpass.program.debuginfo import DebugInfo
from gradpass.program.graph import Function, Program, Value

UNNAMED = re.compile(r"(.*/)?Variable(_\d+)?$")  # what TensorFlow calls a tf.Variable without a name

Shape = tuple["int | None", ...] | None


@dataclass(frozen=True)
class Variable:
    """A variable of the model: `name` as in the SavedModel without `:0`, `path` its way through the object graph."""

    key: Any
    name: str
    path: str
    dtype: int
    shape: Shape
    trainable: bool

    @property
    def parameters(self) -> int:
        """The number of its elements; 0 where the shape is not known."""
        return count(self.shape)


@dataclass(frozen=True)
class Entry:
    """A way into the model: the function (or graph) that runs, its inputs, outputs and captured variables by key.

    `inline` tells that its ops are run one by one under the tape, and not as a call; `of_inputs` that its inputs are
    the targets, as those of a graph without variables are.
    """

    name: str
    function: Function
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    captures: dict[Any, list[Value]]
    inline: bool = False
    of_inputs: bool = False


class Copy(NamedTuple):
    """Where a variable's value is read as a constant: under which name, and at which function and node."""

    name: str | None
    place: tuple[str, str] | None


@dataclass
class Live:
    """What only the process knows of a model: its name, its variables by key, what is the matter with some of them.

    `tensors` are keys of what was given as variables and is none, `copies` of those that are read as constants,
    `untracked` of those that it reads and does not list, `frozen` of those that were given and are not trainable.
    `constants` are the names of tensors that it reads as constants.
    """

    label: str
    variables: dict[Any, Any] = field(default_factory=dict)
    tensors: set[Any] = field(default_factory=set)
    copies: dict[Any, Copy] = field(default_factory=dict)
    untracked: list[Any] = field(default_factory=list)
    frozen: list[Any] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)


@dataclass
class Model:
    """A target. `kind` is "savedmodel" (TF2), "savedmodel-v1", "frozen", "metagraph", or "live" (`program.trace`).

    `enter` finds the entries where they are other than the signatures.
    """

    path: Path
    kind: str
    raw: bytes
    program: Program
    variables: dict[Any, Variable]
    entries: dict[str, Entry]
    objects: SavedObjectGraph | None = None
    meta_index: int = 0
    captured: set[Any] = field(default_factory=set)
    live: Live | None = None
    enter: Callable[[Model], dict[str, Entry]] | None = None
    read_debug_info: Callable[[], DebugInfo] = DebugInfo

    def __post_init__(self) -> None:
        self.program.origin = self.kind

    @cached_property
    def debug_info(self) -> DebugInfo:
        """Which lines of Python made its nodes, read when first asked for."""
        return self.read_debug_info()

    def entry(self, name: str | None) -> list[Entry]:
        """The entries that an `--entry` option means: a name, "all", or None for serving_default or the only one."""
        if not self.entries:
            raise TargetError(
                f"{self.path} has no signature to follow a gradient through; save it with "
                "tf.saved_model.save(obj, path, signatures=...)"
            )
        if name == "all":
            return list(self.entries.values())
        if name is None:
            name = "serving_default" if "serving_default" in self.entries else next(iter(self.entries))
            if name != "serving_default" and len(self.entries) > 1:
                raise TargetError(
                    f"{self.path} has no serving_default; choose one with --entry: {', '.join(self.entries)}"
                )
        if name not in self.entries:
            raise TargetError(f"{self.path} has no entry {name!r}; it has {', '.join(self.entries)} (or --entry all)")
        return [self.entries[name]]


def shape_of(proto: TensorShapeProto) -> Shape:
    """A TensorShapeProto as a tuple with None for unknown sizes; None for an unknown rank."""
    return None if proto.unknown_rank else tuple(None if d.size < 0 else d.size for d in proto.dim)


def count(shape: Shape) -> int:
    """The number of elements of a shape; 0 where a size is unknown."""
    if shape is None:
        return 0
    total = 1
    for size in shape:
        if size is None:
            return 0
        total *= size
    return total
