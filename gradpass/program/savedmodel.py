"""Disk to `Model`: SavedModels of TF2 here, models that are one graph in `graphs`; read without TensorFlow."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph
from tensorboard.compat.proto.struct_pb2 import StructuredValue, TypeSpecProto

from gradpass.errors import TargetError
from gradpass.program import debuginfo, graphs, skim, wire
from gradpass.program.debuginfo import DebugInfo
from gradpass.program.graph import CustomGradient, Function, Program, Value
from gradpass.program.model import Entry, Model, Variable, shape_of

META_GRAPHS = 2  # field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto
GRAPH_DEF = 2
OBJECT_GRAPH_DEF = 7
GRAPH_NODE = 1
LIBRARY = 2
LIBRARY_FUNCTION = 1
LIBRARY_GRADIENTS = 2
LIBRARY_REGISTERED_GRADIENTS = 3


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


def meta_graphs(model: Model) -> int:
    """How many MetaGraphs the file of a model holds."""
    return len(skim.payloads(model.raw, META_GRAPHS))


def meta_of(model: Model) -> MetaGraphDef:
    """The MetaGraph that a model was read from, without its graph."""
    return _split(skim.payloads(model.raw, META_GRAPHS)[model.meta_index])[0]


def parse(path: Path, raw: bytes, folder: bool | None = None) -> Model:
    """The model in the bytes of a SavedModel's `saved_model.pb` (a folder's) or of a frozen graph."""
    folder = path.is_dir() if folder is None else folder
    try:
        if folder:
            return _read_folder(path, raw)
        return (
            graphs.metagraph(path, raw, *_split(memoryview(raw)))
            if path.suffix == ".meta"
            else graphs.frozen(path, raw)
        )
    except (DecodeError, UnicodeDecodeError, wire.WireError) as problem:
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
        variables, entries = graphs.collections(program, meta)
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
    paths = object_paths(objects)
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


def object_paths(objects: SavedObjectGraph) -> dict[int, str]:
    """Object node -> its shortest path from the root (breadth first, so ties go to the first child)."""
    paths: dict[int, str] = {0: ""}
    queue = deque([0])
    while queue:
        i = queue.popleft()
        for child in objects.nodes[i].children:
            if not 0 <= child.node_id < len(objects.nodes):
                raise TargetError(
                    f"an object of the model has the child {child.local_name!r}, which is not in the file"
                )
            if child.node_id not in paths:
                paths[child.node_id] = f"{paths[i]}/{child.local_name}".lstrip("/")
                queue.append(child.node_id)
    return paths


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
