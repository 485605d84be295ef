"""What a branch that is not taken would give, computed only of ops that cannot fail.

A branch runs where its condition holds, and may rely on that: `12 // n`, a look-up, two tensors that fit together. So
beside an op that can raise at some values, an op is refused whose inputs are not known to fit before the run: sizes
are followed as numbers, or as the name of the size (input 2's axis 0) where they are not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from gradpass.flow.facts import BRANCHES, callees, is_float
from gradpass.program import opdefs
from gradpass.program.graph import ARGUMENT, CALLS, Function, Node, Value
from gradpass.rules.base import Decline, Site, constant
from gradpass.rules.lazy import tf

Size = int | tuple[int, int]  # a number, or the axis of an input

# As large as their operands, which broadcast, and defined everywhere, whatever the values.
TOTAL = frozenset(
    {
        "Abs", "Add", "AddN", "AddV2", "Asinh", "Atan", "Atan2", "Cast", "Ceil", "Cos", "Cosh", "Elu", "Equal", "Erf",
        "Erfc", "Exp", "Expm1", "Floor", "Greater", "GreaterEqual", "Identity", "IsFinite", "IsInf", "IsNan",
        "LeakyRelu", "Less", "LessEqual", "LogSoftmax", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum",
        "Mul", "MulNoNan", "Neg", "NotEqual", "OnesLike", "Relu", "Relu6", "Rint", "Round", "SelectV2", "Selu",
        "Sigmoid", "Sign", "Sin", "Sinh", "Snapshot", "Softmax", "Softplus", "Softsign", "Square", "SquaredDifference",
        "StopGradient", "Sub", "Tan", "Tanh", "ZerosLike",
    }
)  # fmt: skip

# Elementwise; of floats infinite or NaN at some values, and some raise there of whole numbers.
OF_FLOATS = frozenset(
    {
        "Acos", "Acosh", "Asin", "Atanh", "Digamma", "Div", "DivNoNan", "Erfinv", "FloorDiv", "FloorMod", "Inv",
        "Lgamma", "Log", "Log1p", "Mod", "Ndtri", "Pow", "RealDiv", "Reciprocal", "Rsqrt", "Sqrt", "Xdivy", "Xlog1py",
        "Xlogy",
    }
)  # fmt: skip

REDUCTIONS = frozenset({"All", "Any", "Max", "Mean", "Min", "Prod", "Sum"})

# Of known sizes and constant arguments TensorFlow finds before the run whether they fit.
OF_KNOWN_SIZES = frozenset(
    {
        "BatchMatMulV2", "BiasAdd", "BroadcastTo", "ConcatV2", "Cumsum", "ExpandDims", "Fill", "Pack", "Pad", "PadV2",
        "Reshape", "ReverseV2", "Select", "Slice", "Split", "Squeeze", "StridedSlice", "Tile", "Transpose", "Unpack",
    }
)  # fmt: skip

# Stateful in name: they may stand in a branch, what they do is not repeated.
HARMLESS = frozenset({"ReadVariableOp", "Assert", "Print", "PrintV2", *CALLS, *BRANCHES})


@dataclass(frozen=True)
class Known:
    """A tensor and its sizes."""

    tensor: Any
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Input:
    """What comes in at an input of the site's node, not fetched yet: a tensor, or the resource of a variable."""

    index: int
    variable: bool


def branches_of(node: Node) -> list[Function]:
    """The functions of an If or Case, in order; of an If the one for true first."""
    return [node.function.program.function(name) for name in callees(node)]


