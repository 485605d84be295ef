"""QuickNet of larq-zoo, a network of binary weights and activations with straight-through gradients (extra `zoo`)."""

from __future__ import annotations

import sys
from functools import partial
from unittest.mock import MagicMock

import tensorflow as tf

from benchmarks.zoo import Made, Make, serve

SIZE = 64


def quicknet(name: str) -> Made:
    """Makes one of the sizes of QuickNet. larq-zoo knows Keras 2 alone, and parts of it that have moved since."""
    import tf_keras
    from keras.applications import imagenet_utils
    from tf_keras.src.applications.imagenet_utils import obtain_input_shape

    tf.keras = sys.modules["tensorflow.keras"] = tf_keras  # it is too late for TF_USE_LEGACY_KERAS
    imagenet_utils.obtain_input_shape = obtain_input_shape
    # It asks for a version whose protobuf code TensorFlow's protobuf refuses; weights from nowhere need no data set.
    sys.modules["tensorflow_datasets"] = MagicMock()
    from larq.quantized_variable import QuantizedVariable
    from larq_zoo import sota

    network = getattr(sota, name)(weights=None, input_shape=(SIZE, SIZE, 3), num_classes=10)
    # Untrained, its softmax is saturated: without the logits each gradient is a zero by data.
    both = tf_keras.Model(network.input, {"logits": network.layers[-2].output, "classes": network.output})

    def call(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(both(images))

    # A quantised variable is a view of another; saving fails on the view.
    variables = [v.latent_variable if isinstance(v, QuantizedVariable) else v for v in network.variables]
    return serve(variables, call, tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, "images"))


MODELS: dict[str, Make] = {name: partial(quicknet, name) for name in ("QuickNet", "QuickNetSmall")}
