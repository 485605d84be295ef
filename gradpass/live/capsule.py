"""Functions of this process as a SavedModel of their own, and back: how a live target is repaired.

What was traced is saved to a temporary folder, repaired there as any other file is, and loaded again with the process's
own variables in the place of the file's. So there is one way to repair, and what is trained is what was there before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.errors import GradpassError
from gradpass.live.constants import reachable
from gradpass.live.frameworks import plain
from gradpass.program import edit, savedmodel
from gradpass.program.model import Entry, Live, Model
from gradpass.program.trace import Named, handle_of, output_names
from gradpass.program.writer import GRAPH_FILE, write_saved_model
from gradpass.pruning.prune import Pruned, prune
from gradpass.rewrite.fix import Repair, repair
from gradpass.rewrite.harden import with_record
from gradpass.rewrite.temperature import NAME, Binding, found

VARIABLES, RESOURCES = "variables_of_the_target", "resources_of_the_target"
SERVING = "serving_default"
OURS = "gradpass_variable_"


@dataclass(frozen=True)
class Part:
    """A function that is saved: with its trace, and the places of the inputs that are its targets if these are not the
    variables."""

    function: Any
    concrete: tf.types.experimental.ConcreteFunction
    of_inputs: frozenset[int] | None = None


class Capsule:
    """Functions with their variables in a folder of their own, for as long as this object lives.

    `parts` are by name; `listed` the variables that they are to train, under the names that the user knows.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        listed: Iterable[Named],
        owner: Any,
        label: str,
        signature: tf.types.experimental.ConcreteFunction | None = None,
    ) -> None:
        self.parts = dict(parts)
        self.listed = list(listed)
        self.label = label
        self.variables = self._all_variables()
        self._bound = self.variables
        # A graph may open its assets when it runs.
        self._folder = tempfile.TemporaryDirectory(prefix="gradpass-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / "model"
        self._save(owner, signature)
        self.model = self._read(savedmodel.read(self.path))

    def repair(self, **options: Any) -> Repair:
        """Repairs all functions; writes the result over the file, with a record of what it was."""
        done = repair(self.model, "all", **options)
        if done.pb is not None:
            (self.path / GRAPH_FILE).write_bytes(with_record(self.model.raw, done.pb, done.options))
        return done

    def write_original(self, path: Path) -> None:
        """The SavedModel as it was before it was repaired."""
        write_saved_model(self.path, path, self.model.raw, force=False)

    def bind(self, mine: Sequence[Any], theirs: Sequence[Any]) -> None:
        """Lets others take the place of some variables in what is loaded and saved from now on."""
        others = {handle_of(plain(one)): plain(other) for one, other in zip(mine, theirs, strict=True)}
        self._bound = [others.get(handle_of(variable), variable) for variable in self.variables]

    def load(self, done: Repair, temperature: float) -> tuple[Any, tf.Variable]:
        """The functions as attributes of an object, on the variables of this process; and their temperature."""
        bound = done.model
        objects = bound.objects
        assert objects is not None
        functions: list[Any] = []
        name = f"{NAME}_variable"
        if found(bound):
            binding = Binding(bound, name)
            functions, objects = list(binding.functions.values()), binding.objects
        made: list[tf.Variable] = []

        def other(following: Any, **kwargs: Any) -> Any:
            variable = following(**kwargs)
            if kwargs.get("name") == name:
                made.append(variable)
            return variable

        with tf.variable_creator_scope(other):
            root = self._load(bound, functions, objects, self._bound)
        if made:
            made[0].assign(temperature)
            return root, made[0]
        return root, tf.Variable(temperature, trainable=False, name=name)

    def prune(self) -> Pruned:
        """What is left of the functions without what they do not need."""
        return prune(savedmodel.read(self.path))

    def load_pruned(self, done: Pruned) -> Any:
        """The functions without what they do not need, on the variables of this process."""
        return self._load(done.model, [], done.model.objects, self.left(done, self._bound))

    def left(self, done: Pruned, variables: Sequence[Any]) -> list[Any]:
        """Of what there is for each variable, that of those that a pruning left."""
        removed = {variable.path for variable in done.removed}
        return [each for i, each in enumerate(variables) if f"{VARIABLES}/{i}" not in removed]

    def _load(self, bound: Model, functions: list[Any], objects: Any, variables: Sequence[Any]) -> Any:
        """A model in TensorFlow on these variables in the places of those that were saved."""
        for number, index in self.places(bound):
            objects.nodes[number].variable.name = f"{OURS}{index}"

        def creator(following: Any, **kwargs: Any) -> Any:
            called = kwargs.get("name") or ""
            if called.startswith(OURS):
                return variables[int(called.removeprefix(OURS))]
            return following(**kwargs)

        with tempfile.TemporaryDirectory(prefix="gradpass-", ignore_cleanup_errors=True) as folder:
            stage = Path(folder)
            (stage / GRAPH_FILE).write_bytes(edit.encode(bound, functions, objects=objects))
            if (self.path / "assets").is_dir():
                (stage / "assets").symlink_to(self.path / "assets", target_is_directory=True)
            with tf.variable_creator_scope(creator):
                options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
                root = tf.saved_model.load(folder, options=options)
        root.gradpass_folder = self._folder
        return root

    @property
    def paths(self) -> dict[str, tf.Variable]:
        """The variables by their paths in the file."""
        return {f"{VARIABLES}/{i}": variable for i, variable in enumerate(self._bound)}

    def _all_variables(self) -> list[tf.Variable]:
        """The variables that are listed, and those that the functions read."""
        read = [v for part in self.parts.values() for v in part.concrete.variables]
        everything = [*(each.variable for each in self.listed), *read]
        return list({handle_of(variable): variable for variable in everything}.values())

    def _save(self, owner: Any, signature: Any) -> None:
        module = tf.Module()
        setattr(module, VARIABLES, self.variables)
        setattr(module, RESOURCES, self._resources(owner))
        for name, part in self.parts.items():
            setattr(module, name, part.function)
        signatures = {} if signature is None else {SERVING: signature}
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True, save_debug_info=True)
        try:
            tf.saved_model.save(module, str(self.path), signatures, options)
        except (AssertionError, ValueError, TypeError, KeyError, NotImplementedError) as problem:
            said = str(problem).strip().splitlines()[0]
            raise GradpassError(
                f"{self.label} cannot be saved as a SavedModel, which gradpass goes through: {said}"
            ) from problem

    def _resources(self, owner: Any) -> list[Any]:
        """The tables and the like that the functions use, where the target leads to them."""
        variables = {handle_of(variable) for variable in self.variables}
        captured = {
            id(outer)
            for part in self.parts.values()
            for outer in part.concrete.captured_inputs
            if outer.dtype == tf.resource and id(outer) not in variables
        }
        if not captured:
            return []
        objects = [value for _, value in reachable(owner)]
        if isinstance(owner, tf.__internal__.tracking.Trackable):
            objects += tf.train.TrackableView(owner).descendants()
        held = {
            id(each.resource_handle): each for each in objects if id(getattr(each, "resource_handle", None)) in captured
        }
        if len(held) < len(captured):
            raise GradpassError(
                f"{self.label} uses a table or another resource that hangs neither on it nor on a name that it reads; "
                "make it an attribute of the model"
            )
        for table in held.values():
            if not hasattr(table, "_initializer"):
                raise GradpassError(
                    f"{self.label} uses a {type(table).__name__}, which changes while it runs and cannot be shared "
                    "with a repaired or pruned copy; use a tf.lookup.StaticHashTable, or look up outside of it"
                )
        return list(held.values())

    def _read(self, model: Model) -> Model:
        """The model in the file, its entries the functions, its variables under the names that the user knows."""
        model.enter = self._entries
        model.live = Live(self.label)
        names = {handle_of(each.variable): each for each in self.listed}
        for number, index in self.places(model):
            each = names.get(handle_of(self.variables[index]))
            if each is not None:
                model.variables[number] = replace(
                    model.variables[number], name=each.name, path=each.name, trainable=each.trainable
                )
        self._named = dict(model.variables)
        model.captured = {number for number, index in self.places(model) if self._is_target(index, names)}
        model.entries = self._entries(model)
        return model

    def _is_target(self, index: int, names: Mapping[int, Named]) -> bool:
        """Whether a variable is one that is to be trained: listed, or read where nothing is listed."""
        return not names or handle_of(self.variables[index]) in names

    def places(self, model: Model) -> list[tuple[int, int]]:
        """The object node of each variable that was saved, and its index."""
        assert model.objects is not None
        children = {child.local_name: child.node_id for child in model.objects.nodes[0].children}
        held = model.objects.nodes[children[VARIABLES]].children
        return [(child.node_id, int(child.local_name)) for child in held]

    def _entries(self, model: Model) -> dict[str, Entry]:
        """An entry for each function that was saved; beside them the signature, which has a copy of its own."""
        if hasattr(self, "_named"):
            model.variables = self._named
        assert model.objects is not None
        children = {child.local_name: child.node_id for child in model.objects.nodes[0].children}
        entries = {name: entry for name, entry in model.entries.items() if name == SERVING}
        for name, part in self.parts.items():
            # TensorFlow may save a function under another name than it bears here.
            (saved,) = model.objects.nodes[children[name]].function.concrete_functions
            function = model.program.function(saved)
            bound = list(model.objects.concrete_functions[saved].bound_inputs)
            split = len(function.arguments) - len(bound)
            captures: dict[Any, Any] = {}
            for argument, number in zip(function.arguments[split:], bound, strict=True):
                if number in model.variables:
                    captures.setdefault(number, []).append(argument.output(0))
            inputs = {
                argument.name: argument.output(0)
                for i, argument in enumerate(function.arguments[:split])
                if part.of_inputs is None or i in part.of_inputs
            }
            names = output_names(part.concrete.structured_outputs, len(function.results))
            outputs = dict(zip(names, function.results, strict=True))
            entries[name] = Entry(name, function, inputs, outputs, captures, of_inputs=part.of_inputs is not None)
        return entries
