"""What TensorFlow itself says about the gradients of a SavedModel's signature, for comparison with gradpass.

    python -m benchmarks.oracle SAVEDMODEL MODEL [ENTRY]

prints, as JSON, two answers for each trainable variable that a signature captures. It is a process of its own, since
`state` is the answer to a user in a fresh process.

`state`: an eager GradientTape over the loaded signature with random cotangents, on random inputs of MODEL.

`structure`: `tf.gradients` on the inlined graph. The inlining is that of Grappler's function optimizer, called as
`convert_variables_to_constants_v2` does: it is TensorFlow's own, keeps variables as they are, and shares no code with
gradpass. Captured handles become real variables of the new graph, so that gradient functions which ask a handle for its
shape get an answer. Functions with a custom gradient stay calls, with the gradient that TensorFlow gives them when they
are called in a graph: a loaded custom gradient captures tensors of its own function and has no meaning outside.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
from tensorflow.python.framework.ops import get_gradient_function
from tensorflow.python.grappler import tf_optimizer

from benchmarks.models import Arrays, model
from gradpass.crosscheck.load import load_plain

Targets = dict[str, tf.Variable]

DRAWS = 5  # a gradient that is zero by data for so many random inputs is taken as zero
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
CUSTOM = "_gradient_op_type"
# A cotangent that enters here gives its shape only.
SHAPE_ONLY = {"BroadcastGradientArgs", "OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"}


def variables(loaded: Any) -> Targets:
    """Gives the trainable variables that the signatures capture, by name."""
    found = [variable for function in loaded.signatures.values() for variable in function.variables]
    named = {variable.name.removesuffix(":0"): variable for variable in found if variable.trainable}
    if len(named) != len({id(variable) for variable in found if variable.trainable}):
        raise SystemExit("two captured variables have one name: this oracle cannot tell them apart")
    return named


def state(function: Any, targets: Targets, draws: list[Arrays], rng: np.random.Generator) -> dict[str, str]:
    """Differentiates the loaded signature under an eager tape."""
    captured = {id(variable) for variable in function.variables}
    answer = dict.fromkeys(targets, "none")
    for inputs in draws:
        try:
            with tf.GradientTape() as tape:
                tape.watch(list(targets.values()))
                outputs = [value for value in function(**constants(inputs)).values() if value.dtype.is_floating]
            cotangents = [tf.constant(rng.standard_normal(value.shape), value.dtype) for value in outputs]
            gradients = tape.gradient(outputs, list(targets.values()), cotangents)
        except (LookupError, NotImplementedError, TypeError, ValueError):  # each of them counts as "raises"
            return {name: "raises" if id(target) in captured else "none" for name, target in targets.items()}
        for name, gradient in zip(targets, gradients, strict=True):
            if gradient is not None and answer[name] != "flows":
                answer[name] = "flows" if np.any(dense(gradient).numpy()) else "zero"
    return answer


def structure(function: Any, targets: Targets) -> dict[str, str]:
    """Differentiates the inlined graph and follows each gradient back to the cotangents."""
    if len(function.outputs) != len(function.structured_outputs):
        # Under a tape TensorFlow gives the loaded graph an output for each value that its backward pass needs.
        raise SystemExit("the function has been differentiated: load the model anew to see its own graph")
    graph_def = inlined(function)
    handles = {id(variable.handle): name for name, variable in targets.items()}
    shapes = {id(variable.handle): variable for variable in function.variables}
    with tf.Graph().as_default() as graph:
        here: Targets = {}
        placed: dict[str, tf.Tensor] = {}
        for outer, inner in captured(function):
            if id(outer) in shapes:
                like = shapes[id(outer)]
                mine = tf.compat.v1.get_variable(f"target_{len(placed)}", like.shape, like.dtype, use_resource=True)
                placed[inner.name] = mine.handle
                if id(outer) in handles:
                    here[handles[id(outer)]] = mine
        fetched = [value.name for value in function.outputs if value.dtype.is_floating]
        outputs = tf.import_graph_def(graph_def, input_map=placed, return_elements=fetched, name="model")
        cotangents = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in outputs]
        for op in graph.get_operations():
            if op.type in CALLS:
                op._gradient_function = ConcreteFunction(called(op, function.graph))._get_gradient_function()
        cut = [value for op in graph.get_operations() if op.inputs and not registered(op) for value in op.outputs]
        gradients = tf.gradients(outputs, list(here.values()), cotangents, stop_gradients=cut)
    seeds = {cotangent.ref() for cotangent in cotangents}
    answer = dict.fromkeys(targets, "none")
    for name, gradient in zip(here, gradients, strict=True):
        if gradient is not None:
            answer[name] = "flows" if reached(value_of(gradient), seeds) else "zero"
    return answer


def inlined(function: Any) -> Any:
    """Runs TensorFlow's function inlining on the graph of a loaded signature, where no custom gradient forbids it."""
    with function.graph.as_default():  # the exporter refuses to work eagerly
        meta = tf.compat.v1.train.export_meta_graph(graph=function.graph)
    kept = set()
    for definition in meta.graph_def.library.function:
        if any(CUSTOM in node.attr for node in definition.node_def):
            kept.add(definition.signature.name)
            definition.attr["_noinline"].b = definition.attr["_nospecialize"].b = True
    fetches = meta.collection_def["train_op"].node_list.value
    fetches.extend(value.name for value in [*function.inputs, *function.outputs])
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    graph_def = tf_optimizer.OptimizeGraph(config, meta)
    left = [node.name for node in graph_def.node if node.op in CALLS and node.attr["f"].func.name not in kept]
    if left:
        raise SystemExit(f"TensorFlow did not inline {', '.join(left[:3])}: this oracle cannot judge the graph")
    return graph_def


