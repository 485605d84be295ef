"""Stacks of nodes: what TensorFlow writes beside a SavedModel and keeps of live functions, old files, damaged files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.compat.proto.graph_debug_info_pb2 import GraphDebugInfo

from gradpass.program import debuginfo, savedmodel
from gradpass.program.debuginfo import DebugInfo, Frame
from gradpass.program.model import Model
from gradpass.program.trace import of_function


class Nested(tf.Module):
    """A cut in each kind of place that a traced function has."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable([1.0, 2.0, 3.0], name="w")

    @tf.function
    def called(self, x: Any) -> Any:
        return tf.floor(x * self.w)  # Floor

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        y = self.called(x)
        for _ in tf.range(3):
            y = tf.round(y * self.w)  # Round
        if tf.reduce_sum(y) > 0:
            y = tf.math.ceil(y)  # Ceil
        y = tf.map_fn(lambda t: tf.sign(t * 2.0), y)  # Sign
        return tf.math.rint(y) * self.w  # Rint


PLACES = ["Floor", "Round", "Ceil", "Sign", "Rint"]
SAVE = tf.saved_model.SaveOptions(save_debug_info=True)


@pytest.fixture(scope="module")
def module() -> Nested:
    return Nested()


@pytest.fixture(scope="module")
def folder(module: Nested, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("debug") / "nested"
    tf.saved_model.save(module, str(path), signatures=module.serve, options=SAVE)
    return path


def line_of(mark: str) -> int:
    """The number of the line of this file that ends in a comment."""
    lines = inspect.getsource(inspect.getmodule(line_of) or line_of).splitlines()
    (found,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return found


def stacks(model: Model, op: str) -> list[tuple[Frame, ...]]:
    """The stacks of all nodes of one op, wherever they are."""
    program = model.program
    nodes = [node for name in program.functions for node in program.function(name).nodes if node.op == op]
    assert nodes, op
    return [model.debug_info.frames(node.function.name, node.name) for node in nodes]


@pytest.mark.parametrize("op", PLACES)
def test_the_innermost_frame_of_a_file_is_the_line(folder: Path, op: str) -> None:
    for stack in stacks(savedmodel.read(folder), op):
        assert (stack[-1].file, stack[-1].line) == (__file__, line_of(op))


@pytest.mark.parametrize("op", PLACES)
def test_the_innermost_frame_of_a_live_function_is_the_line(module: Nested, op: str) -> None:
    for stack in stacks(of_function(module.serve.get_concrete_function()), op):
        assert (stack[-1].file, stack[-1].line) == (__file__, line_of(op))


def test_frames_begin_where_the_traced_function_does(folder: Path, module: Nested) -> None:
    for model in (savedmodel.read(folder), of_function(module.serve.get_concrete_function())):
        for op in PLACES:
            for stack in stacks(model, op):
                assert {frame.function for frame in stack} <= {"serve", "called", "<lambda>"}


def test_arguments_have_no_frame_of_their_own(module: Nested) -> None:
    info = of_function(module.serve.get_concrete_function()).debug_info
    function = module.serve.get_concrete_function().function_def.signature.name
    assert __file__ not in {frame.file for frame in info.frames(function, "x")}
    assert __file__ in {frame.file for frame in info.frames(function, "Rint")}


def test_a_model_without_the_file_has_no_frames(module: Nested, tmp_path: Path) -> None:
    tf.saved_model.save(module, str(tmp_path / "plain"), signatures=module.serve)
    model = savedmodel.read(tmp_path / "plain")
    assert stacks(model, "Rint") == [()] and "save_debug_info=True" in str(model.debug_info.problem)


def test_functions_that_were_loaded_have_no_frames(folder: Path) -> None:
    loaded = tf.saved_model.load(str(folder))
    again = tf.function(lambda x: loaded.signatures["serving_default"](x * 2.0))
    model = of_function(again.get_concrete_function(tf.TensorSpec([3], tf.float32)))
    assert stacks(model, "Rint") == [()] and model.debug_info.problem is None


def test_it_is_read_when_asked_for_and_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    read = debuginfo.read
    monkeypatch.setattr(debuginfo, "read", lambda path: asked.append(path) or read(path))
    model = savedmodel.read(folder)
    assert asked == []
    assert model.debug_info is model.debug_info and asked == [folder]


def info(stacks: dict[str, list[tuple[str, int]]], old: bool) -> GraphDebugInfo:
    """A message with these stacks by name, in the old layout or the new."""
    made = GraphDebugInfo()
    for name, stack in stacks.items():
        number = len(made.name_to_trace_id) + 70
        trace = made.traces[name] if old else made.traces_by_id[number]
        for file, line in stack:
            if file not in made.files:
                made.files.append(file)
            place = {"file_index": list(made.files).index(file), "line": line, "func": "f", "code": f"line {line}"}
            if old:
                trace.file_line_cols.add(**place)
            else:
                frame = hash((file, line)) % 2**64
                made.frames_by_id[frame].CopyFrom(GraphDebugInfo.FileLineCol(**place))
                trace.frame_id.append(frame)
        if not old:
            made.name_to_trace_id[name] = number
    return made


def written(path: Path, raw: bytes) -> DebugInfo:
    """What is read of a folder in which the file holds these bytes."""
    (path / "debug").mkdir()
    (path / "debug" / "saved_model_debug_info.pb").write_bytes(raw)
    return debuginfo.read(path)


@pytest.mark.parametrize("old", [True, False])
def test_both_layouts(tmp_path: Path, old: bool) -> None:
    stacks = {"x@f": [("main.py", 9)], "y@f": [("main.py", 9), ("model.py", 4)], "z@": [("graph.py", 1)]}
    found = written(tmp_path, info(stacks, old).SerializeToString())
    assert found.problem is None
    assert found.frames("f", "y") == (Frame("model.py", 4, "f", "line 4"),)
    assert found.frames(None, "z") == (Frame("graph.py", 1, "f", "line 1"),)
    assert found.frames("g", "y") == () and found.frames(None, "y") == ()


def test_who_traced_a_function_within_another_stays() -> None:
    frame = [Frame("m.py", i, "f", "") for i in range(9)]
    outer, inner = (frame[0],), (frame[0], frame[1])
    found = DebugInfo(
        {
            ("outer", "x"): outer,
            ("outer", "call"): (*outer, frame[1]),
            ("inner", "x"): inner,
            ("inner", "y"): (*inner, frame[2]),
        }
    )
    assert found.frames("inner", "y") == (frame[1], frame[2])


def test_stacks_that_are_all_one_tell_no_beginning() -> None:
    stack = (Frame("main.py", 1, "<module>", ""), Frame("model.py", 2, "f", ""))
    assert DebugInfo({("f", "a"): stack, ("f", "b"): stack}).frames("f", "a") == stack


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[: len(raw) // 2], "damaged"),
        (lambda raw: b"\xff" * 40, "damaged"),
        (lambda raw: without(raw, "files"), "no file of the number"),
        (lambda raw: without(raw, "frames_by_id"), "nothing of the number"),
        (lambda raw: without(raw, "traces_by_id"), "nothing of the number"),
    ],
)
def test_a_damaged_file_says_so_and_knows_nothing(tmp_path: Path, damage: Any, says: str) -> None:
    raw = info({"y@f": [("main.py", 9), ("model.py", 4)]}, old=False).SerializeToString()
    found = written(tmp_path, damage(raw))
    assert found.frames("f", "y") == ()
    assert found.problem and says in found.problem and "saved_model_debug_info.pb" in found.problem


def without(raw: bytes, field: str) -> bytes:
    """The message without one of its fields."""
    made = GraphDebugInfo.FromString(raw)
    made.ClearField(field)
    return bytes(made.SerializeToString())


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "debug" / "saved_model_debug_info.pb").mkdir(parents=True)
    problem = debuginfo.read(tmp_path).problem
    assert problem and "cannot be read" in problem
