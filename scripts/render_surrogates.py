"""Writes docs/surrogates.md: for each function of SoftJAX the TensorFlow that means the same, and what gradpass does.

Every cell but the first two is found out: the expression is saved, checked, repaired, and the repaired model, its
surrogate in the value's place, is exported to ONNX. `--check` only compares; `--names` asks an installed SoftJAX
whether the list of its functions is whole.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from gradpass.crosscheck.check import attempt
from gradpass.crosscheck.export import Tools, export
from gradpass.crosscheck.load import Signature, load_plain
from gradpass.errors import GradpassBug
from gradpass.flow.analysis import analyse
from gradpass.program.savedmodel import read
from gradpass.program.writer import write_saved_model
from gradpass.rewrite.fix import repair

PAGE = Path(__file__).parent.parent / "docs" / "surrogates.md"
VERSION = "0.1.1"

INDEX = "tf.argmax(v, 1)"
# Public functions of SoftJAX, and expressions in v [4, 3] and a constant c [3, 5] that mean the same.
FUNCTIONS: dict[str, str] = {
    "abs": "tf.abs(v)",
    "all": "tf.cast(tf.reduce_all(v > 0, 1), f)",
    "any": "tf.cast(tf.reduce_any(v > 0, 1), f)",
    "argmax": "tf.cast(tf.argmax(v, 1), f)",
    "argmedian": "tf.cast(tf.argsort(v, 1)[:, 1], f)",
    "argmin": "tf.cast(tf.argmin(v, 1), f)",
    "argpercentile": "tf.cast(tf.argsort(v, 1)[:, 1], f)",
    "argquantile": "tf.cast(tf.argsort(v, 1)[:, 1], f)",
    "argsort": "tf.cast(tf.argsort(v, 1), f)",
    "choose": f"tf.gather(c[:, 0], {INDEX})",
    "clip": "tf.clip_by_value(v, -0.5, 0.5)",
    "dynamic_index_in_dim": f"tf.gather(c, {INDEX})",
    "dynamic_slice": f"tf.slice(c, [tf.cast({INDEX}[0], tf.int32), 0], [1, 5])",
    "dynamic_slice_in_dim": f"tf.slice(c, [tf.cast({INDEX}[0], tf.int32), 0], [1, 5])",
    "equal": "tf.cast(tf.equal(tf.round(v), 1.0), f)",
    "greater": "tf.cast(v > 0.1, f)",
    "greater_equal": "tf.cast(v >= 0.1, f)",
    "heaviside": "tf.cast(v > 0, f)",
    "isclose": "tf.cast(tf.raw_ops.ApproximateEqual(x=v, y=v[::-1], tolerance=0.5), f)",
    "less": "tf.cast(v < 0.1, f)",
    "less_equal": "tf.cast(v <= 0.1, f)",
    "logical_and": "tf.cast((v > 0) & (v < 1), f)",
    "logical_not": "tf.cast(~(v > 0), f)",
    "logical_or": "tf.cast((v < 0) | (v > 1), f)",
    "logical_xor": "tf.cast(tf.math.logical_xor(v > 0, v > 1), f)",
    "max": "tf.reduce_max(v, 1)",
    "median": "tf.sort(v, 1)[:, 1]",
    "min": "tf.reduce_min(v, 1)",
    "not_equal": "tf.cast(tf.not_equal(tf.round(v), 1.0), f)",
    "percentile": "tf.sort(v, 1)[:, 1]",
    "quantile": "tf.sort(v, 1)[:, 1]",
    "rank": "tf.cast(tf.argsort(tf.argsort(v, 1), 1), f)",
    "relu": "tf.nn.relu(v)",
    "round": "tf.round(v)",
    "sign": "tf.sign(v)",
    "sort": "tf.sort(v, 1)",
    "take": f"tf.gather(c, {INDEX}, axis=0)",
    "take_along_axis": f"tf.gather(tf.transpose(c)[:4], {INDEX}[:, None], batch_dims=1)",
    "top_k": "tf.cast(tf.math.top_k(v, 2).indices, f)",
    "where": "tf.where(v > 0, c[:, :3][0], 0.0)",
}
# Ops that decide, order, count, draw or place by a severed value, for which SoftJAX has no function.
BEYOND: dict[str, str] = {
    "tf.argmax, one-hot": f"tf.one_hot({INDEX}, 3) @ c",
    "mask of the largest": "tf.cast(v == tf.reduce_max(v, 1, keepdims=True), f) * c[0, :3]",
    "tf.math.in_top_k": "tf.cast(tf.math.in_top_k([0, 1, 2, 0], v, 2), f)",
    "tf.gather_nd": f"tf.gather_nd(c, tf.stack([{INDEX}, [0, 4, 2, 2]], 1))",
    "tf.gather, batch_dims": f"tf.gather(tf.transpose(c)[:4], {INDEX}, batch_dims=1)",
    "tf.scatter_nd": f"tf.scatter_nd({INDEX}[:, None], tf.ones([4, 2]), [3, 2])",
    "tf.tensor_scatter_nd_add": f"tf.tensor_scatter_nd_add(c, {INDEX}[:, None], tf.ones([4, 5]))",
    "tf.tensor_scatter_nd_update": f"tf.tensor_scatter_nd_update(c[:, 0], {INDEX}[:1, None], [9.0])",
    "tf.math.unsorted_segment_sum": f"tf.math.unsorted_segment_sum(tf.ones([4, 2]), {INDEX}, 3)",
    "tf.math.unsorted_segment_mean": f"tf.math.unsorted_segment_mean(tf.range(4.0), {INDEX}, 3)",
    "tf.dynamic_partition": "tf.dynamic_partition(tf.range(4.0), tf.cast(v[:, 0] > 0, tf.int32), 2)[1]",
    "tf.boolean_mask": "tf.reduce_sum(tf.boolean_mask(tf.ones([4, 3]), v > 0))",
    "Bucketize": "tf.cast(tf.raw_ops.Bucketize(input=v, boundaries=[-0.5, 0.0, 0.5]), f)",
    "tf.searchsorted": "tf.gather(c[0], tf.searchsorted([-0.5, 0.0, 0.5], v[0]))",
    "tf.histogram_fixed_width": "tf.cast(tf.histogram_fixed_width(v, [-2.0, 2.0], 5), f)",
    "tf.math.bincount of values": "tf.cast(tf.math.bincount(tf.cast(v + 2, tf.int32), minlength=5, maxlength=5), f)",
    "tf.math.bincount of weights": "tf.math.bincount([0, 1, 1, 2], weights=v[:, 0], minlength=3, maxlength=3)",
    "tf.unique": "tf.unique(v[:, 0])[0]",
    "tf.unique_with_counts": f"tf.cast(tf.unique_with_counts({INDEX})[2], f)",
    "tf.math.count_nonzero": "tf.math.count_nonzero(tf.nn.relu(v), 1, dtype=f)",
    "tf.math.confusion_matrix": f"tf.math.confusion_matrix([0, 1, 2, 0], {INDEX}, 3, dtype=f)",
    "accuracy": f"tf.reduce_mean(tf.cast(tf.equal({INDEX}, [0, 1, 2, 0]), f))",
    "tf.random.categorical": "tf.cast(tf.random.categorical(v, 4), f)",
    "tf.random.stateless_categorical": "tf.cast(tf.random.stateless_categorical(v, 4, [1, 2]), f)",
    "draws of a coin": "tf.cast(tf.random.stateless_uniform([4, 3], [1, 2]) < tf.sigmoid(v), f)",
    "tf.random.stateless_binomial": "tf.random.stateless_binomial([4, 3], [1, 2], 5.0, tf.sigmoid(v), f)",
    "tf.random.stateless_poisson": "tf.random.stateless_poisson([4, 3], [1, 2], tf.exp(v), f)",
    "tf.cond": "tf.cond(tf.reduce_sum(v) > 0, lambda: c, lambda: -c)",
    "tf.switch_case": f"tf.switch_case(tf.cast({INDEX}[0], tf.int32), [lambda: c, lambda: 2 * c, lambda: -c])",
    "tf.floor, tf.math.ceil": "tf.floor(v) * tf.math.ceil(v)",
    "division of whole numbers": "tf.cast(tf.cast(8 * v, tf.int32) // 3, f)",
    "tf.quantization.quantize": "tf.quantization.dequantize(*tf.quantization.quantize(v, -2.0, 2.0, tf.quint8))",
    "tf.sequence_mask": "tf.sequence_mask(tf.cast(tf.abs(v[:, 0]) * 3, tf.int32), 4, f)",
    "tf.math.is_nan": "tf.cast(tf.math.is_nan(v), f)",
    "tf.strings": "tf.strings.to_number(tf.strings.as_string(v))",
}
# Those that stand for no op of a graph, or whose derivative exists and is only unsafe in places.
OTHERS = {
    "arccos": "NaN-safe form of an op that has a derivative",
    "arcsin": "NaN-safe form of an op that has a derivative",
    "div": "NaN-safe form of an op that has a derivative",
    "log": "NaN-safe form of an op that has a derivative",
    "norm": "NaN-safe form of an op that has a derivative",
    "sqrt": "NaN-safe form of an op that has a derivative",
    "grad_replace": "straight-through by hand: `--carrier bridge`, for whole regions",
    "st": "straight-through by hand: `--carrier bridge`, for whole regions",
    "sigmoidal": "a kernel: `--kernel`",
    "softrelu": "a smooth form of an op that has a derivative",
    "SoftBool": "a type: the Probability of `gradpass.rules.shadow`",
    "SoftIndex": "a type: the Categorical of `gradpass.rules.shadow`",
}


ROWS = FUNCTIONS | BEYOND


class Row(NamedTuple):
    """What was found out about an expression."""

    before: str
    rules: str
    kind: str
    onnx: str


class Model(tf.Module):
    """Each expression as a signature of an input that is added to the variable `v`."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable(tf.reshape(tf.linspace(-1.3, 1.7, 12), [4, 3]), name="v")
        self.c = tf.reshape(tf.range(15.0), [3, 5]) / 7.0
        self.signatures_ = {entry(name): self._signature(text) for name, text in ROWS.items()}

    def _signature(self, text: str) -> Any:
        @tf.function(input_signature=[tf.TensorSpec([4, 3], tf.float32, name="x")], autograph=False)
        def run(x: Any) -> dict[str, Any]:
            return {"y": eval(text, {"tf": tf, "v": x + self.v, "c": self.c, "f": tf.float32})}

        return run


