"""The package as others get it: the README's lines, what a wheel holds, lint and types."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

import gradpass

ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path = ROOT) -> str:
    """A command's output; it must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def readme_commands() -> list[str]:
    """The shell lines of the README."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_readme_has_two_commands_of_one_line_each() -> None:
    main, tests = readme_commands()
    assert main.startswith("python3 -m venv ") and main.endswith("gradpass demo")
    assert tests.startswith("python3 -m venv ") and " -m pytest" in tests


def test_ci_runs_the_readmes_test_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == readme_commands()[1:]


def test_the_readme_shows_what_is_printed_today() -> None:
    run(sys.executable, "scripts/render_readme.py", "--check")


def test_the_pages_of_the_codes_say_what_the_codes_say() -> None:
    run(sys.executable, "scripts/render_docs.py", "--check")


def test_the_table_of_surrogates_is_what_is_found_today() -> None:
    run(sys.executable, "scripts/render_surrogates.py", "--check")


@pytest.mark.parametrize("command", [("ruff", "check", "."), ("mypy",)], ids=["ruff", "mypy"])
def test_lint_and_types(command: tuple[str, ...]) -> None:
    run(sys.executable, "-m", *command)


def test_a_wheel_holds_all_of_the_package(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("gradpass/")}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gradpass").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == ours
    assert {"gradpass/py.typed", "gradpass/report/schema.json", "gradpass/flow/edges.json"} <= inside


def test_the_metadata_says_what_we_run_on() -> None:
    about = metadata("gradpass")
    assert about["Version"] == gradpass.__version__
    assert set(about["Requires-Python"].split(",")) == {">=3.10", "<3.14"}
    needs = [need for need in requires("gradpass") or [] if "extra" not in need]
    assert any(re.fullmatch(r"tensorflow(<2\.22,>=2\.18|>=2\.18,<2\.22)", need) for need in needs)


def test_importing_gradpass_imports_next_to_nothing() -> None:
    script = (
        "import sys, gradpass; heavy = {'tensorflow', 'numpy', 'rich', 'google', 'click'} & set(sys.modules); "
        "assert not heavy, heavy; assert set(dir(gradpass)) > {'check', 'fix', 'Report', 'GradientError'}; "
        "gradpass.check; assert 'tensorflow' not in sys.modules"
    )
    run(sys.executable, "-c", script)


def test_every_public_name_is_there() -> None:
    for name in dir(gradpass):
        assert getattr(gradpass, name) is not None or name.startswith("__")
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        gradpass.nope  # noqa: B018  # looking it up is the point
