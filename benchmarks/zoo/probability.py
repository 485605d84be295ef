"""Samplers and variational models of tensorflow-probability, and sonnet's vector quantiser (extra `zoo`)."""

from __future__ import annotations

from functools import partial

import tensorflow as tf

from benchmarks.zoo import Made, Make, serve

ROWS, WIDTH = 4, 6
GIVEN = tf.TensorSpec([ROWS, WIDTH], tf.float32, "x")
Values = dict[str, tf.Tensor]


def weights(**shapes: tuple[int, ...]) -> dict[str, tf.Variable]:
    """Makes variables at random."""
    return {name: tf.Variable(tf.random.normal(shape), name=name) for name, shape in shapes.items()}


def sampled(name: str, likelihood: bool) -> Made:
    """Makes samples of a distribution whose parameters depend on variables, and their log-probability if asked."""
    from tensorflow_probability import distributions

    kind = getattr(distributions, name)
    parameters = PARAMETERS[name]
    w = weights(weight=(WIDTH,), **dict.fromkeys(parameters, (WIDTH,)))

    def call(x: tf.Tensor) -> Values:
        made = kind(**{parameter: fitting(parameter, x * w[parameter]) for parameter in parameters})
        values = {"sample": tf.cast(made.sample(seed=1), tf.float32)[..., None] * w["weight"]}
        if likelihood:
            values["surprise"] = -made.log_prob(made.sample(seed=2))
        return values

    return serve(w, call, GIVEN)


def fitting(parameter: str, value: tf.Tensor) -> tf.Tensor:
    """Puts a parameter where its distribution takes it."""
    if parameter in {"loc", "logits"}:
        return value
    if parameter == "total_count":
        return 1 + tf.floor(tf.abs(value))
    return 0.1 + tf.nn.softplus(value)


def hidden_markov() -> Made:
    """Makes a hidden Markov model: its likelihood by a scan, and its best path."""
    from tensorflow_probability import distributions as tfd

    w = weights(start=(3,), moves=(3, 3), means=(3,))

    def call(x: tf.Tensor) -> Values:
        made = tfd.HiddenMarkovModel(
            tfd.Categorical(logits=w["start"]),
            tfd.Categorical(logits=w["moves"]),
            tfd.Normal(w["means"], 1.0),
            WIDTH,
        )
        path = made.posterior_mode(x)
        return {"likelihood": made.log_prob(x), "path": tf.gather(w["means"], path)}

    return serve(w, call, GIVEN)


def flow() -> Made:
    """Makes a normalising flow of splines and permutations."""
    from tensorflow_probability import bijectors as tfb
    from tensorflow_probability import distributions as tfd

    w = weights(widths=(WIDTH, 5), heights=(WIDTH, 5), slopes=(WIDTH, 4), shift=(WIDTH,))

    def call(x: tf.Tensor) -> Values:
        spline = tfb.RationalQuadraticSpline(
            bin_widths=4 * tf.nn.softmax(w["widths"]),
            bin_heights=4 * tf.nn.softmax(w["heights"]),
            knot_slopes=0.1 + tf.nn.softplus(w["slopes"]),
            range_min=-2.0,
        )
        chain = tfb.Chain([tfb.Shift(w["shift"]), tfb.Permute(list(reversed(range(WIDTH)))), spline])
        made = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), WIDTH), chain)
        return {"likelihood": made.log_prob(x), "sample": made.sample(ROWS, seed=3)}

    return serve(w, call, GIVEN)


def monte_carlo() -> Made:
    """Makes a few steps of Hamiltonian Monte Carlo: accepting or not is a comparison inside a loop."""
    import tensorflow_probability as tfp

    w = weights(mean=(WIDTH,), spread=(WIDTH,))

    def call(x: tf.Tensor) -> Values:
        target = tfp.distributions.MultivariateNormalDiag(w["mean"], tf.nn.softplus(w["spread"]))
        kernel = tfp.mcmc.HamiltonianMonteCarlo(target.log_prob, step_size=0.1, num_leapfrog_steps=2)
        state = tfp.mcmc.sample_chain(3, current_state=x, kernel=kernel, trace_fn=None, seed=[1, 2])
        return {"state": state}

    return serve(w, call, GIVEN)


def vector_quantizer(moving: bool) -> Made:
    """Makes sonnet's vector quantiser in training: codes as variables, or as moving averages."""
    import sonnet

    kind = sonnet.nets.VectorQuantizerEMA if moving else sonnet.nets.VectorQuantizer
    options = {"decay": 0.9} if moving else {}
    layers = [sonnet.Linear(4), kind(4, 9, 0.25, **options), sonnet.Linear(WIDTH)]

    def call(x: tf.Tensor) -> Values:
        found = layers[1](layers[0](x), is_training=True)
        values = {name: found[name] for name in ("loss", "perplexity")}
        return {"y": layers[2](found["quantize"]), **values}

    call(tf.zeros([ROWS, WIDTH]))  # sonnet makes variables at the first call
    return serve(layers, call, GIVEN)


PARAMETERS = {
    "Beta": ("concentration0", "concentration1"),
    "Binomial": ("total_count", "logits"),
    "Categorical": ("logits",),
    "Dirichlet": ("concentration",),
    "Gamma": ("concentration", "rate"),
    "Gumbel": ("loc", "scale"),
    "Normal": ("loc", "scale"),
    "Poisson": ("rate",),
    "RelaxedBernoulli": ("temperature", "logits"),
    "StudentT": ("df", "loc", "scale"),
    "VonMises": ("loc", "concentration"),
}
MODELS: dict[str, Make] = {
    **{f"{name}-sample": partial(sampled, name, False) for name in PARAMETERS},
    **{f"{name}-likelihood": partial(sampled, name, True) for name in ("Binomial", "Gamma", "VonMises")},
    "HiddenMarkovModel": hidden_markov,
    "spline-flow": flow,
    "HMC": monte_carlo,
    "VectorQuantizer": partial(vector_quantizer, False),
    "VectorQuantizerEMA": partial(vector_quantizer, True),
}
