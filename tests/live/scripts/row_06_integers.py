"""A variable of whole numbers."""

import tensorflow as tf

import gradpass as gp

x = tf.Variable(10)

with tf.GradientTape() as tape:
    y = x * x
gradient = tape.gradient(y, x)

report = gp.check(lambda: tf.cast(x * x, tf.float32))
