"""The object graph of a SavedModel, and that of its checkpoint, without what is dead."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObject, SavedObjectGraph
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

from gradpass.errors import GradpassError
from gradpass.program import wire

LISTS = ("trackable_list_wrapper", "trackable_tuple_wrapper")  # whose children are called by their places
CONTAINERS = (*LISTS, "trackable_dict_wrapper")
VALUE = "VARIABLE_VALUE"
METADATA_NODES, NODE_ID = 1, 2  # fields of tf_keras's saved_metadata.proto


def below(objects: SavedObjectGraph, start: int, without: int | None = None) -> set[int]:
    """The objects that can be reached from one by name, itself among them, on ways that lead not through `without`."""
    seen = {start}
    todo = [start]
    while todo:
        for other in references(objects.nodes[todo.pop()]):
            if other not in seen and other != without:
                seen.add(other)
                todo.append(other)
    return seen


def is_optimizer(objects: SavedObjectGraph, node: SavedObject) -> bool:
    """Whether an object is an optimizer: it has slots, or counts its steps and has a learning rate."""
    names = {child.local_name.lstrip("_") for child in node.children}
    return bool(node.slot_variables) or ("learning_rate" in names and not names.isdisjoint({"iterations", "iter"}))


def slots(objects: SavedObjectGraph, optimizer: int) -> Iterator[tuple[int, int]]:
    """Each slot of an optimizer, after the variable that it belongs to.

    Old optimizers tell it. Those of Keras 3 keep lists beside that of their variables; those of tf_keras have nothing
    but names, `Adam/m/dense/kernel`.
    """
    node = objects.nodes[optimizer]
    for slot in node.slot_variables:
        yield slot.original_variable_node_id, slot.slot_variable_node_id
    lists = {c.local_name: [i.node_id for i in objects.nodes[c.node_id].children] for c in node.children}
    own = below(objects, optimizer) - below(objects, 0, without=optimizer)
    trained = lists.get("_trainable_variables")
    if trained is not None:
        for held in lists.values():
            if len(held) == len(trained) and own.issuperset(held):
                yield from zip(trained, held, strict=True)
        return
    named: dict[str, list[int]] = {}
    for i, other in enumerate(objects.nodes):
        if other.WhichOneof("kind") == "variable" and i not in own:
            named.setdefault(other.variable.name, []).append(i)
    for i in own:
        held_name = objects.nodes[i].variable.name if objects.nodes[i].WhichOneof("kind") == "variable" else ""
        fitting = [found for name, found in named.items() if held_name.endswith(f"/{name}")]
        if len(fitting) == 1 and len(fitting[0]) == 1:
            yield fitting[0][0], i


def paired(mine: SavedObjectGraph, theirs: TrackableObjectGraph) -> dict[int, set[int]]:
    """For each object those of the checkpoint that are reached by the same names."""
    found: dict[int, set[int]] = {0: {0}}
    todo = [(0, 0)]

    def pair(one: int, other: int) -> None:
        if other not in found.setdefault(one, set()):
            found[one].add(other)
            todo.append((one, other))

    while todo:
        one, other = todo.pop()
        children = {child.local_name: child.node_id for child in theirs.nodes[other].children}
        for child in mine.nodes[one].children:
            if child.local_name in children:
                pair(child.node_id, children[child.local_name])
        held = {
            (s.original_variable_node_id, s.slot_name): s.slot_variable_node_id
            for s in theirs.nodes[other].slot_variables
        }
        for slot in mine.nodes[one].slot_variables:
            for original in found.get(slot.original_variable_node_id, ()):
                if (original, slot.slot_name) in held:
                    pair(slot.slot_variable_node_id, held[original, slot.slot_name])
    return found


class Removal:
    """An object graph without some of its objects, and what hangs on them only."""

    def __init__(self, objects: SavedObjectGraph, dead: Iterable[int], bound: Mapping[str, list[int]]) -> None:
        """`dead` are the objects to be removed; `bound` the captures of each concrete function that stays."""
        self.objects = objects
        self._bound = bound
        self.removed = set(dead)
        self._hollow()
        self._unreached()
        kept = [i for i in range(len(objects.nodes)) if i not in self.removed]
        self.places = {old: new for new, old in enumerate(kept)}

    def result(self) -> SavedObjectGraph:
        """The object graph that is left."""
        new = SavedObjectGraph()
        new.CopyFrom(self.objects)
        new.ClearField("nodes")
        new.ClearField("concrete_functions")
        for old in self.places:
            node = new.nodes.add()
            node.CopyFrom(self.objects.nodes[old])
            self._relink(node, self.labels(old))
            if node.WhichOneof("kind") == "asset":
                node.asset.asset_file_def_index = self.assets().index(node.asset.asset_file_def_index)
            if node.WhichOneof("kind") == "function":
                kept = [name for name in node.function.concrete_functions if name in self._bound]
                node.function.concrete_functions[:] = kept
        for name, bound in self._bound.items():
            function = new.concrete_functions[name]
            function.CopyFrom(self.objects.concrete_functions[name])
            function.bound_inputs[:] = [self.places[i] for i in bound]
        return new

    def assets(self) -> list[int]:
        """The places of the assets that stay among those of the MetaGraph."""
        nodes = [self.objects.nodes[i] for i in self.places]
        return sorted({node.asset.asset_file_def_index for node in nodes if node.WhichOneof("kind") == "asset"})

    def labels(self, node: int) -> dict[str, str]:
        """What the children of a list and the captures of a function that stay are called now: the gaps are closed.

        Those that are not in it keep their name; "" is that of a capture that is not needed any more.
        """
        old = self.objects.nodes[node]
        if old.WhichOneof("kind") == "bare_concrete_function":
            return self._captures(old)
        if old.WhichOneof("kind") != "user_object" or old.user_object.identifier not in LISTS:
            return {}
        places = sorted((int(c.local_name), c.node_id) for c in old.children if c.local_name.isdigit())
        gone = 0
        labels = {}
        for place, item in places:
            gone += item in self.removed
            labels[str(place)] = str(place - gone)  # a list may have gaps of its own, where it holds what is no object
        return labels

    def _captures(self, node: SavedObject) -> dict[str, str]:
        name = node.bare_concrete_function.concrete_function_name
        kept = list(self._bound.get(name, ()))
        labels: dict[str, str] = {}
        place = 0
        for i, key in enumerate(self.objects.concrete_functions[name].bound_inputs):
            stays = place < len(kept) and kept[place] == key
            labels[f"capture_{i}"] = f"capture_{place}" if stays else ""
            place += stays
        return labels

    def checkpoint(self, objects: TrackableObjectGraph) -> tuple[TrackableObjectGraph, set[str]]:
        """The checkpoint's own object graph after the removal, and the keys that nobody refers to any more."""
        pairs = paired(self.objects, objects)
        stays = {theirs for mine, others in pairs.items() if mine not in self.removed for theirs in others}
        gone = {theirs for mine, others in pairs.items() if mine in self.removed for theirs in others}
        if gone & stays:
            raise GradpassError(
                "two objects of the model share a variable in its checkpoint, one of them dead and one alive; save the "
                "model again with TensorFlow"
            )
        labels = {theirs: self.labels(mine) for mine, others in pairs.items() for theirs in others}
        places = {old: new for new, old in enumerate(i for i in range(len(objects.nodes)) if i not in gone)}
        new = TrackableObjectGraph()
        for old in places:
            node = new.nodes.add()
            node.CopyFrom(objects.nodes[old])
            _relink(node, places, labels.get(old, {}))
        kept = {a.checkpoint_key for node in new.nodes for a in node.attributes}
        lost = {a.checkpoint_key for i in gone for a in objects.nodes[i].attributes}
        shared = lost & kept
        if shared:
            raise GradpassError(
                f"two objects of the checkpoint share the key {min(shared)!r}, one of them dead and one alive; save "
                "the model again with TensorFlow"
            )
        return new, lost

    def metadata(self, raw: bytes) -> bytes:
        """tf_keras's keras_metadata.pb with the new numbers of the objects."""
        parts = []
        for field in wire.fields(raw):
            if field.number != METADATA_NODES:
                parts.append(raw[field.start : field.end])
                continue
            node = raw[field.payload : field.end]
            number = next(
                (wire.numbers(node[f.payload : f.end])[0] for f in wire.fields(node) if f.number == NODE_ID), 0
            )
            if number in self.places:
                rest = b"".join(node[f.start : f.end] for f in wire.fields(node) if f.number != NODE_ID)
                new = wire.varint(NODE_ID << 3) + wire.varint(self.places[number])
                parts.append(wire.delimited(METADATA_NODES, new + rest))
        return b"".join(parts)

    def _relink(self, node: SavedObject, labels: dict[str, str]) -> None:
        _relink(node, self.places, labels)
        _rename(node.dependencies, self.places, labels)
        for saveable in node.saveable_objects.values():
            saveable.save_function = self.places.get(saveable.save_function, 0)
            saveable.restore_function = self.places.get(saveable.restore_function, 0)

    def _hollow(self) -> None:
        """Objects that held nothing but what is removed go too; an emptied list stays with what it is an item of."""
        nodes = self.objects.nodes
        alive = {i for i, node in enumerate(nodes) if node.WhichOneof("kind") != "user_object"} - self.removed
        alive |= {i for bound in self._bound.values() for i in bound} | {0}
        parents: dict[int, list[int]] = {}
        for i, node in enumerate(nodes):
            for other in references(node):
                parents.setdefault(other, []).append(i)
        filled = _upwards(alive, parents)
        lost = _upwards(self.removed, parents) - self.removed
        hollow = {i for i in lost - filled if nodes[i].user_object.identifier not in CONTAINERS}
        self.removed |= hollow

    def _unreached(self) -> None:
        """What hangs on removed objects only, by name or as the capture of a function."""
        nodes = self.objects.nodes
        seen: set[int] = set()
        todo = [0, *(i for bound in self._bound.values() for i in bound)]
        while todo:
            i = todo.pop()
            if i in seen or i in self.removed:
                continue
            seen.add(i)
            gone = {name for name, label in self.labels(i).items() if not label}
            todo += references(nodes[i], gone)
        self.removed = set(range(len(nodes))) - seen


