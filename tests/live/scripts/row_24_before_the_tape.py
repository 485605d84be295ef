"""The predictions are computed before the tape records."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
optimizer = keras.optimizers.SGD(0.1)
x, y = tf.ones([4, 3]), tf.zeros([4, 1])
gradient = None


def train_step(x, y):
    predictions = model(x, training=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((y - predictions) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


report = gp.check_step(train_step, x, y)
