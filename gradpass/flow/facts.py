"""Gradient facts per node: what an op's gradient gives each input, and which ops read no data of their input."""

from __future__ import annotations

from itertools import accumulate
from typing import Literal, NamedTuple

from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from gradpass.errors import TargetError
from gradpass.flow import edges, process
from gradpass.flow.shapes import SHAPE_ONLY, deciding
from gradpass.program import opdefs
from gradpass.program.graph import ARGUMENT, CALLS, CustomGradient, Function, Kind, Node, Program, Value
from gradpass.program.model import Shape, shape_of

# tensorflow/python/ops/... gradients follow only these (`backprop_util.IsTrainable`): half, float, double, complex64,
# complex128, bfloat16, resource, variant; a reference is its base type + 100.
TRAINABLE = frozenset({19, 1, 2, 8, 18, 14, 20, 21})
FLOAT = TRAINABLE - {20, 21}
RESOURCE = 20
VARIANT = 21

GIVEN_SHAPE = frozenset({"BroadcastTo", "EnsureShape", "Fill", "Reshape"})  # whatever else they read
BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
LOOPS = frozenset({"While", "StatelessWhile"})
V1_LOOPS = frozenset({"Enter", "Exit", "NextIteration", "RefEnter", "RefExit", "RefNextIteration"})

# What TensorFlow raises where a gradient function wants to know more than is known before the run (`edges.Need`).
NEEDS: dict[edges.Need, str] = {
    "rank": "an error, since the rank is not known before the run",
    "sizes": "an error, since the last two sizes are not known before the run",
    "batch": "an error, since a size is not known before the run",
    "wide": "an error, since the matrix has more rows than columns, or its sizes are not known before the run",
    "near-square": "an error, since the matrix is not nearly square, or its sizes are not known before the run",
    "values": "an error, since a size or a whole-number input is not known before the run",
}


def trainable(dtype: int) -> bool:
    """Whether TensorFlow follows gradients through tensors of this dtype."""
    return (dtype - 100 if dtype > 100 else dtype) in TRAINABLE


def is_float(dtype: int) -> bool:
    """Whether values of this dtype carry numbers that can be differentiated."""
    return (dtype - 100 if dtype > 100 else dtype) in FLOAT


class Facts(NamedTuple):
    """What the gradient of one node gives.

    `rows` has for each flat input None (no gradient) or the flat outputs whose cotangent reaches it (empty: zeros);
    `registered` is False where TensorFlow raises when the node is asked, `static` where it does so only because it does
    not know a shape or a value before the graph runs, or because of how the model was loaded: the derivative itself
    exists. `error` is what it raises in these two cases, None where it is a LookupError for want of any function.
    `handed` are the inputs that get the very cotangent of their own output: none where none comes for it. TensorFlow
    makes zeros of it only for an output of a trainable dtype. `captures` names the functions of which the gradient
    function reads tensors, "" for variables and constants. `apart` tells that each output is computed from its own
    input only. `custom` is the gradient that the file brings along, or tells that this process has one.
    """

    registered: bool
    rows: tuple[tuple[int, ...] | None, ...]
    static: bool = True
    error: str | None = None
    handed: frozenset[int] = frozenset()
    captures: frozenset[str] = frozenset()
    apart: bool = False
    custom: CustomGradient | Literal["process"] | None = None


def callees(node: Node) -> tuple[str, ...]:
    """The functions that a call, branch or loop runs in place of itself, in order (a loop: its body); else none."""
    derived = node.kind.derived
    names: tuple[str, ...] | None = derived.get(callees)
    if names is None:
        names = derived[callees] = _callees(node)
    return names


def _callees(node: Node) -> tuple[str, ...]:
    op = node.op
    if op in CALLS:
        return (node.attr("f").func.name,)
    if op in ("If", "StatelessIf"):
        return node.attr("then_branch").func.name, node.attr("else_branch").func.name
    if op in ("Case", "StatelessCase"):
        return tuple(f.name for f in node.attr("branches").list.func)
    if op in LOOPS:
        return (node.attr("body").func.name,)
    return (op,) if op in node.function.program.functions else ()


def calls_itself(function: Function) -> TargetError:
    """The refusal of a recursive function."""
    return TargetError(f"{function.label} calls itself, a model that TensorFlow does not load")


