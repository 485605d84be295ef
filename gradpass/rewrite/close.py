"""Closes the regions of a plan: builds their functions, puts the carriers in, and makes the new model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.flow.analysis import follow
from gradpass.flow.blame import Blame
from gradpass.flow.facts import BRANCHES, LOOPS, callees, facts
from gradpass.flow.verdict import EntryVerdict
from gradpass.program import edit
from gradpass.program.graph import Function, Node, Value
from gradpass.program.model import Model
from gradpass.rewrite import build
from gradpass.rewrite.carrier import Additions, carry
from gradpass.rewrite.fix import Options, Repair, Step, place_of
from gradpass.rewrite.region import Closing, Cut, Region, Stop
from gradpass.rewrite.splice import GraphSplice, Splice
from gradpass.rewrite.state import Crossing, State, agreed, carried, crossings
from gradpass.rules.base import Decline

TF1_LOOPS = frozenset({"Enter", "RefEnter"})


@dataclass
class Served:
    """What a cut got: the rules on its way, the nodes added, and the least exact kind among its rules."""

    rules: list[str] = field(default_factory=list)
    nodes: int = 0
    kind: str = "exact"


@dataclass
class Work:
    """What is to be repaired: by function the cuts and the values that reach the loss, by cut the plan's steps."""

    cuts: dict[Function, set[Cut]] = field(default_factory=dict)
    relevant: dict[Function, set[Value]] = field(default_factory=dict)
    steps: dict[Cut, list[Step]] = field(default_factory=dict)
    runs: dict[Function, Node] = field(default_factory=dict)  # by function a node that runs it


def close_regions(
    result: Repair, steps: dict[str, Step], entry: str | None, options: Options, blocked: dict[str, str]
) -> None:
    """Builds every region and the new model; fills the steps."""
    state = State()
    model, work = _with_state(result.model, entry, steps, options, state)
    objects = SavedObjectGraph()
    objects.MergeFrom(model.objects or SavedObjectGraph())
    new = Additions()
    functions: list[FunctionDef] = []
    graph: GraphDef | None = None
    for function, cuts in work.cuts.items():
        splice = GraphSplice(function) if function.is_graph else Splice(function)
        why = blocked.get(function.name or "") or _kept(function, work.runs.get(function))
        served, stops = _close(function, cuts, work, splice, options, model, objects, new, why, state)
        if splice.added:
            result.added[function.name or "the graph"] = splice.added
            result.repointed += splice.repointed
            if isinstance(splice.proto, GraphDef):
                graph = splice.proto
            else:
                functions.append(splice.proto)
        _tell(work, cuts, served, stops)
    for step in steps.values():
        if step.rules:
            step.declined = None
        elif step.declined is None:
            step.declined = "; ".join(blocked.values()) or "no way from it to the loss can carry a surrogate"
    if functions or graph is not None:
        for name, nodes in state.added.items():
            result.added[name] = [*nodes, *result.added.get(name, ())]
        kept = objects if model.objects is not None else None
        result.model = edit.changed(model, [*functions, *new.functions], new.gradients, kept, graph)
        result.pb = result.model.raw


def _with_state(
    model: Model, entry: str | None, steps: dict[str, Step], options: Options, state: State
) -> tuple[Model, Work]:
    """The model whose loops carry what regions want to carry through them, and the work on it."""
    soft = options.mode == "soft"
    while True:
        work = _work(model, follow(model, entry), steps, state)
        regions = [
            Region(function, function.results, cuts, work.relevant[function], options.rules, state=state)
            for function, cuts in work.cuts.items()
            if not function.is_graph
        ]
        stands: dict[Crossing, dict[bool, build.Stand]] = {}
        for crossing, region, value in crossings(model, regions, state):
            entering = value == crossing.loop.inputs[crossing.port]
            try:
                found = build.stand(region, value, options.knobs, soft)
            except Decline:  # met again, and told, when the region is closed
                continue
            stands.setdefault(crossing, {})[entering] = found
        if not stands:
            return model, work
        wanted = {c: agreed(c, by.get(True), by.get(False), soft) for c, by in stands.items()}
        model = carried(model, wanted, state)


