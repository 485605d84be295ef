"""Each model through each oracle: what goes is just what must go, and nobody who reads the rest sees a difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import gradpass as gp
from gradpass.program.savedmodel import read
from gradpass.report.pruned import PruneReport
from tests.prune import keras_models, oddities, v1_models  # noqa: F401  they add their models
from tests.prune.models import MODELS, Split
from tests.prune.oracles import (
    SUFFIX,
    assert_same_answers,
    assert_smaller,
    assert_variables_stay,
    attributes,
    layered,
    loaded,
    saved_again,
    session,
    values,
)


@dataclass(frozen=True)
class Case:
    """A model, what it must lose, and what is left of it."""

    original: Path
    pruned: Path
    split: Split
    report: PruneReport

    @property
    def lost(self) -> set[str]:
        """The keys of the checkpoint that must go."""
        keys = {key: key.removesuffix(SUFFIX) for key in values(self.original)}
        print(keys)
        return {key for key, name in keys.items() if name in self.split.dead}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp(request.param) / "model"
    split = MODELS[request.param](path)
    report = gp.prune(path, cross_check=False)
    pruned = path if report.output is None else Path(report.output)
    return Case(path, pruned, split, report)


def test_just_what_is_dead_goes(case: Case) -> None:
    assert {v.path for v in read(case.original).variables.values()} == case.split.dead | case.split.alive
    assert set(case.report.removed) == case.split.dead
    assert set(case.report.tables) == case.split.tables


def test_loaded(case: Case) -> None:
    assert_same_answers(loaded(case.original), loaded(case.pruned))


def test_layer(case: Case) -> None:
    assert_same_answers(layered(case.original), layered(case.pruned))


def test_session(case: Case) -> None:
    assert_same_answers(session(case.original), session(case.pruned))


def test_saved_again(case: Case, tmp_path: Path) -> None:
    assert_same_answers(loaded(case.original), saved_again(case.pruned, tmp_path / "again"))


def test_variables(case: Case) -> None:
    assert_variables_stay(case.original, case.pruned, case.lost)


def test_smaller(case: Case) -> None:
    assert_smaller(case.original, case.pruned, case.lost)
