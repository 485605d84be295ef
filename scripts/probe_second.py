"""Writes what the installed TensorFlow says of second derivatives into gradpass/flow/second*.json.

    python scripts/probe_second.py           writes the rows of the installed minor version, keeps those of others
    python scripts/probe_second.py --check   exits 1 if the files differ from what it would write

The gradient functions that `probe_edges.py` calls are called again, and what they answer is differentiated by
`tf.gradients` with respect to each input, output and cotangent of the node. The nodes are found as there
(probe_build.py, probe_cases.py); of the attributes those are varied that a float node can have. `flow/derivative.py`
says how a row reads.
"""

from __future__ import annotations

import itertools
import re
import sys
from typing import Any
from unittest import mock

import probe_cases
import tensorflow as tf
from edge_overrides import CALLS, FACTS, HINTS
from probe_build import Attempt, OpDef, build, flat
from probe_edges import PACKAGE, Row, tensorflow_1_control_flow
from probe_facts import Inexpressible, Raised, Unbuilt
from probe_ops import registered_ops
from probe_store import command
from tensorflow.python.eager import backprop_util
from tensorflow.python.framework import importer, ops

from gradpass.flow.shapes import SHAPE_ONLY

SECOND = PACKAGE / "flow" / "second.json"
Facts = tuple[str | None, ...]  # by input argument: None, or one letter for each argument that it can depend on
FLOATS = {t.as_datatype_enum for t in (tf.float32, tf.float64, tf.half, tf.bfloat16, tf.complex64, tf.complex128)}
MISSING = re.compile(r"No gradient defined for operation.*\(op type: (\w+)\)")


def main() -> int:
    """The command; its exit status."""
    return command(__doc__, {SECOND: second_rows})


def second_rows(only: frozenset[str] | None = None) -> dict[str, Row]:
    """The rows of the table, of all ops with a gradient function of their own or of some."""
    rows: dict[str, Row] = {}
    problems = []
    with mock.patch.object(probe_cases, "probe", probe):  # the search of probe_cases.py, with another question
        for op in registered_ops():
            if only is None or op.name in only:
                try:
                    row = second_row(op)
                except Inexpressible as problem:
                    problems.append(str(problem))
                    continue
                if row is not None:
                    rows[op.name] = row
    if problems:
        raise SystemExit("probe_second.py has to say something about:\n  " + "\n  ".join(problems))
    return rows


def second_row(op: OpDef) -> Row | None:
    """One op's row; None where nothing can be asked. Inexpressible where probing cannot tell."""
    if op.name in CALLS or op.name in FACTS:
        return None
    try:
        if ops.gradient_registry.lookup(op.name) is None:
            return None
    except LookupError:
        return None
    found, _ = probe_cases.nodes(op)
    if found:
        return {"cases": _cases(op, found)}
    with tensorflow_1_control_flow():
        found, _ = probe_cases.nodes(op)
        return {"cases": _cases(op, found)} if found else None


def _cases(op: OpDef, found: list[tuple[Attempt, Facts]]) -> list[dict[str, Any]]:
    """The cases of an op, first match wins, the last one without a condition."""
    base = found[0][1]
    kept = HINTS[op.name].keep if op.name in HINTS else ()
    values = {a.name: v for a in op.attr if a.name not in kept and len(v := _asked_values(a)) > 1}
    relevant = {
        name: options for name, options in values.items() if any(_varied(op, found, {name: v}) != base for v in options)
    }
    cases = []
    for chosen in itertools.product(*relevant.values()):
        given = dict(zip(relevant, chosen, strict=True))
        facts = _varied(op, found, given)
        if facts != base:
            cases.append({"when": {name: [probe_cases._plain(v)] for name, v in given.items()}, **_edges(op, facts)})
    return [*_merged(cases), _edges(op, base)]


def _asked_values(attr: Any) -> list[Any]:
    """The values of an attribute with which somebody could ask for a second derivative."""
    return [v for v in probe_cases._values(attr) if not v.HasField("type") or v.type in FLOATS]


