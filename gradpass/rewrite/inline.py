"""A call replaced by the body of its callee, so that a shadow can cross it. The callee stays for its other users."""

from __future__ import annotations

from tensorboard.compat.proto.function_pb2 import FunctionDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef

from gradpass.program.graph import CALLS, Function, Node
from gradpass.rules.base import Decline


def inline(function: Function, call_names: set[str]) -> FunctionDef:
    """The function with these call nodes replaced by their bodies, named `<call>/<node>`.

    Control edges keep their meaning: what waited for the call waits for every side effect of its body, and the body's
    nodes that read nothing of the body wait for what the call waited for. Declines where the callee carries a custom
    gradient, whose registered function refers to it by name.
    """
    if function.is_graph:
        raise Decline(
            "a severed discrete value crosses a call of the top-level graph, which this version does not inline"
        )
    out = FunctionDef()
    out.CopyFrom(function.proto)
    del out.node_def[:]
    data: dict[str, str] = {}  # old reference of a call's output -> new reference
    controls: dict[str, list[str]] = {}  # inlined call -> what now stands for waiting for it
    for node in function.nodes:
        if node.name in call_names:
            out.node_def.extend(_body(function, node, data, controls))
        else:
            out.node_def.add().CopyFrom(node.proto)
    for proto in out.node_def:
        _rename(proto, data, controls)
    for key, text in list(out.ret.items()):
        out.ret[key] = _resolve(data, text)
    for key, name in list(out.control_ret.items()):
        if name in controls:
            del out.control_ret[key]
            del out.signature.control_output[list(out.signature.control_output).index(key)]
            for new in controls[name]:
                out.control_ret[new] = new
                out.signature.control_output.append(new)
    return out


def _resolve(data: dict[str, str], text: str) -> str:
    while text in data:
        text = data[text]
    return text


def _rename(proto: NodeDef, data: dict[str, str], controls: dict[str, list[str]]) -> None:
    inputs: list[str] = []
    waits: list[str] = []
    for text in proto.input:
        if text[0] != "^":
            inputs.append(_resolve(data, text))
        else:
            waits += _waits(controls, text[1:])
    del proto.input[:]
    proto.input.extend([*inputs, *(f"^{name}" for name in dict.fromkeys(waits))])


def _waits(controls: dict[str, list[str]], name: str) -> list[str]:
    if name not in controls:
        return [name]
    return [w for inner in controls[name] for w in _waits(controls, inner)]


def _body(function: Function, call: Node, data: dict[str, str], controls: dict[str, list[str]]) -> list[NodeDef]:
    if call.op not in CALLS:
        raise Decline(f"a severed value crosses the function call {call.name!r} of the kind {call.op}", call.name)
    callee = function.program.function(call.attr("f").func.name)
    for node in callee.nodes:
        custom = node.attr("_gradient_op_type")
        if custom is not None and custom.s and node.op not in CALLS:
            raise Decline(
                f"a severed value crosses {callee.name!r}, which carries the custom gradient of {node.name!r} "
                "and cannot be inlined",
                call.name,
            )
    prefix = f"{call.name}/"
    given = {a.name: function.reference(v) for a, v in zip(callee.arguments, call.inputs, strict=True)}
    before = [f"^{c.name}" for c in call.controls]
    body: list[NodeDef] = []
    for node in callee.nodes:
        proto = NodeDef()
        proto.CopyFrom(node.proto)
        proto.name = prefix + node.name
        if call.proto is not None and call.proto.device and not proto.device:
            proto.device = call.proto.device
        texts = [_moved(text, given, prefix) for text in proto.input]
        if all(text.removeprefix("^") in given for text in proto.input):
            texts += before  # the others wait through the body nodes that they read
        del proto.input[:]
        proto.input.extend(texts)
        body.append(proto)
    for port, value in enumerate(callee.results):
        data[function.reference(call.output(port))] = _moved(callee.reference(value), given, prefix)
    effects = [prefix + name for name in callee.proto.control_ret.values()]
    controls[call.name] = effects or [c.name for c in call.controls]
    return body


def _moved(text: str, given: dict[str, str], prefix: str) -> str:
    """A callee's input string as the caller writes it."""
    if text in given:
        return given[text]
    if text[0] == "^":
        # Waiting for an argument is waiting for nothing: it is there before the body runs.
        name = text[1:]
        return f"^{given[name].partition(':')[0]}" if name in given else f"^{prefix}{name}"
    return prefix + text
