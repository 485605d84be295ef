"""The article's third example: a loop of one's own that computes gradients and never applies them."""

import keras
import tensorflow as tf

import gradpass as gp

model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
optimizer = keras.optimizers.Adam()
loss_fn = keras.losses.MeanSquaredError()
x, y = tf.random.normal([32, 10]), tf.random.normal([32, 1])


def train_step(x, y):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = loss_fn(y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, gradients[0] is not None


gradient = train_step(x, y)[1]

report = gp.check_step(train_step, x, y)
