"""Writes what the installed TensorFlow says into gradpass/flow/edges*.json and gradpass/program/ops*.json.

    python scripts/probe_edges.py           writes the rows of the installed minor version, keeps those of others
    python scripts/probe_edges.py --check   exits 1 if the files differ from what it would write

Every gradient function of TensorFlow's registry is called on symbolic inputs (probe_build.py makes them, probe_facts.py
asks, probe_cases.py varies the attributes); what that cannot decide stands in edge_overrides.py. It uses private
TensorFlow API, as nothing in gradpass/ does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_overrides import CALLS, FACTS, HINTS, RAISES
from probe_build import Attempt, OpDef, flat
from probe_cases import cases, nodes
from probe_facts import Inexpressible
from probe_ops import op_rows, registered_ops
from probe_store import command
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

Row = dict[str, Any]
PACKAGE = Path(__file__).resolve().parent.parent / "gradpass"
EDGES = PACKAGE / "flow" / "edges.json"
OPS = PACKAGE / "program" / "ops.json"


def main() -> int:
    """The command; its exit status."""
    return command(__doc__, {OPS: op_rows, EDGES: edge_rows})


def edge_rows(only: frozenset[str] | None = None) -> dict[str, Row]:
    """The rows of the edge table, of all ops with a registered gradient or of some."""
    rows: dict[str, Row] = {}
    problems = []
    for op in registered_ops():
        if only is None or op.name in only:
            try:
                row = edge_row(op)
            except Inexpressible as problem:
                problems.append(str(problem))
                continue
            if row is not None:
                rows[op.name] = row
    if problems:
        raise SystemExit("edge_overrides.py has to say something about:\n  " + "\n  ".join(problems))
    return rows


def edge_row(op: OpDef) -> Row | None:
    """One op's row; None where TensorFlow registers no gradient. Inexpressible where probing cannot tell."""
    if op.name in CALLS:
        return {"kind": "call", "how": CALLS[op.name]}
    try:
        function = ops.gradient_registry.lookup(op.name)
    except LookupError:
        return None
    if function is None:
        return {"kind": "not-differentiable"}
    if op.name in FACTS:
        why, facts = FACTS[op.name]
        return {"kind": "function", "cases": [{"edges": facts}], "how": f"by hand: {why}"}
    return {"kind": "function", **_probed(op)}


def _probed(op: OpDef) -> Row:
    found, raised = nodes(op)
    if found:
        if op.name in RAISES:
            raise Inexpressible(f"{op.name}: stands in RAISES and does not raise")
        return {"cases": cases(op, found), "how": _how(op, found)}
    kinds = {r.kind for r in raised}
    if not raised or len(kinds) > 1:
        raise Inexpressible(f"{op.name}: no node that its gradient function takes ({raised.most_common(2)})")
    error = raised.most_common(1)[0][0]
    text = f"{error.kind}: {error.text}".removesuffix(": ")
    if op.name in RAISES:
        return {"cases": [{"raises": text}], "how": f"{sum(raised.values())} nodes, all raised: {RAISES[op.name]}"}
    with tensorflow_1_control_flow():
        found, _ = nodes(op)
        if not found:
            raise Inexpressible(f"{op.name}: its gradient function raised for every node: {text}")
        return {
            "cases": [{**case, "raises": text} for case in cases(op, found)],
            "how": f"edges with TensorFlow 1's control flow, with TensorFlow 2's it raises; {_how(op, found)}",
        }


@contextlib.contextmanager
def tensorflow_1_control_flow() -> Iterator[None]:
    """As after tf.compat.v1.disable_control_flow_v2()."""
    before = control_flow_util.ENABLE_CONTROL_FLOW_V2
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = False
    try:
        yield
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = before


def _how(op: OpDef, found: list[tuple[Attempt, Any]]) -> str:
    """The probed nodes in a few words: how many, and the inputs of the first."""
    first = found[0][0]
    inputs = []
    for (_, dtype), spec in zip(flat(op.input_arg, first.attrs), first.inputs, strict=True):
        shape = "" if spec.dims is None else f"[{','.join(map(str, spec.dims))}]"
        inputs.append(f"{dtype.name}{f'={spec.value}'.replace(' ', '') if spec.value is not None else shape}")
    text = f"{len(found)} node{'s' if len(found) > 1 else ''}, first {' '.join(inputs) or 'without inputs'}"
    return f"{text} (hint: {HINTS[op.name].why})" if op.name in HINTS else text


if __name__ == "__main__":
    sys.exit(main())
