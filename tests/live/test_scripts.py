"""Scripts as users write them: rows of the catalogue that are faults of Python, and the article's three examples."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parent / "scripts"

# By script: the codes that the report has, and the line that the first of them shows.
EXPECTED: dict[str, tuple[list[str], str | None]] = {
    "row_06_integers": (["GP205"], "report = gp.check(lambda: tf.cast(x * x, tf.float32))"),
    "row_22_numpy": (["GP510"], "return tf.convert_to_tensor(np.sum(scores.numpy() ** 2))"),
    "row_23_predict": (["GP510"], "return tf.reduce_sum(model.predict(x, verbose=0))"),
    "row_24_before_the_tape": (["GP504"], "predictions = model(x, training=True)"),
    "row_24_frozen_copy": (["GP511"], None),
    "row_25_rebound": (["GP512"], "return tape.gradient(y, x)"),
    "row_26_constant": (["GP512"], "return tape.gradient(y, x)"),
    "row_27_statistics": (["GP513"], None),
    "row_28_assign": (["GP207"], "state.assign(weights * x)"),
    "row_31_never_called": (["GP209"], None),
    "row_31_untracked": (["GP210"], None),
    "row_32_labels": (["GP208"], "return tf.reduce_mean(keras.losses.mean_squared_error(labels, labels))"),
    "row_42_mask": (["GP304"], "return tf.reduce_sum(x * weights * mask)"),
    "row_42_data_mask": (["GP312"], "return tf.reduce_sum(x * weights * mask)"),
    "row_43_dead_relu": (["GP310"], None),
    "row_43_saturated": (["GP311"], "return tf.reduce_mean(tf.sigmoid(1000.0 * (x @ weights)))"),
    "row_45_missing": (["GP502"], "gradients = tape.gradient(loss, variables)"),
    "row_45_wrong_list": (
        ["GP503"],
        "optimizer.apply_gradients(zip(gradients, teacher.trainable_variables, strict=True))",
    ),
    "article_1_middle_layer": ([], None),
    "article_2_threshold": (["GP101"], "decisions = tf.cast(predictions > 0.5, tf.float32)"),
    "article_3_never_applied": (["GP500"], "gradients = tape.gradient(loss, model.trainable_variables)"),
}
# TensorFlow gives these a gradient: the fault is what becomes of it, or there is none.
FLOWS = ("article_1_middle_layer", "article_3_never_applied", "row_45_missing", "row_45_wrong_list")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_script_gets_the_true_answer(name: str) -> None:
    after = runpy.run_path(str(SCRIPTS / f"{name}.py"))
    codes, line = EXPECTED[name]
    report = after["report"]
    assert [d.code for d in report.diagnostics] == codes
    assert report.ok == all(d.severity == "note" for d in report.diagnostics)
    if line is not None:
        source = report.diagnostics[0].source
        assert source.file.endswith(f"{name}.py") and source.text == line
    if name.startswith(("row_42", "row_43")):
        assert not np.asarray(after["gradient"]).any()
        assert "structure" not in after or after["structure"].ok  # a matter of values
    else:
        assert (after["gradient"] is not None) == (name in FLOWS)


def test_every_script_is_expected() -> None:
    assert {file.stem for file in SCRIPTS.glob("*.py")} == set(EXPECTED)


def test_the_thresholded_loss_of_the_article_trains_once_it_is_fixed() -> None:
    losses = runpy.run_path(str(SCRIPTS / "article_2_threshold.py"))["losses"]
    assert losses[-1] < 0.5 * losses[0]
