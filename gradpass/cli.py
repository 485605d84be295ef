"""The command line: reads words, calls `api`, renders, and turns what happened into an exit status.

TensorFlow, the analysis and rich are imported by the commands that need them, so that `--help` stays quick.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from gradpass import __version__
from gradpass.errors import GradpassBug, GradpassError
from gradpass.options import (
    FORMATS,
    Commands,
    data_option,
    entry_option,
    format_option,
    later,
    mode_option,
    target_argument,
    tensorflow_option,
)
from gradpass.report.output import emit
from gradpass.targets import fix_live, is_live, prune_live, subject_of

FINDINGS, WRONG, BUG = 1, 2, 70  # BUG is EX_SOFTWARE of sysexits.h
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what writing to a stream may end with


@click.group(
    cls=Commands,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="gradpass %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Tells why a TensorFlow gradient is None, zero or an error, and repairs the graph."""
    if context.invoked_subcommand is None:
        raise click.UsageError("which command? `gradpass --help` lists them")


@commands.command()
@target_argument
@entry_option
@data_option
@click.option(
    "--wrt",
    type=click.Choice(["variables", "inputs", "both"]),
    help="Whose gradients (default: variables).",
)
@click.option(
    "--order",
    type=click.Choice(["1", "2"]),
    help="2: the gradient of the gradients of all targets (default: 1).",
)
@tensorflow_option
@format_option(*FORMATS)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the report to a file.")
@click.option("--select", metavar="CODES", help="Only these codes or prefixes (GP1,GP204).")
@click.option("--ignore", metavar="CODES", help="Not these codes or prefixes.")
@click.option(
    "--baseline", type=click.Path(path_type=Path), metavar="FILE", help="Leave out the findings that FILE has."
)
@click.option(
    "--write-baseline", type=click.Path(path_type=Path), metavar="FILE", help="Put all findings into FILE; exit with 0."
)
def check(
    target: str,
    entry: str | None,
    data: Path | None,
    wrt: str | None,
    order: str | None,
    tensorflow: str | None,
    style: str,
    output: Path | None,
    select: str | None,
    ignore: str | None,
    baseline: Path | None,
    write_baseline: Path | None,
) -> int:
    """Says for every trainable variable of TARGET whether a gradient reaches it, and what severs it.

    TARGET is a SavedModel folder, a frozen GraphDef (.pb), a MetaGraph (.meta), a model of Keras (.keras, .h5), or
    package.module:attribute: a Keras model, tf.Module, function, or a function without arguments that returns one. What
    is not typed may stand in [tool.gradpass] of the pyproject.toml here or in a folder above. Exit status: 0 nothing
    found, 1 findings, 2 the call or the target is wrong.
    """
    from gradpass import settings
    from gradpass.api import check as verdict
    from gradpass.program.graph import collector_paused
    from gradpass.report.codes import prefixes
    from gradpass.report.terminal import progress, quiet_tensorflow

    said = settings.read()
    selected = said.select or () if select is None else prefixes(select.split(","))
    ignored = said.ignore or () if ignore is None else prefixes(ignore.split(","))
    baseline = baseline or said.baseline
    asked: dict[str, Any] = {
        "entry": entry or said.entry,
        "wrt": wrt or said.wrt or "variables",
        "order": int(order or said.order or 1),
        "tensorflow": tensorflow or said.tensorflow,
    }
    live = is_live(target)
    if live:
        asked["entry"] = entry  # what the settings say is of models on disk
    with collector_paused(), progress(f"reading {target}"), quiet_tensorflow() if live else nullcontext():
        subject, inputs = subject_of(target, data)
        report = verdict(subject, *inputs, **asked)
        report = report.filtered(selected, ignored)
    if said.per_node_ignores or baseline or write_baseline:
        from gradpass.report import suppress
        from gradpass.report.words import plural, visible

        report = suppress.ignoring(report, said.per_node_ignores)
        if write_baseline:
            known = suppress.write(report, write_baseline)
            click.echo(f"{plural(known, 'finding')} written to {visible(str(write_baseline))}", err=True)
            return 0
        if baseline:
            report = suppress.known(report, baseline)
    emit(report, style, output)
    return report.exit_status


