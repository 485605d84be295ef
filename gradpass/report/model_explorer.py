"""Renders a report as a node data overlay for Google's Model Explorer, which shows it over the same model.

What Model Explorer's own classes write (`model_explorer.node_data_builder.ModelNodeData`): by graph the data of nodes.
Its direct adapters for SavedModels and GraphDefs call the top-level graph "main" and each function by its name, and
number the nodes in the order of the file; in a function number 0 is a node that stands for its arguments.
"""

from __future__ import annotations

from typing import Any

from gradpass.errors import GradpassError
from gradpass.program.graph import ARGUMENT, Function, Node
from gradpass.report.diagnostics import Report
from gradpass.report.json import dumps

MAIN = "main"
# Words are counted where numbers would be added up.
SHOWN = {
    "name": "gradpass",
    "hideInAggregatedStatsTable": True,
    "hideInChildrenStatsTable": True,
    "showExpandedSummaryOnGroupNode": True,
}
# Background and letters, to be told apart in Model Explorer's light and dark theme alike.
COLOURS = {
    "cut": ("#b3261e", "#ffffff"),
    "inside": ("#e8a33d", "#1f1f1f"),
    "severed": ("#f5c4c0", "#1f1f1f"),
    "live": ("#b9e4ca", "#1f1f1f"),
}
SAYS = {"severed": "no gradient arrives", "live": "the gradient arrives"}


def render_model_explorer(report: Report) -> str:
    """The overlay's JSON text."""
    return dumps(overlay(report))


def overlay(report: Report) -> dict[str, Any]:
    """The overlay as data: graph id, then `results` by node id."""
    if report.around is None:
        raise GradpassError("an overlay is of a report that `gradpass.check` made, not of one without its model")
    cuts: dict[Node, list[str]] = {}
    inside: dict[Node, list[str]] = {}
    by_function: dict[Function, dict[Node, None]] = {}
    for diagnostic in report.diagnostics:
        if diagnostic.node is None:
            continue
        label = f"{diagnostic.code} {diagnostic.name}"
        cut, calls = report.around.place(diagnostic)
        cuts.setdefault(cut, []).append(label)
        for call in (*report.around.callers(diagnostic), *calls):
            inside.setdefault(call, []).append(f"{label} inside")
        for node in (*calls, cut):
            by_function.setdefault(node.function, {})[node] = None
    marks: dict[Node, tuple[str, str]] = {}
    for function, nodes in by_function.items():
        for node, state in report.around.states(function, nodes).items():
            if state != "cut" and node.op != ARGUMENT:
                marks[node] = state, SAYS[state]
    for kind, labelled in (("inside", inside), ("cut", cuts)):
        marks.update((node, (kind, "; ".join(dict.fromkeys(labels)))) for node, labels in labelled.items())
    graphs: dict[str, dict[str, Any]] = {}
    for node in sorted(marks, key=lambda node: (_graph_id(node.function), node.position)):
        kind, says = marks[node]
        background, letters = COLOURS[kind]
        data = {"value": says, "bgColor": background, "textColor": letters}
        graph = graphs.setdefault(_graph_id(node.function), {"results": {}, **SHOWN})
        graph["results"][node_id(node)] = data
    return graphs


def node_id(node: Node) -> str:
    """What Model Explorer calls a node within its graph."""
    return str(node.position + (not node.function.is_graph))


def _graph_id(function: Function) -> str:
    return MAIN if function.is_graph else str(function.name)
