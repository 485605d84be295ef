"""Disk to `Model`: SavedModels, frozen graphs and MetaGraphs, read without TensorFlow; and the bytes to write.

A `Model` is a Program plus what it means to a user: variables with their names, and entries (signatures) with their
inputs and outputs. `Model.encode` gives the bytes of the changed file; `program.writer` puts them on disk.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.function_pb2 import FunctionDef, RegisteredGradient
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.struct_pb2 import StructuredValue, TypeSpecProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.variable_pb2 import VariableDef

from gradpass.errors import TargetError
from gradpass.program import debuginfo, opdefs, skim, wire
from gradpass.program.debuginfo import DebugInfo
from gradpass.program.graph import CustomGradient, Function, Node, Program, Value

META_GRAPHS = 2  # field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto
GRAPH_DEF = 2
OBJECT_GRAPH_DEF = 7
LIBRARY = 2
LIBRARY_FUNCTION = 1
LIBRARY_REGISTERED_GRADIENTS = 3

STRING = 7  # types.proto

Shape = tuple["int | None", ...] | None

_LOOP_END = re.compile(r"(Ref)?(Exit|Switch)$|TensorArray(Write|Scatter|Split)?V\d$")
_GRADIENTS = re.compile(r"(.*/)?gradients(_\d+)?/")  # the name scope of tf.gradients


@dataclass(frozen=True)
class Variable:
    """A variable of the model: `name` as in the SavedModel without `:0`, `path` its way through the object graph."""

    key: Any
    name: str
    path: str
    dtype: int
    shape: Shape
    trainable: bool

    @property
    def parameters(self) -> int:
        """The number of its elements; 0 where the shape is not known."""
        return count(self.shape)


@dataclass(frozen=True)
class Entry:
    """A way into the model: the function (or graph) that runs, its inputs, outputs and captured variables by key."""

    name: str
    function: Function
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    captures: dict[Any, list[Value]]


@dataclass
class Model:
    """A target. `kind` is "savedmodel" (TF2), "savedmodel-v1", "frozen", "metagraph", or "live" (`program.trace`)."""

    path: Path
    kind: str
    raw: bytes
    program: Program
    variables: dict[Any, Variable]
    entries: dict[str, Entry]
    objects: SavedObjectGraph | None = None
    meta_index: int = 0
    captured: set[Any] = field(default_factory=set)
    read_debug_info: Callable[[], DebugInfo] = DebugInfo

    def __post_init__(self) -> None:
        self.program.origin = self.kind

    @cached_property
    def debug_info(self) -> DebugInfo:
        """Which lines of Python made its nodes, read when first asked for."""
        return self.read_debug_info()

    def entry(self, name: str | None) -> list[Entry]:
        """The entries that an `--entry` option means: a name, "all", or None for serving_default or the only one."""
        if not self.entries:
            raise TargetError(
                f"{self.path} has no signature to follow a gradient through; save it with "
                "tf.saved_model.save(obj, path, signatures=...)"
            )
        if name == "all":
            return list(self.entries.values())
        if name is None:
            name = "serving_default" if "serving_default" in self.entries else next(iter(self.entries))
            if name != "serving_default" and len(self.entries) > 1:
                raise TargetError(
                    f"{self.path} has no serving_default; choose one with --entry: {', '.join(self.entries)}"
                )
        if name not in self.entries:
            raise TargetError(f"{self.path} has no entry {name!r}; it has {', '.join(self.entries)} (or --entry all)")
        return [self.entries[name]]

    def encode(
        self,
        functions: list[FunctionDef],
        gradients: list[RegisteredGradient] | None = None,
        objects: SavedObjectGraph | None = None,
        graph: GraphDef | None = None,
    ) -> bytes:
        """The file's bytes with these functions changed or added; all else stays byte for byte."""
        by_name = {f.signature.name: f for f in functions}

        def change(_: int, payload: memoryview) -> bytes | None:
            new = by_name.pop(skim.name(payload), None)
            return None if new is None else new.SerializeToString(deterministic=True)

        def edit_library(payload: memoryview) -> bytes:
            # Known functions first: what is left in by_name afterwards is new.
            out = wire.edit(payload, LIBRARY_FUNCTION, change)
            out = wire.edit(
                out,
                LIBRARY_FUNCTION,
                lambda *_: None,
                [f.SerializeToString(deterministic=True) for f in by_name.values()],
            )
            added = [g.SerializeToString(deterministic=True) for g in gradients or []]
            return wire.edit(out, LIBRARY_REGISTERED_GRADIENTS, lambda *_: None, added)

        def edit_graph(payload: memoryview | bytes) -> bytes:
            if graph is not None:
                payload = graph.SerializeToString(deterministic=True)
            return wire.edit_only(payload, LIBRARY, edit_library)

        if self.kind == "frozen":
            return edit_graph(self.raw)

        def edit_meta(index: int, payload: memoryview) -> bytes | None:
            if index != self.meta_index:
                return None
            out = wire.edit_only(payload, GRAPH_DEF, edit_graph)
            if objects is None:
                return out
            return wire.edit_only(out, OBJECT_GRAPH_DEF, lambda _: objects.SerializeToString(deterministic=True))

        return wire.edit(self.raw, META_GRAPHS, edit_meta)

    def changed(
        self,
        functions: list[FunctionDef],
        gradients: list[RegisteredGradient] | None = None,
        objects: SavedObjectGraph | None = None,
        graph: GraphDef | None = None,
    ) -> Model:
        """A new model with these functions changed or added, verified; this one stays as it is, also on failure."""
        new = parse(self.path, self.encode(functions, gradients, objects, graph))
        new.program.tensorflow = self.program.tensorflow
        if graph is not None:
            new.program.verify(new.program.graph)
        for function in functions:
            new.program.verify(new.program.function(function.signature.name))
        return new


