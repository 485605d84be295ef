"""What is needed through calls, branches, loops, effects and custom gradients; and no more than that is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from gradpass.program import opdefs, savedmodel
from gradpass.program.graph import CALLS
from gradpass.pruning.needs import READING, Needs
from gradpass.pruning.prune import prune
from tests.pruning.programs import X, answers, ops, pruned, removed, saved


def test_a_layer_whose_output_is_dropped(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        tf.nn.relu(x @ m.b)
        return {"y": x @ m.a}

    model, done = pruned(body, tmp_path)
    assert removed(done) == {"b", "c", "count"}
    gone = ops(model) - ops(done.model)
    assert gone == {"MatMul": 1, "ReadVariableOp": 1, "Relu": 1}


def test_nothing_dead_changes_nothing(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        m.count.assign_add(1.0)
        return {"y": x @ m.a @ m.b @ m.c}

    model, done = pruned(body, tmp_path)
    assert done.pb is None and done.model is model and done.removed == []


def test_a_result_of_a_call_that_nobody_reads(tmp_path: Path) -> None:
    @tf.function
    def inner(x: Any, a: Any, b: Any) -> Any:
        return x @ a, tf.tanh(x @ b)

    def body(m: Any, x: Any) -> Any:
        first, _ = inner(x, m.a, m.b)
        return {"y": first}

    model, done = pruned(body, tmp_path)
    assert removed(done) == {"b", "c", "count"}
    assert (ops(model) - ops(done.model))["Tanh"] == 1
    for name in done.model.program.functions:
        for node in done.model.program.function(name).nodes:
            if node.op in CALLS and len(node.inputs) < 10:
                assert len(node.attr("Tin").list.type) == len(node.inputs)
                assert list(node.attr("_read_only_resource_inputs").list.i) == [
                    i for i, value in enumerate(node.inputs) if value.dtype == 20
                ]


def test_two_calls_of_one_function_keep_what_either_reads(tmp_path: Path) -> None:
    @tf.function
    def inner(x: Any, a: Any, b: Any, c: Any) -> Any:
        return x @ a, x @ b, x @ c

    def body(m: Any, x: Any) -> Any:
        return {"y": inner(x, m.a, m.b, m.c)[0], "z": inner(x, m.a, m.b, m.c)[1]}

    _, done = pruned(body, tmp_path)
    assert removed(done) == {"c", "count"}


def test_branches_lose_what_neither_needs(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        y, _ = tf.cond(
            tf.reduce_sum(x) > 0, lambda: (x @ m.a, x @ m.b), lambda: (x - 1.0, tf.tanh(x @ m.c))
        )  # fmt: skip
        return {"y": y}

    _, done = pruned(body, tmp_path)
    assert removed(done) == {"b", "c", "count"}
    (branch,) = [n for f in done.model.program.functions for n in done.model.program.function(f).nodes if "If" in n.op]
    assert len(branch.attr("Tout").list.type) == 1


def test_a_loop_loses_a_variable_that_only_feeds_itself(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        def step(i: Any, y: Any, z: Any) -> Any:
            return i + 1, y @ m.a, tf.tanh(z @ m.b)

        _, y, _ = tf.while_loop(lambda i, y, z: i < 3, step, (0, x, x))
        return {"y": y}

    model, done = pruned(body, tmp_path)
    assert removed(done) == {"b", "c", "count"}
    loops = [
        [n for f in m.program.functions for n in m.program.function(f).nodes if "While" in n.op]
        for m in (model, done.model)
    ]
    # its own counter and limit stay, since the gradient of a loop takes them by place
    assert [len(loop.inputs) for (loop,) in loops] == [7, 5]


def test_a_pruned_loop_has_a_gradient(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        def step(i: Any, y: Any, z: Any) -> Any:
            return i + 1, tf.tanh(y @ m.a), tf.tanh(z @ m.b)

        _, y, _ = tf.while_loop(lambda i, y, z: i < 3, step, (0, x, x))
        return {"y": y}

    pruned(body, tmp_path)
    gradients = []
    for name in ("model", "pruned"):
        loaded = tf.saved_model.load(str(tmp_path / name))
        with tf.GradientTape() as tape:
            y = loaded.signatures["serving_default"](x=tf.constant(X))["y"]
        gradients.append(tape.gradient(y, loaded.a).numpy())
    assert gradients[0].any()
    assert gradients[0].tobytes() == gradients[1].tobytes()


def test_what_a_condition_reads_is_needed(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        _, y = tf.while_loop(lambda i, y: i < tf.reduce_sum(m.b), lambda i, y: (i + 0.5, y @ m.a), (0.0, x))
        return {"y": y}

    assert removed(pruned(body, tmp_path)[1]) == {"c", "count"}


EFFECTS: dict[str, Any] = {
    "assign": lambda m, y: m.count.assign(tf.reduce_sum(y)),
    "print": lambda m, y: tf.print(y, output_stream="file:///dev/null"),
    "assert": lambda m, y: tf.debugging.assert_less(y, 1e9),
    "random": lambda m, y: tf.random.poisson([2], tf.abs(y)),
    "py_function": lambda m, y: tf.py_function(lambda value: None, [y], []),
    "in a call": lambda m, y: tf.function(lambda: m.count.assign(tf.reduce_sum(y)))(),
    "in a branch": lambda m, y: tf.cond(
        tf.reduce_sum(y) > 0, lambda: m.count.assign(tf.reduce_sum(y)), lambda: m.count + 0.0
    ),
}


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_keeps_what_it_reads(effect: str, tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        EFFECTS[effect](m, x @ m.b)
        return {"y": x @ m.a}

    # What Python does in py_function is gone after saving, so that only the graph is looked at.
    done = prune(savedmodel.read(saved(body, tmp_path / "m")))
    assert "b" not in removed(done) and "c" in removed(done)


def test_order_is_kept_where_what_stood_between_is_gone(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        read = m.a + 0.0
        with tf.control_dependencies([tf.tanh(read @ m.b)]):
            m.a.assign(tf.zeros([3, 3]))
        return {"y": x @ read}

    _, done = pruned(body, tmp_path)
    assert removed(done) == {"b", "c", "count"}
    names = [name for name in done.model.program.functions if "traced_" not in name]
    nodes = [node for name in names for node in done.model.program.function(name).nodes]
    (zeros,) = [node for node in nodes if node.name == "zeros"]
    assert [each.op for each in zeros.controls] == ["AddV2"]  # as Tanh, for which it waited


def test_what_a_custom_gradient_captures_is_needed(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        @tf.custom_gradient
        def scaled(y: Any) -> Any:
            return y * 2.0, lambda dy: dy * tf.reduce_sum(m.b)

        return {"y": scaled(x @ m.a)}

    _, done = pruned(body, tmp_path, experimental_custom_gradients=True)
    assert removed(done) == {"c", "count"}
    # Without its gradients the file has nothing that reads b.
    (tmp_path / "without").mkdir()
    assert removed(pruned(body, tmp_path / "without", experimental_custom_gradients=False)[1]) == {"b", "c", "count"}


def test_a_function_that_is_mapped_over_data_is_left_whole(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        def each(row: Any) -> Any:
            tf.tanh(row)
            return row * 2.0

        data = tf.data.Dataset.from_tensor_slices(x).map(each)
        return {"y": data.reduce(tf.zeros([3]), lambda state, row: state + row) + tf.reduce_sum(m.a)}

    model, done = pruned(body, tmp_path)
    assert removed(done) == {"b", "c", "count"}
    assert ops(model)["Tanh"] == ops(done.model)["Tanh"] == 1


def test_functions_that_stand_for_each_other_are_left_whole(tmp_path: Path) -> None:
    """As the LSTM of tf_keras has one for each device, which TensorFlow's optimizer swaps."""
    attributes = {"api_implements": "pair"}

    @tf.function(experimental_attributes=attributes)
    def one(x: Any, a: Any, b: Any) -> Any:
        return x @ a, tf.tanh(x @ b)

    @tf.function(experimental_attributes=attributes)
    def other(x: Any, a: Any, b: Any) -> Any:
        return x @ a, tf.tanh(tf.identity(x) @ b)

    def body(m: Any, x: Any) -> Any:
        other(x, m.a, m.b)
        return {"y": one(x, m.a, m.b)[0]}

    model, done = pruned(body, tmp_path)
    assert removed(done) == {"c", "count"}
    assert ops(model)["Tanh"] == ops(done.model)["Tanh"] == 2


