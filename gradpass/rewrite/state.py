"""Discrete state that a loop carries (greedy decoding): its surrogate becomes one more variable of the loop.

A severed whole number or truth value that enters a While, or that its body hands to the next step, has no gradient on
its way. So beside it goes a float: the one-hot row of an index, else its value. It is made where the number is made (at
the loop's input, at the end of the body), where a region can end, and taken up where the number is read, by two nodes
that give the number itself and that the rule `carried-state` serves. A second loop beside the first would repeat what
is random in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.util.tensor_util import make_tensor_proto

from gradpass.flow.facts import LOOPS, recorded_shape
from gradpass.program import edit
from gradpass.program.graph import Function, Node, Value
from gradpass.program.model import Model
from gradpass.rewrite.build import Stand
from gradpass.rewrite.region import Region, decides_only
from gradpass.rewrite.splice import Splice
from gradpass.rules.base import constant

FLOAT, DOUBLE, INT32, INT64 = 1, 2, 3, 9  # types.proto
DTYPES: dict[int, Any] = {FLOAT: np.float32, DOUBLE: np.float64}
INDEX = (INT32, INT64)  # what ArgMax gives and OneHot takes in every version


@dataclass
class State:
    """What has been given a variable beside it, and the nodes that take it up: sources of regions."""

    results: set[tuple[str | None, int]] = field(default_factory=set)  # bodies and their results
    inputs: set[tuple[str | None, str, int]] = field(default_factory=set)  # functions, their loops, and inputs of these
    taken: set[tuple[str | None, str]] = field(default_factory=set)
    added: dict[str, list[str]] = field(default_factory=dict)

    def leaves(self, function: Function, port: int) -> bool:
        """Whether the surrogate of a result of a loop's body leaves it."""
        return (function.name, port) in self.results

    def enters(self, node: Node, index: int) -> bool:
        """Whether the surrogate of an input of a loop goes in."""
        return (node.function.name, node.name, index) in self.inputs


class Crossing(NamedTuple):
    """A loop that is to carry the surrogate of one of its variables."""

    loop: Node
    port: int


def crossings(model: Model, regions: list[Region], state: State) -> Iterator[tuple[Crossing, Region, Value]]:
    """The loop variables whose surrogates want to enter or to be carried on, each with a region that has one."""
    loops = _loops(model)
    for region in regions:
        for node, index in region.entering:
            if _body(node) in loops and not state.enters(node, index) and not decides_only(node, index):
                yield Crossing(node, index), region, node.inputs[index]
        for port in region.leaving:
            loop = loops.get(region.function.name or "")
            if loop is not None and not state.leaves(region.function, port):
                yield Crossing(loop, port), region, region.function.results[port]


def agreed(crossing: Crossing, entering: Stand | None, leaving: Stand | None, soft_mode: bool) -> Stand:
    """What a loop is to carry, by what would do for a value that enters and for one that its body hands on.

    The row of an index must hold every value that the loop will ever see: its body makes such an index, or hands on
    what comes in. In soft mode, where the row is the value itself, the first one may not be a constant beyond it.
    """
    loop, port = crossing
    dtype = max(stand.dtype for stand in (entering, leaving) if stand is not None)
    body = loop.function.program.function(_body(loop))
    if leaving is None:
        through = body.results[port] == body.arguments[port].output(0)
        return Stand(entering.classes if entering is not None and through else None, dtype)
    if entering is None:
        beyond = soft_mode and _beyond(loop.inputs[port].node, leaving.classes or 0)
        return Stand(None if beyond else leaving.classes, dtype)
    if entering.classes is None or leaving.classes is None:
        return Stand(None, dtype)
    return Stand(max(entering.classes, leaving.classes), dtype)


def _beyond(node: Node, classes: int) -> bool:
    """Whether a constant (or a tensor filled with one) is no index of so many classes."""
    if node.op in ("Fill", "BroadcastTo"):
        node = node.inputs[1 if node.op == "Fill" else 0].node
    known = constant(node)
    return known is not None and bool(known.size) and not 0 <= known.min() <= known.max() < classes


def _body(node: Node) -> str:
    return str(node.attr("body").func.name)


def _loops(model: Model) -> dict[str, Node]:
    """The bodies that one loop runs and nothing else, in a function: what can be changed with it."""
    found: dict[str, list[Node]] = {}
    functions = [model.program.graph, *map(model.program.function, model.program.functions)]
    for function in functions:
        for node in function.nodes:
            for attr in node.kind.attrs.values():
                called = [attr.func.name] if attr.WhichOneof("value") == "func" else [f.name for f in attr.list.func]
                for callee in called:
                    found.setdefault(callee, []).append(node)
    return {
        body: users[0]
        for body, users in found.items()
        if len(users) == 1
        and users[0].op in LOOPS
        and not users[0].function.is_graph
        and _body(users[0]) == body
        and len(found[users[0].attr("cond").func.name]) == 1
    }


def carried(model: Model, wanted: dict[Crossing, Stand], state: State) -> Model:
    """The model in which these loops carry more."""
    splices: dict[Function, Splice] = {}

    def splice(function: Function) -> Splice:
        return splices.setdefault(function, Splice(function))

    for crossing, stand in wanted.items():
        _Edit(crossing, stand, state, *(splice(f) for f in _functions(crossing.loop))).make()
    for function, done in splices.items():
        state.added.setdefault(function.name or "", []).extend(done.added)
    return edit.changed(model, [done.proto for done in splices.values()])


