"""A ReLU whose inputs are all below 0."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)])
model.layers[0].bias.assign([-100.0] * 4)
x, y = tf.ones([8, 3]), tf.ones([8, 1])

with tf.GradientTape() as tape:
    value = tf.reduce_mean((y - model(x)) ** 2)
gradient = tape.gradient(value, model.trainable_variables[0].value)

structure = gp.check(model, x)
report = gp.probe(model, x, y, loss="mse")
