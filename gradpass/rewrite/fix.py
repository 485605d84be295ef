"""Leads a repair: verdict, calls inlined where a region crosses them, regions, carriers, new bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.errors import GradpassError
from gradpass.flow.analysis import follow
from gradpass.flow.blame import Blame, Place
from gradpass.flow.facts import is_float
from gradpass.flow.verdict import Cut, EntryVerdict
from gradpass.program.graph import ARGUMENT, CALLS, Function, Node, Value
from gradpass.program.savedmodel import Model
from gradpass.rewrite.inline import inline
from gradpass.rewrite.region import Cut as Edge
from gradpass.rewrite.region import Region, Stop
from gradpass.rewrite.splice import Splice
from gradpass.rules.base import Decline, Knobs, by_op
from gradpass.rules.kernels import KERNELS


@dataclass
class Step:
    """What becomes of one cut: the rules that its region uses and the nodes that they add, or why it stays."""

    cut: Cut
    rules: list[str] = field(default_factory=list)
    kind: str = "estimator"
    nodes_added: int = 0
    declined: str | None = None


@dataclass
class Repair:
    """A repair. `pb` are the bytes of the new saved_model.pb, None where nothing changed.

    `added` and `inlined` name, by function, the nodes put in and the calls replaced by their bodies; `repointed` counts
    the inputs and results that now come from elsewhere.
    """

    pb: bytes | None
    plan: list[Step]
    before: list[EntryVerdict]
    model: Model
    added: dict[str, list[str]] = field(default_factory=dict)
    inlined: dict[str, list[str]] = field(default_factory=dict)
    repointed: int = 0


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
            _known("--kernel", self.knobs.kernel, tuple(KERNELS))
        if not self.knobs.temperature > 0:
            raise GradpassError(f"--temperature must be a positive number, not {self.knobs.temperature}")
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
) -> Repair:
    """Repairs the starved variables of an entry as far as rules reach; writes nothing.

    Raises GradpassError for options that nobody knows and for models that this version only checks.
    """
    options = Options(mode, carrier, Knobs(temperature, absolute_temperature, kernel), exact_only, rules or {})
    options.check()
    before = follow(model, entry)
    steps = {_place(cut): Step(cut) for verdict, _ in before for cut in verdict.cuts}
    if not steps:
        return Repair(None, [], [verdict for verdict, _ in before], model)
    if model.kind != "savedmodel":
        kind = "frozen graph" if model.kind == "frozen" else "TF1 SavedModel"
        raise GradpassError(
            f"{model.path} is a {kind}, which this version only checks; "
            "save the model with tf.saved_model.save of TensorFlow 2 to repair it"
        )
    repaired, inlined, blocked = _inlined(model, entry)
    result = Repair(None, list(steps.values()), [verdict for verdict, _ in before], repaired, inlined=inlined)
    _close_regions(result, steps, follow(repaired, entry), options, blocked)
    return result


def _place(cut: Cut) -> str:
    """A name for a cut that inlining keeps: the call nodes down to it, and its own."""
    return "/".join((*cut.stack, cut.node))


def _inlined(model: Model, entry: str | None) -> tuple[Model, dict[str, list[str]], dict[str, str]]:
    """The model with every call inlined that a severed discrete value crosses, and the calls that cannot be."""
    done: dict[str, list[str]] = {}
    blocked: dict[str, str] = {}
    while True:
        calls: dict[str, dict[str, Node]] = {}
        for _, blame in follow(model, entry):
            for call in _crossed(blame) if blame else ():
                if call.name not in blocked:
                    calls.setdefault(call.function.name or "", {})[call.name] = call
        functions: list[FunctionDef] = []
        for name, nodes in calls.items():
            function = model.program.function(name)
            for node in list(nodes.values()):
                try:
                    inline(function, {node.name})
                except Decline as no:
                    blocked[node.name] = no.reason
                    del nodes[node.name]
            if nodes:
                functions.append(inline(function, set(nodes)))
                done.setdefault(name, []).extend(nodes)
        if not functions:
            return model, done, blocked
        model = model.changed(functions)


def _crossed(blame: Blame) -> Iterator[Node]:
    """The calls through whose boundary a severed discrete value passes on a cheapest way to the loss."""
    start = [Place(frame, value) for frame, node, _ in blame.cuts for value in node.used_outputs]
    seen = {place for place in start if place in blame.ways.cost}
    stack = list(seen)
    while stack:
        place = stack.pop()
        for user, _ in blame.ways.tight(place):
            if user.frame is not place.frame and not is_float(place.value.dtype):
                inner = user.frame if user.value.node.op == ARGUMENT else place.frame
                if inner.call is not None and inner.call.op in CALLS:
                    yield inner.call
            if user not in seen:
                seen.add(user)
                stack.append(user)


def _close_regions(
    result: Repair,
    steps: dict[str, Step],
    followed: list[tuple[EntryVerdict, Blame | None]],
    options: Options,
    blocked: dict[str, str],
) -> None:
    """Builds every region and encodes the model; fills the steps."""
    from gradpass.rewrite.carrier import Additions  # TensorFlow is imported only where something is built

    cuts, relevant, by_edge = _chosen(followed, steps)
    model = result.model
    assert model.objects is not None
    objects = SavedObjectGraph()
    objects.CopyFrom(model.objects)
    new = Additions()
    edited: list[FunctionDef] = []
    for function, edges in cuts.items():
        region = Region(function, edges, relevant[function], options.rules)
        splice = Splice(function)
        served, stops = _close(region, splice, options, model, objects, new)
        if splice.added:
            edited.append(splice.proto)
            result.added[function.name or ""] = splice.added
            result.repointed += splice.repointed
        for edge, rules_and_nodes in served.items():
            for step in by_edge[edge]:
                step.rules = list(dict.fromkeys([*step.rules, *rules_and_nodes[0]]))
                step.nodes_added += rules_and_nodes[1]
                step.kind = rules_and_nodes[2]
        for edge in edges - served.keys():
            why = [stop.reason for stop in stops if edge in stop.cuts]
            for step in by_edge[edge]:
                step.declined = "; ".join(dict.fromkeys(why)) or "no way from it to the loss can carry a surrogate"
    for step in steps.values():
        if step.rules:
            step.declined = None
        elif step.declined is None:
            step.declined = "; ".join(blocked.values()) or "no way from it to the loss can carry a surrogate"
    if edited:
        result.model = model.changed([*edited, *new.functions], new.gradients, objects)
        result.pb = result.model.raw


def _chosen(
    followed: list[tuple[EntryVerdict, Blame | None]], steps: dict[str, Step]
) -> tuple[dict[Function, set[Edge]], dict[Function, set[Value]], dict[Edge, list[Step]]]:
    """By function the edges to repair and the values that reach the loss, and by edge the steps that it stands for."""
    cuts: dict[Function, set[Edge]] = {}
    relevant: dict[Function, set[Value]] = {}
    by_edge: dict[Edge, list[Step]] = {}
    for _, blame in followed:
        if blame is None:
            continue
        for place in blame.ways.cost:
            relevant.setdefault(place.frame.function, set()).add(place.value)
        for frame, node, index in blame.cuts:
            step = steps.get("/".join((*frame.stack, node.name)))
            if step is not None:
                cuts.setdefault(node.function, set()).add((node, index))
                by_edge.setdefault((node, index), []).append(step)
    return cuts, relevant, by_edge


def _close(
    region: Region, splice: Splice, options: Options, model: Model, objects: SavedObjectGraph, new: object
) -> tuple[dict[Edge, tuple[list[str], int, str]], list[Stop]]:
    """Puts a carrier at every closing of a region; gives the edges served, and the stops met."""
    from gradpass.rewrite import build, carrier

    assert isinstance(new, carrier.Additions)
    served: dict[Edge, tuple[list[str], int, str]] = {}
    stops = list(region.stops)
    soft = options.mode == "soft"
    kind = "soft" if soft else options.carrier
    position = {node: i for i, node in enumerate(region.function.order())}
    for closing in sorted(region.closings.values(), key=lambda c: position[c.value.node]):
        nodes = build.needed(region, closing.value)
        try:
            if options.exact_only:
                _only_exact(region, nodes)
            needs, dtype = build.discover(region, closing, options.knobs, soft)
            recipe = build.Recipe(region, closing, options.knobs, soft, needs, dtype)
            before = len(new.functions)
            callee = carrier.carry(kind, recipe, model.program, objects, new)
        except Decline as no:
            stops.append(Stop(no.node or closing.value.node.name, no.reason, closing.cuts))
            continue
        _put(splice, recipe, kind, callee)
        count = 1 + sum(len(f.node_def) for f in new.functions[before:])
        rules = [rule.name for n in nodes if (rule := region.rule[n]) is not None]
        for edge in closing.cuts:
            old = served.get(edge, ([], 0, "exact"))
            kinds = {rule.kind for n in nodes if (rule := region.rule[n]) is not None}
            worst = "smooth" if soft else "exact" if kinds <= {"exact"} and old[2] == "exact" else "estimator"
            served[edge] = (list(dict.fromkeys([*old[0], *rules])), old[1] + count, worst)
    return served, stops


def _only_exact(region: Region, nodes: list[Node]) -> None:
    for node in nodes:
        rule = region.rule[node]
        if rule is not None and rule.kind != "exact":
            raise Decline(f"its rule {rule.name} is an {rule.kind}, and only exact rules were asked for", node.name)


def _put(splice: Splice, recipe: object, kind: str, callee: str) -> None:
    """Calls the carrier beside the hard value and lets the closing's users see its result."""
    from gradpass.rewrite import build

    assert isinstance(recipe, build.Recipe)
    closing = recipe.closing
    function = splice.function
    stem = f"{closing.value.node.name}/gradpass"
    inputs: list[tuple[str, int]] = []
    if kind != "soft":
        inputs.append((function.reference(closing.value), closing.value.dtype))
    for need, value in recipe.needs.keys:
        if need == build.READ:
            dtype = int(build.spec((need, value)).dtype.as_datatype_enum)
            read = splice.node(f"{stem}/read", "ReadVariableOp", [function.reference(value)])
            read.attr["dtype"].type = dtype
            inputs.append((f"{read.name}:value:0", dtype))
        elif need == build.SOURCE:
            inputs.append((splice.reference(value), value.dtype))
        else:
            inputs.append((function.reference(value), value.dtype))
    shape = build.shape_proto(closing.value)
    text = splice.call(f"{stem}/{kind}", callee, inputs, [(closing.value.dtype, shape)]) + ":output:0"
    splice.references[closing.value] = text
    for node, index in closing.uses:
        splice.repoint(node, index, text)
    for port in closing.results:
        splice.repoint_result(port, text)
