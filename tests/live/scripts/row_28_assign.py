"""A value that goes through a variable on its way."""

import tensorflow as tf

import gradpass as gp

weights = tf.Variable([0.5, 1.5], name="weights")
state = tf.Variable([0.0, 0.0], name="state", trainable=False)


def loss(x):
    state.assign(weights * x)
    return tf.reduce_sum(state**2)


with tf.GradientTape() as tape:
    value = loss(tf.ones([2]))
gradient = tape.gradient(value, weights)

report = gp.check(loss, tf.ones([2]))
