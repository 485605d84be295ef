"""Custom gradients that a SavedModel lost: what their IdentityN stands around is repaired in their place.

`tf.custom_gradient` leaves an IdentityN(results, arguments) whose `_gradient_op_type` names the gradient; saved with
`experimental_custom_gradients=False` the name leads nowhere, and a fresh process raises. Without the name the node is
an identity, in values the same: the op inside then has its own gradient, or is the cut that a rule serves. What no rule
serves keeps its name, so that it goes on raising rather than answer None.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorboard.compat.proto.function_pb2 import FunctionDef

from gradpass.flow.analysis import follow
from gradpass.flow.blame import Blame
from gradpass.flow.facts import facts
from gradpass.flow.verdict import Cut, EntryVerdict
from gradpass.program import edit
from gradpass.program.graph import Node
from gradpass.program.model import Model
from gradpass.rewrite.fix import Place, Repair, Step

Followed = list[tuple[EntryVerdict, Blame | None]]
RULE = "lost-gradient"


def lost(model: Model, before: Followed) -> set[Place]:
    """The cuts that are a lost custom gradient, in functions (a plain graph has no other way to keep one)."""
    return {_place(cut) for verdict, _ in before for cut in _blamed(verdict) if _is_lost(model, cut)}


def _blamed(verdict: EntryVerdict) -> list[Cut]:
    """What severs somebody or raises for somebody, whose gradient may have another way."""
    return [*verdict.cuts, *verdict.raising]


def _place(cut: Cut) -> Place:
    return cut.function, cut.node


def _is_lost(model: Model, cut: Cut) -> bool:
    if cut.op != "IdentityN" or cut.how != "raises" or cut.function is None:
        return False
    return _is_named(_node(model, cut.function, cut.node))


def _is_named(node: Node) -> bool:
    name = node.attr("_gradient_op_type")
    return name is not None and bool(name.s) and facts(node).custom is None


def _node(model: Model, function: str, name: str) -> Node:
    return next(node for node in model.program.function(function).nodes if node.name == name)


def repaired_without(
    model: Model, entry: str | None, before: Followed, places: set[Place], repair: Callable[[Model, Followed], Repair]
) -> Repair:
    """The repair of the model without the names of these lost gradients; the plan is that of the model with them."""
    kept: set[Place] = set()
    while places:
        bare = _stripped(model, places)
        followed = follow(bare, entry)
        hidden = lost(bare, followed) - kept  # behind others, which raised first
        if hidden:
            places = places | hidden
            continue
        inner = repair(bare, followed)
        steps, unserved = _steps(before, inner, followed, places)
        if not unserved:
            verdicts = [verdict for verdict, _ in before]
            new = inner.model
            return Repair(new.raw, steps, verdicts, new, inner.added, inner.inlined, inner.repointed)
        kept |= unserved
        places = places - unserved
    return repair(model, before)


def _steps(before: Followed, inner: Repair, followed: Followed, places: set[Place]) -> tuple[list[Step], set[Place]]:
    """The steps of the original's cuts, and the lost gradients inside which something stays severed."""
    done = {_place(step.cut): step for step in inner.plan}
    inside = {verdict.name: verdict.cuts for verdict, _ in followed}
    known = {_place(cut) for verdict, _ in before for cut in verdict.cuts}
    steps: dict[Place, Step] = {}
    for verdict, _ in before:
        raising = [cut for cut in verdict.raising if _place(cut) in places]
        for cut in (*verdict.cuts, *raising):
            place = _place(cut)
            if place in steps:
                continue
            if place in done:
                got, step = [done[place]], Step(cut)
            else:
                shared = [c for c in inside[verdict.name] if _place(c) not in known and {*c.starves} & {*cut.starves}]
                got = [done[_place(c)] for c in shared]
                step = Step(cut, [RULE], "estimator" if got else "exact")
            for found in got:
                step.rules += [rule for rule in found.rules if rule not in step.rules]
                step.kind = found.kind
                step.nodes_added += found.nodes_added
                step.declined = step.declined or found.declined
            steps[place] = step
    unserved = {place for place, step in steps.items() if place in places and step.declined}
    return list(steps.values()), unserved


def _stripped(model: Model, places: set[Place]) -> Model:
    functions: dict[str, FunctionDef] = {}
    for function, name in places:
        assert function is not None
        proto = functions.get(function)
        if proto is None:
            proto = functions[function] = FunctionDef()
            proto.CopyFrom(model.program.function(function).proto)
        node = next(node for node in proto.node_def if node.name == name)
        del node.attr["_gradient_op_type"]
    return edit.changed(model, list(functions.values()))
