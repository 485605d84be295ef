"""On 500 random programs the verdict is TensorFlow's, for each variable and input, loaded and live.

`python -m benchmarks.random_conformance` asks about as many as one likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import tensorflow as tf

from benchmarks import random_conformance
from benchmarks.random_conformance import BATCH, compare, script, shrunk
from gradpass.flow.verdict import EntryVerdict
from tests.flow.random_ops import OPS
from tests.flow.random_programs import RUNNERS, Block, Program, Step, every, sample

SEEDS = range(500 // BATCH)


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """Graphs run once here: to optimise them costs more than it saves."""
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


@cache
def programs(seed: int) -> list[Program]:
    return sample(seed, BATCH)


@pytest.mark.parametrize("seed", SEEDS)
def test_verdicts_are_tensorflows(seed: int) -> None:
    outcome = compare(programs(seed), seed, live=seed % 2 == 0)
    assert not outcome.failed
    assert not outcome.disagreements(), [
        f"{row}{script(programs(seed)[row.program], seed)}" for row in outcome.disagreements()
    ]


def test_every_op_and_runner_occurs() -> None:
    """What a program can be made of stands in one of them."""
    used = {step.op for seed in SEEDS for program in programs(seed) for step in every(program.block)}
    assert used == {*OPS, *RUNNERS}


def test_a_wrong_verdict_is_seen_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who believes that Round has a derivative is told by the program that is nothing but a Round."""
    told = random_conformance.states

    def wrong(verdict: EntryVerdict | str) -> dict[str, str]:
        states = told(verdict)
        assert not isinstance(states, str)
        return {name: "flows" if name == "f1" else state for name, state in states.items()}

    steps = (Step("add", (0, 2), "F"), Step("round", (1,), "F"), Step("mul", (3, 4), "F"), Step("tanh", (5,), "F"))
    program = Program("ff", "F", Block("ffF", steps, (6, 3)))
    monkeypatch.setattr(random_conformance, "states", wrong)
    (row,) = compare([program], 0, live=False).disagreements()
    assert (row.question, row.target, row.ours, row.truth) == ("loaded state", "f1", "flows", "none")
    least = shrunk(program, 0, row)
    assert len(least.block.steps) < 2 and len(least.block.results) == 1


def test_a_script_shows_the_disagreement_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Program("f", "F", Block("fF", (Step("sign", (0,), "F"),), (2,)))
    told = random_conformance.states
    monkeypatch.setattr(random_conformance, "states", lambda verdict: dict.fromkeys(told(verdict), "none"))
    exec(script(program, 1))
    shown = capsys.readouterr().out
    assert "ours='none', truth='zero'" in shown and "target='f0'" in shown
