"""Programs as TensorFlow 1 writes them: loops of Switch, Merge and Enter, variables by resource or by reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks.unroll import registered
from tests.flow.truth import SHAPE, Body, Weights, X, judged

v1 = tf.compat.v1


@dataclass(frozen=True)
class Old:
    """What was written: a SavedModel with a signature for each program, and a frozen graph of each.

    `gradients` is what `tf.gradients` says of each program, by target: an op without a registered gradient is a cut.
    """

    saved: Path
    frozen: dict[str, Path]
    gradients: dict[str, dict[str, str]]


@contextmanager
def control_flow_v1() -> Iterator[None]:
    """As in a process of TensorFlow 1: of the process, since TensorFlow asks when it differentiates, too."""
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()


def save(folder: Path, bodies: Mapping[str, Body], by_reference: bool) -> Old:
    """Writes programs without the control flow of TensorFlow 2."""
    old = Old(folder / "saved", {}, {})
    with control_flow_v1():
        outputs, meta, constants = build(old.saved, bodies, by_reference)
        for name, values in outputs.items():
            kept = v1.graph_util.extract_sub_graph(constants, [value.partition(":")[0] for value in values])
            old.frozen[name] = folder / f"{name}.pb"
            old.frozen[name].write_bytes(kept.SerializeToString())
        old.gradients.update(differentiated(meta, outputs))
    return old


def train(path: Path, body: Body, by_reference: bool) -> Path:
    """Writes the training graph of a program as a `.meta`, with its gradients and an optimizer."""
    with control_flow_v1(), tf.Graph().as_default():
        weights = old_weights(by_reference)
        loss = body(weights, v1.placeholder(tf.float32, SHAPE, name=X))
        v1.train.AdamOptimizer().minimize(tf.identity(loss, name="loss"), var_list=v1.trainable_variables()[:3])
        v1.train.export_meta_graph(str(path))
    return path


def old_weights(by_reference: bool) -> Weights:
    return Weights(lambda *args, **kwargs: v1.Variable(*args, use_resource=not by_reference, **kwargs))


def build(path: Path, bodies: Mapping[str, Body], by_reference: bool) -> tuple[dict[str, list[str]], Any, Any]:
    """Gives the outputs of each program by name, the MetaGraph of all and their frozen graph."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        weights = old_weights(by_reference)
        x = v1.placeholder(tf.float32, SHAPE, name=X)
        outputs: dict[str, list[Any]] = {}
        signatures = {}
        for name, body in bodies.items():
            with tf.name_scope(name):
                result = body(weights, x)
                named = result if isinstance(result, dict) else {"y": result}
                outputs[name] = [tf.identity(value, name=key) for key, value in named.items()]
            signatures[name] = v1.saved_model.predict_signature_def(
                {X: x}, dict(zip(named, outputs[name], strict=True))
            )
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
        floats = {name: [y.name for y in values if y.dtype.is_floating] for name, values in outputs.items()}
        ends = [y.op.name for values in outputs.values() for y in values]
        constants = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ends)
        return floats, v1.train.export_meta_graph(), constants


def differentiated(meta: Any, outputs: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """What `tf.gradients` says of the outputs of each program."""
    answers = {}
    with tf.Graph().as_default() as graph:
        v1.train.import_meta_graph(meta)
        cut = [y for op in graph.get_operations() if op.inputs and not registered(op) for y in op.outputs]
        targets = [v for v in v1.trainable_variables() if v.dtype.base_dtype.is_floating]
        names = [*(target.op.name for target in targets), X]
        asked = [*targets, graph.get_tensor_by_name(f"{X}:0")]
        for program, values in outputs.items():
            ends = [graph.get_tensor_by_name(name) for name in values]
            seeds = [v1.placeholder(y.dtype, y.shape) for y in ends]
            found = tf.gradients(ends, asked, seeds, stop_gradients=cut)
            answers[program] = {name: judged(gradient, seeds) for name, gradient in zip(names, found, strict=True)}
    return answers