def read(path: str | Path) -> Model:
    """Reads a SavedModel folder, a frozen `.pb` or a MetaGraph `.meta`; TargetError says what is wrong."""
    path = Path(path)
    try:
        folder = path.is_dir()
        if folder and not (path / "saved_model.pb").exists():
            if (path / "saved_model.pbtxt").exists():
                raise TargetError(f"{path} holds a text SavedModel (saved_model.pbtxt); save it in binary form")
            raise TargetError(
                f"{path} is no SavedModel: it has no saved_model.pb; give the folder that tf.saved_model.save wrote"
            )
        exists = path.exists()
    except OSError as problem:
        raise TargetError(f"{path} cannot be opened ({problem.strerror}); make it readable for you") from problem
    if not exists:
        raise TargetError(f"{path} does not exist; give a SavedModel folder or a frozen .pb")
    if not folder and path.suffix not in (".pb", ".meta"):
        raise TargetError(f"{path} is no SavedModel folder, no .pb and no .meta; this version reads those")
    return parse(path, _bytes(path / "saved_model.pb" if folder else path), folder)


def parse(path: Path, raw: bytes, folder: bool | None = None) -> Model:
    """The model in the bytes of a SavedModel's `saved_model.pb` (a folder's) or of a frozen graph."""
    folder = path.is_dir() if folder is None else folder
    try:
        if folder:
            return _read_folder(path, raw)
        return _read_meta(path, raw) if path.suffix == ".meta" else _read_frozen(path, raw)
    except (DecodeError, wire.WireError) as problem:
        raise TargetError(f"{path} is truncated or no TensorFlow model; save it again ({problem})") from problem


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise TargetError(f"{path} does not exist; give a SavedModel folder or a frozen .pb") from None
    except OSError as problem:
        how = "make it readable for you" if problem.errno in (errno.EACCES, errno.EPERM) else "is it a readable file?"
        raise TargetError(f"{path} cannot be read ({problem.strerror}); {how}") from problem
    if not data:
        raise TargetError(f"{path} is empty; save the model again")
    return data


