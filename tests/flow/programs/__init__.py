"""Hand-made graphs for each op that runs functions, for variables on their way into them, and for what travels through.

Each module here is a theme.
"""

from __future__ import annotations

import importlib
import pkgutil

from tests.flow.programs.base import PROGRAMS as PROGRAMS

for theme in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{theme.name}")
