"""Every example of every rule, repaired, by all hands of the cross-check: what each says, and of what it says nothing.

    python -m benchmarks.hands [WORD] [--carrier bridge|sum] [--json FILE]

The examples are the rules' own `hits` (a WORD chooses those of the rules whose names contain it). A hand that fails is
told with its reason: a false alarm, or a surrogate that deserves it. Ends with 1 where a value or a derivative fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

STATUSES = ("passed", "failed", "skipped")
HARD = ("values", "onnx-fixed", "verdict", "derivative", "autodiff", "schema")  # these may not fail


@dataclass
class Counts:
    """How often each hand ended in which way, the failures with what they say, the reasons of the skipped."""

    examples: int = 0
    ended: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)


def counts(word: str, carrier: str, folder: Path) -> Counts:
    """Repairs all examples as one SavedModel and cross-checks it entry by entry."""
    import tensorflow as tf

    from gradpass.api import fix_file
    from gradpass.rules.base import rules
    from tests.models import save_expressions

    hits = [(rule.name, text) for rule in rules() for text in rule.hits if word in rule.name]
    original = save_expressions(folder / "original", [text for _, text in hits], tf.float32)
    report = fix_file(original, folder / "fixed", entry="all", carrier=carrier)
    found = Counts(len(hits))
    reasons: dict[str, Counter[str]] = {}
    for row in report.crosscheck:
        name, _, entry = row.name.partition(" of ")
        rule, text = hits[int(entry.rpartition("_")[2]) if entry else 0]
        found.ended.setdefault(name, dict.fromkeys(STATUSES, 0))[row.status] += 1
        if row.status == "failed":
            found.failures.append((name, f"{rule}: {text}", str(row.reason)))
        elif row.status == "skipped":
            reasons.setdefault(name, Counter())[str(row.reason)] += 1
    found.reasons = {name: dict(counter.most_common()) for name, counter in reasons.items()}
    return found


def main() -> int:
    """Prints the tables; gives the exit status."""
    parser = argparse.ArgumentParser(description="Every rule's examples by all hands of the cross-check.")
    parser.add_argument("word", nargs="?", default="", help="only rules whose names contain it")
    parser.add_argument("--carrier", choices=("bridge", "sum"), default="bridge")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    with Console(stderr=True).status("repairing and cross-checking"), tempfile.TemporaryDirectory() as folder:
        found = counts(options.word, options.carrier, Path(folder))
    console = Console()
    console.print(table(found))
    for name, example, reason in found.failures:
        console.print(f"{name} fails {example}: {reason}", markup=False)
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    return int(any(found.ended[name]["failed"] for name in HARD))


def table(found: Counts) -> Table:
    """The counts as they are printed."""
    made = Table("hand", *STATUSES, "skipped most often since", title=f"{found.examples} examples")
    for name, ended in found.ended.items():
        most = next(iter(found.reasons.get(name, {"": 0})))
        made.add_row(name, *(str(ended[status]) for status in STATUSES), most)
    return made


if __name__ == "__main__":
    sys.exit(main())