def _functions(loop: Node) -> tuple[Function, Function, Function]:
    program = loop.function.program
    return loop.function, program.function(_body(loop)), program.function(loop.attr("cond").func.name)


class _Edit:
    """One more variable of one loop."""

    def __init__(
        self, crossing: Crossing, stand: Stand, state: State, outer: Splice, body: Splice, cond: Splice
    ) -> None:
        self.loop, self.port = crossing
        self.outer, self.body, self.cond = outer, body, cond
        self.state = state
        argument = body.function.arguments[self.port].output(0)
        self.dtype = argument.dtype
        self.classes = stand.classes if self.dtype in INDEX else None
        self.made = stand.dtype
        self.shape = TensorShapeProto()
        self.shape.CopyFrom(recorded_shape(argument) or TensorShapeProto(unknown_rank=True))
        if self.classes is not None:
            self.shape.dim.add().size = self.classes

    def make(self) -> None:
        """Makes it: an input, an argument and a result, an output, and those who read it."""
        loop, port = self.loop, self.port
        proto = self.outer.nodes[loop.position]
        first = self._made(self.outer, self.outer.function.reference(loop.inputs[port]), loop.name)
        data = [text for text in proto.input if not text.startswith("^")]
        proto.input.insert(len(data), first)
        proto.attr["T"].list.type.append(self.made)
        for name in ("output_shapes", "_output_shapes"):
            if proto.attr[name].list.shape:
                proto.attr[name].list.shape.add().CopyFrom(self.shape)
        if "_num_original_outputs" in proto.attr:
            proto.attr["_num_original_outputs"].i += 1
        self.cond.argument(f"{self.name}_carried", self.made, self.shape)

        body = self.body.function
        number = body.arguments[port].output(0)
        given = self.body.argument(f"{self.name}_carried", self.made, self.shape)
        taken = self._taken(self.body, number, body.reference(number), given, body.arguments[port].name)
        made = body.results[port]
        last = self._made(self.body, taken if made == number else self.body.reference(made), self.name)
        self.body.result(f"{self.name}_carried", self.made, last)

        after = loop.output(port)
        if any(v == after for node in loop.function.nodes for v in node.inputs) or after in loop.function.results:
            given = f"{loop.name}:output:{len(data)}"
            self._taken(self.outer, after, loop.function.reference(after), given, f"{loop.name}/{port}")
        self.state.results.add((body.name, port))
        self.state.inputs.add((loop.function.name, loop.name, port))

    @property
    def name(self) -> str:
        """What the new variable is called after."""
        return self.body.function.arguments[self.port].name

    def _made(self, splice: Splice, text: str, stem: str) -> str:
        """The float that stands for a number."""
        if self.classes is None:
            made = splice.node(f"{stem}/gradpass/carry", "Cast", [text])
            made.attr["SrcT"].type, made.attr["DstT"].type = self.dtype, self.made
            output = "y"
        else:
            values = np.int32(self.classes), *(DTYPES[self.made](value) for value in (1, 0))
            constants = [_constant(splice, stem, value) for value in values]
            made = splice.node(f"{stem}/gradpass/carry", "OneHot", [text, *constants])
            made.attr["TI"].type, made.attr["T"].type, made.attr["axis"].i = self.dtype, self.made, -1
            output = "output"
        made.attr["_output_shapes"].list.shape.add().CopyFrom(self.shape)
        return f"{made.name}:{output}:0"

    def _taken(self, splice: Splice, number: Value, text: str, given: str, stem: str) -> str:
        """The number as those see it who read it, and lets them."""
        if self.classes is None:
            pick = splice.node(f"{stem}/gradpass/taken", "Cast", [given])
            pick.attr["SrcT"].type, pick.attr["DstT"].type = self.made, self.dtype
            output = "y"
        else:
            pick = splice.node(f"{stem}/gradpass/taken", "ArgMax", [given, _constant(splice, stem, np.int32(-1))])
            pick.attr["T"].type, pick.attr["Tidx"].type = self.made, INT32
            pick.attr["output_type"].type = self.dtype
            output = "output"
        shape = recorded_shape(self.body.function.arguments[self.port].output(0)) or TensorShapeProto(unknown_rank=True)
        pick.attr["_output_shapes"].list.shape.add().CopyFrom(shape)
        always = _constant(splice, stem, np.bool_(True))
        node = splice.node(f"{stem}/gradpass/carried", "SelectV2", [always, text, f"{pick.name}:{output}:0"])
        node.attr["T"].type = self.dtype
        node.attr["_output_shapes"].list.shape.add().CopyFrom(shape)
        seen = f"{node.name}:output:0"
        for user in splice.function.nodes:
            for index, value in enumerate(user.inputs):
                if value == number and user is not self.loop:
                    splice.repoint(user, index, seen)
        for port, value in enumerate(splice.function.results):
            if value == number and not (splice is self.body and port == self.port):
                splice.repoint_result(port, value, seen)
        self.state.taken.add((splice.function.name, pick.name))
        return seen


def _constant(splice: Splice, stem: str, value: Any) -> str:
    tensor = make_tensor_proto(value)
    node = splice.node(f"{stem}/gradpass/constant", "Const", [])
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    node.attr["_output_shapes"].list.shape.add()
    return f"{node.name}:output:0"
