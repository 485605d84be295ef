"""What a live target is: the function that is asked, its inputs, and the variables that it is to train."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.live.constants import called, own_names
from gradpass.live.frameworks import floatx, has_loss, is_functional, is_variable, keras_of, plain, unique

_CALLED = (tf.types.experimental.PolymorphicFunction, tf.types.experimental.ConcreteFunction)
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Listed:
    """One of the variables that a target lists (or that the user gave): `variable` is a tensor where it is none."""

    name: str
    variable: Any
    trainable: bool

    @property
    def is_variable(self) -> bool:
        """Whether a tape watches it by itself, being a variable."""
        return is_variable(self.variable)


@dataclass
class Prepared:
    """A live target and what it is asked with.

    `function` takes `inputs` (tensors or TensorSpecs, in the structure that the user gave) and gives the loss if there
    is one (`has_loss`), else the outputs. `inline` tells that a training step runs it as part of itself; a tf.function
    is called, and TensorFlow differentiates a call as a whole. `owner` is the object that was given.
    """

    owner: Any
    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    label: str
    has_loss: bool = False
    inline: bool = True
    autograph: bool = True
    given: Sequence[Any] | None = None
    called: Any = field(default=None, repr=False)  # the tf.function or ConcreteFunction that is asked as it stands

    def build(self) -> None:
        """Makes the variables of a Keras object that has none yet, by a call in inference.

        A tf.function that fails would leave those uninitialised that it made.
        """
        if keras_of(self.owner) is None or _is_built(self.owner):
            return
        takes = self.inputs[:-1] if self.has_loss and len(self.inputs) > 1 else self.inputs
        if self.concrete_inputs:
            self.owner(*takes, **({} if self.function is self.owner else {"training": False}))
        else:
            self.owner(*tf.nest.map_structure(_symbolic(keras_of(self.owner)), takes))

    def trace(self) -> tf.types.experimental.ConcreteFunction:
        """The target as a concrete function, traced as TensorFlow's own training traces it."""
        if isinstance(self.called, tf.types.experimental.ConcreteFunction):
            return self.called
        self.build()
        function = self.called or tf.function(self.function, autograph=self.autograph)
        return function.get_concrete_function(*self.inputs)

    @cached_property
    def listed(self) -> list[Listed]:
        """The variables that were given, else all that the object says it trains; to be asked after the trace, which
        may build them. A function says nothing: what it trains is what it reads."""
        variables = self.given if self.given is not None else _own(self.owner) or ()
        names = unique(self.name(v) for v in variables)
        return [
            Listed(name, plain(v), bool(getattr(v, "trainable", True)))
            for name, v in zip(names, variables, strict=True)
        ]

    @cached_property
    def _written(self) -> dict[int, str]:
        """How the user's code writes variables and tensors, by `handle_of`."""
        return own_names(self.owner)

    def name(self, variable: Any) -> str:
        """What the user calls a variable."""
        return called(variable, self._written)

    @property
    def lists(self) -> bool:
        """Whether it is known which variables it is to train, beyond those that it reads."""
        return self.given is not None or _own(self.owner) is not None

    @property
    def concrete_inputs(self) -> bool:
        """Whether all inputs have values, so that it can be run."""
        return not any(isinstance(leaf, tf.TypeSpec) for leaf in tf.nest.flatten(self.inputs))


def prepare(
    target: Any, inputs: Sequence[Any], loss: Any = None, variables: Any = None, training: bool = True
) -> Prepared:
    """The target made ready for a trace: Keras model or layer, tf.Module, tf.function, ConcreteFunction, callable.

    `loss` is `loss(outputs)`, or `loss(labels, outputs)` with the labels as the last input; a compiled Keras model with
    more than one input uses the compiled one. `training` is how a Keras target is called.
    """
    given = None if variables is None else _flat(variables)
    keras = keras_of(target)
    label = label_of(target)
    if isinstance(target, type) or not callable(target):
        raise GradpassError(
            f"gradpass checks a Keras model, a tf.Module, a function or a path, not {label}; give an object to call"
        )
    if not inputs:
        inputs = _known_inputs(target, keras)
    args = as_tensors(inputs, keras)
    compiled = loss is None and len(args) > 1 and has_loss(target)
    chosen = _loss(loss, keras)
    call = _call(target, keras, training)
    if compiled:
        function = _compiled_loss(target, call)
    elif chosen is None:
        called = target if isinstance(target, _CALLED) else None
        _no_labels(target, args, keras)
        return Prepared(target, call, args, label, False, called is None, keras is None, given, called)
    elif positional(chosen) == 1:
        function = _of_outputs(call, chosen)
    elif len(args) > 1:
        function = _of_labels(call, chosen)
    else:
        raise GradpassError(f"{_named(chosen)} takes labels and outputs; give the labels as the last input")
    return Prepared(target, function, args, label, True, True, keras is None, given)


