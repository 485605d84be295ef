"""Takes the shadows out again: how a fixed file carries what it was before.

A record in the MetaGraph's `collection_def` tells how the original `saved_model.pb` is put together: from pieces of the
fixed one, and from those bytes that the fixed one no longer has (functions as they were). Together with a checksum of
the fixed file, so that a file that somebody has changed since is told and not taken apart wrongly.

The record is text (base64): TensorFlow 1 puts a name scope before what it finds in a collection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gradpass.errors import GradpassError
from gradpass.program import skim, wire
from gradpass.program.savedmodel import GRAPH_DEF, LIBRARY, META_GRAPHS, OBJECT_GRAPH_DEF

KEY = "gradpass_original"
COLLECTIONS = 4  # field of meta_graph.proto: map<string, CollectionDef>
CHECKSUM, LITERAL, COPY, OPTIONS = 1, 2, 3, 4  # fields of the record
BYTES_LIST = 2  # field of CollectionDef

# The messages whose fields are looked up one by one, by field numbers: MetaGraphs, their graphs and object graphs, and
# the graphs' libraries.
Split = dict[int, Any]
SPLIT: Split = {META_GRAPHS: {GRAPH_DEF: {LIBRARY: {}}, OBJECT_GRAPH_DEF: {}}}
SMALL = 8  # bytes: to copy less costs as much as to write it down


def with_record(original: bytes, fixed: bytes, options: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a fixed saved_model.pb with the record of the original added to its first MetaGraph.

    `options` are those of the repair, by which it could be made again; they must be such that JSON has.
    """
    plain = without_record(fixed)
    places = {plain[a:b]: (a, b) for a, b in _pieces(plain, 0, len(plain), SPLIT) if b - a >= SMALL}
    # Spans of the fixed file, and of the original where the fixed one has no such piece; neighbours are put together.
    steps: list[tuple[int, int, int]] = []
    for a, b in _pieces(original, 0, len(original), SPLIT):
        place = places.get(original[a:b])
        kind, first, last = (LITERAL, a, b) if place is None else (COPY, *place)
        if steps and steps[-1][0] == kind and steps[-1][2] == first:
            steps[-1] = (kind, steps[-1][1], last)
        else:
            steps.append((kind, first, last))
    parts = [wire.delimited(CHECKSUM, _digest(plain))]
    for kind, first, last in steps:
        payload = original[first:last] if kind == LITERAL else wire.varint(first) + wire.varint(last)
        parts.append(wire.delimited(kind, payload))
    if options is not None:
        parts.append(wire.delimited(OPTIONS, json.dumps(options, sort_keys=True).encode()))
    text = base64.b64encode(zlib.compress(b"".join(parts), 9))
    entry = wire.delimited(1, KEY.encode()) + wire.delimited(2, wire.delimited(BYTES_LIST, wire.delimited(1, text)))
    return _edit_first(plain, lambda meta: wire.edit(meta, COLLECTIONS, lambda *_: None, [entry]))


def original(fixed: bytes, path: object) -> bytes:
    """The saved_model.pb that a fixed one was made from, byte for byte; GradpassError where it carries no record."""
    record = _record(fixed)
    if record is None:
        raise GradpassError(
            f"{path} carries no record of an original: no `gradpass fix` wrote it, or TensorFlow has saved it since; "
            "take the model that was fixed"
        )
    plain = without_record(fixed)
    out = bytearray()
    for field in wire.fields(record):
        payload = record[field.payload : field.end]
        if field.number == CHECKSUM and payload != _digest(plain):
            raise GradpassError(
                f"{path} has been changed since `gradpass fix` wrote it, so its original cannot be put together; take "
                "the model that was fixed"
            )
        if field.number == LITERAL:
            out += payload
        elif field.number == COPY:
            a, b = wire.numbers(payload)
            out += plain[a:b]
    return bytes(out)


def options(fixed: bytes) -> dict[str, Any] | None:
    """The options of the repair that a fixed file tells of; None where it tells of none."""
    record = _record(fixed)
    found = b"" if record is None else _part(record, OPTIONS)
    return dict(json.loads(found)) if found else None


def carried_over(fixed: bytes, changed: bytes) -> bytes:
    """The changed bytes of a fixed file with a record of the same original; as they are where there is none."""
    if _record(fixed) is None:
        return changed
    return with_record(original(fixed, "the model"), changed, options(fixed))


def without_record(pb: bytes) -> bytes:
    """The file without its record, every other byte as it is."""

    return _edit_first(pb, lambda meta: wire.without(meta, COLLECTIONS, lambda entry: _part(entry, 1) == KEY.encode()))


def _record(fixed: bytes) -> bytes | None:
    """The record that a file carries."""
    for meta in skim.payloads(fixed, META_GRAPHS)[:1]:
        for entry in skim.payloads(meta, COLLECTIONS):
            if _part(entry, 1) == KEY.encode():
                text = _part(_part(_part(entry, 2), BYTES_LIST), 1)
                return zlib.decompress(base64.b64decode(text))
    return None


def _part(message: bytes | memoryview, number: int) -> bytes:
    """The first field of that number; empty where there is none."""
    return next((bytes(payload) for payload in skim.payloads(message, number)), b"")


def _edit_first(pb: bytes, change: Callable[[memoryview], bytes]) -> bytes:
    return wire.edit(pb, META_GRAPHS, lambda index, meta: None if index else change(meta))


def _pieces(buffer: bytes, start: int, end: int, split: Split) -> Iterator[tuple[int, int]]:
    """The spans of a message, in order and without gaps: fields, those in `split` in turn by their own fields."""
    view = memoryview(buffer)[start:end]
    for field in wire.fields(view):
        inner = split.get(field.number)
        if inner is None:
            yield start + field.start, start + field.end
        else:
            yield start + field.start, start + field.payload
            yield from _pieces(buffer, start + field.payload, start + field.end, inner)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
