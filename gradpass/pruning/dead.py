"""Which variables of a SavedModel nobody needs: by its functions, its graph, its optimizers, its checkpoint."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.errors import GradpassError
from gradpass.program.graph import Node, Program, Value
from gradpass.program.model import Model
from gradpass.pruning.checkpoint import Checkpoint
from gradpass.pruning.needs import Needs
from gradpass.pruning.objects import VALUE, below, is_optimizer, paired, slots
from gradpass.pruning.saver import Saver

INIT_OPS = ("__saved_model_init_op", "__saved_model_train_op")


@dataclass
class Dead:
    """What can go. `objects` are variables and tables; `kept` says why some that no function uses stay.

    `swaps` maps handles of the graph, by node name, to those that hold the same and are restored in their place;
    `bound` are the captures that each concrete function needs, by object node; `resources` the tables that go.
    """

    objects: set[int]
    kept: dict[int, str]
    swaps: dict[str, str]
    bound: dict[str, list[int]]
    resources: set[int]


class Entries:
    """What the functions that can be called from outside need; by default all of them, else those that are named."""

    def __init__(
        self,
        model: Model,
        names: Iterable[str] | None = None,
        dropped: Iterable[Node] = (),
        skipped: Mapping[Node, set[int]] | None = None,
        results: Mapping[str, list[int]] | None = None,
    ) -> None:
        """`results` are, of some functions, the places of the results that are asked for: of others, all."""
        assert model.objects is not None
        self.model = model
        self.objects: SavedObjectGraph = model.objects
        self.program: Program = model.program
        self.needs = Needs(model.program, dropped, skipped)
        methods = _methods(self.objects)
        own = {name for listed in methods.values() for name in listed}
        for name in exported(self.objects) if names is None else names:
            if name not in own:
                self._call(name, (results or {}).get(name))
        self.settle()
        # A table that nobody reads needs not be made and filled either.
        self.resources: set[int] = set()
        while new := (self.used() & methods.keys()) - self.resources:
            self.resources |= new
            for resource in new:
                for name in methods[resource]:
                    self._call(name, None)
            self.settle()

    def need(self, what: Iterable[Node | Value]) -> None:
        """Parts of the top-level graph, which a session runs."""
        self.needs.need(what)
        self.settle()

    def settle(self) -> None:
        """Follows custom gradients to the tensors that they captured of other functions."""
        while True:
            before = len(self.needs.nodes), len(self.needs.slots)
            for index in {i for bound in self.bound().values() for i in bound}:
                node = self.objects.nodes[index]
                if node.WhichOneof("kind") == "captured_tensor":
                    tensor = node.captured_tensor
                    function = self.program.function(tensor.concrete_function)
                    op, _, port = tensor.name.partition(":")
                    self.needs.need([function.by_name[op].output(int(port or 0))])
            if before == (len(self.needs.nodes), len(self.needs.slots)):
                return

    def bound(self) -> dict[str, list[int]]:
        """The captures that each concrete function needs, of those that somebody runs."""
        found: dict[str, list[int]] = {}
        for name, function in self.objects.concrete_functions.items():
            if name in self.needs.functions:
                bound = list(function.bound_inputs)
                own = len(self.program.function(name).arguments) - len(bound)
                found[name] = [key for i, key in enumerate(bound) if self.needs.argument(name, own + i)]
        return found

    def used(self) -> set[int]:
        """The objects that they capture."""
        return {key for bound in self.bound().values() for key in bound}

    def _call(self, name: str, results: list[int] | None) -> None:
        own = len(self.program.function(name).arguments) - len(self.objects.concrete_functions[name].bound_inputs)
        self.needs.need_call(name, own, results)


def exported(objects: SavedObjectGraph) -> list[str]:
    """The concrete functions that objects have as methods or signatures."""
    found: dict[str, None] = {}
    for node in objects.nodes:
        if node.WhichOneof("kind") == "function":
            found.update(dict.fromkeys(node.function.concrete_functions))
        elif node.WhichOneof("kind") == "bare_concrete_function":
            found[node.bare_concrete_function.concrete_function_name] = None
    return [name for name in found if name in objects.concrete_functions]


def _methods(objects: SavedObjectGraph) -> dict[int, list[str]]:
    """The functions that make, fill and destroy each table or other resource."""
    found: dict[int, list[str]] = {}
    for i, node in enumerate(objects.nodes):
        if node.WhichOneof("kind") == "resource":
            children = [objects.nodes[child.node_id] for child in node.children]
            found[i] = [name for child in children for name in child.function.concrete_functions]
    return found


def filling(model: Model, resources: set[int]) -> list[Node]:
    """The calls by which a session makes and fills some tables."""
    assert model.objects is not None
    methods = _methods(model.objects)
    functions = {name for resource in resources for name in methods[resource]}
    return [node for node in model.program.graph.nodes if node.callee in functions]


def roots(model: Model, meta: MetaGraphDef, removed: Container[int] = ()) -> list[Value]:
    """The values of the top-level graph that a session asks for: signatures, what initializes, assets, constants.

    `removed` are objects whose assets and constants are not asked for.
    """
    graph = model.program.graph
    names = [info.name for s in meta.signature_def.values() for info in (*s.inputs.values(), *s.outputs.values())]
    for collection in meta.collection_def.values():
        names += collection.node_list.value
    if model.objects is None:
        names += [asset.tensor_info.name for asset in meta.asset_file_def]
    else:
        kept = [node for i, node in enumerate(model.objects.nodes) if i not in removed]
        places = {node.asset.asset_file_def_index for node in kept if node.WhichOneof("kind") == "asset"}
        names += [meta.asset_file_def[place].tensor_info.name for place in places]
        names += [node.constant.operation for node in kept if node.WhichOneof("kind") == "constant"]
    found = []
    for name in names:
        op, _, port = name.partition(":")
        if op in graph.by_name:
            found.append(graph.by_name[op].output(int(port or 0)))
    return found


def find(
    model: Model,
    meta: MetaGraphDef,
    checkpoint: Checkpoint | None,
    names: list[str] | None = None,
    results: Mapping[str, list[int]] | None = None,
) -> Dead:
    """What is dead in a SavedModel of TensorFlow 2, for these functions and results of theirs: by default for all."""
    assert model.objects is not None
    objects = model.objects
    resources = _methods(objects).keys() - Entries(model, names, results=results).resources
    entries = Entries(model, names, filling(model, resources), results=results)
    entries.need(roots(model, meta))
    bound = entries.bound()
    used = entries.used()
    kept: dict[int, str] = {}
    dead = {i for i in model.variables if i not in used}
    dead -= _parts(objects, kept)
    dead -= _of_optimizers(objects, dead, used, kept)
    if checkpoint is not None and (model.path / "keras_metadata.pb").exists():
        # tf_keras builds the layers again from their configuration, and wants all of their weights.
        kept.update(dict.fromkeys(dead, "tf_keras.models.load_model restores it"))
        dead = set()
    swaps: dict[str, str] = {}
    if checkpoint is not None:
        swaps = _of_sessions(model, meta, checkpoint, entries, dead, kept)
    return Dead(dead | resources, kept, swaps, bound, resources)


def _parts(objects: SavedObjectGraph, kept: dict[int, str]) -> set[int]:
    """Variables that were sharded or replicated, and their parts: one may stand for the others."""
    found: set[int] = set()
    names: set[str] = set()
    for i, node in enumerate(objects.nodes):
        components = node.variable.experimental_distributed_variable_components
        if node.WhichOneof("kind") == "variable" and components:
            found.add(i)
            names |= {component.name for component in components}
    found |= {i for i, n in enumerate(objects.nodes) if n.WhichOneof("kind") == "variable" and n.variable.name in names}
    kept.update(dict.fromkeys(found, "it is a part of a distributed variable, or has parts"))
    return found


def _of_optimizers(objects: SavedObjectGraph, dead: set[int], used: set[int], kept: dict[int, str]) -> set[int]:
    """What optimizers keep for variables that stay, so that training can go on."""
    found: set[int] = set()
    for i, node in enumerate(objects.nodes):
        if not is_optimizer(objects, node):
            continue
        own = below(objects, i) - below(objects, 0, without=i)
        found |= own & dead - {slot for variable, slot in slots(objects, i) if variable in dead and slot not in used}
    kept.update(dict.fromkeys(found, "an optimizer keeps it for the variables that stay"))
    return found


def _of_sessions(
    model: Model, meta: MetaGraphDef, checkpoint: Checkpoint, entries: Entries, dead: set[int], kept: dict[int, str]
) -> dict[str, str]:
    """Takes out of `dead` what a session needs, unless another variable that stays holds the same bits.

    Where one weight hangs on two objects (Keras exports each as its own and as TensorFlow's variable), the functions
    are bound to one object and the graph to the handle of the other: gives whose handle is to be restored instead.
    """
    assert model.objects is not None
    keys = _keys(model.objects, checkpoint)
    handles = Saver(model.program, meta).handles()
    restored: dict[Node, int] = {}  # the variable of which each handle is
    for i, key in keys.items():
        if key in handles:
            restored[handles[key]] = i
    _distinct(model, restored, dead)
    partner = _bound_to(model, restored)
    swaps: dict[str, str] = {}
    for handle, i in restored.items():
        if i not in dead or handle not in entries.needs.nodes:
            continue
        other = partner.get(handle)
        mine = None if other is None else handles.get(keys.get(other, ""))
        if other is None or other in dead or mine is None or mine in entries.needs.nodes:
            reason = "the graph reads it, as a TF1 Session runs it"
        elif not checkpoint.same(keys[i], keys[other]):
            reason = f"it differs from {model.variables[other].path}, and a TF1 Session reads this one"
        else:
            swaps[mine.name] = handle.name
            continue
        dead.discard(i)
        kept[i] = reason
    return swaps


def _distinct(model: Model, restored: Mapping[Node, int], dead: set[int]) -> None:
    """Refuses where a dead and a living variable are one to a session, which goes by the name that they bear."""
    named: dict[str, int] = {}
    for handle, i in restored.items():
        attr = handle.attr("shared_name")
        name = attr.s.decode() if attr is not None and attr.s else handle.name
        other = named.setdefault(name, i)
        if (other in dead) != (i in dead):
            raise GradpassError(
                f"{model.path}: two variables bear the name {name!r} in the graph, one of them dead and one alive; "
                "give them names of their own and save the model again"
            )


def _keys(objects: SavedObjectGraph, checkpoint: Checkpoint) -> dict[int, str]:
    """The checkpoint's key for the value of each variable."""
    theirs = checkpoint.objects
    if theirs is None:
        return {}
    found = {}
    for mine, others in paired(objects, theirs).items():
        for other in others:
            for attribute in theirs.nodes[other].attributes:
                if attribute.name == VALUE:
                    found[mine] = attribute.checkpoint_key
    return found


def _bound_to(model: Model, restored: dict[Node, int]) -> dict[Node, int]:
    """The variable that the functions read where the graph's calls of them take a handle."""
    assert model.objects is not None
    found: dict[Node, set[int]] = {}
    for node in model.program.graph.nodes:
        function = model.objects.concrete_functions.get(node.callee or "") if node.callee else None
        if function is None:
            continue
        own = len(node.inputs) - len(function.bound_inputs)
        for value, key in zip(node.inputs[own:], function.bound_inputs, strict=True):
            if value.node in restored and key in model.variables:
                found.setdefault(value.node, set()).add(key)
    return {handle: keys.pop() for handle, keys in found.items() if len(keys) == 1}


def path_of(model: Model) -> Path:
    """Where the checkpoint of a SavedModel lies."""
    return model.path / "variables" / "variables"
