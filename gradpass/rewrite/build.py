"""The functions of a closed region, built with TensorFlow: the shadow of one value, and the gradient of its bridge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import tensorflow as tf
from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from gradpass.errors import GradpassBug
from gradpass.flow.facts import is_float, recorded_shape
from gradpass.program import opdefs
from gradpass.program.graph import ARGUMENT, Function, Node, Value
from gradpass.program.model import shape_of
from gradpass.rewrite.region import Closing, Region
from gradpass.rewrite.temperature import NAME as TEMPERATURE
from gradpass.rules.base import Decline, Knobs, Site, constant
from gradpass.rules.shadow import Categorical, Numeric, Probability, Shadow

READ = "read"
VALUE = "value"
SOURCE = "source"
Key = tuple[str, Value]


@dataclass
class Needs:
    """What a region computes from, in order: its sources (which get a gradient) and other values of the graph."""

    sources: list[Value] = field(default_factory=list)
    others: list[Key] = field(default_factory=list)

    @property
    def keys(self) -> list[Key]:
        return [*((SOURCE, v) for v in self.sources), *self.others]


def shape_proto(value: Value) -> TensorShapeProto | None:
    """The static shape of a value: as the file records it, for a graph without records as TensorFlow infers it."""
    node = value.node
    recorded = recorded_shape(value)
    if recorded is not None or not node.function.is_graph:
        return recorded
    inferred = _imported(node.function).get_tensor_by_name(f"{node.name}:{value.port}").shape.as_proto()
    return TensorShapeProto.FromString(inferred.SerializeToString())


@lru_cache(maxsize=1)
def _imported(graph: Function) -> tf.Graph:
    """The top-level graph as TensorFlow has it, with its shape inference done."""
    imported = tf.Graph()
    with imported.as_default():
        proto = tf.compat.v1.GraphDef.FromString(graph.proto.SerializeToString())
        tf.graph_util.import_graph_def(proto, name="")
    return imported


def spec(key: Key) -> tf.TensorSpec:
    """Shape and dtype of a need; declines where the rank is unknown."""
    kind, value = key
    if kind == READ:
        return _variable_spec(value)
    proto = shape_proto(value)
    shape = shape_of(proto) if proto is not None else None
    if shape is None:
        raise Decline(f"the rank of {value.node.name!r} is unknown", value.node.name)
    return tf.TensorSpec(shape, value.dtype)


def _variable_spec(handle: Value) -> tf.TensorSpec:
    node = handle.node
    if node.op == ARGUMENT:
        for data in node.function.proto.signature.input_arg[node.position].handle_data:
            return tf.TensorSpec(shape_of(data.shape), data.dtype)
    elif node.op == "VarHandleOp":
        return tf.TensorSpec(shape_of(node.attr("shape").shape), node.attr("dtype").type)
    raise Decline(f"the shape of the variable behind {node.name!r} is unknown", node.name)


class Declined(Decline):
    """A Decline, and the node of the region that was being built when it came: there the shadows cannot go on."""

    def __init__(self, decline: Decline, at: Node) -> None:
        super().__init__(decline.reason, decline.node)
        self.at = at


class Builder:
    """Builds the shadow of one closing from tensors for its needs; satisfies `rules.base.Region`."""

    def __init__(self, region: Region, knobs: Knobs, soft_mode: bool, fetch: Callable[[Key], Any], dtype: Any) -> None:
        self.region = region
        self.knobs = knobs
        self.soft_mode = soft_mode
        self.fetch = fetch
        self.dtype = dtype
        # Its name is how a temperature is found again in a written model.
        self.scale = tf.constant(knobs.temperature, tf.float64 if dtype == tf.float64 else tf.float32, name=TEMPERATURE)
        self.shadows: dict[Value, Shadow | None] = {}

    def shadow_of(self, node: Node, index: int) -> Shadow | None:
        source = self.region.soft.get(node, {}).get(index)
        if source is None:
            return None
        value = node.inputs[index]
        return Numeric(tf.cast(self.fetch((SOURCE, value)), self.dtype)) if source else self.shadows.get(value)

    def is_source(self, node: Node, index: int) -> bool:
        return self.region.soft.get(node, {}).get(index, False)

    def hard_input(self, node: Node, index: int) -> Any:
        value = node.inputs[index]
        if self.is_source(node, index):
            tensor = self.fetch((SOURCE, value))
            return tensor if self.soft_mode else tf.stop_gradient(tensor)
        constant = _constant(value)
        tensor = self.fetch((VALUE, value)) if constant is None else constant
        return tensor if self.soft_mode else tf.stop_gradient(tensor)

    def hard_output(self, node: Node, port: int) -> Any:
        return tf.stop_gradient(self.fetch((VALUE, node.output(port))))

    def read_variable(self, node: Node, index: int) -> Any:
        tensor = self.fetch((READ, node.inputs[index]))
        return tensor if self.soft_mode else tf.stop_gradient(tensor)

    def replay(self, node: Node, inputs: list[Any]) -> list[Any]:
        """The op on these tensors: its NodeDef with its type attributes taken from them."""
        graph = tf.compat.v1.GraphDef()
        # Without it the graph that imports the node counts as one from before shapes of rank 0.
        graph.versions.producer = tf.version.GRAPH_DEF_VERSION
        proto = graph.node.add()
        proto.MergeFromString(node.proto.SerializeToString())  # type: ignore[union-attr]
        proto.name = "replay"
        proto.device = ""
        for name in [name for name in proto.attr if name.startswith("_")]:
            del proto.attr[name]
        proto.input[:] = [f"input_{i}" for i in range(len(inputs))]
        signature = opdefs.get(node.op)
        assert signature is not None
        inputs = _typed(signature, node, inputs, proto)
        outputs = sum(count for _, count in opdefs.arity(signature.outputs, node.attr))
        tensors: list[Any] = tf.graph_util.import_graph_def(
            graph,
            input_map={f"input_{i}:0": tensor for i, tensor in enumerate(inputs)},
            return_elements=[f"replay:{i}" for i in range(outputs)],
            name=node.op,
        )
        return tensors

    def run(self, closing: Closing) -> Any:
        """The closing's shadow as a tensor of the value's own dtype and shape."""
        value = closing.value
        self.follow(value)
        shadow = self.shadows.get(value)
        if shadow is None:
            raise Decline(f"output {value.port} of {value.node.name!r} has no surrogate", value.node.name)
        tensor = tf.cast(shadow.numeric(), value.dtype)
        return tf.ensure_shape(tensor, spec((VALUE, value)).shape)

    def follow(self, value: Value) -> None:
        """Makes the shadows that a value's shadow needs, its own last."""
        for node in needed(self.region, value):
            rule = self.region.rule[node]
            label = rule.name if rule else "replay"
            with tf.name_scope(f"{node.name}/gradpass/{label}/"):
                try:
                    made = self._made(node)
                except Decline as no:
                    raise Declined(no, node) from no
                except Exception as problem:  # a rule that breaks is a bug of ours: it is named, never swallowed
                    raise GradpassBug(f"rule {label}", node.name, f"{type(problem).__name__}: {problem}") from problem
            for port, shadow in enumerate(made):
                self.shadows[node.output(port)] = shadow

    def _made(self, node: Node) -> list[Shadow | None]:
        rule = self.region.rule[node]
        given = [node.inputs[i] for i, source in self.region.soft[node].items() if not source]
        if (
            given
            and all(self.shadows.get(value) is None for value in given)
            and len(given) == len(self.region.soft[node])
        ):
            raise Decline(f"output {given[0].port} of {given[0].node.name!r} has no surrogate", node.name)
        if rule is not None:
            made = rule.shadow(Site(node, self))
            return made if isinstance(made, list) else [made]
        inputs = []
        for i in range(len(node.inputs)):
            shadow = self.shadow_of(node, i)
            inputs.append(self.hard_input(node, i) if shadow is None else shadow.numeric())
        return [
            Probability(t) if node.output_dtype(p) == tf.bool.as_datatype_enum else Numeric(tf.cast(t, self.dtype))
            for p, t in enumerate(self.replay(node, inputs))
        ]


