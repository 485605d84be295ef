"""`gradpass harden`: the original's bytes come back, and nobody minds the record from which they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from gradpass.program import savedmodel, skim, wire
from gradpass.rewrite import harden
from tests.models import save, with_pb
from tests.rewrite import modules
from tests.rewrite.test_graphs import X, session_of, tf1_model

OPTIONS: tuple[dict[str, Any], ...] = ({}, {"carrier": "sum"}, {"mode": "soft"})


def pb(folder: Path) -> bytes:
    return (folder / "saved_model.pb").read_bytes()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()) or "bridge")
@pytest.mark.parametrize("cls", modules.EVERY, ids=lambda c: c.__name__)
def test_gives_the_original_back(cls: type[tf.Module], options: dict[str, Any], tmp_path: Path) -> None:
    source = save(cls(), tmp_path / "m")
    gp.fix(source, tmp_path / "f", cross_check=False, **options)
    assert pb(tmp_path / "f") != pb(source)
    out = gp.harden(tmp_path / "f")
    assert out == tmp_path / "f-hardened"
    before, after = files(source), files(out)
    # The fingerprint has a UUID of its own for each file written.
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"fingerprint.pb"}


def test_tf1_saved_model(tmp_path: Path) -> None:
    """TensorFlow 1 puts what it finds in a collection into the graph's; the record must not disturb it."""
    source = tf1_model(tmp_path / "m", resource=True, at_output=True)
    gp.fix(source, tmp_path / "f", cross_check=False)
    values = []
    for folder in (source, tmp_path / "f"):
        session, signature = session_of(folder)
        values.append(session.run(signature.outputs["y"].name, {signature.inputs["x"].name: X}).tobytes())
        assert bool(session.graph.get_collection(harden.KEY)) == (folder != source)
    assert values[0] == values[1]
    with tf.Graph().as_default(), tf.compat.v1.Session() as scoped:
        tf.compat.v1.saved_model.load(scoped, ["serve"], str(tmp_path / "f"), import_scope="scope")
    tf.saved_model.load(str(tmp_path / "f"))
    assert pb(gp.harden(tmp_path / "f")) == pb(source)


def test_onnx_export_takes_the_record(tmp_path: Path) -> None:
    """The cross-check exports with tf2onnx and compares; the file that it looks at has the record."""
    source = save(modules.TwoLayers(), tmp_path / "m")
    report = gp.fix(source, tmp_path / "f")
    assert harden.original(pb(tmp_path / "f"), "f") == pb(source)
    statuses = {row.name: row.status for row in report.crosscheck}
    assert report.ok and "failed" not in statuses.values()
    assert [status for name, status in statuses.items() if "ONNX" in name] == ["passed"] * sum(
        "ONNX" in name for name in statuses
    )


def test_twice_fixed_is_hardened_step_by_step(tmp_path: Path) -> None:
    source = save(modules.TwoLayers(), tmp_path / "m")
    gp.fix(source, tmp_path / "1", cross_check=False)
    once = pb(tmp_path / "1")
    # A second record around the first one, as a second fix of another entry writes it.
    twice = harden.with_record(once, wire.delimited(1, b"") + once)
    assert harden.original(twice, "twice") == once
    assert harden.original(once, "once") == pb(source)


def test_same_bytes_each_time_and_small(tmp_path: Path) -> None:
    source = save(modules.NestedCalls(), tmp_path / "m")
    for name in ("1", "2"):
        gp.fix(source, tmp_path / name, cross_check=False)
    assert pb(tmp_path / "1") == pb(tmp_path / "2")
    record = len(pb(tmp_path / "1")) - len(harden.without_record(pb(tmp_path / "1")))
    assert 0 < record < len(pb(source)) / 3


@pytest.mark.parametrize("seed", range(20))
def test_any_two_messages(seed: int) -> None:
    """The record of a random change, functions dropped, doubled and out of order among it, leads back."""
    rng = np.random.default_rng(seed)

    def model(functions: list[bytes]) -> bytes:
        library = b"".join(wire.delimited(savedmodel.LIBRARY_FUNCTION, f) for f in functions)
        graph = wire.delimited(1, b"node") + wire.delimited(savedmodel.LIBRARY, library)
        meta = wire.delimited(1, b"\x0a\x00") + wire.delimited(savedmodel.GRAPH_DEF, graph)
        return wire.varint(8) + b"\x01" + wire.delimited(savedmodel.META_GRAPHS, meta)

    functions = [rng.bytes(rng.integers(1, 40)) for _ in range(30)]
    changed = [functions[i] for i in rng.integers(0, 30, 25)] + [rng.bytes(20)]
    before, after = model(functions), model(changed)
    fixed = harden.with_record(before, after)
    assert harden.original(fixed, "x") == before and harden.without_record(fixed) == after


def test_refusals(tmp_path: Path) -> None:
    source = save(modules.TwoLayers(), tmp_path / "m")
    with pytest.raises(gp.GradpassError, match="carries no record of an original: no `gradpass fix` wrote it"):
        gp.harden(source, tmp_path / "h")
    gp.fix(source, tmp_path / "f", cross_check=False)
    data = pb(tmp_path / "f")
    at = data.index(b"MatMul")
    changed = with_pb(tmp_path / "f", tmp_path / "changed", data[:at] + b"MatMuL" + data[at + 6 :])
    with pytest.raises(gp.GradpassError, match="has been changed since `gradpass fix` wrote it"):
        gp.harden(changed, tmp_path / "h")
    assert not (tmp_path / "h").exists()
    (tmp_path / "h").mkdir()
    with pytest.raises(gp.GradpassError, match="exists; give --force"):
        gp.harden(tmp_path / "f", tmp_path / "h")
    assert gp.harden(tmp_path / "f", tmp_path / "h", force=True) == tmp_path / "h"


def test_one_graph_has_no_place_for_it(tmp_path: Path) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [3], "x")
        tf.round(x * tf.constant([1.0, 2.0, 3.0]), name="y")
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(gp.GradpassError, match="is one graph, which has no place for what it was before; take the"):
        gp.harden(tmp_path / "frozen.pb")


def test_record_is_text_under_its_own_key(tmp_path: Path) -> None:
    source = save(modules.TwoLayers(), tmp_path / "m")
    gp.fix(source, tmp_path / "f", cross_check=False)
    (meta,) = skim.payloads(pb(tmp_path / "f"), savedmodel.META_GRAPHS)
    parsed = tf.compat.v1.MetaGraphDef.FromString(bytes(meta))
    (text,) = parsed.collection_def[harden.KEY].bytes_list.value
    assert text.decode("ascii").isprintable()
