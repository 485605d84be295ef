"""The docs that the command line shows: codes, rules, and what TensorFlow's gradient of an op gives each input."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from rich.console import RenderableType
from rich.text import Text

from gradpass.errors import GradpassError
from gradpass.flow import derivative, edges
from gradpass.program import opdefs
from gradpass.report.codes import Code, all_codes, find
from gradpass.report.text import STYLES, line, paragraphs
from gradpass.rules.base import Rule, by_op
from gradpass.rules.base import rules as all_rules
from gradpass.rules.kernels import KERNELS, REFUSED, named
from gradpass.soft.simplex import WEIGHTS

T = TypeVar("T")
NEEDS = {
    "rank": "where the rank is not known before the run",
    "sizes": "where the last two sizes are not known before the run",
    "batch": "where a size is not known before the run",
    "wide": "where a matrix has more rows than columns, or its sizes are not known before the run",
    "near-square": "where rows and columns differ by more than 1, or are not known before the run",
    "values": "unless all sizes are known before the run and all whole-number inputs are constants",
}
REACH = {"f": "a gradient", "d": "a gradient, element by element", "0": "zeros"}


def codes(words: Sequence[str], width: int) -> Iterator[RenderableType]:
    """All codes in a line each, or the ones asked for in full."""
    if words:
        yield from _each([find(word) for word in words], _code, width)
        return
    names = max(len(code.name) for code in all_codes().values())
    for code in all_codes().values():
        yield _row(code.code, STYLES[code.severity], f"{code.name:{names}}", code.explanation(), width)


def _code(code: type[Code], width: int) -> Iterator[RenderableType]:
    yield Text.assemble((f"{code.code} {code.name}", "bold"), f" ({code.severity})")
    yield Text("")
    yield from paragraphs(code.explanation(), width)
    if code.ops:
        yield Text("")
        yield from paragraphs(f"ops: {', '.join(code.ops)}", width)
    if code.live:
        yield Text("")
        yield line(f"found by `{code.live}`")
    for title, source in ((f"TensorFlow answers {code.says}:", code.failing), ("With a gradient:", code.fixed)):
        yield Text("")
        yield line(title, "bold")
        yield from (Text(f"    {row}" if row else "") for row in source.strip().splitlines())
    yield Text("")
    yield from paragraphs(f"help: {code.advice()}", width)
    for op, advice in code.helps.items():
        yield from paragraphs(f"for {op}: {advice}", width)
    if code.refusal:
        yield line(f"`gradpass fix` leaves it: {code.refusal}")


def rules(words: Sequence[str], width: int) -> Iterator[RenderableType]:
    """All rules in a line each, or the ones asked for in full."""
    by_name = {rule.name: rule for rule in all_rules()}
    for word in words:
        if word not in by_name:
            raise GradpassError(f"there is no rule {word!r}; the rules are {', '.join(by_name)}")
    if words:
        yield from _each([by_name[word] for word in words], _rule, width)
        return
    names = max(map(len, by_name))
    for rule in by_name.values():
        yield _row(f"{rule.name:{names}}", "bold", f"{rule.kind:9}", ", ".join(rule.ops), width)


def _row(name: str, style: str, middle: str, text: str, width: int) -> Text:
    """One line of a list, its text cut where the line ends."""
    room = max(width - len(name) - len(middle) - 4, 20)
    return Text.assemble((name, style), f"  {middle}  {textwrap.shorten(text, room, placeholder=' …')}")


def _rule(rule: Rule, width: int) -> Iterator[RenderableType]:
    yield Text.assemble((rule.name, "bold"), f" ({rule.kind})")
    yield Text("")
    yield from paragraphs(inspect.getdoc(rule) or "", width)
    yield Text("")
    yield from paragraphs(f"ops: {', '.join(rule.ops)}", width)
    for title, rows in (
        ("Repairs, for example:", rule.hits),
        ("Declines:", [f"{code}: {why}" for code, why in rule.misses]),
    ):
        if rows:
            yield Text("")
            yield line(title, "bold")
            yield from (Text(f"    {row}") for row in rows)


def ops(words: Sequence[str], width: int, tensorflow: str | None = None) -> Iterator[RenderableType]:
    """All ops of the gradient edge table in a line each, or the ones asked for in full."""
    table = edges.table(tensorflow)
    if words:
        for word in words:
            if opdefs.get(word, tensorflow) is None:
                raise GradpassError(
                    f"TensorFlow {table.version} has no op {word!r}; `gradpass ops` lists those with a gradient"
                )
        yield from _each(list(words), partial(_op, table), width)
        return
    yield from (line(f"{name}: {table.kind(name)}") for name in table.names())


def ops_diff(old: str, new: str, width: int) -> Iterator[RenderableType]:
    """The ops whose gradients differ between two versions, as each has them."""
    before, after = edges.table(old), edges.table(new)
    changed = edges.changes(old, new)
    yield line(f"TensorFlow {old} and {new}: {len(changed)} ops differ in their gradients", "bold")
    for op in changed:
        for table in (before, after):
            yield Text("")
            if opdefs.get(op, table.version) is None:
                yield Text.assemble((op, "bold"), f" (TensorFlow {table.version}): no such op")
            else:
                yield from _op(table, op, width)


def _op(table: edges.EdgeTable, op: str, width: int) -> Iterator[RenderableType]:
    signature = opdefs.get(op, table.version)
    assert signature is not None
    kind = table.kind(op)
    what = "no gradient registered: asking for one raises LookupError" if kind is None else kind
    yield Text.assemble((op, "bold"), f" (TensorFlow {table.version}): {what}")
    cases = table.cases(op)
    for i, case in enumerate(cases):
        if case.when:
            where = " and ".join(f"{name} is {_words(values)}" for name, values in case.when.items())
        else:
            where = "otherwise" if i else "always"
        yield line(f"  where {where}:" if case.when else f"  {where}:")
        yield from (line(f"    {told}") for told in _case(case, signature))
    for told in derivative.told(op, table.version):
        yield line(f"  {told}")
    how = table.how(op)
    if how:
        yield line(f"  known from: {how}")
    rules_here = [rule for rule in by_op().get(op, ()) if not rule.internal]
    if rules_here:
        yield line(f"  rules: {', '.join(f'{rule.name} ({rule.kind})' for rule in rules_here)}")


def _words(values: Iterable[Any]) -> str:
    return " or ".join(sorted(str(value).removeprefix("DT_").lower() for value in values))


def _case(case: edges.Case, signature: opdefs.OpSig) -> Iterator[str]:
    """What the inputs get in one case, and what it raises."""
    outputs = [output.name for output in signature.outputs]
    for argument, row in zip(signature.inputs, case.edges or (), strict=False):
        yield f"{argument.name}: {_reach(row, outputs)}"
    if case.raises:
        yield f"raises {case.raises}" + (", except under TensorFlow 1's control flow" if case.edges else "")
    if case.needs:
        yield f"raises {NEEDS[case.needs]}"


def _reach(row: str | None, outputs: list[str]) -> str:
    """What an input's gradient is: None, or by output."""
    if row is None:
        return "None"
    given = dict.fromkeys(REACH[c] for c in row)
    if len(given) == 1:
        return next(iter(given))
    return ", ".join(f"{REACH[c]} of {output}" for c, output in zip(row, outputs, strict=True))


