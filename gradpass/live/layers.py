"""The graph of a functional Keras model: which calls of layers its outputs need, and the model without the others.

Layers that reach no output hide in nested models of which only some outputs are read. Everything is made anew on the
very same layers; a nested model that loses something is replaced by one of the same name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.live.frameworks import is_functional, keras_of


class Call(NamedTuple):
    """One call of a layer (or of an operation of Keras 3) in the graph of a model."""

    key: tuple[int, int]
    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Any]

    @property
    def tensors(self) -> list[Any]:
        """The tensors that it takes."""
        return [leaf for leaf in tf.nest.flatten((self.args, self.kwargs)) if hasattr(leaf, HISTORY)]


# Keras has no public way to ask which call made a tensor: Keras 3 to 3.15 and tf_keras 2.18 to 2.21 keep the layer, the
# number of its call and the place of the result in this attribute, and the calls in `_inbound_nodes` of the layer. A
# test fails when they move.
HISTORY = "_keras_history"


def made_by(tensor: Any) -> tuple[Call, int]:
    """The call that gave a tensor, and the place among its results."""
    layer, index, place = getattr(tensor, HISTORY)
    node = layer._inbound_nodes[index]
    if hasattr(node, "arguments"):  # Keras 3
        args, kwargs = node.arguments.args, node.arguments.kwargs
    else:
        args, kwargs = node.call_args, node.call_kwargs
    return Call((id(layer), index), layer, tuple(args), dict(kwargs), tf.nest.flatten(node.outputs)), place


class Graph:
    """The calls between the inputs and the outputs of a functional model, each after those that it needs."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.inputs: list[Any] = list(model.inputs)
        self.outputs: list[Any] = list(model.outputs)
        self.place = {id(tensor): i for i, tensor in enumerate(self.inputs)}
        self.calls: dict[tuple[int, int], Call] = {}
        for tensor in self.outputs:
            self._visit(tensor)

    def reached(self, key: tuple[int, int]) -> list[int]:
        """The places of the outputs that a call is made for."""
        after = {key}
        for call in self.calls.values():
            if any(self._maker(tensor) in after for tensor in call.tensors):
                after.add(call.key)
        return [i for i, tensor in enumerate(self.outputs) if self._maker(tensor) in after]

    def _maker(self, tensor: Any) -> tuple[int, int] | None:
        return None if id(tensor) in self.place else made_by(tensor)[0].key

    def _visit(self, tensor: Any) -> None:
        todo: list[tuple[Any, bool]] = [(tensor, False)]
        while todo:
            item, ready = todo.pop()
            if id(item) in self.place:
                continue
            call, _ = made_by(item)
            if call.key in self.calls:
                continue
            if ready:
                self.calls[call.key] = call
            else:
                todo += [(item, True), *((each, False) for each in call.tensors)]


