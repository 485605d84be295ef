"""The article's first example: its middle layer is said to be unused, and is not."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential(
    [
        keras.layers.Input((10,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
x, y = tf.random.normal([32, 10]), tf.random.normal([32, 1])

with tf.GradientTape() as tape:
    value = tf.reduce_mean((y - model(x, training=True)) ** 2)
gradient = tape.gradient(value, [v.value for v in model.trainable_variables])[2]

report = gp.check(model, x, y)
