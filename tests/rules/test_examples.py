"""Every rule's `hits` lose their gradient and get one back, proved by numbers; its `misses` are declined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.rewrite.fix import Repair, repair
from gradpass.rules.base import rules
from tests.models import V, gradients, save_expressions, with_pb

HITS = [(rule.name, text) for rule in rules() for text in rule.hits]
SMOOTH = {rule.name for rule in rules() if rule.no_limit is None}
MISSES = [(rule.name, text, reason) for rule in rules() for text, reason in rule.misses]


class Repaired:
    """All hits in one SavedModel, repaired in one way, original and result loaded."""

    def __init__(self, folder: Path, dtype: tf.DType, **options: Any) -> None:
        original = save_expressions(folder / "original", [text for _, text in HITS], dtype)
        self.repair: Repair = repair(read(original), entry="all", **options)
        assert self.repair.pb is not None
        fixed = with_pb(original, folder / "fixed", self.repair.pb)
        self.original = tf.saved_model.load(str(original))
        self.fixed = tf.saved_model.load(str(fixed))
        self.after = {v.name: v for v in analyse(read(fixed), "all")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    return Repaired(tmp_path_factory.mktemp("straight"), tf.float32)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    return Repaired(tmp_path_factory.mktemp("sum"), tf.float32, carrier="sum")


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    return Repaired(tmp_path_factory.mktemp("soft"), tf.float64, mode="soft", absolute_temperature=True)


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    return Repaired(
        tmp_path_factory.mktemp("cold"), tf.float64, mode="soft", absolute_temperature=True, temperature=1e-3
    )


def each_hit(function: Any) -> Any:
    return pytest.mark.parametrize("index", range(len(HITS)), ids=[f"{name}-{i}" for i, (name, _) in enumerate(HITS)])(
        function
    )


@each_hit
def test_hit_loses_its_gradient(straight: Repaired, index: int) -> None:
    verdict = next(v for v in straight.repair.before if v.name == f"hit_{index}")
    assert verdict.targets[0].structure != "flows"
    if verdict.targets[0].state == "raises":
        with pytest.raises(LookupError, match="No gradient defined"):
            gradients(straight.original.signatures[f"hit_{index}"], [straight.original.v])
        return
    (gradient,) = gradients(straight.original.signatures[f"hit_{index}"], [straight.original.v])
    assert gradient is None or not gradient.any()


@each_hit
@pytest.mark.parametrize("carrier", ["straight", "guarded"])
def test_forward_bits_stay_and_a_gradient_comes(index: int, carrier: str, request: pytest.FixtureRequest) -> None:
    repaired: Repaired = request.getfixturevalue(carrier)
    name = f"hit_{index}"
    assert not [s.declined for s in repaired.repair.plan if s.declined]
    before = repaired.original.signatures[name]()["y"].numpy()
    after = repaired.fixed.signatures[name]()["y"].numpy()
    assert before.tobytes() == after.tobytes()
    (gradient,) = gradients(repaired.fixed.signatures[name], [repaired.fixed.v], seed=index)
    assert gradient is not None and np.isfinite(gradient).all() and gradient.any()
    target = repaired.after[name].targets[0]
    assert (target.state, target.structure) == ("flows", "flows")


each_smooth_hit = pytest.mark.parametrize(
    "index",
    [i for i, (name, _) in enumerate(HITS) if name in SMOOTH],
    ids=[f"{name}-{i}" for i, (name, _) in enumerate(HITS) if name in SMOOTH],
)


@each_smooth_hit
def test_soft_gradient_is_the_derivative_of_the_soft_value(soft: Repaired, index: int) -> None:
    """Central differences in float64; temperature absolute, since the derivative holds a relative one fixed."""
    signature, v = soft.fixed.signatures[f"hit_{index}"], soft.fixed.v
    rng = np.random.default_rng(index)
    cotangent = rng.normal(size=signature()["y"].shape)
    direction = rng.normal(size=V.shape)

    def value(step: float) -> float:
        v.assign(V + step * direction)
        return float(np.sum(signature()["y"].numpy() * cotangent))

    h = 1e-5  # error of order h^2 = 1e-10 from the third derivative, 1e-16 / h = 1e-11 from rounding
    difference = (value(h) - value(-h)) / (2 * h)
    v.assign(V)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(signature()["y"] * cotangent)
    derivative = float(np.sum(tf.convert_to_tensor(tape.gradient(loss, v)).numpy() * direction))
    assert abs(derivative - difference) <= 1e-6 * max(1.0, abs(difference))
    assert derivative != 0


@each_smooth_hit
def test_soft_value_tends_to_the_hard_one(cold: Repaired, index: int) -> None:
    name = f"hit_{index}"
    hard = cold.original.signatures[name]()["y"].numpy()
    np.testing.assert_allclose(cold.fixed.signatures[name]()["y"].numpy(), hard, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("rule", "text", "reason"), MISSES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISSES)])
def test_miss_is_declined_with_its_reason(rule: str, text: str, reason: str, tmp_path: Path) -> None:
    result = repair(read(save_expressions(tmp_path / "miss", [text])))
    assert result.pb is None
    assert [step.declined for step in result.plan if step.declined and reason in step.declined]
