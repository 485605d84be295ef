"""Tells why a TensorFlow gradient is None, zero or an error, and repairs the graph.

The public names are loaded when they are first used: importing gradpass imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradpass.api import check as check
    from gradpass.api import fix as fix
    from gradpass.api import harden as harden
    from gradpass.api import prune as prune
    from gradpass.errors import GradientWarning as GradientWarning
    from gradpass.errors import GradpassError as GradpassError
    from gradpass.live.probe import probe as probe
    from gradpass.live.step import check_step as check_step
    from gradpass.loaded import load as load
    from gradpass.report.diagnostics import Diagnostic as Diagnostic
    from gradpass.report.diagnostics import GradientError as GradientError
    from gradpass.report.diagnostics import Report as Report
    from gradpass.report.diagnostics import Target as Target
    from gradpass.report.probe import ProbeReport as ProbeReport
    from gradpass.report.pruned import PruneReport as PruneReport
    from gradpass.report.repair import FixReport as FixReport

__version__ = "0.1.0"

_PUBLIC = {
    "gradpass.api": ("check", "fix", "harden", "prune"),
    "gradpass.live.step": ("check_step",),
    "gradpass.errors": ("GradientWarning", "GradpassError"),
    "gradpass.live.probe": ("probe",),
    "gradpass.loaded": ("load",),
    "gradpass.report.diagnostics": ("Diagnostic", "GradientError", "Report", "Target"),
    "gradpass.report.probe": ("ProbeReport",),
    "gradpass.report.pruned": ("PruneReport",),
    "gradpass.report.repair": ("FixReport",),
}


_ROOMS = ("keras", "testing")  # modules that are names of their own


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"gradpass.{name}")
    for module, names in _PUBLIC.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module 'gradpass' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *(name for names in _PUBLIC.values() for name in names)})
