"""What one check answers, and how a check that crashes or lacks its machinery answers too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar, cast

Status = Literal["passed", "failed", "skipped"]
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One check's verdict; `figure` is what was measured, `limit` what it may be at most (None: only told).

    `limit_from` says where the limit comes from, `seconds` how long the check took (None: it was not timed).
    """

    name: str
    status: Status
    figure: float | None = None
    limit: float | None = None
    reason: str | None = None
    limit_from: str | None = None
    seconds: float | None = None


class Skip(Exception):
    """This check does not apply here; the text is its reason."""


class Disagreement(Exception):
    """The two models differ so much that there is no figure; the text says how."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a call gave: its value, or the problem that it ended with."""

    value: T | None
    problem: Exception | None

    def given(self) -> T:
        """The value; raises the problem again where there is none."""
        if self.problem is not None:
            raise self.problem
        return cast(T, self.value)

    @property
    def reason(self) -> str | None:
        return None if self.problem is None else described(self.problem)


def judged(
    name: str, figure: float, limit: float, reason: str | None, limit_from: str, passed: str | None = None
) -> Check:
    """Passed or failed by its figure; the reason belongs to a failure. No finite figure is a failure too.

    `passed` is what there is to say of a check that passed.
    """
    if figure <= limit:
        return Check(name, "passed", figure, limit, passed, limit_from)
    return Check(name, "failed", figure if math.isfinite(figure) else None, limit, reason, limit_from)


def attempt(call: Callable[[], T]) -> Outcome[T]:
    """Calls into TensorFlow, tf2onnx or onnxruntime and keeps what they raise, as the answer of that call."""
    try:
        return Outcome(call(), None)
    # Broad on purpose, and the only such place: these libraries raise whatever they like at a graph they cannot carry
    # (KeyError and AttributeError among them). Each of it means that the written model is not proven; the check that
    # asked says so, and the other checks must still run.
    except Exception as problem:
        return Outcome(None, problem)


def guarded(names: list[str], checks: Callable[[], list[Check]]) -> list[Check]:
    """Runs the checks of these names; one that cannot answer is skipped or failed with its reason, never lost."""
    started = time.monotonic()
    outcome = attempt(checks)
    seconds = time.monotonic() - started
    if outcome.value is not None:
        return [each if each.seconds is not None else replace(each, seconds=seconds) for each in outcome.value]
    status: Status = "skipped" if isinstance(outcome.problem, Skip) else "failed"
    return [Check(name, status, reason=outcome.reason, seconds=seconds) for name in names]


def described(problem: Exception) -> str:
    """An exception as one line: its type, and the first line of its text that says something."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    if isinstance(problem, (Skip, Disagreement)):
        return " ".join(lines)
    return f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__
