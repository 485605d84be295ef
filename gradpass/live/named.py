"""Live targets as a command line names them: `package.module:attribute`, or a file of Keras; and data for them."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gradpass.errors import GradpassError, TargetError
from gradpass.live.frameworks import is_functional, is_model
from gradpass.live.left import said, user_line


def attribute(text: str) -> Any:
    """The object that `package.module:attribute` names: a target, or a function without arguments that makes one."""
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if problem.name is None or not f"{module_name}.".startswith(f"{problem.name}."):
            raise _failed(f"importing {module_name}", problem) from problem
        raise TargetError(
            f"there is no module {module_name!r} here or installed; see that Python can import it"
        ) from None
    except Exception as problem:  # whatever the user's module raises
        raise _failed(f"importing {module_name}", problem) from problem
    for part in name.split("."):
        if not hasattr(found, part):
            has = [each for each in vars(found) if not each.startswith("_")][:12]
            raise TargetError(f"{module_name} has no {name!r}; it has {', '.join(has) or 'nothing'}")
        found = getattr(found, part)
    if not inspect.isfunction(found) or inspect.signature(found).parameters:
        return found
    try:
        made = found()
    except Exception as problem:  # whatever the user's function raises
        raise _failed(f"{text}()", problem) from problem
    # A function without arguments that gives a number is a target itself: a loss.
    return made if callable(made) else found


def keras_file(path: Path) -> Any:
    """The model in a `.keras` or `.h5` file."""
    import keras

    import gradpass.keras  # knows the class of fixed models  # noqa: F401

    try:
        return keras.models.load_model(path)
    except Exception as problem:  # Keras raises what it likes
        raise TargetError(
            f"Keras cannot load {path} ({said(problem)[:200]}); give the model as package.module:attribute, where its "
            "own classes are at hand"
        ) from problem


def inputs_from(path: Path | None, target: Any) -> list[Any]:
    """The inputs in a `.npz` file: by the names of the target's inputs where they are there, else in order.

    What is left over of a Keras model's are its labels, last.
    """
    if path is None:
        return []
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as problem:
        raise GradpassError(f"{path} is no .npz file of arrays ({problem}); make one with numpy.savez") from problem
    if not arrays:
        raise GradpassError(f"{path} holds no arrays; give those that the target takes")
    if is_model(target):
        return _of_model(target, arrays)
    names = [name for name in inspect.signature(target).parameters if name in arrays]
    return [arrays[name] for name in names] if len(names) == len(arrays) else list(arrays.values())


def _of_model(model: Any, arrays: dict[str, Any]) -> list[Any]:
    if not is_functional(model) or len(model.inputs) == 1:
        return list(arrays.values())
    names = [getattr(tensor, "name", "") for tensor in model.inputs]
    chosen = names if set(names) <= arrays.keys() else list(arrays)[: len(names)]
    by_name = dict(zip(names, (arrays.pop(name) for name in chosen), strict=True))
    structure = model.input
    x = by_name if isinstance(structure, dict) else [by_name[name] for name in names]
    return [x, *arrays.values()]


def _failed(what: str, problem: BaseException) -> TargetError:
    line = user_line(problem)
    where = f" ({line.file}:{line.line})" if line else ""
    return TargetError(f"{what} failed{where}: {type(problem).__name__}: {said(problem)}")
