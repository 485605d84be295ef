"""The writer's promise: the source untouched, and under the final name the whole old state or the whole new one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

from gradpass.errors import OutputError
from gradpass.program import wire, writer
from gradpass.program.writer import write_file, write_saved_model

Tree = dict[str, bytes | None]


def graph_bytes(node: str) -> bytes:
    meta = MetaGraphDef()
    meta.graph_def.node.add(name=node, op="NoOp")
    meta.signature_def["serving_default"].method_name = "predict"
    return wire.delimited(writer.META_GRAPH, meta.SerializeToString())


NEW = graph_bytes("new")
OLD_FINGERPRINT = bytes([8, 1, 16, 2, 24, 3, 32, 4, 40, 5, 50, 2, 8, 1, 58, 3]) + b"old"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "assets" / "deep").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(graph_bytes("old"))
    (folder / "fingerprint.pb").write_bytes(OLD_FINGERPRINT)
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights" * 1000)
    (folder / "assets" / "deep" / "words.txt").write_text("a\nb\n")
    return folder


@pytest.fixture
def out(source: Path) -> Path:
    return source.parent / "model-fixed"


def tree(folder: Path) -> Tree:
    """Every name under a folder with its content, hidden ones too."""
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


def new_tree(source: Path) -> Tree:
    fresh = tree(source)
    fresh["saved_model.pb"] = NEW
    del fresh["fingerprint.pb"]
    return fresh


def without_fingerprint(files: Tree) -> Tree:
    return {name: data for name, data in files.items() if name != "fingerprint.pb"}


def test_writes_the_new_graph_beside_the_same_files(source: Path, out: Path) -> None:
    before = tree(source)
    write_saved_model(source, out, NEW, force=False)
    assert without_fingerprint(tree(out)) == new_tree(source)
    assert tree(source) == before
    assert sorted(p.name for p in out.parent.iterdir()) == ["model", "model-fixed"]


def test_weights_are_linked_and_the_graph_is_not(source: Path, out: Path) -> None:
    write_saved_model(source, out, NEW, force=False)
    weights = "variables/variables.data-00000-of-00001"
    assert (out / weights).samefile(source / weights)
    assert not (out / "saved_model.pb").samefile(source / "saved_model.pb")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links")
def test_files_behind_symbolic_links_arrive_as_files(source: Path, out: Path) -> None:
    blob = source.parent / "blob"
    (source / "variables" / "variables.index").rename(blob)
    (source / "variables" / "variables.index").symlink_to(Path("..") / ".." / "blob")
    write_saved_model(source, out, NEW, force=False)
    assert not (out / "variables" / "variables.index").is_symlink()
    assert (out / "variables" / "variables.index").read_bytes() == b"index"


def test_copies_where_links_do_not_work(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    write_saved_model(source, out, NEW, force=False)
    assert without_fingerprint(tree(out)) == new_tree(source)
    weights = "variables/variables.data-00000-of-00001"
    assert not (out / weights).samefile(source / weights)


def numbers(fingerprint: bytes) -> dict[int, bytes]:
    return {f.number: fingerprint[f.payload : f.end] for f in wire.fields(fingerprint)}


def test_fingerprint_changes_with_the_graph_and_keeps_the_rest(source: Path, out: Path) -> None:
    write_saved_model(source, out, NEW, force=False)
    old, new = numbers(OLD_FINGERPRINT), numbers((out / "fingerprint.pb").read_bytes())
    assert old.keys() == new.keys()
    # Checksum, graph and uuid; not signatures, objects, checkpoint, version.
    assert {n for n in old if old[n] != new[n]} == {1, 2, 7}
    assert len(new[7]) == 36


def test_fingerprint_follows_signatures_too(source: Path) -> None:
    changed = MetaGraphDef.FromString(next(NEW[f.payload : f.end] for f in wire.fields(NEW)))
    changed.signature_def["other"].method_name = "predict"
    pb = wire.delimited(writer.META_GRAPH, changed.SerializeToString())
    old, new = numbers(OLD_FINGERPRINT), numbers(writer.fingerprint(OLD_FINGERPRINT, NEW, pb))
    assert {n for n in old if old[n] != new[n]} == {1, 3, 7}


def test_no_fingerprint_is_invented(source: Path, out: Path) -> None:
    (source / "fingerprint.pb").unlink()
    write_saved_model(source, out, NEW, force=False)
    assert tree(out) == {**tree(source), "saved_model.pb": NEW}


def refused(call: Callable[[], None], says: str) -> None:
    with pytest.raises(OutputError, match=says) as info:
        call()
    assert "\n" not in str(info.value)


def test_damaged_fingerprint_is_refused(source: Path, out: Path) -> None:
    (source / "fingerprint.pb").write_bytes(b"\xff")
    before = tree(source.parent)
    refused(lambda: write_saved_model(source, out, NEW, force=False), "fingerprint.pb is damaged")
    assert tree(source.parent) == before


def test_existing_output_needs_force(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "saved_model.pb").write_bytes(b"mine")
    before = tree(source.parent)
    refused(lambda: write_saved_model(source, out, NEW, force=False), "--force")
    assert tree(source.parent) == before
    write_saved_model(source, out, NEW, force=True)
    assert without_fingerprint(tree(out)) == new_tree(source)
    assert sorted(p.name for p in out.parent.iterdir()) == ["model", "model-fixed"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("where", [".", "..", "inside", "variables/deep"])
def test_source_is_never_written_into(source: Path, where: str, force: bool) -> None:
    before = tree(source.parent)
    refused(lambda: write_saved_model(source, source / where, NEW, force=force), "choose another place")
    assert tree(source.parent) == before


def test_link_to_the_source_is_the_source(source: Path, out: Path) -> None:
    out.symlink_to(source)
    before = tree(source)
    refused(lambda: write_saved_model(source, out, NEW, force=True), "the input itself")
    assert tree(source) == before


def test_force_replaces_models_only(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    refused(lambda: write_saved_model(source, out, NEW, force=True), "no SavedModel")
    assert tree(out) == {"thesis.tex": b"years"}
    note = out.parent / "note"
    note.write_text("text")
    refused(lambda: write_saved_model(source, note, NEW, force=True), "is a file")
    assert note.read_text() == "text"


def test_parent_that_is_a_file_or_missing(source: Path) -> None:
    blocker = source.parent / "blocker"
    blocker.write_text("file")
    before = tree(source.parent)
    refused(lambda: write_saved_model(source, blocker / "out", NEW, force=False), "a part of its path is a file")
    refused(lambda: write_saved_model(source, source.parent / "no" / "out", NEW, force=False), "output's folder exist")
    assert tree(source.parent) == before


def test_missing_source(tmp_path: Path) -> None:
    refused(lambda: write_saved_model(tmp_path / "no", tmp_path / "out", NEW, force=False), "does not exist")
    assert not any(tmp_path.iterdir())


CALLS = ("mkdir", "link", "open", "fsync", "rename", "rmtree")


def break_call(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, problem: BaseException, after: bool) -> list[str]:
    """Makes the nth call of one of the writer's system calls fail, before or after it did its work; logs the hits."""
    hits: list[str] = []
    owner: Any = {"open": writer, "rmtree": shutil}.get(name, os)
    real = open if name == "open" else getattr(owner, name)
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count != nth:
            return real(*args, **kwargs)
        hits.append(name)
        if after:
            result = real(*args, **kwargs)
            if name == "open":
                result.close()
        raise problem

    monkeypatch.setattr(owner, name, wrapped, raising=False)
    return hits


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", range(1, 6))
@pytest.mark.parametrize("name", CALLS)
def test_interrupted_anywhere_there_is_one_whole_state(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, after: bool, force: bool
) -> None:
    if force:
        shutil.copytree(source, out)
        (out / "saved_model.pb").write_bytes(b"before")
    before = tree(source.parent)
    with monkeypatch.context() as patch:
        hits = break_call(patch, name, nth, KeyboardInterrupt(), after)
        if not expect_interrupt(lambda: write_saved_model(source, out, NEW, force=force)):
            assert not hits
    if tree(source.parent) != before:
        # Removing a tree is what cleans up; only there, interrupted itself, may leftovers stay, hidden and apart.
        if name != "rmtree":
            assert sorted(p.name for p in out.parent.iterdir()) == ["model", "model-fixed"]
        assert without_fingerprint(tree(out)) == new_tree(source)
    assert tree(source) == {k.removeprefix("model/"): v for k, v in before.items() if k.startswith("model/")}


