"""Where Python left the graph: the user's line at which a trace failed, and what was tried there."""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.program.debuginfo import Frame
from gradpass.report.diagnostics import Source
from gradpass.report.sources import shown_line, whose

# What TensorFlow and NumPy say where a tensor is asked for its value, which it has not while it is traced. Their own
# types are as general as AttributeError, so the words are looked at, too.
ASKED = re.compile(
    r"numpy\(\) is only available when eager|"
    r"Tensor' object has no attribute '(numpy|item|tolist|__\w+__)'|"
    r"(symbolic|graph) (`?tf\.)?Tensor|"
    r"Tensor.* (to a|as a Python) |"
    r"must be (a string or a )?real number, not '?\w*Tensor|"
    r"format string passed to \w*Tensor|"
    r"'\w*Tensor' object cannot be interpreted"
)
PREDICTS = ("predict", "predict_on_batch")
TAKES = ("numpy", "item", "tolist")
BUILTINS = ("float", "int", "bool", "range", "len", "max", "min", "sum")


class Left(NamedTuple):
    """How a trace ended: at which line of the user's, what took a value out of the graph, and what was said."""

    source: Source | None
    what: str
    error: BaseException


def left_graph(error: BaseException) -> Left | None:
    """What took a value out of the graph, if that is why a trace failed; None where it failed otherwise."""
    chain = list(_chain(error))
    asked = any(isinstance(each, tf.errors.OperatorNotAllowedInGraphError) or ASKED.search(str(each)) for each in chain)
    if not asked:
        return None
    frames = _frames(error)
    predicts = next((frame for frame in frames if frame.function in PREDICTS and whose(frame.file) != "user"), None)
    source = user_line(error)
    return Left(source, _what(error, source, predicts is not None), error)


def user_line(error: BaseException) -> Source | None:
    """The user's line from which an exception came: the innermost of theirs, autograph's mapping undone."""
    for wanted in ("user", "library"):
        for frame in reversed(_frames(error)):
            if frame.line > 0 and whose(frame.file) == wanted:
                return shown_line(frame)
    return None


def said(error: BaseException) -> str:
    """What an exception says, in a line: without the stacks and headings that TensorFlow and Keras put around it."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while lines and (
        re.match(r"in user code:|File \"|Exception encountered when calling|Arguments received by|•", lines[0])
        or not re.search(r"\w", lines[0])
    ):
        # The line below a place in a file is the code there.
        lines = lines[2:] if lines[0].startswith('File "') else lines[1:]
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"^\w*Error: ", "", first)


def _frames(error: BaseException) -> list[Frame]:
    """The frames of an exception, outermost first; what autograph wrote is told as the line that it wrote it for."""
    frames = [
        Frame(frame.filename, frame.lineno or 0, frame.name, "") for frame in traceback.extract_tb(error.__traceback__)
    ]
    # autograph's own exceptions carry the stack mapped back to the user's files, innermost first; TensorFlow prints it
    # as "in user code". It has no public reader. It has been there since TensorFlow 2.0; a test fails when it moves.
    metadata: Any = getattr(error, "ag_error_metadata", None)
    mapped = [
        Frame(frame.filename, frame.lineno, frame.function_name or "<lambda>", "")
        for frame in reversed(metadata.translated_stack if metadata is not None else ())
    ]
    return frames + mapped


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _what(error: BaseException, source: Source | None, predicts: bool) -> str:
    """What was done with the tensor, as the user wrote it where the line tells."""
    text = source.text if source else ""
    calls = [call for statement in _parsed(text) for call in ast.walk(statement) if isinstance(call, ast.Call)]
    # The innermost first: it takes the value, the others what comes of it.
    written = sorted((ast.unparse(call.func) for call in calls), key=len)
    for methods in (PREDICTS, TAKES):
        for name in written:
            if "." in name and name.rpartition(".")[2] in methods:
                return f"{name}()"
    if predicts:
        return "predict()"
    for name in written:
        if name.partition(".")[0] in ("np", "numpy", "math") or name in BUILTINS:
            return f"{name}()"
    if re.match(r"(if|while|elif|assert)\b", text):
        return text.split()[0]
    if "format string" in str(error):
        return "a format string"
    return "a for loop" if re.match(r"for\b", text) or "Iterating" in str(error) else "a line of Python"


def _parsed(text: str) -> list[ast.stmt]:
    """The statements of a line, also of one that begins a block; none where it is a part of one."""
    for whole in (text, f"{text} pass", f"{text}\n  pass"):
        try:
            return ast.parse(whole).body
        except SyntaxError:
            continue
    return []
