"""What the docs show is what gradpass takes: the settings, the hook, the workflow's commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from gradpass import settings
from gradpass.cli import commands

ROOT = Path(__file__).parent.parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL)


def parses(line: str) -> bool:
    """Whether a shell line that begins with gradpass is one that gradpass understands; it is not run."""
    words = shlex.split(line.partition("||")[0])
    command = commands.commands[words[1]]
    command.make_context(words[1], words[2:], resilient_parsing=False)
    return True


def test_the_commands_are_understood() -> None:
    workflow = yaml.safe_load(blocks("yaml")[0])
    steps = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    lines = [line for line in (*steps, *"".join(blocks("sh")).splitlines()) if line.startswith("gradpass ")]
    assert len(lines) == 4 and all(parses(line) for line in lines)


def test_the_settings_are_understood(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("".join(blocks("toml")), "utf-8")
    said = settings.read(tmp_path)
    assert said.ignore == ("GP204",) and said.per_node_ignores == {"augmentation/*": ("GP120",)}


def test_the_hook_is_the_one_of_the_docs() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    shown = yaml.safe_load(blocks("yaml")[1])["repos"][0]["hooks"][0]
    assert shown["id"] == hook["id"] and parses(f"{hook['entry']} {' '.join(shown['args'])}")


def test_pages_that_are_scripts_show_what_they_print() -> None:
    command = [sys.executable, "-m", "scripts.render_pages", "--check"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_from_the_warning_to_a_model_that_trains_it_takes_few_lines() -> None:
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    chapter = page.split("\n## ")[1]
    first, *following = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    assert "UserWarning: Gradients do not exist" in chapter.partition("`check` traces")[0] and "fit(" in first
    lines = [line for block in following for line in block.splitlines() if line.strip()]
    assert "gp.check(" in lines[0] and any("fixed.fit(" in line for line in lines) and len(lines) < 15
