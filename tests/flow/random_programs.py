"""Random programs of ops of all kinds in calls, branches and loops, as one SavedModel with a signature for each.

A program is a list of steps over a growing pool of values, each of a kind (`random_ops`). A step computes an op, or it
runs blocks: lists of steps that see the pool outside of them, so that functions, branches and loops capture tensors and
variables, or get them as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.flow.random_ops import DTYPES, GROUPS, MAKE, OPS, SHAPE

Run = Callable[..., list[Any]]


@dataclass(frozen=True)
class Block:
    """Steps over the pool outside and the block's own arguments; `results` are places in that longer pool."""

    arguments: str
    steps: tuple[Step, ...]
    results: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """An op on values of the pool, or a way to run blocks on them; `results` are the kinds that it adds to the pool."""

    op: str
    values: tuple[int, ...]
    results: str
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Program:
    """A program: its variables, its inputs, and what it computes of both."""

    variables: str
    inputs: str
    block: Block

    def names(self) -> list[str]:
        """The names of its variables in `Programs`."""
        return [f"{kind}{self.variables[:i].count(kind)}" for i, kind in enumerate(self.variables)]

    def specs(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec(shape(kind), DTYPES[kind], f"x{i}") for i, kind in enumerate(self.inputs)]


def kinds(outer: str, block: Block) -> str:
    """The kinds of a block's pool, when all its steps are made."""
    return outer + block.arguments + "".join(step.results for step in block.steps)


def every(block: Block) -> Iterator[Step]:
    """All steps of a block, those inside of steps too."""
    for step in block.steps:
        yield step
        for inner in step.blocks:
            yield from every(inner)


def places(step: Step) -> Iterator[int]:
    """The places in the pool that a step reads, itself or in its blocks."""
    yield from step.values
    for block in step.blocks:
        yield from block.results
        for inner in block.steps:
            yield from places(inner)


# How blocks are run: kinds of the values handed over, kinds of the results, number of blocks.


