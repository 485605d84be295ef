"""A layer that is built and never called."""

import keras
import tensorflow as tf

import gradpass as gp


class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="relu")
        self.extra = keras.layers.Dense(4)
        self.extra.build((None, 4))
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.hidden(x))


model = Model()
x = tf.ones([4, 3])

with tf.GradientTape() as tape:
    value = tf.reduce_sum(model(x))
gradient = tape.gradient(value, model.extra.kernel.value)

report = gp.check(model, x)
