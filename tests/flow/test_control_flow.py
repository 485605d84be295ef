"""Each op that runs functions, and what travels through it: the verdict against TensorFlow's, and whom blame names.

The programs stand in one SavedModel of TensorFlow 2, and once more with the loops and branches of TensorFlow 1, where
a variable is held by resource or by reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from gradpass.errors import TargetError
from gradpass.flow.analysis import analyse
from gradpass.flow.facts import callees
from gradpass.flow.verdict import EntryVerdict
from gradpass.program.graph import Function
from gradpass.program.model import Model
from gradpass.program.savedmodel import read
from tests.flow import old, truth
from tests.flow.old import Old
from tests.flow.programs import PROGRAMS

# TensorFlow 1 calls no functions, orders nothing by itself and keeps no custom gradients; what makes tf.gradients
# itself raise cannot be written with its gradients.
TF2_ONLY = ("PartitionedCall", "StatefulPartitionedCall", "Assign", "Scatter")
OLD = [
    name
    for name, program in PROGRAMS.items()
    if not name.startswith(("custom_gradient", "slices"))
    and not any(word in op for op in program.ops for word in TF2_ONLY)
]
HELD = ["resource", "reference"]


class Judged(NamedTuple):
    """Programs as a SavedModel: as gradpass reads it, and TensorFlow's answers."""

    model: Model
    verdicts: dict[str, EntryVerdict]
    answers: truth.Answers


class World(NamedTuple):
    """All programs as TensorFlow 2 writes them, and as TensorFlow 1 does, by how it holds variables."""

    new: Judged
    old: dict[str, tuple[Old, Judged]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("programs")
    bodies = {name: program.body for name, program in PROGRAMS.items()}
    saved = truth.save(folder / "new", bodies, experimental_custom_gradients=True)
    written = {}
    for held in HELD:
        (folder / held).mkdir()
        written[held] = old.save(folder / held, {name: bodies[name] for name in OLD}, held == "reference")
    # Of variables by reference TensorFlow 2 makes none that it could be asked about.
    answers = [*truth.ask(saved, written["resource"].saved), {}]
    new, *others = [
        judge(path, told) for path, told in zip([saved, *(o.saved for o in written.values())], answers, strict=True)
    ]
    return World(new, {held: (written[held], judged) for held, judged in zip(HELD, others, strict=True)})


def judge(path: Path, answers: truth.Answers) -> Judged:
    model = read(path)
    return Judged(model, {verdict.name: verdict for verdict in analyse(model, "all", "both")}, answers)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_verdict_is_tensorflows(name: str, world: World) -> None:
    ours = {target.path: [target.state, target.structure] for target in world.new.verdicts[name].targets}
    assert ours == world.new.answers[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_graph_has_the_ops_that_the_program_is_about(name: str, world: World) -> None:
    (entry,) = world.new.model.entry(name)
    assert PROGRAMS[name].ops <= ops(entry.function, set())


def ops(function: Function, seen: set[str | None]) -> set[str]:
    """The ops of a function and of all that it runs."""
    seen.add(function.name)
    found = {node.op for node in function.nodes}
    called = {name for node in function.nodes for name in callees(node)} - seen
    return found.union(*(ops(function.program.function(name), seen) for name in called))


@pytest.mark.parametrize("name", PROGRAMS)
def test_blame_names_the_ops(name: str, world: World) -> None:
    assert blamed(world.new.verdicts[name]) == set(PROGRAMS[name].cuts)


def blamed(verdict: EntryVerdict) -> set[str]:
    """The ops that starve variables, with the variables."""
    found = set()
    for cut in verdict.cuts:
        starves = [verdict.targets[i] for i in cut.starves]
        variables = [target.name for target in starves if target.kind == "variable"]
        if variables:
            found.add(f"{cut.op}: {' '.join(variables)}")
    return found


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("name", OLD)
def test_structure_in_tensorflow_1(name: str, held: str, world: World) -> None:
    """A loop of TensorFlow 1 answers zeros for None, as those of TensorFlow 2 do: unrolled it has to be None."""
    written, judged = world.old[held]
    unrolled = {target.name: target.structure for target in world.new.verdicts[name].targets}
    ours = {target.name: target.structure for target in judged.verdicts[name].targets}
    loops = any("While" in op for op in PROGRAMS[name].ops)
    for target, said in written.gradients[name].items():
        allowed = {said, unrolled[target]} if loops and said == "zero" else {said}
        assert ours[target] in allowed, target
    assert ours == {**unrolled, "whole": "none"}  # a SavedModel of TensorFlow 1 lists what nobody uses, too


@pytest.mark.parametrize("name", OLD)
def test_state_of_tensorflow_1_in_tensorflow_2(name: str, world: World) -> None:
    """Loaded by TensorFlow 2 its loops raise, and so does a variable inside tf.cond."""
    _, judged = world.old["resource"]
    assert {target.name: [target.state] for target in judged.verdicts[name].targets} == judged.answers[name]


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("name", OLD)
def test_frozen_graph(name: str, held: str, world: World) -> None:
    """Its weights are constants: its input has the structure that it had."""
    written, judged = world.old[held]
    (verdict,) = analyse(read(written.frozen[name]))
    expected = {target.name: target.structure for target in judged.verdicts[name].targets if target.kind == "input"}
    found = {target.name: target.structure for target in verdict.targets}
    assert found == (expected if found else {})
    assert found or expected == {truth.X: "none"}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("name", ["if_severs_in_both", "list_of_two", "while_severs", "while_with_an_unused_variable"])
def test_training_graph(name: str, held: str, world: World, tmp_path: Path) -> None:
    """Gradients and optimizer are no part of the forward graph of a `.meta`."""
    path = old.train(tmp_path / "m.meta", PROGRAMS[name].body, held == "reference")
    (verdict,) = analyse(read(path), wrt="both")
    _, judged = world.old[held]
    expected = {target.name: target.structure for target in judged.verdicts[name].targets}
    assert {target.name: target.structure for target in verdict.targets} == expected


def recursion(path: Path) -> Path:
    """A SavedModel whose function calls itself where the unrolled program calls the next; TensorFlow loads no such."""
    file = truth.save(path, {"serving_default": PROGRAMS["recursion_unrolled"].body}) / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    library = proto.meta_graphs[0].graph_def.library.function
    callers = {node.attr["f"].func.name: (f, node) for f in library for node in f.node_def if "f" in node.attr}
    steps = [name for name in callers if "_step_" in name]
    (first,) = (name for name in steps if "_run_" in callers[name][0].signature.name)
    for name in steps:
        callers[name][1].attr["f"].func.name = first
    file.write_bytes(proto.SerializeToString())
    return path


def test_recursion_is_refused(tmp_path: Path) -> None:
    """As TensorFlow refuses to load it."""
    path = recursion(tmp_path / "m")
    with pytest.raises(TargetError, match=r"'__inference_step_\d+' calls itself.*TensorFlow does not load"):
        analyse(read(path), wrt="both")
    with pytest.raises(ValueError, match="cyclic dependency"):
        tf.saved_model.load(str(path))
