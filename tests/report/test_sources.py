"""The user's line for each diagnostic: whose frame it is, its text, what of it is underlined, and what users see."""

from __future__ import annotations

import inspect
import io
import json
import linecache
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

import gradpass
from gradpass.api import check
from gradpass.flow.analysis import analyse
from gradpass.program.debuginfo import FILE, DebugInfo, Frame
from gradpass.program.trace import of_function
from gradpass.report.build import build
from gradpass.report.diagnostics import Report, Source
from gradpass.report.sources import marked, source_of, whose
from gradpass.report.text import render_report, show
from tests.report.verdicts import cut, model, target, verdict

SAVE = tf.saved_model.SaveOptions(save_debug_info=True)


class Places(tf.Module):
    """Five variables, each severed in another kind of place."""

    def __init__(self) -> None:
        super().__init__()
        self.v = [tf.Variable([1.0, 2.0, 3.0], name=f"v{i}") for i in range(5)]

    @tf.function
    def called(self, x: Any) -> Any:
        return tf.floor(x * self.v[0])  # Floor

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        y = self.called(x)
        for _ in tf.range(3):
            y += tf.round(y * self.v[1])  # Round
        if tf.reduce_sum(x) > 0:
            y += tf.math.ceil(self.v[2])  # Ceil
        else:
            y += 1.0
        y += tf.map_fn(lambda t: tf.sign(t * 2.0), self.v[3])  # Sign
        return y + tf.math.rint(self.v[4])  # Rint


class Quantised(keras.layers.Layer):
    """A layer of the user's."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")

    def call(self, x: Any) -> Any:
        return tf.round(x @ self.w)  # Layer


def functional() -> keras.Model:
    """Layers of the user's and of Keras, of which one severs gradients by itself."""
    x = keras.Input((4,))
    y = keras.layers.Dense(3)(x)
    y = Quantised()(y)
    y = keras.layers.Lambda(lambda t: tf.floor(t * 2.0))(y)  # Lambda
    y = keras.layers.Dense(2, activation=binarised)(y)
    return keras.Model(x, y)


def binarised(x: Any) -> Any:
    return keras.ops.rint(x) if hasattr(keras.ops, "rint") else keras.ops.round(x)  # Activation


def line_of(mark: str) -> int:
    """The number of the line of this file that bears a comment."""
    lines = inspect.getsource(sys.modules[__name__]).splitlines()
    (found,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"  # {mark}")]
    return found


def lines(report: Report) -> dict[str, Source]:
    """Op -> the source of its diagnostic; each has one."""
    assert all(d.source for d in report.diagnostics if d.node)
    return {str(d.op): d.source for d in report.diagnostics if d.source}


def expected(mark: str, text: str) -> Source:
    """The line of this file, as it is shown where tests run."""
    return Source(str(Path(__file__).relative_to(Path.cwd())), line_of(mark), text)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sources") / "places"
    module = Places()
    tf.saved_model.save(module, str(path), signatures=module.serve, options=SAVE)
    return path


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(request.config.rootpath)


def assert_places(report: Report) -> None:
    found = lines(report)
    assert found["Floor"] == expected("Floor", "return tf.floor(x * self.v[0])  # Floor")
    assert found["Round"] == expected("Round", "y += tf.round(y * self.v[1])  # Round")
    assert found["Ceil"] == expected("Ceil", "y += tf.math.ceil(self.v[2])  # Ceil")
    assert found["Sign"] == expected("Sign", "y += tf.map_fn(lambda t: tf.sign(t * 2.0), self.v[3])  # Sign")
    assert found["Rint"] == expected("Rint", "return y + tf.math.rint(self.v[4])  # Rint")


def test_lines_of_a_saved_model(places: Path) -> None:
    assert_places(check(places))


def test_lines_of_a_live_function() -> None:
    module = Places()
    live = of_function(module.serve.get_concrete_function())
    assert_places(build(live, analyse(live, None, "variables")))


