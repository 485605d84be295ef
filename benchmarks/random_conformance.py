"""The verdict against TensorFlow on random programs, thousands of them.

    python -m benchmarks.random_conformance --graphs 20000 [--seed 0] [--jobs 2]

makes programs of ops of all kinds (tests/flow/random_programs.py), saves many of them as one SavedModel, and compares
for each variable and input `state` with an eager tape over the loaded signature and over the live function, and
`structure` with `tf.gradients` on the unrolled graph. A disagreement is made as small as it gets and printed as a
script; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

from benchmarks.random_truth import Answer, Asked, differentiable, forgetting
from gradpass.flow.analysis import Analysis, analyse, verdict_of
from gradpass.flow.verdict import EntryVerdict
from gradpass.program import savedmodel, trace
from gradpass.program.model import Model
from tests.flow.random_ops import OPS
from tests.flow.random_programs import RUNNERS, VARIABLES, Program, Programs, every, random, sample
from tests.flow.smaller_programs import smaller

BATCH = 25
QUESTIONS = ["loaded state", "live state", "structure", "blame"]
ANSWERS = ["flows", "zero", "none", "raises"]
KEEPS = 3  # one batch of so many is saved without its custom gradients
UNUSED = Answer("none", "not used")


@dataclass
class Row:
    """One question, and both answers."""

    program: int
    question: str
    target: str
    ours: str
    truth: str
    shown: str

    @property
    def kind(self) -> tuple[str, ...]:
        """What another row says alike: both answers, or where gradpass broke."""
        return (self.ours,) if " in " in self.ours else (self.question, self.ours, self.truth)


@dataclass
class Outcome:
    """What a batch of programs gave."""

    rows: list[Row] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)  # programs that do not run at all

    def compare(self, program: int, question: str, ours: dict[str, str] | str, truth: dict[str, Answer]) -> None:
        """Adds both answers for all targets; one that either does not name is not used by the program."""
        if isinstance(ours, str):
            ours = dict.fromkeys(truth, ours)
        for target in {**ours, **truth}:
            answer = truth.get(target, UNUSED)
            self.rows.append(Row(program, question, target, ours.get(target, "none"), answer.state, answer.shown))

    def disagreements(self) -> list[Row]:
        return [row for row in self.rows if row.ours != row.truth]


def compare(made: list[Program], number: int, live: bool = True) -> Outcome:
    """Asks gradpass and TensorFlow about programs, which become the signatures of one SavedModel.

    `live` asks about the functions that were saved, too. The number decides on the data, and on whether the SavedModel
    has the custom gradients.
    """
    rng = np.random.default_rng(number)
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        with forgetting():
            programs = Programs(made, rng)
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=number % KEEPS != 0)
            signatures = {f"p{i}": function for i, function in enumerate(programs.functions)}
            tf.saved_model.save(programs.module, folder, signatures, options)
            if live:
                for i, (program, function) in enumerate(zip(made, programs.functions, strict=True)):
                    verdict = judge(trace.of_function(function), trace.LIVE)
                    asked = ask(function, programs.module, program, rng)
                    outcome.compare(i, "live state", states(verdict), _states(asked, i, outcome))
            del programs, signatures
        model = savedmodel.read(Path(folder))
        loaded = tf.saved_model.load(folder)
    for i, program in enumerate(made):
        verdict = judge(model, f"p{i}")
        asked = ask(loaded.signatures[f"p{i}"], loaded, program, rng)
        # First of all: a tape gives a function an output for each value that its backward pass needs.
        truth = {name: Answer(structure, "graph") for name, structure in asked.structure().items()}
        outcome.compare(i, "structure", structures(verdict), truth)
        outcome.compare(i, "loaded state", states(verdict), _states(asked, i, outcome))
        outcome.compare(i, "blame", *blamed(model, f"p{i}"))
    return outcome


def judge(model: Model, entry: str) -> EntryVerdict | str:
    """The verdict on an entry, or where gradpass broke: that is an answer, too, and a wrong one."""
    try:
        return verdict_of(model, model.entries[entry], "both", Analysis("state"), Analysis("structure"))[0]
    except Exception as error:  # whatever breaks is told as a disagreement, with its place
        return broken(error)


def broken(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def blamed(model: Model, entry: str) -> tuple[dict[str, str] | str, dict[str, Answer]]:
    """Whether each target that has no true gradient is told why: cut by an op, or not connected."""
    try:
        (verdict,) = analyse(model, entry, "both")
    except Exception as error:  # as in `judge`
        return broken(error), {"": Answer("named", "blame")}
    if not verdict.float_outputs:
        return {}, {}  # that is the cause, and it has a code of its own
    named = {*verdict.disconnected, *verdict.uncaptured, *(i for cut in verdict.cuts for i in cut.starves)}
    starved = {
        i: target
        for i, target in enumerate(verdict.targets)
        if target.structure != "flows" and differentiable(tf.as_dtype(target.dtype))  # an integer says it by itself
    }
    ours = {target.path: "named" if i in named else "unnamed" for i, target in starved.items()}
    return ours, dict.fromkeys(ours, Answer("named", "blame"))


def states(verdict: EntryVerdict | str) -> dict[str, str] | str:
    return verdict if isinstance(verdict, str) else {target.path: target.state for target in verdict.targets}


def structures(verdict: EntryVerdict | str) -> dict[str, str] | str:
    return verdict if isinstance(verdict, str) else {target.path: target.structure for target in verdict.targets}


def ask(function: Any, module: Any, program: Program, rng: np.random.Generator) -> Asked:
    """The function of a program with its targets; what the program does not use of the module is no target."""
    variables = {name: getattr(module, name) for name in VARIABLES}
    mine = {name: v for name, v in variables.items() if name in program.names() and v.trainable}
    specs = {spec.name: spec for spec in program.specs()}
    letters = dict(zip(specs, program.inputs, strict=True))
    others = [variable for name, variable in variables.items() if name not in mine]
    return Asked(function, mine, specs, lambda name: random(letters.get(name, name[0].upper()), rng), others)


def _states(asked: Asked, i: int, outcome: Outcome) -> dict[str, Answer]:
    try:
        return asked.state()
    except tf.errors.OpError as error:
        outcome.failed.append((i, f"{type(error).__name__}: {str(error)[:200]}"))
        return {}


def shrunk(program: Program, number: int, like: Row) -> Program:
    """The smallest program found that shows the same kind of disagreement."""
    while True:
        tries = list(smaller(program))
        for start in range(0, len(tries), BATCH):
            some = tries[start : start + BATCH]
            outcome = compare(some, number)
            hits = [row.program for row in outcome.disagreements() if row.kind == like.kind]
            if hits:
                program = some[min(hits)]
                break
        else:
            return program


def script(program: Program, number: int) -> str:
    """Python that asks about one program."""
    return f"""
