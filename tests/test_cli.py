"""The command line: exit statuses, one line for what a user did wrong, and what it imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from gradpass import __version__, cli, options
from gradpass.crosscheck import Check
from gradpass.demo import make
from gradpass.report.codes import all_codes
from gradpass.report.json import schema
from gradpass.rules.kernels import KERNELS, REFUSED
from gradpass.soft.simplex import WEIGHTS
from tests.models import save

# By a Python that has onnxruntime-training, where the environment names one.
SECOND = "passed" if os.environ.get("GRADPASS_AUTODIFF_PYTHON") else "skipped"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `severed` (two cuts), `healthy`, `stuck` (nothing to be done about it) and `frozen.pb`."""
    folder = tmp_path_factory.mktemp("models")
    make(folder / "severed")

    class Module(tf.Module):
        def __init__(self, stop: bool) -> None:
            super().__init__()
            self.w = tf.Variable([[1.0], [2.0]], name="w")
            self.stop = stop

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def serve(self, x: tf.Tensor) -> tf.Tensor:
            return x @ (tf.stop_gradient(self.w) if self.stop else self.w)

    save(Module(False), folder / "healthy")
    save(Module(True), folder / "stuck")
    with tf.Graph().as_default() as graph:
        tf.round(tf.compat.v1.placeholder(tf.float32, [3], "x"), name="y")
    (folder / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder


class Ran:
    """What a command printed, and its exit status."""

    def __init__(self, *words: object) -> None:
        runner = CliRunner()
        with runner.isolation() as (out, err, *_):
            self.status = cli.main([str(word) for word in words])
            sys.stdout.flush()
            self.out, self.err = out.getvalue().decode(), err.getvalue().decode()


def error(*words: object) -> str:
    """The one line of a refused command, after checking that it is one and that nothing else was printed."""
    ran = Ran(*words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("gradpass: error: ") and ran.err.count("\n") == 1
    return ran.err.removeprefix("gradpass: error: ").rstrip()


def test_check_finds_and_exits_with_1(models: Path) -> None:
    ran = Ran("check", models / "severed")
    assert ran.status == 1 and ran.err == ""
    assert "GP101" in ran.out and "GP102" in ran.out and ran.out.count("quantizer.py:") == 2


def test_check_of_a_healthy_model(models: Path) -> None:
    ran = Ran("check", models / "healthy")
    assert (ran.status, ran.out) == (0, "gradients reach the only target, 2 parameters\n")


def test_check_json_fits_the_schema(models: Path) -> None:
    data = json.loads(Ran("check", models / "severed", "--format", "json").out)
    jsonschema.validate(data, schema())
    assert data["target"] == str(models / "severed") and data["gradpass"] == __version__
    targets = {t["name"]: t for t in data["entries"][0]["targets"]}
    assert {name: t["state"] for name, t in targets.items()} == {"scores": "none", "codebook": "flows", "gate": "none"}
    assert [data["diagnostics"][i]["op"] for i in targets["gate"]["diagnostics"]] == ["Greater"]
    assert data["summary"]["starved_parameters"] == 4 * 8 + 4 * 3


def test_check_of_inputs_and_frozen_graphs(models: Path) -> None:
    ran = Ran("check", models / "frozen.pb", "--format", "concise")
    assert ran.status == 1 and ":y: error[GP103]" in ran.out
    data = json.loads(Ran("check", models / "healthy", "--wrt", "both", "--format", "json").out)
    assert [t["kind"] for t in data["entries"][0]["targets"]] == ["variable", "input"]


def test_select_and_ignore(models: Path) -> None:
    ran = Ran("check", models / "severed", "--select", "gp102", "--format", "concise")
    assert ran.status == 1 and ran.out.count("\n") == 1 and "GP102" in ran.out
    assert Ran("check", models / "severed", "--ignore", "GP1").status == 0
    assert "no code begins with 'GP7'" in error("check", models / "severed", "--select", "GP7")


def test_check_writes_to_a_file(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    assert Ran("check", models / "severed", "--format", "json", "-o", out).status == 1
    jsonschema.validate(json.loads(out.read_text()), schema())
    assert Ran("check", models / "severed", "-o", "/dev/null").status == 1
    assert Path("/dev/null").is_char_device()
    assert "cannot be written" in error("check", models / "severed", "-o", tmp_path / "missing" / "report")
    assert "cannot be written" in error("check", models / "severed", "-o", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which command?"),
        (["chekc"], "No such command 'chekc'"),
        (["check"], "Missing argument 'TARGET'"),
        (["check", "nowhere"], "nowhere does not exist"),
        (["check", "pyproject.toml"], "no SavedModel"),
        (["check", "{severed}", "--entry", "nope"], "no entry 'nope'"),
        (["check", "{severed}", "--wrt", "all"], "'all' is not one of"),
        (["fix", "{severed}", "--rule", "ArgMax"], "--rule takes OP=RULE"),
        (["fix", "{severed}", "--rule", "ArgMax=nope"], "does not know 'nope'"),
        (["fix", "{severed}", "--temperature", "-1"], "--temperature must be a positive finite number"),
        (["fix", "{severed}", "--kernel", "nope"], "--kernel does not know 'nope'"),
        (["fix", "{severed}", "--kernel", "sfs"], "--kernel sfs is no kernel: "),
        (["fix", "{severed}", "--choice", "nope"], "--choice does not know 'nope'; choose from entropic, sparse"),
        (["fix", "nowhere"], "nowhere does not exist"),
        (["harden", "nowhere"], "nowhere does not exist"),
        (["harden", "{severed}"], "carries no record of an original"),
        (["explain", "kernels", "nope"], "--kernel does not know 'nope'"),
        (["explain", "choices", "nope"], "--choice does not know 'nope'"),
        (["crosscheck", "{severed}", "nowhere"], "nowhere does not exist"),
        (["explain"], "Missing argument"),
        (["explain", "GP999"], "no code 'GP999'"),
        (["rules", "nope"], "no rule 'nope'"),
        (["ops", "Nope"], "no op 'Nope'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(words: list[str], says: str, models: Path) -> None:
    assert says in error(*(word.format(severed=models / "severed") for word in words))


def test_harden_takes_out_what_fix_put_in(models: Path, tmp_path: Path) -> None:
    severed, fixed = models / "severed", tmp_path / "fixed"
    assert Ran("fix", severed, "-o", fixed, "--no-crosscheck", "--choice", "sparse").status == 0
    ran = Ran("harden", fixed)
    assert (ran.status, ran.out) == (0, f"written: {tmp_path / 'fixed-hardened'}\n")
    assert (tmp_path / "fixed-hardened" / "saved_model.pb").read_bytes() == (severed / "saved_model.pb").read_bytes()
    assert "exists; give --force" in error("harden", fixed)
    assert Ran("harden", fixed, "--force").status == 0
    assert Ran("harden", fixed, "-o", tmp_path / "out").status == 0


def test_explains_kernels_and_choices() -> None:
    for subject, names in (("kernels", (*KERNELS, *REFUSED)), ("choices", WEIGHTS)):
        told = Ran("explain", subject).out
        assert all(name in told for name in names)
    assert Ran("explain", "kernels", "fast_sigmoid").out.startswith("fast-sigmoid\n(1 + x / (1 + |x|)) / 2")
    assert "cauchy" not in Ran("explain", "kernels", "fast_sigmoid").out


@pytest.mark.parametrize("name", options.LATER_COMMANDS)
def test_commands_to_come_are_refused_by_name(name: str) -> None:
    assert error(name, "x").startswith(f"`gradpass {name}` is not part of this version")


@pytest.mark.parametrize(
    "words",
    [
        ["fix", "x", "--all"],
        ["fix", "x", "--through-stop-gradient"],
    ],
)  # fmt: skip
def test_options_to_come_are_refused_by_name(words: list[str]) -> None:
    assert f"{words[2]}" in error(*words) and "is not part of this version" in error(*words)


@pytest.mark.parametrize("name", options.FORMATS)
def test_every_format_is_written(name: str, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert Ran("check", models / "severed", "--format", name, "-o", out).status == 1
    written = out.read_text("utf-8")
    assert "GP101" in written and "GP102" in written and written.endswith("\n")
    assert Ran("check", models / "severed", "--format", name).out == written
    if name not in ("text", "json", "html"):
        said = error("crosscheck", "x", "y", "--format", name)
        assert said == f"--format {name} is for `gradpass check`; `gradpass crosscheck` has text, json or html"
    if name == "model-explorer":
        assert "`gradpass fix` has text, concise, json" in error("fix", "x", "--format", name)
    else:
        ran = Ran("fix", models / "stuck", "--format", name, "-o", tmp_path / "fixed")
        assert ran.status == 1
        assert "it is meant to end the gradient" in ran.out or name == "concise"  # which has a line a finding
        assert "nothing was written" in ran.out or name == "json"


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_model_is_one_line(damage: str, models: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(models / "severed", bad)
    pb = bad / "saved_model.pb"
    data = pb.read_bytes()
    pb.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"this is no protobuf"}[damage])
    assert str(bad) in error("check", bad)
    assert str(bad) in error("fix", bad)
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_fix_repairs_proves_and_writes(models: Path, tmp_path: Path) -> None:
    source = tmp_path / "severed"
    shutil.copytree(models / "severed", source)
    before = (source / "saved_model.pb").read_bytes()
    ran = Ran("fix", source, "--format", "json", "--diff")
    assert ran.status == 0
    data = json.loads(ran.out)
    jsonschema.validate(data, {**schema(), "$ref": "#/$defs/fix"})
    assert data["output"] == str(tmp_path / "severed-fixed")
    assert {check["name"]: check["status"] for check in data["crosscheck"]} == {
        "values": "passed", "onnx-original": "passed", "onnx-fixed": "passed", "verdict": "passed",
        "derivative": "passed", "autodiff": SECOND, "schema": "passed", "worth": "passed",
    }  # fmt: skip
    assert all(
        check["seconds"] >= 0 and (check["limit_from"] or check["status"] == "skipped") for check in data["crosscheck"]
    )
    assert data["before"]["summary"]["flows"] == 1 and data["after"]["summary"]["flows"] == 3
    assert [data["before"]["diagnostics"][step["diagnostic"]]["op"] for step in data["plan"]] == ["ArgMax", "Greater"]
    assert "+++ after/" in data["diff"]
    assert (source / "saved_model.pb").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["severed", "severed-fixed"]
    assert Ran("check", tmp_path / "severed-fixed").status == 0

    again = Ran("fix", tmp_path / "severed-fixed")
    assert again.status == 0 and again.out.endswith("nothing to repair: nothing was written\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["severed", "severed-fixed"]

    proof = Ran("crosscheck", source, tmp_path / "severed-fixed")
    assert proof.status == 0 and proof.out.count("passed") + proof.out.count("skipped") == 8
    other = Ran("crosscheck", tmp_path / "severed-fixed", models / "healthy", "--format", "json")
    assert other.status == 1 and "failed" in {check["status"] for check in json.loads(other.out)["crosscheck"]}


def test_fix_refuses_an_existing_output_before_any_work(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("gradpass.program.savedmodel.read", lambda _: pytest.fail("the model was read"))
    assert "out exists; give --force" in error("fix", models / "severed", "-o", tmp_path / "out")


def test_fix_replaces_with_force(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(models / "healthy", out)
    assert Ran("fix", models / "severed", "-o", out, "--force", "--no-crosscheck").status == 0
    assert Ran("check", out).out == "gradients reach all 3 targets, 68 parameters\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_dry_run_writes_nothing(models: Path, tmp_path: Path) -> None:
    ran = Ran("fix", models / "severed", "-o", tmp_path / "out", "--dry-run", "--diff")
    assert ran.status == 0 and ran.out.endswith("dry run: nothing was written\n")
    assert "softmax-argmax" in ran.out and "\n+++ after/" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_fix_of_what_cannot_be_repaired(models: Path, tmp_path: Path) -> None:
    ran = Ran("fix", models / "stuck", "-o", tmp_path / "out")
    assert ran.status == 1
    assert "GP108" in ran.out and ran.out.endswith("nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_exact_only_declines_estimators_with_the_reason(models: Path, tmp_path: Path) -> None:
    ran = Ran("fix", models / "severed", "-o", tmp_path / "out", "--exact-only")
    assert ran.status == 1 and "only exact rules were asked for" in " ".join(ran.out.split())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_cross_check_leaves_nothing(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> list[Check]:
        assert len(list(tmp_path.iterdir())) == 1  # what is being checked stands beside its final place
        return [Check("values", "failed", 1.0, 0.0, "y differs")]

    monkeypatch.setattr("gradpass.crosscheck.crosscheck", fails)
    ran = Ran("fix", models / "severed", "-o", tmp_path / "out")
    assert ran.status == 1 and "cross-check failed (values): nothing was written" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = error("fix", models / "severed", "-o", tmp_path / "file" / "out", "--no-crosscheck")
    assert str(tmp_path / "file" / "out") in message and ".check-" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", all_codes())
def test_explain_a_code(code: str) -> None:
    ran = Ran("explain", code)
    assert ran.status == 0 and ran.out.startswith(f"{code} ") and "def loss():" in ran.out


def test_lists_and_their_long_forms() -> None:
    for subject in ("rules", "ops"):
        short = Ran(subject)
        assert short.status == 0 and short.out == Ran("explain", subject).out
    assert all(code in Ran("explain", "codes").out for code in all_codes())
    assert "softmax-argmax" in Ran("rules").out and "Repairs, for example:" in Ran("rules", "softmax-argmax").out
    cast = Ran("explain", "ops", "Cast").out
    assert cast.index("  where SrcT is ") < cast.index("    x: a gradient\n  otherwise:\n    x: None\n  known from: ")
    array = Ran("ops", "TensorArrayReadV3").out
    assert "flow_in: a gradient\n    raises AssertionError, except under TensorFlow 1's control flow\n" in array
    svd = Ran("ops", "Svd").out
    assert "full_matrices is true:\n    input: a gradient\n    raises where rows and columns differ by more" in svd
    assert "  otherwise:\n    input: a gradient of s, zeros of u, zeros of v\n" in svd
    assert "no gradient registered" in Ran("ops", "AdjustHue").out


def process(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """gradpass in a process of its own."""
    command = [sys.executable, "-m", "gradpass", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["check", "{severed}"],
        ["check", "{severed}", "--format", "json"],
        ["check", "{severed}", "--format", "concise", "--entry", "all", "--wrt", "both"],
        *(["check", "{severed}", "--format", name] for name in options.FORMATS[3:]),
        ["check", "{frozen}"],
        ["check", "nowhere"],
        ["fix", "nowhere"],
        ["fix", "{healthy}"],
        ["explain", "GP102"],
        ["explain", "codes"],
        ["rules"],
        ["rules", "softmax-argmax"],
        ["ops"],
        ["ops", "Cast"],
        ["--help"],
        ["fix", "--help"],
        ["--version"],
    ],
)  # fmt: skip
def test_what_needs_no_tensorflow_does_not_import_it(words: list[str], models: Path) -> None:
    names = {"severed": models / "severed", "healthy": models / "healthy", "frozen": models / "frozen.pb"}
    arguments = [word.format(**names) for word in words]
    script = (
        "import sys; from gradpass.cli import main; status = main(sys.argv[1:]); "
        "assert 'tensorflow' not in sys.modules and 'onnx' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    expected = 2 if "nowhere" in words else 1 if words[0] == "check" else 0
    assert done.returncode == expected, done.stderr


@pytest.mark.parametrize("name", options.FORMATS)
def test_any_encoding_and_any_name_will_do(name: str, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a b\x1b[31m\xff")
    shutil.copytree(models / "severed", folder)
    command = [sys.executable, "-m", "gradpass", "check", str(folder), "--format", name]
    for encoding in ("utf-8", "ascii", "cp1252"):
        done = subprocess.run(
            command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False
        )
        assert (done.returncode, done.stderr) == (1, b"")
        assert b"GP102" in done.stdout and b"\x1b" not in done.stdout
        assert done.stdout.decode("cp1252" if encoding == "cp1252" and name in ("text", "concise") else "utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("words", [["rules"], ["check", "{severed}"], ["check", "{severed}", "--format", "json"]])
def test_a_full_disk_is_one_line(words: list[str], models: Path) -> None:
    command = [sys.executable, "-m", "gradpass", *(word.format(severed=models / "severed") for word in words)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gradpass: error: the output cannot be written") and done.stderr.count("\n") == 1


def test_closed_output_does_no_harm(models: Path) -> None:
    command = f"{sys.executable} -m gradpass check {models / 'severed'} --format json >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_version() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gradpass {__version__}\n", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m gradpass ops | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_demo_shows_before_and_after_and_nothing_on_stderr(tmp_path: Path) -> None:
    done = process("demo", tmp_path, TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 0, done.stderr
    for part in ("GP101", "GP102", "softmax-argmax", "smooth-order", "gradients reach all 3 targets, 68 parameters"):
        assert part in done.stdout
    assert [row.split()[1] for row in done.stdout.splitlines() if row.startswith(("values", "onnx", "verdict"))] == [
        "passed"
    ] * 4
    assert (tmp_path / "quantizer-fixed" / "saved_model.pb").exists()
    again = process("demo", tmp_path)
    assert again.returncode == 2 and again.stderr.startswith("gradpass: error: ") and again.stderr.count("\n") == 1


def test_ops_of_another_version_and_what_changed() -> None:
    """An int64 axis: 2.18 takes any, from 2.19 on its gradient wants constants."""
    runner = CliRunner()
    raised = "    raises unless all sizes are known"
    old, new = (runner.invoke(cli.commands, ["ops", "Sum", "--tensorflow", v]).output for v in ("2.18", "2.21"))
    assert "Sum (TensorFlow 2.18)" in old and raised not in old
    assert "Sum (TensorFlow 2.21)" in new and raised in new
    diff = runner.invoke(cli.commands, ["ops", "--diff", "2.18", "2.21"]).output
    assert "5 ops differ" in diff and raised in diff
    assert "0 ops differ" in runner.invoke(cli.commands, ["ops", "--diff", "2.20", "2.21"]).output


def test_check_asks_the_version_that_one_chooses(models: Path) -> None:
    runner = CliRunner()
    chosen = runner.invoke(cli.commands, ["check", str(models / "severed"), "--tensorflow", "2.19", "--format", "json"])
    assert json.loads(chosen.output)["tensorflow_table"] == "2.19"
    own = runner.invoke(cli.commands, ["check", str(models / "severed"), "--format", "json"])
    assert json.loads(own.output)["tensorflow_table"] == ".".join(tf.__version__.split(".")[:2])
    assert cli.main(["check", str(models / "severed"), "--tensorflow", "2.7"]) == 2


def test_crosscheck_tells_in_every_way(models: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed"
    assert Ran("fix", models / "severed", "-o", fixed, "--no-crosscheck").status == 0
    data = tmp_path / "data.npz"
    make_data(models / "severed", data)
    page = tmp_path / "page.html"
    assert Ran("crosscheck", models / "severed", fixed, "--data", data, "--format", "html", "-o", page).status == 0
    text = page.read_text("utf-8")
    assert all(f"<td>{name}</td>" in text for name in ("values", "onnx-fixed", "derivative", "schema", "worth"))
    assert "no check failed; " in text and "where the limit comes from" in text
    told = json.loads(Ran("crosscheck", models / "severed", fixed, "--format", "json").out)
    assert told["diagnostics"] == [] and len(told["crosscheck"]) == 8
    np.savez(data, other=np.zeros(3))
    assert error("crosscheck", models / "severed", fixed, "--data", data).startswith("the data are called other;")
    again = tmp_path / "again"
    assert error("fix", models / "severed", "-o", again, "--data", data).startswith("the data are called other;")
    assert not again.exists()


def make_data(model: Path, path: Path) -> Path:
    """One batch for a model, by the names of its inputs."""
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    rng = np.random.default_rng(0)
    np.savez(path, **{name: rng.normal(size=[size or 5 for size in spec.shape]) for name, spec in specs.items()})
    return path