def assert_keras(report: Report) -> None:
    found = {d.node.split("/")[1].rstrip("_0123456789"): d.source for d in report.diagnostics if d.node}
    assert found["quantised"] == expected("Layer", "return tf.round(x @ self.w)  # Layer")
    assert found["lambda"] and found["lambda"].line == line_of("Lambda")
    assert found["dense"] and found["dense"].line == line_of("Activation")


def test_lines_of_keras_layers(tmp_path: Path) -> None:
    network = functional()
    tf.saved_model.save(network, str(tmp_path / "model"), options=SAVE)
    assert_keras(check(tmp_path / "model"))
    live = of_function(tf.function(lambda x: network(x) * 1.0).get_concrete_function(tf.TensorSpec([2, 4])))
    assert_keras(build(live, analyse(live, None, "variables")))


def rounding() -> keras.Model:
    """A network of which Keras alone makes every node."""
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Activation(keras.ops.round)(keras.layers.Dense(3)(x)))


def test_who_saves_a_model_made_no_node_of_it(tmp_path: Path) -> None:
    tf.saved_model.save(rounding(), str(tmp_path / "model"), options=SAVE)
    (found,) = check(tmp_path / "model").diagnostics
    assert found.op == "Round" and found.source is None


def test_who_calls_a_model_in_a_traced_function_is_shown(tmp_path: Path) -> None:
    network = rounding()
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", lambda x: network(x) * 2.0, [tf.TensorSpec([None, 4])])  # Call
    archive.write_out(str(tmp_path / "model"), options=SAVE, verbose=False)
    found = check(tmp_path / "model", entry="serve")
    assert lines(found)["Round"].line == line_of("Call")


def layers(report: Report) -> dict[str, list[str]]:
    """Scope of the op -> what is said of layers."""
    return {
        d.node.rpartition("/")[0]: [note for note in d.notes if "the layer" in note]
        for d in report.diagnostics
        if d.node
    }


def test_a_scope_that_keras_numbered_anew_is_told_by_its_variables(tmp_path: Path) -> None:
    x = keras.Input((4,))
    network = keras.Model(x, Quantised(name="q_1")(Quantised(name="q")(x)))
    tf.saved_model.save(network, str(tmp_path / "model"))
    found = layers(check(tmp_path / "model"))
    for name in ("q", "q_1"):
        (scope,) = [scope for scope, notes in found.items() if any(f"`{name}`" in note for note in notes)]
        assert scope.partition("/")[2] != name
        assert found[scope] == [f"the scope `{scope}` reads the variables of the layer `{name}`"]


class Scoped(tf.Module):
    """An op behind a branch within a call, in a scope `inner`, beside a variable of `owner`."""

    def __init__(self, *owners: str) -> None:
        super().__init__()
        self.v = [tf.Variable([1.0, 2.0], name=f"{owner}/v".lstrip("/")) for owner in owners]

    @tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        def rounded() -> Any:
            with tf.name_scope("inner"):
                return tf.round(tf.add_n([v * x for v in self.v]))

        return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, rounded)


@pytest.mark.parametrize("owners", [["owner"], ["owner", "owner"], ["owner", "other"], ["inner"], [""]])
def test_a_scope_is_followed_through_calls_and_branches(tmp_path: Path, owners: list[str]) -> None:
    module = Scoped(*owners)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    ((scope, notes),) = layers(check(tmp_path / "model")).items()
    assert scope.endswith("/inner")
    assert notes == (
        [f"the scope `{scope}` reads the variables of the layer `owner`"] if set(owners) == {"owner"} else []
    )


