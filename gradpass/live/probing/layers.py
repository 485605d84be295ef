"""Rows of a report: which ops make a layer, and what comes out of it and back to it."""

from __future__ import annotations

import re
from typing import Any

from gradpass.live.frameworks import keras_of
from gradpass.live.probing.run import Passed, measured
from gradpass.report.probe import LayerRow, together

CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
BESIDE = frozenset({"ReadVariableOp", "ResourceGather", "Placeholder", "Const", "VarHandleOp"})


class Layers:
    """The ops of a pass by layer: the innermost Keras layer in whose scope they are, else their scope or themselves."""

    def __init__(self, passed: Passed, owner: Any) -> None:
        self.passed = passed
        self.names = _names(owner)
        self.members: dict[str, list[Any]] = {}
        self.key_of: dict[str, str] = {}
        self.variables: dict[str, dict[str, None]] = {}
        read = {goal.tensor.name: name for name, goal in passed.goals.items()}
        for op in passed.links.between:
            key = self.key_of[op.name] = self._key(passed.forward.path_of(op))
            self.members.setdefault(key, []).append(op)
        for op in passed.links.between:
            for tensor in passed.links.reads[op.name]:
                if tensor.name in read:
                    self.variables.setdefault(self._user(op), {})[read[tensor.name]] = None
        self._adopt()

    def rows(self) -> list[LayerRow]:
        """A row a layer, in the order of the forward pass."""
        rows = []
        for key, ops in self.members.items():
            outputs = self._outputs(key, ops)
            if not outputs:
                continue
            activation = together(self.passed.values[t.name] for t in outputs)
            assert activation is not None
            gradient = together(self.passed.gradients.get(t.name) for t in outputs)
            variables = list(self.variables.get(key, ()))
            weights = together(self.passed.gradient(name) for name in variables)
            rows.append(LayerRow(self.name(key), activation, gradient, weights, variables))
        return rows

    def behind(self) -> dict[str, set[str]]:
        """For each layer by name those that the loss's gradient passes before it gets there."""
        after: dict[str, set[str]] = {}
        for op in reversed(self.passed.links.between):
            keys = set[str]()
            for output in op.outputs:
                for reader, _ in self.passed.links.ways.get(output.name, ()):
                    keys |= after[reader.name] | {self.name(self.key_of[reader.name])}
            after[op.name] = keys
        found: dict[str, set[str]] = {}
        for name, keys in after.items():
            found.setdefault(self.name(self.key_of[name]), set()).update(keys)
        return {name: keys - {name} for name, keys in found.items()}

    def name(self, key: str) -> str:
        """What the user calls it: the layer that its variables say, else its scope."""
        layers = {name.rpartition("/")[0] for name in self.variables.get(key, ())}
        layer = next(iter(layers)) if len(layers) == 1 else ""
        return layer if layer and self.names else key

    def layer_of(self, op: Any) -> str:
        """The Keras layer that an op belongs to; "" where it is in none."""
        return self.name(self.key_of[op.name]) if self.names and op.name in self.key_of else ""

    def _user(self, op: Any) -> str:
        """Whose variable it is that an op reads: outside of Keras layers that of the op which computes with it."""
        readers = [r for t in op.outputs for r, _ in self.passed.links.ways.get(t.name, ())]
        reads = op.type == "ReadVariableOp" and readers and not self.names
        return self.key_of[readers[0].name if reads else op.name]

    def _adopt(self) -> None:
        """Joins what bears one name: a layer that is called twice is one layer."""
        joined: dict[str, str] = {}
        for key in list(self.members):
            name = self.name(key)
            first = joined.setdefault(name, key)
            if first != key:
                self.members[first] += self.members.pop(key)
                self.variables.setdefault(first, {}).update(self.variables.pop(key, {}))
        for key, ops in self.members.items():
            self.key_of.update((op.name, key) for op in ops)

    def _outputs(self, key: str, ops: list[Any]) -> list[Any]:
        losses = {t.name for t in self.passed.forward.losses}
        found = []
        for op in ops:
            for tensor in op.outputs:
                readers = self.passed.links.ways.get(tensor.name, ())
                outside = any(self.key_of[reader.name] != key for reader, _ in readers) or tensor.name in losses
                if outside and measured(tensor) and (op.type not in BESIDE or op.type == "ResourceGather"):
                    found.append(tensor)
        return found

    def _key(self, node: str) -> str:
        parts = [part for part in node.split("/") if not CALL.fullmatch(part)] or node.split("/")
        for i in reversed(range(len(parts) - 1)):
            if parts[i] in self.names or re.sub(r"_\d+$", "", parts[i]) in self.names:
                return "/".join(parts[: i + 1])
        return "/".join(parts[:-1]) or parts[-1]


def _names(owner: Any) -> set[str]:
    """The names of all layers of a Keras target, those inside of others too."""
    keras = keras_of(owner)
    if keras is None:
        return set()
    found: dict[int, Any] = {}
    todo = [owner]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, (list, tuple)):
            todo += item
        elif isinstance(item, keras.layers.Layer) and id(item) not in found:
            found[id(item)] = item
            todo += [*vars(item).values(), *(getattr(item, "layers", None) or ())]
    return {layer.name for layer in found.values()}
