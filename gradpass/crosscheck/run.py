"""Runs all checks that apply to a pair of models, whatever happens in one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gradpass.crosscheck.check import Check, Skip, attempt, guarded
from gradpass.crosscheck.gradients import check_promises
from gradpass.crosscheck.load import Loaded, Signature, load_plain
from gradpass.crosscheck.onnx_values import onnx_checks
from gradpass.crosscheck.quiet import quiet
from gradpass.crosscheck.surrogates import NAMES, Hands, Surrogates
from gradpass.crosscheck.values import Sample, compare_values, own, run_both
from gradpass.crosscheck.worth import Nowhere

Mode = Literal["straight-through", "soft"]

VALUES, ONNX, VERDICT = ["values"], ["onnx-original", "onnx-fixed"], ["verdict"]


def crosscheck(
    original: Path,
    fixed: Path,
    *,
    entries: list[str],
    promised: dict[str, list[str]],
    mode: Mode,
    samples: int = 8,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    without: Mapping[str, Collection[str]] | None = None,
    alike: Mapping[str, str] | None = None,
    graphs: bool = False,
    surrogates: Surrogates | None = None,
    nowhere: list[Nowhere] | None = None,
    data: Mapping[str, Any] | None = None,
) -> list[Check]:
    """Checks a written model against its original, entry by entry: values, ONNX export, promised gradients.

    `promised` says for an entry which variables must have a gradient now. `without` are outputs of the original that
    the other has not, by entry; `alike` tells of entries that another one runs the same function, which is exported for
    both. With `graphs` it is enough that both give the same bits where TensorFlow does not rewrite their graphs before
    it runs them. With `surrogates` the promised gradients are checked by other hands; `nowhere` gets those targets that
    theirs lead nowhere. `data` are arrays of the user's by input, for the entries that have all of these inputs. A
    check's name carries the entry's where there are several.
    """
    checks: list[Check] = []
    with quiet():
        progress("cross-check: loading both models")
        loaded = attempt(lambda: (load_plain(original), load_plain(fixed)))
        if loaded.value is None:
            names = VALUES + ONNX + VERDICT + (NAMES if surrogates else [])
            answers = [[Check(name, "failed", reason=loaded.reason) for name in names]] * len(entries)
        else:
            paths = original, fixed
            pairs = [
                _Pair(paths, *loaded.value, entry, samples, seed, (without or {}).get(entry, ()), graphs, data)
                for entry in entries
            ]
            # TensorFlow no longer differentiates a loaded loop that was first run inside another function, as an export
            # runs it: gradients come first, of all entries.
            asked = [pair.asked(promised.get(pair.entry, []), mode, progress) for pair in pairs]
            others: list[Callable[[], list[Check]]] = [list] * len(pairs)
            if surrogates is not None:
                hands = Hands(paths, loaded.value, surrogates, [] if nowhere is None else nowhere, seed)
                told = [
                    hands.ask(pair.entry, pair.kept, promised.get(pair.entry, []), values[0])
                    for pair, (values, _) in zip(pairs, asked, strict=True)
                ]
                others = [
                    partial(hands.rows, pair.entry, each, progress) for pair, each in zip(pairs, told, strict=True)
                ]
            answers = [
                [*values, *pair.exported(values, (alike or {}).get(pair.entry), progress), *verdict, *other()]
                for pair, (values, verdict), other in zip(pairs, asked, others, strict=True)
            ]
        for entry, several in zip(entries, answers, strict=True):
            suffix = f" of {entry}" if len(entries) > 1 else ""
            checks += [replace(check, name=check.name + suffix) for check in several]
    return checks


class _Pair:
    """One entry of both models."""

    def __init__(
        self,
        paths: tuple[Path, Path],
        original: Loaded,
        fixed: Loaded,
        entry: str,
        samples: int,
        seed: int,
        gone: Collection[str],
        graphs: bool,
        data: Mapping[str, Any] | None,
    ) -> None:
        self.paths = paths
        self.original = original
        self.fixed = fixed
        self.entry = entry
        self.samples = samples
        self.seed = seed
        self.gone = gone  # outputs of the original that the other has not
        self.graphs = graphs
        self.data = None if data is None or entry not in original.signatures else own(original.signatures[entry], data)
        self.kept: list[Sample] = []  # the inputs that both were run on

    def asked(
        self, promised: list[str], mode: Mode, progress: Callable[[str], None]
    ) -> tuple[list[Check], list[Check]]:
        """What both answer in TensorFlow: the values, and the gradients that are promised."""
        progress(f"cross-check: values of {self.entry}")
        values = guarded(VALUES, lambda: [self._values(mode)])
        if values[0].status == "failed" and attempt(self._varies).value:
            reason = "the original itself gives other outputs after each load (random ops, or sums in varying order)"
            values = [replace(values[0], status="skipped", reason=reason)]
        elif values[0].status == "failed" and self.graphs and attempt(self._as_written).value:
            reason = (
                "as they are written both give the same bits; TensorFlow's optimizer orders sums otherwise where it "
                f"does not meet what is dead ({values[0].reason})"
            )
            values = [replace(values[0], status="passed", limit=None, reason=reason)]

        def verdict() -> list[Check]:
            if not promised:
                raise Skip("the plan promises no gradient to this entry")
            after = self.fixed.signature(self.entry, "fixed model")
            return [check_promises(VERDICT[0], self.fixed, after, promised, self._needed(values), self.seed)]

        progress(f"cross-check: promised gradients of {self.entry}")
        return values, guarded(VERDICT, verdict)

    def exported(self, values: list[Check], alike: str | None, progress: Callable[[str], None]) -> list[Check]:
        """What both give as ONNX models."""

        def onnx() -> list[Check]:
            if alike is not None:
                raise Skip(f"{alike} runs the same function")
            before = self._before(self.original)
            after = self.fixed.signature(self.entry, "fixed model")
            return onnx_checks(ONNX, before, after, self._needed(values))

        progress(f"cross-check: ONNX export of {self.entry}")
        return guarded(ONNX, onnx)

    def _values(self, mode: Mode) -> Check:
        before = self._before(self.original)
        after = self.fixed.signature(self.entry, "fixed model")
        return compare_values(
            VALUES[0], mode == "soft", run_both(before, after, self.samples, self.seed, self.data), self.kept
        )

    def _run(self, one: Signature, other: Signature) -> Iterator[Sample]:
        return run_both(one, other, self.samples, self.seed, self.data)

    def _before(self, original: Loaded) -> Signature:
        return original.signature(self.entry, "original").without(self.gone)

    def _varies(self) -> bool:
        """Whether two loads of the original already differ where the fixed model did."""
        one, two = (self._before(load_plain(self.paths[0])) for _ in range(2))
        return compare_values("", False, self._run(one, two), []).status == "failed"

    def _as_written(self) -> bool:
        """Whether both give the same bytes where TensorFlow runs their graphs as they are, without rewriting them."""
        import tensorflow as tf

        before = tf.config.optimizer.get_experimental_options()
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        try:
            one = self._before(load_plain(self.paths[0]))
            two = load_plain(self.paths[1]).signature(self.entry, "fixed model")
            return compare_values("", False, self._run(one, two), []).status == "passed"
        finally:
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **before})

    def _needed(self, values: list[Check]) -> list[Sample]:
        if not self.kept:
            raise Skip(f"there is no input to check with: {values[0].reason}")
        return self.kept
