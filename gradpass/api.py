"""`check` and `fix` on targets on disk: what the command line runs and Python code imports."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gradpass.errors import GradpassError, OutputError

if TYPE_CHECKING:
    from gradpass.program.model import Model
    from gradpass.proof import Mode
    from gradpass.report.diagnostics import Report
    from gradpass.report.pruned import PruneReport
    from gradpass.report.repair import FixReport
    from gradpass.rewrite.fix import Repair

Wrt = Literal["variables", "inputs", "both"]


def check(
    target: Any,
    *inputs: Any,
    loss: Any = None,
    variables: Any = None,
    entry: str | None = None,
    wrt: Wrt = "variables",
    order: Literal[1, 2] = 1,
    tensorflow: str | None = None,
) -> Report:
    """The verdict on a model: one on disk, without importing TensorFlow, or a live one.

    On disk it is a SavedModel folder, a frozen `.pb` or a `.meta`, and `entry` is a signature, "all", or None for
    serving_default or the only one. Live it is a Keras model or layer, a tf.Module, a tf.function or a callable, with
    the `inputs` to trace it with (arrays, tensors or tf.TensorSpecs); `loss` is loss(outputs), or loss(labels, outputs)
    with the labels as the last input, and a compiled Keras model has its own. Without a loss it is the sum of the float
    outputs. `variables` are those to ask about, by default all that the object trains, or that the function reads. A
    tf.function is judged as a call, which TensorFlow differentiates as a whole; anything else as a part of a training
    step that holds the tape, as `fit` runs it.

    With `order` 2 the gradient of the gradients of all targets is meant. `tensorflow` ("2.19") is the version whose
    gradients are meant, by default the one that wrote the model, or the newest known one. Raises GradpassError where
    the call or the target is wrong.
    """
    if order not in (1, 2):
        raise GradpassError(f"the order is 1 or 2, not {order!r}")
    if not _is_path(target):
        from gradpass.live import check as live

        if entry is not None:
            raise GradpassError(f"a live target has one entry; entry={entry!r} is for a SavedModel")
        return live.check(target, inputs, loss=loss, variables=variables, wrt=wrt, order=order, tensorflow=tensorflow)
    if inputs or loss is not None or variables is not None:
        raise GradpassError(f"{target} is read, not run: inputs, loss= and variables= are for a live model or function")
    from gradpass.flow import edges
    from gradpass.program import savedmodel

    model = savedmodel.read(_path(target))
    if tensorflow is not None:
        model.program.tensorflow = edges.table(tensorflow).version
    if order == 1:
        return _verdict(model, entry, wrt)
    from gradpass.flow.second import follow_second
    from gradpass.report.build import build

    return build(model, follow_second(model, entry, wrt), order=2)


def fix(
    target: Any,
    *inputs: Any,
    loss: Any = None,
    variables: Any = None,
    mode: Mode = "straight-through",
    **options: Any,
) -> Any:
    """Repairs a target: a live one into one of its kind on the same variables, a path into a folder or file.

    A live target (Keras model or layer, tf.Module, tf.function, callable) takes inputs and loss as `check` does. What
    comes back is called like it and has `.temperature` (a tf.Variable), `.report`, `.plan`, `.before`, `.after` and
    `.save(path)`; of a Keras model it is a keras.Model, compiled as the original is, and `.loss_fn` is the loss with a
    gradient. It warns (GradientWarning) where gradients stay missing.

    A path is repaired into `out` (the second argument, by default `TARGET-fixed` beside it) as `fix_file` does, which
    tells its other options; a FixReport comes back. The options of both: carrier, temperature, absolute_temperature,
    kernel, choice, exact_only, rules (rule by op).
    """
    if _is_path(target):
        if len(inputs) > 1 or loss is not None or variables is not None:
            raise GradpassError(f"{target} is read, not run: inputs, loss= and variables= are for a live target")
        if inputs:
            options["out"] = inputs[0]
        return fix_file(target, mode=mode, **options)
    from gradpass.live.fixed import fix as fix_live

    return fix_live(target, inputs, loss=loss, variables=variables, mode=mode, **options)


def fix_file(
    target: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    entry: str | None = None,
    mode: Mode = "straight-through",
    dry_run: bool = False,
    diff: bool = False,
    cross_check: bool = True,
    force: bool = False,
    prune: Literal["dead", "loss"] | None = None,
    onnx: str | os.PathLike[str] | None = None,
    data: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> FixReport:
    """Repairs a target on disk into `out` (default: `TARGET-fixed` beside it) and proves the result.

    `options` go to `rewrite.fix.repair`: carrier, temperature, absolute_temperature, kernel, choice,
    exact_only, rules. With `prune` what is dead is removed first, as `prune_file` does ("loss": with `only_loss`).
    `onnx` is a file for the inference model of the entry. `data` are arrays by input, for the cross-checks.
    The input is never touched; nothing is written where nothing can be repaired or a cross-check fails.
    """
    source = Path(target)
    destination = Path(out) if out is not None else _beside(source, "fixed")
    if not dry_run:
        refuse_existing(destination, force)
        if onnx is not None:
            refuse_existing(Path(onnx), force)
    if onnx is not None and entry == "all":
        raise GradpassError("an ONNX file holds one signature; give its name as the entry")
    how = {"entry": entry, "mode": mode, "diff": diff, "cross_check": cross_check, "progress": progress, **options}
    how |= {"onnx": None if onnx is None else Path(onnx), "data": data}
    if prune is None:
        return _fixed(source, destination, dry_run=dry_run, force=force, **how)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        stage = Path(folder) / source.name
        pruned = prune_file(
            source, stage, entry=entry, only_loss=prune == "loss", cross_check=cross_check, progress=progress
        )
        pruned.dry_run = dry_run
        smaller = stage if pruned.output is not None else source
        report = _fixed(smaller, destination, dry_run=dry_run or bool(pruned.failed), force=force, **how)
        if smaller is stage and report.output is None and not (dry_run or pruned.failed or report.failed):
            _write(stage, destination, (stage / "saved_model.pb").read_bytes(), force=force)
            report.output = str(destination)
    pruned.output, report.pruned, report.before.target = report.output, pruned, str(source)
    return report


def _fixed(
    source: Path,
    destination: Path,
    *,
    entry: str | None,
    mode: Mode,
    dry_run: bool,
    diff: bool,
    cross_check: bool,
    force: bool,
    onnx: Path | None,
    data: Mapping[str, Any] | None,
    progress: Callable[[str], None],
    **options: Any,
) -> FixReport:
    from gradpass.program import savedmodel
    from gradpass.program.writer import GRAPH_FILE, write_file
    from gradpass.proof import prove, refuse_other_inputs
    from gradpass.report.diff import graph_diff
    from gradpass.report.repair import FixReport, plan_of
    from gradpass.rewrite.fix import repair
    from gradpass.rewrite.harden import with_record

    model = savedmodel.read(source)
    if data is not None:
        refuse_other_inputs(model, entry, data)
    progress("repairing")
    done = repair(model, entry, mode, **options)
    before = _verdict(model, entry, "variables", done)
    plan = plan_of(done, before)
    if done.pb is None:
        return FixReport(before, None, plan, [], None, dry_run)
    changes = graph_diff(model.program, done.model.program) if diff else ""
    if dry_run:
        return FixReport(before, _verdict(done.model, entry, "variables", done), plan, [], None, dry_run, changes)

    pb = done.pb if model.kind == "frozen" else with_record(model.raw, done.pb, done.options)
    with _staged(source, destination, pb) as stage:
        after = _verdict(savedmodel.read(stage), entry, "variables", done)
        after.target = str(destination)
        report = FixReport(before, after, plan, [], str(destination), diff=changes)
        if cross_check:
            proof = prove(source, stage, before, after, mode, progress, done.promised(), done.options, data)
            report.crosscheck = proof.rows
            after.diagnostics += proof.findings
        exported = b""
        if onnx is not None and not report.failed:
            progress("writing the ONNX file")
            exported = _exported(stage, after.entries[0].name, report)
        if report.failed:
            report.output = None
        else:
            _write(source, destination, pb, force=force)
            if onnx is not None:
                write_file(source / GRAPH_FILE if source.is_dir() else source, onnx, exported, force=force)
                report.onnx = str(onnx)
    return report


def _exported(stage: Path, entry: str, report: FixReport) -> bytes:
    """The repaired signature as an ONNX model; a check that failed tells why there is none."""
    from gradpass.crosscheck.onnx_file import onnx_file
    from gradpass.report.repair import CheckRow

    check, data = onnx_file(stage, entry)
    report.crosscheck.append(CheckRow.of(check))
    return data


def harden(target: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, force: bool = False) -> Path:
    """Takes every shadow out of what `fix` wrote: `saved_model.pb` is again that of the original, byte for byte.

    Weights and assets stay those of the target, so what was trained stays trained; `fingerprint.pb` tells of the new
    file, and has another checksum and UUID than the original's. Gives where it was written (default:
    `TARGET-hardened`). A frozen graph has no place for the record that this needs.
    """
    from gradpass.program import savedmodel
    from gradpass.rewrite.harden import original

    source = _path(target)
    model = savedmodel.read(source)
    if model.kind in ("frozen", "metagraph"):
        raise GradpassError(f"{source} is one graph, which has no place for what it was before; take the original file")
    destination = Path(out) if out is not None else _beside(source, "hardened")
    refuse_existing(destination, force)
    _write(source, destination, original(model.raw, source), force=force)
    return destination


def prune(target: Any, *inputs: Any, loss: Any = None, only_loss: bool = False, **options: Any) -> Any:
    """Removes what is dead: of a live model into one of its kind on the same variables, of a path into a folder.

    A live target (Keras model or layer, tf.Module, tf.function, callable) takes inputs and loss as `check` does; what
    comes back is called like it, has fewer variables, and tells in `.report` what went. A path is pruned into `out`
    (the second argument, by default `TARGET-pruned` beside it) as `prune_file` does; a PruneReport comes back.
    """
    if _is_path(target):
        if len(inputs) > 1 or callable(loss):
            raise GradpassError(f"{target} is read, not run: inputs are for a live target, and loss= names outputs")
        return prune_file(target, *inputs, loss=loss, only_loss=only_loss, **options)
    from gradpass.live.pruned import prune as prune_live

    return prune_live(target, inputs, loss=loss, only_loss=only_loss, **options)


def prune_file(
    target: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    entry: str | None = None,
    loss: Collection[str] | None = None,
    only_loss: bool = False,
    dry_run: bool = False,
    cross_check: bool = True,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> PruneReport:
    """Removes from a SavedModel what no entry needs, and proves that every output and variable keeps its bits.

    Written into `out` (default: `TARGET-pruned` beside it). `entry` is the signature of which is told what it does not
    need. `loss` names the outputs of which the loss is made, by default those that are floats; with `only_loss` the
    others go, with what they alone need and with the methods that make them. The input is never touched; nothing is
    written where nothing is dead or a cross-check fails.
    """
    from gradpass.pruning.disk import prune_to

    source = Path(target)
    destination = Path(out) if out is not None else _beside(source, "pruned")
    if not dry_run:
        refuse_existing(destination, force)
    return prune_to(
        source,
        destination,
        entry=entry,
        loss=loss,
        without_rest=only_loss,
        dry_run=dry_run,
        cross_check=cross_check,
        force=force,
        progress=progress,
    )


def _verdict(model: Model, entry: str | None, wrt: str, done: Repair | None = None) -> Report:
    """The report on a model; with a repair, what it declined is told with its reason."""
    from gradpass.flow.analysis import analyse
    from gradpass.report.build import build

    declined = {(s.cut.function, s.cut.node): s.declined for s in done.plan if s.declined} if done else {}
    return build(model, analyse(model, entry, wrt), declined)


@contextmanager
def _staged(source: Path, out: Path, pb: bytes) -> Iterator[Path]:
    """The new model under a hidden name beside its final place, for as long as it is being checked."""
    import secrets  # with all of hashlib, which `check` needs not

    stage = out.parent / f".{out.stem}.check-{secrets.token_hex(4)}{out.suffix}"
    try:
        _write(source, stage, pb, force=False)
    except OutputError as problem:
        raise OutputError(str(problem).replace(str(stage.absolute()), str(out))) from problem
    try:
        yield stage
    finally:
        if stage.is_dir():
            shutil.rmtree(stage)
        else:
            stage.unlink()


def _write(source: Path, out: Path, pb: bytes, *, force: bool) -> None:
    """Writes a SavedModel folder for a folder, a frozen graph for a file."""
    from gradpass.program.writer import write_file, write_saved_model

    (write_saved_model if source.is_dir() else write_file)(source, out, pb, force=force)


def refuse_existing(destination: Path, force: bool) -> None:
    """OutputError where something is that is not to be replaced."""
    if os.path.lexists(destination) and not force:
        raise OutputError(f"{destination} exists; give --force to replace it, or choose another place with -o")


def _beside(source: Path, what: str) -> Path:
    named = source if source.name else Path(os.path.abspath(source))
    if named.is_file():
        return named.with_name(f"{named.stem}-{what}{named.suffix}")
    return named.with_name(f"{named.name}-{what}")


def _is_path(target: object) -> bool:
    return isinstance(target, (str, os.PathLike))


def _path(target: object) -> Path:
    if isinstance(target, (str, os.PathLike)):
        return Path(target)
    raise GradpassError(
        f"this version reads models from disk, not a live {type(target).__name__}; save it with tf.saved_model.save "
        "and give the folder"
    )
