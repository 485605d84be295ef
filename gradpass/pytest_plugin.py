"""The fixtures that pytest finds where gradpass is installed. TensorFlow is imported by the tests that use them."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def assert_differentiable() -> Callable[..., None]:
    """`gradpass.testing.assert_differentiable`: fails with the whole report where a gradient is missing."""
    from gradpass.testing import assert_differentiable

    return assert_differentiable