from benchmarks.random_conformance import compare
from tests.flow.random_programs import Block, Program, Step

program = {program!r}
for row in compare([program], {number}).disagreements():
    print(row)
"""


@dataclass
class Batch:
    """What the programs of one seed gave, and what is wrong in words."""

    made: list[Program]
    outcome: Outcome
    seconds: float
    text: str


def batch(number: int, live: int = 1) -> Batch:
    """Makes and compares the programs of one seed, and makes small what disagrees; every `live`th seed live too."""
    start = time.perf_counter()
    made = sample(number, BATCH)
    try:
        outcome = compare(made, number, live=number % live == 0)
    except Exception:  # it is told and counted, and the other batches go on
        return Batch(made, Outcome(), time.perf_counter() - start, f"seed {number}: {traceback.format_exc()}")
    seconds = time.perf_counter() - start
    text = "".join(f"seed {number}: program {i}: {error}\n" for i, error in outcome.failed)
    first = {row.kind: row for row in reversed(outcome.disagreements())}
    for row in first.values():
        least = shrunk(made[row.program], number, row)
        text += f"seed {number}: {row}{script(least, number)}"
    return Batch(made, outcome, seconds, text)


@dataclass
class Tally:
    """What all batches gave together."""

    distinct: set[int] = field(default_factory=set)
    programs: int = 0
    broken: int = 0
    failed: int = 0
    seconds: float = 0.0
    disagreements: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ops: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, part: Batch) -> None:
        self.programs += len(part.made)
        self.distinct |= {hash(program) for program in part.made}
        self.broken += not part.outcome.rows
        self.failed += len({i for i, _ in part.outcome.failed})
        self.seconds += part.seconds
        used = [{step.op for step in every(program.block)} for program in part.made]
        for row in part.outcome.rows:
            self.disagreements[row.question] += row.ours != row.truth
            self.answers[row.question, row.truth, row.shown] += 1
            if row.shown != UNUSED.shown:
                self.ops.update((op, row.question, row.truth) for op in used[row.program])

    def print(self) -> None:
        """Prints what was asked and answered, how each answer was found, and which op met which answers."""
        print(f"programs {self.programs}, different {len(self.distinct)}, {self.seconds / self.programs:.3f} s each")
        print(f"programs that do not run: {self.failed}; batches that broke: {self.broken}\n")
        print(f"{'question':14} {'asked':>9} {'agree':>9} {'disagree':>9}")
        for question in QUESTIONS:
            asked = sum(count for (q, _, _), count in self.answers.items() if q == question)
            wrong = self.disagreements[question]
            print(f"{question:14} {asked:9} {asked - wrong:9} {wrong:9}")
        print("\nTensorFlow's answers, and how they were found")
        for (question, answer, shown), count in sorted(self.answers.items()):
            print(f"{question:14} {answer:7} {shown:24} {count:9}")
        columns = [(q, a) for q in QUESTIONS[:3] for a in ANSWERS if (q, a) != ("structure", "raises")]
        print("\ntargets of programs with the op, by question and answer")
        print(f"{'op':22}" + "".join(f"{q.split()[0]:>10}" for q, _ in columns))
        print(f"{'':22}" + "".join(f"{a:>10}" for _, a in columns))
        for op in [*OPS, *RUNNERS]:
            print(f"{op:22}" + "".join(f"{self.ops[op, question, answer]:10}" for question, answer in columns))


def set_up() -> None:
    """Small graphs that run once: threads and graph optimisation cost more than they save."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of each custom gradient that was not saved


def main() -> int:
    """Runs as many batches as are asked for; 1 if anything disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="the first batch's seed; the others follow it")
    parser.add_argument("--live", type=int, default=4, help="every so many seeds the live functions are asked, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    tally = Tally()
    start = time.perf_counter()
    seeds = range(options.seed, options.seed + -(-options.graphs // BATCH))
    # Now and then a new process: TensorFlow keeps every function that it has ever seen.
    with multiprocessing.get_context("spawn").Pool(options.jobs, set_up, maxtasksperchild=20) as pool:
        for part in pool.imap_unordered(partial(batch, live=options.live), seeds):
            tally.add(part)
            if part.text:
                print(part.text, flush=True)
            elif tally.programs % (20 * BATCH) == 0:
                print(f"{tally.programs} programs, {sum(tally.disagreements.values())} disagreements", flush=True)
    tally.print()
    print(f"\n{time.perf_counter() - start:.0f} s with {options.jobs} processes")
    return 1 if sum(tally.disagreements.values()) or tally.broken or tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
