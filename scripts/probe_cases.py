"""Finds on which attributes an op's edges depend, and writes the facts as the fewest cases."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from edge_overrides import HINTS
from probe_build import Attempt, AttrDef, Attrs, AttrValue, OpDef, Spec, attempts, const, flat, hinted, type_values
from probe_facts import Facts, Inexpressible, Raised, Unbuilt, probe
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import dtypes

LIMIT = 200  # attempts by trial for a first node
MORE = 60  # attempts for others behind it
HOPELESS = 60  # nodes that raised, and none that did not
WANTED = 4  # nodes of different shapes that must agree
VARIED = 2  # how many of these stand for an op when its attributes and what is known of its shapes are varied
MOST_COMBINATIONS = 1200

Case = dict[str, Any]
Dims = tuple[int | None, ...] | None
Needs = dict[tuple[tuple[str, Any], ...], "str | None"]


class Needing(NamedTuple):
    """Facts that hold where what `need` says is known before the run (flow/edges.py `Need`); else it raises."""

    facts: Facts
    need: str


Outcome = Facts | Raised | Needing


def nodes(op: OpDef) -> tuple[list[tuple[Attempt, Facts]], Counter[Raised]]:
    """The first attempts that succeed, and what gradient functions raised at other ones."""
    found: list[tuple[Attempt, Facts]] = []
    raised: Counter[Raised] = Counter()
    hint = HINTS.get(op.name)
    limit = LIMIT
    for i, attempt in enumerate([hinted(op, hint.inputs, hint.attrs)] if hint else attempts(op, LIMIT)):
        if i == limit:
            break
        try:
            answer = probe(op, attempt)
        except Unbuilt:
            continue
        if isinstance(answer, Raised):
            raised[answer] += 1
            if not found and raised.total() == HOPELESS:
                break
        else:
            limit = limit if found else min(LIMIT, i + MORE)
            found.append((attempt, answer))
            if len(found) == WANTED:
                break
    if len({facts for _, facts in found}) > 1:
        raise Inexpressible(f"{op.name}: the facts depend on shapes: {sorted({str(f) for _, f in found})}")
    return found, raised


def cases(op: OpDef, found: list[tuple[Attempt, Facts]]) -> list[Case]:
    """The cases of an op, first match wins, the last one without a condition."""
    asked: Needs = {}
    base = _outcome(op, found, {}, asked)
    assert base is not None
    kept = HINTS[op.name].keep if op.name in HINTS else ()
    values = {a.name: v for a in op.attr if a.name not in kept and len(v := _values(a)) > 1}
    singles = {name: [_outcome(op, found, {name: v}, asked) for v in options] for name, options in values.items()}
    relevant = [name for name, outcomes in singles.items() if any(o not in (base, None) for o in outcomes)]
    if not relevant:
        return [_case(op, {}, base)]
    axes = [values[name] for name in relevant]
    total = 1
    for axis in axes:
        total *= len(axis)
    if total > MOST_COMBINATIONS:
        raise Inexpressible(f"{op.name}: {total} combinations of {relevant}")
    table = {
        index: _outcome(op, found, {n: axes[k][index[k]] for k, n in enumerate(relevant)}, asked) or base
        for index in itertools.product(*(range(len(axis)) for axis in axes))
    }
    return _compressed(op, relevant, axes, table)


def _compressed(
    op: OpDef, names: list[str], axes: list[list[Any]], table: dict[tuple[int, ...], Outcome]
) -> list[Case]:
    """Values that make no difference between each other share a case; the most frequent outcome comes last."""
    classes: list[list[list[int]]] = []
    for k, axis in enumerate(axes):
        groups: dict[tuple[Outcome, ...], list[int]] = {}
        for value in range(len(axis)):
            column = tuple(outcome for index, outcome in table.items() if index[k] == value)
            groups.setdefault(column, []).append(value)
        classes.append(list(groups.values()))
    answers = [o for o in table.values() if not isinstance(o, Raised)]
    plain = [o for o in answers if not isinstance(o, Needing)]
    usual = Counter(plain or answers).most_common(1)[0][0]
    out = []
    for group in itertools.product(*classes):
        outcome = table[tuple(members[0] for members in group)]
        if outcome != usual:
            when = {n: sorted(_plain(axes[k][m]) for m in group[k]) for k, n in enumerate(names) if len(classes[k]) > 1}
            out.append(_case(op, when, outcome))
    return [*out, _case(op, {}, usual)]


def _case(op: OpDef, when: dict[str, Any], outcome: Outcome) -> Case:
    case: Case = {"when": when} if when else {}
    if isinstance(outcome, Raised):
        return {**case, "raises": f"{outcome.kind}: {outcome.text}"}
    if isinstance(outcome, Needing):
        return {**_case(op, when, outcome.facts), "needs": outcome.need}
    return {**case, "edges": {arg.name: fact for arg, fact in zip(op.input_arg, outcome, strict=True)}}


def _outcome(op: OpDef, found: list[tuple[Attempt, Facts]], given: Attrs, asked: Needs) -> Outcome | None:
    """What the op answers with some attributes changed; None where no node can be built, or nobody would ask it.

    `asked` keeps what it needs with which attributes.
    """
    changes = {**given, **_companions(op, given)}
    varied = [Attempt({**attempt.attrs, **changes}, attempt.inputs) for attempt, _ in found[:VARIED]]
    answer = _first(op, varied)
    if answer is None:
        return None
    if not isinstance(answer, Raised):
        # What a function asks of shapes is no matter of dtypes. Several inputs whose shapes must fit each other may no
        # longer do so with another attribute, so there what the unchanged node needs is taken.
        alone = len(op.input_arg) == 1
        plain = {name: v for name, v in given.items() if alone and not v.HasField("type")}
        key = tuple((name, _plain(v)) for name, v in plain.items())
        if key not in asked:
            changes = {**plain, **_companions(op, plain)}
            asked[key] = needs(op, [Attempt({**a.attrs, **changes}, a.inputs) for a, _ in found[:VARIED]])
        need = asked[key]
        return Needing(answer, need) if need else answer
    indices = {name for name, v in given.items() if v.HasField("type") and _types_indices(op, found[0][1], name)}
    changed = [dtypes.as_dtype(v.type) for name, v in given.items() if v.HasField("type") and name not in indices]
    # Nobody asks for gradients of integers, and nobody mixes two dtypes that an op merely allows.
    if len(changed) > 1 or not all(t.is_floating or t.is_complex for t in changed):
        return None
    known = _first(op, [_with_values(op, a, v) for a in varied for v in (0, [0])]) if indices else answer
    return answer if known is None or isinstance(known, Raised) else Needing(known, "values")


def _first(op: OpDef, tries: list[Attempt]) -> Facts | Raised | None:
    """The first answer that is no error, else the first error; None where no node can be built."""
    raised = None
    for attempt in tries:
        try:
            answer = probe(op, attempt)
        except Unbuilt:
            continue
        if not isinstance(answer, Raised):
            return answer
        raised = raised or answer
    return raised


def _types_indices(op: OpDef, base: Facts, name: str) -> bool:
    """Whether an attribute types no input that has a gradient: its integers are axes, indices or sizes."""
    return all(fact is None for arg, fact in zip(op.input_arg, base, strict=True) if arg.type_attr == name)


def _with_values(op: OpDef, attempt: Attempt, value: Any) -> Attempt:
    """The attempt with constants for integer inputs."""
    kinds = [dtype for _, dtype in flat(op.input_arg, attempt.attrs)]
    inputs = (
        const(value) if dtype.is_integer and spec.dims is not None else spec
        for dtype, spec in zip(kinds, attempt.inputs, strict=True)
    )
    return Attempt(attempt.attrs, tuple(inputs))


def _companions(op: OpDef, given: Attrs) -> Attrs:
    """The attributes that must change along with others."""
    padding = given.get("padding")
    if padding is not None and padding.s == b"EXPLICIT" and any(a.name == "explicit_paddings" for a in op.attr):
        return {"explicit_paddings": AttrValue(list=AttrValue.ListValue(i=[0] * 8))}
    return {}


def _values(attr: AttrDef) -> list[Any]:
    """The values of an attribute that are tried."""
    if attr.type == "type":
        return type_values(attr)
    if attr.type == "bool":
        return [AttrValue(b=False), AttrValue(b=True)]
    if attr.type == "string":
        return [AttrValue(s=s) for s in attr.allowed_values.list.s]
    return []


def _plain(value: Any) -> Any:
    """An attribute's value as edges.json writes it."""
    field = value.WhichOneof("value")
    if field == "type":
        return types_pb2.DataType.Name(value.type)
    return value.s.decode() if field == "s" else getattr(value, field)