def entry(name: str) -> str:
    """A signature's name: `all` alone would mean all of them."""
    return f"soft_{list(ROWS).index(name)}"


def found() -> dict[str, Row]:
    """A row for each expression."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        original, soft = Path(folder) / "original", Path(folder) / "soft"
        model = Model()
        tf.saved_model.save(model, str(original), signatures=model.signatures_)
        verdicts = {v.name: v for v in analyse(read(original), "all")}
        straight = {name: repair(read(original), entry=entry(name)) for name in ROWS}
        smooth = repair(read(original), entry="all", mode="soft")
        if smooth.pb is None:
            raise GradpassBug("render_surrogates", None, "nothing was repaired")
        write_saved_model(original, soft, smooth.pb, force=False)
        softened = load_plain(soft)
        for name in ROWS:
            state = verdicts[entry(name)].targets[0].state
            steps = straight[name].plan
            declined = next((step.declined for step in steps if step.declined), None)
            rules = ", ".join(dict.fromkeys(rule for step in steps for rule in step.rules))
            kind = "" if state == "flows" else f"refused: {declined}" if declined else steps[0].kind
            exported = "" if state == "flows" or declined else onnx(softened.signatures[entry(name)])
            rows[name] = Row(state, "TensorFlow's own derivative" if state == "flows" else rules, kind, exported)
    return rows


def onnx(signature: Signature) -> str:
    """Whether tf2onnx carries a surrogate's graph: yes, or what is in its way."""
    tools = Tools(*map(importlib.import_module, ("tf2onnx", "onnxruntime", "onnx")))
    return attempt(lambda: export(tools, signature)).reason or "yes"


