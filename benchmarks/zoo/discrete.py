"""Models that decide inside: greedy decoding in a loop, routing to experts, detection, quantised codes."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks.zoo import Made, Make, serve

Values = dict[str, tf.Tensor]


def random(**shapes: tuple[int, ...]) -> dict[str, tf.Variable]:
    """Makes variables at random."""
    noise = tf.random.stateless_normal
    return {name: tf.Variable(noise(shape, [0, i]), name=name) for i, (name, shape) in enumerate(shapes.items())}


def greedy_decoder() -> Made:
    """Decodes a sentence: the best token of each step is the input of the next; TensorArray keeps the logits."""
    words, width, length = 11, 6, 7
    w = random(embed=(words, width), start=(5, width), cell=(2 * width, width), read=(width, words), unused=(3,))

    def decode(x: tf.Tensor) -> Values:
        def step(i: Any, token: Any, state: Any, logits: Any, score: Any) -> Any:
            state = tf.tanh(tf.concat([tf.gather(w["embed"], token), state], 1) @ w["cell"])
            row = state @ w["read"]
            best = tf.argmax(row, 1, output_type=tf.int32)
            return i + 1, best, state, logits.write(i, row), score + tf.reduce_max(tf.nn.log_softmax(row), 1)

        first = (tf.zeros([2], tf.int32), tf.tanh(x @ w["start"]), tf.TensorArray(tf.float32, length), tf.zeros([2]))
        _, token, state, logits, score = tf.while_loop(lambda i, *_: i < length, step, (0, *first))
        return {"logits": logits.stack(), "score": score, "last": tf.one_hot(token, words), "state": state}

    return serve(w, decode, tf.TensorSpec([2, 5], tf.float32, "x"))


def decoded_tokens() -> Made:
    """Decodes as above, but gives only the tokens: nothing but the loop's discrete state leads out."""
    words, width = 11, 6
    w = random(embed=(words, width), read=(width, words), value=(words,))

    def decode(x: tf.Tensor) -> Values:
        def step(i: Any, token: Any, kept: Any) -> Any:
            best = tf.argmax((tf.gather(w["embed"], token) + x) @ w["read"], 1, output_type=tf.int32)
            return i + 1, best, kept + tf.gather(w["value"], best)

        loop = (0, tf.zeros([2], tf.int32), tf.zeros([2]))
        _, token, kept = tf.while_loop(lambda i, *_: i < 4, step, loop)
        return {"token": tf.cast(token, tf.float32), "kept": kept}

    return serve(w, decode, tf.TensorSpec([2, width], tf.float32, "x"))


def nested_loops() -> Made:
    """Runs a loop in a loop, each with variables of its own, which a loaded model handles worse than a live one."""
    w = random(outer=(4, 4), inner=(4, 4), branch=(4,), other=(4,), stop=(1,))

    def run(x: tf.Tensor) -> Values:
        def inside(j: Any, y: Any) -> Any:
            return j + 1, tf.tanh(y @ w["inner"])

        def outside(i: Any, y: Any) -> Any:
            _, y = tf.while_loop(lambda j, _: j < i, inside, (0, y @ w["outer"]))
            return i + 1, y

        loop = tf.while_loop(lambda i, y: tf.reduce_sum(y) < w["stop"][0] + 10 * tf.cast(3 - i, tf.float32), outside,
                             (0, x), maximum_iterations=3)  # fmt: skip
        return {"y": loop[1], "z": tf.cond(tf.reduce_sum(x) > 0, lambda: x * w["branch"], lambda: x * w["other"])}

    return serve(w, run, tf.TensorSpec([2, 4], tf.float32, "x"))


