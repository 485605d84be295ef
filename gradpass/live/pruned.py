"""`prune` on live targets: the same function without the layers that nobody needs, on the same variables."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradpass.crosscheck.inputs import Layout, draw
from gradpass.errors import GradpassError
from gradpass.live.compiled import compile_like, output_names, outputs_of_model, read_by_loss
from gradpass.live.effects import Effects, effects_of
from gradpass.live.frameworks import keras_of, name_of, plain
from gradpass.live.layers import Alive, Call, Rebuild, can_be_opened, functional_of, layers_of, structure_of
from gradpass.live.target import as_tensors
from gradpass.live.traced import prune_traced
from gradpass.program.model import Variable
from gradpass.program.trace import Named, handle_of, of_function, variable_of
from gradpass.program.writer import GRAPH_FILE, write_saved_model
from gradpass.pruning.disk import prune_to
from gradpass.pruning.tell import diagnostic, size_of
from gradpass.report.diagnostics import Diagnostic
from gradpass.report.pruned import PruneReport, Size
from gradpass.report.repair import CheckRow
from gradpass.report.words import quoted, whom

# What `fit`, `evaluate` and `predict` call, and a pruned model has of Keras.
STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")


def prune(target: Any, inputs: Sequence[Any], *, loss: Any = None, only_loss: bool = False) -> Any:
    """A live target without what nobody needs, on its own variables; `.report` (a PruneReport) tells what went.

    Of a functional or Sequential Keras model it is a functional one, compiled as that is; the model itself where
    nothing is dead. Of anything else it is a tf.Module that is called like it. `loss` says which outputs a loss reads:
    a function of them, what `compile` takes, or their names; with `only_loss` the others go.
    """
    if can_be_opened(target):
        return _functional(target, inputs, loss, only_loss)
    return prune_traced(target, inputs, loss, only_loss)


def prune_to_disk(
    target: Any,
    inputs: Sequence[Any],
    out: Path,
    *,
    loss: Any = None,
    only_loss: bool = False,
    dry_run: bool = False,
    cross_check: bool = True,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> PruneReport:
    """Prunes a live target into `out`: a `.keras` file of a functional model if it is called so, else a SavedModel."""
    progress("pruning")
    done = prune(target, inputs, loss=loss, only_loss=only_loss)
    report: PruneReport = done.report
    report.dry_run = dry_run
    if dry_run or report.after is None:
        return report
    if keras_of(done) is None:
        if out.suffix in (".keras", ".h5"):
            raise GradpassError(f"{quoted(report.target)} is a function when it is pruned; let {out} be a folder")
        done.save(out, force=force)
    elif out.suffix in (".keras", ".h5"):
        done.save(out)
    else:
        with tempfile.TemporaryDirectory(prefix="gradpass-") as folder:
            with redirect_stdout(io.StringIO()):  # on which tf_keras tells of the endpoints
                done.export(folder)
            # The export itself has every weight twice.
            written = prune_to(
                Path(folder), out, entry=None, loss=None, without_rest=False, dry_run=False, cross_check=cross_check,
                force=force, progress=progress,
            )  # fmt: skip
            if written.after is None:
                write_saved_model(Path(folder), out, (Path(folder) / GRAPH_FILE).read_bytes(), force=force)
        report.crosscheck += written.crosscheck
        if written.failed:
            return report
    report.output = str(out)
    return report


class Pruned(NamedTuple):
    """A model of what some outputs need, as it is traced in training; `kept` says why layers stay that nobody reads."""

    alive: Alive
    model: Any
    concrete: tf.types.experimental.ConcreteFunction
    kept: dict[str, str]


def _functional(model: Any, inputs: Sequence[Any], loss: Any, only_loss: bool) -> Any:
    labels = as_tensors(inputs[1:2], keras_of(model))
    read = read_by_loss(model, loss, outputs_of_model(model), *labels)
    everything = set(range(len(model.outputs)))
    if only_loss and not read:
        raise GradpassError(f"no loss reads an output of {model.name}; compile it with one, or give loss=")
    effects: dict[tuple[int, int], Effects] = {}
    with model.distribute_strategy.scope():
        done = _pruned(model, read if only_loss else everything, effects)
    new, used = done.model, done.alive.used[done.alive.top]
    names = output_names(model)
    report = PruneReport(model.name, _size(model, _trace(model)), None, kept=done.kept, live=True)
    report.outputs = [names[place][0] for place in sorted(everything - used)]
    if not only_loss and read and read != everything:
        unread = [names[place][0] for place in sorted(everything - read)]
        alive = Alive(model)
        alive.need(alive.top, read)
        _keep_acting(alive, effects)
        report.diagnostics += _of_loss(model, _handles(new), _held(alive), unread)
    if new is model:
        model.report = report
        return model
    _refuse_own(model)
    _told(report, model, done)
    report.crosscheck.append(_same_values(model, new, used, inputs))
    if report.failed:
        raise GradpassError(f"{quoted(model.name)} was not pruned: {report.failed[0].told}")
    with model.distribute_strategy.scope():
        compile_like(new, model, everything - used)
    new.report = report
    return new


def _pruned(model: Any, places: set[int], effects: dict[tuple[int, int], Effects]) -> Pruned:
    """The model of what these outputs need, and of the layers that do something beside."""
    alive = Alive(model)
    alive.need(alive.top, places)
    kept: dict[str, str] = {}
    while True:
        kept |= _keep_acting(alive, effects)
        new = Rebuild(alive).model(alive.top)
        concrete = _trace(new)
        lent = {handle_of(variable) for variable in concrete.variables} - _handles(new)
        found = _lending(alive, lent)
        if found is None:
            return Pruned(alive, new, concrete, kept)
        kept[found[1].layer.name] = "others read its variables"
        alive.keep(*found)


def _keep_acting(alive: Alive, effects: dict[tuple[int, int], Effects]) -> dict[str, str]:
    """Keeps what does something beside giving outputs; gives the layers with the reasons."""
    kept: dict[str, str] = {}
    while (found := _acting(alive, effects)) is not None:
        number, call, reason = found
        kept[call.layer.name] = reason
        alive.keep(number, call)
    return kept


def _acting(alive: Alive, effects: dict[tuple[int, int], Effects]) -> tuple[int, Call, str] | None:
    """A call that nobody needs and that does something beside giving outputs."""
    held = _held(alive)
    for number, call in alive.dead():
        if call.key not in effects:
            effects[call.key] = effects_of(call)
        if effects[call.key].reason is not None:
            return number, call, f"it {effects[call.key].reason}"
        if effects[call.key].assigned & held:
            return number, call, "it changes a variable that others read"
    return None


def _lending(alive: Alive, lent: set[int]) -> tuple[int, Call] | None:
    """A call that nobody needs, of a layer that has variables which others read."""
    for number, call in alive.dead() if lent else ():
        if any(handle_of(plain(variable)) in lent for variable in getattr(call.layer, "variables", ())):
            return number, call
    return None


def _handles(model: Any) -> set[int]:
    """What tells the variables of a model."""
    return {handle_of(plain(variable)) for variable in model.variables}


def _held(alive: Alive) -> set[int]:
    """The variables, by handle, of all layers that somebody needs."""
    found: set[int] = set()
    for number, keys in alive.calls.items():
        for key in keys:
            layer = alive.graphs[number].calls[key].layer
            if id(layer) not in alive.graphs:
                found |= {handle_of(plain(variable)) for variable in getattr(layer, "variables", ())}
    return found


def _told(report: PruneReport, model: Any, done: Pruned) -> None:
    """Fills in what went, and the size of what is left."""
    new = done.model
    report.after = _size(new, done.concrete)
    gone = _missing(model, _handles(new))
    report.removed = [variable.path for variable in gone]
    stay = layers_of(new)
    names = {layer.name for layer in stay.values()}
    lost = [layer for key, layer in layers_of(model).items() if key not in stay]
    # A model that lost something is another one under the same name.
    report.layers = [layer.name for layer in lost if not (can_be_opened(layer) and layer.name in names)]
    if gone:
        report.diagnostics.insert(0, diagnostic("GP220", gone))


def _missing(model: Any, held: set[int]) -> list[Variable]:
    """The weights of a model that are none of these."""
    taken: set[str] = set()
    return [
        variable_of(handle_of(plain(weight)), plain(weight), taken, name_of(weight))
        for weight in model.weights
        if handle_of(plain(weight)) not in held
    ]


def _of_loss(model: Any, new: set[int], held: set[int], outputs: list[str]) -> list[Diagnostic]:
    """What a model needs only for outputs that no loss reads: `held` are the variables for the others."""
    variables = [variable for variable in _missing(model, held) if variable.key in new]
    if not variables:
        return []
    return [diagnostic("GP221", variables, entry=quoted(model.name), outputs=whom(outputs, "output"))]


def _trace(model: Any) -> tf.types.experimental.ConcreteFunction:
    """A Keras model as `fit` traces it."""
    function = tf.function(lambda x: model(x, training=True), autograph=False)
    return function.get_concrete_function(_specs(model))


def _size(model: Any, concrete: tf.types.experimental.ConcreteFunction) -> Size:
    """How large a Keras model is, its forward pass in training with it."""
    named = [Named(name_of(weight), plain(weight), bool(weight.trainable)) for weight in model.weights]
    size = size_of(of_function(concrete, named))
    weights = {handle_of(plain(weight)): plain(weight) for weight in model.weights}
    parameters = sum(weight.shape.num_elements() or 0 for weight in weights.values())
    return Size(size.nodes, size.functions, len(weights), parameters)


def _specs(model: Any) -> Any:
    return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure_of(model, "input"))


def _refuse_own(model: Any) -> None:
    """Refuses to leave out a step that a model trains by."""
    kind, keras = type(model), keras_of(model)
    if kind.__init__ is functional_of(keras).__init__ or kind is keras.Sequential:
        return
    own = [name for name in STEPS if getattr(kind, name, None) is not getattr(functional_of(keras), name, None)]
    if own:
        raise GradpassError(
            f"{model.name} has a {own[0]} of its own, which a pruned model would not run; prune the functional model "
            "that it is made of, and make one of your class of the result"
        )


def _same_values(model: Any, new: Any, used: set[int], inputs: Sequence[Any]) -> CheckRow:
    """Whether both give the same bits in inference: on the inputs that were given, or random ones."""
    if inputs:
        (given,) = as_tensors(inputs[:1], keras_of(model))
        if any(isinstance(leaf, tf.TypeSpec) for leaf in tf.nest.flatten(given)):
            return CheckRow("values", "skipped", None, None, "only the shapes of the inputs were given")
    else:
        given = _random(_specs(model))
    try:
        first = tf.nest.flatten(model(given, training=False))
    except (tf.errors.OpError, ValueError) as problem:
        if inputs:
            raise
        return CheckRow("values", "skipped", None, None, f"it takes no random inputs: {str(problem).splitlines()[0]}")
    bits = [[np.asarray(first[place]).tobytes() for place in sorted(used)]]
    for each in (model, new):
        flat = tf.nest.flatten(each(given, training=False))
        chosen = [flat[place] for place in sorted(used)] if each is model else flat
        bits.append([np.asarray(tensor).tobytes() for tensor in chosen])
    if bits[0] != bits[1]:
        return CheckRow("values", "skipped", None, None, "the original gives other values each time")
    differ = sum(one != other for one, other in zip(bits[0], bits[2], strict=True))
    return CheckRow("values", "failed" if differ else "passed", float(differ), 0.0, None)


def _random(specs: Any) -> Any:
    flat = dict(enumerate(tf.nest.flatten(specs)))
    drawn = draw({str(i): spec for i, spec in flat.items()}, Layout(4, True, 2, 2), np.random.default_rng(0), True)
    return tf.nest.pack_sequence_as(specs, [drawn[str(i)] for i in flat])
