"""Puts a changed model on disk: all of it under its final name, or nothing at all.

A folder is built beside its final name and renamed once. Its `saved_model.pb` is new; every other file is a hard link
to the source's (a copy where links do not work), so weights are never parsed. Interrupted at any point there is the
whole old state or the whole new one. The one gap is a process killed outright (no exception) between the two renames
of `force`: then both states are whole, under their hidden names beside `out`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gradpass.errors import OutputError
from gradpass.program import wire

GRAPH_FILE = "saved_model.pb"
FINGERPRINT_FILE = "fingerprint.pb"
INDEX_FILE = Path("variables", "variables.index")

Parts = Mapping[str, "Callable[[Path], None] | None"]

META_GRAPH = 2  # field number in saved_model.proto
CHECKSUM, CHECKPOINT, UUID = 1, 5, 7  # field numbers in fingerprint.proto
HASHED = {2: 2, 3: 5, 4: 7}  # fingerprint field -> meta_graph.proto's graph_def, signature_def, object_graph_def

ADVICE = {
    errno.ENOSPC: "free some space, or choose another place with -o",
    errno.EDQUOT: "free some space, or choose another place with -o",
    errno.EACCES: "make the folder writable for you, or choose another place with -o",
    errno.EPERM: "make the folder writable for you, or choose another place with -o",
    errno.EROFS: "choose a place on a writable file system with -o",
    errno.ENOENT: "check that the model's files and the output's folder exist",
    errno.ENOTDIR: "a part of its path is a file; choose another place with -o",
    errno.ENAMETOOLONG: "choose a shorter name with -o",
}
UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO})


def write_saved_model(source: Path, out: Path, pb: bytes, *, force: bool, parts: Parts | None = None) -> None:
    """Writes `out`, the SavedModel `source` with `pb` for its graph; OutputError says what to do where that fails.

    `parts` are files and folders of it, by name, that are not to be the source's: each is made where it is told to be,
    or left out where it is None.
    """
    source, out = _absolute(source), _absolute(out)
    with _explained(source, out):
        _refuse(source, out, force)
        with _staged(out) as stage:
            os.mkdir(stage)
            link_tree(source, stage, leave_out=frozenset({GRAPH_FILE, FINGERPRINT_FILE, *(parts or ())}))
            _write(stage / GRAPH_FILE, pb)
            for name, make in (parts or {}).items():
                if make is not None:
                    make(stage / name)
            old = source / FINGERPRINT_FILE
            if old.exists():
                index = stage / INDEX_FILE
                changed = index.read_bytes() if parts and INDEX_FILE.parts[0] in parts and index.exists() else None
                _write(stage / FINGERPRINT_FILE, _new_fingerprint(old, pb, changed))
            _sync_folders(stage)
            _put(stage, out)


def write_file(source: Path, out: Path, data: bytes, *, force: bool) -> None:
    """Writes one file made from the file `source`, with the promises of `write_saved_model`."""
    source, out = _absolute(source), _absolute(out)
    with _explained(source, out):
        _refuse(source, out, force)
        with _staged(out) as stage:
            _write(stage, data)
            os.replace(stage, out)
            _sync(out.parent)


def link_tree(source: Path, target: Path, leave_out: frozenset[str] = frozenset()) -> None:
    """Fills the folder `target` with hard links to all files of `source`, or copies where a link cannot be made."""
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in leave_out:
                continue
            new = target / entry.name
            if entry.is_dir():
                os.mkdir(new)
                link_tree(Path(entry.path), new)
                continue
            real = os.path.realpath(entry.path)  # os.link would link a symbolic link itself
            try:
                os.link(real, new)
            except OSError:  # another file system, or one without links, or links to others' files forbidden
                shutil.copyfile(real, new)
                _sync(new)


def fingerprint(old: bytes, old_pb: bytes, new_pb: bytes, index: bytes | None = None) -> bytes:
    """The fingerprint.pb of a changed saved_model.pb, with a changed `index` of the checkpoint if one is given.

    The hash of a part (graph, signatures, objects) stays where that part's bytes did, and so does the checkpoint's;
    any other part, and the file's checksum, get a new 64-bit digest. TensorFlow's own numbers come from its canonical
    form of a graph and cannot be made without it; it reports and compares them, and never checks them when loading.
    """
    before, after = _hashed_parts(old_pb), _hashed_parts(new_pb)
    if index is not None:
        before[CHECKPOINT], after[CHECKPOINT] = b"", index
    out = bytearray()
    for field in wire.fields(old):
        if field.number in after and before[field.number] != after[field.number]:
            out += old[field.start : field.payload] + wire.varint(
                int.from_bytes(_digest(after[field.number], 8), "little")
            )
        elif field.number == UUID:
            out += wire.delimited(UUID, str(uuid.UUID(bytes=_digest(new_pb, 16), version=4)).encode())
        else:
            out += old[field.start : field.end]
    return bytes(out)


def _new_fingerprint(old: Path, pb: bytes, index: bytes | None) -> bytes:
    try:
        return fingerprint(old.read_bytes(), (old.parent / GRAPH_FILE).read_bytes(), pb, index)
    except wire.WireError as problem:
        raise OutputError(f"{old} is damaged ({problem}); delete it, or save the model again") from problem


def _hashed_parts(pb: bytes) -> dict[int, bytes]:
    """Fingerprint field -> the bytes it stands for; as in TensorFlow, of the first MetaGraph."""
    view = memoryview(pb)
    meta = next((view[f.payload : f.end] for f in wire.fields(view) if f.number == META_GRAPH), memoryview(b""))
    parts: dict[int, list[memoryview]] = {number: [] for number in HASHED.values()}
    for field in wire.fields(meta):
        if field.number in parts:
            parts[field.number].append(meta[field.start : field.end])
    return {CHECKSUM: pb, **{hashed: b"".join(parts[number]) for hashed, number in HASHED.items()}}


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _refuse(source: Path, out: Path, force: bool) -> None:
    """Raises OutputError where writing `out` would touch the source, or something that is no model."""
    if not source.exists():
        raise OutputError(f"{source} does not exist any more; nothing was written")
    real_source, real_out = source.resolve(), out.resolve()
    if real_out == real_source:
        raise OutputError(f"{out} is the input itself, which is never changed; choose another place with -o")
    if real_source in real_out.parents or real_out in real_source.parents:
        raise OutputError(f"{out} and the input {source} lie inside each other; choose another place with -o")
    if not os.path.lexists(out):
        return
    if not force:
        raise OutputError(f"{out} exists; give --force to replace it, or choose another place with -o")
    if source.is_dir() != out.is_dir():
        kind = "a folder" if out.is_dir() else "a file"
        raise OutputError(f"{out} is {kind}, which --force does not replace here; choose another place with -o")
    if out.is_dir() and not (out / GRAPH_FILE).exists() and any(out.iterdir()):
        raise OutputError(f"{out} is no SavedModel, so --force does not replace it; choose another place with -o")


@contextmanager
def _explained(source: Path, out: Path) -> Iterator[None]:
    """Turns what the operating system says into one line that says what to do."""
    try:
        yield
    except OSError as problem:
        name = problem.filename
        # A copy that finds no space names its source file too; only these numbers speak of reading.
        if problem.errno in UNREADABLE and isinstance(name, str) and source in (Path(name), *Path(name).parents):
            raise OutputError(f"{name} cannot be read ({problem.strerror}); make it readable for you") from problem
        advice = ADVICE.get(problem.errno or 0, "choose another place with -o")
        raise OutputError(f"{out} cannot be written ({problem.strerror or problem}); {advice}") from problem


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A hidden name beside `out`; what stands there is gone afterwards, whatever happens."""
    stage = _beside(out, "new")
    try:
        yield stage
    finally:
        _remove(stage)


def _put(stage: Path, out: Path) -> None:
    """Renames `stage` to `out`; a folder that stands there comes back if that fails."""
    aside = _beside(out, "old")
    try:
        if os.path.lexists(out):
            os.rename(out, aside)
        os.rename(stage, out)
        _sync(out.parent)
    finally:
        # What is on disk decides, not how far the lines above seem to have come: an interrupt falls between any two.
        if os.path.lexists(aside):
            if os.path.lexists(out):
                _discard(aside, out)
            else:
                os.rename(aside, out)


def _discard(aside: Path, out: Path) -> None:
    try:
        _remove(aside)
    except OSError as problem:
        raise OutputError(f"{out} is written, but its predecessor cannot be removed; delete {aside}") from problem


def _beside(out: Path, role: str) -> Path:
    return out.parent / f".{out.name}.{role}-{secrets.token_hex(4)}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        _sync(Path(folder))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
