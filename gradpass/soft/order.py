"""Soft order along the last axis: sort, rank, argsort, top-k, quantile, median.

Two families. SoftSort (Prillo, Eisenschlos, "SoftSort: A Continuous Relaxation for the argsort Operator", 2020) and
NeuralSort (Grover, Wang, Zweig, Ermon, "Stochastic Optimization of Sorting Networks via Continuous Relaxations", 2019)
give weights [..., k, n], a distribution over entries for each rank; what needs only the means of SoftSort's takes
O(n log n): a sort, and `laplace_sums`. The projection onto the permutahedron (Blondel, Teboul, Berthet, Djolonga, "Fast
Differentiable Sorting and Ranking", 2020) gives values and ranks in O(n log n), without weights; it needs the op
IsotonicRegression, which ONNX lacks.

All take a temperature that broadcasts against x [..., n]; as it goes to 0 they tend to the hard function. Ranks and
indices count from 0, in ascending order unless `descending`. Infinite entries keep their place and disturb no other,
but for `neuralsort` and `permutahedron_sort`, which add entries up and so want finite ones.
"""

from __future__ import annotations

from typing import Any

from gradpass.rules.lazy import tf
from gradpass.soft.laplace import laplace_sums
from gradpass.soft.simplex import WEIGHTS


def softsort(x: Any, anchors: Any, temperature: Any, mode: str = "entropic") -> Any:
    """Weights [..., k, n] of the entries for anchors [..., k]: softmax(-|a_i - x_j| / T), the sorted x as anchors.

    With the sparse modes the softmax is another projection onto the simplex. O(k n log n), entropic O(k n).
    """
    x, anchors = _finite(x / temperature), _finite(anchors / temperature)
    return WEIGHTS[mode](-tf.abs(anchors[..., :, None] - x[..., None, :]))


def neuralsort(x: Any, temperature: Any, mode: str = "entropic", descending: bool = False) -> Any:
    """Weights [..., n, n] for the ranks i, counted from 1 for the largest (reversed unless `descending`).

    softmax(((n + 1 - 2 i) x_j - sum_l |x_j - x_l|) / T): Grover et al. 2019, equation 5.
    """
    n = tf.shape(x)[-1]
    x = x / temperature
    place = n + 1 - 2 * tf.range(1, n + 1)
    spread = tf.reduce_sum(tf.abs(x[..., :, None] - x[..., None, :]), axis=-1)
    slope = tf.cast(place if descending else place[::-1], x.dtype)
    return WEIGHTS[mode](slope[:, None] * x[..., None, :] - spread[..., None, :])


def sort(x: Any, temperature: Any, descending: bool = False) -> Any:
    """The expected entry of each rank under SoftSort's entropic weights, in O(n log n)."""
    hard = tf.sort(x, axis=-1, direction=_direction(descending))
    safe = _finite(hard)
    return _unless_infinite(_mean(_finite(hard / temperature), safe), hard)


def rank(x: Any, temperature: Any, descending: bool = False) -> Any:
    """The expected rank of each entry, in O(n log n): sum_i i softmax_i(-|x_j - s_i| / T), s the sorted x.

    SoftSort's weights are normalised over ranks here, and not over entries.
    """
    ordered, places = _sorted(x if descending else -x)
    means = _mean(_finite(ordered / temperature), tf.cast(tf.range(tf.shape(x)[-1]), x.dtype))
    return _put_back(means, places)


def argsort(x: Any, temperature: Any, descending: bool = False) -> Any:
    """The expected index of each rank under SoftSort's entropic weights, in O(n log n)."""
    ordered, places = _sorted(x if descending else -x)
    return _mean(_finite(ordered / temperature), tf.cast(places, x.dtype))


def top_k(x: Any, k: Any, temperature: Any, mode: str = "entropic") -> tuple[Any, Any]:
    """The k largest as expectations [..., k], and SoftSort's weights [..., k, n] that make them."""
    hard = tf.math.top_k(x, k).values
    chosen = softsort(x, hard, temperature, mode)
    return _unless_infinite(tf.linalg.matvec(chosen, _finite(x)), hard), chosen