def references(node: SavedObject, gone: Container[str] = ()) -> list[int]:
    """The objects that an object leads to, on edges that are not `gone`."""
    found = [child.node_id for child in (*node.children, *node.dependencies) if child.local_name not in gone]
    for saveable in node.saveable_objects.values():
        found += [saveable.save_function, saveable.restore_function]
    return found + [slot.slot_variable_node_id for slot in node.slot_variables]


def _upwards(start: Iterable[int], parents: Mapping[int, list[int]]) -> set[int]:
    seen = set(start)
    todo = list(seen)
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return seen


def _relink(node: Any, places: Mapping[int, int], labels: Mapping[str, str]) -> None:
    """Gives the children and slots of an object their new numbers and names; those that are gone are left out."""
    _rename(node.children, places, labels)
    kept = [
        slot
        for slot in node.slot_variables
        if slot.original_variable_node_id in places and slot.slot_variable_node_id in places
    ]
    _refill(node.slot_variables, kept)
    for slot in node.slot_variables:
        slot.original_variable_node_id = places[slot.original_variable_node_id]
        slot.slot_variable_node_id = places[slot.slot_variable_node_id]


def _rename(children: Any, places: Mapping[int, int], labels: Mapping[str, str]) -> None:
    kept = [c for c in children if c.node_id in places and labels.get(c.local_name, c.local_name)]
    _refill(children, kept)
    for child in children:
        child.node_id = places[child.node_id]
        child.local_name = labels.get(child.local_name, child.local_name)


def _refill(field: Any, kept: list[Any]) -> None:
    if len(kept) == len(field):
        return
    copies = [type(each).FromString(each.SerializeToString()) for each in kept]
    del field[:]
    field.extend(copies)
