"""`x = x - ...` makes a tensor of the variable, in the second step."""

import tensorflow as tf

import gradpass as gp

x = tf.Variable(2.0)


def train_step():
    with tf.GradientTape() as tape:
        y = x**2
    return tape.gradient(y, x)


first = train_step()
x = x - 0.1 * first
gradient = train_step()

report = gp.check_step(train_step)
