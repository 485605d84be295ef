"""`gradpass probe`: arrays of a file for a target that is named on the command line."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradpass.errors import GradpassError, TargetError
from gradpass.live.frameworks import has_loss, is_functional, keras_of
from gradpass.live.probe import probe_prepared
from gradpass.live.probing.saved import probe_saved
from gradpass.live.target import POSITIONAL, prepare, resolve
from gradpass.report.probe import ProbeReport
from gradpass.report.words import quoted

LABELS = ("y", "labels", "label", "targets", "y_true")


def probe_file(target: str, data: Path, entry: str | None = None) -> ProbeReport:
    """The report on a SavedModel folder, or on `package.module:attribute`, with the arrays of a .npz file."""
    arrays = read_arrays(data)
    if Path(target).exists() or ":" not in target:
        named = set(arrays) - {f"arr_{i}" for i in range(len(arrays))}
        return probe_saved(target, arrays if named else list(arrays.values()), entry)
    if entry is not None:
        raise GradpassError(f"{target} has one entry; --entry is for a SavedModel")
    found = resolve(target)
    return probe_prepared(prepare(found, in_order(found, arrays)))


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
