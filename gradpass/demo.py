"""`gradpass demo`: an example whose gradients go missing in two places, checked, repaired and proven."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import IO

from gradpass.errors import OutputError

SEED = 7


def make(folder: Path) -> None:
    """Saves the example: a codebook looked up by argmax, and a gate that is open or shut."""
    import tensorflow as tf

    class Quantizer(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = tf.Variable(tf.random.stateless_normal([4, 8], [SEED, 0]), name="scores")
            self.codebook = tf.Variable(tf.random.stateless_normal([8, 3], [SEED, 1]), name="codebook")
            self.gate = tf.Variable(tf.random.stateless_normal([4, 3], [SEED, 2]), name="gate")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            code = tf.argmax(x @ self.scores, axis=1)
            is_open = tf.cast(x @ self.gate > 0.0, tf.float32)
            return {"y": tf.gather(self.codebook, code) * is_open}

    model = Quantizer()
    try:
        tf.saved_model.save(model, str(folder), signatures=model.serve)
    except (OSError, tf.errors.OpError) as problem:
        raise OutputError(f"{folder} cannot be written ({problem}); name another folder") from problem


def body() -> str:
    """The lines of the example that lose the gradient, for people to read."""
    source = inspect.getsource(make)
    return inspect.cleandoc(source[source.index("            code =") : source.index("    model = ")])


def run(folder: Path | None, out: IO[str]) -> int:
    """Makes the example in a folder (by default a temporary one), checks and fixes it; gives the exit status."""
    if folder is not None:
        return _run(folder, out)
    with tempfile.TemporaryDirectory(prefix="gradpass-demo-") as temporary:
        status = _run(Path(temporary), out)
    out.write("(both models are gone again; `gradpass demo FOLDER` keeps them)\n")
    return status


def _run(folder: Path, out: IO[str]) -> int:
    from gradpass.api import check, fix
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
        report = fix(model, progress=doing)
        show(report.render, out)
    return report.exit_status
