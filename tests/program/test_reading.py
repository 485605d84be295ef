"""What is read from disk: TF2 and TF1 SavedModels, frozen graphs, and what is said of files that are none of these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from gradpass.errors import GradpassError, TargetError
from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import save, save_expressions
from tests.rewrite.modules import NestedCalls, TwoLayers


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(NestedCalls(), tmp_path_factory.mktemp("nested") / "m")


def tf1_model(path: Path, resource: bool) -> dict[str, Any]:
    """A TF1 SavedModel with one live and one severed variable; gives what tf.gradients says of them."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", [3, 4], use_resource=resource)
        u = v1.get_variable("u", [4, 2], use_resource=resource)
        fixed = v1.get_variable("fixed", [2], trainable=False, use_resource=resource)
        y = tf.sign(x @ w) @ u + fixed
        y = tf.identity(y, name="y")
        truth = dict(zip(("w", "u"), tf.gradients(y, [w, u]), strict=True))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})
    return truth


@pytest.mark.parametrize("resource", [True, False])
def test_tf1_saved_model(tmp_path: Path, resource: bool) -> None:
    truth = tf1_model(tmp_path / "m", resource)
    model = read(tmp_path / "m")
    assert model.kind == "savedmodel-v1"
    (verdict,) = analyse(model)
    states = {t.name: t.structure for t in verdict.targets}
    assert states == {"w": "zero", "u": "flows"}
    assert truth["w"] is not None  # zeros, not None: Sign's gradient
    assert [(c.op, c.starves) for c in verdict.cuts] == [("Sign", [list(states).index("w")])]


def test_frozen_graph(tmp_path: Path) -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    module = TwoLayers()
    frozen = convert_variables_to_constants_v2(module.serve.get_concrete_function())
    file = tmp_path / "frozen.pb"
    file.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    (verdict,) = analyse(read(file))
    assert [(t.kind, t.name, t.structure) for t in verdict.targets] == [("input", "x", "none")]
    assert [c.op for c in verdict.cuts] == ["Greater", "Greater"]


def test_training_meta_graph(tmp_path: Path) -> None:
    """A .meta with gradients and an optimizer in it: only the forward graph counts."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", [3, 4])
        u = v1.get_variable("u", [4, 2], use_resource=True)
        loss = tf.reduce_mean((tf.round(x @ w) @ u) ** 2, name="loss")
        v1.train.AdamOptimizer().minimize(loss)
        v1.train.Saver()
        v1.train.export_meta_graph(str(tmp_path / "m.meta"))
    (verdict,) = analyse(read(tmp_path / "m.meta"))
    assert "loss" in verdict.outputs
    assert not [name for name in verdict.outputs if "gradients" in name or "Adam" in name or "save" in name]
    assert {t.name: t.structure for t in verdict.targets} == {"w": "none", "u": "flows"}
    assert [c.op for c in verdict.cuts] == ["Round"]
    with pytest.raises(GradpassError, match="only checks"):
        repair(read(tmp_path / "m.meta"))


def test_tf1_loop_is_followed(tmp_path: Path) -> None:
    """What a loop of TF1 carries: the fixpoint goes round the back edge."""
    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default():
            x = v1.placeholder(tf.float32, [3], name="x")
            a, b, c = (v1.get_variable(n, [3], use_resource=False) for n in "abc")
            # b reaches the sum only through what an earlier turn carried
            y = tf.while_loop(
                lambda i, s, t: i < 3, lambda i, s, t: (i + 1, s + t, b * 1.0), [tf.constant(0), a * x, tf.round(c)]
            )[1]
            truth = [g is not None for g in tf.gradients(tf.identity(y, name="y"), [a, b])]
            v1.train.export_meta_graph(str(tmp_path / "g.meta"))
    finally:
        v1.enable_control_flow_v2()
    assert truth == [True, True]
    (verdict,) = analyse(read(tmp_path / "g.meta"))
    assert {t.name: t.structure for t in verdict.targets if t.name in "ab"} == {"a": "flows", "b": "flows"}


def test_no_tensorflow_is_imported(nested: Path) -> None:
    code = (
        "import sys; from gradpass.program.savedmodel import read; from gradpass.flow.analysis import analyse;"
        f"v, = analyse(read({str(nested)!r})); assert v.cuts[0].op == 'ArgMax'; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_targets_are_the_users(nested: Path) -> None:
    (verdict,) = analyse(read(nested))
    assert [(t.name, t.path, t.shape, t.parameters) for t in verdict.targets] == [
        ("w", "w", (4, 8), 32), ("codebook", "codebook", (8, 5), 40), ("head", "head", (5, 3), 15)
    ]  # fmt: skip
    assert verdict.outputs == ["index", "probabilities"]


def broken(tmp_path: Path, nested: Path, how: str) -> Path:
    folder = tmp_path / "m"
    folder.mkdir()
    whole = (nested / "saved_model.pb").read_bytes()
    content = {
        "truncated": whole[: len(whole) // 2],
        "one byte short": whole[:-1],
        "empty": b"",
        "text": b"this is no model at all, it is a sentence",
        "no graph": b"\x08\x01",
    }[how]
    (folder / "saved_model.pb").write_bytes(content)
    return folder


@pytest.mark.parametrize("how", ["truncated", "one byte short", "empty", "text", "no graph"])
def test_unreadable_model_is_a_target_error(tmp_path: Path, nested: Path, how: str) -> None:
    with pytest.raises(TargetError) as caught:
        read(broken(tmp_path, nested, how))
    assert "\n" not in str(caught.value)


def test_every_truncation_is_a_target_error(tmp_path: Path) -> None:
    """Cut anywhere, a SavedModel either reads as whole or is refused; nothing else is raised."""
    source = save_expressions(tmp_path / "m", ["tf.reduce_sum(tf.round(v))"])
    whole = (source / "saved_model.pb").read_bytes()
    for end in range(0, len(whole), 97):
        (source / "saved_model.pb").write_bytes(whole[:end])
        with pytest.raises(TargetError):
            analyse(read(source))


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing", "does not exist"), ("folder", "no saved_model.pb"), ("file.txt", "no SavedModel folder")],
)
def test_what_is_no_model(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    with pytest.raises(TargetError, match=says):
        read(tmp_path / name)


def test_unknown_entry_names_those_that_are_there(nested: Path) -> None:
    with pytest.raises(TargetError, match=r"serving_default \(or --entry all\)"):
        analyse(read(nested), "nothing")


def test_model_without_signatures_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(TargetError, match="no signature"):
        analyse(read(tmp_path / "m"))
