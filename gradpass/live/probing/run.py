"""One forward and one backward pass of a target, with a few numbers of every float value and of its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.live.probing import reasons
from gradpass.live.probing.stats import measure, read
from gradpass.live.probing.trace import Forward, calls_inlined
from gradpass.report.probe import Stats

WHOLE = frozenset({
    "While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "PartitionedCall",
    "StatefulPartitionedCall",
})  # fmt: skip
READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "Placeholder"})

Edge = tuple[str, int]  # the name of an op and which of its inputs


class Goal(NamedTuple):
    """Whose gradient is asked for: the tensor that stands for a variable (or an input) in the graph, and what it is."""

    tensor: Any
    shape: tuple[int | None, ...]
    dtype: str
    is_variable: bool = True

    @property
    def size(self) -> int:
        """The number of its elements; 0 where a size is not known."""
        return math.prod(n or 0 for n in self.shape)


@dataclass
class Links:
    """The ops that a gradient passes on its way from the losses to the targets, and the values that they read.

    `ways` has for the name of each tensor the edges by which its gradient comes; `ancestors` are all ops that the
    losses are computed by, in order, and `reads` what each of them reads.
    """

    between: list[Any]
    ancestors: list[Any]
    ways: dict[str, list[tuple[Any, int]]]
    reads: dict[str, tuple[Any, ...]]


@dataclass
class Passed:
    """What the passes gave: Stats by the names of tensors, of a gradient None where TensorFlow has none.

    `arriving` is the gradient by each edge alone, which sums up to that of the value; `figures` are what `reasons`
    wanted to know of an op; all gradients are of the loss times `scale`.
    """

    forward: Forward
    links: Links
    values: dict[str, Stats]
    gradients: dict[str, Stats | None]
    arriving: dict[Edge, Stats | None]
    figures: dict[str, dict[str, float]]
    goals: dict[str, Goal]
    scale: float

    @property
    def whole(self) -> list[Any]:
        """The loops, branches and calls that a gradient passes and that were not looked into."""
        return [op for op in self.links.between if op.type in WHOLE]

    def gradient(self, goal: str) -> Stats | None:
        """The gradient of what is asked about."""
        return self.gradients.get(self.goals[goal].tensor.name)


def trainable(tensor: Any) -> bool:
    """Whether TensorFlow follows gradients through it."""
    dtype = tensor.dtype
    return bool(dtype.is_floating or dtype.is_complex or dtype in (tf.resource, tf.variant))


def measured(tensor: Any) -> bool:
    """Whether it has numbers to measure."""
    return bool(tensor.dtype.is_floating or tensor.dtype.is_complex)


def links_of(losses: Sequence[Any], targets: Sequence[Any]) -> Links:
    """Which ops stand between targets and losses."""
    ancestors: dict[str, Any] = {}
    stack = [loss.op for loss in losses]
    while stack:
        op = stack.pop()
        if op.name not in ancestors:
            ancestors[op.name] = op
            stack += [t.op for t in op.inputs]
    ordered = _topological([op for op in losses[0].graph.get_operations() if op.name in ancestors])
    reached = {t.name for t in targets}
    between: list[Any] = []
    ways: dict[str, list[tuple[Any, int]]] = {}
    for op in ordered:
        edges = [i for i, t in enumerate(op.inputs) if t.name in reached]
        if edges:
            between.append(op)
            reached.update(t.name for t in op.outputs if trainable(t))
            for i in edges:
                ways.setdefault(op.inputs[i].name, []).append((op, i))
    return Links(between, ordered, ways, {op.name: tuple(op.inputs) for op in ordered})


def _topological(ops: Sequence[Any]) -> list[Any]:
    """Every op behind what it reads. A graph that was imported need not be in that order."""
    done: set[str] = set()
    order: list[Any] = []
    for start in ops:
        stack = [(start, False)]
        while stack:
            op, left = stack.pop()
            if left:
                order.append(op)
            elif op.name not in done:
                done.add(op.name)
                stack.append((op, True))
                stack += [(t.op, False) for t in op.inputs if t.op.name not in done]
    return order


class Pass:
    """Adds the backward pass and the statistics to the graph in which the forward pass was traced."""

    def __init__(self, forward: Forward, goals: Mapping[str, Goal], scale: Any = None) -> None:
        self.forward = forward
        self.goals = dict(goals)
        self.links = links_of(forward.losses, [goal.tensor for goal in self.goals.values()])
        self.probes = self._split()
        self._gradients = self._differentiate(scale)

    def outputs(self) -> dict[str, Any]:
        """What the graph gives: the numbers of all values, gradients and edges, and the figures of ops."""
        self._values = {t.name: t for op in self.links.ancestors for t in op.outputs if measured(t)}
        self._known = {n: g for n, g in self._gradients.items() if g is not None and n not in self._made}
        self._edges = {e: self.arriving(*e) for e in self.probes}
        self._figures = {
            op.name: found
            for op in self.links.between
            if (found := reasons.figures(op, self.links.reads[op.name], self.gradient, self.arriving))
        }
        return {
            "values": _stacked([measure(t) for t in self._values.values()]),
            "gradients": _stacked([measure(g) for g in self._known.values()]),
            "edges": _stacked([measure(g) for e, g in self._edges.items() if self._apart(e) and g is not None]),
            "figures": [list(found.values()) for found in self._figures.values()],
            "scale": self._scale,
        }

    def gradient(self, tensor: Any) -> Any:
        """The gradient of a value, None where there is none."""
        return self._gradients.get(tensor.name)

    def arriving(self, op: str, index: int) -> Any:
        """The gradient that comes to a value by one edge."""
        probe = self.probes.get((op, index))
        return None if probe is None else self._gradients.get(probe.name)

    def passed(self, run: Mapping[str, Any]) -> Passed:
        """The numbers of a run, each with what it is of."""
        values = dict(zip(self._values, map(read, run["values"].numpy()), strict=True))
        known = dict(zip(self._known, map(read, run["gradients"].numpy()), strict=True))
        rows = iter(run["edges"].numpy())
        arriving: dict[Edge, Stats | None] = {}
        for edge, gradient in self._edges.items():
            if gradient is None:
                arriving[edge] = None
            else:
                arriving[edge] = read(next(rows)) if self._apart(edge) else known[self.probes[edge].name]
        figures = {
            name: dict(zip(found, (float(n) for n in numbers), strict=True))
            for (name, found), numbers in zip(self._figures.items(), run["figures"], strict=True)
        }
        gradients = {name: known.get(name) for name in self._gradients}
        return Passed(self.forward, self.links, values, gradients, arriving, figures, self.goals, float(run["scale"]))

    def _apart(self, edge: Edge) -> bool:
        """Whether an edge has a gradient of its own, and not that of the only reader of its value."""
        return self.probes[edge].name in self._made

    def _split(self) -> dict[Edge, Any]:
        """Gives each of several readers of a value a copy of its own, so that each one's gradient is known."""
        probes: dict[Edge, Any] = {}
        self._made: set[str] = set()
        losses = {t.name for t in self.forward.losses}
        for op in self.links.between:
            for i, tensor in enumerate(self.links.reads[op.name]):
                ways = self.links.ways.get(tensor.name)
                if not ways or not measured(tensor):
                    continue
                if len(ways) > 1 or tensor.name in losses:
                    probes[op.name, i] = copy = _copied(op, i, tensor)
                    self._made.add(copy.name)
                else:
                    probes[op.name, i] = tensor
        return probes

    def _differentiate(self, scale: Any) -> dict[str, Any]:
        self._scale = tf.ones([], tf.float64) if scale is None else tf.cast(scale, tf.float64)
        sources = {goal.tensor.name: goal.tensor for goal in self.goals.values()}
        sources |= {t.name: t for op in self.links.between for t in op.outputs if measured(t)}
        sources |= {t.name: t for t in self.probes.values()}
        losses = self.forward.losses
        seeds = [tf.cast(self._scale, t.dtype) * tf.ones_like(t) for t in losses]
        try:
            found = tf.gradients(losses, list(sources.values()), seeds)
        except LookupError as problem:
            raise GradpassError(
                f"TensorFlow cannot differentiate it: {str(problem).splitlines()[0]}; gradpass.check tells which op "
                "and what to do"
            ) from problem
        return dict(zip(sources, found, strict=True))


