"""Smaller programs than a random one, for the search for the least that still shows a disagreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.flow.random_programs import Block, Program, Step, fits, kinds, places


def smaller(program: Program) -> Iterator[Program]:
    """Programs with one output or one step less, the largest savings first."""
    for i in range(len(program.block.results)):
        if len(program.block.results) > 1:
            left = program.block.results[:i] + program.block.results[i + 1 :]
            yield replace(program, block=replace(program.block, results=left))
    for block in _smaller("", program.block):
        yield replace(program, block=block)


def _smaller(outer: str, block: Block) -> Iterator[Block]:
    at = len(outer + block.arguments)
    pool = kinds(outer, block)
    starts = []
    for step in block.steps:
        starts.append(at)
        at += len(step.results)
    for i, step in reversed(list(enumerate(block.steps))):
        yield from _without(block, i, starts[i], pool)
        for j, inner in enumerate(step.blocks):
            for less in _smaller(pool[: starts[i]], inner):
                blocks = (*step.blocks[:j], less, *step.blocks[j + 1 :])
                yield replace(block, steps=(*block.steps[:i], replace(step, blocks=blocks), *block.steps[i + 1 :]))


def _without(block: Block, i: int, start: int, pool: str) -> Iterator[Block]:
    """The block without its step i, in place of whose results others take values from before it."""
    step = block.steps[i]
    used = {place for later in block.steps[i + 1 :] for place in places(later)} | {*block.results}
    stands: dict[int, int] = {}
    for k, kind in enumerate(step.results):
        before = [p for p in [*step.values, *range(start - 1, -1, -1)] if fits(pool[p], kind)]
        if before:
            stands[start + k] = before[0]
        elif start + k in used:
            return
    moved = lambda p: stands[p] if p in stands else p - len(step.results) if p > start else p  # noqa: E731
    later = tuple(_moved_step(s, moved) for s in block.steps[i + 1 :])
    yield replace(block, steps=block.steps[:i] + later, results=tuple(map(moved, block.results)))


def _moved_step(step: Step, moved: Callable[[int], int]) -> Step:
    blocks = tuple(
        replace(b, steps=tuple(_moved_step(s, moved) for s in b.steps), results=tuple(map(moved, b.results)))
        for b in step.blocks
    )
    return replace(step, values=tuple(map(moved, step.values)), blocks=blocks)
