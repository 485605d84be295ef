"""What a training step asks of its tapes while it is traced: which gradients, of what, at which line.

`tf.GradientTape` tells nobody what it is used for. For the time of a trace its public methods are wrapped, so that each
call leaves a mark in the graph: a no-op, whose stack is the user's line and whose place is in the order of the ops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import tensorflow as tf

MARK = "gradpass_mark"
_lock = threading.Lock()


@dataclass
class Tape:
    """A tape: whether it watches what it reads, what else it was told to watch, and the spans of ops that it saw.

    A span is by how many ops the graph had at its beginning and its end.
    """

    watches_all: bool = True
    watched: list[Any] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    since: int | None = None

    def saw(self, position: int) -> bool:
        """Whether it recorded the op at that place of the graph."""
        spans = [*self.spans, (self.since, position + 1)] if self.since is not None else self.spans
        return any(start <= position < end for start, end in spans)


@dataclass
class Asked:
    """One call of `tape.gradient`: of which losses, for which sources, what it gave, and the mark that it left."""

    tape: Tape
    losses: list[Any]
    sources: list[Any]
    results: list[Any]
    mark: Any
    weighted: bool


class Record:
    """All gradients that are asked for while it watches, and the exception with which the step ended, if any."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.tapes: dict[int, tuple[Any, Tape]] = {}
        self.marks = 0
        self.copies: dict[int, tuple[Any, Any]] = {}  # of the functions that the step calls, traced for this record
        self.error: Exception | None = None
        self.quiet = False  # while a tape asks itself

    def reset(self) -> None:
        """Forgets what an earlier trace of the same step did: TensorFlow traces twice where variables are made."""
        self.__init__()  # type: ignore[misc]

    def add(self, tape: Any, target: Any, sources: Any, results: Any, mark: Any, weighted: bool) -> None:
        """One more gradient."""
        losses = [loss for loss in tf.nest.flatten(target) if loss is not None]
        given = _per_source(results, sources)
        self.asked.append(Asked(self.of(tape), losses, tf.nest.flatten(sources), given, mark, weighted))

    def mark(self) -> Any:
        """A no-op at this place, of a name that no other function of the step has; none in the eager parts of it."""
        self.marks += 1
        return tf.no_op(name=f"{MARK}_{self.marks}")

    def of(self, tape: Any) -> Tape:
        """What is known of a tape."""
        return self.tapes.setdefault(id(tape), (tape, Tape()))[1]


@contextmanager
def watching(record: Record) -> Iterator[None]:
    """Lets the record see what tapes are asked, in this thread and others, until the end."""
    tape_class = tf.GradientTape
    names = (
        "__init__", "__enter__", "__exit__", "watch", "reset", "stop_recording",
        "gradient", "jacobian", "batch_jacobian",
    )  # fmt: skip
    function_class: Any = type(tf.function(lambda: None))
    with _lock:  # two of them would restore each other's wrappers
        kept = {name: getattr(tape_class, name) for name in names}
        call = function_class.__call__
        try:
            function_class.__call__ = wraps(call)(_tracing_anew(record, call))
            for name, wrapped in _wrappers(record, kept).items():
                setattr(tape_class, name, wraps(kept[name])(wrapped))
            yield
        finally:
            function_class.__call__ = call
            for name, method in kept.items():
                setattr(tape_class, name, method)


def _tracing_anew(record: Record, call: Callable[..., Any]) -> Callable[..., Any]:
    """A call of a tf.function that traces it, once: what it has traced already used its tapes unseen."""

    def called(function: Any, *arguments: Any, **options: Any) -> Any:
        # The one way to a function of the same options and without traces. It has been there, and private, since
        # TensorFlow 2.0; a test fails when it moves.
        if id(function) not in record.copies:
            record.copies[id(function)] = (function, function._clone(None))
        return call(record.copies[id(function)][1], *arguments, **options)

    return called


def _wrappers(record: Record, kept: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    def made(tape: Any, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        kept["__init__"](tape, persistent=persistent, watch_accessed_variables=watch_accessed_variables)
        record.of(tape).watches_all = watch_accessed_variables

    def enter(tape: Any) -> Any:
        record.of(tape).since = _size()
        return kept["__enter__"](tape)

    def leave(tape: Any, *error: Any) -> Any:
        _close(record.of(tape))
        return kept["__exit__"](tape, *error)

    def watch(tape: Any, tensor: Any) -> Any:
        record.of(tape).watched += tf.nest.flatten(tensor)
        return kept["watch"](tape, tensor)

    @contextmanager
    def stop_recording(tape: Any) -> Iterator[None]:
        with kept["stop_recording"](tape):
            _close(record.of(tape))
            yield
        record.of(tape).since = _size()

    def reset(tape: Any) -> Any:
        seen = record.of(tape)
        seen.spans, seen.watched, seen.since = [], [], _size()
        return kept["reset"](tape)

    def gradient(tape: Any, target: Any, sources: Any, output_gradients: Any = None, **options: Any) -> Any:
        if record.quiet:
            return kept["gradient"](tape, target, sources, output_gradients, **options)
        mark = record.mark()
        results = kept["gradient"](tape, target, sources, output_gradients, **options)
        if isinstance(mark, tf.Operation):  # an eager part of the step has no place in the graph
            record.add(tape, target, sources, results, mark, output_gradients is not None)
        return results

    def of_each(name: str) -> Callable[..., Any]:
        def jacobian(tape: Any, target: Any, *arguments: Any, **options: Any) -> Any:
            """A gradient for each element, for which the tape asks itself."""
            mark = record.mark()
            before, record.quiet = record.quiet, True
            try:
                results = kept[name](tape, target, *arguments, **options)
            finally:
                record.quiet = before
            sources = arguments[0] if arguments else options.get("sources", options.get("source"))
            if isinstance(mark, tf.Operation):
                record.add(tape, target, sources, results, mark, True)
            return results

        return jacobian

    return {
        "__init__": made, "__enter__": enter, "__exit__": leave, "watch": watch, "gradient": gradient,
        "stop_recording": stop_recording, "reset": reset,
        "jacobian": of_each("jacobian"), "batch_jacobian": of_each("batch_jacobian"),
    }  # fmt: skip


def _per_source(results: Any, sources: Any) -> list[Any]:
    """A result for each source, None where there is none."""
    if not tf.nest.is_nested(sources):
        return [results]
    return list(tf.nest.flatten(results))


def _close(tape: Tape) -> None:
    if tape.since is not None:
        tape.spans.append((tape.since, _size()))
        tape.since = None


def _size() -> int:
    """How many ops the graph has that is being made; none in eager mode."""
    graph = tf.compat.v1.get_default_graph()
    return len(graph.get_operations()) if isinstance(graph, tf.Graph) and not tf.executing_eagerly() else 0
