"""What tests of training leave behind is taken back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tensorflow as tf


@pytest.fixture(autouse=True)
def without_global_seed() -> Iterator[None]:
    """Keras's set_random_seed makes random ops of all later tests alike, some of which are about their difference."""
    yield
    tf.random.set_seed(None)
