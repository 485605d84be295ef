"""Makes the graph of an entry's gradients, as far as it must be known to follow gradients through it once more.

For each op of the forward graph that is asked, one node says what the gradient of an input is computed from: values of
the forward graph, and the cotangents (`flow.derivative`). Calls, branches and loops get backward functions made of such
nodes, and copies of what they run that give the values which these need (`flow.made`): that is how TensorFlow does it.

The two questions, *state* and *structure* (`flow.analysis`), need a graph each. In structure a cotangent that does not
exist is left out; in state a call, a loop or a branch is given zeros for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Literal

from gradpass.errors import TargetError
from gradpass.flow.analysis import Mode
from gradpass.flow.derivative import derivatives
from gradpass.flow.facts import BRANCHES, LOOPS, RESOURCE, callees, facts, trainable
from gradpass.flow.made import (
    IDENTITY,
    LIST,
    ZEROS,
    Backward,
    Cotangent,
    Made,
    Row,
    Scope,
    add,
    argument,
    condition,
    constant,
    cotangent_dtype,
    functional,
    invariant,
    node,
)  # fmt: skip
from gradpass.flow.walk import Context
from gradpass.program.graph import Function, Node, Value
from gradpass.program.model import Model

UNKNOWN = "ValueError, since the shape of a variable that a loaded loop hands on is not known"
Asked = Literal["flows", "zero"]  # a cotangent that depends on one of the entry's, or zeros


class Gradient:
    """Makes the gradient graph of one entry in one mode."""

    def __init__(self, model: Model, mode: Mode) -> None:
        self.mode = mode
        self.model = model
        self.program = Made(model.program)
        self._backward: dict[tuple[str | None, tuple[Asked | None, ...], Context, bool], Backward] = {}
        self._exposed: dict[tuple[Node | str | None, Value], int] = {}
        self.raising: list[tuple[Node, str]] = []  # what raises in the making of the gradients, and the error

    def sweep(
        self, scope: Scope, results: Iterable[tuple[Value, Cotangent | None]], reached: set[Node]
    ) -> dict[Value, list[Cotangent]]:
        """The gradients of all values of a function, given those of its results."""
        grads: dict[Value, list[Cotangent]] = {}
        for value, cotangent in results:
            if cotangent is not None:
                grads.setdefault(value, []).append(cotangent)
        for asked in list(reversed(scope.forward.order())):
            if asked not in reached or not any(v.node in reached for v in asked.inputs):
                continue
            outs = [self.total(scope, grads.get(value)) for value in asked.used_outputs]
            if not any(outs):
                continue
            for value, cotangent in zip(asked.inputs, self._node(scope, asked, outs, reached), strict=False):
                if cotangent is not None:
                    grads.setdefault(value, []).append(cotangent)
        return grads

    def total(self, scope: Scope, parts: list[Cotangent] | None) -> Cotangent | None:
        """The sum of the gradients that a value got."""
        if parts and len(parts) > 1:
            inputs = [part.value for part in parts]
            sums = node(scope.into, "AddN", inputs[0].node.name, inputs, [IDENTITY] * len(inputs), [inputs[0].dtype])
            parts[:] = [Cotangent(sums.output(0), any(part.flows for part in parts))]
        return parts[0] if parts else None

    def reached(self, function: Function, starts: Iterable[Node]) -> set[Node]:
        """The nodes that depend on one of these along trainable dtypes."""
        found = set(starts)
        for each in function.order():
            if any(v.node in found and trainable(v.dtype) for v in each.inputs):
                found.add(each)
        return found

    def _node(
        self, scope: Scope, asked: Node, outs: list[Cotangent | None], reached: set[Node]
    ) -> list[Cotangent | None]:
        names = callees(asked)
        if names:
            functions = [self.program.function(name) for name in names]
            if asked.op in LOOPS:
                return self._loop(scope, asked, functions[0], outs)
            return self._call(scope, asked, functions, outs)
        fact = facts(asked)
        if not fact.registered or (self.mode == "state" and not fact.static):
            return []
        custom = asked.attr("_gradient_op_type")
        if custom is not None and custom.s:
            return self._custom(scope, asked, custom.s.decode(), outs)
        found: list[Cotangent | None] = []
        for i, row in enumerate(fact.rows):
            if row is None or asked.inputs[i].node not in reached:
                found.append(None)
            else:
                flows = any(out.flows for k in row if k < len(outs) and (out := outs[k]) is not None)
                found.append(Cotangent(self._derivative(scope, asked, i, outs, reached, flows), flows))
        return found

    def _derivative(
        self, scope: Scope, asked: Node, i: int, outs: list[Cotangent | None], reached: set[Node], flows: bool
    ) -> Value:
        """The gradient of one input of an op, of what it is computed from."""
        derivative = derivatives(asked)[i]
        dtype = cotangent_dtype(asked.inputs[i])
        inputs: list[Value] = []
        rows: list[Row] = []
        cut: list[Value] = []
        for read in derivative.reads if derivative else ():
            derives, place = read.flows, read.place
            if read.source == "cotangent":
                out = outs[place] if place < len(outs) else None
                if out is None:
                    continue
                value = out.value
            else:
                value = asked.inputs[place] if read.source == "input" else asked.output(place)
                if not trainable(value.dtype) or (value.node not in reached and not self._kept(scope, value)):
                    continue
                value = scope.read(value)
                derives = derives and flows if derives is not None else None  # the derivative of zeros is zeros
            if read.missing:
                cut.append(value)
            if derives is not None or read.ended:
                inputs.append(value)
                rows.append(IDENTITY if derives else None if derives is None else ZEROS)
        made = node(scope.into, asked.op, asked.name, inputs, rows, [dtype])
        names = derivative.missing if derivative else ""
        self.program.nodes_of[made] = (asked, names)
        if not cut:
            return made.output(0)
        missed = node(scope.into, names, asked.name, cut, [ZEROS] * len(cut), [dtype], cut=True)
        self.program.nodes_of[missed] = (asked, names)
        both = [made.output(0), missed.output(0)]
        return node(scope.into, "AddN", asked.name, both, [IDENTITY, IDENTITY], [dtype]).output(0)

    def _kept(self, scope: Scope, value: Value) -> bool:
        """Whether TensorFlow keeps for the backward pass a value that depends on no argument.

        Structure need not know it. In state a value that is kept is asked for its gradient along with the results. In
        loops and branches constants are not: there they are written again.
        """
        return self.mode == "state" and not (value.node.op == "Const" and scope.context.inner)

    def _asked(self, function: Function, outs: list[Cotangent | None], count: int) -> tuple[Asked | None, ...]:
        """Which results of a function its backward function is given cotangents of."""
        given: list[Asked | None] = []
        for i, value in enumerate(function.results[:count]):
            out = outs[i] if i < len(outs) else None
            zeros = self.mode == "state" and trainable(value.dtype)
            given.append(("flows" if out.flows else "zero") if out is not None else "zero" if zeros else None)
        return tuple(given)

    def backward(
        self, function: Function, asked: tuple[Asked | None, ...], context: Context, loop: bool = False
    ) -> Backward:
        """The backward function of a function for cotangents of some results; made once."""
        key = (function.name, asked, context, loop)
        if key not in self._backward:
            self._backward[key] = self._new_backward(function, asked, context, loop)
        return self._backward[key]

    def _new_backward(
        self, function: Function, asked: tuple[Asked | None, ...], context: Context, loop: bool
    ) -> Backward:
        into = self.program.new("gradient of ", self.program.names[function.name or ""])
        scope = Scope(function, into, loop, context)
        results = []
        for i, (value, how) in enumerate(zip(function.results, asked, strict=False)):
            if how is not None:
                ct = argument(into, f"cotangent_{i}", cotangent_dtype(value))
                results.append((value, Cotangent(ct, how == "flows")))
        arguments = function.arguments[: self.program.widths[function][0]]
        grads = self.sweep(scope, results, self.reached(function, arguments))
        given: list[tuple[int, bool] | None] = []
        for each in arguments:
            total = self.total(scope, grads.get(each.output(0)))
            given.append(None if total is None else (len(into.results), total.flows))
            if total is not None:
                into.results.append(total.value)
        if loop:
            self._close(scope, asked, given)
        return Backward(into, list(scope.captured), given)

    def _close(self, scope: Scope, asked: tuple[Asked | None, ...], given: list[tuple[int, bool] | None]) -> None:
        """Makes a backward function the body of a loop: it gives again what it takes."""
        into = scope.into
        results: list[Value] = []
        for i, how in enumerate(asked):
            if how is not None:
                place = given[i]
                dtype = cotangent_dtype(scope.forward.arguments[i].output(0))
                results.append(constant(into, dtype) if place is None else into.results[place[0]])
        into.results = results + [scope.lists.get(value, taken) for value, taken in scope.captured.items()]

    def _call(
        self, scope: Scope, asked: Node, functions: list[Function], outs: list[Cotangent | None]
    ) -> list[Cotangent | None]:
        """A call, or a node with branches, and the like node that runs the backward functions."""
        branches = asked.op in BRANCHES
        given = self._asked(functions[0], outs, self._width(functions[0]))
        backs = [self.backward(function, given, scope.context.inside(asked)) for function in functions]
        captured = [
            self._exposed_by(asked, functions, k, value) for k, back in enumerate(backs) for value in back.captured
        ]
        inputs = [asked.inputs[0]] if branches else []
        inputs = [scope.read(v) for v in inputs] + self._cotangents(scope, functions[0], given, outs)
        inputs += [scope.read(value) for value in captured]
        runs = [back.function for back in backs]
        places = [back.given for back in backs]
        if branches:
            runs, merged = self._branches(asked, functions, backs, sum(how is not None for how in given))
        else:
            merged = places[0]
        kind = functional(asked.op if branches else "PartitionedCall", runs)
        made = add(scope.into, asked.name, kind, inputs)
        self.program.nodes_of[made] = (asked, "")
        kind.dtypes.update(enumerate(value.dtype for value in runs[0].results))
        found = [None if place is None else Cotangent(made.output(place[0]), place[1]) for place in merged]
        return [None, *found] if branches else found

    def _branches(
        self, asked: Node, functions: list[Function], backs: list[Backward], cotangents: int
    ) -> tuple[list[Function], list[tuple[int, bool] | None]]:
        """Functions of equal arguments and results around the backward functions of branches."""
        merged: list[tuple[int, bool] | None] = []
        arguments = functions[0].arguments[: len(asked.inputs) - 1]
        for i in range(len(arguments)):
            several = [back.given[i] for back in backs if back.given[i] is not None]
            index = sum(place is not None for place in merged)
            merged.append((index, any(place[1] for place in several if place)) if several else None)
        dtypes = [
            cotangent_dtype(arg.output(0)) for arg, place in zip(arguments, merged, strict=True) if place is not None
        ]
        around = []
        for k, back in enumerate(backs):
            inner = back.function
            outer = self.program.new("branch of ", self.program.names[inner.name or ""])
            taken = [
                argument(outer, f"cotangent_{i}", dtype) for i, dtype in enumerate(inner.argument_dtypes[:cotangents])
            ]
            for j, other in enumerate(backs):
                own = [argument(outer, f"captured_{j}_{i}", v.dtype) for i, v in enumerate(other.captured)]
                taken += own if j == k else []
            kind = functional("PartitionedCall", [inner])
            kind.dtypes.update(enumerate(v.dtype for v in inner.results))
            call = add(outer, asked.name, kind, taken)
            places = [back.given[i] for i, place in enumerate(merged) if place is not None]
            outer.results = [
                constant(outer, dtype) if place is None else call.output(place[0])
                for place, dtype in zip(places, dtypes, strict=True)
            ]
            around.append(outer)
        return around, merged

    def _loop(self, scope: Scope, asked: Node, body: Function, outs: list[Cotangent | None]) -> list[Cotangent | None]:
        """A loop, and the loop that runs the backward function of its body."""
        width = self._width(body)
        how = list(self._asked(body, outs, width))
        alone = [
            i for i, v in enumerate(body.results[:width]) if v.dtype == RESOURCE and not (i < len(outs) and outs[i])
        ]
        if self.mode == "state" and scope.context.handles:
            if alone and self.program.origin != "live":
                self.raising.append((asked, UNKNOWN))
        elif self.mode == "state":
            for i in alone:
                how[i] = None
        while True:
            back = self.backward(body, tuple(how), scope.context.inside(asked), loop=True)
            before = list(how)
            for i, place in enumerate(back.given[:width]):
                if place is not None and (how[i] is not None or self.mode == "structure"):
                    how[i] = "flows" if place[1] or how[i] == "flows" else "zero"
            if how == before:
                break
        inputs = self._cotangents(scope, body, tuple(how), outs)
        inputs += [scope.read(self._kept_by(asked, body, value)) for value in back.captured]
        kind = functional(asked.op, [condition(self.program, [v.dtype for v in inputs]), back.function])
        made = add(scope.into, asked.name, kind, inputs)
        self.program.nodes_of[made] = (asked, "")
        kind.dtypes.update(enumerate(value.dtype for value in inputs))
        places = iter(range(len(how)))
        return [None if h is None else Cotangent(made.output(next(places)), h == "flows") for h in how]

    def _cotangents(
        self, scope: Scope, function: Function, given: tuple[Asked | None, ...], outs: list[Cotangent | None]
    ) -> list[Value]:
        """What a backward function is given: cotangents, and zeros where there is none."""
        values = []
        for i, how in enumerate(given):
            out = outs[i] if i < len(outs) else None
            if how is not None:
                values.append(out.value if out else constant(scope.into, cotangent_dtype(function.results[i])))
        return values

    def _width(self, function: Function) -> int:
        """How many results a function had before it was asked for more."""
        return self.program.widths[function][1]

    def _exposed_by(self, asked: Node, functions: list[Function], index: int, value: Value) -> Value:
        """A value inside of what a node runs, as an output of the node."""
        owner: Node | str | None = asked if asked.op in BRANCHES else functions[index].name
        key = (owner, value)
        if key not in self._exposed:
            self._exposed[key] = len(functions[index].results)
            for k, function in enumerate(functions):
                function.results.append(value if k == index else constant(function, value.dtype))
        port = self._exposed[key]
        asked.kind.dtypes[port] = value.dtype
        return asked.output(port)

    def _kept_by(self, loop: Node, body: Function, value: Value) -> Value:
        """The values that a value inside of a loop has had, as an output of the loop."""
        if invariant(body, value):
            return loop.output(value.node.position)
        key = (loop, value)
        if key not in self._exposed:
            port = self._exposed[key] = len(body.results)
            before = argument(body, f"kept_{port}", LIST)
            rows: list[Row] = [IDENTITY, IDENTITY]
            push = node(body, "TensorListPushBack", value.node.name, [before, value], rows, [LIST])
            body.results.append(push.output(0))
            argument(self.program.function(loop.attr("cond").func.name), f"kept_{port}", LIST)
            loop.inputs += (constant(loop.function, LIST),)
            loop.kind.dtypes[port] = LIST
        return loop.output(self._exposed[key])

    def _custom(self, scope: Scope, asked: Node, op_type: str, outs: list[Cotangent | None]) -> list[Cotangent | None]:
        """A custom gradient is a call of its function: with the cotangents, and what it captures."""
        custom = self.program.custom_gradients.get(op_type)
        if custom is None or custom.function not in self.model.program.functions:
            raise TargetError(
                f"the custom gradient of `{asked.name}` is not in the file; --order 2 cannot follow it, leave it out"
            )
        function = self.program.copy(custom.function)
        captured = self._captured(scope, asked, custom.function)
        cotangents = len(function.arguments) - len(captured)
        given = []
        for port, dtype in enumerate(function.argument_dtypes[:cotangents]):
            out = outs[port] if port < len(outs) else None
            given.append(out.value if out else constant(scope.into, dtype))
        given += captured
        made = add(scope.into, asked.name, functional("PartitionedCall", [function]), given)
        made.kind.dtypes.update(enumerate(value.dtype for value in function.results))
        self.program.nodes_of[made] = (asked, "")
        rows, places = facts(asked).rows, accumulate([0, *custom.widths])
        found: list[Cotangent | None] = []
        for row, width, place in zip(rows, custom.widths, places, strict=False):
            flows = any(out.flows for k in row or () if k < len(outs) and (out := outs[k]) is not None)
            found.append(None if row is None or not width else Cotangent(made.output(place), flows))
        return found

    def _captured(self, scope: Scope, asked: Node, name: str) -> list[Value]:
        """What the function of a custom gradient captures of the function that it belongs to."""
        objects = self.model.objects
        assert objects is not None
        values = []
        for key in objects.concrete_functions[name].bound_inputs:
            tensor = objects.nodes[key].captured_tensor
            owner = self.program.names[scope.forward.name or ""]
            if objects.nodes[key].WhichOneof("kind") != "captured_tensor" or tensor.concrete_function != owner:
                raise TargetError(
                    f"the custom gradient of `{asked.name}` captures what is not in {owner!r}; leave --order 2 out"
                )
            node_name, _, port = tensor.name.partition(":")
            values.append(scope.read(scope.forward.by_name[node_name].output(int(port))))
        return values
