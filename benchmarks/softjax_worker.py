"""One of the two sides of `benchmarks.softjax`, a process that answers questions on its standard input.

A question is a line of JSON, {"case", "rows", "n", "dtype", "seconds", "out"}; so is the answer: seconds of the forward
pass and of forward and backward together (both compiled and warm), and the growth of the process's peak memory. With
`out`, value and gradient go into that .npz file. Both sides draw the same numbers.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SOFTNESS = 0.1
K = 8
MODES = {"entropic": "smooth", "sparse": "c0", "p3/2": "c1", "p4/3": "c2"}


Arrays = Callable[..., tuple[Any, ...]]


def ours(case: str, dtype: str) -> tuple[Callable[[Any], Any], Arrays, Arrays]:
    """How an array comes in; the forward pass; value and gradient for a cotangent."""
    import tensorflow as tf

    from gradpass.soft import order, simplex

    name, _, how = case.partition(":")
    functions: dict[str, Callable[[Any], Any]] = {
        "argmax": lambda x: simplex.weights(x / SOFTNESS, how),
        "argsort": lambda x: order.softsort(x, tf.sort(x), SOFTNESS, how),
        "top_k": lambda x: order.top_k(x, K, SOFTNESS, how)[0],
        "quantile": lambda x: order.quantile(x, 0.3, SOFTNESS, how or "entropic"),
        "sort": lambda x: order.sort(x, SOFTNESS),
        "rank": lambda x: order.rank(x, SOFTNESS) + 1,
        # Their anchors are 0 .. 1 and not 0 .. n - 1, which is another unit of temperature.
        "sort-projected": lambda x: order.permutahedron_sort(x, SOFTNESS * (x.shape[-1] - 1)),
        "rank-projected": lambda x: order.permutahedron_rank(x, SOFTNESS / (x.shape[-1] - 1)) + 1,
    }
    function = functions[name]

    @tf.function(autograph=False)
    def forward(x: Any) -> Any:
        return (function(x),)

    @tf.function(autograph=False)
    def both(x: Any, cotangent: Any) -> Any:
        value = function(x)
        return value, tf.gradients(value, x, grad_ys=cotangent)[0]

    def traced(call: Any) -> Arrays:
        """With its one trace kept: jax.jit finds it in C++, tf.function looks for it in Python."""
        traces: list[Arrays] = []

        def run(*arrays: Any) -> tuple[Any, ...]:
            if not traces:
                traces.append(call.get_concrete_function(*arrays))
            return traces[0](*arrays)

        return run

    return lambda value: tf.constant(value, dtype), traced(forward), traced(both)


def theirs(case: str, dtype: str) -> tuple[Callable[[Any], Any], Arrays, Arrays]:
    """The same of SoftJAX; a case may name one of its methods and modes, `sort:neuralsort/smooth`."""
    # Neither is in the environment of gradpass's own checks, nor in that of its tests.
    jax, softjax = importlib.import_module("jax"), importlib.import_module("softjax")
    jax.config.update("jax_enable_x64", dtype == "float64")
    name, _, how = case.partition(":")
    common: dict[str, Any] = {"softness": SOFTNESS, "standardize": False, "axis": -1}
    if "/" in how and how not in MODES:
        common["method"], common["mode"] = how.split("/")
    else:
        common["method"], common["mode"] = "softsort", MODES.get(how, "smooth")
    if name.endswith("-projected"):
        name = name.removesuffix("-projected")
        common["method"], common["mode"] = "fast_soft_sort", "c0"
    functions: dict[str, Callable[[Any], Any]] = {
        "argmax": lambda x: softjax.argmax(x, **common),
        "argsort": lambda x: softjax.argsort(x, **common),
        "top_k": lambda x: softjax.top_k(x, K, **common)[0],
        "quantile": lambda x: softjax.quantile(x, 0.3, **common),
        "sort": lambda x: softjax.sort(x, **common),
        "rank": lambda x: softjax.rank(x, descending=False, **common),
    }
    function = functions[name]
    forward = jax.jit(lambda x: (function(x),))

    @jax.jit
    def both(x: Any, cotangent: Any) -> Any:
        value, pull = jax.vjp(function, x)
        return value, pull(cotangent)[0]

    return (
        lambda value: jax.numpy.asarray(value, dtype),
        lambda x: tuple(jax.block_until_ready(forward(x))),
        lambda x, cotangent: tuple(jax.block_until_ready(both(x, cotangent))),
    )


def timed(call: Callable[[], Any], seconds: float) -> float:
    """The median time of warm calls that fill some seconds, at least one."""
    call()
    taken: list[float] = []
    while not taken or (sum(taken) < seconds and len(taken) < 200):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def memory(key: str) -> int:
    """A figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise LookupError(key)


def answer(side: Callable[..., Any], question: dict[str, Any]) -> dict[str, Any]:
    """Runs one case."""
    rng = np.random.default_rng(question["n"])
    array, forward, both = side(question["case"], question["dtype"])
    x = array(rng.normal(size=[question["rows"], question["n"]]))
    cotangent = array(rng.normal(size=np.shape(forward(x)[0])))
    both(x, cotangent)  # compiles: the memory of that is no business of the calls
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or the peak would hide in it
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak counts from here
    before = memory("VmRSS")
    value, gradient = both(x, cotangent)
    peak = memory("VmHWM") - before
    if question.get("out"):
        np.savez(question["out"], value=np.asarray(value), gradient=np.asarray(gradient))
    return {
        "forward": timed(lambda: forward(x), question["seconds"]),
        "both": timed(lambda: both(x, cotangent), question["seconds"]),
        "peak": max(peak, 0),
    }


def main(name: str) -> None:
    """Answers until its input ends."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    side = {"ours": ours, "theirs": theirs}[name]
    for line in sys.stdin:
        print(json.dumps(answer(side, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
