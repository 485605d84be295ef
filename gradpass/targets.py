"""What TARGET means on the command line; nothing of TensorFlow is imported for a graph on disk."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradpass.errors import GradpassError

if TYPE_CHECKING:
    from gradpass.report.pruned import PruneReport
    from gradpass.report.repair import FixReport


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


def fix_live(text: str, subject: Any, inputs: list[Any], output: Path | None, **options: Any) -> FixReport:
    """Repairs what is no graph on disk."""
    from gradpass.live.fixed import fix_to

    _only_on_disk(text, options, "entry", "diff", "prune", "onnx")
    return fix_to(subject, inputs, _free(text, output, "fixed", options), **options)


def prune_live(text: str, subject: Any, inputs: list[Any], output: Path | None, **options: Any) -> PruneReport:
    """Prunes what is no graph on disk."""
    from gradpass.live.pruned import prune_to_disk

    _only_on_disk(text, options, "entry")
    return prune_to_disk(subject, inputs, _free(text, output, "pruned", options), **options)


def _only_on_disk(text: str, options: dict[str, Any], *names: str) -> None:
    """Takes options out that a live target has not, and refuses them where they are given."""
    for name in names:
        if options.pop(name):
            raise GradpassError(f"--{name} is for a graph on disk; leave it out for {text}")


def _free(text: str, output: Path | None, what: str, options: dict[str, Any]) -> Path:
    """Where to write, which nothing may occupy unasked: by default beside the file, or here under the target's name."""
    from gradpass.api import refuse_existing

    path = Path(text)
    if output is None:
        named = path if path.exists() else Path(text.rpartition(":")[2].rpartition(".")[2])
        output = named.with_name(f"{named.stem}-{what}{'.keras' if path.suffix == '.keras' else ''}")
    if not options["dry_run"]:
        refuse_existing(output, options["force"])
    return output