def _each(
    items: Sequence[T], render: Callable[[T, int], Iterable[RenderableType]], width: int
) -> Iterator[RenderableType]:
    for i, item in enumerate(items):
        if i:
            yield Text("")
        yield from render(item, width)


def kernels(words: Sequence[str], width: int) -> Iterator[RenderableType]:
    """What `--kernel` knows: each kernel's names and docstring, and what it refuses with the reason."""
    wanted = {named(word) for word in words}
    yield from _functions({n: k for n, k in KERNELS.items() if not words or k in wanted}, width)
    if not words:
        yield Text("")
        for name, why in REFUSED.items():
            yield from paragraphs(f"{name} is refused: {why}", width)


def choices(words: Sequence[str], width: int) -> Iterator[RenderableType]:
    """What `--choice` knows: each mode's name and docstring."""
    for word in words:
        if word not in WEIGHTS:
            raise GradpassError(f"--choice does not know {word!r}; choose from {', '.join(WEIGHTS)}")
    yield from _functions({n: w for n, w in WEIGHTS.items() if not words or n in words}, width)


def _functions(known: dict[str, Callable[..., Any]], width: int) -> Iterator[RenderableType]:
    """Functions by name, those of several names once."""
    for i, function in enumerate(dict.fromkeys(known.values())):
        if i:
            yield Text("")
        yield line(", ".join(name for name, f in known.items() if f is function), "bold")
        yield from paragraphs(inspect.getdoc(function) or "", width)


SUBJECTS = {"codes": codes, "rules": rules, "ops": ops, "kernels": kernels, "choices": choices}
