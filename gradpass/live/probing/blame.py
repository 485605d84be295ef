"""Where a gradient becomes zeros or no number: from each starved target along the values to the first op of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gradpass.live.probing import reasons
from gradpass.live.probing.reasons import Reason
from gradpass.live.probing.run import WHOLE, Edge, Passed, measured
from gradpass.report.probe import Stats

# What hands its input on: zeros that come out of it were made before it.
HANDED = frozenset({
    "Abs", "AvgPool", "BroadcastTo", "Cast", "ConcatV2", "Conv2D", "ExpandDims", "GatherV2", "Identity", "IdentityN",
    "MatMul", "Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Pack", "Pad", "PadV2", "Relu", "Relu6", "Reshape",
    "Slice", "Sqrt", "Square", "Squeeze", "StridedSlice", "Sum", "Tanh", "Tile", "Transpose",
})  # fmt: skip


@dataclass
class Cause:
    """One op, why it is the one, and the targets by name that starve of it."""

    code: str
    text: str
    op: Any
    starves: dict[str, None] = field(default_factory=dict)
    zeros: bool = True


class Blame:
    """Follows gradients through what a pass gave; all of it is names and numbers by now."""

    def __init__(self, passed: Passed) -> None:
        self.passed = passed
        self.causes: dict[tuple[str, str], Cause] = {}

    def zeros(self) -> None:
        """Adds the causes of all targets that get nothing but zeros."""
        for name, goal in self.passed.goals.items():
            tensor, gradient = goal.tensor.name, self.passed.gradient(name)
            if gradient is not None and gradient.all_zero:
                first = list(self._first(tensor, _zeros))
                for op, index in first:
                    self._zero(op, index, name)
                if not first:
                    readers = self.passed.links.ways[tensor]
                    self._add("GP316", "and others give gradients that add up to 0", readers[0][0], [name])

    def not_finite(self) -> None:
        """Adds the causes of all targets with NaN or infinite numbers in their gradient.

        Where the loss is no number itself, all of it comes from there, and the cause is the first op of the forward
        pass that made one.
        """
        wrong = {
            name: goal.tensor.name
            for name, goal in self.passed.goals.items()
            if (g := self.passed.gradient(name)) is not None and not g.finite
        }
        losses = [loss for loss in self.passed.forward.losses if not self.passed.values[loss.name].finite]
        for loss in losses:
            op, text = self._forward(loss)
            self._add("GP400", text, op, wrong, zeros=False)
        if not losses:
            for name, tensor in wrong.items():
                for op, index in self._first(tensor, _not_finite):
                    found = reasons.why_not_finite(op, index, *self._around(op))
                    self._add(*found, op, [name], zeros=False)

    def _zero(self, op: Any, index: int, target: str) -> None:
        reason = reasons.why_zero(op, index, *self._around(op))
        if reason.code == "GP312" and op.type in reasons.PRODUCTS:
            others = self.passed.links.reads[op.name]
            stats = self._around(op)[1]
            if len(others) == 2 and (other := stats[1 - index]) is not None and other.all_zero:
                op, reason = self._origin(op, others[1 - index], reason)
        self._add(*reason, op, [target])

    def _origin(self, op: Any, tensor: Any, reason: Reason) -> tuple[Any, Reason]:
        """The op that made the zeros by which another one multiplies, and why."""
        values = self.passed.values
        while True:
            maker = tensor.op
            reads = self.passed.links.reads[maker.name]
            stats = [values.get(t.name) for t in reads]
            figure = self.passed.figures.get(maker.name, {})
            if maker.type in reasons.OFF and figure.get("flat") == 1.0:
                return maker, reasons.why_zero(maker, 0, figure, stats, None)
            if maker.type == "ReadVariableOp":
                return op, Reason("GP317", f"multiplies by {self._variable(reads[0])}, which is all zeros")
            if maker.type in WHOLE:
                return maker, Reason("GP316", "gives zeros, and no gradient, at these values")
            zero = [t for t, s in zip(reads, stats, strict=True) if s is not None and s.all_zero]
            if maker.type == "Placeholder":
                names = {t.name: name for name, t in self.passed.forward.inputs.items()}
                where = names.get(tensor.name, self.passed.forward.path_of(maker))
                return op, Reason("GP312", f"multiplies by the input `{where}`, which is all zeros in this batch")
            if not zero or maker.type not in HANDED:
                return op, Reason("GP312", f"multiplies by `{self.passed.forward.path_of(maker)}`, which is zeros")
            tensor = zero[0]

    def _variable(self, handle: Any) -> str:
        names = {goal.tensor.name: name for name, goal in self.passed.goals.items()}
        return f"`{names[handle.name]}`" if handle.name in names else "a variable"

    def _forward(self, loss: Any) -> tuple[Any, str]:
        """The first op that makes NaN or infinite numbers of finite ones, on the way that leads to a loss."""
        values = self.passed.values
        op, seen = loss.op, set[str]()
        while op.name not in seen:
            seen.add(op.name)
            wrong = [
                t
                for t in self.passed.links.reads[op.name]
                if (stats := values.get(t.name)) is not None and not stats.finite
            ]
            if not wrong:
                break
            op = wrong[0].op
        made = next(values[t.name] for t in op.outputs if t.name in values and not values[t.name].finite)
        kind = "NaN" if made.nans else "infinite numbers"
        if op.type == "Placeholder":
            return op, f"is an input that holds {kind}"
        if op.type == "ReadVariableOp":
            return op, f"reads {self._variable(self.passed.links.reads[op.name][0])}, which holds {kind}"
        figure, read, _ = self._around(op)
        at = ""
        if figure.get("singular") or figure.get("negative"):
            where = reasons.SAID[reasons.SINGULAR[op.type][1]]
            at = f": it reads {where}" if figure.get("singular") else ": it reads numbers below 0"
        elif any(s is not None and s.size == 0 for s in read):
            at = ": there is nothing to compute it of"
        elif any(s is not None for s in read):
            at = f": it reads numbers up to {max(s.largest for s in read if s is not None):.3g}"
        return op, f"is the first to give {kind}{at}"

    def _first(self, tensor: str, bad: Callable[[Stats], bool]) -> Iterator[Edge]:
        """The edges at which a gradient turns bad that was not when it arrived at the op."""
        stack, seen, found = [tensor], {tensor}, dict[tuple[str, int], Any]()
        while stack:
            name = stack.pop()
            for op, index in self.passed.links.ways.get(name, ()):
                if not self._bad_edge(name, op, index, bad):
                    continue
                cotangents = {t.name: self.passed.gradients.get(t.name) for t in op.outputs}
                worse = [n for n, g in cotangents.items() if g is not None and bad(g)]
                alive = any(g is not None and not bad(g) for g in cotangents.values())
                if (bad is _zeros and alive) or (bad is not _zeros and not worse):
                    found[op.name, index] = op
                    continue
                stack += [n for n in worse if n not in seen]
                seen.update(worse)
        yield from ((op, index) for (_, index), op in found.items())

    def _bad_edge(self, name: str, op: Any, index: int, bad: Callable[[Stats], bool]) -> bool:
        edge: Edge = (op.name, index)
        if edge in self.passed.arriving:
            given = self.passed.arriving[edge]
            return given is not None and bad(given)
        # Of a variable no copies are made: what a plain reader gets is what it hands on.
        outputs = [g for t in op.outputs if (g := self.passed.gradients.get(t.name)) is not None]
        return any(map(bad, outputs)) if op.type == "ReadVariableOp" else bool(outputs)

    def _around(self, op: Any) -> tuple[dict[str, float], list[Stats | None], Stats | None]:
        """The figures of an op, the values that it reads and the gradient that arrives at it."""
        values = [self.passed.values.get(t.name) for t in self.passed.links.reads[op.name]]
        arriving = [g for t in op.outputs if measured(t) and (g := self.passed.gradients.get(t.name)) is not None]
        return self.passed.figures.get(op.name, {}), values, next(iter(arriving), None)

    def _add(self, code: str, text: str, op: Any, targets: Iterable[str], zeros: bool = True) -> None:
        cause = self.causes.setdefault((code, op.name), Cause(code, text, op, zeros=zeros))
        cause.starves.update(dict.fromkeys(targets))


def _zeros(stats: Stats) -> bool:
    return stats.all_zero


def _not_finite(stats: Stats) -> bool:
    return not stats.finite
