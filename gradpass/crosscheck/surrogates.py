"""The checks of a repair's gradients by hands that do not know it, for one entry of two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from gradpass.crosscheck.autodiff import check_autodiff
from gradpass.crosscheck.check import Check, Outcome, Skip, Status, attempt, guarded
from gradpass.crosscheck.differences import check_derivative, summed
from gradpass.crosscheck.export import Tools, tools
from gradpass.crosscheck.gradients import cotangents, gradients_of, sources_of
from gradpass.crosscheck.load import Loaded, Signature, load_bytes
from gradpass.crosscheck.runtime import Runner
from gradpass.crosscheck.schema import check_schema
from gradpass.crosscheck.soft import bound, size, soften
from gradpass.crosscheck.values import Sample
from gradpass.crosscheck.worth import Nowhere, check_worth

NAMES = ["derivative", "autodiff", "schema", "worth"]
NEARBY = 1e-2
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


@dataclass(frozen=True)
class Told:
    """What TensorFlow says of the fixed model at one sample: gradients by the path of a variable or name of an input.

    Paths of variables begin with a slash; `values` are what the trainable ones had, near to
    their own, whose elements have these `scales`. `promised` are those that the plan
    promises.
    """

    sample: Sample
    values: dict[str, Any]
    scales: dict[str, float]
    cotangents: dict[str, Any]
    gradients: dict[str, Any]
    promised: set[str]

    @classmethod
    def asked(cls, fixed: Loaded, signature: Signature, samples: list[Sample], promised: list[str], seed: int) -> Told:
        """Asks TensorFlow, under an eager tape, at the first sample that says something of every promised target."""
        usable = [sample for sample in samples if not sample.edge]
        if not usable:
            raise Skip("there is no input to check with")
        rng = np.random.default_rng(seed)
        variables = {path: v.numpy() for path, v in sources(fixed, signature, {}).items()}
        values = {path: nearby(value, rng) for path, value in variables.items()}
        best: Told | None = None
        for sample in usable:
            asked = [s for name in promised for s in sources_of(fixed, signature, name, sample.inputs)]
            own = sources(fixed, signature, sample.inputs)
            wanted = {key for key, source in own.items() if any(source is each for each in asked)}
            scales = {path: size(value) for path, value in {**variables, **_arrays(sample.inputs)}.items()}
            told = cls(sample, values, scales, cotangents(sample, rng), {}, wanted).again(fixed, signature)
            if best is None or told.telling > best.telling:
                best = told
            if best.telling == len(wanted):
                break
        assert best is not None
        return best

    @property
    def telling(self) -> int:
        """How many promised gradients are not zero here; the others tell nothing."""
        return sum(bool(np.any(self.gradients[key])) for key in self.promised if self.gradients[key] is not None)

    def again(self, fixed: Loaded, signature: Signature) -> Told:
        """The same asked of another model of the same variables."""
        own = sources(fixed, signature, self.sample.inputs)
        with _assigned({path: own[path] for path in self.values}, self.values):
            found = gradients_of(signature, self.sample.inputs, own, self.cotangents)
        return replace(self, gradients={key: _dense(gradient) for key, gradient in found.items()})


def nearby(value: Any, rng: np.random.Generator) -> Any:
    """A value a hundredth of its size away.

    At the point where training starts, with its zeros and ones, whole channels stand exactly on the kink of a relu, of
    which libraries take one side or the other.
    """
    return (value + NEARBY * size(value) * rng.standard_normal(value.shape)).astype(value.dtype)


@contextmanager
def _assigned(variables: dict[str, Any], values: dict[str, Any]) -> Iterator[None]:
    """Gives variables other values for a while."""
    before = {path: variable.numpy() for path, variable in variables.items()}
    try:
        for path, variable in variables.items():
            variable.assign(values[path])
        yield
    finally:
        for path, variable in variables.items():
            variable.assign(before[path])


def sources(loaded: Loaded, signature: Signature, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a signature can be differentiated by: its float inputs, and the trainable variables that it reads."""
    place = paths(loaded.root)
    found = {name: value for name, value in inputs.items() if value.dtype.is_floating}
    found |= {place[id(v)]: v for v in signature.variables if v.trainable and v.dtype.is_floating and id(v) in place}
    return found


def paths(root: Any) -> dict[int, str]:
    """The paths of the objects of a loaded model, the shortest of each, by their ids."""
    import tensorflow as tf

    found = {id(root): ""}
    queue = [root]
    while queue:
        parent = queue.pop(0)
        for name, child in tf.train.TrackableView.children(parent).items():
            if id(child) not in found:
                found[id(child)] = f"{found[id(parent)]}/{name}"
                queue.append(child)
    return found


def _arrays(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in inputs.items() if value.dtype.is_floating}


def _dense(gradient: Any) -> Any:
    import tensorflow as tf

    return None if gradient is None else np.asarray(tf.convert_to_tensor(gradient).numpy())


class Hands:
    """The checks by other hands, of all entries of two models."""

    def __init__(
        self,
        paths: tuple[Path, Path],
        loaded: tuple[Loaded, Loaded],
        surrogates: Surrogates | None,
        nowhere: list[Nowhere],
        seed: int,
    ) -> None:
        self._paths = paths
        self._original, self._fixed = loaded
        self._surrogates = surrogates
        self._nowhere = nowhere
        self._seed = seed

    def ask(self, entry: str, samples: list[Sample], promised: list[str]) -> Outcome[Told]:
        """Asks TensorFlow for the gradients of an entry, before anything of it is exported."""

        def told() -> Told:
            if self._surrogates is None or not promised:
                raise Skip("the plan promises no gradient to this entry")
            return Told.asked(self._fixed, self._fixed.signature(entry, "fixed model"), samples, promised, self._seed)

        return attempt(told)

    def rows(self, entry: str, told: Outcome[Told], progress: Callable[[str], None]) -> list[Check]:
        """All checks of an entry; one that cannot answer is skipped or failed by itself. None without surrogates."""
        if self._surrogates is None:
            return []
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
        assert self._surrogates is not None
        pb, reason = self._surrogates.pb, self._surrogates.reason

        def load() -> Loaded:
            if reason is not None:
                raise Skip(reason)
            return self._fixed if pb is None else load_bytes(self._paths[0], pb)

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
            name, self._tools, known.soft, known.gradients(self._told), known.cotangents, self._hands._seed
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
        surrogates = hands._surrogates
        assert surrogates is not None
        signature = hands._original.signature(self._entry, "original")
        known = Known(self._tools, signature, hands._original, told, hold=False)

        def at(temperature: float) -> dict[str, Any]:
            assert surrogates is not None
            assert surrogates.at is not None
            other = load_bytes(hands._paths[1], surrogates.at(temperature))
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
            hands._seed,
        )
        hands._nowhere += found
        return check


class Known:
    """An exported model, and what was told of its targets."""

    def __init__(self, tools: Tools, signature: Signature, loaded: Loaded, told: Told, hold: bool = True) -> None:
        place = paths(loaded.root)
        values = {number: told.values[path] for number, path in place.items() if path in told.values}
        self._tools = tools
        self.soft = soft = soften(tools, signature, told.sample.inputs, values, hold)
        self._keys = {t: place[id(soft.variables[t])] if t in soft.variables else t for t in soft.targets}
        self.promised = {target for target, key in self._keys.items() if key in told.promised}
        self.cotangents = {name: told.cotangents[name] for name in soft.outputs}

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