def needs(op: OpDef, tries: list[Attempt]) -> str | None:
    """What must be known statically lest the gradient function raises (flow/edges.py `Need`); None: nothing."""
    if len(op.input_arg) == 1:
        refused = frozenset(sizes for sizes in MATRICES if _raises(op, tries, partial(_matrix, sizes)))
        if refused:
            return REFUSED[refused]
    return next((name for name, blur in BLURS.items() if _raises(op, tries, blur)), None)


def _raises(op: OpDef, tries: list[Attempt], change: Callable[[Dims], Dims]) -> bool:
    """Whether the gradient function raises for all nodes that are left once their shapes are changed."""
    answers = []
    for attempt in tries:
        inputs = tuple(spec if spec.dims is None else Spec(change(spec.dims)) for spec in attempt.inputs)
        if inputs == attempt.inputs:
            continue
        try:
            answers.append(probe(op, Attempt(attempt.attrs, inputs)))
        except Unbuilt:
            continue
    return bool(answers) and all(isinstance(answer, Raised) for answer in answers)


def _matrix(sizes: tuple[int, int], dims: Dims) -> Dims:
    """A square matrix with other sizes."""
    square = dims is not None and len(dims) >= 2 and dims[-1] == dims[-2]
    return (*dims[:-2], *sizes) if dims is not None and square else dims


BLURS: dict[str, Callable[[Dims], Dims]] = {
    "batch": lambda dims: (None, *dims[1:]) if dims else dims,
    "sizes": lambda dims: (None,) * len(dims or ()),
    "rank": lambda dims: None,
}
MATRICES = ((6, 4), (5, 4), (4, 5), (4, 6))
REFUSED: dict[frozenset[tuple[int, int]], str] = {
    frozenset({(6, 4), (5, 4)}): "wide",
    frozenset({(6, 4), (4, 6)}): "near-square",
}
