"""Targets whose gradient is zeros whatever the data, because a constant mask lets nothing through.

Every op on the way has a gradient, so that `state` and `structure` say `flows`. To see whom a mask starves all the
same, it is made an op without a gradient for what it masks, and the graph is asked again for structure and blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from gradpass.flow.constants import known
from gradpass.flow.facts import LOOPS, callees, facts, is_float, preset
from gradpass.flow.verdict import Cut, EntryVerdict
from gradpass.program.graph import Function, Kind, Node, Value
from gradpass.program.model import Entry

Masked = dict[Node, dict[int, str]]  # the inputs that a mask hides, each with what it does to them


def _product(node: Node) -> Iterator[tuple[int, str]]:
    for i in 0, 1:
        if "zeros" in known(node.inputs[1 - i]):
            yield i, "multiplies by a constant that is all zeros"


def _select(node: Node) -> Iterator[tuple[int, str]]:
    chosen = known(node.inputs[0])
    if "zeros" in chosen:
        yield 1, "has a constant condition that is False everywhere, so it never takes this input"
    elif "nonzero" in chosen:
        yield 2, "has a constant condition that is True everywhere, so it never takes this input"


def _gather(node: Node) -> Iterator[tuple[int, str]]:
    if "empty" in known(node.inputs[1]):
        yield 0, "takes no element, because its constant mask or indices select none"


MASKING: dict[str, Callable[[Node], Iterator[tuple[int, str]]]] = {
    "Gather": _gather,
    "GatherNd": _gather,
    "GatherV2": _gather,
    "Mul": _product,
    "MulNoNan": _product,
    "Select": _select,
    "SelectV2": _select,
}


def masks(function: Function) -> Masked:
    """The masks of a function and of all that it runs."""
    found: Masked = {}
    todo, seen = [function], {function}
    while todo:
        for node in (current := todo.pop()).nodes:
            rule = MASKING.get(node.op)
            if rule is not None and node.attr("_gradient_op_type") is None:
                hidden = {i: why for i, why in rule(node) if is_float(node.inputs[i].dtype)}
                if hidden:
                    found[node] = hidden
            names = callees(node)
            if node.op in LOOPS:
                names = (*names, node.attr("cond").func.name)
            for inner in map(current.program.function, names):
                if inner not in seen:
                    seen.add(inner)
                    todo.append(inner)
    return found


def masked(verdict: EntryVerdict, entry: Entry, places: list[list[Value]]) -> list[Cut]:
    """The masks that starve targets which flow by structure; `places`: the values of each target.

    A way that a mask shares with an op that severs is not followed: the op comes first.
    """
    flowing = [i for i, target in enumerate(verdict.targets) if target.state == target.structure == "flows"]
    found = masks(entry.function) if flowing else {}
    if not found:
        return []
    from gradpass.flow.analysis import Analysis, float_results, judged_structure  # it asks for masks itself
    from gradpass.flow.blame import blame

    with _hiding(found):
        everything = [*entry.inputs.values(), *(v for values in entry.captures.values() for v in values)]
        grads = Analysis("structure").backward(entry.function, float_results(entry), everything).grads
        targets = [
            replace(target, structure=judged_structure(values, grads) if i in flowing else "flows")
            for i, (target, values) in enumerate(zip(verdict.targets, places, strict=True))
        ]
        asked = replace(verdict, targets=targets, cuts=[])
        blame(asked, entry, places)
    program = entry.function.program
    cuts = []
    for cut in asked.cuts:
        function = program.graph if cut.function is None else program.function(cut.function)
        whys = found.get(function.by_name[cut.node], {})
        if set(cut.inputs) & whys.keys():
            cuts.append(replace(cut, how="zero", mask=next(whys[i] for i in cut.inputs if i in whys)))
    return cuts


@contextmanager
def _hiding(found: Masked) -> Iterator[None]:
    """Makes masks ops that have no gradient for what they mask, for a while."""
    kinds = {node: node.kind for node in found}
    try:
        for node, hidden in found.items():
            fact = facts(node)
            rows = tuple(None if i in hidden else row for i, row in enumerate(fact.rows))
            kind = Kind(node.op, node.kind.attrs)
            preset(kind, node.function.program, len(node.inputs), fact._replace(rows=rows))
            node.kind = kind
        yield
    finally:
        for node, kind in kinds.items():
            node.kind = kind
