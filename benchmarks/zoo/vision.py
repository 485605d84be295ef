"""Detection and segmentation models of keras-hub, small and with random weights (extra `zoo`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks.zoo import Made, Make, serve

SIZE = 64


def resnet() -> Any:
    """Makes the smallest ResNet that keras-hub makes."""
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1], stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block",
        image_shape=(SIZE, SIZE, 3),
    )  # fmt: skip


def retinanet(decoded: bool) -> Made:
    """Makes RetinaNet, either its predictions or what non-maximum suppression leaves of them."""
    import keras_hub

    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=resnet(), min_level=3, max_level=5, use_p5=False, image_shape=(SIZE, SIZE, 3)
    )
    network = keras_hub.models.RetinaNetObjectDetector(backbone=backbone, num_classes=4)

    def call(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = network(images)
        if not decoded:
            return dict(outputs)
        found = network.decode_predictions(outputs, images)
        return {"boxes": found["boxes"], "confidence": found["confidence"]}

    return serve(network, call, tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, "images"))


def sam() -> Made:
    """Makes SAM with one point and one box as its prompt, and the mask it thinks best as a second output."""
    import keras_hub

    width = 8
    backbone = keras_hub.models.SAMBackbone(
        image_encoder=keras_hub.models.ViTDetBackbone(
            hidden_size=16, num_layers=2, intermediate_dim=32, num_heads=2, global_attention_layer_indices=[1],
            patch_size=16, num_output_channels=width, window_size=2, image_shape=(SIZE, SIZE, 3),
        ),
        prompt_encoder=keras_hub.layers.SAMPromptEncoder(
            hidden_size=width, image_embedding_size=(SIZE // 16, SIZE // 16), input_image_size=(SIZE, SIZE),
            mask_in_channels=16,
        ),
        mask_decoder=keras_hub.layers.SAMMaskDecoder(
            num_layers=1, hidden_size=width, intermediate_dim=16, num_heads=2, embedding_dim=width,
            num_multimask_outputs=3, iou_head_depth=2, iou_head_hidden_dim=width,
        ),
        dtype="float32",
    )  # fmt: skip
    network = keras_hub.models.SAMImageSegmenter(backbone=backbone)

    def call(images: tf.Tensor, points: tf.Tensor, labels: tf.Tensor, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        prompt = {"points": points, "labels": labels, "boxes": boxes, "masks": tf.zeros([1, 0, SIZE, SIZE, 1])}
        outputs = network({"images": images, **prompt})
        best = tf.argmax(outputs["iou_pred"], 1)
        return {**outputs, "best": tf.gather(outputs["masks"], best, axis=1, batch_dims=1)}

    shapes = {"images": (1, SIZE, SIZE, 3), "points": (1, 1, 2), "labels": (1, 1), "boxes": (1, 1, 2, 2)}
    return serve(network, call, *(tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()))


def segmented() -> Made:
    """Makes DeepLabV3+ with the class of each pixel as its only output, as a user would who wants a map."""
    import keras_hub

    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=resnet(), spatial_pyramid_pooling_key="P5", upsampling_size=8, dilation_rates=[1, 2],
        low_level_feature_key="P2", image_shape=(SIZE, SIZE, 3), projection_filters=4, spatial_pyramid_pooling_width=8,
        segmentation_head_filters=8,
    )  # fmt: skip
    network = keras_hub.models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=3, activation="softmax")

    def call(images: Any) -> dict[str, tf.Tensor]:
        return {"map": tf.cast(tf.argmax(network(images), -1), tf.float32)}

    return serve(network, call, tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, "images"))


MODELS: dict[str, Make] = {
    "DeepLabV3-argmax": segmented,
    "RetinaNet": partial(retinanet, False),
    "RetinaNet-NMS": partial(retinanet, True),
    "SAM": sam,
}