def needed(region: Region, value: Value) -> list[Node]:
    """The nodes whose shadows a value's shadow needs, in order."""
    wanted: set[Node] = set()
    stack = [value.node]
    while stack:
        node = stack.pop()
        if node in wanted:
            continue
        wanted.add(node)
        stack += [node.inputs[i].node for i, source in region.soft[node].items() if not source]
    return [node for node in region.function.order() if node in wanted]


def _typed(signature: opdefs.OpSig, node: Node, inputs: list[Any], proto: Any) -> list[Any]:
    """Inputs of one type attribute brought to one dtype (that of the first float among them), and the attribute set."""
    out = list(inputs)
    groups: dict[str, list[int]] = {}
    at = 0
    for arg, count in opdefs.arity(signature.inputs, node.attr):
        if arg.type_attr is not None:
            groups.setdefault(arg.type_attr, []).extend(range(at, at + count))
        at += count
    for attr, places in groups.items():
        floating = [out[i].dtype for i in places if tf.as_dtype(out[i].dtype).is_floating]
        dtype = floating[0] if floating else out[places[0]].dtype
        for i in places:
            out[i] = tf.cast(out[i], dtype)
        proto.attr[attr].type = tf.as_dtype(dtype).as_datatype_enum
    return out


def _constant(value: Value) -> Any:
    """A Const of the graph made again in the region, so that it need not be handed in."""
    node = value.node
    if node.op != "Const":
        return None
    proto = tf.compat.v1.NodeDef.FromString(node.proto.SerializeToString())  # type: ignore[union-attr]
    return tf.constant(tf.make_ndarray(proto.attr["value"].tensor))


