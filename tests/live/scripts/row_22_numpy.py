"""A helper of NumPy in the loss."""

import numpy as np
import tensorflow as tf

import gradpass as gp

weights = tf.Variable([0.5, 1.5], name="weights")
x = tf.constant([1.0, 2.0])


def loss(x):
    scores = weights * x
    return tf.convert_to_tensor(np.sum(scores.numpy() ** 2))


with tf.GradientTape() as tape:
    value = loss(x)
gradient = tape.gradient(value, weights)

report = gp.check(loss, x, variables=[weights])