def _work(
    model: Model, followed: list[tuple[EntryVerdict, Blame | None]], steps: dict[str, Step], state: State
) -> Work:
    work = Work()
    for verdict, blame in followed:
        if blame is None:
            continue
        for function, values in blame.relevant.items():
            work.relevant.setdefault(function, set()).update(values)
        for stack, node, index in blame.cuts:
            if stack:
                work.runs[node.function] = stack[-1]
            step = steps.get(place_of(model, verdict.name, tuple(call.name for call in stack), node.name))
            if step is not None:
                work.cuts.setdefault(node.function, set()).add((node, index))
                several = work.steps.setdefault((node, index), [])
                if not any(step is other for other in several):
                    several.append(step)
    for function in work.relevant:
        for node in function.nodes if state.taken else ():
            if (function.name, node.name) in state.taken:
                work.cuts.setdefault(function, set()).add((node, 0))
                work.steps[node, 0] = []
    return work


def _kept(function: Function, runs: Node | None) -> str | None:
    """Why a severed discrete result stays in a function that a loop or branch runs, and what to do."""
    if runs is None:
        return None
    if runs.op in BRANCHES:
        return (
            f"a severed discrete value leaves a branch of {runs.name!r}; let the branch give what it is used for (what "
            "it looks up, its one_hot), or choose with tf.where"
        )
    if runs.op not in LOOPS:
        return None
    if function.name == runs.attr("cond").func.name:
        return (
            f"it decides when the loop {runs.name!r} ends, and a number of steps has no derivative; run a fixed number "
            "of steps, and in each choose with tf.where between the new state and the old"
        )
    return (
        f"the loop {runs.name!r} carries a severed discrete value on, in a body that something else runs as well, or "
        "in a shape that is not known; carry its one_hot as floats, or unroll the loop"
    )


def _tell(work: Work, cuts: set[Cut], served: dict[Cut, Served], stops: list[Stop]) -> None:
    """Writes into the plan what the cuts of one function got, or why they got nothing."""
    # What takes up the state of a loop is no cut of the plan: what it got is told with those that made the state.
    taken = [served[cut] for cut in cuts if not work.steps[cut] and cut in served]
    for cut in cuts:
        got = served.get(cut)
        why = [stop.reason for stop in stops if cut in stop.cuts]
        for step in work.steps[cut]:
            step.stopped += why
            if got is None:
                step.declined = "; ".join(dict.fromkeys(why)) or None
                continue
            step.rules = list(
                dict.fromkeys([*step.rules, *got.rules, *(rule for other in taken for rule in other.rules)])
            )
            step.nodes_added += got.nodes + sum(other.nodes for other in taken)
            step.kind = got.kind


def _close(
    function: Function,
    cuts: set[Cut],
    work: Work,
    splice: Splice,
    options: Options,
    model: Model,
    objects: SavedObjectGraph,
    new: Additions,
    blocked: str | None,
    state: State,
) -> tuple[dict[Cut, Served], list[Stop]]:
    """Puts a carrier at every closing of a function's regions; gives what each cut got, and the stops met."""
    if function.is_graph and any(node.op in TF1_LOOPS for node in function.nodes):
        reason = "the graph has TF1 while loops, into whose frames this version does not write"
        return {}, [Stop("", reason, frozenset(cuts))]
    results = function.results
    if function.is_graph:
        results = [value for entry in model.entries.values() for value in entry.outputs.values()]
    soft = options.mode == "soft"
    # Only an object graph can say what a custom gradient captures, so elsewhere the guarded sum carries.
    kind = "soft" if soft else options.carrier if model.objects is not None else "sum"
    refused: dict[Node, str] = {}
    while True:
        region = Region(function, results, cuts, work.relevant[function], options.rules, blocked, refused, state)
        recipes, stops, more = _recipes(region, options, soft)
        if not more:
            break
        refused.update(more)
    given_up = {node for node, _ in cuts.difference(*(recipe.closing.cuts for recipe in recipes))}
    served: dict[Cut, Served] = {}
    for recipe in recipes:
        closing = recipe.closing
        closing.live = closing.live or (_comes_from(closing.value, given_up) and not _raises(closing.value))
        try:
            if closing.results:
                splice.check_result(closing.value)
            count = _put(splice, recipe, kind, model, objects, new)
        except Decline as no:
            stops.append(Stop(no.node or closing.value.node.name, no.reason, closing.cuts))
            continue
        _serve(region, closing, build.needed(region, closing.value), count, soft, served)
    return served, [*region.stops, *stops]


def _comes_from(value: Value, nodes: set[Node]) -> bool:
    """Whether a value is computed from one of these nodes, in its function."""
    return bool(nodes) and any(node in nodes for node in _before(value, lambda node, port: node.inputs))


