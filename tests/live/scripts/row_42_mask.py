"""A mask computed once, of an empty batch."""

import tensorflow as tf

import gradpass as gp

weights = tf.Variable([[0.5, 1.5, 2.5]], name="weights")
mask = tf.sequence_mask([0], maxlen=3, dtype=tf.float32)


def loss(x):
    return tf.reduce_sum(x * weights * mask)


with tf.GradientTape() as tape:
    value = loss(tf.ones([1, 3]))
gradient = tape.gradient(value, weights)

report = gp.check(loss, tf.ones([1, 3]))
