"""The main job on real models, through the command line, and everything it promises about them.

    python -m benchmarks.real_models [--basic-pitch PATH] [--only MODEL] [--keep FOLDER] [--json FILE]

builds each real model, runs `gradpass check` and `gradpass fix`, compares with TensorFlow (`benchmarks.oracle`) and the
fixed with the original (`benchmarks.pair`), prints a table, and ends with status 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.models import basic_pitch, model, names

ENTRY = "serving_default"
Truth = dict[str, dict[str, str]]


@dataclass
class Row:
    """A claim about a model, whether it holds, and the measured figure."""

    model: str
    claim: str
    holds: bool
    figure: str


@dataclass
class Answer:
    """What a run of gradpass gave."""

    status: int
    json: Any
    error: str


def gradpass(*arguments: str | Path) -> Answer:
    """Runs the command line with JSON output."""
    command = [sys.executable, "-m", "gradpass", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return Answer(done.returncode, json.loads(done.stdout), done.stderr)
    except json.JSONDecodeError:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise SystemExit(f"gradpass {arguments[0]} printed no JSON (status {done.returncode}): {last}") from None


def helper(module: str, *arguments: str | Path) -> Any:
    """Runs another module of this folder in a process of its own and reads the JSON that is its last line, if any."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks.{module} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().rpartition("\n")[2] or "null")


def named(report: Any, truth: Truth, cuts: dict[str, int]) -> Iterator[tuple[str, bool, str]]:
    """Compares what the report names with the ops that were built in and with the variables that TensorFlow starves."""
    findings = [finding for finding in report["diagnostics"] if finding["severity"] != "note"]
    ops = Counter(finding["op"] for finding in findings)
    yield "check names the ops", ops == cuts, ", ".join(f"{op} x{count}" for op, count in sorted(ops.items()))
    starves = {name for finding in findings for name in finding["starves"]}
    starved = {name for name, answer in truth.items() if answer["structure"] != "flows"}
    figure = f"{len(starves)} named, TensorFlow starves {len(starved)}"
    yield "check names the starved variables", starves == starved, figure


def agreement(report: Any, truth: Truth) -> tuple[bool, str]:
    """Compares the verdict on each variable with TensorFlow's."""
    (entry,) = [entry for entry in report["entries"] if entry["name"] == ENTRY]
    verdict = {target["name"]: {kind: target[kind] for kind in ("state", "structure")} for target in entry["targets"]}
    apart = [name for name in {*verdict, *truth} if verdict.get(name) != truth.get(name)]
    counts = Counter(f"{answer['state']}/{answer['structure']}" for answer in truth.values())
    figure = ", ".join(f"{count} {answer}" for answer, count in sorted(counts.items()))
    return not apart, figure if not apart else f"{len(apart)} of {len(truth)} differ, {sorted(apart)[0]} among them"


def passed(answer: Answer) -> tuple[bool, str]:
    """Tells whether a fix succeeded with all its own checks."""
    checks = Counter(check["status"] for check in answer.json["crosscheck"])
    good = answer.status == 0 and checks["passed"] > 0 and not checks["failed"]
    figure = ", ".join(f"{count} {status}" for status, count in sorted(checks.items()))
    return good, f"status {answer.status}; checks: {figure}"


def leaves_alone(path: Path, out: Path) -> tuple[bool, str]:
    """Tells whether a fix of a model that needs none writes nothing and says so."""
    before = contents(path)
    command = [sys.executable, "-m", "gradpass", "fix", str(path), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.strip().rpartition("\n")[2]
    untouched = not out.exists() and contents(path) == before
    return done.returncode == 0 and untouched and "nothing was written" in said, f"status {done.returncode}: {said}"


def contents(folder: Path) -> dict[str, bytes]:
    """Reads all files of a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def broken(name: str, source: Path, work: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Takes a model with severed gradients through the whole job."""
    original, fixed = work / name, work / f"{name}-fixed"
    say(f"{name}: build")
    helper("build", name, source, original)
    say(f"{name}: TensorFlow's gradients before")
    truth = helper("oracle", original, name, ENTRY)
    say(f"{name}: check")
    report = gradpass("check", original, "--entry", ENTRY)
    yield Row(name, "check finds something", report.status == 1, f"status {report.status}")
    for claim, holds, figure in named(report.json, truth, model(name).CUTS):
        yield Row(name, claim, holds, figure)
    yield Row(name, "verdicts before agree with TensorFlow", *agreement(report.json, truth))
    say(f"{name}: fix")
    answer = gradpass("fix", original, "-o", fixed, "--entry", ENTRY)
    yield Row(name, "fix succeeds", *passed(answer))
    same = answer.json["before"]["entries"] == report.json["entries"]
    yield Row(name, "fix reports the same before", same, f"{answer.json['before']['summary']['none']} targets none")
    if not fixed.exists():
        yield Row(name, "fix writes", False, answer.error.strip())
        return
    say(f"{name}: TensorFlow's gradients after")
    truth = helper("oracle", fixed, name, ENTRY)
    flowing = sum(answer == {"state": "flows", "structure": "flows"} for answer in truth.values())
    yield Row(name, "all gradients flow after", flowing == len(truth), f"{flowing} of {len(truth)} variables")
    report = gradpass("check", fixed, "--entry", ENTRY)
    yield Row(name, "check finds nothing after", report.status == 0, f"status {report.status}")
    yield Row(name, "verdicts after agree with TensorFlow", *agreement(report.json, truth))
    say(f"{name}: compare")
    for claim in helper("pair", original, fixed, name, ENTRY):
        yield Row(name, claim["claim"], claim["holds"], claim["figure"])
    say(f"{name}: fix the fixed")
    yield Row(name, "fix of the fixed changes nothing", *leaves_alone(fixed, work / f"{name}-again"))


def healthy(shipped: Path, work: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Asks for a fix of models that need none."""
    say("healthy models")
    plain = work / "classifier"
    helper("classifier", plain)
    for name, path in (("basic-pitch as shipped", shipped), ("Keras classifier", plain)):
        yield Row(name, "fix writes nothing and says so", *leaves_alone(path, work / f"{path.name}-again"))


def rows(given: Path | None, only: str | None, work: Path, say: Callable[[str], None]) -> Iterator[Row]:
    """Takes all models, or one, through the job."""
    shipped = basic_pitch.shipped(given, work)
    for name in [only] if only else names():
        yield from broken(name, shipped, work, say)
    if not only:
        yield from healthy(shipped, work, say)


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """Gives a folder for the models, removed afterwards unless one was asked for."""
    if keep:
        keep.mkdir(parents=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def main() -> int:
    """Runs the claims and prints them as a table."""
    parser = argparse.ArgumentParser(description="Runs gradpass on real models and checks all that it promises.")
    parser.add_argument("--basic-pitch", type=Path, help="wheel or SavedModel; else the installed package, else pip")
    parser.add_argument("--only", choices=names(), help="one of the models")
    parser.add_argument("--keep", type=Path, help="a new folder for the models, kept")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    console = Console()
    table = Table("model", "claim", "", "figure", title="The main job on real models")
    found = []
    with workplace(options.keep) as work, Console(stderr=True).status("start") as status:
        for row in rows(options.basic_pitch, options.only, work, status.update):
            found.append(row)
            table.add_row(row.model, row.claim, "[green]yes[/]" if row.holds else "[red]NO[/]", row.figure)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
