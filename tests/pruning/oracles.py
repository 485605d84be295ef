"""What a pruned SavedModel must be to everybody who reads one, asked of TensorFlow and Keras and not of gradpass."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx

from gradpass.program.savedmodel import meta_of, read

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
UNKNOWN = 3  # the size of an axis that the signature leaves open
CRC = 4  # bytes of the checksum of the lengths of strings

Inputs = dict[str, np.ndarray]
Answers = dict[str, dict[str, np.ndarray]]


def fed(name: str, dtype: tf.DType, shape: Any) -> np.ndarray:
    """A value for an input: random, the same for the same name; words are some that tables know, and some not."""
    sizes = [UNKNOWN if size is None else size for size in tf.TensorShape(shape).as_list()]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if dtype == tf.string:
        return rng.choice(np.array([b"red", b"green", b"black"], dtype=object), size=sizes)
    if dtype.is_integer:
        return rng.integers(0, 3, size=sizes).astype(dtype.as_numpy_dtype)
    return rng.normal(size=sizes).astype(dtype.as_numpy_dtype)


def _inputs(signature: Any) -> Inputs:
    return {name: fed(name, spec.dtype, spec.shape) for name, spec in signature.structured_input_signature[1].items()}


def _run(signature: Any) -> dict[str, np.ndarray]:
    given = {name: tf.constant(value) for name, value in _inputs(signature).items()}
    return {name: value.numpy() for name, value in sorted(signature(**given).items())}


def loaded(path: Path) -> Answers:
    """Every signature twice, as tf.saved_model.load gives it: the second call sees what the first one changed."""
    model = tf.saved_model.load(str(path))
    return {f"{name} {i}": _run(model.signatures[name]) for name in sorted(model.signatures) for i in range(2)}


def layered(path: Path) -> Answers:
    """Every signature, as a layer of Keras; it takes one input, so that signatures of several are not asked."""
    found: Answers = {}
    for name, signature in meta_of(read(path)).signature_def.items():
        given = _feed(signature)
        if len(given) == 1 and not name.startswith("__"):
            (value,) = given.values()
            result = keras.layers.TFSMLayer(str(path), call_endpoint=name)(tf.constant(value))
            outputs = result if isinstance(result, dict) else dict.fromkeys(signature.outputs, result)
            found[f"{name} 0"] = {output: value.numpy() for output, value in sorted(outputs.items())}
    return found


def _feed(signature: Any) -> Inputs:
    """What a SignatureDef is fed with, by name."""
    return {
        key: fed(
            key,
            tf.as_dtype(info.dtype),
            tf.TensorShape([None if d.size < 0 else d.size for d in info.tensor_shape.dim]),
        )
        for key, info in signature.inputs.items()
    }


def session(path: Path) -> Answers:
    """Every signature twice, as a session of TensorFlow 1 runs it, each in a graph of its own."""
    v1 = tf.compat.v1
    found: Answers = {}
    with v1.Session(graph=tf.Graph()) as running:
        meta = v1.saved_model.load(running, ["serve"], str(path))
        for name, signature in sorted(meta.signature_def.items()):
            if name.startswith("__"):
                continue
            feed = {signature.inputs[key].name: value for key, value in _feed(signature).items()}
            wanted = {key: info.name for key, info in sorted(signature.outputs.items())}
            for i in range(2):
                found[f"{name} {i}"] = {key: np.asarray(value) for key, value in running.run(wanted, feed).items()}
    return found


def saved_again(path: Path, out: Path) -> Answers:
    """Every signature of what TensorFlow loads, saves and loads again."""
    model = tf.saved_model.load(str(path))
    tf.saved_model.save(model, str(out), signatures=dict(model.signatures))
    return loaded(out)


def converted(path: Path) -> Answers:
    """Every signature, as its ONNX export runs in onnxruntime."""
    loaded_model = tf.saved_model.load(str(path))  # which is held: a signature alone does not keep its variables
    signatures = loaded_model.signatures
    found: Answers = {}
    for name in sorted(signatures):
        given = _inputs(signatures[name])
        specs = [tf.TensorSpec(value.shape, value.dtype, name=key) for key, value in given.items()]

        @tf.function(input_signature=specs, autograph=False)
        def run(*inputs: Any, name: str = name, keys: tuple[str, ...] = tuple(given)) -> Any:
            return signatures[name](**dict(zip(keys, inputs, strict=True)))

        model, _ = tf2onnx.convert.from_function(run, specs, opset=17)
        running = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs = sorted(output.name for output in running.get_outputs())
        found[name] = dict(zip(outputs, running.run(outputs, given), strict=True))
    return found


def assert_same_answers(one: Answers, other: Answers) -> None:
    """Equal bits, by entry and output; -0.0 is not 0.0."""
    assert _bits(one) == _bits(other)


def assert_same_values(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    """Equal bits, one by one."""
    assert [(v.dtype, v.shape, _raw(v)) for v in one] == [(v.dtype, v.shape, _raw(v)) for v in other]


def _bits(answers: Answers) -> dict[str, Any]:
    return {
        entry: {name: (value.dtype, value.shape, _raw(value)) for name, value in outputs.items()}
        for entry, outputs in answers.items()
    }


def _raw(value: np.ndarray) -> Any:
    return value.tolist() if value.dtype == object else value.tobytes()


def values(path: Path) -> dict[str, np.ndarray]:
    """The checkpoint of a SavedModel by key, its own object graph left out."""
    reader = tf.train.load_checkpoint(str(_prefix(path)))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if key != OBJECTS}


def assert_variables_stay(original: Path, pruned: Path, lost: set[str]) -> None:
    """The checkpoint has all keys but the lost ones, with the same bits."""
    before, after = values(original), values(pruned)
    assert after.keys() == before.keys() - lost
    assert lost <= before.keys()
    assert_same_answers({"": {key: before[key] for key in after}}, {"": after})


def attributes(path: Path, paths: list[str]) -> list[np.ndarray]:
    """The values of variables as attributes of what tf.saved_model.load gives, by paths like `blocks/0/kernel`."""
    model = tf.saved_model.load(str(path))
    found = []
    for way in paths:
        held: Any = model
        for part in way.split("/"):
            held = _child(held, part)
        found.append(held.numpy())
    return found


def _child(held: Any, name: str) -> Any:
    if isinstance(held, Mapping):
        return held[name]
    return held[int(name)] if name.isdigit() else getattr(held, name)


def assert_smaller(original: Path, pruned: Path, lost: set[str]) -> None:
    """The data of the checkpoint are smaller by just the lost tensors and what its object graph lost.

    The folder is smaller by the lost tensors at least.
    """
    sizes = {path: _sizes(path) for path in (original, pruned)}
    for path, by_key in sizes.items():
        assert sum(by_key.values()) == sum(file.stat().st_size for file in path.glob("variables/*.data-*")), path
    freed = sum(sizes[original][key] for key in lost)
    of_objects = sizes[original].get(OBJECTS, 0) - sizes[pruned].get(OBJECTS, 0)
    assert of_objects >= 0
    assert sum(sizes[original].values()) - sum(sizes[pruned].values()) == freed + of_objects
    assert folder_bytes(pruned) <= folder_bytes(original) - freed


def folder_bytes(path: Path) -> int:
    """The bytes of all files of a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _sizes(path: Path) -> dict[str, int]:
    """The bytes of each value in the data file, as TensorFlow's tensor_bundle.cc lays them out.

    Numbers are as in memory; strings have their lengths as varints, a checksum of these, and then all their bytes.
    """
    reader = tf.train.load_checkpoint(str(_prefix(path)))
    found = {}
    for key, dtype in reader.get_variable_to_dtype_map().items():
        value = reader.get_tensor(key)
        if dtype == tf.string:
            texts = np.asarray(value, dtype=object).ravel().tolist()
            found[key] = CRC + sum(len(text) + max(1, (len(text).bit_length() + 6) // 7) for text in texts)
        else:
            found[key] = int(np.prod(reader.get_variable_to_shape_map()[key], dtype=np.int64)) * dtype.size
    return found


def _prefix(path: Path) -> Path:
    return path / "variables" / "variables"
