"""A fixed model trained on one or several replicas; `python -m tests.live.replicas KERAS STRATEGY` prints its losses.

KERAS is keras or tf_keras; STRATEGY is one, mirrored (two logical CPUs), or workers (as TF_CONFIG says).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

import gradpass as gp

BATCH = 16


def strategy_of(name: str) -> Any:
    """The strategy; it has to be made before anything else of TensorFlow."""
    if name == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return None


def losses(module: Any, strategy: Any) -> dict[str, list[float]]:
    """The losses of three epochs in `fit`, and of the steps of a loop of one's own."""
    generator = np.random.default_rng(0)
    x, y = np.float32(generator.random((32, 3))), np.float32(generator.random((32, 2)))
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).with_options(sharding)

    def model() -> Any:
        module.utils.set_random_seed(1)
        rounded = module.layers.Lambda(lambda t: tf.round(3.0 * t))
        return module.Sequential(
            [module.layers.Input((3,)), module.layers.Dense(4), rounded, module.layers.Dense(2)]
        )  # fmt: skip

    with strategy.scope() if strategy else nullcontext():
        fixed = gp.fix(model(), x)
        fixed.compile(module.optimizers.SGD(0.1), "mse")
        own = gp.fix(model(), x)
        optimizer = module.optimizers.SGD(0.1)
        optimizer.build(own.trainable_variables)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((own(x, training=True) - y) ** 2) / (2 * BATCH)
        found = tape.gradient(loss, own.trainable_variables)
        optimizer.apply_gradients(zip(found, own.trainable_variables, strict=True))
        return loss

    @tf.function
    def everywhere(x: Any, y: Any) -> Any:
        return strategy.reduce("SUM", strategy.run(step, (x, y)), None) if strategy else step(x, y)

    batches = strategy.experimental_distribute_dataset(data) if strategy else data
    found = {"loop": [float(everywhere(*batch)) for _ in range(3) for batch in batches]}
    # Keras 3 (to 3.15) cannot `fit` any model over several workers: its data adapter makes one tensor of all replicas'.
    if module.__name__ != "keras" or "TF_CONFIG" not in os.environ:
        found["fit"] = fixed.fit(data, epochs=3, verbose=0).history["loss"]
    return found


if __name__ == "__main__":
    chosen = strategy_of(sys.argv[2])
    print(json.dumps(losses(importlib.import_module(sys.argv[1]), chosen)))
