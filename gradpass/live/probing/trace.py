"""The target's ops in one graph, so that every value can be asked for its gradient: traced anew, or laid out flat.

A live target is traced once more, the tf.functions that it calls as part of it: their gradients may read tensors of
the graph that is being traced, and autograph has its say. What is traced already (a ConcreteFunction, a SavedModel) is
laid out: the bodies of called functions in the place of the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.program.debuginfo import Frame
from gradpass.report.diagnostics import Source
from gradpass.report.sources import shown_line, whose

OURS = str(Path(__file__).parent)

Place = tuple[str | None, str]  # a function and a node in it, as the user knows them


def line_of(op: Any) -> Source | None:
    """The user's line that made an op in this process, inside of what was traced for the probe."""
    frames = [Frame(f.filename, f.lineno, f.name, "") for f in op.traceback]
    ours = [i for i, frame in enumerate(frames) if frame.file.startswith(OURS)]
    inside = frames[ours[-1] + 1 :] if ours else frames
    for wanted in ("user", "library"):
        for frame in reversed(inside):
            if frame.line > 0 and whose(frame.file) == wanted:
                return shown_line(frame)
    return None


@dataclass
class Forward:
    """What the forward pass left in the graph.

    `losses` are the float tensors whose sum is differentiated, `inputs` the float inputs by name, `inside` the tensors
    that stand for what the graph captures, by the id of that, and `variables` those that a graph reads which TensorFlow
    does not see. `place_of`, `path_of` and `source_of` tell what a user
    knows of an op: function and node, the scopes that it is in, the line.
    """

    losses: list[Any]
    inputs: dict[str, Any]
    inside: dict[int, Any]
    variables: Sequence[Any] = ()
    place_of: Callable[[Any], Place] = field(default=lambda op: (None, op.name))
    path_of: Callable[[Any], str] = field(default=lambda op: str(op.name))
    source_of: Callable[[Any], Source | None] = line_of


def of_outputs(outputs: Any, inputs: Sequence[Any], names: Sequence[str] = ()) -> Forward:
    """The forward pass of what was just traced into the graph that is being made; `names` are of the inputs."""
    graph = tf.compat.v1.get_default_graph()
    flat = tf.nest.flatten(list(inputs), expand_composites=True)
    if len(names) != len(flat):
        names = [f"input_{i}" if len(flat) > 1 else "input" for i in range(len(flat))]
    # A loss that was computed before is a constant here.
    losses = [t if getattr(t, "graph", None) is graph else tf.identity(t) for t in floats(outputs)]
    named = {n: t for n, t in zip(names, flat, strict=True) if tf.is_tensor(t) and t.dtype.is_floating}
    return Forward(losses, named, {id(outer): inner for outer, inner in graph.captures})


@contextmanager
def calls_inlined(wanted: bool) -> Iterator[None]:
    """Lets tf.functions run as plain Python while something is traced, so that their ops stand in its graph."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(wanted)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def floats(outputs: Any) -> list[Any]:
    """The float tensors among some outputs, those of ragged and sparse ones too."""
    flat = tf.nest.flatten(outputs, expand_composites=True)
    return [t for t in flat if tf.is_tensor(t) and (t.dtype.is_floating or t.dtype.is_complex)]
