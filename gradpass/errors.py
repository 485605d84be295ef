"""The errors that reach a user, apart from findings.

A `GradpassError` ends a command with exit status 2 and one line, so its text says what is wrong and what to do.
"""

from __future__ import annotations


class GradpassError(Exception):
    """The call or the target is wrong; the message is one line and says what to do."""


class TargetError(GradpassError):
    """The target cannot be read: not a model, truncated, no permission, unknown entry."""


class OutputError(GradpassError):
    """The output cannot be written: it exists, no permission, no space left."""


class GradpassBug(Exception):
    """A broken promise inside gradpass: names the pass, the rule and the node, and keeps the cause as `__cause__`."""

    def __init__(self, where: str, node: str | None, detail: str) -> None:
        super().__init__(f"internal error in {where}{f' at node {node!r}' if node else ''}: {detail}")
        self.where = where
        self.node = node


class GradientWarning(UserWarning):
    """Gradients are missing, and what was asked goes on all the same."""
