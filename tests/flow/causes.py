"""The catalogue of causes, each as a user would write it: the program, what TensorFlow says and whom gradpass blames.

`v` is the variable whose gradient is missing. A number is that of the cause in the catalogue; a cause with several
sketches has several rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

import tensorflow as tf

from tests.flow.truth import Body, Weights

S = tf.reduce_sum
C = tf.constant([[0.5, -1.0, 2.0], [1.25, 0.75, -0.5], [-1.75, 0.1, 0.9], [0.3, 0.2, -0.1]])

SAYS = {"None": "none", "zeros": "zero", "flows": "flows", "LookupError": "raises"}


Blamed = tuple["str", "str | None", "str | None"]


@dataclass(frozen=True)
class Row:
    """One cause. `says` is what `tape.gradient` gives v; `blamed` is code, op and node of what is reported about it.

    Where the fault is in the values, `by_data`, the gradient flows all the same.
    """

    number: int
    name: str
    body: Body
    says: str
    blamed: tuple[Blamed, ...]
    target: str = "v"
    by_data: bool = False

    @property
    def written(self) -> CodeType:
        """What the user wrote."""
        cells = dict(zip(self.body.__code__.co_freevars, self.body.__closure__ or (), strict=True))
        code: CodeType = (cells["body"].cell_contents if "body" in cells else self.body).__code__
        return code

    @property
    def state(self) -> str:
        return "flows" if self.by_data else SAYS[self.says]


def of_v(number: int, name: str, body: Callable[[Any], Any], says: str, *blamed: str) -> Row:
    """A row that needs nothing but v; code, op and node of whoever is blamed follow each other."""
    named = tuple(zip(blamed[::3], blamed[1::3], blamed[2::3], strict=True))
    return Row(number, name, lambda m, x: body(tf.convert_to_tensor(m.v)), says, named)


def by_data(number: int, name: str, body: Callable[[Any], Any], says: str, *blamed: str) -> Row:
    """A row whose gradient flows: v gets what it gets because of values, and only those in the graph can be blamed."""
    return replace(of_v(number, name, body, says, *blamed), by_data=True)


def mean(x: Any) -> Any:
    return tf.reduce_mean(x)


def number(x: Any) -> Any:
    return tf.cast(x, tf.float32)


def unit(v: Any) -> Any:
    return tf.sigmoid(v)[None]


def augmented(m: Weights, x: Any) -> Any:
    """An augmentation layer in a model of its own function."""
    layer = tf.function(lambda image: tf.image.adjust_hue(image[None], 0.1)[0], autograph=False)
    model = tf.function(lambda image: layer(image) * m.v, autograph=False)
    return S(model(tf.sigmoid(x)))


def before(m: Weights, x: Any) -> Any:
    with tf.init_scope():
        scaled = tf.tanh(m.v)
    return S(scaled * x)


def assigned(m: Weights, x: Any) -> Any:
    m.moving.assign(tf.tanh(m.v))
    return S(m.moving * x)


def summed_by_numpy(x: Any) -> Any:
    return x.sum()


ROWS = [
    of_v(1, "argmax", lambda v: S(number(tf.argmax(v, 1))), "None", "GP102", "ArgMax", "ArgMax"),
    of_v(2, "threshold", lambda v: S(number(v > 0)), "None", "GP101", "Greater", "Greater"),
    of_v(3, "round", lambda v: S(tf.round(v)), "None", "GP103", "Round", "Round"),
    of_v(3, "floor", lambda v: S(tf.floor(v)), "None", "GP103", "Floor", "Floor"),
    of_v(3, "ceil", lambda v: S(tf.math.ceil(v)), "None", "GP103", "Ceil", "Ceil"),
    of_v(3, "rint", lambda v: S(tf.math.rint(v)), "None", "GP103", "Rint", "Rint"),
    of_v(4, "sign", lambda v: S(tf.sign(v)), "zeros", "GP301", "Sign", "Sign"),
    of_v(5, "integer cast", lambda v: S(number(tf.cast(v, tf.int32))), "None", "GP104", "Cast", "Cast"),
    Row(6, "integer variable", lambda m, x: number(m.whole * m.whole), "None", (("GP205", None, None),), "whole"),
    of_v(7, "argsort", lambda v: S(number(tf.argsort(tf.argsort(v)))), "None", "GP105", "TopKV2", "argsort/TopKV2"),
    of_v(8, "top_k", lambda v: S(number(tf.math.top_k(v, 2).indices)), "None", "GP105", "TopKV2", "TopKV2"),
    of_v(9, "one_hot", lambda v: S(tf.one_hot(tf.argmax(v, 1), 3) * C), "None", "GP102", "ArgMax", "ArgMax"),
    of_v(10, "gather", lambda v: S(tf.gather(C, tf.argmax(v, 1))), "None", "GP102", "ArgMax", "ArgMax"),
    of_v(11, "categorical", lambda v: S(number(tf.random.categorical(v, 4))), "None",
         "GP106", "Multinomial", "categorical/Multinomial"),
    of_v(12, "poisson", lambda v: S(tf.random.poisson([4], tf.exp(v))), "LookupError",
         "GP125", "RandomPoissonV2", "random_poisson/RandomPoissonV2"),
    of_v(12, "stateless poisson", lambda v: S(tf.random.stateless_poisson([4, 3], [1, 2], tf.exp(v), tf.float32)),
         "None", "GP125", "StatelessRandomPoisson", "stateless_random_poisson/StatelessRandomPoisson"),
    of_v(13, "histogram", lambda v: S(number(tf.histogram_fixed_width(v, [-1.0, 1.0])) * tf.range(100.0)), "None",
         "GP107", "HistogramFixedWidth", "histogram_fixed_width"),
    of_v(14, "bincount", lambda v: S(tf.math.bincount([0, 1, 2, 1], weights=v[:, 0]) ** 2), "LookupError",
         "GP121", "DenseBincount", "bincount/DenseBincount"),
    of_v(15, "bucketize", lambda v: S(number(tf.raw_ops.Bucketize(input=v, boundaries=[0.0, 1.0]))), "None",
         "GP114", "Bucketize", "Bucketize"),
    of_v(15, "searchsorted", lambda v: S(number(tf.searchsorted([-1.0, 0.0, 1.0], tf.reshape(v, [-1])))), "None",
         "GP114", "LowerBound", "LowerBound"),
    of_v(16, "unique", lambda v: S(tf.unique(tf.reshape(v, [-1])).y), "LookupError", "GP122", "Unique", "Unique"),
    of_v(17, "hue", lambda v: S(tf.image.adjust_hue(unit(v), 0.1)), "LookupError",
         "GP123", "AdjustHue", "adjust_hue/AdjustHue"),
    of_v(17, "contrast", lambda v: S(tf.image.adjust_contrast(unit(v), 2.0) ** 2), "LookupError",
         "GP123", "AdjustContrastv2", "adjust_contrast"),
    of_v(17, "saturation", lambda v: S(tf.image.adjust_saturation(unit(v), 2.0)), "LookupError",
         "GP123", "AdjustSaturation", "adjust_saturation/AdjustSaturation"),
    of_v(17, "hsv", lambda v: S(tf.image.hsv_to_rgb(unit(v))), "None", "GP123", "HSVToRGB", "HSVToRGB"),
    of_v(18, "an op without a gradient", lambda v: S(tf.raw_ops.Lu(input=v[:3])[0]), "LookupError",
         "GP109", "Lu", "Lu"),
    of_v(20, "dequantize", lambda v: S(tf.quantization.dequantize(*tf.quantization.quantize(v, -3.0, 3.0, tf.quint8))),
         "LookupError", "GP124", "QuantizeV2", "QuantizeV2", "GP124", "Dequantize", "Dequantize"),
    of_v(21, "numpy_function", lambda v: tf.numpy_function(summed_by_numpy, [v], tf.float32), "None",
         "GP111", "PyFunc", "PyFunc"),
    Row(24, "computed before the tape", before, "None", (("GP202", None, None),)),
    Row(27, "moving statistics", lambda m, x: S((x - m.moving) * m.v), "flows", ()),
    Row(28, "assign", assigned, "None", (("GP207", None, None),)),
    of_v(29, "stop_gradient", lambda v: S(tf.stop_gradient(v) ** 2), "None", "GP108", "StopGradient", "StopGradient"),
    Row(30, "unused head", lambda m, x: {"loss": S(m.w * x), "classes": tf.argmax(x * m.v, 1)}, "None",
        (("GP201", None, None),)),
    Row(31, "never called", lambda m, x: S(m.w * x), "None", (("GP202", None, None),)),
    Row(32, "the loss is of the labels alone", lambda m, x: {"loss": S((x - 1) ** 2), "classes": tf.argmax(x * m.v, 1)},
        "None", (("GP208", None, None),)),
    of_v(33, "predicate", lambda v: tf.cond(S(v) > 0, lambda: tf.constant(1.0), lambda: tf.constant(2.0)), "None",
         "GP118", "Greater", "Greater"),
    of_v(34, "any", lambda v: number(tf.reduce_any(v > 0)), "None", "GP119", "Greater", "Greater"),
    of_v(34, "accuracy", lambda v: mean(number(tf.equal(tf.argmax(v, 1), [0, 1, 2, 0]))), "None",
         "GP119", "ArgMax", "ArgMax"),
    of_v(35, "non-maximum suppression", lambda v: S(number(tf.image.non_max_suppression(
        tf.constant([[0.0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3], [0, 0, 0.1, 0.1]]), v[:, 0], 3))), "None",
        "GP113", "NonMaxSuppressionV3", "non_max_suppression/NonMaxSuppressionV3"),
    of_v(35, "ctc decoding", lambda v: S(number(tf.sparse.to_dense(tf.nn.ctc_greedy_decoder(
        v[:, None, :], [4])[0][0]))), "None", "GP113", "CTCGreedyDecoder", "CTCGreedyDecoder"),
    of_v(35, "edit distance", lambda v: S(tf.edit_distance(
        tf.sparse.from_dense(tf.cast(v > 0, tf.int64)), tf.sparse.from_dense(tf.constant([[1, 0, 1]] * 4, tf.int64)))),
        "None", "GP101", "Greater", "Greater"),
    of_v(36, "strings", lambda v: S(tf.strings.to_number(tf.strings.as_string(v))), "None",
         "GP112", "AsString", "AsString"),
    by_data(38, "the branch not taken", lambda v: S(tf.where(v - v > 0, tf.math.log(v - v), 0.0)), "NaN"),
    by_data(39, "norm at 0", lambda v: tf.norm(v - v), "NaN"),
    Row(40, "loop", lambda m, x: S(tf.map_fn(lambda e: tf.floor(e) * m.w[0], tf.convert_to_tensor(m.v))), "zeros",
        (("GP103", "Floor", "map/while/Floor"),)),
    of_v(41, "unused output", lambda v: S(tf.function(lambda a: (tf.round(a), 2 * a), autograph=False)(v)[0]), "zeros",
         "GP103", "Round", "Round"),
    by_data(42, "mask of zeros", lambda v: S(v * tf.zeros([4, 3])), "zeros", "GP304", "Mul", "mul"),
    by_data(42, "sequence of length 0", lambda v: S(v * tf.sequence_mask([0] * 4, 3, tf.float32)), "zeros",
            "GP304", "Mul", "mul"),
    by_data(42, "mask of nothing", lambda v: S(tf.boolean_mask(v, [False] * 4)), "zeros",
            "GP304", "GatherV2", "boolean_mask/GatherV2"),
    by_data(43, "dead relu", lambda v: S(tf.nn.relu(-1.0 - v * v)), "zeros"),
    Row(46, "an op on the path of the data", augmented, "LookupError",
        (("GP120", "AdjustHue", "adjust_hue/AdjustHue"),)),
]  # fmt: skip
