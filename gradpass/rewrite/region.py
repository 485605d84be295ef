"""How far shadows travel in one function, and where a region is closed; decided on the graph, nothing is built yet.

A shadow starts at a chosen cut and goes through every op that a rule serves, and through float ops of which no other
input
is live, so that a region is closed once and as late as possible: `cast(a > 0) * cast(b > 0)` closed at each cast
would have
the gradient 0 wherever both are off. It closes before the first op with another live float input, at a float value that
has a gradient of its own (a looked-up codebook), before calls, and at results.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradpass.flow.analysis import dtype_name
from gradpass.flow.facts import BRANCHES, LOOPS, callees, facts, is_float, trainable
from gradpass.flow.shapes import SHAPE_ONLY
from gradpass.program import opdefs
from gradpass.program.graph import ARGUMENT, CALLS, Function, Node, Value
from gradpass.rules.base import Rule, rule_for

if TYPE_CHECKING:
    from gradpass.rewrite.state import State

Cut = tuple[Node, int]

# Real floats, integers, bool and quantised numbers (types.proto): what has a Numeric, Categorical or Probability.
SHADOWED = frozenset({1, 2, 14, 19, 3, 4, 5, 6, 9, 17, 22, 23, 10, 11, 12, 13, 15, 16})

# Not defined everywhere, or not continuous at whole numbers: a soft value can lie outside the domain, or on the other
# side of the jump, where the hard one never does, so a region closes before them and TensorFlow's own derivative at the
# hard value goes on.
PARTIAL = frozenset(
    {
        "Log", "Log1p", "Sqrt", "Rsqrt", "Pow", "Acos", "Asin", "Acosh", "Atanh", "Reciprocal", "Inv", "RealDiv", "Div",
        "DivNoNan", "Xlogy", "Xlog1py", "Xdivy", "MatrixInverse", "MatrixDeterminant", "LogMatrixDeterminant",
        "Cholesky", "MatrixSolve", "MatrixTriangularSolve", "Lgamma", "Digamma", "Erfinv", "Ndtri", "Zeta", "Polygamma",
        "FloorMod",
    }
)  # fmt: skip


@dataclass
class Closing:
    """A float value at which a region ends: the uses and results that shall see the bridge instead.

    `live` tells whether the value's own gradient must go on: it leads somewhere, or to a cut that was given up and is
    to be found there and not at the bridge.
    """

    value: Value
    live: bool
    uses: list[tuple[Node, int]] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    cuts: frozenset[Cut] = frozenset()


@dataclass
class Stop:
    """A place where shadows could not go on, why, and the cuts that they came from."""

    node: str
    reason: str
    cuts: frozenset[Cut]


class Region:
    """The shadows of one function (or the top-level graph) for a set of chosen cuts.

    `results` are the function's, or the values that the entries of a graph give out; `blocked` says why the function
    could not be inlined into its callers, if that was wanted; `refused` why no shadow goes on at some nodes.
    `relevant` holds the values that reach the loss. Afterwards: `soft[node]` maps input index to True (a source: the
    value itself) or False (the value's shadow); `rule[node]` is the rule that serves it, None where the op itself is
    replayed; `entering` the inputs of loops, `leaving` the results, at which a discrete value's shadow stops because
    nothing carries it on (`state`).
    """

    def __init__(
        self,
        function: Function,
        results: list[Value],
        cuts: set[Cut],
        relevant: set[Value],
        choices: dict[str, str] | None = None,
        blocked: str | None = None,
        refused: dict[Node, str] | None = None,
        state: State | None = None,
    ) -> None:
        self.function = function
        self.results = results
        self.chosen: dict[Node, set[int]] = {}
        for node, index in cuts:
            self.chosen.setdefault(node, set()).add(index)
        self.relevant = relevant
        self.choices = choices or {}
        self.blocked = blocked
        self.refused = refused or {}
        self.state = state
        self.soft: dict[Node, dict[int, bool]] = {}
        self.rule: dict[Node, Rule | None] = {}
        self.closings: dict[Value, Closing] = {}
        self.stops: list[Stop] = []
        self.entering: list[tuple[Node, int]] = []
        self.leaving: list[int] = []
        self._origin: dict[Value, frozenset[Cut]] = {}  # shadowed values, and the cuts that their shadows come from
        self._live: set[Value] = set()
        self._must_close: set[Value] = set()
        self._travel()

    def _travel(self) -> None:
        for argument in self.function.arguments:
            if trainable(argument.output_dtype(0)):
                self._live.add(argument.output(0))
        for node in self.function.order():
            self._visit(node)
        for port, value in enumerate(self.results):
            if value not in self._origin or value not in self.relevant:
                continue
            if is_float(value.dtype):
                self._closing(value).results.append(port)
            elif self.state is None or not self.state.leaves(self.function, port):
                self.leaving.append(port)
                why = self.blocked or "a severed discrete value leaves the function as a result"
                self._stop(value.node, why, self._origin[value])

    def _visit(self, node: Node) -> None:
        if not node.inputs:
            if node.op in ("VarHandleOp", "VariableV2", "Placeholder"):
                self._live.update(v for v in node.used_outputs if trainable(v.dtype))
            return
        inner = bool(callees(node))
        rows = () if inner else facts(node).rows
        chosen = self.chosen.get(node, set())
        useful = any(v in self.relevant for v in node.used_outputs)
        soft = [i for i in range(len(node.inputs)) if useful and self._carries(node, i, rows, inner)]
        opened: set[int] = set()
        for i in list(soft):
            value = node.inputs[i]
            if is_float(value.dtype) and (inner or (i in chosen and value in self._live) or value in self._must_close):
                self._close(node, i, soft, opened)
        if inner:
            self._pass_live(node, rows, opened, inner)
            self._enter(node, chosen, soft)
            return
        if not chosen and not soft:
            self._pass_live(node, rows, opened, inner)
            return
        self._serve(node, rows, chosen, soft, opened)

    def _enter(self, node: Node, chosen: set[int], soft: list[int]) -> None:
        """A node that runs functions: what chooses among them mixes their results, no other shadow goes in."""
        picks = [0] if node.op in BRANCHES and 0 in soft else []
        refused = [i for i in soft if i not in picks and not (self.state and self.state.enters(node, i))]
        if node.op in LOOPS:
            self.entering += [(node, i) for i in refused]
        if refused:
            self._stop(node, _why_inner(node, refused), self._cuts(node, set(), refused))
        if not picks:
            if node.op in BRANCHES and 0 in chosen:
                why = f"the predicate of {node.name!r} is a number; write the comparison out: tf.cond(x != 0, …)"
                self._stop(node, why, self._cuts(node, {0}, []))
            return
        cuts = self._cuts(node, set(), picks)
        rule = rule_for(node, self.choices.get(node.op))
        if rule is None or node in self.refused:
            self._stop(node, self._why_not(node), cuts)
            return
        self.soft[node] = {0: False}
        self.rule[node] = rule
        for value in node.used_outputs:
            if value in self.relevant and value.dtype in SHADOWED:
                self._origin[value] = cuts
                if value in self._live and is_float(value.dtype):
                    self._must_close.add(value)

    def _why_not(self, node: Node) -> str:
        if node.op.startswith("TensorList"):
            return (
                "a TensorArray of severed whole numbers or truth values has no surrogate; write into it what they are "
                "used for (what they look up, their one_hot)"
            )
        return self.refused.get(node) or f"no rule says how a surrogate goes through {node.op}"

    def _carries(self, node: Node, index: int, rows: tuple[tuple[int, ...] | None, ...], inner: bool) -> bool:
        """Whether a shadow comes in at this input: a float goes only where gradients go."""
        value = node.inputs[index]
        if value not in self._origin or node.op in SHAPE_ONLY:
            return False
        if inner or not is_float(value.dtype) or index in self.chosen.get(node, ()):
            return True
        return bool(rows[index])

    def _serve(
        self,
        node: Node,
        rows: tuple[tuple[int, ...] | None, ...],
        chosen: set[int],
        soft: list[int],
        opened: set[int],
    ) -> None:
        """A node with sources or shadows at its inputs: travel, close before it, or let its rule go on."""
        floats = [i for i in soft if is_float(node.inputs[i].dtype)]
        others_live = any(
            rows[i] and (i in opened or value in self._live)
            for i, value in enumerate(node.inputs)
            if i not in soft and i not in chosen
        )
        rule: Rule | None = None
        if not chosen and len(floats) == len(soft):
            if others_live or node in self.refused or not replayable(node):
                for i in floats:
                    self._close(node, i, soft, opened)
                self._pass_live(node, rows, opened, False)
                return
        else:
            rule = rule_for(node, self.choices.get(node.op))
            if others_live:
                for i in floats:
                    self._close(node, i, soft, opened)
            if rule is None or node in self.refused:
                self._stop(node, self._why_not(node), self._cuts(node, chosen, soft))
                self._pass_live(node, rows, opened, False)
                return
        strange = [v for v in (*node.used_outputs, *(node.inputs[i] for i in chosen)) if v.dtype not in SHADOWED]
        if rule is not None and strange:
            name = dtype_name(strange[0].dtype)
            self._stop(node, f"it works on {name} values, which have no surrogate", self._cuts(node, chosen, soft))
            self._pass_live(node, rows, opened, False)
            return
        self.soft[node] = dict.fromkeys(chosen, True) | dict.fromkeys(soft, False)
        self.rule[node] = rule
        origin = self._cuts(node, chosen, soft)
        self._pass_live(node, rows, opened, False)
        for value in node.used_outputs:
            if value in self.relevant:
                self._origin[value] = origin
                if value in self._live and is_float(value.dtype) and (chosen or len(floats) < len(soft) or opened):
                    self._must_close.add(value)

    def _cuts(self, node: Node, chosen: set[int], soft: list[int]) -> frozenset[Cut]:
        return frozenset((node, i) for i in chosen).union(*(self._origin[node.inputs[i]] for i in soft))

    def _pass_live(self, node: Node, rows: tuple[tuple[int, ...] | None, ...], opened: set[int], inner: bool) -> None:
        """Which outputs have a gradient path of their own from something that a user may differentiate for."""
        for i, value in enumerate(node.inputs):
            if value not in self._live and i not in opened:
                continue
            if inner:
                self._live.update(v for v in node.used_outputs if trainable(v.dtype))
            elif rows[i]:
                self._live.update(node.output(port) for port in rows[i] or ())

    def _close(self, node: Node, index: int, soft: list[int], opened: set[int]) -> None:
        self._closing(node.inputs[index]).uses.append((node, index))
        soft.remove(index)
        opened.add(index)

    def _closing(self, value: Value) -> Closing:
        closing = self.closings.get(value)
        if closing is None:
            closing = self.closings[value] = Closing(value, value in self._live, cuts=self._origin[value])
        return closing

    def _stop(self, node: Node, reason: str, cuts: frozenset[Cut]) -> None:
        self.stops.append(Stop(node.name, reason, cuts))


def replayable(node: Node) -> bool:
    """Whether the op can be computed once more beside itself: no state, no randomness, no function inside."""
    signature = opdefs.get(node.op)
    if signature is None or signature.stateful or node.op == ARGUMENT or node.op in PARTIAL:
        return False
    if any(v.dtype not in SHADOWED for v in (*node.inputs, *node.used_outputs)):
        return False
    custom = node.attr("_gradient_op_type")
    return not (custom is not None and custom.s) and all(is_float(v.dtype) for v in node.used_outputs)


def _why_inner(node: Node, refused: list[int]) -> str:
    if node.op in CALLS:
        return f"a severed discrete value enters the call {node.name!r}, which cannot be inlined"
    if node.op in LOOPS and any(decides_only(node, i) for i in refused):
        return (
            f"it decides when the loop {node.name!r} ends, and a number of steps has no derivative; run a fixed number "
            "of steps, and in each choose with tf.where between the new state and the old"
        )
    where, instead = ("loop", "") if node.op in LOOPS else ("branches of", ", or choose with tf.where")
    return (
        f"a severed discrete value enters the {where} {node.name!r}; hand in what it is used for (what it looks up, "
        f"its one_hot) instead{instead}"
    )


def decides_only(loop: Node, index: int) -> bool:
    """Whether the condition of a loop reads one of its inputs, and its body only hands it on."""
    program = loop.function.program
    cond, body = (program.function(loop.attr(key).func.name) for key in ("cond", "body"))
    argument = body.arguments[index].output(0)
    read = any(value == argument for node in body.nodes for value in node.inputs)
    return bool(cond.arguments[index].used_outputs) and body.results[index] == argument and not read