def test_check_with_source_lines_imports_no_tensorflow(places: Path) -> None:
    program = (
        "import sys, gradpass.cli as cli\n"
        f"status = cli.main(['check', {str(places)!r}, '--format', 'json'])\n"
        "loaded = [m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules]\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    found = {d["op"]: d["source"] for d in json.loads(ran.stdout)["diagnostics"]}
    assert found["Ceil"] == {
        "file": str(Path(__file__).relative_to(Path.cwd())),
        "line": line_of("Ceil"),
        "text": "y += tf.math.ceil(self.v[2])  # Ceil",
    }


def test_a_damaged_file_is_noted_once_and_changes_nothing_else(places: Path, tmp_path: Path) -> None:
    whole = check(places)
    for folder in ("variables", "debug"):
        (tmp_path / folder).mkdir()
    (tmp_path / "saved_model.pb").write_bytes((places / "saved_model.pb").read_bytes())
    (tmp_path / "debug" / "saved_model_debug_info.pb").write_bytes(b"\xff" * 100)
    damaged = check(tmp_path)
    assert [d.code for d in damaged.diagnostics] == [d.code for d in whole.diagnostics]
    assert not any(d.source for d in damaged.diagnostics)
    assert sum("saved_model_debug_info.pb is damaged" in note for d in damaged.diagnostics for note in d.notes) == 1
    assert not any("damaged" in note for d in whole.diagnostics for note in d.notes)


def test_where_no_lines_were_saved_is_said_once_how_to_have_them(places: Path, tmp_path: Path) -> None:
    shutil.copytree(places, tmp_path / "m", ignore=shutil.ignore_patterns("debug"))
    notes = [note for d in check(tmp_path / "m").diagnostics for note in d.notes if "save_debug_info=True" in note]
    assert len(notes) == 1
    assert not any("save_debug_info" in note for d in check(places).diagnostics for note in d.notes)


def test_a_file_edited_after_the_model_was_saved_is_noted_once(places: Path, tmp_path: Path) -> None:
    shutil.copytree(places, tmp_path / "m")
    edited = f"`{Path(__file__).relative_to(Path.cwd())}` was edited after the model was saved"
    debug = tmp_path / "m" / FILE
    written = Path(__file__).stat().st_mtime
    for when, times in ((written - 10, 1), (written + 10, 0)):
        os.utime(debug, (when, when))
        notes = [note for d in check(tmp_path / "m").diagnostics for note in d.notes if note.startswith(edited)]
        assert len(notes) == times


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (tf.__file__, "framework"),
        (keras.__file__, "framework"),
        (gradpass.__file__, "framework"),
        (inspect.__file__, "framework"),
        (pytest.__file__, "library"),
        (__file__, "user"),
        ("/opt/venv/lib/python3.9/site-packages/tensorflow/python/ops/math_ops.py", "framework"),
        ("/usr/lib/python3/dist-packages/tf_keras/src/engine/base_layer.py", "framework"),
        ("/build/bin/x.runfiles/org_tensorflow/tensorflow/python/ops/math_ops.py", "framework"),
        ("/src/keras/keras/src/layers/layer.py", "framework"),
        (r"C:\Python312\Lib\site-packages\keras\src\layers\layer.py", "framework"),
        (r"C:\Python312\Lib\contextlib.py", "framework"),
        ("/opt/conda/lib/python3.10/concurrent/futures/thread.py", "framework"),
        ("/tmp/__autograph_generated_fileab12.py", "framework"),
        ("<frozen runpy>", "framework"),
        ("<attrs generated init model.Layer>", "framework"),
        ("/opt/venv/lib/python3.9/site-packages/tensorflow_probability/python/math.py", "library"),
        ("/opt/venv/lib/python3.9/site-packages/keras_hub/src/layers/rotary.py", "library"),
        (r"C:\Users\me\model.py", "user"),
        ("/home/me/lib/random.py", "user"),
        ("/home/me/tensorflow/model.py", "user"),
        ("/tmp/ipykernel_17/2345.py", "user"),
        ("<ipython-input-3-0a1b>", "user"),
        ("<stdin>", "user"),
        ("model.py", "user"),
    ],
)
def test_whose_a_file_is(file: str, expected: str) -> None:
    assert whose(file) == expected


def frame(file: str, line: int = 1, function: str = "f", text: str = "") -> Frame:
    return Frame(file, line, function, text)


LIBRARY = "/venv/lib/python3.11/site-packages/tensorflow_probability/python/math.py"
KERAS = "/venv/lib/python3.11/site-packages/keras/src/layers/layer.py"