def _raises(value: Value) -> bool:
    """Whether a cotangent that a value is given meets an op whose gradient raises, or one that runs functions."""

    def reached(node: Node, port: int) -> Iterable[Value]:
        rows = facts(node).rows
        return [given for given, row in zip(node.inputs, rows, strict=True) if row and port in row]

    return any(callees(node) or facts(node).error or not facts(node).registered for node in _before(value, reached))


def _before(value: Value, step: Callable[[Node, int], Iterable[Value]]) -> Iterator[Node]:
    """The nodes from which a value comes, its own first, as far as `step` leads from an output of a node."""
    seen = {value}
    stack = [value]
    while stack:
        found = stack.pop()
        yield found.node
        fresh = [v for v in step(found.node, found.port) if v not in seen]
        seen.update(fresh)
        stack += fresh


def _recipes(region: Region, options: Options, soft: bool) -> tuple[list[build.Recipe], list[Stop], dict[Node, str]]:
    """The recipes of a region's closings, in order, the stops at closings themselves, and the nodes at which no shadow
    can go on: without those the region is another one, in which what passes them no longer takes the rest down."""
    recipes: list[build.Recipe] = []
    stops: list[Stop] = []
    refused: dict[Node, str] = {}
    position = {node: i for i, node in enumerate(region.function.order())}
    for closing in sorted(region.closings.values(), key=lambda c: position[c.value.node]):
        try:
            if options.exact_only:
                _only_exact(region, build.needed(region, closing.value))
            recipes.append(build.recipe(region, closing, options.knobs, soft))
        except build.Declined as no:
            refused[no.at] = no.reason
        except Decline as no:
            stops.append(Stop(no.node or closing.value.node.name, no.reason, closing.cuts))
    return recipes, stops, refused


def _serve(
    region: Region, closing: Closing, nodes: list[Node], count: int, soft: bool, served: dict[Cut, Served]
) -> None:
    rules = {node: rule for node in nodes if (rule := region.rule[node]) is not None}
    for cut in closing.cuts:
        got = served.setdefault(cut, Served())
        got.rules = list(dict.fromkeys([*got.rules, *(rule.name for rule in rules.values())]))
        got.nodes += count
        if soft:
            got.kind = "smooth"
        elif any(rule.kind_of(node, region.soft[node]) != "exact" for node, rule in rules.items()):
            got.kind = "estimator"


def _only_exact(region: Region, nodes: list[Node]) -> None:
    for node in nodes:
        rule = region.rule[node]
        if rule is not None and rule.kind_of(node, region.soft[node]) != "exact":
            no = Decline(f"its rule {rule.name} is an {rule.kind}, and only exact rules were asked for", node.name)
            raise build.Declined(no, node)


def _put(
    splice: Splice, recipe: build.Recipe, kind: str, model: Model, objects: SavedObjectGraph, new: Additions
) -> int:
    """Runs the carrier beside the hard value and lets the closing's users see its result; gives the nodes added."""
    closing = recipe.closing
    function = splice.function
    before = len(new.functions)
    name = carry(kind, recipe, model.program, objects, new)
    body = next(f for f in new.functions[before:] if f.signature.name == name)
    if function.is_graph:
        del new.functions[before:]  # its nodes go into the graph, nobody calls it
    grown = len(splice.added)
    stem = f"{closing.value.node.name}/gradpass"
    inputs = [] if kind == "soft" else [function.reference(closing.value)]
    for need, value in recipe.needs.keys:
        if need == build.READ:
            dtype = int(build.spec((need, value)).dtype.as_datatype_enum)
            inputs.append(splice.read(f"{stem}/read", function.reference(value), dtype))
        elif need == build.SOURCE:
            inputs.append(splice.reference(value))
        elif kind == "soft" and (of := recipe.region.closings.get(value)) is not None and of is not closing:
            inputs.append(splice.reference(value))  # the op that reads it reads what was closed there
        else:
            inputs.append(function.reference(value))
    text = splice.run(f"{stem}/{kind}", body, inputs, build.shape_proto(closing.value))
    splice.references[closing.value] = text
    for node, index in closing.uses:
        splice.repoint(node, index, text)
    for port in closing.results:
        splice.repoint_result(port, closing.value, text)
    return len(splice.added) - grown + sum(len(f.node_def) for f in new.functions[before:])
