"""A repaired model from disk, ready for training: its temperature is a variable again (`gradpass.load`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

from gradpass.crosscheck.load import neutral_copy
from gradpass.errors import GradpassError, TargetError
from gradpass.program import edit, savedmodel
from gradpass.program.model import Model
from gradpass.program.writer import FINGERPRINT_FILE, link_tree, write_saved_model
from gradpass.rewrite import harden, temperature
from gradpass.rewrite.temperature import Binding

CHECKPOINT = Path("variables", "variables")
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"


class Loaded(tf.Module):
    """A SavedModel that `gradpass fix` wrote, called like its signature.

    `temperature` is a variable that every surrogate reads in the backward pass (with the carrier sum and in soft mode
    in the forward pass): what it is assigned counts from the next tape on, in eager mode and in a tf.function, without
    retracing. `variables` and `trainable_variables` are the model's own, without it.
    """

    def __init__(self, path: Path, entry: str | None, value: float | None) -> None:
        super().__init__(name="gradpass_model")
        self._path = path
        model = savedmodel.read(path)
        if model.kind != "savedmodel":
            raise GradpassError(
                f"{path} is no SavedModel of TensorFlow 2, and only there can a temperature be a variable; fix it "
                "again with --temperature for another one"
            )
        (self._entry,) = model.entry(_one(entry))
        self._root, self.temperature = _load(model, _temperature(model, value))
        self._function = self._root.signatures[self._entry.name]
        self._specs = self._function.structured_input_signature[1]
        used = (v for key, v in model.variables.items() if key in model.captured)
        self._variables = {v.path: _at(self._root, v.path) for v in used}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The signature's outputs by name; its inputs by name or in its order, as tensors or what makes some."""
        names = list(self._entry.inputs)
        if len(args) > len(names):
            raise TypeError(f"{self._entry.name} takes {len(names)} inputs ({', '.join(names)}), not {len(args)}")
        given = dict(zip(names, args, strict=False))
        twice = given.keys() & kwargs.keys()
        if twice:
            raise TypeError(f"{self._entry.name} got the input {min(twice)} twice")
        given.update(kwargs)
        unknown = given.keys() - self._specs.keys()
        if unknown or len(given) < len(names):
            raise TypeError(f"{self._entry.name} takes the inputs {', '.join(names)}; it got {', '.join(given)}")
        return dict(self._function(**{n: tf.convert_to_tensor(v, self._specs[n].dtype) for n, v in given.items()}))

    @property
    def signatures(self) -> Any:
        """All signatures of the model, as `tf.saved_model.load` has them."""
        return self._root.signatures

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """The variables that functions of the model use, in the order of its object graph.

        Keras exports every weight twice, and the copies, which nothing uses, would get no gradient.
        """
        return tuple(self._variables.values())

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Those of the variables that are trainable."""
        return tuple(v for v in self._variables.values() if v.trainable)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes the model with the values that its variables and its temperature have now.

        The result loads like the one that was loaded: without gradpass its temperature is a constant. All else in it,
        `gradpass harden`'s record among it, is as it was; so are the slots of an optimizer that was saved along.
        """
        write_trained(self._path, Path(path), self._variables, float(self.temperature.numpy()), force=force)


def write_trained(
    source: Path, out: Path, variables: Mapping[str, tf.Variable], value: float, *, force: bool = False
) -> None:
    """Writes the SavedModel `source` with these values of its variables (by path) and of its temperature."""
    model = savedmodel.read(source)
    pb = harden.carried_over(model.raw, edit.encode(model, temperature.changed(model, value)))
    with tempfile.TemporaryDirectory(prefix="gradpass-") as folder:
        stage = Path(folder)
        # The old fingerprint speaks of the old checkpoint; TensorFlow loads a model without one.
        link_tree(source, stage, frozenset({FINGERPRINT_FILE, CHECKPOINT.parent.name}))
        (stage / CHECKPOINT.parent).mkdir()
        _write_checkpoint(source / CHECKPOINT, stage / CHECKPOINT, variables)
        write_saved_model(stage, out, pb, force=force)


def load(path: str | os.PathLike[str], *, entry: str | None = None, temperature: float | None = None) -> Loaded:
    """A SavedModel that `gradpass fix` wrote, with its temperature as a variable.

    `entry` is the signature to call (default: serving_default, or the only one). `temperature` starts the variable at
    another value than the file's, and is needed where its parts were fixed with different ones.
    """
    return Loaded(Path(path), entry, temperature)


def _one(entry: str | None) -> str | None:
    if entry == "all":
        raise GradpassError("one signature is called; give its name as the entry, the others are in .signatures")
    return entry


def _temperature(model: Model, value: float | None) -> float:
    """The value that the variable starts with."""
    found = temperature.found(model)
    if not found:
        raise GradpassError(
            f"{model.path} has no temperature: no surrogate in it depends on one; load it with tf.saved_model.load"
        )
    if value is None:
        if len(set(found.values())) > 1:
            told = ", ".join(f"{v:g}" for v in sorted(set(found.values())))
            raise GradpassError(f"{model.path} has the temperatures {told}; give temperature= to use one for all")
        return next(iter(found.values()))
    if not (value > 0 and np.isfinite(value)):
        raise GradpassError(f"temperature must be a positive finite number, not {value}")
    return value


def _load(model: Model, value: float) -> tuple[Any, tf.Variable]:
    """The model in TensorFlow, its temperatures bound to one variable."""
    name = f"{temperature.NAME}_variable"
    binding = Binding(model, name)
    made: list[tf.Variable] = []

    def creator(following: Any, **kwargs: Any) -> Any:
        variable = following(**kwargs)
        if kwargs.get("name") == name:
            made.append(variable)
        return variable

    # The folder lasts as long as the model: a graph may open its assets when it runs.
    folder = tempfile.TemporaryDirectory(prefix="gradpass-", ignore_cleanup_errors=True)
    bound = edit.encode(model, list(binding.functions.values()), objects=binding.objects)
    partial = neutral_copy(model.path, Path(folder.name), bound)
    with tf.variable_creator_scope(creator):
        options = tf.saved_model.LoadOptions(allow_partial_checkpoint=partial)
        root = tf.saved_model.load(folder.name, options=options)
    root.gradpass_folder = folder
    (variable,) = made
    variable.assign(value)
    return root, variable


def _at(root: Any, path: str) -> tf.Variable:
    for part in path.split("/"):
        root = getattr(root, part)
    return root


def _write_checkpoint(source: Path, target: Path, variables: Mapping[str, tf.Variable]) -> None:
    """Copies a checkpoint with other values for these variables, under the keys that it has for their paths."""
    reader = tf.train.load_checkpoint(str(source))
    tensors = {key: reader.get_tensor(key) for key in reader.get_variable_to_dtype_map()}
    objects = TrackableObjectGraph.FromString(tensors[OBJECTS])
    for path, variable in variables.items():
        tensors[_key(objects, path)] = variable.numpy()
    tf.raw_ops.SaveV2(
        prefix=str(target),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )


def _key(objects: TrackableObjectGraph, path: str) -> str:
    """The checkpoint's key for the value of the variable at a path of the object graph."""
    node = objects.nodes[0]
    for part in path.split("/"):
        below = {child.local_name: child.node_id for child in node.children}
        if part not in below:
            raise TargetError(f"the checkpoint has no value for {path}; save the model again with TensorFlow")
        node = objects.nodes[below[part]]
    keys: list[str] = [a.checkpoint_key for a in node.attributes if a.name == VALUE]
    if not keys:
        raise TargetError(f"the checkpoint has no value for {path}; save the model again with TensorFlow")
    return keys[0]
