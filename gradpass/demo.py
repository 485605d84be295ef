"""`gradpass demo`: an example whose gradients go missing in two places, checked, repaired and proven."""

from __future__ import annotations

import inspect
import runpy
import shutil
import tempfile
from pathlib import Path
from typing import IO

from gradpass.errors import OutputError

SCRIPT = Path(__file__).parent / "examples" / "quantizer.py"


def make(folder: Path) -> None:
    """Saves the example, a codebook looked up by argmax and a gate that is open or shut, and its script beside it."""
    import tensorflow as tf

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        script = shutil.copyfile(SCRIPT, folder.with_name(SCRIPT.name))
        runpy.run_path(str(script))["save"](str(folder))
    except (OSError, tf.errors.OpError) as problem:
        raise OutputError(f"{folder} cannot be written ({problem}); name another folder") from problem


def body() -> str:
    """The lines of the example that lose the gradient, for people to read."""
    source = SCRIPT.read_text("utf-8")
    return inspect.cleandoc(source[source.index("        code =") : source.index("def save")])


def run(folder: Path | None, out: IO[str]) -> int:
    """Makes the example in a folder (by default a temporary one), checks and fixes it; gives the exit status."""
    if folder is not None:
        return _run(folder, out)
    with tempfile.TemporaryDirectory(prefix="gradpass-demo-") as temporary:
        status = _run(Path(temporary), out)
    out.write("(both models are gone again; `gradpass demo FOLDER` keeps them)\n")
    return status


def _run(folder: Path, out: IO[str]) -> int:
    from gradpass.api import check, fix_file
    from gradpass.report.terminal import progress
    from gradpass.report.text import line, show

    model = folder / "quantizer"
    if model.exists():
        raise OutputError(f"{model} exists; name another folder, or remove it")

    def say(text: str) -> None:
        show(lambda _: [line(text, "bold"), line("")], out)
        out.flush()

    with progress("making the example") as doing:
        make(model)
        say("A model with a codebook looked up by argmax and a gate that is open or shut:")
        show(lambda _: [*(line(f"    {row}") for row in body().splitlines()), line("")], out)
        say(f"$ gradpass check {model}")
        show(check(model).render, out)
        say(f"\n$ gradpass fix {model}")
        report = fix_file(model, progress=doing)
        show(report.render, out)
    return report.exit_status
