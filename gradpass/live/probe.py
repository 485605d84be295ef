"""`gradpass.probe`: what a target's gradient is by value, for one batch of data, and where it is lost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import tensorflow as tf

from gradpass import __version__
from gradpass.errors import GradpassBug, GradpassError, TargetError
from gradpass.flow import edges
from gradpass.flow.verdict import Structure
from gradpass.live.frameworks import is_model, plain, unique
from gradpass.live.left import left_graph, said, user_line
from gradpass.live.probing.findings import findings
from gradpass.live.probing.layers import Layers
from gradpass.live.probing.run import Goal, Passed, run
from gradpass.live.probing.trace import Forward, of_outputs
from gradpass.live.target import POSITIONAL, Prepared, prepare
from gradpass.program.trace import LIVE, handle_of
from gradpass.report.diagnostics import Entry, Report, Target
from gradpass.report.probe import ProbeReport, VariableRow, together
from gradpass.report.words import quoted


def probe(target: Any, *inputs: Any, loss: Any = None, variables: Any = None) -> ProbeReport:
    """The gradients of a target on real data: one forward and one backward pass, with numbers of every value.

    `target` is what `gradpass.check` takes live (Keras model or layer, tf.Module, tf.function, callable), `inputs` are
    arrays or tensors, the labels last; `loss` is as there, and without one the sum of the float outputs is taken. The
    path of a SavedModel folder is loaded, and takes its inputs in the order of its signature. Keras targets are called
    with training=True; the target's variables are afterwards what they were. Gradients are as TensorFlow gives them;
    of a model compiled with a LossScaleOptimizer the scaled loss is differentiated, as `fit` does, and the numbers are
    scaled back.
    """
    if isinstance(target, (str, bytes)) or hasattr(target, "__fspath__"):
        from gradpass.live.probing.saved import probe_saved

        if loss is not None or variables is not None:
            raise GradpassError(f"{target} is a file: loss= and variables= are for a live target")
        return probe_saved(target, inputs)
    prepared = prepare(target, inputs, loss, variables)
    return probe_prepared(prepared)


def probe_prepared(prepared: Prepared) -> ProbeReport:
    """The report on a live target that is ready to be called."""
    if not prepared.concrete_inputs:
        raise GradpassError("a probe runs the target: give arrays or tensors, not a tf.TensorSpec")
    prepared.build()
    passed = _run(prepared)
    return report_of(passed, prepared.label, prepared.owner)


def _run(prepared: Prepared) -> Passed:
    """The passes, by the first way that shows all of the target."""
    # Only a function that is traced whole says what it reads.
    read = [] if prepared.lists else [v for v in _concrete(prepared).variables if v.trainable]
    scale = _loss_scale(prepared)
    for call, inline, autograph in _ways(prepared):
        try:
            return run(call, prepared.inputs, lambda forward: _goals(forward, prepared, read), scale, autograph, inline)
        except GradpassError:
            raise
        except tf.errors.OperatorNotAllowedInGraphError as error:
            if not inline:
                raise _untraceable(prepared, error) from error
        except tf.errors.OpError as error:
            raise TargetError(f"{quoted(prepared.label)} cannot be run: {said(error)}") from error
        except Exception as error:  # whatever the user's own code raises
            raise _untraceable(prepared, error) from error
    raise GradpassBug("probe", None, f"no way led through {prepared.label}")


def _ways(prepared: Prepared) -> Iterator[tuple[Callable[..., Forward], bool, bool]]:
    """What to trace, whether with the tf.functions that it calls as a part of it, and whether under autograph.

    A tf.function that needs autograph (an `if` over a tensor) cannot be such a part. Then what was traced is laid out,
    or, with a custom gradient, those functions are called and count as wholes.
    """
    from gradpass.live.probing.flat import has_custom, of_concrete

    called = prepared.called
    if isinstance(called, tf.types.experimental.ConcreteFunction):
        yield of_concrete(called), False, False
        return
    autograph = prepared.autograph or called is not None
    traced = _traced(called.python_function if called is not None else prepared.function)
    yield traced, True, autograph
    concrete = _concrete(prepared)
    if has_custom(concrete):
        yield traced, False, autograph
    else:
        yield of_concrete(concrete), False, False


def _concrete(prepared: Prepared) -> tf.types.experimental.ConcreteFunction:
    try:
        return prepared.trace()
    except Exception as error:  # whatever the user's own code raises
        raise _untraceable(prepared, error) from error


def _untraceable(prepared: Prepared, error: BaseException) -> GradpassError:
    left = left_graph(error)
    line = left.source if left else user_line(error)
    where = f" ({line.file}:{line.line})" if line else ""
    more = "; gradpass.check tells more" if left else ""
    return TargetError(f"{quoted(prepared.label)} cannot be traced{where}: {said(error)}{more}")


plainly: Callable[..., Forward] = tf.autograph.experimental.do_not_convert(of_outputs)


def _traced(function: Callable[..., Any]) -> Callable[..., Forward]:
    names = [p.name for p in (inspect.signature(function).parameters.values()) if p.kind in POSITIONAL]

    def call(*inputs: Any) -> Forward:
        return plainly(function(*inputs), inputs, names)

    return call


def _goals(forward: Forward, prepared: Prepared, read: Sequence[Any]) -> dict[str, Goal]:
    """What is to be trained and is read; where there is no variable, the float inputs.

    `read` are the trainable variables that a function reads which lists none.
    """
    inside = forward.inside
    if prepared.lists:
        wanted = {each.name: each.variable for each in prepared.listed if each.trainable}
    else:
        wanted = dict(zip(unique(map(prepared.name, read)), read, strict=True))
    found = {
        name: Goal(inside[handle_of(v)], tuple(v.shape.as_list()), v.dtype.base_dtype.name, isinstance(v, tf.Variable))
        for name, v in wanted.items()
        if handle_of(v) in inside
    }
    return found or {name: Goal(t, tuple(t.shape), t.dtype.name, False) for name, t in forward.inputs.items()}


def _loss_scale(prepared: Prepared) -> Callable[[], Any]:
    """By what `fit` multiplies the loss of a compiled Keras model; None where by nothing."""

    def scale() -> Any:
        optimizer = getattr(prepared.owner, "optimizer", None) if is_model(prepared.owner) else None
        if not prepared.has_loss or optimizer is None:
            return None
        for name in ("dynamic_scale", "loss_scale"):  # of Keras 3, once it is built, and of tf_keras
            found = getattr(optimizer, name, None)
            if found is not None:
                return tf.cast(plain(found), tf.float64)
        return getattr(optimizer, "initial_scale", None)

    return scale


def report_of(passed: Passed, label: str, owner: Any = None) -> ProbeReport:
    """The report on what a pass gave."""
    layers = Layers(passed, owner)
    back = 1.0 / passed.scale
    rows = [row.scaled(back) for row in layers.rows()]
    variables = [
        VariableRow(name, goal.shape, g.scaled(back) if (g := passed.gradient(name)) is not None else None)
        for name, goal in passed.goals.items()
    ]
    loss = together(passed.values[t.name] for t in passed.forward.losses)
    assert loss is not None
    whole = [f"{passed.forward.place_of(op)[1]} ({op.type})" for op in passed.whole]
    severed = [row.name for row in variables if row.gradient is None]
    table = edges.table_for(tf.version.VERSION).version
    entry = Entry(LIVE, [], [_target(name, goal, passed) for name, goal in passed.goals.items()])
    report = Report(label, [entry], findings(passed, layers, rows), __version__, table)
    return ProbeReport(label, loss, rows, variables, whole, severed, report)


def _target(name: str, goal: Goal, passed: Passed) -> Target:
    gradient = passed.gradient(name)
    state: Structure = "none" if gradient is None else "zero" if gradient.all_zero else "flows"
    kind: Literal["variable", "input"] = "variable" if goal.is_variable else "input"
    return Target(name, name, kind, goal.dtype, goal.shape, goal.size, state, state)
