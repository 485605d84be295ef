"""The verdict: which targets get a gradient, zeros, None or an error, decided on the graph without running it.

One backward pass over a function gives its summary: for each argument the set of results (a bit mask) at whose
cotangent a gradient tensor for it exists, and the subset whose cotangent the tensor depends on. Calls, branches and
loops use the summaries of what they run, each computed once. The pass is made twice, because two questions are asked:

- *state* follows TensorFlow's own procedure (tensorflow/python/ops/gradients_util.py, and for calls
  tensorflow/python/eager/polymorphic_function/concrete_function.py `_TapeGradientFunctions`): the backward function
  of a call is built for all its trainable outputs, a While gives zeros where its body gives None, and an op without a
  registered gradient between any input and an asked output raises for everybody.
- *structure* is the truth of the inlined graph: a result that nobody uses asks nothing, a loop hides nothing, and an op
  without a registered gradient is a cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gradpass.errors import TargetError
from gradpass.flow.facts import (
    BRANCHES,
    LOOPS,
    RESOURCE,
    Facts,
    callees,
    calls_itself,
    facts,
    is_float,
    static_shape,
    trainable,
    wants_handle,
)
from gradpass.flow.slices import NESTED, PLAIN, Slices, given_slices, makes_slices
from gradpass.flow.verdict import Cut, EntryVerdict, State, Structure, Target
from gradpass.flow.walk import (
    CALLED,
    NONE,
    NOTHING,
    Come,
    Context,
    Forms,
    Grad,
    Raising,
    Summary,
    Walk,
    join,
)
from gradpass.program.graph import ARGUMENT, BACK_EDGE, Function, Node, Program, Value, collector_paused
from gradpass.program.model import Entry, Model, Shape, count, shape_of

if TYPE_CHECKING:
    from gradpass.flow.blame import Blame

Mode = Literal["state", "structure"]
Grouped = dict[Grad, int]
CAPTURES = "AssertionError or TypeError, since in a loop or branch it cannot reach the tensors that it captured"
UNSHAPED = "ValueError, since the shape of its variable is not known in a loaded loop or branch"
HANDLES = "ValueError, since the shape of a variable that only one branch uses is not known in a loaded loop"
UNEQUAL = "TypeError, since the gradients of its branches are tf.IndexedSlices of different forms"


class Analysis:
    """The backward passes of one mode over the functions of one model, each made once."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self._summaries: dict[tuple[str, Context, Come], Summary] = {}
        self._open: set[Function] = set()
        self._inner: frozenset[str] | None = None

    def summary(self, function: Function, context: Context = CALLED, come: Come = ()) -> Summary:
        """The summary of a function whose trainable results all may be asked; the cotangents of `come` are slices."""
        key = (function.name or "", context if self.mode == "state" else CALLED, come)
        known = self._summaries.get(key)
        if known is not None:
            return known
        if function in self._open:
            raise calls_itself(function)
        self._open.add(function)
        asked = [v if trainable(v.dtype) else None for v in function.results]
        targets = [a.output(0) for a in function.arguments]
        walk = self.backward(function, asked, targets, key[1], come)
        if key[1].inner:
            walk.raising += [Raising((), node, UNSHAPED) for node in function.nodes if wants_handle(node)]
        result = Summary([walk.grads.get(v, NOTHING) for v in targets], walk.forms(targets), walk.raising)
        self._open.discard(function)
        self._summaries[key] = result
        return result

    def backward(
        self,
        function: Function,
        results: list[Value | None],
        targets: list[Value],
        context: Context = CALLED,
        come: Come = (),
    ) -> Walk:
        """Gradients of all values for cotangents of `results` (bit i: the i-th), and the ops that raise on the way."""
        walk = Walk(function, context, {})
        slices = dict(come)
        for i, value in enumerate(results):
            if value is not None and i in slices:
                walk.give_slices(value, (1 << i, 1 << i), slices[i])
            elif value is not None:
                walk.give(value, (1 << i, 1 << i))
        reached = self._reached(function, targets)
        cyclic = any(node.op in BACK_EDGE for node in function.nodes)
        while True:
            before = dict(walk.grads) if cyclic else {}
            walk.raising = []
            self._sweep(walk, reached)
            if not cyclic or walk.grads == before:
                return walk

    def _sweep(self, walk: Walk, reached: set[Node]) -> None:
        """From the results to the arguments. Around the back edges of a TF1 loop it takes several of these."""
        grads = walk.grads
        for node in reversed(walk.function.order()):
            if node not in reached:
                continue
            asked = 0
            outs = []
            for value in node.used_outputs:
                grad = grads.get(value, NOTHING)
                outs.append(grad)
                asked |= grad[0]
            # A target's own node is not asked (gradients_util `_StopOps`): nothing that it reads leads to a target.
            if asked and any(v.node in reached for v in node.inputs):
                self._node(walk, node, outs, asked)

    def _reached(self, function: Function, targets: list[Value]) -> set[Node]:
        """The nodes that depend on a target along trainable dtypes (gradients_util `_MarkReachedOps`)."""
        reached = {v.node for v in targets}
        while True:
            before = len(reached)
            for node in function.order():
                for value in node.inputs:
                    if value.node in reached and trainable(value.dtype):
                        reached.add(node)
                        break
            if len(reached) == before or not any(node.op in BACK_EDGE for node in function.nodes):
                return reached

    def _node(self, walk: Walk, node: Node, outs: list[Grad], asked: int) -> None:
        """Adds what one node's gradient gives its inputs."""
        names = callees(node)
        if names:
            given, forms = self._functional(walk, node, names, outs, asked)
        else:
            fact = facts(node)
            if not fact.registered:
                walk.raising.append(Raising((), node, fact.error))
                return
            forms = NONE
            if self.mode == "state":
                error = fact.error if not fact.static else CAPTURES if self._is_cut_off(walk, fact) else None
                if error is None and (walk.slices or makes_slices(node, fact)):
                    forms, error = given_slices(node, fact, walk.forms(node.used_outputs), walk.context.handles)
                if error is not None:
                    walk.raising.append(Raising((), node, error))
                    return
            given = [self._edge(row, outs, asked) for row in fact.rows]
            for i in fact.handed:
                if not trainable(node.inputs[i].dtype):
                    given[i] = _at(outs, fact.rows[i])
        walk.give_all(node.inputs, given, forms)

    @staticmethod
    def _edge(row: tuple[int, ...] | None, outs: list[Grad], asked: int) -> Grad:
        """An op that is asked gives each input with a gradient a tensor, of whichever output the cotangent came."""
        if row is None:
            return NOTHING
        if row == (0,) and len(outs) == 1:
            return outs[0]
        flow = 0
        for port in row:
            if port < len(outs):
                flow |= outs[port][1]
        return asked, flow

    def _functional(
        self, walk: Walk, node: Node, names: tuple[str, ...], outs: list[Grad], asked: int
    ) -> tuple[list[Grad], Forms]:
        program = node.function.program
        inside = walk.context.inside(node)
        # Calls and loops make dense tensors of cotangents, branches take them as they come.
        come = tuple((i, Slices(of.wide)) for i, of in walk.forms(node.used_outputs).items())
        come = come if node.op in BRANCHES else ()
        summaries = [self.summary(program.function(name), inside, come) for name in names]
        for summary in summaries:
            walk.raising += [Raising((node.name, *stack), op, error) for stack, op, error in summary.raising]
        if node.op in LOOPS:
            if self.mode == "state" and inside.inner:
                condition = program.function(node.attr("cond").func.name)
                walk.raising += [Raising((node.name,), op, UNSHAPED) for op in condition.nodes if wants_handle(op)]
            # A loop adds up dense tensors.
            return self._loop(node, summaries[0], outs, asked, walk.context.handles), NONE
        skip = 1 if node.op in BRANCHES else 0
        if skip and self.mode == "state" and not walk.context.handles and _differ(node, summaries):
            walk.raising.append(Raising((), node, HANDLES))
            return [NOTHING] * len(node.inputs), NONE
        given = [NOTHING] * len(node.inputs)
        if any(len(summary.arguments) + skip != len(node.inputs) for summary in summaries):
            raise TargetError(
                f"`{node.name}` of {node.function.label} gives its function too many or too few arguments"
            )
        grouped = _grouped(outs)
        for summary in summaries:
            for i, argument in enumerate(summary.arguments):
                given[i + skip] = join(given[i + skip], self._through(argument, grouped, asked))
        forms: dict[int, Slices] = {}
        for summary in summaries:
            forms.update((i + skip, Slices(of.wide[-1:])) for i, of in summary.slices.items())
            if not skip:
                walk.raising += _nested(summary.slices, node.name)
        if skip and any(len({s.slices.get(i - skip, PLAIN).wide for s in summaries}) > 1 for i in forms):
            walk.raising.append(Raising((), node, UNEQUAL))
        return given, forms

    def _is_cut_off(self, walk: Walk, fact: Facts) -> bool:
        """Whether a custom gradient stands where it cannot reach what it captured.

        TensorFlow looks for it in the forward function of a branch and finds but what is its own
        (tensorflow/python/ops/cond_v2.py `_resolve_grad_inputs`); loading makes the functions of loops anew, so that
        what was captured of one belongs to none.
        """
        context = walk.context
        if not fact.captures or context == CALLED:
            return False
        own = str(walk.function.name)
        foreign = {name for name in fact.captures if name != own and not own.startswith(f"__inference_{name}_")}
        if walk.function.program.origin == "live" or fact.custom == "process":
            return bool(foreign) if context.chosen or context.beyond else "" in foreign
        if not context.inner:
            return context.beyond and bool(foreign - {""})
        return context.chosen or not fact.captures.isdisjoint(self._inner_functions(walk.function.program))

    def _inner_functions(self, program: Program) -> frozenset[str]:
        """The functions of loops, and "", for variables, which are out of reach there, too."""
        if self._inner is None:
            functions = (program.graph, *map(program.function, program.functions))
            loops = [node for function in functions for node in function.nodes if node.op in LOOPS]
            self._inner = frozenset({"", *(node.attr(name).func.name for node in loops for name in ("body", "cond"))})
        return self._inner

    def _through(self, argument: Grad, outs: Grouped, asked: int) -> Grad:
        """An argument's gradient when the results of its function have the gradients `outs`."""
        tensor, flow = 0, 0
        for (t, f), ports in outs.items():
            if argument[0] & ports:
                tensor |= t
            if argument[1] & ports:
                flow |= f
        if self.mode == "state" and argument[0]:
            # The backward function takes cotangents of all trainable results, zeros where there are none.
            tensor = asked
        return tensor, flow

    def _loop(self, node: Node, body: Summary, outs: list[Grad], asked: int, handles: bool) -> list[Grad]:
        """A fixpoint over the loop's variables; none at all and any number of iterations are joined."""
        width = len(node.inputs)
        state = [outs[i] if i < len(outs) and trainable(v.dtype) else NOTHING for i, v in enumerate(node.inputs)]
        while True:
            grouped = _grouped(state)
            new = [join(state[i], self._through(body.arguments[i], grouped, asked)) for i in range(width)]
            if new == state:
                break
            state = new
        if self.mode == "state":
            # while_v2.py `_WhileGrad` differentiates for what has a cotangent, with unconnected_gradients="zero"; a
            # resource gets one, zeros, only where its handle's shape is known.
            state = [
                join(g, (asked, 0)) if trainable(v.dtype) and (handles or v.dtype != RESOURCE or out[0]) else NOTHING
                for g, v, out in zip(state, node.inputs, _padded(outs, width), strict=True)
            ]
        return state


