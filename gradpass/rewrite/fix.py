"""Leads a repair: verdict, calls inlined where a region crosses them, regions, carriers, new bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tensorboard.compat.proto.function_pb2 import FunctionDef

from gradpass.errors import GradpassError
from gradpass.flow.analysis import follow
from gradpass.flow.blame import Blame
from gradpass.flow.verdict import Cut, EntryVerdict
from gradpass.program import edit
from gradpass.program.graph import Node
from gradpass.program.model import Model
from gradpass.rewrite.inline import inline
from gradpass.rules.base import Decline, Knobs, by_op
from gradpass.rules.kernels import named
from gradpass.soft.simplex import WEIGHTS

Place = tuple[str | None, str]  # function and node


@dataclass
class Step:
    """What becomes of one cut: the rules that its region uses and the nodes that they add, or why it stays.

    `stopped` says where its surrogate could not go on, though it may have gone on elsewhere.
    """

    cut: Cut
    rules: list[str] = field(default_factory=list)
    kind: str = "estimator"
    nodes_added: int = 0
    declined: str | None = None
    stopped: list[str] = field(default_factory=list)


@dataclass
class Repair:
    """A repair. `pb` are the bytes of the new saved_model.pb, None where nothing changed.

    `added` and `inlined` name, by function, the nodes put in and the calls replaced by their bodies; `repointed` counts
    the inputs and results that now come from elsewhere. `options` are those of `repair` that it was made by.
    """

    pb: bytes | None
    plan: list[Step]
    before: list[EntryVerdict]
    model: Model
    added: dict[str, list[str]] = field(default_factory=dict)
    inlined: dict[str, list[str]] = field(default_factory=dict)
    repointed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def promised(self) -> dict[str, set[str]]:
        """By entry the paths of the targets of which every cut is served: they must flow now."""
        promised: dict[str, set[str]] = {}
        for verdict in self.before:
            served = {i for cut in verdict.cuts for i in cut.starves}
            for step in self.plan:
                if step.declined is not None:
                    for cut in verdict.cuts:
                        if (cut.function, cut.node) == (step.cut.function, step.cut.node):
                            served -= set(cut.starves)
            promised[verdict.name] = {verdict.targets[i].path for i in served}
        return promised


@dataclass
class Options:
    """How to repair; the names are those of the command line."""

    mode: str = "straight-through"
    carrier: str = "bridge"
    knobs: Knobs = field(default_factory=Knobs)
    exact_only: bool = False
    rules: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises GradpassError for a word that nobody knows."""
        _known("--mode", self.mode, ("straight-through", "soft"))
        _known("--carrier", self.carrier, ("bridge", "sum"))
        if self.knobs.kernel is not None:
            named(self.knobs.kernel)
        _known("--choice", self.knobs.choice, tuple(WEIGHTS))
        if not (self.knobs.temperature > 0 and math.isfinite(self.knobs.temperature)):
            raise GradpassError(f"--temperature must be a positive finite number, not {self.knobs.temperature}")
        for op, name in self.rules.items():
            _known(f"--rule {op}", name, tuple(rule.name for rule in by_op().get(op, ())))