@commands.command()
@target_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Where to write (default: TARGET-fixed)."
)
@entry_option
@data_option
@mode_option
@click.option(
    "--carrier",
    type=click.Choice(["bridge", "sum"]),
    default="bridge",
    show_default=True,
    help="What carries the derivative.",
)
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    metavar="T",
    help="How soft the surrogates are, relative to the spread of their input.",
)
@click.option("--absolute-temperature", is_flag=True, help="Take T as it is, whatever the spread.")
@click.option("--kernel", metavar="NAME", help="The kernel of thresholds: logistic, or one of `explain kernels`.")
@click.option(
    "--choice", metavar="NAME", default="entropic", show_default=True, help="How an argmax softens: `explain choices`."
)
@click.option("--rule", "rules", multiple=True, metavar="OP=RULE", help="Use this rule for this op.")
@click.option("--exact-only", is_flag=True, help="Only rules whose derivative is the true one.")
@click.option(
    "--prune",
    type=click.Choice(["dead", "loss"]),
    is_flag=False,
    flag_value="dead",
    help="Also remove what is dead, as `gradpass prune` does.",
)
@click.option(
    "--onnx",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the repaired signature as an ONNX model.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@click.option("--diff", is_flag=True, help="Show the nodes added and re-pointed.")
@click.option("--no-crosscheck", is_flag=True, help="Write without proving the result.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@format_option(*(name for name in FORMATS if name != "model-explorer"))
@later("--all", is_flag=True)
@later("--through-stop-gradient", is_flag=True)
def fix(
    target: str,
    output: Path | None,
    style: str,
    data: Path | None,
    no_crosscheck: bool,
    rules: Sequence[str],
    **options: Any,
) -> int:
    """Repairs TARGET into OUT: adds a derivative where gradients are severed, and proves the result.

    TARGET is a SavedModel folder, a frozen GraphDef (.pb), a model of Keras (.keras, .h5), or package.module:attribute;
    of the latter OUT is a SavedModel, or a .keras file if it is called so. Exit status: 0 all done and cross-checked, 1
    some targets stay starved (each with its reason) or a cross-check failed, 2 the call or the target is wrong.
    """
    from gradpass.report.terminal import progress, quiet_tensorflow

    options |= {"rules": dict(_pair(text) for text in rules), "cross_check": not no_crosscheck}
    with progress(f"reading {target}") as say, quiet_tensorflow():
        subject, inputs = subject_of(target, data if is_live(target) else None)
        if isinstance(subject, Path):
            from gradpass.api import fix_file

            options["data"] = _arrays(data)
            report = fix_file(subject, output, progress=say, **options)
        else:
            report = fix_live(target, subject, inputs, output, progress=say, **options)
    emit(report, style, None)
    return report.exit_status


@commands.command()
@target_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Where to write (default: TARGET-pruned)."
)
@entry_option
@data_option
@click.option(
    "--prune",
    "extent",
    type=click.Choice(["dead", "loss"]),
    default="dead",
    show_default=True,
    help="loss: also the outputs that no loss reads, with what they alone need.",
)
@click.option("--loss", multiple=True, metavar="OUTPUT", help="An output that the loss reads (default: all floats).")
@click.option("--dry-run", is_flag=True, help="Say what is dead; write nothing.")
@click.option("--no-crosscheck", is_flag=True, help="Write without proving the result.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@format_option("text", "json")
def prune(
    target: str,
    output: Path | None,
    style: str,
    data: Path | None,
    extent: str,
    loss: Sequence[str],
    no_crosscheck: bool,
    **options: Any,
) -> int:
    """Removes from TARGET what no output and no side effect needs, and proves that all else is the same.

    TARGET is a SavedModel folder, a model of Keras (.keras, .h5), or package.module:attribute. Dead are nodes,
    functions, captures and variables; these go out of the checkpoint too. Exit status: 0 done, or nothing is dead; 1 a
    cross-check failed; 2 the call or the target is wrong.
    """
    from gradpass.report.terminal import progress, quiet_tensorflow

    options |= {"loss": list(loss) or None, "only_loss": extent == "loss", "cross_check": not no_crosscheck}
    with progress(f"reading {target}") as say, quiet_tensorflow():
        subject, inputs = subject_of(target, data)
        if isinstance(subject, Path):
            from gradpass.api import prune_file

            report = prune_file(subject, output, progress=say, **options)
        else:
            report = prune_live(target, subject, inputs, output, progress=say, **options)
    emit(report, style, None)
    return report.exit_status


@commands.command()
@click.argument("fixed", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Where to write (default: FIXED-hardened)."
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
def harden(fixed: Path, output: Path | None, force: bool) -> int:
    """Takes every shadow out of FIXED, which `gradpass fix` wrote: its graph is the original's again, byte for byte.

    Weights stay as they are in FIXED. Exit status: 0 done, 2 the call or the target is wrong.
    """
    from gradpass.api import harden as restore
    from gradpass.report.words import visible

    click.echo(f"written: {visible(str(restore(fixed, output, force=force)))}")
    return 0


@commands.command()
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("fixed", type=click.Path(path_type=Path))
@entry_option
@mode_option
@data_option
@format_option("text", "json", "html")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the report to a file.")
def crosscheck(
    original: Path, fixed: Path, entry: str | None, mode: Any, data: Path | None, style: str, output: Path | None
) -> int:
    """Proves FIXED against ORIGINAL: same values, same through ONNX, and gradients where there were none, which
    other hands than TensorFlow confirm.

    Exit status: 0 no check failed, 1 one did, 2 the call or a target is wrong.
    """
    from gradpass.proof import compare
    from gradpass.report.terminal import progress, quiet_tensorflow

    with progress("loading both models") as say, quiet_tensorflow():
        report = compare(original, fixed, entry=entry, mode=mode, data=_arrays(data), progress=say)
    emit(report, style, output)
    return report.exit_status


@commands.command()
@click.argument("target")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, metavar="FILE.npz", help="The arrays of one batch."
)
@click.option("--entry", metavar="NAME", help="The signature to run (default: serving_default, or the only one).")
@format_option("text", "json", "html")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the report to a file.")
def probe(target: str, data: Path, entry: str | None, style: str, output: Path | None) -> int:
    """Runs TARGET and its gradient once on the arrays of FILE.npz, and says where the gradient becomes zero, vanishes,
    explodes or is no number.

    TARGET is a SavedModel folder, whose inputs are taken by name, a model of Keras (.keras, .h5), or
    package.module:attribute, a Keras model or a function; an array called y holds the labels. Exit status: 0 nothing
    found, 1 findings, 2 the call, the target or the data is wrong.
    """
    from gradpass.report.terminal import progress, quiet_tensorflow

    with progress(f"probing {target}"), quiet_tensorflow():
        if is_live(target):
            from gradpass.live.probe import probe as probed

            if entry is not None:
                raise GradpassError(f"{target} has one entry; --entry is for a SavedModel")
            subject, inputs = subject_of(target, data)
            report = probed(subject, *inputs)
        else:
            from gradpass.live.named import read_arrays
            from gradpass.live.probing.saved import probe_saved

            arrays = read_arrays(data)
            unnamed = all(name.startswith("arr_") for name in arrays)  # numpy's names for what was given none
            report = probe_saved(target, list(arrays.values()) if unnamed else arrays, entry)
    emit(report, style, output)
    return report.exit_status


@commands.command()
@click.argument("words", nargs=-1, required=True, metavar="CODE | rules | ops | kernels | choices [NAME]")
def explain(words: Sequence[str]) -> int:
    """Explains a code (GP102 or its name), the rules, what TensorFlow's gradient of an op gives each input, or what
    `fix --kernel` and `fix --choice` know."""
    from gradpass.report.explain import SUBJECTS

    return _explained(words[0], words[1:]) if words[0] in SUBJECTS else _explained("codes", words)


@commands.command()
@click.argument("names", nargs=-1)
def rules(names: Sequence[str]) -> int:
    """Lists the repair rules, or explains one."""
    return _explained("rules", names)


@commands.command()
@click.argument("names", nargs=-1)
@tensorflow_option
@click.option("--diff", nargs=2, metavar="OLD NEW", help="What changed between two versions, such as 2.18 2.21.")
def ops(names: Sequence[str], tensorflow: str | None, diff: tuple[str, str] | None) -> int:
    """Lists the gradient edge table, or explains one op."""
    from gradpass.report import explain
    from gradpass.report.text import show

    if diff is not None:
        show(lambda width: explain.ops_diff(*diff, width), sys.stdout)
    else:
        show(lambda width: explain.ops(names, width, tensorflow), sys.stdout)
    return 0


@commands.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def demo(folder: Path | None) -> int:
    """Makes an example SavedModel in FOLDER (default: a temporary one), checks it, fixes it, cross-checks it."""
    from gradpass.demo import run
    from gradpass.report.terminal import quiet_tensorflow

    with quiet_tensorflow():
        return run(folder, sys.stdout)


def _arrays(data: Path | None) -> dict[str, Any] | None:
    """What a FILE.npz holds."""
    if data is None:
        return None
    from gradpass.live.named import read_arrays

    return read_arrays(data)


def _pair(text: str) -> tuple[str, str]:
    op, equals, rule = text.partition("=")
    if not (op and equals and rule):
        raise GradpassError(f"--rule takes OP=RULE, not {text!r}; `gradpass rules` lists the rules")
    return op, rule


def _explained(what: str, words: Sequence[str]) -> int:
    from gradpass.report import explain
    from gradpass.report.text import show

    show(lambda width: explain.SUBJECTS[what](words, width), sys.stdout)
    return 0


def _refused(text: str) -> int:
    """Tells in one line what a user did wrong, and gives the exit status of that."""
    from gradpass.report.words import visible

    click.echo(f"gradpass: error: {visible(' '.join(text.split()))}", err=True)
    return WRONG


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit status; what a user did wrong is one line on stderr."""
    if arguments is None:
        # The process ends with the command: looking for garbage in a whole model once more is a tenth of a check.
        atexit.register(gc.freeze)
    if sys.stdout is None:  # closed by who called us
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        status = commands.main(args=arguments, prog_name="gradpass", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except (GradpassError, click.ClickException) as problem:
        text = problem.format_message() if isinstance(problem, click.ClickException) else str(problem)
        return _refused(text)
    except (KeyboardInterrupt, click.Abort):
        click.echo("gradpass: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # Who read our output has gone; keep Python from complaining about that when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        if problem.errno not in FULL:
            raise
        # Where a file was to be written this was told above: what is left is our own output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _refused(f"the output cannot be written ({problem.strerror}); send it elsewhere")
    except GradpassBug:
        traceback.print_exc()
        click.echo("gradpass: this is a bug in gradpass; please report it with the lines above", err=True)
        return BUG
    return status if isinstance(status, int) else 0