def _grouped(outs: list[Grad]) -> Grouped:
    """The gradients that results have, each with the mask of those that have it: a call's are mostly of few kinds."""
    found: Grouped = {}
    for port, grad in enumerate(outs):
        found[grad] = found.get(grad, 0) | 1 << port
    return found


def _at(outs: list[Grad], ports: tuple[int, ...] | None) -> Grad:
    """The gradient that comes for one output; nothing where nobody refers to it."""
    port = ports[0] if ports else len(outs)
    return outs[port] if port < len(outs) else NOTHING


def _padded(outs: list[Grad], width: int) -> list[Grad]:
    return outs + [NOTHING] * (width - len(outs))


def _nested(forms: Forms, *stack: str) -> list[Raising]:
    """The ops that raise because a function cannot give back slices in slices."""
    found = dict.fromkeys(of.node for of in forms.values() if of.node is not None)
    return [Raising(stack, node, NESTED) for node in found]


def _differ(node: Node, branches: list[Summary]) -> bool:
    """Whether a resource has a gradient in one branch only: cond_v2.py then wants zeros of its shape for the other."""
    for i, value in enumerate(node.inputs[1:]):
        if value.dtype == RESOURCE and len({bool(branch.arguments[i][0]) for branch in branches}) > 1:
            return True
    return False