def page(rows: dict[str, Row]) -> str:
    """The page: one table of what means the same, one of the rest."""
    lines = [
        "# Surrogates",
        "",
        f"The functions of SoftJAX {VERSION}, the TensorFlow that means the same, and what becomes of its gradient.",
        "The state is that of the original; ONNX tells whether tf2onnx carries the surrogate (a straight-through",
        "repair leaves nothing of it in the forward graph). The `_st` variants are the same functions with",
        "`--mode straight-through`, the default. Made by `python scripts/render_surrogates.py`.",
        "",
        *table("SoftJAX", FUNCTIONS, rows),
        "",
        "What SoftJAX has no function for:",
        "",
        *table("", BEYOND, rows),
    ]
    lines += ["", "| SoftJAX | gradpass |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in OTHERS.items()]
    return "\n".join(lines) + "\n"


def table(whose: str, texts: dict[str, str], rows: dict[str, Row]) -> list[str]:
    """The lines of one table."""
    lines = [f"| {whose} | TensorFlow | gradient | rules | kind | ONNX |", "|---|---|---|---|---|---|"]
    for name, text in texts.items():
        cells = [f"`{name}`" if whose else name, f"`{text}`".replace("|", "\\|"), *rows[name]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def missing() -> set[str]:
    """Public functions of the installed SoftJAX that stand in no table."""
    softjax = importlib.import_module("softjax")
    public = {name for name in dir(softjax) if not name.startswith("_") and callable(getattr(softjax, name))}
    return {name for name in public if not name.endswith("_st")} - FUNCTIONS.keys() - OTHERS.keys()


def main() -> int:
    """Writes, compares or asks; 1 if something is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if the page is out of date")
    parser.add_argument("--names", action="store_true", help="compare the functions with the installed SoftJAX")
    arguments = parser.parse_args()
    if arguments.names:
        print("missing:", ", ".join(sorted(missing())) or "none")
        return int(bool(missing()))
    text = page(found())
    if arguments.check:
        stale = not PAGE.exists() or PAGE.read_text("utf-8") != text
        if stale:
            print(f"{PAGE.name} is out of date; run python scripts/render_surrogates.py", file=sys.stderr)
        return int(stale)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
