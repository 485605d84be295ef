"""A mask that comes with the data, of a batch that is all padding."""

import tensorflow as tf

import gradpass as gp

weights = tf.Variable([[0.5, 1.5, 2.5]], name="weights")


def loss(x, lengths):
    mask = tf.sequence_mask(lengths, maxlen=3, dtype=tf.float32)
    return tf.reduce_sum(x * weights * mask)


batch = tf.ones([2, 3]), tf.constant([0, 0])
with tf.GradientTape() as tape:
    value = loss(*batch)
gradient = tape.gradient(value, weights)

structure = gp.check(loss, *batch)
report = gp.probe(loss, *batch)
