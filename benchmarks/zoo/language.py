"""Language models of keras-hub, small and with random weights (extra `zoo`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks.zoo import Made, Make, serve

WORDS, LENGTH = 23, 6
TOKENS = tf.TensorSpec([2, LENGTH], tf.int32, "token_ids")
MASK = tf.TensorSpec([2, LENGTH], tf.int32, "padding_mask")
SEGMENTS = tf.TensorSpec([2, LENGTH], tf.int32, "segment_ids")
SMALL: dict[str, Any] = {
    "vocabulary_size": WORDS, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12,
}  # fmt: skip
LIMITED = {**SMALL, "max_sequence_length": LENGTH}
GROUPED = {**SMALL, "num_query_heads": 2, "num_key_value_heads": 1}
del GROUPED["num_heads"]


def bert() -> Made:
    """Makes BERT with all its outputs."""
    import keras_hub

    network = keras_hub.models.BertBackbone(**LIMITED)

    def call(tokens: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(network({"token_ids": tokens, "padding_mask": mask, "segment_ids": segments}))

    return serve(network, call, TOKENS, MASK, SEGMENTS)


def bert_sequence() -> Made:
    """Makes BERT without its pooled output, whose layer is then dead."""
    import keras_hub

    network = keras_hub.models.BertBackbone(**LIMITED)

    def call(tokens: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = network({"token_ids": tokens, "padding_mask": mask, "segment_ids": segments}, training=True)
        return {"sequence": outputs["sequence_output"]}

    return serve(network, call, TOKENS, MASK, SEGMENTS)


def causal(name: str, config: dict[str, Any]) -> Made:
    """Makes the logits of a model that predicts the next token."""
    import keras_hub

    backbone = getattr(keras_hub.models, f"{name}Backbone")(**config)
    network = getattr(keras_hub.models, f"{name}CausalLM")(backbone=backbone)

    def call(tokens: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": network({"token_ids": tokens, "padding_mask": mask})}

    return serve(network, call, TOKENS, MASK)


def generate(sampler: str) -> Made:
    """Makes GPT-2's generate step: a loop that caches keys and values and feeds each token back, then their score."""
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(**LIMITED)
    network = keras_hub.models.GPT2CausalLM(backbone=backbone)
    network.compile(sampler=sampler)

    def call(tokens: tf.Tensor, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        prompt = tf.concat([tf.ones_like(mask[:, :1]), mask[:, 1:]], 1)  # without a first token there is no next one
        made = network.generate_step({"token_ids": tokens, "padding_mask": prompt})["token_ids"]
        return {"tokens": tf.cast(made, tf.float32), "embedded": backbone.token_embedding(made)}

    noise = getattr(network.sampler, "seed_generator", None)  # Keras does not track it
    return serve({"network": network, "noise": noise and noise.state}, call, TOKENS, MASK)


def t5() -> Made:
    """Makes T5, encoder and decoder."""
    import keras_hub

    network = keras_hub.models.T5Backbone(**SMALL)

    def call(tokens: tf.Tensor, mask: tf.Tensor, answer: tf.Tensor) -> dict[str, tf.Tensor]:
        given = {"encoder_token_ids": tokens, "encoder_padding_mask": mask}
        return dict(network({**given, "decoder_token_ids": answer, "decoder_padding_mask": mask}))

    return serve(network, call, TOKENS, MASK, tf.TensorSpec([2, LENGTH], tf.int32, "decoder_token_ids"))


MODELS: dict[str, Make] = {
    "BERT": bert,
    "BERT-sequence-training": bert_sequence,
    "GPT2": partial(causal, "GPT2", LIMITED),
    "GPT2-generate-greedy": partial(generate, "greedy"),
    "GPT2-generate-top_k": partial(generate, "top_k"),
    "GPT2-generate-beam": partial(generate, "beam"),
    "Llama": partial(causal, "Llama", GROUPED),
    "Mixtral": partial(causal, "Mixtral", {**GROUPED, "num_experts": 4}),
    "T5": t5,
}