def facts(node: Node) -> Facts:
    """The gradient facts of a node that runs no function of its own."""
    derived = node.kind.derived
    key = (node.function.program.tensorflow, len(node.inputs))
    known: tuple[Facts, edges.Need | None] | None = derived.get(key)
    if known is None:
        known = derived[key] = _facts(node)
    fact, needs = known
    return fact if needs is None or _known(node, needs) else fact._replace(static=False, error=NEEDS[needs])


def preset(kind: Kind, program: Program, inputs: int, fact: Facts) -> None:
    """Says what the gradient of nodes of a made-up kind gives their inputs."""
    kind.derived[callees] = ()
    kind.derived[(program.tensorflow, inputs)] = (fact, None)


def _facts(node: Node) -> tuple[Facts, edges.Need | None]:
    """The facts of all nodes of a kind, and what must be known of the inputs of each lest it raises."""
    program = node.function.program
    table = edges.table_for(program.tensorflow)
    kind = table.kind(node.op)
    rows = table.edges(node.op, node.attr) if kind == "function" else None
    custom = node.attr("_gradient_op_type")
    if custom is not None and custom.s and node.op not in CALLS:
        fact = _custom(program, custom.s.decode(), node)
        # Where the gradient is lost, what it was for still counts as what the outputs are computed from.
        apart = fact.registered and any("d" in row for row in rows or () if row is not None)
        return fact._replace(apart=apart), None
    if kind is None:
        return _of_process(node), None
    error = table.raises(node.op, node.attr)
    if rows is None:
        return Facts(kind == "not-differentiable", (None,) * len(node.inputs), error=error), None
    if error is None and program.origin in ("frozen", "savedmodel-v1"):
        error = _loses(node)
    # What raises and has edges all the same does so in TensorFlow 2 only; a MetaGraph is of TensorFlow 1.
    raises = error is not None and program.origin != "metagraph"
    flat, handed = _flatten(node, rows)
    if len(flat) != len(node.inputs):
        raise TargetError(
            f"`{node.name}` of {node.function.label} has {len(node.inputs)} inputs, its op {node.op} takes {len(flat)}"
        )
    fact = Facts(True, flat, not raises, error if raises else None, handed, apart=bool(handed))
    return fact, table.needs(node.op, node.attr)


def _loses(node: Node) -> str | None:
    """What the gradient of TensorFlow 1's control flow raises once it is loaded: its contexts are gone."""
    if node.op in V1_LOOPS:
        return "AttributeError: loading loses the contexts of TensorFlow 1's loops"
    if node.op == "Switch" and node.inputs[0].dtype == RESOURCE:
        # One is made for each branch that reads the variable. What the other branch gives is a zero resource.
        return "TypeError: loading loses the contexts of tf.cond, and the gradients of its branches do not fit"
    return None


def _of_process(node: Node) -> Facts:
    """What this process knows of an op, or of a custom gradient, that no table and no file has."""
    found = process.answer(node, recorded_shape, node.function.program.origin == "live")
    nothing: tuple[None, ...] = (None,) * len(node.inputs)
    if found is None:
        return Facts(False, nothing)
    if found.error is not None:
        return Facts(False, nothing, error=found.error)
    return Facts(True, nothing if found.rows is None else found.rows, captures=found.captures, custom="process")


def wants_handle(node: Node) -> bool:
    """Whether TensorFlow cannot import the node where the shape of its variable is not known.

    The shape functions of these ops (tensorflow/core/ops/resource_variable_ops.cc, state_ops.cc) then take the handle's
    own shape, that of a scalar, for the variable's.
    """
    if node.op == "ResourceGatherNd":
        indices = inferred_shape(node.inputs[1])
        return bool(indices and indices[-1])
    if node.op.startswith("ResourceScatterNd"):
        indices, updates = inferred_shape(node.inputs[1]), inferred_shape(node.inputs[2])
        return indices is not None and updates is not None and len(updates) > len(indices) - 1
    return False


