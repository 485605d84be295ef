"""What a person at a terminal sees while a command runs: what is being done, and nothing that TensorFlow mutters."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gradpass.errors import GradpassError

DELAY = 1.0  # seconds without a word; a spinner for less only flickers
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with the last thing said; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    status = Console(stderr=True).status(escape(first))
    timer = threading.Timer(DELAY, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda text: status.update(escape(text))
    finally:
        timer.cancel()
        timer.join()  # it may be about to start the spinner
        status.stop()


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's C++ messages off stderr, unless something goes wrong or the user set a log level.

    Its first lines (oneDNN, missing CUDA) come before any setting of TensorFlow's holds, so the file descriptor itself
    is led away; what Python writes goes on to where it went.
    """
    if LOG_LEVEL in os.environ or not _is_descriptor_2():
        yield
        return
    os.environ[LOG_LEVEL] = "3"
    before = sys.stderr
    with tempfile.TemporaryFile() as log, os.fdopen(os.dup(2), "w", buffering=1, encoding=before.encoding) as stderr:
        before.flush()
        sys.stderr = stderr
        os.dup2(log.fileno(), 2)
        try:
            yield
        except GradpassError:
            raise  # foreseen, and told in one line
        except BaseException:
            log.seek(0)
            stderr.write(log.read().decode(errors="replace"))
            raise
        finally:
            stderr.flush()
            os.dup2(stderr.fileno(), 2)
            sys.stderr = before
            del os.environ[LOG_LEVEL]


def _is_descriptor_2() -> bool:
    try:
        return sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # a test's or a notebook's stand-in
        return False