class Alive:
    """What the outputs of a model need of it and of the models in it; `need` and `keep` let it grow.

    `used` and `read` are, by model, the places of the outputs and of the inputs that are needed.
    """

    def __init__(self, model: Any) -> None:
        self.graphs: dict[int, Graph] = {}
        self.used: dict[int, set[int]] = {}
        self.read: dict[int, set[int]] = {}
        self.calls: dict[int, set[tuple[int, int]]] = {}
        self._sites: dict[int, list[tuple[int, Call]]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._todo: list[tuple[int, Any]] = []
        self.top = self._enter(model)

    def need(self, graph: int, places: Iterable[int]) -> None:
        """These outputs of a model are needed."""
        self._outputs(graph, places)
        while self._todo:
            self._tensor(*self._todo.pop())

    def keep(self, graph: int, call: Call) -> None:
        """A call is needed for what it does, though nobody reads what it gives: then so is an output behind it."""
        self.need(graph, self.graphs[graph].reached(call.key)[:1])

    def dead(self) -> Iterator[tuple[int, Call]]:
        """The calls that nobody needs, of models that somebody needs."""
        for number, graph in self.graphs.items():
            for key, call in graph.calls.items():
                if key not in self.calls[number]:
                    yield number, call

    def changed(self, number: int) -> bool:
        """Whether a model loses something."""
        graph = self.graphs[number]
        own = len(self.used[number]) < len(graph.outputs) or len(self.calls[number]) < len(graph.calls)
        unread = number != self.top and len(self.read[number]) < len(graph.inputs)
        return own or unread or any(self.changed(id(call.layer)) for call in self.within(number))

    def within(self, number: int) -> Iterator[Call]:
        """The calls of models that can be taken apart, of those that a model needs."""
        for key in self.calls[number]:
            call = self.graphs[number].calls[key]
            if id(call.layer) in self.graphs:
                yield call

    def _enter(self, model: Any) -> int:
        number = id(model)
        if number not in self.graphs:
            self.graphs[number] = Graph(model)
            self.used[number], self.read[number], self.calls[number] = set(), set(), set()
            self._sites[number] = []
        return number

    def _outputs(self, number: int, places: Iterable[int]) -> None:
        for place in places:
            self.used[number].add(place)
            self._todo.append((number, self.graphs[number].outputs[place]))

    def _tensor(self, number: int, tensor: Any) -> None:
        if (number, id(tensor)) in self._seen:
            return
        self._seen.add((number, id(tensor)))
        graph = self.graphs[number]
        if id(tensor) in graph.place:
            place = graph.place[id(tensor)]
            self.read[number].add(place)
            self._todo += [(outer, _given(call)[place]) for outer, call in self._sites[number]]
            return
        key = made_by(tensor)[0].key
        call, place = graph.calls[key], made_by(tensor)[1]
        new = key not in self.calls[number]
        self.calls[number].add(key)
        if not can_be_opened(call.layer):
            self._todo += [(number, each) for each in call.tensors]
            return
        inner = self._enter(call.layer)
        if not _plain(call, self.graphs[inner]):  # it is given what it is given
            self._outputs(inner, [place])
            self._todo += [(inner, each) for each in self.graphs[inner].inputs]
            self._todo += [(number, each) for each in call.tensors]
            return
        self._outputs(inner, [place])
        if new:
            self._sites[inner].append((number, call))
            self._todo += [(number, _given(call)[each]) for each in self.read[inner]]


def can_be_opened(layer: Any) -> bool:
    """Whether a layer is a model that does nothing but run its graph of layers."""
    if not is_functional(layer):
        return False
    keras = keras_of(layer)
    return type(layer).call in (functional_of(keras).call, keras.Sequential.call) and type(layer).__call__ in (
        functional_of(keras).__call__,
        keras.Sequential.__call__,
    )


@cache
def functional_of(keras: Any) -> Any:
    """The class of functional models, which Keras does not name in public."""
    # Without names of their own these would change those that the user's next layers get.
    x = keras.Input((1,), name="gradpass_input")
    return type(keras.Model(x, keras.layers.ReLU(name="gradpass_layer")(x), name="gradpass_model"))


def _given(call: Call) -> list[Any]:
    """The inputs that a call gives to a nested model."""
    return list(trees(keras_of(call.layer)).flatten(call.args[0]))


def _plain(call: Call, inner: Graph) -> bool:
    """Whether a nested model is called with its inputs as it declares them, and with the masks that come with them."""
    if len(call.args) != 1:
        return False
    given, taken = call.args[0], structure_of(inner.model, "input")
    if isinstance(given, dict) != isinstance(taken, dict) or len(tf.nest.flatten(given)) != len(inner.inputs):
        return False
    if isinstance(given, dict) and list(given) != list(taken) and _ordered(given, taken):
        return False
    if isinstance(given, dict) and given.keys() != taken.keys():
        return False
    if not all(hasattr(each, HISTORY) for each in _given(call)):
        return False
    # Keras 3 writes the mask of an input, which is kept in this attribute, into the call.
    own = {id(getattr(each, "_keras_mask", None)) for each in tf.nest.flatten(given)}
    others = tf.nest.flatten({name: value for name, value in call.kwargs.items() if value is not None})
    return all(id(each) in own for each in others if hasattr(each, HISTORY))


def _ordered(*structures: Any) -> bool:
    """Whether the order in which a dict was filled counts for some of these."""
    return any(isinstance(structure, OrderedDict) for structure in structures)


def structure_of(model: Any, what: str) -> Any:
    """The inputs or outputs of a functional model as it was made with them."""
    if isinstance(model, keras_of(model).Sequential):
        return getattr(model, f"{what}s")[0]
    return getattr(model, what)


class Rebuild:
    """Makes models anew without what nobody needs, each once, on the layers that there are."""

    def __init__(self, alive: Alive) -> None:
        self.alive = alive
        self.made: dict[int, Any] = {}

    def model(self, number: int) -> Any:
        """The model without what is dead; itself where nothing is."""
        if number not in self.made:
            graph = self.alive.graphs[number]
            self.made[number] = self._new(number, graph) if self.alive.changed(number) else graph.model
        return self.made[number]

    def _new(self, number: int, graph: Graph) -> Any:
        model, keras = graph.model, keras_of(graph.model)
        if isinstance(model, keras.Sequential):
            layers = [self.model(id(each)) if id(each) in self.alive.graphs else each for each in model.layers]
            first = made_by(graph.inputs[0])[0].layer
            with _policy(model):
                return _as(keras.Sequential([first, *layers], name=model.name), model)
        tensors: dict[int, Any] = {}
        for key, call in graph.calls.items():
            if key in self.alive.calls[number]:
                self._call(call, tensors)
        places = range(len(graph.inputs)) if number == self.alive.top else self.alive.read[number]
        inputs = narrow(structure_of(model, "input"), places, trees(keras))
        outputs = narrow(structure_of(model, "output"), self.alive.used[number], trees(keras))
        outputs = tf.nest.map_structure(lambda tensor: tensors.get(id(tensor), tensor), outputs)
        same = type(model).__init__ is functional_of(keras).__init__
        with _policy(model):
            return _as((type(model) if same else keras.Model)(inputs, outputs, name=model.name), model)

    def _call(self, call: Call, tensors: dict[int, Any]) -> None:
        """Makes a call anew, on a new layer or on new tensors; as it was where nothing of it is new."""
        inner = id(call.layer)
        layer = self.model(inner) if inner in self.alive.graphs else call.layer
        if layer is call.layer and not any(id(each) in tensors for each in call.tensors):
            return
        args, kwargs = call.args, call.kwargs
        places: Collection[int] = range(len(call.outputs))
        if layer is not call.layer:
            graph = self.alive.graphs[inner]
            places = sorted(self.alive.used[inner])
            if len(self.alive.read[inner]) < len(graph.inputs):
                args = (narrow(args[0], self.alive.read[inner], trees(keras_of(layer))),)
            if _plain(call, graph):  # the new inputs bring their masks
                kwargs = {name: value for name, value in kwargs.items() if name != "mask"}
        args, kwargs = tf.nest.map_structure(lambda each: tensors.get(id(each), each), (args, kwargs))
        given = (trees(keras_of(layer)) if keras_of(layer) else tf.nest).flatten(layer(*args, **kwargs))
        tensors.update({id(call.outputs[place]): new for place, new in zip(places, given, strict=True)})


def trees(keras: Any) -> Any:
    """What flattens structures as a Keras does: Keras 3 leaves the order of an OrderedDict, tf_keras sorts it."""
    return getattr(keras, "tree", tf.nest)


def narrow(structure: Any, places: Collection[int], trees: Any = tf.nest) -> Any:
    """A structure with those of its leaves that stand at these places."""
    leaves = trees.flatten(structure)

    def kept(part: Any) -> Any:
        if isinstance(part, dict):
            parts = {key: kept(value) for key, value in part.items()}
            return {key: value for key, value in parts.items() if value is not None}
        if isinstance(part, (list, tuple)):
            listed = [value for value in map(kept, part) if value is not None]
            return listed if isinstance(part, list) else tuple(listed)
        return leaves[part] if part in places else None

    return kept(trees.pack_sequence_as(structure, list(range(len(leaves)))))


@contextmanager
def _policy(model: Any) -> Iterator[None]:
    """Lets what is made meanwhile compute in the dtypes of a model: a functional one takes no policy."""
    policies = keras_of(model).mixed_precision
    before = policies.global_policy()
    if model.dtype_policy.name == before.name:
        yield
        return
    policies.set_global_policy(model.dtype_policy)
    try:
        yield
    finally:
        policies.set_global_policy(before)


def _as(made: Any, model: Any) -> Any:
    """A new model with what the old one has beside its graph."""
    if not model.trainable:
        # The setter would freeze the shared layers, which may have been thawed one by one; both Keras keep the flag of
        # the model itself here, and a test fails when it moves.
        made._trainable = False
    return made


def layers_of(model: Any) -> dict[int, Any]:
    """The layers of a functional model and of those in it, by `id`, without the places for inputs."""
    found: dict[int, Any] = {}
    keras = keras_of(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) or id(layer) in found:
            continue
        found[id(layer)] = layer
        if can_be_opened(layer):
            found.update(layers_of(layer))
    return found
