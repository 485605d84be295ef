"""Leads a pruning: what is dead, the program without it, the saver without it, the objects and the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.meta_graph_pb2 import AssetFileDef, MetaGraphDef
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

from gradpass.errors import GradpassError
from gradpass.program import edit, savedmodel, wire
from gradpass.program.graph import Node, Value
from gradpass.program.model import Model, Variable
from gradpass.pruning import saver, shrink, v1
from gradpass.pruning.checkpoint import Checkpoint
from gradpass.pruning.dead import Entries, exported, filling, find, path_of, roots
from gradpass.pruning.needs import Needs
from gradpass.pruning.objects import Removal
from gradpass.pruning.outputs import Asked
from gradpass.pruning.saver import FIXED, Row, Saver

ASSETS = 6  # field of meta_graph.proto: AssetFileDef
COPIES = "DisableCopyOnRead"  # what a save function tells a variable before it reads it


@dataclass
class Pruned:
    """A pruned model. `pb` are the bytes of its saved_model.pb, None where nothing is dead.

    `keys` are those of the checkpoint that stay, `objects` its own object graph then; `removed` the variables that are
    gone, `kept` why others that no function uses are not; `tables` and `assets`, the files for these alone, went, too.
    """

    model: Model
    pb: bytes | None
    removed: list[Variable]
    kept: dict[str, str]
    checkpoint: Checkpoint | None
    keys: list[str] = field(default_factory=list)
    objects: TrackableObjectGraph | None = None
    removal: Removal | None = None
    tables: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)


def prune(model: Model, asked: Asked | None = None) -> Pruned:
    """What is left of a SavedModel without what nobody needs; writes nothing.

    `asked` leaves out what somebody could need and does not. Raises GradpassError where the model is none that can be
    taken apart.
    """
    asked = asked or Asked()
    if model.kind not in ("savedmodel", "savedmodel-v1"):
        raise GradpassError(f"{model.path} is no SavedModel, and only there is known what is asked for and saved")
    if savedmodel.meta_graphs(model) > 1:
        raise GradpassError(f"{model.path} holds several MetaGraphs, which share one checkpoint; save one alone")
    meta = asked.meta(savedmodel.meta_of(model))
    checkpoint = _checkpoint(model)
    if model.objects is None:
        return _prune_v1(model, meta, checkpoint, asked)
    if not exported(model.objects) and model.variables:
        raise GradpassError(
            f"{model.path} has no function and no signature, only variables: all of them would be dead; save it with a "
            "function, or load and save what is wanted of it"
        )
    dead = find(model, meta, checkpoint, asked.names(model), asked.results)
    removal = Removal(model.objects, dead.objects | _methods(model, asked), dead.bound)
    lost: set[str] = set()
    objects = None
    if checkpoint is not None:
        held = checkpoint.objects
        if held is not None:
            objects, lost = removal.checkpoint(held)
    swapped = _swapped(model, dead.swaps)
    new = _shrunk(swapped, meta, lost, removal, filling(model, dead.resources), asked)
    removed = [v for key, v in model.variables.items() if key in removal.removed]
    if new is not None:
        gone = {asset.filename for asset in meta.asset_file_def}
        files = sorted(gone - {meta.asset_file_def[i].filename for i in removal.assets()})
    kept = {model.variables[key].path: reason for key, reason in dead.kept.items() if key in model.variables}
    if new is None:
        return Pruned(model, None, [], kept, checkpoint)
    keys = [key for key in checkpoint.dtypes if key not in lost] if checkpoint is not None else []
    paths = savedmodel.object_paths(model.objects)
    tables = [paths.get(i, f"object {i}") for i in sorted(dead.resources)]
    return Pruned(new, new.raw, removed, kept, checkpoint, keys, objects, removal, tables, files)


def _checkpoint(model: Model) -> Checkpoint | None:
    """The checkpoint of a SavedModel; None where it has none, as it has no variables."""
    prefix = path_of(model)
    index = prefix.with_name(f"{prefix.name}.index")
    if index.exists():
        return Checkpoint(prefix)
    if model.variables:
        raise GradpassError(f"{index} is missing, the list of the model's weights; copy the whole folder of the model")
    return None


def _methods(model: Model, asked: Asked) -> set[int]:
    """The objects of functions that are not asked for."""
    assert model.objects is not None
    found = set()
    for i, node in enumerate(model.objects.nodes):
        names = set(node.function.concrete_functions) or {node.bare_concrete_function.concrete_function_name}
        if names <= asked.functions:
            found.add(i)
    return found


def _prune_v1(model: Model, meta: MetaGraphDef, checkpoint: Checkpoint | None, asked: Asked) -> Pruned:
    """As `prune`, of a SavedModel of TensorFlow 1."""
    keeper = Saver(model.program, meta)
    found = v1.Graph(model, meta, roots(model, meta))
    needs = Needs(model.program, _dropped(found.gone), _skipped(found.gone))
    needs.need([*found.asked, *_all_outputs(keeper.roots)])
    functions, unused = shrink.functions(needs)
    graph = shrink.graph(needs)
    if not found.dead and not functions and not unused:
        return Pruned(model, None, [], {}, checkpoint)
    _trim(keeper.rows, found.lost, functions, graph)
    new = edit.changed(
        model,
        functions,
        graph=graph,
        dropped=unused,
        change_meta=lambda raw: asked.signatures(found.collections(raw), calls=False),
    )
    removed = [variable for name, variable in model.variables.items() if name in found.dead]
    keys = [key for key in checkpoint.dtypes if key not in found.lost] if checkpoint is not None else []
    return Pruned(new, new.raw, removed, {}, checkpoint, keys)


def _swapped(model: Model, swaps: dict[str, str]) -> Model:
    """The model with other handles in the places of some, which then serve for both."""
    if not swaps:
        return model
    graph = GraphDef()
    graph.CopyFrom(model.program.graph.proto)
    for node in graph.node:
        for i, text in enumerate(node.input):
            name = text.removesuffix(":0")
            if name in swaps:
                node.input[i] = swaps[name]
    return edit.changed(model, [], graph=graph)


def _shrunk(
    model: Model, meta: MetaGraphDef, lost: set[str], removal: Removal, calls: list[Node], asked: Asked
) -> Model | None:
    """The model without what is dead, what saved and restored it, and these calls; None where nothing goes."""
    keeper = Saver(model.program, meta)
    gone = [row for row in keeper.rows if row.key in lost]
    assets = {meta.asset_file_def[i].tensor_info.name for i in removal.assets()}
    unfed = {one.tensor_info.name for one in meta.asset_file_def} - assets
    doomed = {node.name for node in calls}
    dropped = _dropped(gone)
    for node in model.program.graph.nodes:
        if node.name in doomed or any(f"{value}" in unfed for value in node.inputs):
            dropped.append(node)
    needs = Entries(model, asked.names(model), dropped, _skipped(gone), asked.results)
    needs.need(roots(model, meta, removal.removed))
    needs.need(_all_outputs(keeper.roots))
    functions, dead = shrink.functions(needs.needs)
    graph = shrink.graph(needs.needs)
    # Every model that TensorFlow writes has nodes in its top-level graph that read variables for nobody.
    if not removal.removed and not functions and not dead:
        return None
    _trim(keeper.rows, lost, functions, graph)
    new = removal.result()
    asked.described(model, new)

    def trimmed(raw: bytes) -> bytes:
        fed = wire.without(raw, ASSETS, lambda one: AssetFileDef.FromString(one).tensor_info.name not in assets)
        return asked.signatures(fed, calls=True)

    return edit.changed(model, functions, objects=new, graph=graph, dropped=dead, change_meta=trimmed)


def _trim(rows: list[Row], lost: set[str], functions: list[FunctionDef], graph: GraphDef) -> None:
    """Takes the lost keys out of what saves and restores, wherever that is."""
    protos: dict[str | None, FunctionDef | GraphDef] = {f.signature.name: f for f in functions}
    protos[None] = graph
    by_function: dict[str | None, list[Row]] = {}
    for row in rows:
        by_function.setdefault(row.node.function.name, []).append(row)
    for name, mine in by_function.items():
        if name in protos:
            saver.without(protos[name], mine, lost)


def _all_outputs(nodes: list[Node]) -> list[Node | Value]:
    """Nodes that are run as a whole: with all of their results, where they call a function."""
    found: list[Node | Value] = list(nodes)
    for node in nodes:
        if node.callee is not None:
            found += [node.output(i) for i in range(len(node.function.program.function(node.callee).results))]
    return found


def _dropped(gone: list[Row]) -> list[Node]:
    """The nodes that put the values of lost keys into variables, or get these ready to be saved."""
    found = [put for row in gone for put in row.puts]
    for row in gone:
        if row.node.op == "SaveV2":
            read = row.node.inputs[FIXED + row.place]
            while read.node.op in saver.PASSES and read.node.inputs:
                read = read.node.inputs[0]
            found += [node for node in row.node.function.nodes if node.op == COPIES and node.inputs[0] == read]
    return found


def _skipped(gone: list[Row]) -> dict[Node, set[int]]:
    found: dict[Node, set[int]] = {}
    for row in gone:
        if row.node.op == "SaveV2":
            found.setdefault(row.node, set()).add(FIXED + row.place)
    return found
