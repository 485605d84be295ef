"""The checks of a repair's gradients by hands that do not know it, for one entry of two models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from gradpass.crosscheck.autodiff import check_autodiff
from gradpass.crosscheck.check import Check, Outcome, Skip, Status, attempt, guarded
from gradpass.crosscheck.differences import check_derivative, summed
from gradpass.crosscheck.export import Tools, tools
from gradpass.crosscheck.load import Loaded, Signature, load_bytes
from gradpass.crosscheck.near import paths
from gradpass.crosscheck.runtime import Runner
from gradpass.crosscheck.schema import check_schema
from gradpass.crosscheck.soft import bound, soften
from gradpass.crosscheck.told import Told
from gradpass.crosscheck.values import Sample, deviation
from gradpass.crosscheck.worth import Nowhere, check_worth

NAMES = ["derivative", "autodiff", "schema", "worth"]
CLOSE = 1e-3  # of an output's range; what an exporter carries in another sense is off by far more
FACTORS = (1 / 64, 1 / 16, 1 / 4, 4, 16, 64)  # other temperatures that are tried where this one leads nowhere


@dataclass(frozen=True)
class Surrogates:
    """Where the soft functions of a repair are to be seen.

    `pb` are the bytes of a saved_model.pb for the original's weights: the same repair with every soft function in the
    forward pass. None: the fixed model itself has them there. `reason` says why there is no such graph. `at` gives the
    fixed saved_model.pb at another temperature than this one; without it, none is tried.
    """

    pb: bytes | None = None
    reason: str | None = None
    temperature: float = 1.0
    at: Callable[[float], bytes] | None = None


class Hands:
    """The checks by other hands, of all entries of two models."""

    def __init__(
        self,
        paths: tuple[Path, Path],
        loaded: tuple[Loaded, Loaded],
        surrogates: Surrogates,
        nowhere: list[Nowhere],
        seed: int,
    ) -> None:
        self.paths = paths
        self.original, self.fixed = loaded
        self.surrogates = surrogates
        self.nowhere = nowhere
        self.seed = seed

    def ask(self, entry: str, samples: list[Sample], promised: list[str], values: Check) -> Outcome[Told]:
        """Asks TensorFlow for the gradients of an entry, before anything of it is exported.

        `samples` are those of the check of `values`; where that could not be made, other hands have nothing to go by.
        """

        def told() -> Told:
            if not promised:
                raise Skip("the plan promises no gradient to this entry")
            if values.status == "skipped":
                raise Skip(str(values.reason))
            return Told.asked(self.fixed, self.fixed.signature(entry, "fixed model"), samples, promised, self.seed)

        return attempt(told)

    def rows(self, entry: str, told: Outcome[Told], progress: Callable[[str], None]) -> list[Check]:
        """All checks of an entry; one that cannot answer is skipped or failed by itself."""
        if told.value is None:
            status: Status = "skipped" if isinstance(told.problem, Skip) else "failed"
            return [Check(name, status, reason=told.reason) for name in NAMES]
        hand = _Hand(self, entry, told.value)
        checks = {"derivative": hand.derivative, "autodiff": hand.autodiff, "schema": hand.schema, "worth": hand.worth}
        found = []
        for name, check in checks.items():
            progress(f"cross-check: {name} of {entry}")
            found += guarded([name], partial(_row, check, name))
        return found

    @cached_property
    def soft(self) -> Outcome[Loaded]:
        """The model that has the surrogates in its forward pass."""
        pb, reason = self.surrogates.pb, self.surrogates.reason

        def load() -> Loaded:
            if reason is not None:
                raise Skip(reason)
            return self.fixed if pb is None else load_bytes(self.paths[0], pb)

        return attempt(load)


def _row(check: Callable[[str], Check], name: str) -> list[Check]:
    return [check(name)]


class _Hand:
    """The checks of one entry."""

    def __init__(self, hands: Hands, entry: str, told: Told) -> None:
        self._hands = hands
        self._entry = entry
        self._told = told

    @cached_property
    def _tools(self) -> Tools:
        return tools()

    @cached_property
    def _softened(self) -> Outcome[Known]:
        def soft() -> Known:
            loaded = self._hands.soft.given()
            signature = loaded.signature(self._entry, "soft graph")
            return Known(self._tools, signature, loaded, self._told)

        return attempt(soft)

    def derivative(self, name: str) -> Check:
        """TensorFlow's gradient against differences."""
        known = self._softened.given()
        return check_derivative(
            name,
            self._tools,
            known.soft,
            known.gradients(self._told),
            known.cotangents,
            known.promised,
            self._hands.seed,
        )

    def autodiff(self, name: str) -> Check:
        """TensorFlow's gradient against that of another autodiff."""
        known = self._softened.given()
        return check_autodiff(
            name, self._tools, known.soft, known.gradients(self._told), known.cotangents, known.promised
        )

    def schema(self, name: str) -> Check:
        """The verdict against what ONNX says of each op."""
        known = self._softened.given()
        return check_schema(name, self._tools, known.soft, known.promised)

    def worth(self, name: str) -> Check:
        """TensorFlow's gradient against the smoothed one of the hard function."""
        hands, told = self._hands, self._told
        surrogates, seed = hands.surrogates, hands.seed
        signature = hands.original.signature(self._entry, "original")
        known = Known(self._tools, signature, hands.original, told, hold=False)

        def at(temperature: float) -> dict[str, Any]:
            assert surrogates.at is not None
            other = load_bytes(hands.paths[1], surrogates.at(temperature))
            signature = other.signature(self._entry, "fixed model")
            return known.gradients(told.again(other, signature))

        check, found = check_worth(
            name,
            known.soft,
            known.promised,
            known.scales(told),
            known.of_one,
            known.gradients(told),
            at,
            [surrogates.temperature * factor for factor in FACTORS] if surrogates.at else [],
            seed,
        )
        hands.nowhere += found
        return check


