"""What TARGET means on the command line; nothing of TensorFlow is imported for a graph on disk."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from gradpass.errors import GradpassError


def is_live(text: str) -> bool:
    """Whether a TARGET is no graph on disk: package.module:attribute, or a file of Keras. What exists is a path."""
    path = Path(text)
    if path.exists():
        return path.suffix in (".keras", ".h5") and path.is_file()
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None


def subject_of(text: str, data: Path | None) -> tuple[Any, list[Any]]:
    """What a TARGET means, a path or an object, and the inputs in FILE.npz."""
    path = Path(text)
    if not is_live(text):
        if data is not None:
            raise GradpassError(f"{text} is read, not run: --data is for a model of Keras or package.module:attribute")
        return path, []
    from gradpass.live import named

    # What the user's module prints is not part of the report.
    with redirect_stdout(sys.stderr):
        subject = named.keras_file(path) if path.exists() else named.attribute(text)
    return subject, named.inputs_from(data, subject)
