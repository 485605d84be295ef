"""What gradpass gives to other people's tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import gradpass as gp

pytest_plugins = ["pytester"]

V = tf.Variable([0.4, 1.6], name="v")


def test_nothing_is_raised_where_gradients_flow() -> None:
    gp.testing.assert_differentiable(lambda x: V * x, tf.ones([2]))
    gp.testing.assert_differentiable(lambda x: V * x, tf.ones([2]), loss=tf.reduce_sum, variables=[V])


def test_the_whole_report_is_in_the_error() -> None:
    with pytest.raises(AssertionError, match="GP103") as raised:
        gp.testing.assert_differentiable(lambda x: tf.round(V * x), tf.ones([2]))
    assert "test_testing.py" in str(raised.value) and "help:" in str(raised.value)


def test_a_path_is_a_target_too(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = V
    serve = tf.function(lambda: tf.round(module.v), input_signature=[])
    tf.saved_model.save(module, str(tmp_path / "m"), serve)
    with pytest.raises(AssertionError, match="GP103"):
        gp.testing.assert_differentiable(tmp_path / "m")


def test_the_fixture_in_somebodys_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import tensorflow as tf

        v = tf.Variable([0.4, 1.6], name="v")

        def test_smooth(assert_differentiable):
            assert_differentiable(lambda x: v * x, tf.ones([2]))

        def test_rounded(assert_differentiable):
            assert_differentiable(lambda x: tf.round(v * x), tf.ones([2]))
        """
    )
    ran = pytester.runpytest_subprocess("-p", "no:gradpass", "-p", "gradpass.pytest_plugin", "-p", "no:cacheprovider")
    ran.assert_outcomes(passed=1, failed=1)
    text = ran.stdout.str()
    assert "error[GP103]" in text and "assert_differentiable(lambda x: tf.round(v * x), tf.ones([2]))" in text
    assert "gradpass/testing.py" not in text  # the test's line is shown, and none of ours


def test_the_plugin_imports_nothing_heavy() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import gradpass.pytest_plugin; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['gradpass']"
