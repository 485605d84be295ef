"""The real models, each a module with the same names, found by their file.

A model's module has `build(source, out)` (makes the SavedModel, in a fresh process), `CUTS` (how often which op must
be named), `inputs(rng)` (one random input of the signature), `lesson(rng)` (inputs and labels), `loss(outputs, labels)`
and `RATE` (of its SGD).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol, cast

import numpy as np

Arrays = dict[str, np.ndarray]


class RealModel(Protocol):
    """What the module of a real model offers."""

    CUTS: dict[str, int]
    RATE: float

    def build(self, source: Path, out: Path, /) -> None: ...

    def inputs(self, rng: np.random.Generator) -> Arrays: ...

    def lesson(self, rng: np.random.Generator) -> tuple[Arrays, Arrays]: ...

    def loss(self, outputs: dict[str, Any], labels: Arrays) -> Any: ...


def names() -> list[str]:
    """Lists the models of this folder."""
    return sorted(module.name for module in iter_modules(__path__))


def model(name: str) -> RealModel:
    """Gives the module of a real model by its name."""
    return cast(RealModel, import_module(f"{__name__}.{name}"))
