"""All variables are asked, moving statistics too: no fault."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
x = tf.ones([4, 3])

with tf.GradientTape() as tape:
    value = tf.reduce_sum(model(x, training=True))
gradient = tape.gradient(value, [v.value for v in model.variables])[2]

report = gp.check(model, x, variables=model.variables)