@dataclass
class Recipe:
    """All that is needed to build the functions of one closing."""

    region: Region
    closing: Closing
    knobs: Knobs
    soft_mode: bool
    needs: Needs
    dtype: Any

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Shapes and dtypes of the needs, in order."""
        return [spec(key) for key in self.needs.keys]

    @property
    def value_spec(self) -> tf.TensorSpec:
        """Shape and dtype of the value that is closed."""
        return spec((VALUE, self.closing.value))

    def shadow(self, tensors: list[Any]) -> Any:
        """The shadow from tensors for the needs."""
        table = dict(zip(self.needs.keys, tensors, strict=True))
        return Builder(self.region, self.knobs, self.soft_mode, table.__getitem__, self.dtype).run(self.closing)

    def gradients(self, tensors: list[Any], cotangent: Any) -> list[Any]:
        """The shadow's VJP: one gradient a source."""
        sources = tensors[: len(self.needs.sources)]
        found = tf.gradients(self.shadow(tensors), sources, grad_ys=[cotangent], unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in found]


def recipe(region: Region, closing: Closing, knobs: Knobs, soft_mode: bool) -> Recipe:
    """The recipe of a closing: what its shadow is computed from is found by building it once, in a graph of its own."""
    needs = Needs()
    dtype = _dtype(region, closing.value)
    made: dict[Key, Any] = {}

    def fetch(key: Key) -> Any:
        if key not in made:
            made[key] = tf.compat.v1.placeholder(spec(key).dtype, spec(key).shape)
            if key[0] == SOURCE:
                needs.sources.append(key[1])
            else:
                needs.others.append(key)
        return made[key]

    with tf.Graph().as_default():
        Builder(region, knobs, soft_mode, fetch, dtype).run(closing)
    return Recipe(region, closing, knobs, soft_mode, needs, dtype)


class Stand(NamedTuple):
    """What a loop carries for a discrete value: the number of values that an index has, None for any other number."""

    classes: int | None
    dtype: int


def stand(region: Region, value: Value, knobs: Knobs, soft_mode: bool) -> Stand:
    """What can stand for a value that has a shadow."""

    def fetch(key: Key) -> Any:
        return tf.compat.v1.placeholder(spec(key).dtype, spec(key).shape)

    dtype = _dtype(region, value)
    with tf.Graph().as_default():
        builder = Builder(region, knobs, soft_mode, fetch, dtype)
        builder.follow(value)
    shadow = builder.shadows.get(value)
    classes = shadow.weights.shape[-1] if isinstance(shadow, Categorical) and shadow.counts else None
    return Stand(classes, dtype.as_datatype_enum)


def _dtype(region: Region, value: Value) -> Any:
    """The dtype of a region's shadows up to a value."""
    nodes = needed(region, value)
    sources = {node.inputs[i] for node in nodes for i, s in region.soft[node].items() if s}
    wide = any(v.dtype == tf.float64.as_datatype_enum for v in sources) or any(map(_counts_far, nodes))
    return tf.float64 if wide else tf.float32


def _counts_far(node: Node) -> bool:
    """Whether it works with a whole number that float32 cannot tell from its neighbour: 2^24 and more."""
    for value in node.inputs:
        known = None if is_float(value.dtype) else constant(value.node)
        if known is not None and known.dtype.kind in "iu" and known.size and abs(known.astype(float)).max() >= 2**24:
            return True
    return False


def function_def(name: str, body: Callable[..., Any], specs: list[tf.TensorSpec], names: list[str]) -> FunctionDef:
    """A FunctionDef of that name from a Python body over tensors of these specs."""
    named = [tf.TensorSpec(s.shape, s.dtype, name=n) for s, n in zip(specs, names, strict=True)]
    concrete = tf.function(body, autograph=False).get_concrete_function(*named)
    proto = FunctionDef.FromString(concrete.function_def.SerializeToString(deterministic=True))
    proto.signature.name = name
    return proto
