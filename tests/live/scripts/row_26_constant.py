"""A constant that nobody has the tape watch."""

import tensorflow as tf

import gradpass as gp

x = tf.constant(3.0)


def slope():
    with tf.GradientTape() as tape:
        y = x**2
    return tape.gradient(y, x)


gradient = slope()

report = gp.check_step(slope)
