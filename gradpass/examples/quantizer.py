"""A model whose gradients go missing in two places: a codebook looked up by argmax, a gate that is open or shut."""

import tensorflow as tf


class Quantizer(tf.Module):
    def __init__(self):
        super().__init__()
        self.scores = tf.Variable(tf.random.stateless_normal([4, 8], [7, 0]), name="scores")
        self.codebook = tf.Variable(tf.random.stateless_normal([8, 3], [7, 1]), name="codebook")
        self.gate = tf.Variable(tf.random.stateless_normal([4, 3], [7, 2]), name="gate")

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def serve(self, x):
        code = tf.argmax(x @ self.scores, axis=1)
        is_open = tf.cast(x @ self.gate > 0.0, tf.float32)
        return {"y": tf.gather(self.codebook, code) * is_open}


def save(path):
    model = Quantizer()
    options = tf.saved_model.SaveOptions(save_debug_info=True)
    tf.saved_model.save(model, path, signatures=model.serve, options=options)
