"""The user's line that made a node, found in the stack that TensorFlow recorded; and what of it to underline."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import os
import re
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from io import StringIO
from pathlib import Path
from typing import Literal

from gradpass.program.debuginfo import DebugInfo, Frame
from gradpass.report.diagnostics import Source

Whose = Literal["user", "library", "framework"]

# Nobody who looks for a line of theirs means one of these. What else is installed is a library: better than nothing.
FRAMEWORKS = frozenset({"IPython", "gradpass", "keras", "numpy", "tensorflow", "tf_keras"})
# They are told by where they are installed; stacks of another machine, by how paths look there: of an installation, of
# a source tree or Bazel's, of Python itself.
INSTALLED = re.compile(r".*/(?:site|dist)-packages/([^/]+)")
BUILT = re.compile(r"(?:^|.*/)(?:tensorflow/(?:core|python)|keras/src|tf_keras/src)/")
STANDARD = re.compile(r"(?:^|.*/)(?:lib/python3\.\d+|Lib|python3\d+\.zip)/([^/.]+)")
# Written by a program; of names in brackets only those of prompts hold what a person wrote.
GENERATED = re.compile(r".*__autograph_generated_file|<(?!(?:stdin|string|console|(?:i?python-)?input)\b)")

# What Python writes for an op that is no call.
OPERATORS: dict[str, type[ast.AST]] = {
    "Equal": ast.Eq,
    "FloorDiv": ast.FloorDiv,
    "FloorMod": ast.Mod,
    "Greater": ast.Gt,
    "GreaterEqual": ast.GtE,
    "Less": ast.Lt,
    "LessEqual": ast.LtE,
    "LogicalAnd": ast.BitAnd,
    "LogicalNot": ast.Invert,
    "LogicalOr": ast.BitOr,
    "MatMul": ast.MatMult,
    "Mul": ast.Mult,
    "NotEqual": ast.NotEq,
    "Pow": ast.Pow,
    "RealDiv": ast.Div,
}


def source_of(info: DebugInfo, function: str | None, node: str) -> Source | None:
    """The line that made a node: the innermost of the user's, else the innermost of a library's that is no framework.

    None where nothing was recorded, and where TensorFlow or Keras made the node without anybody's line.
    """
    frames = info.frames(function, node)
    for wanted in ("user", "library"):
        for frame in reversed(frames):
            if frame.line > 0 and whose(frame.file) == wanted:
                return shown_line(frame)
    return None


def shown_line(frame: Frame) -> Source:
    """The line of a frame as a report shows it."""
    return Source(_shown(frame.file), frame.line, _text(frame))


def edited(info: DebugInfo, source: Source) -> bool:
    """Whether the file of a line was written after the stacks were: then another line may stand there."""
    return info.written is not None and os.path.isfile(source.file) and os.path.getmtime(source.file) > info.written


@cache
def whose(file: str) -> Whose:
    """Whose code a file holds, by where it lies, here or on the machine that recorded it."""
    path = file.replace("\\", "/")
    if GENERATED.match(path) or BUILT.match(path):
        return "framework"
    if any(path.startswith(folder) for folder in _framework_folders()):
        return "framework"
    installed = INSTALLED.match(path)
    if installed:
        return "framework" if installed[1] in FRAMEWORKS else "library"
    standard = STANDARD.match(path)
    if standard and standard[1] in sys.stdlib_module_names:
        return "framework"
    if path.startswith(_folder(sysconfig.get_path("stdlib"))):
        return "framework"
    return "user"


@cache
def _framework_folders() -> tuple[str, ...]:
    """Where the frameworks lie on this machine, which need not be a site-packages."""
    specs = [importlib.util.find_spec(name) for name in sorted(FRAMEWORKS)]  # imports none of them
    return tuple(_folder(place) for spec in specs if spec for place in spec.submodule_search_locations or ())


def _folder(path: str) -> str:
    return path.replace("\\", "/").rstrip("/") + "/"


def _shown(file: str) -> str:
    """A path as short as it is unmistakable: relative below the current folder, else as recorded."""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file


def _text(frame: Frame) -> str:
    """The line itself, or "" where its file is not here or has plainly become another since."""
    if frame.text:
        return frame.text.strip()
    # A notebook's cells stand in the cache and nowhere else.
    if frame.file not in linecache.cache and not os.path.isfile(frame.file):
        return ""
    lines = linecache.getlines(frame.file)
    if frame.line > len(lines) or not _fits("".join(lines), frame):
        return ""
    return lines[frame.line - 1].strip()


def _fits(code: str, frame: Frame) -> bool:
    """Whether a frame's line lies in the function that the frame is of: in a file edited since, it mostly does not."""
    tree = _tree(code)
    around = [
        node
        for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and _first_line(node) <= frame.line <= (node.end_lineno or 0)
    ]
    if frame.function.isidentifier():
        return any(node.name == frame.function for node in around)
    # <lambda> and its like may stand anywhere; autograph leaves their names out.
    inside = any(not isinstance(node, ast.ClassDef) for node in around)
    return tree is not None and not (frame.function == "<module>" and inside)


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def marked(text: str, op: str | None, node: str | None = None) -> tuple[int, int]:
    """From which column to which a line is to be underlined.

    That is the one call or operator in it that makes the op, or the one that a scope of the node bears the name of, the
    innermost first; where none or several could be meant, it is all of the code.
    """
    scopes = [re.sub(r"_\d+$", "", scope) for scope in reversed((node or "").split("/"))]
    for maker in filter(None, (op, *scopes)):
        found = list(_makers(text, maker))
        if len(found) == 1:
            return found[0]
    return 0, _code_end(text)


def _makers(text: str, op: str) -> Iterator[tuple[int, int]]:
    """The spans of the expressions in a line that could make the op."""
    encoded = text.encode()
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.expr) and _makes(node, op):
            # ast counts bytes
            start = len(encoded[: node.col_offset].decode())
            yield start, start + len(encoded[node.col_offset : node.end_col_offset].decode())


def _parsed(text: str) -> ast.AST:
    """The tree of a line, or of the head of a block; an empty one where it is only a part of a statement."""
    return _tree(text) or _tree(f"{text} pass") or ast.Module([], [])


@lru_cache(maxsize=16)
def _tree(code: str) -> ast.Module | None:
    """The tree of some code, or None where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the user's strings, which are no matter of ours
            return ast.parse(code)
    except (SyntaxError, ValueError):
        return None


def _makes(node: ast.expr, op: str) -> bool:
    if isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        return name.replace("_", "").lower() == re.sub(r"[Vv]\d+$", "", op).replace("_", "").lower()
    if isinstance(node, ast.Compare):
        return any(isinstance(operator, OPERATORS.get(op, ())) for operator in node.ops)
    if isinstance(node, (ast.BinOp, ast.UnaryOp)):
        return isinstance(node.op, OPERATORS.get(op, ()))
    return False


def _code_end(text: str) -> int:
    """Where the code of a line ends and a comment begins, if there is one."""
    try:
        for token in tokenize.generate_tokens(StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                return len(text[: token.start[1]].rstrip())
    except (tokenize.TokenError, SyntaxError):  # only a part of a statement
        pass
    return len(text)
