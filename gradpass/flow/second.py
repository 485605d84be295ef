"""The verdict of order 2: what becomes of the gradient of an entry's gradients.

Asked of a target: what TensorFlow answers to the gradient of all gradients of order 1 (those of the asked targets, with
arbitrary cotangents) with respect to it. `flow.gradient` makes the graph of these gradients, `flow.analysis` follows
them as it does in any graph, and `flow.blame` says what is in the way. Zeros are those that depend on no cotangent of
one of the two orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradpass.flow.analysis import Analysis, Mode, judged_state, judged_structure, raised, verdict_of
from gradpass.flow.blame import blame
from gradpass.flow.facts import is_float
from gradpass.flow.gradient import Gradient
from gradpass.flow.made import Cotangent, Scope, add, argument, constant, functional
from gradpass.flow.verdict import ZEROS, Cut, EntryVerdict
from gradpass.flow.walk import Raising
from gradpass.program.graph import Function, Node, Value
from gradpass.program.model import Entry, Model


class _Twice:
    """The gradient graph of an entry: its float outputs are the gradients of order 1 of the asked targets."""

    def __init__(self, model: Model, entry: Entry, mode: Mode, places: list[list[Value]], names: list[str]) -> None:
        self.gradient = Gradient(model, mode)
        program = self.gradient.program
        function = program.fresh_copy(entry.function)
        copied = {value: program.value(value) for values in places for value in values}
        copied.update({v: program.value(v) for v in (*entry.inputs.values(), *entry.outputs.values())})
        for values in entry.captures.values():
            copied.update({v: program.value(v) for v in values})
        self.function = function
        if mode == "state" and not entry.function.is_graph and not entry.inline:
            # A signature is a call to whoever differentiates it.
            self.function = self._called(function, copied)
        self.places = [[copied[v] for v in values] for values in places]
        self.everything = [
            copied[v] for v in (*entry.inputs.values(), *(v for vs in entry.captures.values() for v in vs))
        ]
        self.results = [copied[v] for v in entry.outputs.values() if is_float(v.dtype)]
        scope = Scope(self.function, self.function)
        starts = self.everything if mode == "state" else [v for values in self.places for v in values]
        reached = self.gradient.reached(self.function, (v.node for v in starts))
        first = [(v, Cotangent(constant(self.function, v.dtype), True)) for v in self.results]
        grads = self.gradient.sweep(scope, first, reached)
        outputs: dict[str, Value] = {}
        for name, values in zip(names, self.places, strict=True):
            for v in values:
                part = self.gradient.total(scope, grads.get(v))
                if part is not None:
                    told = f"gradient of {name}"
                    # Two variables may bear one name; none has a name with a blank in it.
                    outputs[f"{told} ({len(outputs)})" if told in outputs else told] = part.value
        self.gradients = list(outputs.values())
        self.entry = Entry(
            entry.name,
            self.function,
            {name: copied[v] for name, v in entry.inputs.items()},
            outputs,
            {key: [copied[v] for v in values] for key, values in entry.captures.items()},
        )

    def named(self, cut: Cut, node: Node) -> Cut:
        """A cut in the terms of the file, in which no gradient stands."""
        program = self.gradient.program
        derivative = None
        if node in program.nodes_of:
            node, missing = program.nodes_of[node]
            derivative = ZEROS if cut.how == "zero" else missing
        function = node.function.name
        return replace(
            cut,
            op=node.op,
            node=node.name,
            function=program.names.get(function, function) if function else None,
            derivative=derivative,
        )

    def _called(self, function: Function, copied: dict[Value, Value]) -> Function:
        """A function that does nothing but call the entry's; the values of the entry become its own."""
        program = self.gradient.program
        outer = program.new("call of ", program.names[function.name or ""])
        given = [argument(outer, a.name, a.output_dtype(0)) for a in function.arguments]
        kind = functional("PartitionedCall", [function])
        call = add(outer, "call", kind, given)
        kind.dtypes.update(enumerate(v.dtype for v in function.results))
        arguments = {a.output(0): v for a, v in zip(function.arguments, given, strict=True)}
        results = {v: call.output(i) for i, v in reversed(list(enumerate(function.results)))}
        for original, copy in copied.items():
            copied[original] = arguments.get(copy) or results[copy]
        return outer


def follow_second(model: Model, entry: str | None = None, wrt: str = "variables") -> list[EntryVerdict]:
    """The verdicts of order 2 of the chosen entries, as `analysis.analyse` gives those of order 1."""
    analyses = Analysis("state"), Analysis("structure")
    return [_verdict(model, chosen, wrt, *analyses) for chosen in model.entry(entry)]


def _verdict(model: Model, entry: Entry, wrt: str, state: Analysis, structure: Analysis) -> EntryVerdict:
    first, places = verdict_of(model, entry, wrt, state, structure)
    names = [target.name for target in first.targets]
    asks, true = _Twice(model, entry, "state", places, names), _Twice(model, entry, "structure", places, names)
    twice = Analysis("state")
    once = twice.backward(asks.function, list(asks.results), asks.everything)
    walk = twice.backward(asks.function, list(asks.gradients), asks.everything)
    raising = list(dict.fromkeys(once.raising + walk.raising))
    raising += [Raising((), node, error) for node, error in asks.gradient.raising]
    structures = Analysis("structure").backward(true.function, list(true.gradients), true.everything).grads
    targets = [
        replace(t, state=judged_state(here, walk.grads, bool(raising)), structure=judged_structure(there, structures))
        for t, here, there in zip(first.targets, asks.places, true.places, strict=True)
    ]
    verdict = EntryVerdict(entry.name, list(entry.outputs), targets, float_outputs=first.float_outputs)
    verdict.raising = [asks.named(raised(each, verdict, [each.node.name]), each.node) for each in raising]
    _blame(verdict, first, entry, places, true)
    return verdict


def _blame(verdict: EntryVerdict, first: EntryVerdict, entry: Entry, places: list[list[Value]], true: _Twice) -> None:
    """Says why targets are starved: whoever has no gradient of order 1 keeps the reasons for that."""
    starved = {i for i, t in enumerate(verdict.targets) if t.structure != "flows"}
    early = {i for i in starved if first.targets[i].structure != "flows"}
    first.targets = [t if i in early else replace(t, structure="flows") for i, t in enumerate(first.targets)]
    blame(first, entry, places)
    late = replace(verdict, cuts=[], raising=[], disconnected=[], uncaptured=[], depends=[])
    late.targets = [t if i in starved - early else replace(t, structure="flows") for i, t in enumerate(verdict.targets)]
    found = blame(late, true.entry, true.places)
    verdict.uncaptured, verdict.disconnected, verdict.depends = first.uncaptured, first.disconnected, first.depends
    nodes = {(n.function.name, n.name, n.op): n for _, n, _ in found.cuts} if found else {}
    cuts = [*first.cuts, *(true.named(cut, nodes[cut.function, cut.node, cut.op]) for cut in late.cuts)]
    verdict.cuts = list(_merged(verdict, cuts))
    verdict.linear = late.disconnected


def _merged(verdict: EntryVerdict, cuts: list[Cut]) -> Iterator[Cut]:
    """The cuts, those of one node as one: the gradient of each of its inputs stands for itself until here."""
    groups: dict[tuple[str | None, str, str, str | None], list[Cut]] = {}
    for cut in cuts:
        groups.setdefault((cut.function, cut.node, cut.how, cut.derivative), []).append(cut)
    for several in groups.values():
        starves = sorted({i for cut in several for i in cut.starves})
        yield replace(several[0], starves=starves, parameters=sum(verdict.targets[i].parameters for i in starves))
