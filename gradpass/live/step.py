"""`check_step`: a whole training step, traced once: what is differentiated, what is applied, what is forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from gradpass import __version__
from gradpass.errors import TargetError
from gradpass.flow import edges
from gradpass.flow.analysis import analyse
from gradpass.flow.facts import BRANCHES, LOOPS, callees
from gradpass.flow.verdict import State
from gradpass.live.constants import own_names, reachable
from gradpass.live.frameworks import is_variable, keras_of, name_of, plain, unique
from gradpass.live.left import Left, left_graph, said, user_line
from gradpass.live.tapes import Asked, Record, watching
from gradpass.live.target import as_tensors, label_of
from gradpass.live.wiring import Wiring
from gradpass.program.graph import Function, Node, Value
from gradpass.program.model import UNNAMED, Entry, Live, Model
from gradpass.program.trace import LIVE, Named, handle_of, of_function
from gradpass.report.build import build
from gradpass.report.codes import find
from gradpass.report.diagnostics import Diagnostic, Fix, Report, Source, Target
from gradpass.report.diagnostics import Entry as ReportEntry
from gradpass.report.sources import source_of
from gradpass.report.words import quoted, visible, whom

# What Keras 3 and tf_keras say when an optimizer meets a variable for which it has no slots.
FOREIGN = re.compile(r"Unknown variable|cannot recognize variable|can only be called for the variables it was")
# What Keras says when all gradients are None, which is told by cause here.
ALL_NONE = re.compile(r"No gradients provided for any variable")
COMPARING = ("Sub", "SquaredDifference")


def check_step(train_step: Callable[..., Any], *inputs: Any) -> Report:
    """What a training step does with its gradients: a finding for each that is missing, unused or misplaced.

    `train_step` is called as the loop calls it, with arrays, tensors or tf.TensorSpecs; it may be a tf.function, or
    `model.train_step`. It is traced once and not run: variables stay as they are, but an optimizer makes its slots in
    the first trace, as it would in the first step. Targets are the variables whose gradients are asked, and those that
    models in the step's reach train and that it forgets. Raises GradpassError where it cannot be traced.
    """
    if isinstance(train_step, tf.types.experimental.PolymorphicFunction):
        train_step = train_step.python_function
    return _Step(train_step, as_tensors(inputs, None)).report()


class _Step:
    """One step while it is looked at."""

    def __init__(self, step: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.step = step
        self.label = label_of(step)
        self.record = Record()
        self.concrete = self._trace(inputs)
        self.written = own_names(step)
        self.models = _models(step, inputs)
        self.model = of_function(self.concrete, label=self.label, inline=True)
        self.variables = {handle_of(v): v for v in self.concrete.variables}
        self.entries: list[ReportEntry] = []
        self.found: list[Diagnostic] = []
        self._enter(self.concrete.graph, [])

    def _enter(self, graph: Any, asked: list[Asked]) -> None:
        """Turns to one graph of the step: its own, or that of a function, loop or branch in which a tape is asked."""
        self.graph = graph
        (entry,) = self.model.entries.values()
        marks = {each.mark.name for each in asked}
        held = map(self.model.program.function, self.model.program.functions)
        inner = next((f for f in held if marks and marks <= f.by_name.keys()), entry.function)
        self.function: Function = entry.function if graph is self.concrete.graph else inner
        self.captures = _captures(self.model, self.function)
        owners = {value: key for key, values in self.captures.items() for value in values}
        self.made = {op.name: i for i, op in enumerate(graph.get_operations())}
        self.wiring = Wiring(self.function, owners, self.made)

    def _trace(self, inputs: tuple[Any, ...]) -> Any:
        record, step = self.record, self.step

        def traced(*inputs: Any) -> Any:
            record.reset()
            try:
                return step(*inputs)
            except Exception as error:  # whatever the user's code raises: the graph until there is judged
                record.error = error
                return None

        with watching(record):
            try:
                return tf.function(traced).get_concrete_function(*inputs)
            except Exception as error:
                raise self._untraceable(error) from error

    def _untraceable(self, error: BaseException) -> TargetError:
        line = user_line(error)
        where = f" ({line.file}:{line.line})" if line else ""
        return TargetError(f"{quoted(self.label)} cannot be traced{where}: {said(error)}")

    def report(self) -> Report:
        """All findings, those of the graph of each loss first."""
        asked = [each for each in self.record.asked if each.losses]
        error = self.record.error
        left = left_graph(error) if error is not None else None
        told = error is None or self._told(error, left, bool(asked))
        if error is not None and not told:
            raise self._untraceable(error) from error
        numbers = {id(each): f"loss_{i}" if i else "loss" for i, each in enumerate(asked)}
        for graph in {id(each.mark.graph): each.mark.graph for each in asked}.values():
            here = [each for each in asked if each.mark.graph is graph]
            self._enter(graph, here)
            for each in here:
                self._of_gradient(each, numbers[id(each)])
            self._of_applying(here)
        if not asked and error is None:
            self._add("GP516", entry=quoted(self.label))
        table = edges.table_for(tf.version.VERSION).version
        return Report(self.label, self.entries, self.found, __version__, table, model=self.model)

    # What ended the trace

    def _told(self, error: Exception, left: Left | None, asked: bool) -> bool:
        """Whether the exception with which the step ended is a finding of its own, or follows from others."""
        text = str(error)
        if left is not None:
            outcome = "the rest of the step cannot be traced" if asked else "no gradient passes it"
            self._add("GP510", source=left.source, what=quoted(left.what), outcome=outcome)
            self.found[-1].severity = "note" if asked else "error"
            self.found[-1].notes.append(f"TensorFlow says: {said(error)}")
            return True
        if isinstance(error, RuntimeError) and "non-persistent GradientTape" in text:
            self._add("GP507", source=user_line(error))
            return True
        if FOREIGN.search(text):
            self._add("GP506", source=user_line(error), error=visible(said(error)))
            return True
        return bool(ALL_NONE.search(text))

    # What each gradient is

    def _of_gradient(self, asked: Asked, name: str) -> None:
        """The findings about one call of `tape.gradient`."""
        line = self._line(asked.mark.name)
        pairs = list(zip(asked.sources, asked.results, strict=True))
        named = self._named([source for source, _ in pairs])
        tensors = [n for n, (s, r) in zip(named, pairs, strict=True) if not is_variable(s) and r is None]
        if tensors:
            self._add("GP512", tensors, line, gets="gets None" if len(tensors) == 1 else "get None")
        variables = {handle_of(plain(s)): (n, s, r) for n, (s, r) in zip(named, pairs, strict=True) if is_variable(s)}
        frozen = [n for n, s, r in variables.values() if r is None and not s.trainable]
        if frozen:
            self._add("GP513", frozen, line)
            self.found[-1].unused, self.found[-1].starves = self.found[-1].starves, []
        learning = {key: each for key, each in variables.items() if each[1].trainable or each[2] is not None}
        if learning:
            self._of_variables(asked, name, learning)
        self._of_shape(asked, line)
        self._of_labels(asked)

    def _of_variables(self, asked: Asked, name: str, variables: dict[int, tuple[str, Any, Any]]) -> None:
        """Why variables get None: by the graph of the loss, or because the tape saw only a part of it."""
        here = [loss for loss in asked.losses if self._is_here(loss)]
        losses = {f"{name}_{i}" if i else name: self._value(loss) for i, loss in enumerate(here)}
        listed = [Named(n, plain(variable), True) for n, variable, _ in variables.values()]
        model = of_function(self.concrete, listed, label=self.label, inline=True)
        (whole,) = model.entries.values()
        inside = model.program.function(str(self.function.name))
        held = _captures(model, inside)
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
        model.live = Live(self.label)
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
            self.found.append(one)
        first = len(self.found) - len(report.diagnostics)
        entry.targets = [replace(t, diagnostics=[i + first for i in t.diagnostics]) for t in entry.targets]
        self.entries.append(entry)
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
            ways = self.wiring.between([self._here(value) for value in values], losses)
            outside = [node for node in ways if not asked.tape.saw(self.made.get(node.name, 0))]
            if not asked.tape.watches_all and handle_of(plain(variables[keys[name]][1])) not in watched:
                unwatched.append(name)
            elif outside:
                telling = [node for node in outside if node.op not in ("ReadVariableOp", "Identity")] or outside
                before.setdefault(telling[0], []).append(name)
        if unwatched:
            gets = "it gets None" if len(unwatched) == 1 else "they get None"
            self._add("GP505", unwatched, self._line(asked.mark.name), gets=gets)
        lines: dict[Any, list[Node]] = {}
        for node in before:
            lines.setdefault(self._line(node.name) or node, []).append(node)
        for nodes in lines.values():
            names = [name for node in nodes for name in before[node]]
            gets = "gets None" if len(names) == 1 else "get None"
            self._add("GP504", names, self._line(nodes[0].name), node=nodes[0], what=quoted(nodes[0].name), gets=gets)

    def _of_reassigned(self, asked: Asked, reads: dict[str, list[Value]]) -> None:
        """Variables that are assigned between the tape's first read of them and the gradient."""
        at = self.made[asked.mark.name]
        changed: dict[str, Node] = {}
        for name, values in reads.items():
            handles = {self._here(value) for value in values}
            places = [self.made[n.name] for n in self._readers(handles) if n.name in self.made]
            first = min((place for place in places if asked.tape.saw(place)), default=at)
            for key in {self.wiring.owner(handle) for handle in handles}:
                between = [a.node for a in self.wiring.assigned(key) if first < self.wiring.position[a.node] < at]
                if between:
                    changed[name] = between[0]
        if changed:
            node = next(iter(changed.values()))
            self._add("GP514", changed, self._line(node.name), node=node)

    def _readers(self, handles: set[Value]) -> list[Node]:
        assigning = {each.node for each in self.wiring.assignments}
        return [n for n in self.function.nodes if n not in assigning and not handles.isdisjoint(n.inputs)]

    def _of_shape(self, asked: Asked, line: Source | None) -> None:
        for loss in asked.losses:
            if loss.shape.rank and not asked.weighted:
                self._add("GP508", source=line, shape=str(loss.shape))

    def _of_labels(self, asked: Asked) -> None:
        """Predictions and labels whose shapes broadcast to a square."""
        graph = self.graph
        reads = [self._here(v) for values in self.captures.values() for v in values]
        losses = [self._value(loss) for loss in asked.losses if self._is_here(loss)]
        for node in self.wiring.between(reads, losses):
            if node.op not in COMPARING or node.name not in self.made:
                continue
            shapes = [tensor.shape for tensor in graph.get_operation_by_name(node.name).inputs]
            ranks = sorted(shapes, key=lambda shape: shape.rank or 0)
            low, high = ranks[0], ranks[-1]
            if low.rank == 1 and high.rank == 2 and high[1] == 1 and low[0] == high[0] and low[0] != 1:
                self._add("GP509", source=self._line(node.name), node=node, what=quoted(node.name),
                          shape=f"{high} with {low}")  # fmt: skip

    # What becomes of the gradients

    def _of_applying(self, asked: list[Asked]) -> None:
        """Gradients that go nowhere or to others, variables that no list has."""
        sought: dict[Value, int] = {}
        names: dict[int, str] = {}
        lines: dict[int, Source | None] = {}
        for each in asked:
            for name, source, result in zip(self._named(each.sources), each.sources, each.results, strict=True):
                if not is_variable(source):
                    continue
                key = handle_of(plain(source))
                names[key] = name
                lines.setdefault(key, self._line(each.mark.name))
                if result is not None:
                    parts = tf.nest.flatten(result, expand_composites=True)
                    sought.update((self._value(part), key) for part in parts if self._is_here(part))
        computed = set(sought.values())
        nearest = {
            key: [
                self.wiring.nearest(a.inputs, sought, self.wiring.position[a.node]) for a in self.wiring.assigned(key)
            ]
            for key in {a.variable for a in self.wiring.assignments}
        }
        own = {key for key, by in nearest.items() if any(key in gradients for gradients in by)}
        astray: dict[int, set[int]] = {}
        for key, by in nearest.items():
            for gradient in set().union(*by) - own if key not in own else ():
                astray.setdefault(gradient, set()).add(key)
        results = list(self.function.results)
        ends = [*results, *(self._value(loss) for each in asked for loss in each.losses if self._is_here(loss))]
        idle = [
            key
            for key in computed - own - astray.keys()
            if not self.wiring.reaches([value for value, k in sought.items() if k == key], ends)
        ]
        if self.record.error is not None:
            return  # what was to come is not known
        assigned = {a.variable for a in self.wiring.assignments}
        if idle and set(idle) == computed and not any(map(self._is_trainable, assigned)):
            self._add("GP500", self._ordered(names, idle), lines[idle[0]], entry=quoted(self.label))
        elif idle:
            stale = [key for key in idle if key not in assigned]
            if stale:
                self._add("GP501", self._ordered(names, stale), lines[stale[0]])
            if set(idle) - set(stale):
                keys = [key for key in idle if key in assigned]
                node = self.wiring.assigned(keys[0])[0].node
                self._add("GP515", self._ordered(names, keys), self._line(node.name), node=node)
        if astray:
            others = [self._name(self.variables[key]) for key in dict.fromkeys(k for ks in astray.values() for k in ks)]
            node = self.wiring.assigned(next(iter(next(iter(astray.values())))))[0].node
            self._add("GP503", self._ordered(names, astray), self._line(node.name), node=node,
                      others=whom(others, "variable"))  # fmt: skip
        if asked:
            self._of_forgotten(names.keys(), assigned, lines)

    def _of_forgotten(self, asked: Iterable[int], assigned: set[int], lines: dict[int, Source | None]) -> None:
        """Trainable variables of models that the step uses, which it neither differentiates nor assigns."""
        known = {*asked, *assigned}
        read = set(self.captures)
        forgotten: dict[int, Any] = {}
        for model in self.models:
            mine = {handle_of(plain(v)): v for v in model.trainable_variables}
            # A model of which nothing is asked is used as it is: a teacher, a loss network.
            if mine.keys() & set(asked):
                forgotten.update((k, v) for k, v in mine.items() if k not in known and k in read)
        if not forgotten:
            return
        names = self._named(list(forgotten.values()))
        targets = [
            Target(n, n, "variable", plain(v).dtype.name, tuple(v.shape), _size(v), "none", "none")
            for n, v in zip(names, forgotten.values(), strict=True)
        ]
        self.entries.append(ReportEntry(LIVE, [], targets))
        line = next(iter(lines.values()), None)
        self._add("GP502", names, line, entry=quoted(self.label))

    # Words

    def _add(
        self,
        number: str,
        names: Iterable[str] = (),
        source: Source | None = None,
        node: Node | None = None,
        **words: str,
    ) -> None:
        """A finding; and its number with the targets that it concerns."""
        code = find(number)
        listed = list(names)
        several = {"whom": whom(listed, "variable"), "them": "it" if len(listed) == 1 else "them"}
        index = len(self.found)
        concerned = [target for entry in self.entries for target in entry.targets if target.path in listed]
        for target in concerned:
            target.diagnostics.append(index)
        flowing = {target.path for target in concerned if not target.starved}
        self.found.append(
            Diagnostic(
                code.code,
                code.name,
                code.severity,
                code.message.format(**several, **words),
                code.advice(),
                op=node.op if node else None,
                node=node.name if node else None,
                function=node.function.name if node else None,
                entries=[],
                source=source,
                starves=[name for name in listed if name not in flowing],
                affects=[name for name in listed if name in flowing],
                parameters=sum({target.path: target.parameters for target in concerned}.values()),
                fix=Fix("advise"),
            )
        )

    def _named(self, variables: list[Any]) -> list[str]:
        return unique(self._name(each) for each in variables)

    def _name(self, variable: Any) -> str:
        written = self.written.get(handle_of(plain(variable)))
        if not is_variable(variable):
            return written or f"tensor of shape {tuple(variable.shape)}"
        name = name_of(variable)
        return written if written and UNNAMED.match(name) else name

    @staticmethod
    def _ordered(names: dict[int, str], keys: Iterable[int]) -> list[str]:
        wanted = set(keys)
        return [name for key, name in names.items() if key in wanted]

    def _is_trainable(self, key: int) -> bool:
        variable = self.variables.get(key)
        return variable is not None and bool(variable.trainable)

    # Places

    def _line(self, node: str) -> Source | None:
        return source_of(self.model.debug_info, self.function.name, node)

    def _is_here(self, tensor: Any) -> bool:
        """Whether a tensor is of the graph that is looked at."""
        return getattr(tensor, "graph", None) is self.graph

    def _value(self, tensor: Any) -> Value:
        return self.function.by_name[tensor.op.name].output(tensor.value_index)

    def _here(self, value: Value) -> Value:
        """A value of another reading of the same graph, in this one."""
        return self.function.by_name[value.node.name].output(value.port)


def _captures(model: Model, function: Function) -> dict[Any, list[Value]]:
    """The variables that a function of a model takes, by key: captured by the entry, or handed on by who runs it."""
    (entry,) = model.entries.values()
    if function is entry.function:
        return entry.captures
    for name in [str(entry.function.name), *model.program.functions]:
        outer = model.program.function(name)
        for node in outer.nodes if outer is not function else ():
            if function.name in (*callees(node), *([node.attr("cond").func.name] if node.op in LOOPS else ())):
                skip = 1 if node.op in BRANCHES else 0
                owners = {value: key for key, values in _captures(model, outer).items() for value in values}
                found: dict[Any, list[Value]] = {}
                for argument, value in zip(function.arguments, node.inputs[skip:], strict=False):
                    if value in owners:
                        found.setdefault(owners[value], []).append(argument.output(0))
                return found
    return {}


def _models(step: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """The Keras models and tf.Modules that a step can reach, each with what it trains; the outermost first."""
    found = {
        id(item): item
        for source in (step, *inputs)
        for _, item in reachable(source)
        if isinstance(item, tf.Module) or keras_of(item) is not None
    }
    return list(found.values())


def _size(variable: Any) -> int:
    return int(plain(variable).shape.num_elements() or 0)