@pytest.mark.parametrize(
    ("stack", "shown"),
    [
        ([frame("main.py"), frame("model.py", 7), frame(KERAS)], "model.py:7"),
        ([frame("main.py"), frame(LIBRARY, 5), frame(KERAS)], "main.py:1"),
        ([frame(KERAS), frame(LIBRARY, 4), frame(LIBRARY, 5), frame(KERAS)], f"{LIBRARY}:5"),
        ([frame("main.py", 3), frame("model.py", 0)], "main.py:3"),
        ([frame(KERAS)], None),
        ([], None),
    ],
)
def test_the_frame_that_is_chosen(stack: list[Frame], shown: str | None) -> None:
    found = source_of(DebugInfo({("f", "Round"): tuple(stack)}), "f", "Round")
    assert (f"{found.file}:{found.line}" if found else None) == shown


def text_of(file: Path | str, line: int, function: str, text: str = "") -> str:
    """The text that is shown of a line."""
    found = source_of(DebugInfo({("f", "Round"): (Frame(str(file), line, function, text),)}), "f", "Round")
    assert found
    return found.text


def test_the_text_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "scale = 2\n\ndef call(x):\n    def inner():\n        return 1\n    return tf.round(x)\n\nclass A:\n  b = 1\n"
    )
    assert text_of(file, 6, "call") == "return tf.round(x)"
    assert text_of(file, 5, "inner") == text_of(file, 5, "call") == text_of(file, 5, "<lambda>") == "return 1"
    assert text_of(file, 1, "<module>") == "scale = 2" and text_of(file, 9, "A") == "b = 1"
    assert text_of(file, 1, "f", "  what was recorded ") == "what was recorded"