def quantile(x: Any, q: Any, temperature: Any, mode: str = "entropic") -> Any:
    """The q-quantile [...] by SoftSort, linear between two ranks; q a number in [0, 1]. O(n log n), the sort."""
    hard = tf.sort(x, axis=-1)
    n = tf.shape(x)[-1]
    place = tf.cast(tf.convert_to_tensor(q, dtype_hint=x.dtype), x.dtype) * tf.cast(n - 1, x.dtype)
    lower = tf.minimum(tf.cast(tf.floor(place), tf.int32), n - 1)
    part = place - tf.cast(lower, x.dtype)
    two = tf.gather(hard, tf.stack([lower, tf.minimum(lower + 1, n - 1)]), axis=-1)
    soft = tf.linalg.matvec(softsort(x, two, temperature, mode), _finite(x))
    made = _unless_infinite(soft, two)
    below, above = made[..., 0], made[..., 1]
    # A plain mixture would make 0 * inf of an infinite neighbour.
    return tf.where(part > 0, below + part * tf.where(part > 0, above - below, tf.zeros_like(below)), below)


def median(x: Any, temperature: Any, mode: str = "entropic") -> Any:
    """The middle of the soft-sorted entries [...], the mean of the middle two of an even number."""
    return quantile(x, 0.5, temperature, mode)


def permutahedron_sort(x: Any, temperature: Any, descending: bool = False) -> Any:
    """The Euclidean projection of (n, .., 1) / T onto the permutahedron of x: Blondel et al. 2020, equation 5."""
    places = tf.cast(tf.range(tf.shape(x)[-1], 0, -1), x.dtype)
    made = _onto_permutahedron(places / temperature, tf.sort(x, axis=-1, direction="DESCENDING"))
    return made if descending else made[..., ::-1]


def permutahedron_rank(x: Any, temperature: Any, descending: bool = False) -> Any:
    """The Euclidean projection of x / T onto the permutahedron of (0, .., n - 1): Blondel et al. 2020, equation 6."""
    ordered, order = _sorted(-x if descending else x)
    n = tf.shape(x)[-1]
    places = tf.cast(tf.range(n - 1, -1, -1), x.dtype)
    made = _onto_permutahedron(_finite(ordered / temperature, 8 * tf.cast(n, x.dtype)), places)
    return _put_back(made, order)


def _onto_permutahedron(z: Any, w: Any) -> Any:
    """z - v with v the non-increasing fit to y = z - w, both in descending order: Blondel et al. 2020, proposition 3.

    It is put as w + (y - v), so that a large z in a block of its own gives w to the bit; v is y's mean over blocks.
    TensorFlow's own gradient of IsotonicRegression makes a piece of graph for each row and fails for an unknown number
    of them, so only the blocks are taken from the op.
    """
    y = z - w
    _, blocks = tf.nn.isotonic_regression(tf.stop_gradient(y), decreasing=True)
    flat = tf.reshape(y, [-1])
    n = tf.shape(y)[-1]
    rows = tf.size(flat) // n
    ids = tf.reshape(tf.reshape(blocks, [rows, n]) + n * tf.range(rows)[:, None], [-1])
    means = tf.math.unsorted_segment_mean(flat, ids, tf.size(flat))
    return w + (y - tf.reshape(tf.gather(means, ids), tf.shape(y)))


def _mean(ordered: Any, payload: Any) -> Any:
    """The mean of a payload [..., n] under the weights exp(-|s_i - s_j|), for each i; s [..., n] sorted."""
    payload = tf.broadcast_to(payload, tf.shape(ordered))
    sums = laplace_sums(ordered, tf.stack([tf.ones_like(payload), payload], axis=-2))
    return sums[..., 1, :] / sums[..., 0, :]


def _sorted(x: Any) -> tuple[Any, Any]:
    """The entries from the largest on, and their places; equal entries keep their order."""
    found = tf.math.top_k(x, tf.shape(x)[-1])
    return found.values, found.indices


def _put_back(ordered: Any, places: Any) -> Any:
    """What belongs to sorted entries [..., n], in the order in which they were."""
    n = tf.shape(places)[-1]
    flat = tf.reshape(places, [-1, n])
    flat = tf.reshape(flat + n * tf.range(tf.shape(flat)[0])[:, None], [-1])
    return tf.reshape(tf.gather(tf.reshape(ordered, [-1]), tf.math.invert_permutation(flat)), tf.shape(ordered))


def _finite(x: Any, room: Any = 8.0) -> Any:
    """Without infinities and NaN: cut off where a difference, or the sum that `room` allows for, stays finite."""
    limit = tf.constant(x.dtype.max, x.dtype) / tf.cast(room, x.dtype)
    x = tf.where(tf.math.is_nan(x), tf.zeros_like(x), x)
    return tf.clip_by_value(x, -limit, limit)


def _unless_infinite(soft: Any, hard: Any) -> Any:
    return tf.where(tf.math.is_finite(hard), soft, hard)


def _direction(descending: bool) -> str:
    return "DESCENDING" if descending else "ASCENDING"
