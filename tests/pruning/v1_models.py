"""SavedModels as TensorFlow 1 wrote them, in which something is dead; variables are known by name there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.pruning.models import Split, shown, split

v1 = tf.compat.v1
Outputs = dict[str, Any]


def _get(name: str, *shape: int, **options: Any) -> Any:
    values = np.random.default_rng(list(shape)).uniform(0.1, 1, size=shape).astype(np.float32)
    return v1.get_variable(name, shape, initializer=v1.constant_initializer(values), **options)


def _saved(
    path: Path,
    outputs: Callable[[Any], Outputs],
    *,
    resource: bool = True,
    prepare: Callable[[], Any] = lambda: None,
    with_tables: bool = False,
) -> None:
    """Writes a graph whose outputs are made of x [?, 4]. `prepare` may change the collections before it is written."""
    with v1.Graph().as_default(), v1.variable_scope("", use_resource=resource):
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        given = outputs(x)
        prepare()
        with v1.Session() as session:
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            builder = v1.saved_model.Builder(str(path))
            options: dict[str, Any] = {}
            if with_tables:
                assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
                options = {"assets_collection": assets, "main_op": v1.tables_initializer()}
            signature = v1.saved_model.predict_signature_def({"x": x}, given)
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, **options)
            builder.save()


def _dense(x: Any, name: str, size: int) -> Any:
    with v1.variable_scope(name):
        return tf.nn.relu(x @ _get("kernel", int(x.shape[-1]), size) + _get("bias", size))


def _tower(x: Any) -> Outputs:
    h = _dense(x, "hidden", 3)
    _dense(h, "unused", 5)
    return {"y": _dense(h, "out", 2)}


TOWER = split("unused/kernel unused/bias", "hidden/kernel hidden/bias out/kernel out/bias")


@shown
def v1_simple_save(path: Path) -> Split:
    """Variables of the first kind (VariableV2), and what was the usual way to save."""
    with v1.Graph().as_default(), v1.variable_scope("", use_resource=False), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        outputs = _tower(x)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, outputs)
    return TOWER


@shown
def v1_resources(path: Path) -> Split:
    _saved(path, _tower)
    return TOWER


def _trained(x: Any) -> Outputs:
    h = _dense(x, "hidden", 3)
    _dense(h, "unused", 5)
    y = _dense(h, "out", 2)
    loss = tf.reduce_mean(_dense(h, "extra", 1)) + tf.reduce_mean(y)
    v1.train.AdamOptimizer().minimize(loss)
    return {"y": y}


SLOTS = "{0}/Adam {0}/Adam_1"
WEIGHTS = "hidden/kernel hidden/bias out/kernel out/bias"
EXTRA = "extra/kernel extra/bias"


def _slots(names: str) -> str:
    return " ".join(SLOTS.format(name) for name in names.split())


@shown
def v1_training(path: Path) -> Split:
    """The training step stands in a collection: what it alone needs stays."""
    _saved(path, _trained)
    trained = f"{WEIGHTS} {EXTRA}"
    return split("unused/kernel unused/bias", f"{trained} {_slots(trained)} beta1_power beta2_power")


@shown
def v1_training_not_kept(path: Path) -> Split:
    """The same with variables of the first kind and without the collection: the slots go with the step."""
    _saved(path, _trained, resource=False, prepare=lambda: v1.get_collection_ref(v1.GraphKeys.TRAIN_OP).clear())
    slots = _slots(f"{WEIGHTS} {EXTRA}")
    return split(f"unused/kernel unused/bias {EXTRA} {slots} beta1_power beta2_power", WEIGHTS)


@shown
def v1_partitioned(path: Path) -> Split:
    """Variables in two parts each, which share a key of the checkpoint."""

    def outputs(x: Any) -> Outputs:
        parts = {"partitioner": v1.fixed_size_partitioner(2)}
        alive = v1.get_variable("alive", [4, 2], initializer=v1.random_uniform_initializer(seed=1), **parts)
        dead = v1.get_variable("dead", [4, 3], initializer=v1.random_uniform_initializer(seed=2), **parts)
        x @ tf.convert_to_tensor(dead)
        return {"y": x @ tf.convert_to_tensor(alive)}

    _saved(path, outputs)
    return split("dead/part_0 dead/part_1", "alive/part_0 alive/part_1", keys="dead")


def _loop(path: Path, prepare: Callable[[], Any]) -> None:
    def outputs(x: Any) -> Outputs:
        alive, dead = _get("alive", 4, 4), _get("dead", 4, 4)

        def body(i: Any, h: Any, unused: Any) -> Any:
            return i + 1, tf.tanh(h @ alive), unused + h @ dead

        return {"y": v1.while_loop(lambda i, *_: i < 3, body, [tf.constant(0), x, x])[1]}

    v1.disable_control_flow_v2()
    try:
        _saved(path, outputs, prepare=prepare)
    finally:
        v1.enable_control_flow_v2()


@shown
def v1_loop(path: Path) -> Split:
    """A loop of Enter, Exit and NextIteration; a collection tells its parts, which importing the graph looks up."""
    _loop(path, lambda: None)
    return split("", "alive dead")


@shown
def v1_loop_not_told(path: Path) -> Split:
    """The same without the collection: what the loop makes and nobody reads goes."""
    _loop(path, lambda: v1.get_collection_ref(v1.GraphKeys.WHILE_CONTEXT).clear())
    return split("dead", "alive")


def _vocabulary(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / "numbers.txt"
    file.write_text("0\n1\n2")
    asset = tf.constant(str(file), name="numbers")
    v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
    whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    return tf.lookup.TextFileInitializer(asset, tf.string, whole, tf.int64, number)


@shown
def v1_table(path: Path) -> Split:
    """A table that the main op fills from an asset."""

    def outputs(x: Any) -> Outputs:
        table = tf.lookup.StaticHashTable(_vocabulary(path), -1)
        alive, dead = _get("alive", 4, 2), _get("dead", 4, 3)
        x @ dead
        words = tf.strings.as_string(tf.cast(tf.abs(x[:, 0]) * 2, tf.int32))
        return {"y": tf.gather(alive, table.lookup(words) + 1)}

    _saved(path, outputs, with_tables=True)
    return split("dead", "alive")
