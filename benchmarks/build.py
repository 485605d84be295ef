"""Makes the SavedModel of a real model: `python -m benchmarks.build MODEL SOURCE OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.models import model

if __name__ == "__main__":
    _, name, source, out = sys.argv
    model(name).build(Path(source), Path(out))
