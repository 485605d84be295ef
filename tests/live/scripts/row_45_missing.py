"""A list that has the head only."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
optimizer = keras.optimizers.SGD(0.1)
x, y = tf.ones([4, 3]), tf.zeros([4, 1])


def train_step(x, y):
    variables = model.layers[-1].trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((y - model(x)) ** 2)
    gradients = tape.gradient(loss, variables)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return gradients[0]


gradient = train_step(x, y)

report = gp.check_step(train_step, x, y)