class Evaluator:
    """The results of one function from what its arguments are, op by op."""

    def __init__(self, site: Site, function: Function, given: list[Known | Input]) -> None:
        self.site = site
        self.function = function
        self.given = given
        self.made: dict[Node, list[Known]] = {}
        for node in function.nodes:
            signature = opdefs.get(node.op)
            if signature is None or (signature.stateful and node.op not in HARMLESS):
                self._decline(node, "which must happen only where its branch is taken")

    @classmethod
    def of_branch(cls, site: Site, function: Function) -> Evaluator:
        """A branch of the site's own node."""
        resource = tf.resource.as_datatype_enum
        return cls(
            site, function, [Input(i, a.output_dtype(0) == resource) for i, a in enumerate(function.arguments, 1)]
        )

    def result(self, port: int) -> Any:
        """The tensor of one result."""
        return self._tensor(self.function.results[port]).tensor

    def _tensor(self, value: Value) -> Known:
        found = self._of(value)
        if isinstance(found, Input):
            raise Decline(f"a variable leaves a branch of {self.site.node.name!r}; read it there", self.site.node.name)
        return found

    def _of(self, value: Value) -> Known | Input:
        """An argument, or an output of a node, of which all that it needs is computed first."""
        if value.node.op != ARGUMENT:
            wanted = _before(value.node)
            for node in self.function.order():
                if node in wanted and node not in self.made:
                    self.made[node] = self._run(node)
        return self._ready(value)

    def _ready(self, value: Value) -> Known | Input:
        if value.node.op != ARGUMENT:
            return self.made[value.node][value.port]
        given = self.given[value.node.position]
        if isinstance(given, Input) and not given.variable:
            given = self.given[value.node.position] = _named(self.site.hard(given.index), given.index)
        return given

    def _run(self, node: Node) -> list[Known]:
        known = constant(node) if node.op == "Const" else None
        if known is not None:
            return [Known(tf.constant(known), known.shape)]
        inputs = [self._ready(v) for v in node.inputs]
        if node.op in CALLS:
            inner = Evaluator(self.site, branches_of(node)[0], inputs)
            return [inner._tensor(v) for v in inner.function.results]
        if node.op in BRANCHES:
            return self._nested(node, inputs)
        if node.op == "ReadVariableOp" and isinstance(inputs[0], Input):
            return [_named(self.site.variable(inputs[0].index), -inputs[0].index)]
        tensors = [i for i in inputs if isinstance(i, Known)]
        if len(tensors) < len(inputs):
            self._decline(node, "which works on a variable")
        return self._checked(node, tensors)

    def _nested(self, node: Node, inputs: list[Known | Input]) -> list[Known]:
        """A branch inside, by a predicate that is not mixed: both are computed, and the one that would run is taken."""
        predicate, *rest = inputs
        if (
            node.op not in ("If", "StatelessIf")
            or not isinstance(predicate, Known)
            or predicate.tensor.dtype != tf.bool
        ):
            self._decline(node, "whose branches are not two for true and false")
        inner = [Evaluator(self.site, function, rest) for function in branches_of(node)]
        made: list[Known] = []
        for port in range(len(inner[0].function.results)):
            yes, no = (e._tensor(e.function.results[port]) for e in inner)
            if yes.sizes != no.sizes:
                self._decline(node, "whose branches give different sizes")
            made.append(Known(tf.where(predicate.tensor, yes.tensor, no.tensor), yes.sizes))
        return made

    def _checked(self, node: Node, inputs: list[Known]) -> list[Known]:
        """An op that cannot fail on these inputs, run."""
        op = node.op
        if op in OF_FLOATS:
            if not is_float(node.output_dtype(0)):
                self._decline(node, "which raises for some whole numbers")
            if self.site.region.soft_mode:
                self._decline(node, "which is not defined everywhere, in soft mode")
        elif op not in TOTAL and op not in REDUCTIONS and op not in OF_KNOWN_SIZES and op != "MatMul":
            self._decline(node, "which may fail where its branch is not taken")
        sizes: tuple[Size, ...] | None
        if op in REDUCTIONS:
            sizes = self._reduced(node, inputs[0])
        elif op == "MatMul":
            sizes = self._product(node, *inputs)
        elif op in OF_KNOWN_SIZES:
            static = all(isinstance(s, int) for i in inputs for s in i.sizes)
            if not static or any(constant(v.node) is None for v in _shaping(node)):
                self._decline(node, "which may fail: sizes that it works on are not known before the run")
            sizes = None
        else:
            sizes = self._broadcast(node, inputs)
        made = []
        for tensor in self.site.region.replay(node, [i.tensor for i in inputs]):
            found = sizes
            if found is None:
                if not tensor.shape.is_fully_defined():
                    self._decline(node, "of which the sizes are not known before the run")
                found = tuple(tensor.shape.as_list())
            made.append(Known(tensor, found))
        return made

    def _reduced(self, node: Node, data: Known) -> tuple[Size, ...]:
        axes = constant(node.inputs[1].node)
        if axes is None:
            self._decline(node, "of which the axes are computed at run time")
        rank = len(data.sizes)
        gone = {int(axis) % rank for axis in axes.reshape([-1])} if rank else set()
        kept = node.attr("keep_dims").b
        return tuple(1 if i in gone else s for i, s in enumerate(data.sizes) if kept or i not in gone)

    def _product(self, node: Node, left: Known, right: Known) -> tuple[Size, ...]:
        (rows, inner), (outer, columns) = left.sizes, right.sizes
        if node.attr("transpose_a").b:
            rows, inner = inner, rows
        if node.attr("transpose_b").b:
            outer, columns = columns, outer
        if inner != outer:
            self._decline(node, "of which the operands are not known to fit")
        return rows, columns

    def _broadcast(self, node: Node, inputs: list[Known]) -> tuple[Size, ...]:
        out: list[Size] = [1] * max(len(i.sizes) for i in inputs)
        for one in inputs:
            for axis, size in enumerate(one.sizes, len(out) - len(one.sizes)):
                if size == 1 or size == out[axis]:
                    continue
                if out[axis] != 1:
                    self._decline(node, "of which the operands are not known to fit")
                out[axis] = size
        return tuple(out)

    def _decline(self, node: Node, what: str) -> NoReturn:
        raise Decline(
            f"a branch of {self.site.node.name!r} holds the {node.op} {node.name!r}, {what}; "
            "compute both results without it and choose with tf.where",
            self.site.node.name,
        )


def _shaping(node: Node) -> list[Value]:
    """The inputs that say how and not what: shapes, axes and places, whose type is not that of the first output."""
    signature = opdefs.get(node.op)
    assert signature is not None
    found: list[Value] = []
    at = 0
    for arg, count in opdefs.arity(signature.inputs, node.attr):
        if arg.type_attr not in (signature.outputs[0].type_attr, None):
            found += node.inputs[at : at + count]
        at += count
    return found


def _named(tensor: Any, index: int) -> Known:
    sizes = tensor.shape.as_list()
    return Known(tensor, tuple((index, axis) if s is None else s for axis, s in enumerate(sizes)))


def _before(node: Node) -> set[Node]:
    """A node and all that it is computed from."""
    found: set[Node] = set()
    stack = [node]
    while stack:
        one = stack.pop()
        if one not in found and one.op != ARGUMENT:
            found.add(one)
            stack += [v.node for v in one.inputs]
    return found
