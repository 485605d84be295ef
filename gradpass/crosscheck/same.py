"""Whether two frozen graphs are one, node for node: then one export serves for both."""

from __future__ import annotations

from typing import Any

from gradpass.crosscheck.export import Frozen

PASSING = ("Identity", "IdentityN", "PreventGradient", "StopGradient")  # each output is the input of its place


def same(one: Frozen, other: Frozen) -> bool:
    """Whether all outputs are made by the same ops from the same constants and inputs; names do not count.

    Graphs with loops or branches of functions are never called the same: their functions are not compared.
    """
    if one.graph.library.function or other.graph.library.function or one.outputs.keys() != other.outputs.keys():
        return False
    numbers: dict[Any, int] = {}
    return _outputs(one, numbers) == _outputs(other, numbers)


def _outputs(frozen: Frozen, numbers: dict[Any, int]) -> dict[str, tuple[int, int]]:
    """Each output as the number of its node and its port; equal nodes have equal numbers."""
    nodes = {node.name: node for node in frozen.graph.node}
    own = {tensor.partition(":")[0]: name for name, tensor in frozen.inputs.items()}
    done: dict[str, int] = {}

    def source(tensor: str) -> tuple[str, int]:
        """The node and port that a value comes from, behind all that only passes it on."""
        name, _, port = tensor.partition(":")
        while nodes[name].op in PASSING:
            given = nodes[name].input[int(port or 0)]
            name, _, port = given.partition(":")
        return name, int(port or 0)

    def sources(node: Any) -> list[tuple[str, int]]:
        return [source(value) for value in node.input if not value.startswith("^")]

    def number(root: str) -> int:
        stack = [root]
        while stack:
            name = stack[-1]
            missing = [given for given, _ in sources(nodes[name]) if given not in done]
            if missing:
                stack += missing
                continue
            stack.pop()
            node = nodes[name]
            inputs = tuple((done[given], port) for given, port in sources(node))
            attributes = tuple(
                sorted((k, v.SerializeToString(deterministic=True)) for k, v in node.attr.items() if k[0] != "_")
            )
            key = (own.get(name), node.op, inputs, attributes)
            done[name] = numbers.setdefault(key, len(numbers))
        return done[root]

    found = {}
    for name, tensor in frozen.outputs.items():
        node, port = source(tensor)
        found[name] = number(node), port
    return found
