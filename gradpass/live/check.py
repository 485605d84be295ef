"""`check` on live targets: traced once, judged on the graph; where Python left the graph, asked of a tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from gradpass import __version__
from gradpass.errors import GradpassError, TargetError
from gradpass.flow import edges
from gradpass.flow.analysis import analyse
from gradpass.flow.verdict import State, Structure
from gradpass.live.constants import copies, names_read, reachable
from gradpass.live.frameworks import is_variable, plain, unique
from gradpass.live.left import Left, left_graph, said, user_line
from gradpass.live.target import Listed, Prepared, prepare
from gradpass.program.model import Live, Model
from gradpass.program.trace import LIVE, Named, handle_of, of_function
from gradpass.report.build import build
from gradpass.report.codes import find
from gradpass.report.diagnostics import Diagnostic, Entry, Fix, Report, Target
from gradpass.report.words import quoted, whom

Wrt = Literal["variables", "inputs", "both"]


def check(
    target: Any,
    inputs: Sequence[Any],
    *,
    loss: Any = None,
    variables: Any = None,
    wrt: Wrt = "variables",
    order: Literal[1, 2] = 1,
    tensorflow: str | None = None,
) -> Report:
    """The verdict on a live target.

    Nothing is run but the trace, which may build a model; only where that fails because a value was taken out of the
    graph, the target is run once, and its variables are as before.
    """
    prepared = prepare(target, inputs, loss, variables)
    try:
        concrete = prepared.trace()
    except Exception as error:  # whatever the user's own code raises
        left = left_graph(error)
        if left is None:
            raise _untraceable(prepared, error) from error
        return _of_left(prepared, left)
    model = live_model(prepared, concrete)
    if tensorflow is not None:
        model.program.tensorflow = edges.table(tensorflow).version
    if order == 1:
        return build(model, analyse(model, None, wrt))
    from gradpass.flow.second import follow_second

    return build(model, follow_second(model, None, wrt), order=2)


def live_model(prepared: Prepared, concrete: tf.types.experimental.ConcreteFunction) -> Model:
    """The model of a traced target, with what the process knows of its variables."""
    listed = prepared.listed
    named = [Named(each.name, each.variable, each.trainable) for each in listed]
    called = {handle_of(v): prepared.name(v) for v in concrete.variables}
    model = of_function(concrete, named, called, prepared.label, prepared.inline)
    by_key = {handle_of(each.variable): each for each in listed}
    read = {handle_of(v): v for v in concrete.variables}
    live = model.live = Live(prepared.label, {**{key: each.variable for key, each in by_key.items()}, **read})
    live.tensors = {key for key, each in by_key.items() if not each.is_variable}
    live.frozen = [key for key, each in by_key.items() if not each.trainable and prepared.given is not None]
    if prepared.given is not None:
        model.captured &= by_key.keys()  # the others were not asked for
    elif prepared.lists:
        # In Keras 3 the variables of a frozen layer are trainable to TensorFlow.
        held = {handle_of(plain(v)) for v in getattr(prepared.owner, "variables", ())}
        live.untracked = [key for key, v in read.items() if key not in held and v.trainable]
        model.captured &= by_key.keys()
    live.copies = copies(concrete, model, prepared.owner)
    live.constants = names_read(concrete, model, prepared.owner)
    return model


def _untraceable(prepared: Prepared, error: BaseException) -> GradpassError:
    line = user_line(error)
    where = f" ({line.file}:{line.line})" if line else ""
    return TargetError(f"{quoted(prepared.label)} cannot be traced{where}: {said(error)}")


def _of_left(prepared: Prepared, left: Left) -> Report:
    """The report on a target that TensorFlow cannot trace: one finding, and what an eager tape gives each variable."""
    code = find("GP510")
    listed = [each for each in (prepared.listed if prepared.lists else _in_reach(prepared)) if each.trainable]
    states = _run(prepared, listed)
    targets = [_target(each, state) for each, state in zip(listed, states, strict=True)]
    starved = [t for t in targets if t.starved]
    gets = "None" if any(t.state == "none" for t in starved) else "an error"
    names = [t.name for t in starved]
    verb = "gets" if len(names) == 1 else "get"
    outcome = f"{whom(names, 'variable')} {verb} {gets}" if names else "TensorFlow cannot trace it"
    diagnostic = Diagnostic(
        code=code.code,
        name=code.name,
        severity=code.severity,
        message=code.message.format(what=quoted(left.what), outcome=outcome),
        help=code.advice(),
        entries=[LIVE],
        source=left.source,
        starves=names,
        parameters=sum(t.parameters for t in starved),
        notes=[f"TensorFlow says: {said(left.error)}"],
        fix=Fix("advise"),
    )
    if not prepared.concrete_inputs:
        diagnostic.notes.append("with arrays in place of a tf.TensorSpec it would be run, to see whom it starves")
    entry = Entry(LIVE, [], targets)
    return Report(prepared.label, [entry], [diagnostic], __version__, edges.table_for(tf.version.VERSION).version)


def _in_reach(prepared: Prepared) -> list[Listed]:
    """The variables that a function could read: nobody lists them, and no trace tells which it does."""
    found = {handle_of(plain(v)): v for _, v in reachable(prepared.owner) if is_variable(v)}
    names = unique(prepared.name(variable) for variable in found.values())
    return [
        Listed(name, plain(variable), bool(variable.trainable))
        for name, variable in zip(names, found.values(), strict=True)
    ]


def _target(listed: Listed, state: State) -> Target:
    shape = listed.variable.shape
    size = shape.num_elements() or 0
    known = None if shape.rank is None else tuple(shape.as_list())
    structure: Structure = "flows" if state == "flows" else "none"
    dtype = listed.variable.dtype.base_dtype.name
    mine = [0] if state != "flows" else []
    return Target(listed.name, listed.name, "variable", dtype, known, size, state, structure, mine)


def _run(prepared: Prepared, listed: list[Listed]) -> list[State]:
    """What an eager tape gives each variable; an error where it cannot be run. Variables are as before afterwards."""
    if not prepared.concrete_inputs:
        return ["raises"] * len(listed)
    owned = [plain(v) for v in getattr(prepared.owner, "variables", ())]
    kept = [(v, v.read_value()) for v in {id(v): v for v in (*owned, *(each.variable for each in listed))}.values()]
    try:
        with tf.GradientTape() as tape:
            outputs = prepared.function(*prepared.inputs)
            floats = [t for t in tf.nest.flatten(outputs) if tf.is_tensor(t) and t.dtype.is_floating]
        given = tape.gradient(floats, [each.variable for each in listed])
    except Exception:  # the user's own code, which an eager run may fail as well
        return ["raises"] * len(listed)
    finally:
        for variable, value in kept:
            variable.assign(value)
    return ["none" if gradient is None else "flows" for gradient in given]
