"""The article's second example: a loss that thresholds the predictions; repaired, it trains."""

import keras
import tensorflow as tf

import gradpass as gp

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])


def loss(labels, predictions):
    decisions = tf.cast(predictions > 0.5, tf.float32)
    return tf.reduce_mean(tf.abs(labels - decisions), axis=-1)


model.compile(keras.optimizers.Adam(0.01), loss)
x = tf.random.stateless_normal([64, 10], [1, 2])
y = tf.cast(x[:, :1] > 0.0, tf.float32)

with tf.GradientTape() as tape:
    value = tf.reduce_mean(loss(y, model(x, training=True)))
gradient = tape.gradient(value, [v.value for v in model.trainable_variables])[0]

report = gp.check(model, x, y)
fixed = gp.fix(model, x, y)
losses = fixed.fit(x, y, epochs=30, verbose=0).history["loss"]
