"""Labels compared with labels."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
x, y = tf.ones([4, 3]), tf.zeros([4, 1])


def loss(labels, predictions):
    return tf.reduce_mean(keras.losses.mean_squared_error(labels, labels))


with tf.GradientTape() as tape:
    value = loss(y, model(x))
gradient = tape.gradient(value, model.trainable_variables[0].value)

report = gp.check(model, x, y, loss=loss)