def captured(function: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Pairs what the signature captures with the placeholders that stand for it in its graph."""
    outside = function.captured_inputs
    return list(zip(outside, function.inputs[len(function.inputs) - len(outside) :], strict=True))


def registered(op: tf.Operation) -> bool:
    """Tells whether TensorFlow knows a gradient function for the op, or knows that it has none."""
    try:
        get_gradient_function(op)
    except LookupError:
        return False
    return True


def called(op: tf.Operation, graph: tf.Graph) -> Any:
    """Gives the function that a call runs."""
    return graph._get_function(op.get_attr("f").name)


def value_of(gradient: Any) -> tf.Tensor:
    """Gives the tensor that carries a gradient, which may come by rows."""
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def reached(end: tf.Tensor, starts: set[Any]) -> set[Any]:
    """Tells of which of the tensors `starts` (by reference) a tensor is made, through calls too."""
    queue, seen = deque([end]), {end.ref()}
    while queue:
        value = queue.popleft()
        op = value.op
        if op.type in SHAPE_ONLY:
            continue
        inputs = list(op.inputs)
        if op.type in CALLS:
            body = called(op, op.graph).graph
            used = reached(body.outputs[value.value_index], {given.ref() for given in body.inputs})
            inputs = [outer for outer, given in zip(inputs, body.inputs, strict=True) if given.ref() in used]
        queue.extend(new for new in inputs if new.ref() not in seen)
        seen.update(new.ref() for new in inputs)
    return seen & starts


def constants(inputs: Arrays) -> dict[str, tf.Tensor]:
    """Makes tensors of arrays."""
    return {name: tf.constant(value) for name, value in inputs.items()}


def dense(gradient: Any) -> tf.Tensor:
    """Makes a tensor of a gradient that may be given by rows."""
    return tf.convert_to_tensor(gradient)


def main(path: Path, name: str, entry: str = "serving_default") -> None:
    """Prints both answers for each variable."""
    rng = np.random.default_rng(0)
    loaded = load_plain(path)
    targets = variables(loaded.root)
    function = loaded.root.signatures[entry]
    draws = [model(name).inputs(rng) for _ in range(DRAWS)]
    true = structure(function, targets)
    seen = state(function, targets, draws, rng)
    print(json.dumps({target: {"state": seen[target], "structure": true[target]} for target in targets}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
