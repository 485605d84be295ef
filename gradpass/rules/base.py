"""What a rule is: how the shadow of an op's outputs follows from the shadows of its inputs.

A rule is one class in a file of this folder: it says which ops it serves, carries examples that lose their gradient and
are repaired (`hits`) and examples that it declines with the reason (`misses`), and its docstring is its documentation.
Both kinds of example are expressions in a variable `v` of shape [4, 3], a constant `c` of shape [3, 5], their float
dtype `f` and `tf`; the tests are made from them. A file added to this folder registers itself; there is no list of
rules.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, NoReturn, Protocol

from gradpass.program.graph import Node
from gradpass.rules.lazy import tf
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow

Kind = Literal["exact", "estimator", "smooth"]

MOST = 1 << 27  # weights for one op: 512 MB in float32


class Decline(Exception):
    """A rule cannot serve here; the reason reaches the user."""

    def __init__(self, reason: str, node: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.node = node


@dataclass(frozen=True)
class Knobs:
    """How soft a surrogate is: temperature (relative to the spread of the op's input unless `absolute`), the kernel of
    thresholds (`rules.kernels`), and the projection that a choice uses (`soft.simplex`)."""

    temperature: float = 1.0
    absolute: bool = False
    kernel: str | None = None
    choice: str = "entropic"


class Region(Protocol):
    """What a site asks of the region that is being built."""

    knobs: Knobs
    dtype: Any
    scale: Any
    soft_mode: bool

    def shadow_of(self, node: Node, index: int) -> Shadow | None: ...
    def is_source(self, node: Node, index: int) -> bool: ...
    def hard_input(self, node: Node, index: int) -> Any: ...
    def hard_output(self, node: Node, port: int) -> Any: ...
    def read_variable(self, node: Node, index: int) -> Any: ...
    def replay(self, node: Node, inputs: list[Any]) -> list[Any]: ...


class Site:
    """One node in the region that is being built: its inputs, hard and shadowed, as a rule sees them."""

    def __init__(self, node: Node, region: Region) -> None:
        self.node = node
        self.region = region
        self.knobs = region.knobs
        self.dtype = region.dtype

    @property
    def scale(self) -> Any:
        """T, a positive scalar tensor of the region's dtype: how soft a surrogate is, before any spread."""
        return tf.cast(self.region.scale, self.dtype)

    def shadow(self, index: int) -> Shadow | None:
        """The shadow of an input; None where it has none."""
        return self.region.shadow_of(self.node, index)

    def is_source(self, index: int) -> bool:
        """Whether the region starts at an input: its shadow is then its own value."""
        return self.region.is_source(self.node, index)

    def hard(self, index: int) -> Any:
        """An input's own value, through stop_gradient unless the mode is soft."""
        return self.region.hard_input(self.node, index)

    def outcome(self, port: int) -> Any:
        """What the op itself gave, without a gradient: a sample drawn, say, which no replay would give again."""
        return self.region.hard_output(self.node, port)

    def used(self) -> set[int]:
        """The outputs of the node that somebody reads."""
        function = self.node.function
        read = {v.port for node in function.nodes for v in node.inputs if v.node is self.node}
        if function.is_graph:
            return read | {v.port for v in self.node.used_outputs}  # whoever runs it may ask for any
        return read | {v.port for v in function.results if v.node is self.node}

    def variable(self, index: int) -> Any:
        """The value of the variable whose resource is this input."""
        return self.region.read_variable(self.node, index)

    def numeric(self, index: int) -> Any:
        """An input as a float tensor of the region's dtype: its shadow's mean, or its own value."""
        shadow = self.shadow(index)
        value = self.hard(index) if shadow is None else shadow.numeric()
        return tf.cast(value, self.dtype)

    def probability(self, index: int) -> Any:
        """A bool input's chance to be true: its shadow, or 0 and 1."""
        return self.numeric(index)

    def finite(self, index: int) -> Any:
        """`numeric` with 0 for what is not finite: a value masked by the hard graph must not turn the soft one NaN."""
        value = self.numeric(index)
        return tf.where(tf.math.is_finite(value), value, tf.zeros_like(value))

    def weights(self, index: int, size: Any) -> Any:
        """An index input as weights over 0 .. size-1, shape [..., size].

        A Categorical gives its own; a Numeric is shared between its two neighbours (linear interpolation), so an index
        that is an integer already keeps all its weight, and its derivative looks to the neighbour above (below, at the
        upper end): the symmetric tent has none there.
        """
        shadow = self.shadow(index)
        if isinstance(shadow, Categorical):
            return shadow.over(size)
        position = self.numeric(index)[..., None]
        last = tf.cast(size - 2, self.dtype)
        lower = tf.stop_gradient(tf.minimum(tf.floor(position), tf.maximum(last, 0)))
        classes = tf.cast(tf.range(size), self.dtype)
        below, above = (tf.cast(tf.equal(classes, lower + i), self.dtype) for i in (0, 1))
        return below * (1 - (position - lower)) + above * (position - lower)

    def temperature(self, value: Any, axis: int | None = None) -> Any:
        """The temperature for an input: T times its `spread`, which carries no gradient; with absolute temperature, T.

        The spread is that of all of it, or along an axis with that axis kept.
        """
        scale = tf.cast(self.scale, value.dtype)
        if self.knobs.absolute:
            return scale
        wide = value if value.dtype == tf.float64 else tf.cast(value, tf.float32)
        return scale * tf.cast(spread(wide, axis), value.dtype)

    def static(self, index: int) -> Any:
        """An input's value where the graph has it as a constant, as a numpy array; declines where it is computed."""
        value = constant(self.node.inputs[index].node)
        if value is None:
            self.decline(f"its input {index} is computed at run time, and the surrogate needs to know it")
        return value

    def rank(self, index: int) -> int:
        """An input's rank."""
        rank: int = len(self.hard(index).shape)
        return rank

    def replay(self, inputs: list[Any]) -> list[Any]:
        """The op itself on other tensors (of other dtypes where it allows that); one tensor an output."""
        return self.region.replay(self.node, inputs)

    def decline(self, reason: str) -> NoReturn:
        """Ends the rule: it cannot serve here, and this is why."""
        raise Decline(reason, self.node.name)

    def output(self, value: Any) -> Shadow:
        """A float tensor as the shadow that fits the node's first output: Probability for a bool, else Numeric."""
        return Probability(value) if self.node.output_dtype(0) == 10 else Numeric(value)


def finite(x: Any) -> Any:
    """The value with what is infinite cut to the dtype's range, so that a difference of two is not NaN."""
    limit = tf.constant(x.dtype.max / 4, x.dtype)
    return tf.clip_by_value(x, -limit, limit)


REACHES, GAP = (1e2, 1e4, 1e6), 50.0


def spread(x: Any, axis: int | None) -> Any:
    """The standard deviation of what is finite and not masked, 1 where that is 0: the yardstick of a temperature.

    A mask of -1e9 among logits would be the whole of the standard deviation, and with it the temperature so high that
    masked entries get weight and the gradient of the others vanishes. Masks are told by the gap between: a reach of
    1e2, 1e4 or 1e6 within which entries lie, none up to 50 times that far from 0, and others beyond. Along an axis
    entries compete, and only those far below are masked: one far above the others has won and counts, else nothing
    but its weight of 1 would be left, which has no derivative.
    """
    size, finite = tf.abs(x), tf.math.is_finite(x)
    depth = size if axis is None else -x  # how far off an entry is that may be masked
    rank = len(x.shape)
    reach = tf.reshape(tf.constant(REACHES, x.dtype), [-1] + [1] * rank)
    near, far = size < reach, ~(depth < reach * GAP)
    over = list(range(1, rank + 1)) if axis is None else 1 + axis % rank
    gap = tf.reduce_any(near, over, True) & tf.reduce_all(near | far, over, True)
    kept = finite & ~tf.reduce_any(far & gap, 0)
    count = tf.reduce_sum(tf.cast(kept, x.dtype), axis, True)
    # Divided by the largest first, so that no square leaves the range of the dtype.
    zero = tf.zeros_like(x)
    top = tf.reduce_max(tf.where(kept, size, zero), axis, True)
    unit = tf.where(kept, tf.math.divide_no_nan(x, top), zero)
    mean = tf.math.divide_no_nan(tf.reduce_sum(unit, axis, True), count)
    variance = tf.math.divide_no_nan(tf.reduce_sum(tf.where(kept, (unit - mean) ** 2, zero), axis, True), count)
    found = top * tf.sqrt(variance)
    found = tf.stop_gradient(tf.where(found > 0, found, tf.ones_like(found)))
    return found if axis is not None else tf.reshape(found, [])


def constant(node: Node) -> Any:
    """The value of a Const (through identities, and stacked) as a numpy array; None for anything else."""
    while node.op == "Identity":
        node = node.inputs[0].node
    if node.op == "Pack":
        parts = [constant(value.node) for value in node.inputs]
        import numpy as np  # `gradpass check` reads the rules and needs none

        return None if any(part is None for part in parts) else np.stack(parts, node.attr("axis").i)
    return tf.make_ndarray(_tensorflow_proto(node)) if node.op == "Const" else None


def _tensorflow_proto(node: Node) -> Any:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    return TensorProto.FromString(node.attr("value").tensor.SerializeToString())


class Rule(ABC):
    """One rule; see the module. `name` is what a user reads and types, `ops` what it serves.

    `no_limit` says why its soft value cannot be held against the hard one, nor its derivative against differences of
    that value in float64: the derivative of a sample holds the noise, some ops know float32 only. Such a rule has tests
    of its own. `internal` rules serve only what gradpass puts into a graph itself.
    """

    name: ClassVar[str]
    ops: ClassVar[tuple[str, ...]]
    kind: ClassVar[Kind] = "estimator"
    no_limit: ClassVar[str | None] = None
    internal: ClassVar[bool] = False
    hits: ClassVar[tuple[str, ...]] = ()
    misses: ClassVar[tuple[tuple[str, str], ...]] = ()

    def serves(self, node: Node) -> bool:
        """Whether this node is one of those that the rule is for, by what stands around it."""
        return True

    def kind_of(self, node: Node, severed: Collection[int]) -> Kind:
        """What the derivative is where these inputs of a node are severed: of some it may be the true one."""
        return self.kind

    @abstractmethod
    def shadow(self, site: Site) -> Shadow | list[Shadow | None]:
        """The shadow of the node's first output, or one for each output; raises Decline through `site.decline`."""


@cache
def rules() -> tuple[Rule, ...]:
    """All rules, by name: every class in this folder."""
    for module in pkgutil.iter_modules(importlib.import_module("gradpass.rules").__path__):
        importlib.import_module(f"gradpass.rules.{module.name}")
    found: list[Rule] = []
    pending = list(Rule.__subclasses__())
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if not cls.__abstractmethods__:
            found.append(cls())
    return tuple(sorted(found, key=lambda rule: rule.name))


@cache
def by_op() -> dict[str, tuple[Rule, ...]]:
    """Op -> the rules that serve it."""
    table: dict[str, tuple[Rule, ...]] = {}
    for rule in rules():
        for op in rule.ops:
            table[op] = (*table.get(op, ()), rule)
    return table


def rule_for(node: Node, wanted: str | None = None) -> Rule | None:
    """The rule that serves a node: the first that is for it, or the wanted one if that is; None where there is none."""
    for rule in by_op().get(node.op, ()):
        if wanted in (None, rule.name) and rule.serves(node):
            return rule
    return None
