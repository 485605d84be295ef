"""Kernels: distribution functions that soften a step, each the chance that noise of unit scale stays below x.

A threshold's shadow is F(x / T), so its surrogate derivative is F'(x / T) / T. The names are our own and those of
snnTorch's surrogates, which are derivatives f(U) of a parameter of theirs; beside a kernel stands which T gives the
same with `--absolute-temperature`. A surrogate that belongs to no distribution function is refused with its reason:
its shadow would be no probability, so it could neither be mixed nor go on through `and`, `or` and `where`, and would
not tend to the hard value as T goes to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradpass.errors import GradpassError
from gradpass.rules.lazy import tf

Kernel = Callable[[Any], Any]

# A kernel registers itself under its function's name, with - for _, and under these others.
KERNELS: dict[str, Kernel] = {}


def kernel(*others: str) -> Callable[[Kernel], Kernel]:
    """Registers a distribution function under its own name and others."""

    def register(function: Kernel) -> Kernel:
        for name in (function.__name__.replace("_", "-"), *others):
            KERNELS[name] = function
        return function

    return register


@kernel("sigmoid")
def logistic(x: Any) -> Any:
    """The logistic distribution function, 1 / (1 + exp(-x)); snnTorch's sigmoid(slope=k) at T = 1 / k.

    Above 0 it is computed as 1 - F(-x), whose derivative lives as far out as below 0: that of tf.sigmoid is F (1 - F),
    where F is 1 in float32 from x = 17 on.
    """
    return tf.where(x > 0, 1 - tf.sigmoid(-x), tf.sigmoid(x))


@kernel()
def gaussian(x: Any) -> Any:
    """The normal distribution function."""
    # Beyond 40 nothing is left of the density, even in float64, while TensorFlow's erf of a huge number is NaN.
    return 0.5 * (1 + tf.math.erf(tf.clip_by_value(x, -40.0, 40.0) * (1 / math.sqrt(2))))


@kernel()
def cauchy(x: Any) -> Any:
    """The Cauchy distribution function, 1/2 + atan(x) / pi: heavy tails, so a far unit still learns."""
    return 0.5 + tf.atan(x) * (1 / math.pi)


@kernel()
def atan(x: Any) -> Any:
    """1/2 + atan(pi x) / pi, a narrower Cauchy, of derivative 1 at 0; snnTorch's atan(alpha=a) at T = 2 / a.

    Source: Fang, Yu, Chen, Masquelier, Huang, Tian, "Incorporating Learnable Membrane Time Constant to Enhance Learning
    of Spiking Neural Networks", 2021, section 4.3.
    """
    return 0.5 + tf.atan(x * math.pi) * (1 / math.pi)


@kernel()
def fast_sigmoid(x: Any) -> Any:
    """(1 + x / (1 + |x|)) / 2, with the heavy tails 1 / (2 (1 + |x|)^2).

    snnTorch's fast_sigmoid(slope=k) is 2 / k times its derivative at T = 1 / k. Source: Zenke, Ganguli, "SuperSpike:
    Supervised Learning in Multilayer Spiking Neural Networks", 2018.
    """
    x = tf.clip_by_value(x, -1e18, 1e18)  # of infinity it would be NaN, and of more its derivative
    return 0.5 + 0.5 * x / (1 + tf.abs(x))


@kernel("spike-rate-escape")
def laplace(x: Any) -> Any:
    """The Laplace distribution function, of derivative exp(-|x|) / 2: the escape noise of a firing rate.

    snnTorch's spike_rate_escape(beta=b, slope=k) is 2 k / b times its derivative at T = 1 / b, around the threshold
    here (there 1 above it). Source: Gerstner, Kistler, Naud, Paninski, "Neuronal Dynamics", 2014, section 9.1.
    """
    # Each side is kept off the other's, where exp would overflow; |x| would have no derivative at 0.
    zero = tf.zeros_like(x)
    return tf.where(x > 0, 1 - 0.5 * tf.exp(-tf.maximum(x, zero)), 0.5 * tf.exp(tf.minimum(x, zero)))


@kernel()
def triangular(x: Any) -> Any:
    """The distribution function of the triangle 1 - |x| on [-1, 1]: no gradient beyond it.

    Source: Esser et al., "Convolutional Networks for Fast, Energy-Efficient Neuromorphic Computing", 2016, equation 8.
    snnTorch's function of this name is another: -1 above the threshold and 1 below, which no rising function has.
    """
    z = tf.clip_by_value(x, -1.0, 1.0)
    return 0.5 + z - 0.5 * z * tf.abs(z)


@kernel()
def uniform(x: Any) -> Any:
    """The distribution function of noise on [-1/2, 1/2]: the saturated straight-through estimator, slope 1 near 0.

    Source: Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, "Binarized Neural Networks", 2016, equation 4.
    """
    return tf.clip_by_value(x, -0.5, 0.5) + 0.5


# snnTorch's other surrogates, and why none of them is a kernel.
REFUSED = {
    "straight-through-estimator": "its derivative is 1 everywhere, so it has no limits 0 and 1; take uniform, which is "
    "1 within T / 2 of the threshold and 0 beyond",
    "heaviside": "its derivative is 1 on all of one side, so it grows without end; take uniform",
    "lso": "its derivative stays 1 above the threshold and a small slope below, so it has no limits 0 and 1; take "
    "fast-sigmoid, of which every unit learns as well",
    "sso": "its derivative below the threshold is random, so the same input would get another gradient each time; take "
    "fast-sigmoid",
    "sfs": "it is 0 for every unit below the threshold and some way above, so a unit that is off never learns; take "
    "triangular or uniform, which are sparse on both sides",
    "custom-surrogate": "a function of your own cannot be written into a model; take the kernel that is nearest",
}


def named(name: str) -> Kernel:
    """The kernel of a name (snnTorch's spelling with _ too); GradpassError says why there is none."""
    plain = name.lower().replace("_", "-")
    if plain in KERNELS:
        return KERNELS[plain]
    if plain in REFUSED:
        raise GradpassError(f"--kernel {name} is no kernel: {REFUSED[plain]}")
    raise GradpassError(f"--kernel does not know {name!r}; choose from {', '.join(KERNELS)}")