class Known:
    """An exported model, and what was told of its targets."""

    def __init__(self, tools: Tools, signature: Signature, loaded: Loaded, told: Told, hold: bool = True) -> None:
        place = paths(loaded.root)
        values = {number: told.values[path] for number, path in place.items() if path in told.values}
        self._tools = tools
        self.soft = soft = soften(tools, signature, told.inputs, values, hold)
        self._keys = {t: place[id(soft.variables[t])] if t in soft.variables else t for t in soft.targets}
        self.promised = {target for target, key in self._keys.items() if key in told.promised}
        self.cotangents = {name: cotangent for name, cotangent in told.cotangents.items() if name in soft.outputs}
        if not self.cotangents:
            raise Skip("its export, with its variables as inputs, has no output of floats")
        self._compare(told if hold else None)

    def _compare(self, told: Told | None) -> None:
        """Skip where the export does not run, or computes something else than TensorFlow did at the point."""
        ran = attempt(lambda: Runner(self._tools, self.soft.model).run(self.soft.point))
        if ran.value is None:
            raise Skip(f"its export, with its variables as inputs, does not run: {ran.reason}")
        if told is None:
            return
        apart = {name: deviation([told.outputs[name]], [ran.value[name]]) for name in self.cotangents}
        worst = max(apart, key=lambda name: apart[name], default=None)
        if worst is not None and not apart[worst] <= CLOSE:
            told_as = f"{worst} by {apart[worst]:.2g} of its range"
            raise Skip(f"its export, with its variables as inputs, computes something else than TensorFlow: {told_as}")

    def scales(self, told: Told) -> dict[str, float]:
        """The sizes of the targets' elements as the model has them, by input of this model."""
        return {target: told.scales.get(key, 1.0) for target, key in self._keys.items()}

    def of_one(self, target: str) -> Callable[[Any], float]:
        """The sum with the cotangents as a function of one target, the others at the point."""
        runner = Runner(self._tools, bound(self._tools, self.soft, target))
        return lambda value: summed(runner.run({target: value}), self.cotangents)

    def gradients(self, told: Told) -> dict[str, Any]:
        """What TensorFlow told, by input of this model."""
        return {target: told.gradients.get(key) for target, key in self._keys.items()}
