"""`check_step`: a whole training step, traced once: what is differentiated, what is applied, what is forgotten."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gradpass import __version__
from gradpass.errors import TargetError
from gradpass.flow import edges
from gradpass.live.constants import own_names, reachable
from gradpass.live.frameworks import keras_of
from gradpass.live.left import Left, left_graph, said, user_line
from gradpass.live.stepping.applied import Applied, Computed
from gradpass.live.stepping.asked import Gradients
from gradpass.live.stepping.findings import Findings
from gradpass.live.stepping.place import Place
from gradpass.live.stepping.tapes import Asked, Record, watching
from gradpass.live.target import as_tensors, label_of
from gradpass.program.trace import of_function
from gradpass.report.diagnostics import Report
from gradpass.report.words import quoted, visible

# What Keras 3 and tf_keras say when an optimizer meets a variable for which it has no slots.
FOREIGN = re.compile(r"Unknown variable|cannot recognize variable|can only be called for the variables it was")
# What Keras says when all gradients are None, which is told by cause here.
ALL_NONE = re.compile(r"No gradients provided for any variable")


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
        self.findings = Findings(self.label, own_names(step))
        self.models = _models(step, inputs)
        self.model = of_function(self.concrete, label=self.label, inline=True)

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
        findings = self.findings
        asked = [each for each in self.record.asked if each.losses]
        error = self.record.error
        left = left_graph(error) if error is not None else None
        if error is not None and not self._told(error, left, bool(asked)):
            raise self._untraceable(error) from error
        numbers = {id(each): f"loss_{i}" if i else "loss" for i, each in enumerate(asked)}
        computed: list[Computed] = []
        for graph in _graphs(asked, self.concrete.graph):
            here = [each for each in asked if each.mark.graph is graph]
            place = Place(self.concrete, self.model, graph, here)
            for each in here:
                Gradients(findings, place).look(each, numbers[id(each)])
            if error is None:  # what was to come after it is not known
                applied = Applied(findings, place, self.models)
                computed.append(applied.look(here, Computed.into(place.function, computed)))
                if graph is self.concrete.graph:
                    applied.forgotten(computed)
        if not asked and error is None:
            findings.add("GP516", entry=quoted(self.label))
        table = edges.table_for(tf.version.VERSION).version
        return Report(self.label, findings.entries, findings.found, __version__, table, model=self.model)

    def _told(self, error: Exception, left: Left | None, asked: bool) -> bool:
        """Whether the exception with which the step ended is a finding of its own, or follows from others."""
        text = str(error)
        if FOREIGN.search(text) or _raising(error, FOREIGN):
            told = said(error) if FOREIGN.search(text) else "Unknown variable"
            self.findings.add("GP506", source=user_line(error), error=visible(told))
            return True
        if left is not None:
            outcome = "the rest of the step cannot be traced" if asked else "no gradient passes it"
            read = [] if asked else [variable for variable in self.concrete.variables if variable.trainable]
            names = self.findings.untrained(read) if read else []
            self.findings.add("GP510", names, left.source, what=quoted(left.what), outcome=outcome)
            self.findings.found[-1].severity = "note" if asked else "error"
            self.findings.found[-1].notes.append(f"TensorFlow says: {said(error)}")
            return True
        if isinstance(error, RuntimeError) and "non-persistent GradientTape" in text:
            self.findings.add("GP507", source=user_line(error))
            return True
        return bool(ALL_NONE.search(text))


def _raising(error: BaseException, words: re.Pattern[str]) -> bool:
    """Whether an exception came up while another was being worded: Keras 3.12 shows the variable's value in its words,
    which it has none of while it is traced."""
    frames = traceback.extract_tb(error.__traceback__)
    around = ("".join(linecache.getlines(f.filename)[(f.lineno or 1) - 3 : (f.lineno or 1) + 2]) for f in frames[-8:])
    return any(words.search(text) for text in around)


def _models(step: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """The Keras models and tf.Modules that a step can reach, each with what it trains; the outermost first."""
    found = {
        id(item): item
        for source in (step, *inputs)
        for _, item in reachable(source)
        if isinstance(item, tf.Module) or keras_of(item) is not None
    }
    return list(found.values())


def _graphs(asked: list[Asked], whole: Any) -> list[Any]:
    """The graphs in which gradients are asked and those that run them up to the `whole`, the innermost first."""
    depths: dict[int, tuple[int, Any]] = {}
    for each in asked:
        chain = [each.mark.graph]
        while chain[-1] is not whole and getattr(chain[-1], "outer_graph", None) is not None:
            chain.append(chain[-1].outer_graph)
        depths.update((id(graph), (len(chain) - i, graph)) for i, graph in enumerate(chain))
    return [graph for _, graph in sorted(depths.values(), key=lambda item: -item[0])]
