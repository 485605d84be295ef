"""On any graph the verdict is TensorFlow's, a repair keeps every bit, and a second one does nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, given, settings

from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import repair
from tests.models import save, with_pb
from tests.random_graphs import COLS, ROWS, Graph, Module, graphs


def depends(gradient: Any, cotangents: list[Any]) -> bool:
    """Whether a gradient tensor is computed from a cotangent, through data edges that are not about shapes."""
    wanted = {c.op.name for c in cotangents}
    seen: set[str] = set()
    stack = [gradient.op]
    while stack:
        op = stack.pop()
        if op.name in wanted:
            return True
        if op.name in seen or op.type in ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"):
            continue
        seen.add(op.name)
        stack += [t.op for t in op.inputs]
    return False


def flat_truth(module: Module) -> list[str]:
    """What tf.gradients answers on the flat graph, by variable: flows, zero or none."""

    @tf.function(autograph=False)
    def trace(x: Any) -> None:
        leaves = [tf.identity(v) for v in (module.a, module.b)]
        from tests.random_graphs import run

        ys = run(module.graph, leaves, x, flat=True)
        cotangents = [tf.compat.v1.placeholder(tf.float32, y.shape) for y in ys]
        for g in tf.gradients(ys, leaves, grad_ys=cotangents):
            truth.append("none" if g is None else "flows" if depends(tf.convert_to_tensor(g), cotangents) else "zero")

    truth: list[str] = []
    trace.get_concrete_function(tf.TensorSpec([ROWS, COLS], tf.float32))
    return truth


def loaded_gradients(loaded: Any, x: Any) -> dict[str, Any]:
    signature = loaded.signatures["serving_default"]
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(y * (1.5 + i)) for i, y in enumerate(signature(x=x).values())])
    found = tape.gradient(total, [loaded.a, loaded.b])
    return dict(zip("ab", found, strict=True))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_random_graph(graph: Graph) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        check(graph, folder)
    finally:
        shutil.rmtree(folder)


def check(graph: Graph, folder: Path) -> None:
    """One graph: verdict against TensorFlow, repair, verdict again, bits, idempotence."""
    module = Module(graph)
    source = save(module, folder / "m")
    model = read(source)
    (verdict,) = analyse(model)
    x = tf.constant(np.random.default_rng(0).normal(size=[ROWS, COLS]), tf.float32)
    original = tf.saved_model.load(str(source))
    says = loaded_gradients(original, x)
    truth = dict(zip("ab", flat_truth(module), strict=True))
    for target in verdict.targets:
        gradient = says[target.name]
        assert (target.state == "none") == (gradient is None), target
        if target.state == "zero":
            assert not tf.convert_to_tensor(gradient).numpy().any(), target
        if target.captured:
            assert target.structure == truth[target.name], target
    result = repair(model)
    if result.pb is None:
        assert all(step.declined for step in result.plan)
        return
    fixed_path = with_pb(source, folder / "f", result.pb)
    fixed = tf.saved_model.load(str(fixed_path))
    before, after = (m.signatures["serving_default"](x=x) for m in (original, fixed))
    assert {k: v.numpy().tobytes() for k, v in before.items()} == {k: v.numpy().tobytes() for k, v in after.items()}
    (verdict_after,) = analyse(read(fixed_path))
    new = loaded_gradients(fixed, x)
    promised = {i for step in result.plan if not step.declined for i in step.cut.starves}
    declined = {i for step in result.plan if step.declined for i in step.cut.starves}
    for i, target in enumerate(verdict_after.targets):
        assert (target.state == "none") == (new[target.name] is None), target
        if i in promised - declined:
            assert target.structure == "flows", target
        if new[target.name] is not None:
            assert np.isfinite(tf.convert_to_tensor(new[target.name]).numpy()).all()
        if verdict.targets[i].structure == "flows":
            assert target.structure == "flows"
    again = repair(read(fixed_path))
    assert again.pb is None