def call(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    return list(tf.function(run[0], autograph=False)(*values))


def call_none(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    """A call with a result that is None, and others that nobody uses."""

    def body(*inner: Any) -> list[Any]:
        return [None, *run[0](*inner), *(tf.tanh(v) for v in inner if v.dtype == tf.float32)]

    return list(tf.function(body, autograph=False)(*values)[1 : 1 + len(step.results)])


def twice(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    """One function called from two places."""
    function, half = tf.function(run[0], autograph=False), len(values) // 2
    return [*function(*values[:half]), *function(*values[half:])]


def branch(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    return list(tf.cond(values[0], run[0], run[1]))


def case(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    return list(tf.switch_case(values[0][0], [*run]))


def loop(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    values = [tf.convert_to_tensor(v) for v in values]
    return list(tf.while_loop(lambda i, *_: i < 3, lambda i, *v: (i + 1, *run[0](*v)), (0, *values))[1:])


def loop_bounded(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    values = [tf.convert_to_tensor(v) for v in values]
    body = lambda i, *v: (i + 1, *run[0](*v))  # noqa: E731
    return list(tf.while_loop(lambda i, *_: i < 9, body, (0, *values), maximum_iterations=2)[1:])


def loop_until(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    """A loop whose end depends on its values."""
    values = [tf.convert_to_tensor(v) for v in values]
    going = lambda i, *v: (i < 1) | ((i < 3) & (tf.reduce_sum(tf.cast(v[0], tf.float32)) < 9.0))  # noqa: E731
    return list(tf.while_loop(going, lambda i, *v: (i + 1, *run[0](*v)), (0, *values))[1:])


def mapped(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    return list(tf.unstack(tf.map_fn(lambda e: run[0](e)[0], tf.stack(values))))


def scanned(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    stacked = tf.stack([tf.convert_to_tensor(v) for v in values[1:]])
    return list(tf.unstack(tf.scan(lambda s, e: run[0](s, e)[0], stacked, tf.convert_to_tensor(values[0]))))


def collected(step: Step, values: list[Any], run: list[Run]) -> list[Any]:
    """A loop that fills a TensorArray with one of its values and carries the other."""

    def body(i: Any, carried: Any, held: Any) -> Any:
        new, kept = run[0](carried)
        return i + 1, new, held.write(i, kept)

    start = (0, tf.convert_to_tensor(values[0]), tf.TensorArray(tf.float32, 3, element_shape=SHAPE))
    _, last, held = tf.while_loop(lambda i, *_: i < 3, body, start)
    return [last, tf.reduce_sum(held.stack(), 0), held.read(1)]


# name -> (kinds of values; None: any), (kinds of the blocks' arguments; None: those of the values), results; None: any
RUNNERS: dict[str, tuple[Callable[..., list[Any]], str | None, tuple[str | None, ...], str | None]] = {
    "call": (call, None, (None,), None),
    "call_none": (call_none, None, (None,), None),
    "twice": (twice, None, (None,), None),
    "branch": (branch, "P", ("", ""), None),
    "case": (case, "R", ("", "", ""), None),
    "loop": (loop, None, (None,), None),
    "loop_bounded": (loop_bounded, None, (None,), None),
    "loop_until": (loop_until, None, (None,), None),
    "mapped": (mapped, "FF", ("F",), "FF"),
    "scanned": (scanned, "FFF", ("FF",), "FF"),
    "collected": (collected, "F", ("F",), "FFF"),
}
BLOCK_RESULTS = {"mapped": "F", "scanned": "F", "collected": "FF"}


def run(block: Block, outer: list[Any], *arguments: Any) -> list[Any]:
    """Computes a block's results."""
    pool = [*outer, *arguments]
    for step in block.steps:
        values = [pool[i] for i in step.values]
        if step.blocks:
            inner = [partial(run, b, list(pool)) for b in step.blocks]
            pool += RUNNERS[step.op][0](step, values, inner)
        else:
            signature, function = OPS[step.op]
            takes = signature.split(">")[0]
            got = function(*(v if k.islower() else tf.convert_to_tensor(v) for k, v in zip(takes, values, strict=True)))
            pool += got if len(step.results) > 1 else [got]
    return [tf.convert_to_tensor(pool[i]) for i in block.results]


def fits(kind: str, wanted: str) -> bool:
    """Whether a value serves where another kind is wanted: a variable is read."""
    return kind == wanted or kind.upper() == wanted


def signature(name: str) -> tuple[str, str]:
    takes, gives = OPS[name][0].split(">")
    return takes, gives


# How often a step is of which group; "blocks" stands for steps that run blocks, by how deep those may still go.
WEIGHTS = {"live": 10, "cutting": 5, "several": 2}
BLOCKS = {2: 6, 1: 2, 0: 0}
MIX = {
    depth: [group for group, weight in {**WEIGHTS, "blocks": blocks}.items() for _ in range(weight)]
    for depth, blocks in BLOCKS.items()
}
RARE = 40  # of so many steps one is of an op that has no gradient

# Some programs have few ops, which meet more often then. Of none: all ops.
THEMES: dict[str, tuple[str, ...]] = {
    "slices": (
        "rows", "embed", "gather_nd", "variable_rows", "variable_nd", "identity", "identities_float", "minus", "add",
        "halves", "scatter_add", "gradients_named", "split", "tanh", "custom_two", "custom_bare", "custom_bare",
        "custom_bare_two",
    ),
}  # fmt: skip
MOSTLY_NONE = ["", "", "", "", "", *THEMES]


class Making:
    """A block in the making: its pool so far, and its steps."""

    def __init__(self, draw: st.DrawFn, theme: str, outer: str, arguments: str) -> None:
        self.draw = draw
        self.theme = theme
        self.pool = outer + arguments
        self.steps: list[Step] = []

    def add(self, step: Step) -> None:
        self.steps.append(step)
        self.pool += step.results

    def need(self, wanted: str) -> int:
        """A value of a kind, rather a late one than an early one, so that programs become deep; or a new one."""
        if not any(fits(kind, wanted) for kind in self.pool):
            self.add(Step(MAKE[wanted], (self.need("F"),), wanted))
        places = [i for i, kind in enumerate(self.pool) if fits(kind, wanted)]
        return int(self.draw(st.sampled_from(places + places[-3:] + places[-2:])))

    def step(self, depth: int) -> None:
        group = "raising" if self.draw(st.integers(1, RARE)) == RARE else self.draw(st.sampled_from(MIX[depth]))
        if group == "blocks":
            self.runner(depth)
            return
        named = THEMES[self.theme] if self.theme and group != "raising" else sorted(GROUPS[group])
        name = self.draw(st.sampled_from(named))
        takes, gives = signature(name)
        self.add(Step(name, tuple(self.need(kind) for kind in takes), gives))

    def runner(self, depth: int) -> None:
        """A step that runs blocks."""
        draw = self.draw
        name = draw(st.sampled_from(sorted(RUNNERS)))
        _, takes, block_takes, gives = RUNNERS[name]
        looping = name.startswith("loop")
        if takes is None:
            usable = [i for i, k in enumerate(self.pool) if not (looping and k in "U")]
            values = tuple(draw(st.lists(st.sampled_from(usable + usable[-4:]), min_size=1, max_size=3)))
            given = "".join(self.pool[i].upper() if looping else self.pool[i] for i in values)
            arguments: tuple[str, ...] = (given,)
            if name == "twice":
                values += tuple(self.need(k) if k.isupper() else self.pool.index(k) for k in given)
        else:
            values = tuple(self.need(kind) for kind in takes)
            arguments = tuple(kind or "" for kind in block_takes)
        if name in BLOCK_RESULTS:
            wanted = BLOCK_RESULTS[name]
        elif looping:
            wanted = arguments[0]
        else:
            wanted = "".join(draw(st.lists(st.sampled_from("FFFFFISRB"), min_size=1, max_size=3)))
        blocks = tuple(
            draw_block(draw, self.theme, self.pool, given, wanted, depth - 1, draw(st.integers(1, 2)))
            for given in arguments
        )
        results = gives if gives is not None else wanted * 2 if name == "twice" else wanted
        self.add(Step(name, values, results, blocks))


def draw_block(draw: st.DrawFn, theme: str, outer: str, arguments: str, wanted: str, depth: int, length: int) -> Block:
    making = Making(draw, theme, outer, arguments)
    for _ in range(length):
        making.step(depth)
    results = tuple(making.need(kind) for kind in wanted)
    return Block(arguments, tuple(making.steps), results)


def joined(block: Block) -> Block:
    """The same block with the float32 matrices that nobody reads added to its first result."""
    pool = kinds("", block)
    used = {place for step in block.steps for place in places(step)} | {*block.results}
    steps, total = list(block.steps), block.results[0]
    at = len(pool)
    for place, kind in enumerate(pool):
        if fits(kind, "F") and place not in used:
            steps.append(Step("add", (total, place), "F"))
            total = at
            at += 1
    return replace(block, steps=tuple(steps), results=(total, *block.results[1:]))


INPUTS = ["F", "F", "FF", "FI", "FR", "FD", "FC", "I"]
OTHERS = ["", "", "", "", "d", "h", "c", "i", "di"]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs of 2 to 7 steps, some of which run blocks of one or two steps, two levels deep."""
    variables = "f" * draw(st.sampled_from([1, 2, 2, 3, 4])) + draw(st.sampled_from(OTHERS))
    inputs = draw(st.sampled_from(INPUTS))
    theme = draw(st.sampled_from(MOSTLY_NONE))
    block = draw_block(draw, theme, "", variables + inputs, "F", 2, draw(st.integers(2, 7)))
    if draw(st.booleans()):
        block = joined(block)
    pool = kinds("", block)
    values = [i for i, kind in enumerate(pool) if kind.isupper()]
    more = draw(st.lists(st.sampled_from(values + values[-4:] * 2), max_size=3))
    if more and draw(st.integers(0, 19)) == 0:
        return Program(variables, inputs, replace(block, results=tuple(more)))  # perhaps without any float
    return Program(variables, inputs, replace(block, results=block.results + tuple(more)))


def sample(number: int, count: int) -> list[Program]:
    """The first `count` programs of the seed `number`."""
    found: list[Program] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def collect(program: Program) -> None:
        found.append(program)

    collect()
    return found[:count]


VARIABLES = ["f0", "f1", "f2", "f3", "d0", "h0", "c0", "i0"]


class Programs:
    """Random programs as functions over one set of variables; the fourth float32 variable is not trained."""

    def __init__(self, made: list[Program], rng: np.random.Generator) -> None:
        self.module = tf.Module()
        for name in VARIABLES:
            value = random(name[0].upper(), rng)
            setattr(self.module, name, tf.Variable(value, name=name, trainable=name != "f3"))
        self.functions = [self._function(program).get_concrete_function() for program in made]

    def _function(self, program: Program) -> Any:
        @tf.function(input_signature=program.specs(), autograph=False)
        def serve(*inputs: Any) -> dict[str, Any]:
            variables = [getattr(self.module, name) for name in program.names()]
            results = run(program.block, [], *variables, *inputs)
            return {f"y{i}": result for i, result in enumerate(results)}

        return serve


def shape(kind: str) -> list[int]:
    return SHAPE[:1] if kind == "R" else SHAPE


def random(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A random value of a kind."""
    dtype = DTYPES[kind].as_numpy_dtype
    if kind == "R":
        return rng.integers(SHAPE[0], size=SHAPE[:1]).astype(dtype)
    if kind == "I":
        return rng.integers(-5, 6, size=SHAPE).astype(dtype)
    value = rng.standard_normal(SHAPE)
    return (value + 1j * rng.standard_normal(SHAPE) if kind == "C" else value).astype(dtype)
