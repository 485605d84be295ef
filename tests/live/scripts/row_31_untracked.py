"""Layers held by a plain object: Keras does not list their weights."""

import keras
import tensorflow as tf

import gradpass as gp


class Blocks:
    def __init__(self):
        self.first = keras.layers.Dense(4)


class Model(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = Blocks()
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.blocks.first(x))


model = Model()
x = tf.ones([4, 3])
model(x)
gradient = None if len(model.trainable_variables) == 2 else "listed"

report = gp.check(model, x)
