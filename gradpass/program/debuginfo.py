"""Which lines of Python made a node: what `SaveOptions(save_debug_info=True)` leaves beside a SavedModel's graph.

TensorFlow records the stack of every op that it makes, without its own frames and with autograph's mapped back to the
user's file. Read only when somebody asks; a damaged file takes the lines away, never the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.graph_debug_info_pb2 import GraphDebugInfo

FILE = Path("debug") / "saved_model_debug_info.pb"

ABSENT = "to see the line of Python here, save with options=tf.saved_model.SaveOptions(save_debug_info=True)"

T = TypeVar("T")


class Frame(NamedTuple):
    """One frame of a recorded stack. `text` is empty in all files that TensorFlow has written so far."""

    file: str
    line: int
    function: str
    text: str


Trace = tuple[Frame, ...]  # outermost first


class DebugInfo:
    """The stacks in which nodes were made, by function (empty for the graph) and node.

    `problem` says why there are none where there should be some. `written` is when a file of them was, in seconds since
    the epoch: what was edited later may not be what was traced.
    """

    def __init__(
        self,
        traces: Mapping[tuple[str, str], Trace] | None = None,
        problem: str | None = None,
        written: float | None = None,
    ) -> None:
        self._traces = traces or {}
        self.problem = problem
        self.written = written

    def frames(self, function: str | None, node: str) -> Trace:
        """The frames that made a node, outermost first, from the traced function on; none where nothing is known.

        The frames further out are of those who had it traced: the line of `tf.saved_model.save` made no node.
        """
        trace = self._traces.get((function or "", node), ())
        outside = next((len(start) for start in self._starts if trace[: len(start)] == start), 0)
        return trace[outside:]

    @cached_property
    def _starts(self) -> list[Trace]:
        """The stacks from which functions were traced, the shortest first.

        A function's arguments and results are made around the user's code, so that what all stacks of a function have
        in common ends where that code begins. Functions traced within it have longer ones.
        """
        groups: dict[str, set[Trace]] = {}
        for (function, _), trace in self._traces.items():
            groups.setdefault(function, set()).add(trace)
        starts = {_common(group) for group in groups.values() if len(group) > 1}
        return sorted(starts - {()}, key=len)


def read(folder: Path) -> DebugInfo:
    """What stands beside the graph of a SavedModel."""
    path = folder / FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return DebugInfo(problem=ABSENT)
    except OSError as problem:
        return DebugInfo(problem=f"{path} cannot be read ({problem.strerror}), so no source lines are shown")
    try:
        return DebugInfo(dict(traces(GraphDebugInfo.FromString(raw))), written=path.stat().st_mtime)
    except (DecodeError, LookupError) as problem:
        return DebugInfo(problem=f"{path} is damaged ({problem}), so no source lines are shown; save the model again")


def traces(info: Any, function: str | None = None) -> Iterator[tuple[tuple[str, str], Trace]]:
    """(function, node) and its stack, of a GraphDebugInfo; with `function`, of one that TensorFlow keeps of that alone.

    Old files have `traces` by name; those of TensorFlow 2.18 to 2.21 have names that refer to `traces_by_id`, and these
    to `frames_by_id`. Raises LookupError where something refers to what is not there.
    """
    frames = {number: _frame(info.files, frame) for number, frame in info.frames_by_id.items()}

    def trace(stack: Any) -> Trace:
        return (*(_frame(info.files, f) for f in stack.file_line_cols), *(_known(frames, i) for i in stack.frame_id))

    by_id = {number: trace(stack) for number, stack in info.traces_by_id.items()}
    for name, number in info.name_to_trace_id.items():
        yield _place(name, function), _known(by_id, number)
    for name, stack in info.traces.items():
        yield _place(name, function), trace(stack)


def _place(name: str, function: str | None) -> tuple[str, str]:
    """Nodes are called `node@function` in a file, `node` among those of one function."""
    node, _, named = name.partition("@")
    return (named if function is None else function), node


def _known(table: Mapping[int, T], number: int) -> T:
    if number not in table:
        raise LookupError(f"it has nothing of the number {number}")
    return table[number]


def _frame(files: Any, frame: Any) -> Frame:
    if not 0 <= frame.file_index < len(files):
        raise LookupError(f"it has no file of the number {frame.file_index}")
    return Frame(files[frame.file_index], frame.line, frame.func, frame.code)


def _common(group: set[Trace]) -> Trace:
    """What all of these stacks begin with."""
    low, high = min(group), max(group)
    for i, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return low[:i]
    return low
