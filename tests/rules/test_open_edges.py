"""What TensorFlow got right stays as it was: a repair leaves the gradients along open edges bit for bit.

Each rule's hits are computed with the constant `c` as a variable `w`, and once more with both as what is added up, so
that every severed way has an open one beside it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from gradpass.rules.base import rules
from tests.models import C, V, gradients, with_pb

HITS = [(rule.name, text) for rule in rules() for text in rule.hits if re.search(r"\bc\b", text)]


class Open(tf.Module):
    """One signature for each hit in a variable `v` and a variable `w`, which is multiplied by another, `scale`."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable(V, dtype=tf.float32, name="v")
        self.w = tf.Variable(C, dtype=tf.float32, name="w")
        self.scale = tf.Variable(1.5, name="scale")
        self.signatures_ = {f"hit_{i}": self._signature(text) for i, (_, text) in enumerate(HITS)}

    def _signature(self, text: str) -> Any:
        @tf.function(input_signature=[], autograph=False)
        def run() -> dict[str, tf.Tensor]:
            names = {"tf": tf, "v": tf.convert_to_tensor(self.v), "c": self.scale * self.w, "f": tf.float32}
            return {"y": self.scale * eval(text, names)}

        return run


@pytest.fixture(scope="module", params=["bridge", "sum"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The original and the repaired model, loaded."""
    folder = tmp_path_factory.mktemp(request.param)
    module = Open()
    tf.saved_model.save(module, str(folder / "original"), signatures=module.signatures_)
    done = repair(read(folder / "original"), entry="all", carrier=request.param)
    assert done.pb is not None
    fixed = with_pb(folder / "original", folder / "fixed", done.pb)
    return tf.saved_model.load(str(folder / "original")), tf.saved_model.load(str(fixed))


@pytest.mark.parametrize("index", range(len(HITS)), ids=[f"{name}-{i}" for i, (name, _) in enumerate(HITS)])
def test_gradients_along_open_edges_keep_their_bits(pair: tuple[Any, Any], index: int) -> None:
    before, after = (
        gradients(model.signatures[f"hit_{index}"], [model.w, model.scale, model.v], seed=index) for model in pair
    )
    for old, new in zip(before[:2], after[:2], strict=True):
        if old is not None:
            assert new is not None and old.tobytes() == new.tobytes()
    assert after[2] is not None and np.isfinite(after[2]).all()
