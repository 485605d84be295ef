"""A sigmoid so far out that its derivative rounds to 0."""

import tensorflow as tf

import gradpass as gp

weights = tf.Variable([[0.5], [1.5]], name="weights")


def loss(x):
    return tf.reduce_mean(tf.sigmoid(1000.0 * (x @ weights)))


x = tf.ones([4, 2])
with tf.GradientTape() as tape:
    value = loss(x)
gradient = tape.gradient(value, weights)

structure = gp.check(loss, x)
report = gp.probe(loss, x)