def test_no_text_of_a_file_that_is_another_by_now(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text("scale = 2\n\ndef call(x):\n    return tf.round(x)\n")
    assert text_of(file, 1, "call") == text_of(file, 4, "build") == text_of(file, 4, "<module>") == ""
    assert text_of(file, 40, "call") == ""
    assert text_of(tmp_path / "missing.py", 1, "call") == ""
    (tmp_path / "broken.py").write_text("def call(x:\n")
    assert text_of(tmp_path / "broken.py", 1, "call") == text_of(tmp_path / "broken.py", 1, "<lambda>") == ""


def test_no_file_of_the_same_name_elsewhere_is_shown() -> None:
    assert linecache.getline("contextlib.py", 1)  # it searches sys.path
    linecache.clearcache()
    assert text_of("contextlib.py", 1, "<module>") == ""


def test_the_cells_of_a_notebook_have_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "<ipython-input-1-ab>"
    monkeypatch.setitem(linecache.cache, cell, (10, None, ["def call(x):\n", "    return tf.round(x)\n"], cell))
    assert text_of(cell, 2, "call") == "return tf.round(x)"


@pytest.mark.parametrize(
    ("text", "op", "underlined"),
    [
        ("y = tf.round(x * 2) + 1", "Round", "tf.round(x * 2)"),
        ("y = tf.math.top_k(x, 3)[1]  # top", "TopKV2", "tf.math.top_k(x, 3)"),
        ("return tf.argmax(f(x), 1) if a else b", "ArgMax", "tf.argmax(f(x), 1)"),
        ("if greater(x, y):", "Greater", "greater(x, y)"),
        ("mask = tf.cast(x > 0.5, tf.float32)", "Greater", "x > 0.5"),
        ("größe = tf.round(länge) // 2", "FloorDiv", "tf.round(länge) // 2"),
        ("größe = tf.round(länge) // 2", "Round", "tf.round(länge)"),
        ("keep = ~tf.is_nan(x)", "LogicalNot", "~tf.is_nan(x)"),
        ("y = tf.round(x) + tf.round(z)", "Round", "y = tf.round(x) + tf.round(z)"),
        ("y = quantise(x)  # tf.round(x)", "Round", "y = quantise(x)"),
        ("y = tf.round(  # to whole numbers", "Round", "y = tf.round("),
        ("x, name='tf.round(x)')", "Round", "x, name='tf.round(x)')"),
        ("y = 'unfinished", "Round", "y = 'unfinished"),
        ("y = tf.round(x)", None, "y = tf.round(x)"),
    ],
)
def test_what_is_underlined(text: str, op: str | None, underlined: str) -> None:
    start, end = marked(text, op)
    assert text[start:end] == underlined


def shown(source: Source | None, width: int = 60, stack: tuple[str, ...] = ()) -> list[str]:
    """The lines of a report of one rounding op, down to the path."""
    report = build(model({"Round": "Round"}), [verdict([target("a", "none")], cuts=[cut("Round", [0])])])
    report.diagnostics[0].source, report.diagnostics[0].stack = source, list(stack)
    rows = [item.plain.rstrip() for item in render_report(report, width)]  # type: ignore[union-attr]
    start = next(i for i, row in enumerate(rows) if "--> " in row)
    return rows[start : next(i for i, row in enumerate(rows) if "=" in row[:6])]


def test_an_excerpt() -> None:
    assert shown(Source("model.py", 42, "y = tf.round(x)  # whole")) == [
        "  --> model.py:42",
        "   |",
        " 42| y = tf.round(x)  # whole",
        "   |     ^^^^^^^^^^^",
        "   |",
        "   | a → MatMul ✗ Round → Mul → y",
        "   |",
    ]


def test_the_number_of_a_long_file_widens_the_margin() -> None:
    assert shown(Source("model.py", 12345, "tf.round(x)"))[:4] == [
        "    --> model.py:12345",
        "     |",
        "12345| tf.round(x)",
        "     | ^^^^^^^^^^^",
    ]


def test_a_line_without_a_text_is_named_only() -> None:
    assert shown(Source("model.py", 42, ""))[:3] == ["  --> model.py:42", "   |", "   | a → MatMul ✗ Round → Mul → y"]


@pytest.mark.parametrize("before", ["", "y = first(a_long_name, another_long_name) + second(z) + "])
@pytest.mark.parametrize("after", ["", " + third(a_long_name, another_long_name) + fourth(z, z)"])
def test_a_long_line_keeps_the_underlined_part_and_the_width(before: str, after: str) -> None:
    _, _, code, underline, *_ = shown(Source("model.py", 42, f"{before}tf.round(x){after}"))
    assert max(len(code), len(underline)) <= 60
    start = underline.index("^")
    assert code[start:].startswith("tf.round(x)") and underline[start:].strip() == "^" * len("tf.round(x)")


def test_tabs_do_not_shift_the_underline() -> None:
    _, _, code, underline, *_ = shown(Source("model.py", 42, "y\t=\ttf.round(x)"))
    assert (code, underline) == (" 42| y = tf.round(x)", "   |     ^^^^^^^^^^^")


@pytest.mark.parametrize(("encoding", "letter"), [("ascii", "?"), ("latin-1", "é")])
def test_code_that_a_terminal_cannot_write_is_replaced(encoding: str, letter: str) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    report = build(model({"Round": "Round"}), [verdict([target("a", "none")], cuts=[cut("Round", [0])])])
    report.diagnostics[0].source = Source("model.py", 42, "é = tf.round(x)")
    show(report.render, file)
    file.flush()
    assert f" 42| {letter} = tf.round(x)\n   |     ^^^^^^^^^^^\n" in raw.getvalue().decode(encoding)


def test_wide_characters_shift_the_underline() -> None:
    _, _, code, underline, *_ = shown(Source("model.py", 42, "長さ = tf.round(x)"))
    assert underline.index("^") == code.index("tf.round") + 2


@pytest.mark.parametrize(
    ("stack", "where"),
    [
        (("StatefulPartitionedCall",), "node Round"),
        (("StatefulPartitionedCall", "model/dense/StatefulPartitionedCall_2"), "node Round, inside model/dense"),
        (("model/PartitionedCall", "scan/while"), "node Round, inside model → scan/while"),
    ],
)
def test_without_a_line_the_scopes_of_the_calls_are_shown(stack: tuple[str, ...], where: str) -> None:
    assert shown(None, 90, stack)[0] == f"  --> {where}"
