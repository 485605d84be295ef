"""The inference model of a signature as an ONNX file: of a repaired one too, since a bridge leaves nothing in it."""

from __future__ import annotations

from pathlib import Path

from gradpass.crosscheck.check import Check, attempt
from gradpass.crosscheck.export import export, tools
from gradpass.crosscheck.load import load_plain
from gradpass.crosscheck.quiet import quiet

NAME = "onnx-file"
LARGEST = (1 << 31) - 1  # bytes of a protobuf


def onnx_file(model: Path, entry: str) -> tuple[Check, bytes]:
    """A signature of a SavedModel or frozen graph as an ONNX model; nothing, and a check that failed, if it is none."""

    def made() -> bytes:
        loaded = load_plain(model)
        found = export(tools(), loaded.signatures[entry])
        if found.ByteSize() > LARGEST:
            raise OverflowError("it is larger than the 2 GB that one ONNX file can hold")
        return bytes(found.SerializeToString(deterministic=True))

    with quiet():
        outcome = attempt(made)
    if outcome.value is None:
        return Check(NAME, "failed", reason=outcome.reason), b""
    return Check(NAME, "passed"), outcome.value
