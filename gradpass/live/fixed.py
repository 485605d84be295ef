"""`fix` on live targets: the same function with a gradient, on the same variables."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradpass.errors import GradientWarning
from gradpass.live.frameworks import keras_of
from gradpass.live.mend import Repaired, repaired
from gradpass.live.parts import CALL, conformed
from gradpass.program import savedmodel
from gradpass.program.writer import GRAPH_FILE, write_saved_model
from gradpass.report.diagnostics import Report
from gradpass.report.repair import FixReport, Plan


def fix(
    target: Any,
    inputs: Sequence[Any],
    *,
    loss: Any = None,
    variables: Any = None,
    crosscheck: bool = False,
    **options: Any,
) -> Any:
    """A repaired copy of a live target, which trains the target's own variables.

    Of a Keras model it is a keras.Model (of that Keras), else a tf.Module. With `crosscheck` it is proven as a file is,
    by way of one; what that finds is in the report. `options` go to `rewrite.fix.repair`.
    """
    from gradpass.live.keras_model import fixed_model

    done = repaired(target, inputs, loss=loss, variables=variables, **options)
    if crosscheck and done.report.repaired:
        with tempfile.TemporaryDirectory(prefix="gradpass-") as folder:
            _prove(done, Path(folder), options, lambda _: None)
    if not done.report.ok:
        warnings.warn(f"some gradients stay missing:\n{done.report.left}", GradientWarning, stacklevel=3)
    if keras_of(target) is not None:
        settings = {"loss": loss, **options} if loss is not None else options
        return fixed_model(target, done, settings)
    return Fixed(target, done)


def fix_to(
    target: Any,
    inputs: Sequence[Any],
    out: Path,
    *,
    dry_run: bool = False,
    cross_check: bool = True,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> FixReport:
    """Repairs a live target into a SavedModel, or a `.keras` file if `out` is one, and proves it as a file is."""
    from gradpass.live.keras_model import fixed_model

    progress("repairing")
    done = repaired(target, inputs, **options)
    report = done.report
    report.live, report.dry_run = False, dry_run
    if not report.repaired or dry_run:
        return report
    with tempfile.TemporaryDirectory(prefix="gradpass-") as folder:
        fixed = Path(folder) / "fixed"
        if cross_check:
            _prove(done, Path(folder), options, progress)
        else:
            save(done, fixed, force=False)
        if not report.failed:
            if out.suffix == ".keras":
                fixed_model(target, done, options).save(out)
            else:
                write_saved_model(fixed, out, (fixed / GRAPH_FILE).read_bytes(), force=force)
            report.output = str(out)
    return report


def _prove(done: Repaired, folder: Path, options: dict[str, Any], progress: Callable[[str], None]) -> None:
    """Saves what was repaired as `fixed` and adds the cross-checks to its report; none where no plain tensors go in."""
    from gradpass.api import check
    from gradpass.proof import prove

    original, fixed = folder / "original", folder / "fixed"
    done.capsule.write_original(original)
    save(done, fixed, force=False)
    if not savedmodel.read(original).entries:
        return
    mode = options.get("mode", "straight-through")
    proof = prove(original, fixed, check(original), check(fixed), mode, progress, options=options)
    done.report.crosscheck = proof.rows or done.report.crosscheck
    done.report.left.diagnostics += proof.findings


class Fixed(tf.Module):
    """A repaired function or module: called like the original, on the same variables.

    `temperature` is read by every surrogate, from the next tape on. `loss_fn` is the repaired loss, if one was given.
    """

    def __init__(self, original: Any, done: Repaired) -> None:
        super().__init__(name="gradpass_fixed")
        self._original = original
        self._done = done
        self.temperature = done.temperature

    def __call__(self, *inputs: Any) -> Any:
        """What the original gives for these inputs."""
        given = self._done.functions[CALL](*conformed(inputs, self._done.specs))
        return tf.nest.pack_sequence_as(self._done.structure, tf.nest.flatten(given))

    @property
    def loss_fn(self) -> Callable[..., Any] | None:
        """The loss that was given, with a gradient."""
        return next(iter(self._done.losses.values()), None)

    @property
    def report(self) -> FixReport:
        """What was found, done and checked."""
        return self._done.report

    @property
    def plan(self) -> Plan:
        """What was done about each finding, or why nothing was."""
        return Plan(self._done.report)

    @property
    def before(self) -> Report:
        """The verdict on the original."""
        return self._done.report.before

    @property
    def after(self) -> Report:
        """The verdict on what is repaired."""
        return self._done.report.left

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """The variables of the original."""
        own = getattr(self._original, "variables", None)
        if own is None:
            own = self._done.capsule.variables
        return tuple(own)

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """Those of them that are trainable."""
        return tuple(v for v in self.variables if v.trainable)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes a SavedModel with the values that variables and temperature have now; `gradpass.load` reads it."""
        save(self._done, Path(path), force=force)


def save(done: Repaired, path: Path, *, force: bool) -> None:
    """Writes what was repaired as a SavedModel."""
    from gradpass.loaded import write_trained

    value = float(done.temperature.numpy())
    write_trained(done.capsule.path, path, done.capsule.paths, value, force=force)