def _copied(op: Any, index: int, tensor: Any) -> Any:
    """A copy of a tensor that this op alone reads.

    TensorFlow has no public way to make an op of a graph read another tensor. `Operation._update_input` is there in
    TensorFlow 2.18 to 2.21, and TensorFlow's own rewriting of loops and branches uses it; a test fails when it moves.
    """
    copy = tf.identity(tensor, name="gradpass_probe")
    op._update_input(index, copy)
    return copy


def _stacked(rows: list[Any]) -> Any:
    return tf.stack(rows) if rows else tf.zeros([0, 6], tf.float64)


def kept(variables: Sequence[Any], graph: Any) -> list[tuple[Any, Any]]:
    """The variables that a graph may change, each with its value: those that more than reads stand behind."""
    readers: dict[int, set[str]] = {}
    for outer, inner in graph.captures:
        readers[id(outer)] = {op.type for op in inner.consumers()}
    changing = [v for v in variables if not readers.get(id(v.handle), set()) <= READS]
    return [(v, v.read_value()) for v in changing]


@contextmanager
def as_written() -> Iterator[None]:
    """Runs graphs as they are: what runs once is not worth Grappler's time, a multiple of its own."""
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def run(
    call: Callable[..., Forward],
    inputs: Sequence[Any],
    goals_of: Callable[[Forward], Mapping[str, Goal]],
    scale: Callable[[], Any] = lambda: None,
    autograph: bool = True,
    inline: bool = True,
) -> Passed:
    """Traces `call` with its backward pass and runs both once; variables are as before afterwards."""
    made: list[Pass] = []
    refused: list[GradpassError] = []

    @tf.autograph.experimental.do_not_convert
    def finish(forward: Forward) -> Any:
        with calls_inlined(False):
            try:
                if not forward.losses:
                    raise GradpassError("it gives no float output that could be differentiated; give loss=")
                made.append(Pass(forward, goals_of(forward), scale()))
                return made[-1].outputs()
            except GradpassError as problem:  # autograph would wrap it
                refused.append(problem)
                return None

    def body(*given: Any) -> Any:
        return finish(call(*given))

    with calls_inlined(inline):
        concrete = tf.function(body, autograph=autograph).get_concrete_function(*inputs)
    if refused:
        raise refused[-1]
    before = kept([*concrete.variables, *made[-1].forward.variables], concrete.graph)
    try:
        with as_written():
            found = concrete(*inputs)
    finally:
        for variable, value in before:
            variable.assign(value)
    return made[-1].passed(found)
