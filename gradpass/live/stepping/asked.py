"""What a tape gives: why a gradient that was asked for is None, and what else is the matter with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradpass.flow.analysis import analyse
from gradpass.flow.verdict import State
from gradpass.live.frameworks import is_variable, plain
from gradpass.live.stepping.findings import Findings
from gradpass.live.stepping.place import Place, captures_of
from gradpass.live.stepping.tapes import Asked
from gradpass.program.graph import Node, Value
from gradpass.program.model import Entry, Live
from gradpass.program.trace import Named, handle_of, of_function
from gradpass.report.build import build
from gradpass.report.diagnostics import Source
from gradpass.report.words import quoted

COMPARING = ("Sub", "SquaredDifference")


class Gradients:
    """Looks at each call of `tape.gradient` in one graph."""

    def __init__(self, findings: Findings, place: Place) -> None:
        self.findings = findings
        self.place = place

    def look(self, asked: Asked, name: str) -> None:
        """The findings about one call of `tape.gradient`."""
        line = self.place.line(asked.mark.name)
        pairs = list(zip(asked.sources, asked.results, strict=True))
        named = self.findings.named([source for source, _ in pairs])
        tensors = [n for n, (s, r) in zip(named, pairs, strict=True) if not is_variable(s) and r is None]
        if tensors:
            self.findings.add("GP512", tensors, line, gets="gets None" if len(tensors) == 1 else "get None")
        variables = {handle_of(plain(s)): (n, s, r) for n, (s, r) in zip(named, pairs, strict=True) if is_variable(s)}
        frozen = [n for n, s, r in variables.values() if r is None and not s.trainable]
        if frozen:
            self.findings.add("GP513", frozen, line)
            self.findings.found[-1].unused, self.findings.found[-1].starves = self.findings.found[-1].starves, []
        learning = {key: each for key, each in variables.items() if each[1].trainable or each[2] is not None}
        if learning:
            self._of_variables(asked, name, learning)
        self._of_shape(asked, line)
        self._of_labels(asked)

    def _of_variables(self, asked: Asked, name: str, variables: dict[int, tuple[str, Any, Any]]) -> None:
        """Why variables get None: by the graph of the loss, or because the tape saw only a part of it."""
        here = [loss for loss in asked.losses if self.place.is_here(loss)]
        losses = {f"{name}_{i}" if i else name: self.place.value(loss) for i, loss in enumerate(here)}
        listed = [Named(n, plain(variable), True) for n, variable, _ in variables.values()]
        model = of_function(self.place.concrete, listed, label=self.findings.label, inline=True)
        (whole,) = model.entries.values()
        inside = model.program.function(str(self.place.function.name))
        held = captures_of(model, inside)
        known = {value for values in held.values() for value in values}
        inputs = (
            whole.inputs
            if inside is whole.function
            else {argument.name: argument.output(0) for argument in inside.arguments if argument.output(0) not in known}
        )
        outputs = {n: inside.by_name[v.node.name].output(v.port) for n, v in losses.items()}
        captures = {key: held.get(key, []) for key in variables}
        model.entries = {name: Entry(name, inside, inputs, outputs, captures, inline=True)}
        model.captured = set(variables)
        model.variables = {key: model.variables[key] for key in variables}
        model.live = Live(self.findings.label)
        report = build(model, analyse(model, name))
        (entry,) = report.entries
        results = {n: result for n, _, result in variables.values()}
        keys = {n: key for key, (n, _, _) in variables.items()}
        unseen = []
        for i, target in enumerate(entry.targets):
            state: State = "none" if results[target.path] is None else target.state
            if state == "none" and target.state == "flows":
                unseen.append(target.path)
            entry.targets[i] = replace(target, state=state)
        for one in report.diagnostics:
            self.findings.found.append(one)
        first = len(self.findings.found) - len(report.diagnostics)
        entry.targets = [replace(t, diagnostics=[i + first for i in t.diagnostics]) for t in entry.targets]
        self.findings.entries.append(entry)
        self._of_unseen(asked, {path: captures[keys[path]] for path in unseen}, list(losses.values()), variables, keys)
        self._of_reassigned(asked, {n: captures[key] for key, (n, _, r) in variables.items() if r is not None})

    def _of_unseen(
        self,
        asked: Asked,
        reads: dict[str, list[Value]],
        losses: list[Value],
        variables: dict[int, tuple[str, Any, Any]],
        keys: dict[str, int],
    ) -> None:
        """Variables that the loss depends on, and that the tape knows nothing of."""
        watched = {handle_of(plain(each)) for each in asked.tape.watched if is_variable(each)}
        unwatched: list[str] = []
        before: dict[Node, list[str]] = {}
        for name, values in reads.items():
            ways = self.place.wiring.between([self.place.here(value) for value in values], losses)
            outside = [node for node in ways if not asked.tape.saw(self.place.made.get(node.name, 0))]
            if not asked.tape.watches_all and handle_of(plain(variables[keys[name]][1])) not in watched:
                unwatched.append(name)
            elif outside:
                telling = [node for node in outside if node.op not in ("ReadVariableOp", "Identity")] or outside
                before.setdefault(telling[0], []).append(name)
        if unwatched:
            gets = "it gets None" if len(unwatched) == 1 else "they get None"
            self.findings.add("GP505", unwatched, self.place.line(asked.mark.name), gets=gets)
        lines: dict[Any, list[Node]] = {}
        for node in before:
            lines.setdefault(self.place.line(node.name) or node, []).append(node)
        for nodes in lines.values():
            names = [name for node in nodes for name in before[node]]
            gets = "gets None" if len(names) == 1 else "get None"
            self.findings.add(
                "GP504", names, self.place.line(nodes[0].name), node=nodes[0], what=quoted(nodes[0].name), gets=gets
            )

    def _of_reassigned(self, asked: Asked, reads: dict[str, list[Value]]) -> None:
        """Variables that are assigned between the tape's first read of them and the gradient."""
        at, wiring = self.place.made[asked.mark.name], self.place.wiring
        changed: dict[str, Node] = {}
        for name, values in reads.items():
            handles = {self.place.here(value) for value in values}
            places = [self.place.made[n.name] for n in self.place.readers(handles) if n.name in self.place.made]
            first = min((place for place in places if asked.tape.saw(place)), default=at)
            for key in {wiring.owner(handle) for handle in handles}:
                between = [a.node for a in wiring.assigned(key) if first < wiring.position[a.node] < at]
                if between:
                    changed[name] = between[0]
        if changed:
            node = next(iter(changed.values()))
            self.findings.add("GP514", changed, self.place.line(node.name), node=node)

    def _of_shape(self, asked: Asked, line: Source | None) -> None:
        for loss in asked.losses:
            if loss.shape.rank and not asked.weighted:
                self.findings.add("GP508", source=line, shape=str(loss.shape))

    def _of_labels(self, asked: Asked) -> None:
        """Predictions and labels whose shapes broadcast to a square."""
        graph = self.place.graph
        reads = [self.place.here(v) for values in self.place.captures.values() for v in values]
        losses = [self.place.value(loss) for loss in asked.losses if self.place.is_here(loss)]
        for node in self.place.wiring.between(reads, losses):
            if node.op not in COMPARING or node.name not in self.place.made:
                continue
            shapes = [tensor.shape for tensor in graph.get_operation_by_name(node.name).inputs]
            ranks = sorted(shapes, key=lambda shape: shape.rank or 0)
            low, high = ranks[0], ranks[-1]
            if low.rank == 1 and high.rank == 2 and high[1] == 1 and low[0] == high[0] and low[0] != 1:
                self.findings.add("GP509", source=self.place.line(node.name), node=node, what=quoted(node.name),
                          shape=f"{high} with {low}")  # fmt: skip