def inferred_shape(value: Value) -> Shape:
    """The recorded shape, None where TensorFlow infers none: it does not know those of variables that are read here.

    So it is where `analysis.Context.handles` is not.
    """
    todo, seen = [value.node], {value.node}
    while todo:
        node = todo.pop()
        if any(source.dtype == RESOURCE for source in node.inputs):
            return None
        if node.op in GIVEN_SHAPE and all(node.inputs[i].node.op == "Const" for i in deciding(node, 0)):
            continue
        for source in node.inputs:
            if source.node not in seen:
                seen.add(source.node)
                todo.append(source.node)
    return static_shape(value)


def recorded_shape(value: Value) -> TensorShapeProto | None:
    """The shape that the file records for a value; None where it records none."""
    node = value.node
    attrs = node.function.head.arg_attr[node.position].attr if node.op == ARGUMENT else node.kind.attrs
    if "_output_shapes" not in attrs:
        return None
    shapes = attrs["_output_shapes"].list.shape
    return shapes[value.port] if value.port < len(shapes) else None


def static_shape(value: Value) -> Shape:
    """The recorded shape, None for unknown sizes; None for an unknown rank and where nothing is recorded."""
    proto = recorded_shape(value)
    return None if proto is None else shape_of(proto)


def _known(node: Node, needs: edges.Need) -> bool:
    """Whether the file says before any run what the op's gradient function wants to know (`edges.Need`)."""
    if node.function.is_graph:
        return True  # TensorFlow infers the shapes of a graph anew when it imports it
    for value in node.inputs:
        shape = static_shape(value)
        if not is_float(value.dtype):
            if needs == "values" and value.node.op != "Const":
                return False
        elif shape is None:
            return False
        else:
            wanted = shape if needs in ("batch", "values") else shape[-2:] if needs != "rank" else ()
            if None in wanted or not _fits(wanted, needs):
                return False
    return True


def _fits(sizes: tuple[int | None, ...], needs: edges.Need) -> bool:
    """Whether matrices of these known sizes are such as the gradient function takes."""
    if needs not in ("wide", "near-square") or len(sizes) < 2:
        return True
    rows, columns = sizes
    assert rows is not None and columns is not None
    return rows <= columns if needs == "wide" else abs(rows - columns) <= 1


def _flatten(node: Node, rows: tuple[str | None, ...]) -> tuple[tuple[tuple[int, ...] | None, ...], frozenset[int]]:
    """Facts by argument, made facts by flat input and flat output; and the inputs that are `handed` a cotangent."""
    signature = opdefs.get(node.op)
    assert signature is not None
    ports: list[list[int]] = []
    at = 0
    for _, count in opdefs.arity(signature.outputs, node.attr):
        ports.append(list(range(at, at + count)))
        at += count
    out: list[tuple[int, ...] | None] = []
    handed: set[int] = set()
    for (_, count), row in zip(opdefs.arity(signature.inputs, node.attr), rows, strict=True):
        for place in range(count):
            if row is None:
                out.append(None)
                continue
            reached: list[int] = []
            for c, group in zip(row, ports, strict=True):
                if c == "f":
                    reached += group
                elif c == "d":
                    reached.append(group[place])
                    handed.add(len(out))
            out.append(tuple(reached))
    return tuple(out), frozenset(handed)


def _custom(program: Program, op_type: str, node: Node) -> Facts:
    """A custom gradient: its function's dataflow says which cotangent reaches which input; a lost one raises."""
    custom = program.custom_gradients.get(op_type)
    if custom is None or custom.function not in program.functions:
        return _of_process(node)
    function = program.function(custom.function)
    if sum(custom.widths) != len(function.results):
        raise TargetError(f"the custom gradient {op_type!r} promises other gradients than {function.label} gives")
    reached = dependencies(function)
    places = accumulate([0, *custom.widths])
    rows = tuple(
        tuple(sorted(reached[at])) if width else None for at, width in zip(places, custom.widths, strict=False)
    )
    rows = rows[: len(node.inputs)] + (None,) * (len(node.inputs) - len(rows))
    return Facts(True, rows, captures=custom.captures, custom=custom)


def dependencies(function: Function) -> list[set[int]]:
    """For each result the arguments whose data reach it; ops that read only a shape carry none."""
    reach: dict[Node, set[int]] = {a: {i} for i, a in enumerate(function.arguments)}
    for node in function.order():
        if node.op in SHAPE_ONLY:
            reach[node] = set()
        else:
            reach[node] = set().union(*(reach[v.node] for v in node.inputs))
    return [reach[v.node] for v in function.results]
