"""The loss reads a value that was taken from the variable before."""

import tensorflow as tf

import gradpass as gp

weights = tf.Variable([0.5, 1.5], name="weights")
start = weights.read_value()


def loss(x):
    return tf.reduce_sum((start * x) ** 2)


with tf.GradientTape() as tape:
    value = loss(tf.ones([2]))
gradient = tape.gradient(value, weights)

report = gp.check(loss, tf.ones([2]), variables=[weights])
