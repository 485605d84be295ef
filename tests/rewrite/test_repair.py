"""What a repair promises: forward bits, live gradients as they were, a gradient for all, nothing else touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program import edit
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import Repair, repair
from tests.models import gradients, save, with_pb
from tests.rewrite.modules import (
    EVERY,
    InsideWhile,
    LookedUpVariable,
    NestedCalls,
    ReadsAfterAssign,
    ReluMask,
    SideEffects,
    TwoLayers,
    TwoThresholds,
    inputs,
)


class Case:
    """A module saved, repaired, and both loaded."""

    def __init__(self, folder: Path, cls: Any, **options: Any) -> None:
        self.module = cls()
        self.source = save(self.module, folder / "original")
        self.repair: Repair = repair(read(self.source), **options)
        assert self.repair.pb is not None
        self.path = with_pb(self.source, folder / "fixed", self.repair.pb)
        self.original = tf.saved_model.load(str(self.source))
        self.fixed = tf.saved_model.load(str(self.path))

    def run(self, loaded: Any, seed: int) -> dict[str, np.ndarray]:
        outputs = loaded.signatures["serving_default"](**inputs(self.module, seed))
        return {name: value.numpy() for name, value in outputs.items()}

    def gradients(self, loaded: Any, seed: int = 0) -> dict[str, Any]:
        names = [v.name.partition(":")[0] for v in self.module.trainable_variables]
        variables = {v.name.partition(":")[0]: v for v in loaded.signatures["serving_default"].variables}
        found = gradients(
            loaded.signatures["serving_default"], [variables[n] for n in names], inputs(self.module, seed), seed
        )
        return dict(zip(names, found, strict=True))


@pytest.fixture(scope="module", params=[(cls, carrier) for cls in EVERY for carrier in ("bridge", "sum")],
                ids=lambda p: f"{p[0].__name__}-{p[1]}")  # fmt: skip
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    cls, carrier = request.param
    return Case(tmp_path_factory.mktemp(cls.__name__), cls, carrier=carrier)


def test_every_cut_is_served(case: Case) -> None:
    assert [step.declined for step in case.repair.plan] == [None] * len(case.repair.plan)


def test_forward_bits_are_the_originals(case: Case) -> None:
    for seed in range(5):
        before, after = case.run(case.original, seed), case.run(case.fixed, seed)
        assert {k: v.tobytes() for k, v in before.items()} == {k: v.tobytes() for k, v in after.items()}


def test_everybody_gets_a_gradient(case: Case) -> None:
    for name, gradient in case.gradients(case.fixed).items():
        assert gradient is not None and np.isfinite(gradient).all() and gradient.any(), name


def test_verdict_after_agrees(case: Case) -> None:
    (verdict,) = analyse(read(case.path))
    assert {(t.state, t.structure) for t in verdict.targets} == {("flows", "flows")}
    assert not verdict.cuts


def test_repair_of_the_result_changes_nothing(case: Case) -> None:
    again = repair(read(case.path))
    assert again.pb is None and not again.plan


@pytest.mark.parametrize("cls", [NestedCalls, TwoLayers, ReluMask, LookedUpVariable])
def test_live_gradients_keep_their_bits(cls: Any, tmp_path: Path) -> None:
    case = Case(tmp_path, cls)
    before, after = case.gradients(case.original), case.gradients(case.fixed)
    live = [name for name, gradient in before.items() if gradient is not None]
    assert live
    for name in live:
        assert before[name].tobytes() == after[name].tobytes()


def test_two_thresholds_learn_where_both_are_off(tmp_path: Path) -> None:
    case = Case(tmp_path, TwoThresholds)
    signature = case.fixed.signatures["serving_default"]
    off = {"x": tf.constant([1.0, 1.0, 1.0])}
    assert not signature(**off)["output_0"].numpy().any()
    for gradient in gradients(signature, list(signature.variables), off):
        assert gradient.all()


def test_relu_mask_and_accuracy_are_left_alone(tmp_path: Path) -> None:
    case = Case(tmp_path, ReluMask)
    assert [step.cut.op for step in case.repair.plan] == ["Round"]
    assert case.repair.repointed == 1


def test_inlined_side_effects_happen_once_and_in_order(tmp_path: Path) -> None:
    case = Case(tmp_path, SideEffects)
    assert case.repair.inlined
    for run in (1.0, 2.0):
        output = case.run(case.fixed, 0)["output_0"]
        assert output.max() == run
        assert case.fixed.count.numpy() == run


def test_inlined_body_waits_for_what_its_call_waited_for(tmp_path: Path) -> None:
    """Every row chooses the last column, because the assignment comes before the read inside the call."""
    case = Case(tmp_path, ReadsAfterAssign)
    assert case.repair.inlined
    for run in range(20):
        assert case.run(case.fixed, run)["output_0"][:, 3].all()
    assert not case.fixed.bias.numpy().any()
    (function,) = (read(case.path).program.function(name) for name in case.repair.inlined)
    (call,) = next(iter(case.repair.inlined.values()))
    reads = [n for n in function.nodes if n.op == "ReadVariableOp" and n.name.startswith(f"{call}/") and not n.controls]
    assert not reads


def test_result_trains_and_saves_again(tmp_path: Path) -> None:
    """Ten steps of SGD on the loaded result, saved by TensorFlow, loaded again: same values, still a gradient."""
    case = Case(tmp_path, TwoLayers)
    signature = case.fixed.signatures["serving_default"]
    data = inputs(case.module, 3)
    goal = tf.constant(np.random.default_rng(1).normal(size=[5, 2]), tf.float32)
    variables = list(signature.variables)
    losses = []
    for _ in range(10):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((signature(**data)["output_0"] - goal) ** 2)
        losses.append(float(loss))
        for v, g in zip(variables, tape.gradient(loss, variables), strict=True):
            v.assign_sub(0.1 * g)
    assert losses[-1] < losses[0]
    again = tmp_path / "again"
    tf.saved_model.save(case.fixed, str(again), signatures=case.fixed.signatures)
    loaded = tf.saved_model.load(str(again))
    assert case.run(loaded, 3)["output_0"].tobytes() == case.run(case.fixed, 3)["output_0"].tobytes()
    for gradient in case.gradients(loaded).values():
        assert gradient is not None and gradient.any()


def test_result_serves_elsewhere(tmp_path: Path) -> None:
    """A TF1 Session, a Keras TFSMLayer, XLA: the same bits."""
    case = Case(tmp_path, NestedCalls)
    data = inputs(case.module, 1)
    expected = case.run(case.fixed, 1)["probabilities"]
    import keras

    layer = keras.layers.TFSMLayer(str(case.path), call_endpoint="serving_default")
    assert layer(data["x"])["probabilities"].numpy().tobytes() == expected.tobytes()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(case.path))
        signature = meta.signature_def["serving_default"]
        got = session.run(signature.outputs["probabilities"].name, {signature.inputs["x"].name: data["x"].numpy()})
    assert got.tobytes() == expected.tobytes()
    compiled = [tf.function(m.signatures["serving_default"], jit_compile=True) for m in (case.original, case.fixed)]
    before, after = (f(**data)["probabilities"].numpy() for f in compiled)
    assert before.tobytes() == after.tobytes()


def test_untouched_functions_stay_byte_for_byte(tmp_path: Path) -> None:
    """Only the functions that the repair names differ, and the entry points keep name and signature."""
    case = Case(tmp_path, InsideWhile)
    before, after = read(case.source), read(case.path)
    edited = set(case.repair.added) | set(case.repair.inlined)
    for name in before.program.functions:
        old = before.program.function(name).proto.SerializeToString(deterministic=True)
        new = after.program.function(name).proto.SerializeToString(deterministic=True)
        assert (old != new) == (name in edited), name
    assert edit.encode(before, []) == before.raw
    assert list(before.entries) == list(after.entries)
    assert list(before.entries["serving_default"].outputs) == list(after.entries["serving_default"].outputs)


def test_optimised_graph_pays_nothing_for_a_bridge(tmp_path: Path) -> None:
    """Once inlined and optimised, the forward graph of the fixed model has the original's ops and no more."""
    case = Case(tmp_path, TwoLayers)
    counts = []
    for path in (case.source, case.path):
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        loaded = tf.saved_model.load(str(path))
        frozen = convert_variables_to_constants_v2(loaded.signatures["serving_default"])
        ops = [n.op for n in frozen.graph.as_graph_def().node if n.op not in ("Identity", "NoOp", "IdentityN", "Const")]
        counts.append(sorted(ops))
    assert counts[0] == counts[1]