def analyse(model: Model, entry: str | None = None, wrt: str = "variables") -> list[EntryVerdict]:
    """The verdicts of the chosen entries (a name, "all", None: serving_default or the only one).

    `wrt` is "variables", "inputs" or "both"; a frozen graph has no variables, so its inputs are always asked.
    """
    return [verdict for verdict, _ in follow(model, entry, wrt, each=False)]


@collector_paused()
def follow(
    model: Model, entry: str | None = None, wrt: str = "variables", each: bool = True
) -> list[tuple[EntryVerdict, Blame | None]]:
    """As `analyse`, with what the blame was found by (None where nobody is starved): the repair goes on from there.

    With `each`, a cut in a function that runs more than once counts once an activation.
    """
    from gradpass.flow.masks import masked  # which asks an Analysis in its turn

    state, structure = Analysis("state"), Analysis("structure")
    followed = []
    for chosen in model.entry(entry):
        verdict, places = verdict_of(model, chosen, wrt, state, structure)
        found = None
        if any(target.structure != "flows" for target in verdict.targets):
            from gradpass.flow.blame import blame  # a third of flow/, and most models are well

            found = blame(verdict, chosen, places, each)
        verdict.masks = masked(verdict, chosen, places)
        followed.append((verdict, found))
    return followed