def test_a_function_that_converters_take_for_an_op_is_left_whole(tmp_path: Path) -> None:
    @tf.function(experimental_implements="their_op")
    def composite(x: Any, a: Any, b: Any) -> Any:
        return x @ a, tf.tanh(x @ b)

    def body(m: Any, x: Any) -> Any:
        return {"y": composite(x, m.a, m.b)[0]}

    assert removed(pruned(body, tmp_path)[1]) == {"c", "count"}


def test_a_second_pruning_finds_nothing(tmp_path: Path) -> None:
    def body(m: Any, x: Any) -> Any:
        tf.cond(tf.reduce_sum(x) > 0, lambda: x @ m.b, lambda: x @ m.c)
        return {"y": x @ m.a}

    pruned(body, tmp_path)
    again = prune(savedmodel.read(tmp_path / "pruned"))
    assert again.pb is None and again.removed == []
    assert answers(tmp_path / "pruned").keys() == {"y"}


def test_ops_that_only_read_are_stateful_by_definition() -> None:
    """The list says something of ops only that TensorFlow calls stateful."""
    legacy = {"Placeholder", "LookupTableFind", "LookupTableSize", "Variable", "GuaranteeConst"}
    for op in READING - legacy:
        signature = opdefs.get(op)
        assert signature is not None and signature.stateful, op


def test_tensorflow_knows_no_other_op_that_only_reads_a_variable() -> None:
    from tensorflow.python.framework import auto_control_deps_utils

    private = {op for op in auto_control_deps_utils.RESOURCE_READ_OPS if op.startswith("_")}
    assert auto_control_deps_utils.RESOURCE_READ_OPS - private <= READING


def test_needs_are_worked_out_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls share a function, each of its nodes is looked at once."""

    @tf.function
    def inner(x: Any, a: Any) -> Any:
        return tf.tanh(x @ a)

    def body(m: Any, x: Any) -> Any:
        for _ in range(20):
            x = inner(x, m.a)
        return {"y": x}

    model = savedmodel.read(saved(body, tmp_path / "m"))
    seen: list[Any] = []
    before = Needs._opaque

    def counted(self: Needs, node: Any) -> None:
        seen.append(node)
        before(self, node)

    monkeypatch.setattr(Needs, "_opaque", counted)
    needs = Needs(model.program)
    needs.need_call(str(model.entries["serving_default"].function.name), 1)
    assert len(seen) == len(set(seen)) and sum(node.op == "Tanh" for node in seen) == 1
