"""For other people's tests: `gradpass.testing.assert_differentiable`, and the pytest fixture of the same name."""

from __future__ import annotations

from typing import Any


def assert_differentiable(target: Any, *inputs: Any, loss: Any = None, variables: Any = None) -> None:
    """Raises AssertionError, with the whole report, unless every gradient flows; notes do not count.

    Target, inputs, loss and variables are those of `gradpass.check`; a path is a target, too. What is asserted is the
    structure of the graph: gradients that are zero or NaN by the data are `gradpass.probe`'s to find.
    """
    __tracebackhide__ = True  # pytest shows the test's line then, and not this one
    from gradpass.api import check

    report = check(target, *inputs, loss=loss, variables=variables)
    if not report.ok:
        raise AssertionError(f"gradients are missing\n{report}")