def _read_folder(path: Path, raw: bytes) -> Model:
    metas = [_split(payload) for payload in skim.payloads(raw, META_GRAPHS)]
    if not metas:
        raise TargetError(f"{path} holds no graph; save the model again")
    serving = [i for i, (m, _) in enumerate(metas) if "serve" in m.meta_info_def.tags]
    index = serving[0] if serving else 0
    meta, graph = metas[index]
    program = Program(graph)
    if meta.object_graph_def.nodes:
        variables, entries = _objects(path, program, meta)
        kind = "savedmodel"
    else:
        variables, entries = _collections(path, program, meta)
        kind = "savedmodel-v1"
    model = Model(
        path, kind, raw, program, variables, entries,
        meta.object_graph_def if kind == "savedmodel" else None, index,
        read_debug_info=(lambda: debuginfo.read(path)) if kind == "savedmodel" else DebugInfo,
    )  # fmt: skip
    program.tensorflow = meta.meta_info_def.tensorflow_version
    for op_type, name in program.registered_gradients.items():
        if name in meta.object_graph_def.concrete_functions:
            concrete = meta.object_graph_def.concrete_functions[name]
            widths = tuple(_widths(concrete.output_signature))
            captured = (meta.object_graph_def.nodes[i].captured_tensor for i in concrete.bound_inputs)
            owners = frozenset(tensor.concrete_function for tensor in captured)  # "" where it is no tensor
            program.custom_gradients[op_type] = CustomGradient(name, widths, owners)
    model.captured = {key for entry in entries.values() for key in entry.captures}
    if kind == "savedmodel":
        for function in meta.object_graph_def.concrete_functions.values():
            model.captured |= {i for i in function.bound_inputs if i in variables}
    return model


def _split(payload: memoryview) -> tuple[MetaGraphDef, memoryview]:
    """A MetaGraphDef without its graph, and the graph's bytes: of most functions nobody ever asks for the nodes."""
    rest = wire.edit(payload, GRAPH_DEF, lambda *_: b"")
    graphs = skim.payloads(payload, GRAPH_DEF)
    return MetaGraphDef.FromString(rest), graphs[0] if len(graphs) == 1 else memoryview(b"".join(graphs))


def _objects(path: Path, program: Program, meta: MetaGraphDef) -> tuple[dict[Any, Variable], dict[str, Entry]]:
    """Variables and entries of a TF2 SavedModel, from its object graph."""
    objects = meta.object_graph_def
    variables: dict[Any, Variable] = {}
    paths = _object_paths(objects)
    for i, node in enumerate(objects.nodes):
        if node.WhichOneof("kind") == "variable":
            proto = node.variable
            name = proto.name or paths.get(i, f"variable_{i}")
            # Parts of a sharded variable are nodes of their own; the whole has components and no value.
            if not proto.experimental_distributed_variable_components:
                variables[i] = Variable(
                    i, name, paths.get(i, name), proto.dtype, shape_of(proto.shape), proto.trainable
                )
    entries: dict[str, Entry] = {}
    for name, child in _signatures(objects).items():
        node = objects.nodes[child]
        function_name = node.bare_concrete_function.concrete_function_name
        if not function_name and node.function.concrete_functions:
            function_name = node.function.concrete_functions[0]
        if not function_name:
            continue
        bound = objects.concrete_functions[function_name].bound_inputs
        function = program.function(function_name)
        entries[name] = _signature(path, meta, name, function, list(bound), variables)
    return variables, entries


def _signatures(objects: SavedObjectGraph) -> dict[str, int]:
    """Signature name -> object node, in the file's order."""
    for child in objects.nodes[0].children:
        if child.local_name == "signatures":
            return {c.local_name: c.node_id for c in objects.nodes[child.node_id].children}
    return {}