def label_of(target: Any) -> str:
    """What messages call a target: the name of a model, layer or function."""
    if isinstance(target, tf.types.experimental.PolymorphicFunction):
        target = target.python_function
    name = getattr(target, "name", None) or getattr(target, "__qualname__", None) or type(target).__name__
    if isinstance(name, bytes):  # that of a ConcreteFunction
        name = name.decode()
    return str(name).rpartition("<locals>.")[2].strip("<>")


def _own(target: Any) -> list[Any] | None:
    """The variables that an object says it trains; None where it says nothing."""
    if keras_of(target) is not None or isinstance(target, tf.Module):
        return list(target.trainable_variables)
    return None


def _is_built(layer: Any) -> bool:
    """Whether a Keras object and all that it is made of have their variables."""
    layers = getattr(layer, "layers", None) or ()
    return bool(layer.built) and all(map(_is_built, layers))


def _symbolic(keras: Any) -> Callable[[Any], Any]:
    """Makes Keras's placeholders of specs."""

    def placeholder(leaf: Any) -> Any:
        return keras.Input(batch_shape=leaf.shape, dtype=leaf.dtype.name) if hasattr(leaf, "shape") else leaf

    return placeholder


def _flat(variables: Any) -> list[Any]:
    """The variables that were given, one or many; twice the same counts once."""
    flat = [variables] if is_variable(variables) or tf.is_tensor(variables) else tf.nest.flatten(list(variables))
    for item in flat:
        if not (is_variable(item) or tf.is_tensor(item)):
            raise GradpassError(
                f"variables= takes variables, not {type(item).__name__}; give model.trainable_variables"
            )
    return list({id(item): item for item in flat}.values())


def _known_inputs(target: Any, keras: Any) -> tuple[Any, ...]:
    """The inputs of a target that tells them itself; none where it takes none."""
    if keras is not None:
        if hasattr(target, "fixed_for"):
            return tuple(target.fixed_for)
        if not is_functional(target):
            raise GradpassError(
                f"{label_of(target)} does not say what it takes; give inputs: gradpass.check(model, x, y), or --data "
                "FILE.npz on the command line"
            )
        # Only a functional model knows the structure of its inputs; a Sequential one has a single one.
        structure = target.input if len(target.inputs) > 1 else target.inputs[0]
        return (tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure),)
    if isinstance(target, tf.types.experimental.PolymorphicFunction) and target.input_signature is not None:
        return tuple(target.input_signature)
    if not isinstance(target, tf.types.experimental.ConcreteFunction):
        needed = _needed(target)
        if needed:
            raise GradpassError(
                f"{label_of(target)} takes {', '.join(needed)}; give inputs: gradpass.check(function, "
                f"{', '.join(needed)}), or --data FILE.npz on the command line"
            )
    return ()


def _needed(function: Any) -> list[str]:
    """The arguments that a function cannot be called without."""
    if isinstance(function, tf.types.experimental.PolymorphicFunction):
        function = function.python_function
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in POSITIONAL and p.default is p.empty]


def _call(target: Any, keras: Any, training: bool) -> Callable[..., Any]:
    if keras is None:
        return target  # type: ignore[no-any-return]

    def call(*inputs: Any) -> Any:
        return target(*inputs, training=training)

    # A layer that does not care is not told.
    cares = isinstance(target, keras.Model) or "training" in inspect.signature(target.call).parameters
    return call if cares else target


