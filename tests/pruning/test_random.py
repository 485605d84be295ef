"""Pruning a random program changes no bit of any signature, and what was pruned has nothing dead any more."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradpass as gp
from tests.pruning.oracles import SUFFIX, assert_same_answers, assert_smaller, assert_variables_stay, loaded, values
from tests.random_graphs import COLS, FLOAT_OPS, ROWS, Graph, graphs, run

NAMES = "abcdef"


class Several(tf.Module):
    """A random program on some of six variables, and signatures that each give some of its values.

    What the signatures read of a program is drawn, too: its other values are computed and dropped.
    """

    def __init__(self, graph: Graph, pairs: list[tuple[int, int]], wanted: list[list[int]]) -> None:
        super().__init__()
        for i, name in enumerate(NAMES):
            setattr(self, name, tf.Variable(tf.random.stateless_normal([ROWS, COLS], [i, 1]), name=name))
        self.graph, self.pairs, self.wanted = graph, tuple(pairs), tuple(map(tuple, wanted))
        self.signatures_ = {f"s{i}": self._signature(*each) for i, each in enumerate(zip(pairs, wanted, strict=True))}

    def _signature(self, pair: tuple[int, int], wanted: list[int]) -> Any:
        @tf.function(input_signature=[tf.TensorSpec([ROWS, COLS], tf.float32, name="x")], autograph=False)
        def serve(x: Any) -> dict[str, Any]:
            program = Graph(self.graph.steps, len(self.graph.steps))
            made = run(program, [getattr(self, NAMES[i]) for i in pair], x, flat=False)
            return {"x": tf.identity(x), **{f"y{i}": made[i % len(made)] for i in wanted}}

        return serve


@st.composite
def modules(draw: st.DrawFn) -> Several:
    """One to three signatures, each on two of the variables."""
    graph = draw(graphs())
    number = draw(st.integers(1, 3))
    variables = st.integers(0, len(NAMES) - 1)
    pairs = [draw(st.tuples(variables, variables)) for _ in range(number)]
    wanted = [draw(st.lists(st.integers(0, len(graph.steps) - 1), max_size=2)) for _ in range(number)]
    return Several(graph, pairs, wanted)


@cache
def operands(op: str) -> set[int]:
    """Which of its two values an op of the programs reads, by what TensorFlow makes of it."""
    with tf.Graph().as_default():
        pair = [tf.compat.v1.placeholder(tf.float32, [ROWS, COLS]) for _ in range(2)]
        todo = [FLOAT_OPS[op](*pair).op]
        seen = set()
        while todo:
            each = todo.pop()
            if each not in seen:
                seen.add(each)
                todo += [tensor.op for tensor in each.inputs]
        return {i for i, value in enumerate(pair) if value.op in seen}


def alive(module: Several) -> set[str]:
    """The variables that some output needs: those from which values lead to it."""
    found = set()
    steps = module.graph.steps
    for pair, wanted in zip(module.pairs, module.wanted, strict=True):
        todo = [3 + i % len(steps) for i in wanted]
        while todo:
            value = todo.pop()
            if value < 2:
                found.add(NAMES[pair[value]])
            elif value > 2:
                step = steps[value - 3]
                # A branch reads both: one to choose by, the other to give where the op is not run.
                read_ = {0, 1} if step.wrap == "branch" else operands(step.op)
                todo += [each for i, each in enumerate((step.left, step.right)) if i in read_]
    return found


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(modules())
def test_random_program(module: Several) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        check(module, folder)
    finally:
        shutil.rmtree(folder)


def check(module: Several, folder: Path) -> None:
    """One module: the bits, what is left, and a second pruning."""
    path = folder / "model"
    tf.saved_model.save(module, str(path), signatures=module.signatures_)
    report = gp.prune(path, cross_check=False)
    assert set(report.removed) == set(NAMES) - alive(module)
    if report.output is None:
        return
    pruned = Path(report.output)
    assert_same_answers(loaded(path), loaded(pruned))
    lost = {f"{name}{SUFFIX}" for name in report.removed}
    assert lost <= values(path).keys()
    assert_variables_stay(path, pruned, lost)
    assert_smaller(path, pruned, lost)
    again = gp.prune(pruned, cross_check=False)
    assert again.output is None and not again.removed and again.after is None
    assert sorted(file.name for file in folder.iterdir()) == ["model", "model-pruned"]
