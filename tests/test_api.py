"""`gradpass.check` and `gradpass.fix` from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradpass as gp
from gradpass.demo import make


def test_check_and_fix(tmp_path: Path) -> None:
    make(tmp_path / "model")
    report = gp.check(tmp_path / "model")
    assert not report.ok and [t.state for t in report.targets] == ["none", "flows", "none"]
    with pytest.raises(gp.GradientError, match="GP102"):
        report.raise_for_findings()
    said: list[str] = []
    fixed = gp.fix(str(tmp_path / "model"), progress=said.append)
    assert fixed.ok and fixed.output == str(tmp_path / "model-fixed")
    assert any("ONNX" in text for text in said)
    gp.check(tmp_path / "model-fixed").raise_for_findings()


@pytest.mark.parametrize("name", [name for name in dir(gp) if not name.startswith("_")])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(gp, name) is not None