def expect_interrupt(call: Callable[[], None]) -> bool:
    try:
        call()
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("name", "nth"), [("mkdir", 1), ("mkdir", 2), ("open", 1), ("fsync", 1), ("rename", 1)])
def test_full_disk_leaves_nothing_behind(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, force: bool
) -> None:
    if force:
        shutil.copytree(source, out)
    before = tree(source.parent)
    with monkeypatch.context() as patch:
        hits = break_call(patch, name, nth, OSError(errno.ENOSPC, "No space left on device"), after=False)
        refused(lambda: write_saved_model(source, out, NEW, force=force), "No space left.*free some space")
        assert hits
    assert tree(source.parent) == before


def test_old_output_comes_back_when_the_second_rename_fails(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(source, out)
    before = tree(source.parent)
    with monkeypatch.context() as patch:
        hits = break_call(patch, "rename", 2, OSError(errno.EACCES, "Permission denied"), after=False)
        refused(lambda: write_saved_model(source, out, NEW, force=True), "Permission denied.*make the folder writable")
        assert hits
    assert tree(source.parent) == before


def test_predecessor_that_cannot_be_removed_is_named(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(source, out)
    with monkeypatch.context() as patch:
        break_call(patch, "rmtree", 1, OSError(errno.EIO, "Input/output error"), after=False)
        refused(
            lambda: write_saved_model(source, out, NEW, force=True), r"is written, but .* delete .*\.model-fixed\.old-"
        )
    assert without_fingerprint(tree(out)) == new_tree(source)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
@pytest.mark.parametrize("what", ["weights", "graph"])
def test_really_full_disk(source: Path, tmp_path: Path, what: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount here: {mounted.stderr.strip()}")
    try:
        pb = NEW
        if what == "weights":
            (source / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(2 << 20))
        else:
            pb = wire.delimited(99, bytes(2 << 20)) + NEW
        refused(lambda: write_saved_model(source, small / "out", pb, force=False), "free some space")
        assert not any(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_really_failing_write(source: Path, out: Path) -> None:
    before = tree(source.parent)
    code = (
        "import resource, sys; from pathlib import Path; from gradpass.program.writer import write_saved_model\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_saved_model(Path(sys.argv[1]), Path(sys.argv[2]), bytes(5000), force=False)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(source), str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "OutputError" in done.stderr
    assert "File too large" in done.stderr
    assert tree(source.parent) == before


def test_unreadable_source_is_blamed_on_the_source(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "variables" / "gone").symlink_to(source / "nowhere")
    refused(lambda: write_saved_model(source, out, NEW, force=False), "nowhere cannot be read")
    assert not out.exists()


def test_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "frozen.pb", tmp_path / "fixed.pb"
    source.write_bytes(b"old")
    write_file(source, out, b"new", force=False)
    assert tree(tmp_path) == {"frozen.pb": b"old", "fixed.pb": b"new"}
    refused(lambda: write_file(source, out, b"newer", force=False), "--force")
    refused(lambda: write_file(source, source, b"newer", force=True), "the input itself")
    with monkeypatch.context() as patch:
        break_call(patch, "fsync", 1, OSError(errno.ENOSPC, "No space left on device"), after=True)
        refused(lambda: write_file(source, out, b"newer", force=True), "free some space")
    assert tree(tmp_path) == {"frozen.pb": b"old", "fixed.pb": b"new"}
    write_file(source, out, b"newer", force=True)
    assert tree(tmp_path) == {"frozen.pb": b"old", "fixed.pb": b"newer"}
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(lambda: write_file(source, folder, b"newer", force=True), "is a folder")
    assert not any(folder.iterdir())