def _signature(
    path: Path, meta: MetaGraphDef, name: str, function: Function, bound: list[int], variables: dict[Any, Variable]
) -> Entry:
    """One TF2 signature: its function's arguments and results under the names that the user knows."""
    signature = meta.signature_def[name]
    captures: dict[Any, list[Value]] = {}
    split = len(function.arguments) - len(bound)
    for argument, key in zip(function.arguments[split:], bound, strict=True):
        if key in variables:
            captures.setdefault(key, []).append(argument.output(0))
    inputs = {a.name: a.output(0) for a in function.arguments[:split]}
    ports = {}
    for key, info in signature.outputs.items():
        port = info.name.rpartition(":")[2]
        if not port.isdigit() or int(port) >= len(function.results):
            raise TargetError(f"{path}: the signature {name!r} promises the output {key!r}, which its function lacks")
        ports[int(port)] = key
    labels = [ports.get(i, f"output_{i}") for i in range(len(function.results))]
    return Entry(name, function, inputs, dict(zip(labels, function.results, strict=True)), captures)


def _object_paths(objects: SavedObjectGraph) -> dict[int, str]:
    """Object node -> its shortest path from the root (breadth first, so ties go to the first child)."""
    paths: dict[int, str] = {0: ""}
    queue = deque([0])
    while queue:
        i = queue.popleft()
        for child in objects.nodes[i].children:
            if child.node_id not in paths:
                paths[child.node_id] = f"{paths[i]}/{child.local_name}".lstrip("/")
                queue.append(child.node_id)
    return paths


def _collections(path: Path, program: Program, meta: MetaGraphDef) -> tuple[dict[Any, Variable], dict[str, Entry]]:
    """Variables and entries of a TF1 SavedModel: the trainable_variables collection and the signatures."""
    graph = program.graph
    names: dict[str, VariableDef] = {}
    for collection in ("trainable_variables", "variables"):
        for data in meta.collection_def[collection].bytes_list.value if collection in meta.collection_def else ():
            variable = VariableDef.FromString(data)
            names.setdefault(variable.variable_name.rpartition(":")[0], variable)
    variables: dict[Any, Variable] = {}
    values: dict[Any, list[Value]] = {}
    for name, variable in names.items():
        node = graph.by_name.get(name)
        if node is not None:
            dtype, shape = node.attr("dtype"), node.attr("shape")
            variables[name] = Variable(
                name,
                name,
                name,
                dtype.type if dtype else 0,
                shape_of(shape.shape) if shape else None,
                variable.trainable,
            )
            values[name] = [node.output(0)]
    entries = {}
    for name, signature in meta.signature_def.items():
        outputs = {
            k: graph.value(i.name) for k, i in signature.outputs.items() if i.name.partition(":")[0] in graph.by_name
        }
        inputs = {
            k: graph.value(i.name) for k, i in signature.inputs.items() if i.name.partition(":")[0] in graph.by_name
        }
        if outputs and name != "__saved_model_init_op":
            entries[name] = Entry(name, graph, inputs, outputs, dict(values))
    return variables, entries


def _read_frozen(path: Path, raw: bytes) -> Model:
    """A frozen GraphDef: its placeholders are the inputs, the values that nobody reads its outputs."""
    program = Program(raw)
    top = program.graph
    if not top.nodes:
        raise TargetError(f"{path} holds no graph nodes; give a frozen GraphDef, or the SavedModel's folder")
    inputs = {n.name: n.output(0) for n in top.nodes if n.op in ("Placeholder", "PlaceholderWithDefault")}
    read = {v.node for n in top.nodes for v in n.inputs}
    outputs: dict[str, Value] = {}
    for node in top.nodes:
        if node.op not in ("NoOp", "Assert", "Const", "Placeholder") and node not in read:
            outputs.update(_results(node))
    return Model(path, "frozen", raw, program, {}, {"graph": Entry("graph", top, inputs, outputs, {})})


