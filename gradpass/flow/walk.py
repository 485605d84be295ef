"""What a backward pass over one function carries: the gradients so far, in which form they come, and what raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gradpass.flow.facts import BRANCHES, LOOPS
from gradpass.flow.slices import Slices
from gradpass.program.graph import Function, Node, Value

Grad = tuple[int, int]  # results at which a tensor exists, results whose cotangent it depends on
Forms = Mapping[int, Slices]  # by flat place: those gradients that are slices
NOTHING: Grad = (0, 0)
NONE: Forms = {}
Come = tuple[tuple[int, Slices], ...]  # results whose cotangent is slices


def join(a: Grad, b: Grad) -> Grad:
    """The sum of two gradients."""
    return a[0] | b[0], a[1] | b[1]


class Context(NamedTuple):
    """What TensorFlow knows where a function runs: less in a loaded loop body or branch than in one that is called.

    `handles` tells whether it knows the shapes behind the function's resources: in a loaded concrete function it does,
    in a loaded loop body not. `inner` is a loaded body or branch. The others tell, of a live function too, where what a
    custom gradient captured may be out of its reach: `looped` in a loop, `chosen` in a branch of the function that was
    called last, `beyond` in a function that was called in a branch.
    """

    handles: bool = True
    inner: bool = False
    looped: bool = False
    chosen: bool = False
    beyond: bool = False

    def inside(self, node: Node) -> Context:
        """The context of the functions that a node of this one runs."""
        loop, branch = node.op in LOOPS, node.op in BRANCHES
        if not (loop or branch):
            return Context(looped=self.looped, beyond=self.beyond or self.chosen)
        looped, chosen = self.looped or loop, self.chosen or branch
        if node.function.program.origin == "live":
            return Context(looped=looped, chosen=chosen, beyond=self.beyond)
        return Context(self.handles and branch, True, looped, chosen, self.beyond)


CALLED = Context()


class Raising(NamedTuple):
    """An op that makes TensorFlow raise: the calls down to it, and what its gradient function says, if it has one."""

    stack: tuple[str, ...]
    node: Node
    error: str | None


@dataclass
class Walk:
    """A backward pass over one function: the gradients of all values, and the ops that raise on the way.

    `slices` are the values whose gradient is slices: all its parts are.
    """

    function: Function
    context: Context
    grads: dict[Value, Grad]
    slices: dict[Value, Slices] = field(default_factory=dict)
    raising: list[Raising] = field(default_factory=list)

    def give(self, value: Value, grad: Grad) -> None:
        """Adds a gradient that is a dense tensor."""
        others = self.grads.get(value)
        self.grads[value] = grad if others is None else join(others, grad)
        if self.slices:
            self.slices.pop(value, None)

    def give_slices(self, value: Value, grad: Grad, of: Slices) -> None:
        """Adds a gradient that is slices. The sum of slices is slices, also of those that hold slices.

        TensorFlow takes the shape of the whole from the gradient that it made first, which is mostly our last.
        """
        others = self.grads.get(value)
        if others is None:
            self.grads[value] = grad
            self.slices[value] = of
        else:
            self.grads[value] = join(others, grad)
            if value in self.slices:
                self.slices[value] = Slices(of.wide[-1:])

    def give_all(self, values: Sequence[Value], given: Sequence[Grad], forms: Forms) -> None:
        """Adds the gradients that there are of some values; `forms` has those that are slices, by place."""
        if self.slices or forms:
            for i, (value, grad) in enumerate(zip(values, given, strict=True)):
                if grad[0] and i in forms:
                    self.give_slices(value, grad, forms[i])
                elif grad[0]:
                    self.give(value, grad)
            return
        grads = self.grads  # what follows is `give`, for almost all nodes of almost all models
        for value, grad in zip(values, given, strict=True):
            if grad[0]:
                others = grads.get(value)
                grads[value] = grad if others is None else join(others, grad)

    def forms(self, values: Sequence[Value]) -> Forms:
        """Those of some values whose gradient is slices, by place."""
        return {i: self.slices[v] for i, v in enumerate(values) if v in self.slices} if self.slices else NONE


@dataclass
class Summary:
    """What a function's backward pass gives each argument, in which form, and the ops that raise."""

    arguments: list[Grad]
    slices: Forms
    raising: list[Raising] = field(default_factory=list)
