"""A SavedModel pruned into a folder of its own, and proved against what it was."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

from gradpass.errors import GradpassBug, OutputError, TargetError
from gradpass.program import savedmodel, wire
from gradpass.program.model import Model
from gradpass.program.writer import INDEX_FILE, Parts, link_tree, write_saved_model
from gradpass.pruning.checkpoint import OBJECTS, Checkpoint
from gradpass.pruning.objects import references
from gradpass.pruning.outputs import Asked, only_loss
from gradpass.pruning.prune import Pruned, prune
from gradpass.pruning.tell import findings, size_of
from gradpass.report.pruned import PruneReport
from gradpass.report.repair import CheckRow
from gradpass.rewrite.harden import without_record

METADATA = "keras_metadata.pb"


def prune_to(
    source: Path,
    out: Path,
    *,
    entry: str | None,
    loss: Collection[str] | None,
    without_rest: bool,
    dry_run: bool,
    cross_check: bool,
    force: bool,
    progress: Callable[[str], None],
) -> PruneReport:
    """Prunes the SavedModel `source` into `out`; see `gradpass.api.prune_file`."""
    model = savedmodel.read(source)
    progress("looking for what is dead")
    with _undamaged(model):
        asked = only_loss(model, loss) if without_rest else Asked()
        done = prune(model, asked)
        before = size_of(model, _on_disk(source))
        after = None if done.pb is None else size_of(done.model)
        report = PruneReport(str(source), before, after, [v.path for v in done.removed], done.kept, dry_run=dry_run)
        report.tables = done.tables
        report.outputs = [f"{name}: {output}" for name, outputs in asked.outputs.items() for output in outputs]
        report.diagnostics = findings(model, done, entry, loss)
    if dry_run or done.pb is None:
        return report
    progress("writing")
    with _staged(source, out, done) as stage:
        report.after = size_of(done.model, _on_disk(stage))
        if cross_check:
            report.crosscheck = [*_variables(done, stage), *_prove(source, stage, model, asked, progress)]
        if not report.failed:
            _put(stage, out, force)
            report.output = str(out)
    return report


@contextmanager
def _undamaged(model: Model) -> Iterator[None]:
    """Says of a file that it is damaged, where that shows in a part that is parsed when it is first asked for."""
    try:
        yield
    except (DecodeError, UnicodeDecodeError, wire.WireError) as problem:
        raise TargetError(f"{model.path} is damaged; save it again ({problem})") from problem
    except (GradpassBug, IndexError, KeyError, ValueError):
        # What came out is broken as what came in was; or the fault is ours.
        _refuse_broken(model)
        raise


def _refuse_broken(model: Model) -> None:
    """Refuses a file whose parts refer to what it has not, or do not fit each other."""
    for function in (model.program.graph, *map(model.program.function, model.program.functions)):
        try:
            model.program.verify(function)
        except GradpassBug as theirs:
            raise TargetError(f"{model.path} is damaged; save it again ({theirs.__cause__})") from theirs
    if model.objects is not None:
        named = {i for node in model.objects.nodes for i in references(node)}
        bound = {i for function in model.objects.concrete_functions.values() for i in function.bound_inputs}
        places = [node.asset.asset_file_def_index for node in model.objects.nodes if node.WhichOneof("kind") == "asset"]
        if not named | bound <= set(range(len(model.objects.nodes))) or any(
            place >= len(savedmodel.meta_of(model).asset_file_def) for place in places
        ):
            raise TargetError(f"{model.path} is damaged; save it again (its objects refer to some that it has not)")


def _prove(source: Path, stage: Path, model: Model, asked: Asked, progress: Callable[[str], None]) -> list[CheckRow]:
    """The cross-checks of values and of the ONNX exports; one signature is exported where several run one function."""
    from gradpass.crosscheck import crosscheck
    from gradpass.crosscheck.session import in_session

    entries = list(model.entries)
    if not entries:
        return [CheckRow("values", "skipped", None, None, "the model has no signature that could be run")]
    checks = crosscheck(
        source,
        stage,
        entries=entries,
        promised={},
        mode="straight-through",
        progress=progress,
        without=asked.outputs,
        alike=_alike(model),
        graphs=True,
    )
    # No gradient was promised by anybody.
    checks = [check for check in checks if not check.name.startswith("verdict")]
    checks += in_session(source, stage, entries, asked.outputs, progress)
    return [CheckRow.of(check) for check in checks]


def _alike(model: Model) -> dict[str, str]:
    """The signatures that run the same function as an earlier one, as those of a Keras export do."""
    first: dict[Any, str] = {}
    found = {}
    for name, entry in model.entries.items():
        called = [node.callee for node in entry.function.nodes if node.callee is not None]
        if len(called) == 1 and not entry.function.is_graph:
            other = first.setdefault((called[0], *entry.outputs), name)
            if other != name:
                found[name] = other
    return found


def _variables(done: Pruned, stage: Path) -> list[CheckRow]:
    """Whether every value that stays has the same bits in what was written."""
    if done.checkpoint is None:
        return []
    written = Checkpoint(stage / INDEX_FILE.with_suffix(""))
    if set(written.dtypes) != set(done.keys):
        return [CheckRow("variables", "failed", None, None, "the new checkpoint has other keys than it should")]
    apart = [key for key in done.keys if key != OBJECTS and not done.checkpoint.same(key, key, written)]
    told = f"other bits: {', '.join(apart[:3])}" if apart else None
    return [CheckRow("variables", "failed" if apart else "passed", float(len(apart)), 0.0, told)]


@contextmanager
def _staged(source: Path, out: Path, done: Pruned) -> Iterator[Path]:
    """The pruned model under a hidden name beside its final place, for as long as it is looked at."""
    assert done.pb is not None
    stage = out.parent / f".{out.name}.check-{secrets.token_hex(4)}"
    try:
        write_saved_model(source, stage, without_record(done.pb), force=False, parts=_parts(source, done))
    except OutputError as problem:
        raise OutputError(str(problem).replace(str(stage.absolute()), str(out))) from problem
    try:
        yield stage
    finally:
        if stage.exists():
            shutil.rmtree(stage)


def _parts(source: Path, done: Pruned) -> Parts:
    """What is new in the folder, beside the graph."""
    parts: dict[str, Callable[[Path], None] | None] = {}
    removal = done.removal
    if done.assets:
        parts["assets"] = lambda folder: _assets(source, folder, done.assets)
    if done.checkpoint is not None and (done.removed or done.objects != done.checkpoint.objects):
        parts[INDEX_FILE.parts[0]] = _written(done.checkpoint, done.keys, done.objects)
    if removal is not None and removal.removed and (source / METADATA).exists():
        raw = removal.metadata((source / METADATA).read_bytes())
        parts[METADATA] = lambda path: _write(path, raw)
    return parts


def _written(checkpoint: Checkpoint, keys: list[str], objects: TrackableObjectGraph | None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        checkpoint.write(folder / INDEX_FILE.stem, keys, objects)

    return write


def _assets(source: Path, folder: Path, gone: list[str]) -> None:
    folder.mkdir()
    link_tree(source / folder.name, folder, frozenset(gone))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _put(stage: Path, out: Path, force: bool) -> None:
    """Gives what was staged and proved its final name."""
    write_saved_model(stage, out, (stage / "saved_model.pb").read_bytes(), force=force)


def _on_disk(folder: Path) -> int:
    """The bytes of all files of a folder."""
    return sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(folder) for name in names)
