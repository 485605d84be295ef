"""Lists of tensors: TensorArrays and TensorLists."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.flow.programs.base import S, choice, program, raw, value
from tests.flow.truth import SHAPE, Weights


@program("TensorListStack TensorListSetItem", "Round: v")
def list_of_two(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2).write(0, tf.round(m.v)).write(1, tf.tanh(m.w))
    return S(array.stack())


@program("TensorListGetItem")
def list_element_chosen_by_the_data(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2).write(0, tf.tanh(m.v)).write(1, tf.tanh(m.w))
    return S(array.read(choice(x) % 2))


@program("TensorListFromTensor TensorListGather", "ArgMax: v")
def list_gathered_by_an_index(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 4).unstack(m.w)
    return S(array.gather(tf.argmax(m.v[:, 0], output_type=tf.int32)[None]))


@program("TensorListPushBack TensorListPopBack", "Round: v")
def list_pushed_and_popped(m: Weights, x: Any) -> Any:
    empty = raw.EmptyTensorList(element_shape=[4, 3], max_num_elements=4, element_dtype=tf.float32)
    pushed = raw.TensorListPushBack(input_handle=empty, tensor=tf.round(m.v))
    pushed = raw.TensorListPushBack(input_handle=pushed, tensor=tf.tanh(m.w))
    rest, last = raw.TensorListPopBack(input_handle=pushed, element_shape=[4, 3], element_dtype=tf.float32)
    _, first = raw.TensorListPopBack(input_handle=rest, element_shape=[4, 3], element_dtype=tf.float32)
    return S(first * last)


@program("TensorListConcatV2", "Floor: v")
def list_concatenated(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2, infer_shape=False).write(0, tf.floor(m.v)).write(1, m.w[:2])
    return S(array.concat() ** 2)


@program("TensorListSplit")
def list_split(m: Weights, x: Any) -> Any:
    array = tf.TensorArray(tf.float32, 2, infer_shape=False).split(tf.tanh(m.v), [1, 3])
    return S(array.read(0)) + S(m.w)


@program("TensorListScatterIntoExistingList")
def list_scattered(m: Weights, x: Any) -> Any:
    handle = raw.TensorListReserve(element_shape=[3], num_elements=4, element_dtype=tf.float32)
    handle = raw.TensorListScatterIntoExistingList(input_handle=handle, tensor=tf.tanh(m.v), indices=[0, 1, 2, 3])
    return S(raw.TensorListStack(input_handle=handle, element_shape=[3], element_dtype=tf.float32)) + S(m.w)


@program("TensorListSetItem While", "Round: v")
def list_through_a_loop(m: Weights, x: Any) -> Any:
    written = tf.while_loop(
        lambda i, array: i < 3,
        lambda i, array: (i + 1, array.write(i, tf.round(m.v) * m.w)),
        (tf.constant(0), tf.TensorArray(tf.float32, 3)),
    )[1]
    return S(written.stack())


@program("TensorListSetItem PartitionedCall", "Round: v")
def list_through_a_call(m: Weights, x: Any) -> Any:
    spec = tf.TensorSpec([], tf.variant)
    handle = raw.TensorListReserve(element_shape=[4, 3], num_elements=2, element_dtype=tf.float32)
    write = tf.function(
        lambda h, a, b: raw.TensorListSetItem(
            input_handle=raw.TensorListSetItem(input_handle=h, index=0, item=tf.round(a)), index=1, item=tf.tanh(b)
        ),
        autograph=False, input_signature=[spec, tf.TensorSpec(SHAPE), tf.TensorSpec(SHAPE)],
    )  # fmt: skip
    handle = write(handle, value(m.v), value(m.w))
    return S(raw.TensorListStack(input_handle=handle, element_shape=[4, 3], element_dtype=tf.float32))
