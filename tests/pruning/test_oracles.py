"""The oracles see what they are there to see: one planted fault for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import gradpass as gp
from tests.pruning.models import MODELS
from tests.pruning.oracles import (
    OBJECTS,
    SUFFIX,
    assert_same_answers,
    assert_same_values,
    assert_smaller,
    assert_variables_stay,
    attributes,
    converted,
    layered,
    loaded,
    saved_again,
    session,
    values,
)

KEY = f"served{SUFFIX}"
LOST = {f"dead{SUFFIX}"}
Values = dict[str, np.ndarray]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    original = tmp_path / "model"
    MODELS["method_that_is_no_signature"](original)
    return original, Path(str(gp.prune(original, cross_check=False).output))


def tamper(path: Path, change: Callable[[Values], None]) -> None:
    """Writes the checkpoint anew with other values."""
    prefix = path / "variables" / "variables"
    held = {**values(path), OBJECTS: tf.train.load_checkpoint(str(prefix)).get_tensor(OBJECTS)}
    change(held)
    for file in prefix.parent.iterdir():
        file.unlink()
    names = sorted(held)
    part = f"{prefix}-part"
    tf.raw_ops.SaveV2(
        prefix=part, tensor_names=names, shape_and_slices=[""] * len(names), tensors=[held[name] for name in names]
    )
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[part], destination_prefix=str(prefix), delete_old_dirs=False)


def flip(held: Values) -> None:
    """Changes a bit of one weight: by an eighth or so, which no rounding swallows."""
    held[KEY].view(np.int32)[0, 0] ^= 1 << 20


def flip_lowest(held: Values) -> None:
    """Changes one weight by as little as can be, which no output needs to show."""
    held[KEY].view(np.int32)[0, 0] ^= 1


def negate_zero(held: Values) -> None:
    """What is equal to an eye that compares numbers: -0.0 for 0.0."""
    held[KEY][0, 0] = -0.0


def test_untouched(pair: tuple[Path, Path]) -> None:
    """Writing it anew is no fault by itself."""
    original, pruned = pair
    tamper(pruned, lambda held: None)
    assert_same_answers(loaded(original), loaded(pruned))
    assert_variables_stay(original, pruned, LOST)
    assert_smaller(original, pruned, LOST)


@pytest.mark.parametrize("ask", [loaded, layered, session, converted])
def test_answers(pair: tuple[Path, Path], ask: Callable[[Path], dict[str, Values]]) -> None:
    original, pruned = pair
    tamper(pruned, flip)
    with pytest.raises(AssertionError):
        assert_same_answers(ask(original), ask(pruned))


def test_saved_again(pair: tuple[Path, Path], tmp_path: Path) -> None:
    original, pruned = pair
    tamper(pruned, flip)
    with pytest.raises(AssertionError):
        assert_same_answers(loaded(original), saved_again(pruned, tmp_path / "again"))


def test_zeros(pair: tuple[Path, Path]) -> None:
    original, pruned = pair
    tamper(original, lambda held: held[KEY].fill(0))
    tamper(pruned, lambda held: held[KEY].fill(0))
    assert_variables_stay(original, pruned, LOST)
    tamper(pruned, negate_zero)
    with pytest.raises(AssertionError):
        assert_variables_stay(original, pruned, LOST)
    with pytest.raises(AssertionError):
        assert_same_values(attributes(original, ["served"]), attributes(pruned, ["served"]))


@pytest.mark.parametrize(
    "change",
    [flip_lowest, lambda held: held.pop(KEY), lambda held: held.update({f"more{SUFFIX}": np.zeros(1)})],
    ids=["bit", "lost", "more"],
)
def test_variables(pair: tuple[Path, Path], change: Callable[[Values], None]) -> None:
    original, pruned = pair
    tamper(pruned, change)
    with pytest.raises(AssertionError):
        assert_variables_stay(original, pruned, LOST)


def test_attributes(pair: tuple[Path, Path]) -> None:
    original, pruned = pair
    tamper(pruned, flip_lowest)
    assert_same_values(attributes(original, ["of_method"]), attributes(pruned, ["of_method"]))
    with pytest.raises(AssertionError):
        assert_same_values(attributes(original, ["served"]), attributes(pruned, ["served"]))


def test_smaller(pair: tuple[Path, Path]) -> None:
    original, pruned = pair
    with pytest.raises(AssertionError):
        assert_smaller(original, pruned, LOST | {KEY})
    (pruned / "more").write_bytes(bytes(2**16))
    with pytest.raises(AssertionError):
        assert_smaller(original, pruned, LOST)


def test_dead_tensor_that_stays(pair: tuple[Path, Path]) -> None:
    original, pruned = pair
    tamper(pruned, lambda held: held.update({key: values(original)[key] for key in LOST}))
    with pytest.raises(AssertionError):
        assert_smaller(original, pruned, LOST)