def top_two_experts() -> Made:
    """Sends each token to two of four experts, by capacity slots, with a load-balancing loss as a second output."""
    experts, width, hidden = 4, 6, 8
    w = random(gate=(width, experts), noise=(width, experts), up=(experts, width, hidden),
                  down=(experts, hidden, width))  # fmt: skip

    def route(x: tf.Tensor) -> Values:
        logits = x @ w["gate"] + tf.random.normal([8, experts]) * tf.nn.softplus(x @ w["noise"])
        chances = tf.nn.softmax(logits)
        top, index = tf.math.top_k(chances, 2)
        top /= tf.reduce_sum(top, 1, keepdims=True)
        chosen = tf.one_hot(index, experts)
        slot = tf.cumsum(tf.reduce_sum(chosen, 1), exclusive=True)
        kept = chosen * tf.cast(slot < 6, tf.float32)[:, None]
        send = tf.einsum("tk,tke,tec->tec", top, kept, tf.one_hot(tf.cast(slot, tf.int32), 6))
        gathered = tf.einsum("tec,tw->ecw", tf.cast(send > 0, tf.float32), x)
        worked = tf.einsum("ech,ehw->ecw", tf.nn.gelu(tf.einsum("ecw,ewh->ech", gathered, w["up"])), w["down"])
        load = tf.reduce_mean(chosen[:, 0], 0) * tf.reduce_mean(chances, 0)
        return {"y": tf.einsum("tec,ecw->tw", send, worked), "balance": experts * tf.reduce_sum(load)}

    return serve(w, route, tf.TensorSpec([8, width], tf.float32, "x"))


def detector(batched: bool) -> Made:
    """Finds boxes: anchors, non-maximum suppression, then the features of the surviving boxes, cropped.

    The batched suppression has no gradient at all, the soft one has for the scores.
    """
    w = random(conv=(3, 3, 3, 8), boxes=(8, 4), scores=(8, 3), head=(8, 5), anchors=(64, 4))

    def detect(image: tf.Tensor) -> Values:
        features = tf.nn.relu(tf.nn.conv2d(image, w["conv"], 2, "SAME"))
        cells = tf.reshape(features, [64, 8])
        boxes = tf.sigmoid(cells @ w["boxes"] + w["anchors"])
        scores = tf.sigmoid(cells @ w["scores"])
        if batched:
            found = tf.image.combined_non_max_suppression(boxes[None, :, None], scores[None], 4, 4)
            return {"boxes": found.nmsed_boxes, "scores": found.nmsed_scores}
        best = tf.reduce_max(scores, 1)
        index, kept = tf.image.non_max_suppression_with_scores(boxes, best, 5, soft_nms_sigma=0.5)
        crops = tf.image.crop_and_resize(features, tf.gather(boxes, index), tf.zeros_like(index), [2, 2])
        classes = tf.nn.softmax(tf.reduce_mean(crops, [1, 2]) @ w["head"])
        return {"boxes": tf.gather(boxes, index), "scores": kept, "classes": classes}

    return serve(w, detect, tf.TensorSpec([1, 16, 16, 3], tf.float32, "image"))


def hard_detector() -> Made:
    """Finds boxes by the older suppression, whose only output is indices."""
    w = random(boxes=(8, 4), scores=(8, 1), table=(20, 3))

    def detect(x: tf.Tensor) -> Values:
        boxes, scores = tf.sigmoid(x @ w["boxes"]), tf.nn.relu(x @ w["scores"])[:, 0]
        index = tf.image.non_max_suppression(boxes, scores, 6)
        return {"embedded": tf.gather(w["table"], index), "count": tf.cast(tf.shape(index)[0], tf.float32)}

    return serve(w, detect, tf.TensorSpec([20, 8], tf.float32, "x"))


def codebook() -> Made:
    """Quantises to the nearest code, with straight-through by stop_gradient and both losses of a VQ-VAE."""
    w = random(encode=(6, 4), codes=(9, 4), decode=(4, 6))

    def quantise(x: tf.Tensor) -> Values:
        z = x @ w["encode"]
        nearest = tf.argmin(tf.reduce_sum((z[:, None] - w["codes"]) ** 2, -1), 1)
        code = tf.gather(w["codes"], nearest)
        y = (z + tf.stop_gradient(code - z)) @ w["decode"]
        commit = tf.reduce_mean((tf.stop_gradient(code) - z) ** 2)
        return {"y": y, "commit": commit, "codes": tf.reduce_mean((code - tf.stop_gradient(z)) ** 2)}

    return serve(w, quantise, tf.TensorSpec([5, 6], tf.float32, "x"))


SIMPLE = (greedy_decoder, decoded_tokens, nested_loops, top_two_experts, hard_detector, codebook)
MODELS: dict[str, Make] = {
    **{save.__name__: save for save in SIMPLE},
    "detector": partial(detector, batched=False),
    "detector_batched": partial(detector, batched=True),
}
