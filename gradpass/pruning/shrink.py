"""A function or the top-level graph without what nobody needs."""

from __future__ import annotations

from typing import Any

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.program.graph import Function, Node
from gradpass.pruning.needs import Needs, behind, whole
from gradpass.pruning.sites import Site, site

READ_ONLY = "_read_only_resource_inputs"  # of a call: the places of the handles that its function only reads
ORIGINAL = "_num_original_outputs"  # of a loop: how many outputs it had before its gradient added some


def functions(needs: Needs) -> tuple[list[FunctionDef], set[str]]:
    """The FunctionDefs that lose something, and the names of the functions that nobody runs."""
    program = needs.program
    kept = [program.function(name) for name in program.functions if name in needs.functions]
    changed = [_function(function, needs) for function in kept if not whole(function, needs)]
    return changed, {name for name in program.functions if name not in needs.functions}


def graph(needs: Needs) -> GraphDef:
    """The top-level graph without the nodes that are not needed."""
    top = needs.program.graph
    new = GraphDef()
    new.CopyFrom(top.proto)
    del new.node[:]
    new.node.extend(_node(node, needs) for node in top.nodes if node in needs.nodes)
    return new


def _function(function: Function, needs: Needs) -> FunctionDef:
    name = str(function.name)
    arguments = [i for i in range(len(function.arguments)) if needs.argument(name, i)]
    results = [i for i in range(len(function.results)) if needs.result(name, i)]
    old: FunctionDef = function.proto
    new = FunctionDef()
    new.CopyFrom(old)
    for field in ("node_def", "ret", "arg_attr", "resource_arg_unique_id", "control_ret"):
        new.ClearField(field)
    _keep(new.signature.input_arg, arguments)
    _keep(new.signature.output_arg, results)
    for place, index in enumerate(arguments):
        if index in old.arg_attr:
            new.arg_attr[place].CopyFrom(old.arg_attr[index])
        if index in old.resource_arg_unique_id:
            new.resource_arg_unique_id[place] = old.resource_arg_unique_id[index]
    if "_input_shapes" in new.attr:
        _keep(new.attr["_input_shapes"].list.shape, arguments)
    for index in results:
        label, value = old.signature.output_arg[index].name, function.results[index]
        new.ret[label] = _reference(function, value, needs) if _moved(value.node, needs) else old.ret[label]
    alive = {node.name for node in function.nodes if node in needs.nodes}
    for output, node in old.control_ret.items():
        if node in alive:
            new.control_ret[output] = node
    new.signature.control_output[:] = [output for output in old.signature.control_output if output in new.control_ret]
    new.node_def.extend(_node(node, needs) for node in function.nodes if node in needs.nodes)
    return new


def _node(node: Node, needs: Needs) -> NodeDef:
    """The node as it is now."""
    assert node.proto is not None
    found = site(node)
    kept = _kept(node, needs) if found is None else _inputs(node, found, needs)
    new = NodeDef()
    new.CopyFrom(node.proto)
    # What stays where it was is written as it was: TensorFlow writes `node` for `node:0`, and reads both.
    written = [text for text in node.proto.input if not text.startswith("^")]
    del new.input[:]
    for i in kept:
        value = node.inputs[i]
        new.input.append(_reference(node.function, value, needs) if _moved(value.node, needs) else written[i])
    new.input.extend(f"^{each.name}" for each in _controls(node, needs))
    if found is not None:
        _narrow(new, node, found, needs)
    return new


def _controls(node: Node, needs: Needs) -> list[Node]:
    """What a node waits for: where that is not needed, for what came before it."""
    found: dict[Node, None] = {}
    for each in node.controls:
        found.update(dict.fromkeys([each] if each in needs.nodes else behind(each, needs.nodes)))
    return [each for each in found if each is not node]


def _kept(node: Node, needs: Needs) -> list[int]:
    left_out = needs.skipped.get(node, ())
    return [i for i in range(len(node.inputs)) if i not in left_out]


def _inputs(node: Node, found: Site, needs: Needs) -> list[int]:
    body = found.bodies[0]
    return [i for i in range(len(node.inputs)) if i < found.skip or needs.argument(body, i - found.skip)]


def _results(found: Site, needs: Needs) -> list[int]:
    body = found.bodies[0]
    return [i for i in range(len(needs.program.function(body).results)) if needs.result(body, i)]


def _moved(node: Node, needs: Needs) -> bool:
    """Whether some of a node's outputs are other outputs now."""
    found = site(node)
    if found is None or node not in needs.nodes:
        return False
    return len(_results(found, needs)) < len(needs.program.function(found.bodies[0]).results)


def _reference(function: Function, value: Any, needs: Needs) -> str:
    """How a value of a node is written of which other outputs are gone."""
    found = site(value.node)
    assert found is not None
    return function.reference(value.node.output(_results(found, needs).index(value.port)))


def _narrow(new: NodeDef, node: Node, found: Site, needs: Needs) -> None:
    """Takes the arguments and results that are not needed out of the attributes of a call, branch or loop."""
    inputs, results = _inputs(node, found, needs), _results(found, needs)
    arguments = [i - found.skip for i in inputs if i >= found.skip]
    taken, given = found.types
    if taken in new.attr:
        _keep(new.attr[taken].list.type, arguments)
    if given != taken and given in new.attr:
        _keep(new.attr[given].list.type, results)
    outputs = len(needs.program.function(found.bodies[0]).results)
    for name in ("output_shapes", "_output_shapes"):
        if name in new.attr and len(new.attr[name].list.shape) == outputs:
            _keep(new.attr[name].list.shape, results)
    if READ_ONLY in new.attr:
        places = {old: now for now, old in enumerate(inputs)}
        kept = [places[i] for i in new.attr[READ_ONLY].list.i if i in places]
        new.attr[READ_ONLY].list.i[:] = kept
    if ORIGINAL in new.attr:
        new.attr[ORIGINAL].i = sum(i < node.attr(ORIGINAL).i for i in results)


def _keep(field: Any, indices: list[int]) -> None:
    """Leaves of a repeated field what stands at these places."""
    wanted = set(indices)
    for i in reversed(range(len(field))):
        if i not in wanted:
            del field[i]
