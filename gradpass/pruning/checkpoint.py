"""A checkpoint read and written with TensorFlow, without ever holding all of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.trackable_object_graph_pb2 import TrackableObjectGraph

from gradpass.errors import GradpassError

OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
AT_ONCE = 128 << 20  # bytes of tensors that are held before they are written


class Checkpoint:
    """A checkpoint on disk by its prefix. GradpassError where it is damaged or lacks a part."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        try:
            self._reader = tf.train.load_checkpoint(str(prefix))
        except (tf.errors.OpError, ValueError, RuntimeError) as problem:
            raise GradpassError(f"{prefix.parent}: the checkpoint cannot be read ({_said(problem)})") from problem
        self.dtypes: dict[str, tf.DType] = self._reader.get_variable_to_dtype_map()
        self.shapes: dict[str, list[int]] = self._reader.get_variable_to_shape_map()

    @property
    def objects(self) -> TrackableObjectGraph | None:
        """Its own object graph; None where it has none, as those of TensorFlow 1 have."""
        if OBJECTS not in self.dtypes:
            return None
        return TrackableObjectGraph.FromString(self.tensor(OBJECTS).numpy())

    def tensor(self, key: str) -> tf.Tensor:
        """The value of a key, in its own dtype."""
        try:
            return tf.raw_ops.RestoreV2(
                prefix=str(self.prefix), tensor_names=[key], shape_and_slices=[""], dtypes=[self.dtypes[key]]
            )[0]
        except tf.errors.OpError as problem:
            raise GradpassError(f"{self.prefix.parent}: {key!r} cannot be read ({_said(problem)})") from problem

    def bytes(self, key: str) -> int:
        """How many bytes a value takes; of strings, what is known before they are read: none."""
        dtype = self.dtypes[key]
        return 0 if dtype == tf.string else int(np.prod(self.shapes[key], dtype=np.int64)) * dtype.size

    def same(self, one: str, other: str, theirs: Checkpoint | None = None) -> bool:
        """Whether two keys, the other perhaps of another checkpoint, hold the same bits."""
        theirs = theirs or self
        if self.dtypes[one] != theirs.dtypes[other] or self.shapes[one] != theirs.shapes[other]:
            return False
        first, second = self.tensor(one).numpy(), theirs.tensor(other).numpy()
        if first.dtype == object:
            return bool(np.array_equal(first, second))
        return bool(first.tobytes() == second.tobytes())

    def write(self, prefix: Path, keys: Iterable[str], objects: TrackableObjectGraph | None) -> None:
        """Writes these keys, and the object graph in the place of the old one, as a checkpoint of its own."""
        parts: list[str] = []
        names: list[str] = []
        tensors: list[tf.Tensor] = []
        held = 0
        parted = prefix.parent / f"{prefix.name}_parts"
        parted.mkdir(parents=True)

        def put() -> None:
            nonlocal held
            part = str(parted / f"part-{len(parts):05d}")
            tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
            parts.append(part)
            names.clear()
            tensors.clear()
            held = 0

        for key in sorted(keys):
            names.append(key)
            is_graph = key == OBJECTS and objects is not None
            tensors.append(
                tf.constant(objects.SerializeToString(deterministic=True))
                if is_graph and objects is not None
                else self.tensor(key)
            )
            held += self.bytes(key)
            if held >= AT_ONCE:
                put()
        if names:
            put()
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix), delete_old_dirs=False)
        shutil.rmtree(parted)


def _said(problem: Exception) -> str:
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
