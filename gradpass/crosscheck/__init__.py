"""Proves a written model against its original: same values, same through ONNX, and the promised gradients flow."""

from __future__ import annotations

from gradpass.crosscheck.check import Check
from gradpass.crosscheck.run import crosscheck

__all__ = ["Check", "crosscheck"]