def _read_meta(path: Path, raw: bytes) -> Model:
    """A MetaGraph of TF1: its signatures, or where it has none what its forward graph ends in."""
    meta, graph = _split(memoryview(raw))
    program = Program(graph)
    if not program.graph.nodes:
        raise TargetError(f"{path} holds no graph nodes; give the .meta that tf.compat.v1.train.Saver wrote")
    program.tensorflow = meta.meta_info_def.tensorflow_version
    variables, entries = _collections(path, program, meta)
    if not entries:
        entries = {"graph": _forward(program.graph, variables)}
    model = Model(path, "metagraph", raw, program, variables, entries)
    model.captured = {key for entry in entries.values() for key in entry.captures}
    return model


def _forward(graph: Function, variables: dict[Any, Variable]) -> Entry:
    """The forward graph of a training graph: `gradients/` and all that is computed from it is left out.

    Its outputs are the values that nobody in it reads, the loss among them; a variable that is merely read is none.
    """
    backward: set[str] = set()
    for node in graph.order():
        if _GRADIENTS.match(node.name) or any(v.node.name in backward for v in node.inputs):
            backward.add(node.name)
    read = {v.node for node in graph.nodes if node.name not in backward for v in node.inputs}
    outputs: dict[str, Value] = {}
    inputs: dict[str, Value] = {}
    for node in graph.nodes:
        if node.op in ("Placeholder", "PlaceholderWithDefault") and node.output_dtype(0) != STRING:
            inputs[node.name] = node.output(0)
        ends = node not in read
        reads = all(v.node.name in variables for v in node.inputs)
        writes = any(v.node.name in variables for v in node.inputs[:1]) and "Assign" in node.op
        numbers = node.output_dtype(0) not in (0, STRING)  # the Saver's nodes work on file names
        if ends and numbers and not reads and not writes and node.name not in backward and node.op != "RestoreV2":
            outputs.update(_results(node))
    # The end of a loop's variable that nobody asked for, and the flow of its TensorArray, are no results.
    asked = {name: value for name, value in outputs.items() if not _LOOP_END.match(value.node.op)}
    outputs = asked or outputs
    captures = {key: [graph.by_name[key].output(0)] for key in variables}
    return Entry("graph", graph, inputs, outputs, captures)


def _results(node: Node) -> dict[str, Value]:
    """All outputs of a node under the names that TensorFlow gives tensors: "split", "split:1"."""
    signature = node.kind.signature
    ports = opdefs.flat_count(signature.outputs, node.attr) if signature else 1
    return {f"{node.name}:{port}" if port else node.name: node.output(port) for port in range(ports)}


def _widths(value: StructuredValue) -> Iterator[int]:
    """For each leaf of a structured output how many tensors it is: 0 for None, 2 or 3 for IndexedSlices."""
    kind = value.WhichOneof("kind")
    if kind in ("tuple_value", "list_value"):
        for item in getattr(value, kind).values:
            yield from _widths(item)
    elif kind == "type_spec_value" and value.type_spec_value.type_spec_class == TypeSpecProto.INDEXED_SLICES_SPEC:
        # values and indices; the fourth of the spec's parts is the dtype of a dense shape, None where there is none
        yield 2 + (value.type_spec_value.type_state.tuple_value.values[3].WhichOneof("kind") != "none_value")
    elif kind is not None:
        yield int(kind != "none_value")


def shape_of(proto: TensorShapeProto) -> Shape:
    """A TensorShapeProto as a tuple with None for unknown sizes; None for an unknown rank."""
    return None if proto.unknown_rank else tuple(None if d.size < 0 else d.size for d in proto.dim)


def count(shape: Shape) -> int:
    """The number of elements of a shape; 0 where a size is unknown."""
    if shape is None:
        return 0
    total = 1
    for size in shape:
        if size is None:
            return 0
        total *= size
    return total
