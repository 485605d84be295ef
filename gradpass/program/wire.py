"""Edits inside serialised protobufs that leave every other byte as it was.

Parsing a message and serialising it again may reorder maps and moves unknown fields; a SavedModel that differs from its
original in three functions should differ in three functions on disk. Wire format:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

LENGTH_DELIMITED = 2


class Field(NamedTuple):
    """One field: its number, wire type, and where its tag, its payload and its end lie in the buffer."""

    number: int
    wire_type: int
    start: int
    payload: int
    end: int


class WireError(ValueError):
    """The bytes are not a whole protobuf message."""


def _varint(buffer: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(buffer) or shift > 63:
            raise WireError(f"truncated number at byte {at}")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def varint(value: int) -> bytes:
    """A number as protobuf writes it, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def numbers(buffer: bytes | memoryview) -> list[int]:
    """The numbers that a payload is made of, as protobuf packs them."""
    found, at = [], 0
    while at < len(buffer):
        value, at = _varint(buffer, at)
        found.append(value)
    return found


def fields(buffer: bytes | memoryview) -> Iterator[Field]:
    """The fields of one message, in order; raises WireError where the bytes end early."""
    at = 0
    while at < len(buffer):
        start = at
        key = buffer[at]
        if key < 0x80:  # nearly all are of one byte
            at += 1
        else:
            key, at = _varint(buffer, at)
        wire_type = key & 7
        if wire_type == LENGTH_DELIMITED:
            length, at = _varint(buffer, at)
            end = at + length
        elif wire_type == 0:
            _, end = _varint(buffer, at)
        elif wire_type in (1, 5):
            end = at + (8 if wire_type == 1 else 4)
        else:
            raise WireError(f"unknown wire type {wire_type} at byte {start}")
        if end > len(buffer):
            raise WireError(f"field {key >> 3} at byte {start} ends {end - len(buffer)} bytes behind the end")
        yield Field(key >> 3, wire_type, start, at, end)
        at = end


def delimited(number: int, payload: bytes) -> bytes:
    """One length-delimited field: tag, length, payload."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(payload)) + payload


def edit(
    buffer: bytes | memoryview,
    number: int,
    change: Callable[[int, memoryview], bytes | None],
    append: list[bytes] | None = None,
) -> bytes:
    """A copy of a message with some payloads of field `number` changed and others appended.

    `change(index, payload)` gives the new payload of the index-th such field, or None to keep its bytes.
    """
    view = memoryview(buffer)
    parts: list[bytes | memoryview] = []
    index = copied = last = 0
    for field in fields(view):
        if field.number != number or field.wire_type != LENGTH_DELIMITED:
            continue
        new = change(index, view[field.payload : field.end])
        index += 1
        last = field.end
        if new is not None:
            parts += [view[copied : field.start], delimited(number, new)]
            copied = field.end
    if append:
        parts.append(view[copied : max(copied, last)])
        copied = max(copied, last)
        parts += [delimited(number, payload) for payload in append]
    parts.append(view[copied:])
    return b"".join(parts)


def edit_only(buffer: bytes | memoryview, number: int, change: Callable[[memoryview], bytes]) -> bytes:
    """Like `edit` for a field that occurs once: changes it, or appends it (changed from empty) where it is missing."""
    seen = False

    def first(index: int, payload: memoryview) -> bytes | None:
        nonlocal seen
        seen = True
        return change(payload) if index == 0 else None

    out = edit(buffer, number, first)
    return out if seen else out + delimited(number, change(memoryview(b"")))


def without(buffer: bytes | memoryview, number: int, drop: Callable[[memoryview], bool]) -> bytes:
    """A copy of a message without those fields of that number whose payload is to be dropped."""
    view = memoryview(buffer)
    parts: list[memoryview] = []
    at = 0
    for field in fields(view):
        if field.number == number and field.wire_type == LENGTH_DELIMITED and drop(view[field.payload : field.end]):
            parts.append(view[at : field.start])
            at = field.end
    return b"".join([*parts, view[at:]])