def _compiled_loss(model: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    def loss_of(*inputs: Any) -> Any:
        return model.compute_loss(x=inputs[0], y=inputs[-1], y_pred=call(*inputs[:-1]), sample_weight=None)

    return loss_of


def _of_outputs(call: Callable[..., Any], loss: Callable[..., Any]) -> Callable[..., Any]:
    def loss_of(*inputs: Any) -> Any:
        return loss(call(*inputs))

    return loss_of


def _of_labels(call: Callable[..., Any], loss: Callable[..., Any]) -> Callable[..., Any]:
    def loss_of(*inputs: Any) -> Any:
        return loss(inputs[-1], call(*inputs[:-1]))

    return loss_of


def _loss(loss: Any, keras: Any) -> Callable[..., Any] | None:
    """A loss as a function; names are Keras's."""
    if isinstance(loss, str):
        module = keras or importlib.import_module("keras")
        try:
            loss = module.losses.get(loss)
        except ValueError as problem:
            raise GradpassError(f"Keras knows no loss {loss!r}; give its function") from problem
    if loss is not None and not callable(loss):
        raise GradpassError(f"loss= takes a function or the name of a Keras loss, not {type(loss).__name__}")
    return loss  # type: ignore[no-any-return]


def positional(loss: Callable[..., Any]) -> int:
    """How many arguments a loss needs: the outputs, or the labels and the outputs."""
    needed = [
        p
        for p in inspect.signature(loss).parameters.values()
        if p.kind is inspect.Parameter.VAR_POSITIONAL or (p.kind in POSITIONAL and p.default is p.empty)
    ]
    if len(needed) not in (1, 2):
        raise GradpassError(
            f"{_named(loss)} takes {len(needed)} arguments; a loss is loss(outputs) or loss(labels, outputs)"
        )
    return len(needed)


def _no_labels(target: Any, args: tuple[Any, ...], keras: Any) -> None:
    """Refuses what a call of the target cannot take, where it is plain what was meant."""
    if keras is None or len(args) < 2:
        return
    takes = [p for p in inspect.signature(target.call).parameters.values() if p.kind in POSITIONAL]
    if len([p for p in takes if p.name not in ("training", "mask")]) < len(args) and not any(
        p.kind is inspect.Parameter.VAR_POSITIONAL for p in inspect.signature(target.call).parameters.values()
    ):
        raise GradpassError(
            f"{label_of(target)} is not compiled with a loss, so the labels go nowhere; compile it, or give loss="
        )


def _named(loss: Any) -> str:
    return f"the loss {getattr(loss, '__name__', None) or getattr(loss, 'name', None) or type(loss).__name__}"


def as_tensors(inputs: Sequence[Any], keras: Any) -> tuple[Any, ...]:
    """Inputs as tensors; for a Keras target with the floats that its `fit` casts to."""
    return tuple(_tensors(item, floatx(keras) if keras else None) for item in inputs)


def _tensors(item: Any, floats: Any) -> Any:
    """Arrays as tensors (floats as `fit` casts them), in the structure in which they came; specs as they are."""

    def convert(leaf: Any) -> Any:
        if tf.is_tensor(leaf) or leaf is None or isinstance(leaf, (tf.TypeSpec, bool, int, float, str, bytes)):
            return leaf
        if not hasattr(leaf, "__array__"):
            raise GradpassError(f"an input is an array, a tensor or a tf.TensorSpec, not {type(leaf).__name__}")
        array = np.asarray(leaf)
        if floats is not None and array.dtype.kind == "f":
            array = array.astype(floats.as_numpy_dtype)
        return tf.convert_to_tensor(array)

    if isinstance(item, (list, tuple)) and item and not any(map(_is_leaf, tf.nest.flatten(item))):
        return convert(np.asarray(item))  # rows of numbers
    return tf.nest.map_structure(convert, item)


def _is_leaf(leaf: Any) -> bool:
    return tf.is_tensor(leaf) or isinstance(leaf, tf.TypeSpec) or hasattr(leaf, "__array__") or leaf is None
