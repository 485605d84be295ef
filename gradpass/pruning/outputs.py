"""A SavedModel without the outputs of which no loss is made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorboard.compat.proto.saved_object_graph_pb2 import SavedObjectGraph

from gradpass.errors import GradpassError
from gradpass.flow.facts import is_float
from gradpass.program import wire
from gradpass.program.model import Entry, Model
from gradpass.pruning.dead import Entries, exported

SIGNATURES = 5  # field of meta_graph.proto: map<string, SignatureDef>


@dataclass
class Asked:
    """What is still asked of a model: `results` are, of some functions, the places of those that stay.

    `outputs` names those that go, by signature; `functions` are methods that go, since they make such outputs too.
    """

    results: dict[str, list[int]] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)

    def names(self, model: Model) -> list[str]:
        """The functions that can still be called."""
        assert model.objects is not None
        return [name for name in exported(model.objects) if name not in self.functions]

    def meta(self, meta: MetaGraphDef) -> MetaGraphDef:
        """The MetaGraph without these outputs in its signatures."""
        new = MetaGraphDef()
        new.CopyFrom(meta)
        for name, gone in self.outputs.items():
            for output in gone:
                new.signature_def[name].outputs.pop(output)
        return new

    def signatures(self, meta: bytes, calls: bool) -> bytes:
        """The bytes of a MetaGraph without these outputs; of calls, the others come from other places now."""

        def change(_: int, entry: memoryview) -> bytes | None:
            parts = {f.number: entry[f.payload : f.end] for f in wire.fields(entry)}
            gone = self.outputs.get(bytes(parts[1]).decode())
            if not gone:
                return None
            signature = SignatureDef.FromString(parts[2])
            ports = sorted(int(info.name.rpartition(":")[2]) for info in signature.outputs.values())
            lost = {int(signature.outputs.pop(name).name.rpartition(":")[2]) for name in gone}
            kept = [port for port in ports if port not in lost]
            for info in signature.outputs.values() if calls else ():
                node, _, port = info.name.rpartition(":")
                info.name = f"{node}:{kept.index(int(port))}"
            return wire.delimited(1, bytes(parts[1])) + wire.delimited(
                2, signature.SerializeToString(deterministic=True)
            )

        return wire.edit(meta, SIGNATURES, change) if self.outputs else meta

    def described(self, model: Model, objects: SavedObjectGraph) -> None:
        """Takes the outputs out of what the object graph says of the signatures' functions."""
        for name, gone in self.outputs.items():
            function = objects.concrete_functions[str(model.entries[name].function.name)]
            for output in gone:
                function.output_signature.dict_value.fields.pop(output, None)


def split_outputs(entry: Entry, loss: Collection[str] | None) -> tuple[list[int], list[int]]:
    """The places of the outputs of which a loss is made, and of the others: by name, else those that are floats are."""
    read = [
        i
        for i, (name, value) in enumerate(entry.outputs.items())
        if (is_float(value.dtype) if loss is None else name in loss)
    ]
    return read, [i for i in range(len(entry.outputs)) if i not in read]


def only_loss(model: Model, loss: Collection[str] | None) -> Asked:
    """What stays where only the loss counts. A signature of whose outputs no loss can be made is left as it is."""
    asked = Asked()
    known = {output for entry in model.entries.values() for output in entry.outputs}
    unknown = sorted(set(loss or ()) - known)
    if unknown:
        raise GradpassError(f"{model.path} has no output {unknown[0]!r}; it has {', '.join(sorted(known))}")
    for name, entry in model.entries.items():
        read, unread = split_outputs(entry, loss)
        if read and unread:
            asked.outputs[name] = [list(entry.outputs)[i] for i in unread]
            if model.objects is not None:
                asked.results[str(entry.function.name)] = read
    if model.objects is not None and asked.outputs:
        signatures = [str(entry.function.name) for entry in model.entries.values()]
        needed = Entries(model, signatures, results=asked.results).used()
        others = [name for name in exported(model.objects) if name not in signatures]
        asked.functions = {name for name in others if (Entries(model, [name]).used() & model.variables.keys()) - needed}
    return asked
