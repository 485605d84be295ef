"""Live targets as a command line names them: `package.module:attribute`, or a file of Keras; and data for them."""

from __future__ import annotations

import importlib
import inspect
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradpass.errors import GradpassError, TargetError
from gradpass.live.frameworks import has_loss, is_functional, keras_of
from gradpass.live.left import said, user_line
from gradpass.live.target import POSITIONAL
from gradpass.report.words import quoted

LABELS = ("y", "labels", "label", "targets", "y_true")


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
    """The inputs in a `.npz` file, in the order in which the target takes them; none without a file."""
    return [] if path is None else list(in_order(target, read_arrays(path)))


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a .npz file, by name."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise TargetError(f"{path} holds one array; write it with numpy.savez(path, x=..., y=...)")
        with file:
            arrays = {name: file[name] for name in file.files}
    except OSError as problem:
        raise TargetError(f"{path} cannot be read ({problem.strerror or problem})") from problem
    except (ValueError, zipfile.BadZipFile, EOFError) as problem:
        raise TargetError(
            f"{path} is no .npz file of plain arrays; write one with numpy.savez(path, x=...)"
        ) from problem
    if not arrays:
        raise TargetError(f"{path} holds no arrays; write it with numpy.savez(path, x=..., y=...)")
    return arrays


def in_order(target: Any, arrays: Mapping[str, Any]) -> Sequence[Any]:
    """The arrays as the target takes them: by the names of its inputs where these fit, else as they stand in the file.

    What is called y (or labels, targets) goes last.
    """
    labels = [name for name in arrays if name in LABELS]
    rest = {name: array for name, array in arrays.items() if name not in labels[:1]}
    last = [arrays[name] for name in labels[:1]]
    if keras_of(target) is not None:
        if not is_functional(target) or len(target.inputs) == 1:
            return [*rest.values(), *last]
        names = [str(each.name).partition(":")[0] for each in target.inputs]
        if not last and has_loss(target) and len(rest) == len(names) + 1:
            *_, final = rest
            last = [rest.pop(final)]
        missing = [name for name in names if name not in rest]
        if missing and not all(name.startswith("arr_") for name in rest):
            raise GradpassError(
                f"the model takes {', '.join(map(quoted, names))}; there is no array {quoted(missing[0])}"
            )
        flat = list(rest.values()) if missing else [rest[name] for name in names]
        if len(flat) != len(names):
            raise GradpassError(f"the model takes {len(names)} inputs; {len(flat)} arrays given beside the labels")
        structure = target.input
        return [dict(zip(structure, flat, strict=True)) if isinstance(structure, dict) else flat, *last]
    parameters = [p for p in inspect.signature(_python(target)).parameters.values() if p.kind in POSITIONAL]
    wanted = [p.name for p in parameters]
    if set(arrays) <= set(wanted):
        needed = wanted[: max(i for i, p in enumerate(parameters) if p.name in arrays or p.default is p.empty) + 1]
        missing = [name for name in needed if name not in arrays]
        if missing:
            raise GradpassError(f"it takes {', '.join(map(quoted, wanted))}; there is no array {quoted(missing[0])}")
        return [arrays[name] for name in needed]
    return [*rest.values(), *last]


def _python(target: Any) -> Any:
    return getattr(target, "python_function", target)


def _failed(what: str, problem: BaseException) -> TargetError:
    line = user_line(problem)
    where = f" ({line.file}:{line.line})" if line else ""
    return TargetError(f"{what} failed{where}: {type(problem).__name__}: {said(problem)}")
