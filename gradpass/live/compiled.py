"""What a pruned Keras model is compiled with: what the original is, less what is about outputs that went."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.live.frameworks import has_loss, keras_of, name_of, plain
from gradpass.live.layers import structure_of
from gradpass.live.target import positional
from gradpass.program.trace import of_function
from gradpass.pruning.needs import Needs


def config_of(original: Any) -> dict[str, Any]:
    """What was given to `compile`.

    Keras's public `get_compile_config` is for files: it would have to make losses and metrics of users anew from their
    names. What was given is kept here in Keras 3 to 3.15 and in tf_keras 2.18 to 2.21; a test fails when it moves.
    """
    return dict(original._compile_config.config)


def compile_like(new: Any, original: Any, removed: Collection[int]) -> None:
    """Compiles a pruned model as the original is, with an optimizer of its own that goes on from the same state.

    `removed` are the places of the outputs that went.
    """
    if not getattr(original, "compiled", getattr(original, "_is_compiled", False)):
        return
    given = config_of(original)
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        if given.get(name) is not None:
            given[name] = _kept(original, given[name], removed, name)
    given["optimizer"] = _optimizer(original, new)
    new.compile(**given)


def _kept(model: Any, spec: Any, removed: Collection[int], what: str) -> Any:
    """Losses, weights or metrics by output, without those of the outputs that went."""
    names = output_names(model)
    if isinstance(spec, dict):
        gone = {name for place in removed for name in names[place]}
        return {key: value for key, value in spec.items() if key not in gone}
    if isinstance(spec, (list, tuple)) and len(spec) == len(names) and _by_output(model, spec, what):
        return [value for place, value in enumerate(spec) if place not in removed]
    return spec


def _by_output(model: Any, spec: Any, what: str) -> bool:
    """Whether a list has an item for each output: tf_keras takes a flat list of metrics for every output."""
    if "metrics" not in what or keras_of(model).__name__ == "keras":
        return True
    return any(item is None or isinstance(item, (list, tuple, dict)) for item in spec)


def output_names(model: Any) -> list[list[str]]:
    """By which names each output of a functional model is known: its layer, and its key where outputs are a dict."""
    known = [[str(name)] for name in getattr(model, "output_names", None) or ["output"] * len(model.outputs)]
    structure = structure_of(model, "output")
    if isinstance(structure, dict):
        for key, tensor in structure.items():
            for place, output in enumerate(model.outputs):
                if output is tensor:
                    known[place].insert(0, str(key))
    return known


class Outputs(NamedTuple):
    """The outputs of a target: the names of each, and their structure with specs for leaves."""

    names: list[list[str]]
    structure: Any
    keras: Any = None


def outputs_of_model(model: Any) -> Outputs:
    """The outputs of a functional model."""
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure_of(model, "output"))
    return Outputs(output_names(model), specs, keras_of(model))


def read_by_loss(target: Any, loss: Any, outputs: Outputs, labels: Any = None) -> set[int]:
    """The places of the outputs that a loss reads; by default the loss that a model is compiled with.

    It is what `compile` takes, or names of outputs, or a function of the outputs (or of labels and outputs).
    """
    names = outputs.names
    everything = set(range(len(names)))
    chosen = loss if loss is not None else (target.loss if has_loss(target) else None)
    if chosen is None or isinstance(chosen, str):
        return everything
    if isinstance(chosen, dict):
        return {_place(name, names) for name, each in chosen.items() if each is not None}
    if isinstance(chosen, Collection):
        listed = list(chosen)
        known = {name for each in names for name in each}
        if loss is not None and listed and (isinstance(chosen, (set, frozenset)) or known.issuperset(listed)):
            return {_place(name, names) for name in listed}
        if len(listed) != len(names):
            raise GradpassError(
                f"there are {len(listed)} losses for {len(names)} outputs; give one for each, or a dict"
            )
        return {place for place, each in enumerate(listed) if each is not None}
    if loss is None or (outputs.keras is not None and isinstance(chosen, outputs.keras.losses.Loss)):
        return everything  # Keras takes one loss for each output
    return _read(chosen, outputs, labels)


def _place(name: str, names: list[list[str]]) -> int:
    for place, known in enumerate(names):
        if name in known:
            return place
    raise GradpassError(f"there is no output {name!r}; there are {', '.join(known[0] for known in names)}")


def _read(loss: Any, outputs: Outputs, labels: Any) -> set[int]:
    """The outputs that a function reads. Labels that are not known are taken to be like the outputs."""
    if not callable(loss):
        raise GradpassError(f"loss= takes a function, losses or names of outputs, not {type(loss).__name__}")
    specs = outputs.structure
    args = (specs,) if positional(loss) == 1 else (specs if labels is None else labels, specs)
    concrete = tf.function(loss).get_concrete_function(*args)
    program = of_function(concrete).program
    name = concrete.function_def.signature.name
    width = len(program.function(name).arguments) - len(concrete.captured_inputs)
    needs = Needs(program)
    needs.need_call(name, 0)
    first = width - len(outputs.names)
    return {place for place in range(len(outputs.names)) if needs.argument(name, first + place)}


def _optimizer(original: Any, new: Any) -> Any:
    """An optimizer like the original's; with what it has learned of the variables that stay."""
    old = original.optimizer
    if old is None or isinstance(old, str) or not hasattr(old, "get_config"):
        return old
    made = type(old).from_config(old.get_config())
    if not getattr(old, "built", getattr(old, "_built", False)) or isinstance(old, _legacy(original)):
        return made
    made.build(new.trainable_variables)
    held, fresh = _by_name(old), _by_name(made)
    for name, variables in fresh.items():
        theirs = held.get(name, [])
        if len(theirs) != len(variables):
            raise GradpassError(
                f"the optimizer of {original.name} has {len(theirs)} variables named {name} and would need "
                f"{len(variables)}; compile the model with a new optimizer before, or name its layers apart"
            )
        for variable, other in zip(variables, theirs, strict=True):
            variable.assign(plain(other))
    return made


def _legacy(model: Any) -> tuple[type, ...]:
    """The class of tf_keras's old optimizers, which make what they keep of a variable when they first meet it."""
    legacy = getattr(keras_of(model).optimizers.legacy, "Optimizer", None)
    return () if legacy is None else (legacy,)


def _by_name(optimizer: Any) -> dict[str, list[Any]]:
    """The variables of an optimizer; what it keeps of a variable bears the name of that.

    Built by `fit`, an optimizer of tf_keras puts its own name before.
    """
    found: dict[str, list[Any]] = {}
    for variable in optimizer.variables:
        found.setdefault(name_of(variable).removeprefix(f"{optimizer.name}/"), []).append(variable)
    return found
