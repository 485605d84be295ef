"""`model.predict` in place of `model(x)`."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
x = tf.ones([4, 3])


def loss(x):
    return tf.reduce_sum(model.predict(x, verbose=0))


with tf.GradientTape() as tape:
    value = loss(x)
gradient = tape.gradient(tf.convert_to_tensor(value), [v.value for v in model.trainable_variables])[0]

report = gp.check(loss, x, variables=model.trainable_variables)
