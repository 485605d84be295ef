"""Each model through each oracle: what goes is just what must go, and nobody who reads the rest sees a difference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import gradpass as gp
from gradpass.program.savedmodel import read
from gradpass.report.pruned import PruneReport
from tests.pruning import keras_models, oddities, v1_models  # noqa: F401  they add their models
from tests.pruning.models import MODELS, Split
from tests.pruning.oracles import (
    SUFFIX,
    Answers,
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

# What TensorFlow cannot do with a model, pruned or not: variables of the first kind are not initialized where a model
# is saved again, nor is a gradient that was not saved; Keras gives many variables one name, which a session confuses.
UNABLE = {
    ("saved_again", "v1_simple_save"): tf.errors.FailedPreconditionError,
    ("saved_again", "v1_training_not_kept"): tf.errors.FailedPreconditionError,
    ("saved_again", "custom_gradient_not_saved"): KeyError,
    ("session", "keras_module_bert"): tf.errors.FailedPreconditionError,
}
SEVERAL_INPUTS = ["two_inputs"]  # which a layer does not take
EXPORTED = ["bert_pooler_dropped", "two_towers", "several_signatures", "keras_two_outputs", "v1_resources"]


@dataclass
class Case:
    """A model, what it must lose, and what is left of it."""

    name: str
    original: Path
    pruned: Path
    split: Split
    report: PruneReport

    @cached_property
    def answers(self) -> Answers:
        """What the original gives."""
        return loaded(self.original)

    @property
    def lost(self) -> set[str]:
        """The keys of the checkpoint that must go."""
        gone = self.split.dead if self.split.keys is None else self.split.keys
        return {key for key in values(self.original) if key.removesuffix(SUFFIX) in gone}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp(request.param) / "model"
    split = MODELS[request.param](path)
    report = gp.prune(path, cross_check=False)
    pruned = path if report.output is None else Path(report.output)
    return Case(request.param, path, pruned, split, report)


def test_just_what_is_dead_goes(case: Case) -> None:
    assert {v.path for v in read(case.original).variables.values()} == case.split.dead | case.split.alive
    assert set(case.report.removed) == case.split.dead
    assert set(case.report.tables) == case.split.tables
    gone = _assets(case.original) - _assets(case.pruned)
    assert gone == case.split.assets
    assert _assets(case.pruned) < _assets(case.original) or not gone
    assert (case.report.output is None) == (case.original == case.pruned)


def _assets(path: Path) -> set[str]:
    return {file.name for file in path.glob("assets/*")}


def test_report(case: Case) -> None:
    report = case.report
    assert report.before.variables == len(case.split.dead | case.split.alive)
    after = report.after or report.before
    assert after.variables == len(case.split.alive)
    pruned = read(case.pruned)
    assert after.parameters == sum(variable.parameters for variable in pruned.variables.values())
    assert after.bytes == sum(file.stat().st_size for file in case.pruned.rglob("*") if file.is_file())
    assert after.nodes <= report.before.nodes and after.functions <= report.before.functions


def test_loaded(case: Case) -> None:
    assert_same_answers(case.answers, loaded(case.pruned))


def test_layer(case: Case) -> None:
    given = layered(case.pruned)
    assert given or case.name in SEVERAL_INPUTS
    # A layer loads the model for itself: of several signatures none sees what another one changed.
    truth = case.answers if len(given) == 1 else layered(case.original)
    assert_same_answers({entry: truth[entry] for entry in given}, given)


def test_session(case: Case) -> None:
    if ("session", case.name) in UNABLE:
        with pytest.raises(UNABLE["session", case.name]):
            session(case.original)
    else:
        assert_same_answers(session(case.original), session(case.pruned))


def test_saved_again(case: Case, tmp_path: Path) -> None:
    if ("saved_again", case.name) in UNABLE:
        with pytest.raises(UNABLE["saved_again", case.name]):
            saved_again(case.original, tmp_path / "again")
    else:
        assert_same_answers(case.answers, saved_again(case.pruned, tmp_path / "again"))


def test_variables(case: Case) -> None:
    assert_variables_stay(case.original, case.pruned, case.lost)


def test_attributes(case: Case) -> None:
    """The variables that stay hang where they hung; in a list the gaps are closed."""
    before, after = read(case.original), read(case.pruned)
    if before.objects is None:
        assert_same_values(*(_by_name(path, case.split.alive) for path in (case.original, case.pruned)))
        return
    stay = [v for v in before.variables.values() if v.path in case.split.alive]
    assert [v.name for v in stay] == [v.name for v in after.variables.values()]
    ways = [[v.path for v in each if not v.path.startswith("Adam/")] for each in (stay, after.variables.values())]
    assert_same_values(attributes(case.original, ways[0]), attributes(case.pruned, ways[1]))


def _by_name(path: Path, names: frozenset[str]) -> list[bytes]:
    """The variables of a model of TensorFlow 1 as a list; those of the first kind are not in it."""
    held = {variable.name.removesuffix(":0"): variable for variable in tf.saved_model.load(str(path)).variables}
    return [held[name].numpy() for name in sorted(names & held.keys())]


def test_smaller(case: Case) -> None:
    assert_smaller(case.original, case.pruned, case.lost)


def test_nothing_is_left_to_prune(case: Case) -> None:
    again = gp.prune(case.pruned, dry_run=True)
    assert not again.removed and again.after is None


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx(name: str, tmp_path: Path) -> None:
    """Both exports run alike; and gradpass's own cross-check comes to the same end."""
    path = tmp_path / "model"
    MODELS[name](path)
    report = gp.prune(path)
    assert report.output is not None
    assert_same_answers(converted(path), converted(Path(report.output)))
    said = {row.name.split(" of ")[0]: row.status for row in report.crosscheck if row.status != "skipped"}
    assert said.keys() >= {"variables", "values", "onnx-original", "onnx-fixed"}
    assert set(said.values()) == {"passed"}


def test_results_of_implementations_are_handed_on(tmp_path: Path) -> None:
    """Poisson samples of TensorFlow Probability came out different in a session where a caller gave less."""
    MODELS["implementations"](tmp_path / "model")
    report = gp.prune(tmp_path / "model", cross_check=False)
    before, after = (read(Path(str(path))).program for path in (tmp_path / "model", report.output))
    callers = [
        name
        for name in before.functions
        if name in after.functions
        for node in before.function(name).nodes
        if node.callee is not None and "api_implements" in before.function(node.callee).proto.attr
    ]
    assert len(callers) == 2
    for name in callers:
        assert len(after.function(name).results) == len(before.function(name).results)


def test_folder_of_tf_keras_is_trained_on(tmp_path: Path) -> None:
    """What tf_keras needs to make its model and optimizer again stays: the pruned folder is loaded and trained."""
    path = tmp_path / "model"
    keras_models.folder_model().save(str(path), save_format="tf")
    report = gp.prune(path, cross_check=False)
    x, y = tf.random.stateless_normal([4, 4], [1, 2]), tf.zeros([4, 3])
    weights = []
    for each in (path, report.output or path):
        model = tf_keras.models.load_model(str(each))
        model.fit(x, y, verbose=0, shuffle=False)
        weights.append([np.asarray(weight) for weight in (*model.get_weights(), *model.optimizer.variables)])
    assert_same_values(*weights)