def _known(option: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise GradpassError(
            f"{option} does not know {word!r}; choose from {', '.join(words) or 'nothing: no rule serves that op'}"
        )


def repair(
    model: Model,
    entry: str | None = None,
    mode: str = "straight-through",
    carrier: str = "bridge",
    temperature: float = 1.0,
    absolute_temperature: bool = False,
    kernel: str | None = None,
    exact_only: bool = False,
    rules: dict[str, str] | None = None,
    choice: str = "entropic",
) -> Repair:
    """Repairs the starved variables of an entry as far as rules reach; writes nothing.

    Where the file has no place for a bridge's gradient (a TF1 SavedModel, a frozen graph), the guarded sum carries.
    Raises GradpassError for options that nobody knows.
    """
    given = {
        "entry": entry,
        "mode": mode,
        "carrier": carrier,
        "temperature": temperature,
        "absolute_temperature": absolute_temperature,
        "kernel": kernel,
        "exact_only": exact_only,
        "rules": rules,
        "choice": choice,
    }
    options = Options(mode, carrier, Knobs(temperature, absolute_temperature, kernel, choice), exact_only, rules or {})
    options.check()
    before = follow(model, entry)
    from gradpass.rewrite.lost import lost, repaired_without

    places = lost(model, before)
    if places:
        done = repaired_without(model, entry, before, places, lambda m, found: _repair(m, entry, options, found))
    else:
        done = _repair(model, entry, options, before)
    done.options = given
    return done


def _repair(
    model: Model, entry: str | None, options: Options, before: list[tuple[EntryVerdict, Blame | None]]
) -> Repair:
    """As `repair`, of a model of which every custom gradient is known.

    A surrogate may go on from a cut on one way and be stopped on that to the loss. Then the cut is given up, and all is
    done again without it.
    """
    if not any(verdict.cuts for verdict, _ in before):
        return Repair(None, [], [verdict for verdict, _ in before], model)
    if model.kind == "metagraph":
        raise GradpassError(f"{model.path} has no weights beside it, which this version only checks; fix a SavedModel")
    from gradpass.rewrite.close import close_regions  # TensorFlow is imported only where something is built

    verdicts = [verdict for verdict, _ in before]
    repaired, calls, blocked = _inlined(model, entry)
    given_up: dict[Place, str] = {}
    while True:
        plan: dict[Place, Step] = {}  # a cut that several entries meet is one step
        steps: dict[str, Step] = {}
        for verdict in verdicts:
            for cut in verdict.cuts:
                step = plan.setdefault((cut.function, cut.node), Step(cut))
                steps[place_of(model, verdict.name, cut.stack, cut.node)] = step
        result = Repair(None, list(plan.values()), verdicts, repaired, inlined=calls)
        wanted = {place: step for place, step in steps.items() if (step.cut.function, step.cut.node) not in given_up}
        close_regions(result, wanted, entry, options, blocked)
        for place, reason in given_up.items():
            plan[place].declined = reason
        still = _stopped(result, entry, wanted)
        if not still:
            return result
        given_up |= still


def _stopped(result: Repair, entry: str | None, steps: dict[str, Step]) -> dict[Place, str]:
    """The cuts that have been served and still sever somebody, with what their surrogates were stopped by."""
    if result.pb is None:
        return {}
    found = {}
    for verdict, _ in follow(result.model, entry):
        for cut in verdict.cuts:
            step = steps.get(place_of(result.model, verdict.name, cut.stack, cut.node))
            if step is not None and step.rules and step.stopped:
                found[step.cut.function, step.cut.node] = "; ".join(dict.fromkeys(step.stopped))
    return found


def place_of(model: Model, entry: str, stack: tuple[str, ...], node: str) -> str:
    """A name for a node in its activation that inlining keeps: the entry's function, the calls down to it, its own."""
    return "/".join((model.entries[entry].function.name or "", *stack, node))


def _inlined(model: Model, entry: str | None) -> tuple[Model, dict[str, list[str]], dict[str, str]]:
    """The model with every call inlined that a severed discrete value crosses, and by callee why others cannot be."""
    done: dict[str, list[str]] = {}
    blocked: dict[tuple[str | None, str], tuple[str, str]] = {}
    while True:
        calls: dict[str | None, dict[str, Node]] = {}
        for _, blame in follow(model, entry):
            for call in blame.crossed() if blame else ():
                if (call.function.name, call.name) not in blocked:
                    calls.setdefault(call.function.name, {})[call.name] = call
        functions: list[FunctionDef] = []
        for name, nodes in calls.items():
            for node in list(nodes.values()):
                try:
                    inline(node.function, {node.name})
                except Decline as no:
                    blocked[name, node.name] = (node.callee or "", no.reason)
                    del nodes[node.name]
            if name is not None and nodes:
                functions.append(inline(model.program.function(name), set(nodes)))
                done.setdefault(name, []).extend(nodes)
        if not functions:
            return model, done, dict(blocked.values())
        model = edit.changed(model, functions)
