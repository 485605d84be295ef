"""Values in a session: what only the top-level graph does wrong is found there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.crosscheck import Check
from gradpass.crosscheck.session import in_session
from tests.pruning.programs import saved
from tests.pruning.test_refusals import changed


def checked(original: Path, fixed: Path, **without: list[str]) -> Check:
    (row,) = in_session(original, fixed, ["serving_default"], without)
    return row


def test_the_same_model(tmp_path: Path) -> None:
    path = saved(lambda m, x: {"y": x @ m.a}, tmp_path / "m")
    row = checked(path, path)
    assert (row.name, row.status, row.figure) == ("session", "passed", 0.0)


def test_other_values(tmp_path: Path) -> None:
    one, other = (saved(body, tmp_path / name) for name, body in (
        ("a", lambda m, x: {"y": x @ m.a}), ("b", lambda m, x: {"y": x @ m.b}),
    ))  # fmt: skip
    assert checked(one, other).status == "failed"


def test_weights_that_only_a_session_restores_wrongly(tmp_path: Path) -> None:
    def cross(nodes: Any) -> None:
        for node in nodes.values():
            if "traced_restore" in node.attr["f"].func.name:
                places = [i for i, text in enumerate(node.input) if text in ("a", "b")]
                node.input[places[0]], node.input[places[1]] = node.input[places[1]], node.input[places[0]]

    path = saved(lambda m, x: {"y": x @ m.a @ m.b}, tmp_path / "m")
    wrong = changed(path, tmp_path / "wrong", cross)
    row = checked(path, wrong)
    assert row.status == "failed" and row.reason is not None and "other bytes: y" in row.reason
    same = [
        tf.saved_model.load(str(each)).signatures["serving_default"](tf.ones([2, 3]))["y"] for each in (path, wrong)
    ]
    assert bool(tf.reduce_all(same[0] == same[1]))


def test_outputs_that_are_gone(tmp_path: Path) -> None:
    both = saved(lambda m, x: {"y": x @ m.a, "z": x @ m.b}, tmp_path / "both")
    one = saved(lambda m, x: {"y": x @ m.a}, tmp_path / "one")
    assert checked(both, one).status == "failed"
    assert checked(both, one, serving_default=["z"]).status == "passed"


def test_a_model_that_draws_is_not_compared(tmp_path: Path) -> None:
    path = saved(lambda m, x: {"y": x + tf.random.normal([3])}, tmp_path / "m")
    row = checked(path, path)
    assert row.status == "skipped" and "in each session" in str(row.reason)


def test_a_model_that_no_session_loads(tmp_path: Path) -> None:
    path = saved(lambda m, x: {"y": x @ m.a}, tmp_path / "m")

    def lose(nodes: Any) -> None:
        for node in nodes.values():
            if "traced_restore" in node.attr["f"].func.name:
                node.op = "NoOp"
                node.attr.clear()
                node.input[:] = []

    broken = changed(path, tmp_path / "broken", lose)
    assert checked(broken, path).status == "skipped"
    assert checked(path, broken).status == "failed"