def _varied(op: OpDef, found: list[tuple[Attempt, Facts]], given: dict[str, Any]) -> Facts:
    """What the op answers with some attributes changed; what it does without where that cannot be built or asked."""
    changes = {**given, **probe_cases._companions(op, given)}
    for attempt, _ in found[: probe_cases.VARIED]:
        try:
            answer = probe(op, Attempt({**attempt.attrs, **changes}, attempt.inputs))
        except Unbuilt:
            continue
        if not isinstance(answer, Raised):
            return answer
    return found[0][1]


def _merged(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cases that differ in the value of one attribute only are one."""
    for one, other in itertools.combinations(cases, 2):
        differing = [name for name in one["when"] if one["when"][name] != other["when"][name]]
        if one["edges"] == other["edges"] and len(differing) == 1:
            (name,) = differing
            union = sorted({*one["when"][name], *other["when"][name]})
            rest = [case for case in cases if case is not one and case is not other]
            return _merged([{**one, "when": {**one["when"], name: union}}, *rest])
    return cases


def _edges(op: OpDef, facts: Facts) -> dict[str, Any]:
    return {"edges": {arg.name: fact for arg, fact in zip(op.input_arg, facts, strict=True)}}


def probe(op: OpDef, attempt: Attempt) -> Facts | Raised:
    """The facts of one attempt, or what the gradient function raised; Unbuilt where TensorFlow rejects the node."""
    with tf.Graph().as_default() as graph, tf.device("/CPU:0"):
        if op.HasField("deprecation"):
            older = tf.compat.v1.GraphDef()
            older.node.add(name="older", op="NoOp")
            older.versions.producer = op.deprecation.version - 1
            importer.import_graph_def(older, name="")
        try:
            node = build(graph, op, attempt)
        except (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError, tf.errors.OpError) as problem:
            raise Unbuilt(str(problem)) from problem
        cotangents = [_cotangent(y) if backprop_util.IsTrainable(y) else None for y in node.outputs]
        try:
            with tf.name_scope("gradients/"):  # TensorArray's functions look for this name
                result = ops.get_gradient_function(node)(node, *cotangents)
        except Exception as problem:  # whatever it is, it is the answer: a user sees it too
            return Raised(type(problem).__name__, str(problem).split("\n")[0])
        gradients = list(result) if isinstance(result, (list, tuple)) else [result]
        if len(gradients) != len(node.inputs):
            return Raised("ValueError", f"{len(gradients)} gradients for {len(node.inputs)} inputs")
        asked = [_value(g) if x.dtype == tf.resource or backprop_util.IsTrainable(x) else None
                 for x, g in zip(node.inputs, gradients, strict=True)]  # fmt: skip
        if any(g is not None for g in gradients) and all(g is None for g in asked):
            raise Unbuilt("nobody asks for the gradient of a whole number")
        values = [*node.inputs, *node.outputs, *cotangents]
        return _by_argument(
            op,
            attempt,
            [None if g is None else _letters(g, values, len(node.inputs) + len(node.outputs)) for g in asked],
        )


def _cotangent(y: tf.Tensor) -> tf.Tensor:
    dtype = y.dtype.base_dtype
    return tf.identity(y if dtype == tf.variant else tf.compat.v1.placeholder(dtype, y.shape))


def _value(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _letters(gradient: tf.Tensor, values: list[Any], cotangents: int) -> tuple[list[str], str]:
    """A letter for each value, the cotangents last, and the op (or the error) that is in the way."""
    mark = tf.identity(gradient) if gradient.dtype == tf.variant else tf.compat.v1.placeholder(gradient.dtype)
    wanted = [v for v in values if v is not None and backprop_util.IsTrainable(v)]
    given, problem = _gradients(gradient, wanted, mark, values)
    raising = set()
    if problem:
        for value in wanted:
            if _gradients(gradient, [value], mark, values)[1]:
                raising.add(value.ref())
    found = {v.ref(): g for v, g in zip(wanted, given, strict=True)}
    letters = [_letter(v, found, mark, raising) for v in values]
    for k in range(cotangents, len(values)):
        # A gradient is linear in its cotangents: where one gets None, an op on the way from it ends gradients unsaid.
        ending = _ending(gradient, values[k]) if letters[k] == "." and values[k] is not None else None
        if ending is not None:
            letters[k] = "n"
            problem = problem or ending
    return letters, problem


def _ending(gradient: tf.Tensor, cotangent: tf.Tensor) -> str | None:
    """The op without a derivative between a gradient and its cotangent; None where there is none."""
    if not _depends(gradient, cotangent):
        return None
    todo, seen = [gradient.op], {gradient.op.name}
    while todo:
        op = todo.pop()
        if not differentiable(op.type):
            return str(op.type)
        new = [x.op for x in op.inputs if x.op.name not in seen and _depends(x, cotangent)]
        seen.update(o.name for o in new)
        todo += new
    return None


def differentiable(op: str) -> bool:
    """Whether a gradient function is registered for an op."""
    try:
        return ops.gradient_registry.lookup(op) is not None
    except LookupError:
        return False


def _letter(value: Any, found: dict[Any, Any], mark: tf.Tensor, raising: set[Any]) -> str:
    if value is None or value.ref() not in found:
        return "."
    g = found[value.ref()]
    letter = "." if g is None else "f" if _depends(_value(g), mark) else "0"
    return RAISING[letter] if value.ref() in raising else letter


RAISING = {".": "r", "f": "F", "0": "Z"}


def _gradients(y: tf.Tensor, xs: list[tf.Tensor], mark: tf.Tensor, values: list[Any]) -> tuple[list[Any], str]:
    """Derivatives with an op without a gradient taken as a cut, and the names of these ops."""
    stops = [v for v in values if v is not None]
    missing: list[str] = []
    while True:
        try:
            return tf.gradients(y, xs, mark, stop_gradients=stops), " ".join(missing)
        except LookupError as problem:
            match = MISSING.search(str(problem))
            name = match[1] if match else "PreventGradient"  # the one op that raises a LookupError of its own
            if name in missing:
                raise
            missing.append(name)
            stops += [v for op in y.graph.get_operations() if op.type == name for v in op.outputs]
        except ValueError as problem:  # the shapes of the trial do not fit what is computed from them
            raise Unbuilt(str(problem)) from problem
        except (NotImplementedError, TypeError, AttributeError, AssertionError) as problem:
            return [None] * len(xs), f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"


def _depends(tensor: tf.Tensor, mark: tf.Tensor) -> bool:
    todo, seen = [tensor.op], {tensor.op.name}
    while todo:
        op = todo.pop()
        if op.name == mark.op.name:
            return True
        if op.type not in SHAPE_ONLY:
            new = [x.op for x in op.inputs if x.op.name not in seen]
            seen.update(o.name for o in new)
            todo += new
    return False


def _by_argument(op: OpDef, attempt: Attempt, answers: list[Any]) -> Facts:
    """The letters of flat inputs and values joined by argument: inputs, outputs, cotangents."""
    inputs = [i for i, _ in flat(op.input_arg, attempt.attrs)]
    outputs = [i for i, _ in flat(op.output_arg, attempt.attrs)]
    count = len(op.input_arg)
    groups = [[k for k, i in enumerate(inputs) if i == a] for a in range(count)]
    for start in (len(inputs), len(inputs) + len(outputs)):
        groups += [[start + k for k, i in enumerate(outputs) if i == a] for a in range(len(op.output_arg))]
    facts: list[str | None] = []
    for a in range(count):
        mine = [answers[k] for k in groups[a]]
        if not mine:
            raise Unbuilt("no tensor of an argument")
        if any(m is None for m in mine):
            facts.append(None)
            continue
        text = "".join(_joined(op, [[m[0][k] for k in group] for m in mine]) for group in groups)
        problem = next((m[1] for m in mine if m[1]), "")
        facts.append(f"{text} {problem}" if problem else text)
    return tuple(facts)


def _joined(op: OpDef, rows: list[list[str]]) -> str:
    """One letter for the tensors of one argument (rows) and those of another."""
    letters = {letter for row in rows for letter in row} or {"."}
    if len(letters) == 1:
        return letters.pop()
    if len(rows) == len(rows[0]) > 1 and letters == {"f", "."}:
        same = {rows[i][k] for i in range(len(rows)) for k in range(len(rows)) if i == k}
        other = {rows[i][k] for i in range(len(rows)) for k in range(len(rows)) if i != k}
        if len(same) == len(other) == 1:
            return "d" if same == {"f"} else "o"
    raise Inexpressible(f"{op.name}: {rows}")


if __name__ == "__main__":
    sys.exit(main())