def verdict_of(
    model: Model, entry: Entry, wrt: str, state: Analysis, structure: Analysis
) -> tuple[EntryVerdict, list[list[Value]]]:
    """States and structures of all targets of an entry, and the values that stand for each target."""
    results = float_results(entry)
    places: list[list[Value]] = []
    plain: list[tuple[str, str, Literal["variable", "input"], str, Shape, int, bool]] = []
    of_inputs = model.kind == "frozen" or entry.of_inputs
    if wrt != "inputs" and not of_inputs:
        for key, variable in model.variables.items():
            if variable.trainable and key in model.captured:
                places.append(entry.captures.get(key, []))
                plain.append(
                    (variable.name, variable.path, "variable", dtype_name(variable.dtype), variable.shape,
                     variable.parameters, bool(places[-1]))
                )  # fmt: skip
    if wrt != "variables" or of_inputs:
        for name, value in entry.inputs.items():
            shape = argument_shape(value)
            places.append([value])
            plain.append((name, name, "input", dtype_name(value.dtype), shape, count(shape), True))
    captured = [v for values in entry.captures.values() for v in values]
    # A call is differentiated for all that goes in (concrete_function.py), ops on a tape for what is asked.
    everything = [v for values in places for v in values] if entry.inline else [*entry.inputs.values(), *captured]
    walk = state.backward(entry.function, results, everything)
    state_grads, raising = walk.grads, walk.raising
    if model.kind != "metagraph" and not entry.inline:  # any other is asked as a function
        raising += _nested(walk.forms(everything))
    true_grads = state_grads
    if raising or any(judged_structure(values, state_grads) != "flows" for values in places):
        # What flows in TensorFlow flows in the graph: only else there is something to ask.
        true_grads = structure.backward(entry.function, results, everything).grads
    targets = [
        Target(
            *facts[:6], judged_state(values, state_grads, bool(raising)), judged_structure(values, true_grads), facts[6]
        )
        for facts, values in zip(plain, places, strict=True)
    ]
    verdict = EntryVerdict(entry.name, list(entry.outputs), targets, float_outputs=any(v is not None for v in results))
    if raising:
        from gradpass.flow.route import Routes

        chosen = {v: t.name for t, values in zip(targets, places, strict=True) for v in values}
        routes = Routes(entry.function, (chosen, {v: name for name, v in entry.inputs.items()}), entry.outputs)
        verdict.raising = [raised(each, verdict, routes.through(each.stack, each.node)) for each in raising]
    return verdict, places


def float_results(entry: Entry) -> list[Value | None]:
    """The results of an entry that a loss is made of; None in place of the others."""
    return [v if is_float(v.dtype) else None for v in entry.outputs.values()]


def judged_state(values: list[Value], grads: dict[Value, Grad], raises: bool) -> State:
    if raises and any(trainable(v.dtype) for v in values):
        return "raises"
    return judged_structure(values, grads)


def judged_structure(values: list[Value], grads: dict[Value, Grad]) -> Structure:
    if not any(trainable(v.dtype) for v in values):
        return "none"
    total = NOTHING
    for value in values:
        total = join(total, grads.get(value, NOTHING))
    return "flows" if total[1] else "zero" if total[0] else "none"


def raised(each: Raising, verdict: EntryVerdict, path: list[str]) -> Cut:
    starves = [i for i, t in enumerate(verdict.targets) if t.state == "raises"]
    stack, node, error = each
    return Cut(
        node.op, node.name, node.function.name, stack, "raises", starves,
        sum(verdict.targets[i].parameters for i in starves), path,
        error=error,
    )  # fmt: skip


def argument_shape(value: Value) -> Shape:
    """The shape that the file gives an argument or placeholder; None where it says nothing."""
    node = value.node
    if node.op == ARGUMENT:
        return static_shape(value)
    attr = node.attr("shape")
    return shape_of(attr.shape) if attr is not None else None


def dtype_name(dtype: int) -> str:
    """The user's name of a DataType number: "float32", "int64"."""
    from tensorboard.compat.proto.types_pb2 import DataType

    name = DataType.Name(dtype % 100).removeprefix("DT_").lower()
    return {"float": "float32", "double": "float64", "half": "float16"}.get(name, str(name))
