"""To which layer the scope of an op belongs, by the variables that are read in it.

Keras 3 counts its name scopes apart from its layers: what runs under `functional/dense_1` is the layer `dense`, and
`dense_1` runs under `functional/dense_1_2`. Variables bear the layer's true name.
"""

from __future__ import annotations

from gradpass.flow.facts import BRANCHES, callees
from gradpass.flow.verdict import Cut
from gradpass.program.graph import Function, Node
from gradpass.program.model import Model


class Layers:
    """The layers of a model, by the scopes in which their variables are read; each function is looked through once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._known: dict[tuple[str, tuple[str, ...], str | None], dict[str, set[str]]] = {}

    def layer_of(self, entry: str, cut: Cut) -> str:
        """The one layer whose variables are read in the scope of a cut; "" without one, or where it bears that name."""
        scope = cut.node.rpartition("/")[0]
        if not scope or entry not in self.model.entries:
            return ""
        key = (entry, cut.stack, cut.function)
        if key not in self._known:
            self._known[key] = self._scopes(*key)
        layers = self._known[key].get(scope, set())
        layer = next(iter(layers)) if len(layers) == 1 else ""
        return "" if f"/{scope}".endswith(f"/{layer}") else layer

    def _scopes(self, entry: str, stack: tuple[str, ...], wanted: str | None) -> dict[str, set[str]]:
        """The layers whose variables are read in each scope of a function, inner scopes and all around them."""
        start = self.model.entries[entry]
        variables = self.model.variables
        names = {value.node: variables[key].name for key, values in start.captures.items() for value in values}
        found = _follow(start.function, names, stack, wanted)
        scopes: dict[str, set[str]] = {}
        if found is not None:
            function, names = found
            for node in function.nodes:
                for layer in {names[v.node].rpartition("/")[0] for v in node.inputs if v.node in names}:
                    scope = node.name
                    while scope:
                        scope = scope.rpartition("/")[0]
                        scopes.setdefault(scope, set()).add(layer)
        return scopes


def _follow(
    function: Function, names: dict[Node, str], stack: tuple[str, ...], wanted: str | None
) -> tuple[Function, dict[Node, str]] | None:
    """The function behind some calls, and the names of the variables that its arguments are."""
    if not stack:
        return (function, names) if function.name == wanted else None
    call = function.by_name.get(stack[0])
    if call is None:
        return None
    inputs = call.inputs[1:] if call.op in BRANCHES else call.inputs
    for name in callees(call):
        inner = function.program.function(name)
        given = {a: names[v.node] for a, v in zip(inner.arguments, inputs, strict=False) if v.node in names}
        found = _follow(inner, given, stack[1:], wanted)
        if found is not None:
            return found
    return None
