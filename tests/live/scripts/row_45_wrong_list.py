"""Gradients zipped with the variables of another model."""

import keras
import tensorflow as tf

import gradpass as gp

student = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
teacher = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
optimizer = keras.optimizers.SGD(0.1)
x = tf.ones([4, 3])


def train_step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((student(x) - tf.stop_gradient(teacher(x))) ** 2)
    gradients = tape.gradient(loss, student.trainable_variables)
    optimizer.apply_gradients(zip(gradients, teacher.trainable_variables, strict=True))
    return gradients[0]


gradient = train_step(x)

report = gp.check_step(train_step, x)
