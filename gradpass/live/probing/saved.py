"""A SavedModel probed: loaded for one signature, its body laid out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradpass.crosscheck.load import load_plain
from gradpass.errors import GradpassError, TargetError
from gradpass.live.left import said
from gradpass.live.probing.flat import has_custom, lay_out
from gradpass.live.probing.run import Goal, run
from gradpass.live.probing.trace import Forward, of_outputs
from gradpass.program import savedmodel
from gradpass.program.model import Entry, Model
from gradpass.report.probe import ProbeReport
from gradpass.report.words import quoted


def probe_saved(
    path: str | os.PathLike[str], inputs: Sequence[Any] | Mapping[str, Any], entry: str | None = None
) -> ProbeReport:
    """The report on a signature, given its inputs in order or by name; the loss is the sum of its float outputs."""
    from gradpass.live.probe import report_of

    folder = Path(path)
    model = savedmodel.read(folder)
    if model.kind != "savedmodel":
        raise TargetError(f"{folder} is no SavedModel folder of TensorFlow 2, and only such a one can be probed")
    found = model.entry(entry)
    if len(found) != 1:
        raise TargetError(f"a probe is of one signature; choose one with --entry: {', '.join(model.entries)}")
    loaded = load_plain(folder)
    concrete = loaded.root.signatures[found[0].name]
    given = _conformed(found[0].name, concrete, inputs)
    whole = has_custom(found[0].function)

    def call(*tensors: Any) -> Forward:
        if whole:
            names = list(found[0].inputs)
            return of_outputs(concrete(**dict(zip(names, tensors, strict=True))), tensors, names)
        return lay_out(model, found[0].function, tensors, concrete.captured_inputs, list(found[0].inputs))

    try:
        passed = run(call, given, lambda forward: _goals(forward, model, found[0], concrete), inline=False)
    except tf.errors.OpError as error:
        raise TargetError(f"{quoted(found[0].name)} cannot be run on these arrays: {said(error)}") from error
    return report_of(passed, str(folder))


def _goals(forward: Forward, model: Model, entry: Entry, concrete: Any) -> dict[str, Goal]:
    """The trainable variables that the signature captures; where there are none, its float inputs."""
    captured = concrete.captured_inputs
    split = len(entry.function.arguments) - len(captured)
    found = {}
    for key, values in entry.captures.items():
        variable = model.variables[key]
        tensors = [forward.inside.get(id(captured[v.node.position - split])) for v in values]
        if variable.trainable and tensors and tensors[0] is not None:
            dtype = tf.as_dtype(variable.dtype).name
            found[variable.path] = Goal(tensors[0], variable.shape or (), dtype)
    return found or {name: Goal(t, tuple(t.shape), t.dtype.name, False) for name, t in forward.inputs.items()}


def _conformed(name: str, concrete: Any, inputs: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The inputs as tensors in the order of the signature's arguments; refuses what does not fit it."""
    _, specs = concrete.structured_input_signature
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(specs):
            raise GradpassError(f"{quoted(name)} takes {_listed(specs)}; {len(inputs)} given")
        inputs = dict(zip(specs, inputs, strict=True))
    missing = [each for each in specs if each not in inputs]
    if missing:
        raise GradpassError(f"{quoted(name)} takes {_listed(specs)}; there is no array {quoted(missing[0])}")
    found = []
    for each, spec in specs.items():
        array = np.asarray(inputs[each])
        try:
            tensor = tf.convert_to_tensor(array.astype(spec.dtype.as_numpy_dtype, casting="same_kind"))
        except TypeError as problem:
            raise GradpassError(
                f"the input {quoted(each)} is of {spec.dtype.name}, and the array of {array.dtype}"
            ) from problem
        if not spec.shape.is_compatible_with(tensor.shape):
            raise GradpassError(f"the input {quoted(each)} has the shape {spec.shape}, and the array {tensor.shape}")
        found.append(tensor)
    return found


def _listed(specs: Mapping[str, Any]) -> str:
    return ", ".join(f"{quoted(each)} {spec.dtype.name}{list(spec.shape)}" for each, spec in specs.items())
