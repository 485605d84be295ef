"""Models that are one graph: TF1 SavedModels and MetaGraphs, and frozen GraphDefs. They have no object graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.variable_pb2 import VariableDef

from gradpass.errors import TargetError
from gradpass.program import opdefs
from gradpass.program.graph import Function, Node, Program, Value
from gradpass.program.model import Entry, Model, Variable, shape_of

STRING = 7  # types.proto

_LOOP_END = re.compile(r"(Ref)?(Exit|Switch)$|TensorArray(Write|Scatter|Split)?V\d$")
_GRADIENTS = re.compile(r"(.*/)?gradients(_\d+)?/")  # the name scope of tf.gradients


def collections(program: Program, meta: MetaGraphDef) -> tuple[dict[Any, Variable], dict[str, Entry]]:
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


def frozen(path: Path, raw: bytes) -> Model:
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


def metagraph(path: Path, raw: bytes, meta: MetaGraphDef, graph: memoryview) -> Model:
    """A MetaGraph of TF1: its signatures, or where it has none what its forward graph ends in."""
    program = Program(graph)
    if not program.graph.nodes:
        raise TargetError(f"{path} holds no graph nodes; give the .meta that tf.compat.v1.train.Saver wrote")
    program.tensorflow = meta.meta_info_def.tensorflow_version
    variables, entries = collections(program, meta)
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
