"""SavedModels with tables, effects, custom gradients, unusual variables, of which something is dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.pruning.models import F32, Split, X, serving, shown, split, variable

WORDS = ("red", "green", "blue")
CALLED: list[Any] = []  # py_function finds its function in this process, for as long as somebody holds it


@shown
def tables(path: Path) -> Split:
    """Two tables of two vocabulary files: one is looked up, the other is not."""
    module = tf.Module()
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("alive", "dead"):
        file = path.parent / f"{name}.txt"
        file.write_text("\n".join(WORDS))
        from_file = tf.lookup.TextFileInitializer(
            str(file), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        setattr(module, f"{name}_table", tf.lookup.StaticHashTable(from_file, -1))
    module.embedding, module.dead = variable(4, 3), variable(4, 5)

    def run(word: Any) -> Any:
        module.dead_table.lookup(word)
        return {"y": tf.gather(module.embedding, module.alive_table.lookup(word) + 1)}

    module.serve = serving(run, tf.TensorSpec([None], tf.string, name="word"))
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "embedding", "dead_table", "dead.txt")


@shown
def tables_of_one_asset(path: Path) -> Split:
    """Two tables of one file, which stays with the one that is looked up; a table that is saved as variables are."""
    module = tf.Module()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / "words.txt"
    file.write_text("\n".join(WORDS))
    module.asset = tf.saved_model.Asset(str(file))
    for name in ("alive", "dead"):
        from_file = tf.lookup.TextFileInitializer(
            module.asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        setattr(module, f"{name}_table", tf.lookup.StaticHashTable(from_file, -1))
    module.mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    module.mutable.insert(tf.constant(WORDS[:2]), tf.constant([2, 0], tf.int64))
    module.embedding, module.dead = variable(4, 3), variable(4, 5)

    def run(word: Any) -> Any:
        places = module.alive_table.lookup(word), module.mutable.lookup(word)
        return {f"y{i}": tf.gather(module.embedding, place + 1) for i, place in enumerate(places)}

    module.serve = serving(run, tf.TensorSpec([None], tf.string, name="word"))
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "embedding", "dead_table")


@shown
def effects(path: Path) -> Split:
    """Layers that no output needs, each kept alive by what it does."""
    module = tf.Module()
    module.served, module.dead = variable(4, 2), variable(4, 3)
    module.counted, module.printed, module.called, module.drawn, module.checked = (variable(4, 1) for _ in range(5))
    module.counter = tf.Variable(0.0)

    def note(value: Any) -> None:
        CALLED.append(float(value))

    CALLED.append(note)

    def run(x: Any) -> Any:
        module.counter.assign_add(tf.reduce_sum(x @ module.counted))
        tf.print(tf.reduce_sum(x @ module.printed), output_stream="file:///dev/null")
        tf.py_function(note, [tf.reduce_sum(x @ module.called)], [])
        tf.random.stateless_normal([2], [1, 2]) + tf.reduce_sum(x @ module.dead)
        tf.random.poisson([1], tf.abs(tf.reduce_sum(x @ module.drawn)))
        tf.debugging.assert_less(tf.reduce_sum(x @ module.checked), 1e6)
        return {"y": x @ module.served}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    CALLED.append(module)
    return split("dead", "served counted printed called drawn checked counter")


@shown
def effects_where_values_are_dropped(path: Path) -> Split:
    """A call, a branch and a loop of which nobody reads a value, and which write."""
    module = tf.Module()
    module.served, module.state = variable(4, 2), tf.Variable(tf.zeros([4, 4]))
    module.of_call, module.of_branch, module.of_loop, module.dead = (variable(4, 4) for _ in range(4))

    @tf.function(autograph=False)
    def call(x: Any) -> Any:
        module.state.assign_add(module.of_call)
        return x @ module.dead

    def branch() -> Any:
        module.state.assign_add(module.of_branch)
        return tf.constant(1)

    def turn(i: Any) -> Any:
        module.state.scatter_nd_add([[i]], module.of_loop[i : i + 1])
        return i + 1

    def run(x: Any) -> Any:
        call(x)
        tf.cond(tf.reduce_sum(x) > -1e6, branch, lambda: tf.constant(2))
        tf.while_loop(lambda i: i < 3, turn, [tf.constant(0)])
        return {"y": x @ module.served, "state": tf.identity(module.state)}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "served state of_call of_branch of_loop")


@shown
def counter_that_is_read(path: Path) -> Split:
    """A state that every call changes, and of which the output depends."""
    module = tf.Module()
    module.kernel, module.mean, module.dead = variable(4, 2), tf.Variable(tf.zeros([4])), tf.Variable(tf.zeros([4]))

    def run(x: Any) -> Any:
        tf.identity(module.dead) + 1
        module.mean.assign(0.9 * module.mean + 0.1 * tf.reduce_mean(x, 0))
        return {"y": (x - module.mean) @ module.kernel}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "kernel mean")


@shown
def summary(path: Path) -> Split:
    """The ops of tf.summary; its writers themselves cannot be saved."""
    module = tf.Module()
    module.served, module.summarised, module.dead = variable(4, 2), variable(4, 1), variable(4, 3)

    def run(x: Any) -> Any:
        writer = tf.raw_ops.SummaryWriter(shared_name="summaries")
        tf.raw_ops.CreateSummaryFileWriter(
            writer=writer, logdir=str(path.parent / "events"), max_queue=1, flush_millis=1, filename_suffix=""
        )
        tf.raw_ops.WriteScalarSummary(
            writer=writer, step=tf.constant(1, tf.int64), tag="sum", value=tf.reduce_sum(x @ module.summarised)
        )
        x @ module.dead
        return {"y": x @ module.served}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "served summarised")


@shown
def generator(path: Path) -> Split:
    """Two generators of random numbers: what the first draws is an output, the second is never asked."""
    module = tf.Module()
    module.drawn, module.idle = tf.random.Generator.from_seed(1), tf.random.Generator.from_seed(2)
    module.serve = serving(lambda x: {"y": x + module.drawn.normal([4])}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("idle/_state_var", "drawn/_state_var")


def _custom(path: Path, saved: bool) -> Split:
    module = tf.Module()
    module.kernel, module.backward, module.dead = variable(4, 2), variable(4, 2), variable(4, 3)

    @tf.custom_gradient
    def matmul(x: Any) -> Any:
        def gradient(upstream: Any, variables: Any = None) -> Any:
            return upstream @ tf.transpose(module.backward), [None for _ in variables or []]

        return x @ module.kernel, gradient

    def run(x: Any) -> Any:
        x @ module.dead
        return {"y": matmul(x)}

    module.serve = serving(run, X)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=saved)
    tf.saved_model.save(module, str(path), signatures=module.serve, options=options)
    return split("dead", "kernel backward") if saved else split("dead backward", "kernel")


@shown
def custom_gradient(path: Path) -> Split:
    """A gradient reads a variable that no output needs."""
    return _custom(path, saved=True)


@shown
def custom_gradient_not_saved(path: Path) -> Split:
    return _custom(path, saved=False)


@shown
def dtypes(path: Path) -> Split:
    """Variables of many types and shapes, one of each dead and one alive."""
    module = tf.Module()
    kinds = {
        "string": lambda: tf.Variable(["a", "bcd" * 50], dtype=tf.string),
        "bfloat16": lambda: variable(2, 2, dtype=tf.bfloat16),
        "int64": lambda: tf.Variable([2**40, -1], dtype=tf.int64),
        "bool": lambda: tf.Variable([True, False]),
        "complex": lambda: tf.Variable([1 + 2j, -0.0j], dtype=tf.complex64),
        "empty": lambda: tf.Variable(tf.zeros([0, 3])),
        "scalar": lambda: tf.Variable(-0.0),
        "float8": lambda: variable(2, dtype=tf.dtypes.experimental.float8_e4m3fn),
        "nan": lambda: tf.Variable([float("nan"), float("inf")]),
    }
    for name, make in kinds.items():
        setattr(module, name, make())
        setattr(module, f"dead_{name}", make())
    module.serve = serving(
        lambda x: {"x": x, **{f"y_{n}": tf.identity(getattr(module, n)) for n in kinds if n != "float8"},
                   "y_float8": tf.cast(module.float8, F32)}, X)  # fmt: skip
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split(" ".join(f"dead_{name}" for name in kinds), " ".join(kinds))


@shown
def one_name_for_two(path: Path) -> Split:
    module = tf.Module()
    module.one, module.other = variable(4, 2, name="kernel"), variable(4, 2, name="kernel")
    module.serve = serving(lambda x: {"y": x @ module.other}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("one", "other")


@shown
def one_variable_of_two_objects(path: Path) -> Split:
    """A tied embedding: alive by one of its holders; another pair, dead with both of its holders."""
    module = tf.Module()
    module.embedding, module.unused, module.head, module.idle = tf.Module(), tf.Module(), tf.Module(), tf.Module()
    module.embedding.table = module.head.kernel = variable(4, 2)
    module.unused.table = module.idle.kernel = variable(4, 3)
    module.idle.bias = variable(3)
    module.serve = serving(lambda x: {"y": x @ module.embedding.table}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("unused/table idle/bias", "embedding/table")


@shown
def lists_and_dicts(path: Path) -> Split:
    """Dead items between living ones, whose places in their list close up."""
    module = tf.Module()
    module.items = [variable(4, 2) for _ in range(4)]
    module.named = {name: variable(2) for i, name in enumerate(("first", "second"))}
    module.pair = (variable(2), variable(2))
    module.serve = serving(
        lambda x: {"y": x @ module.items[1] + x @ module.items[3] + module.named["second"] + module.pair[1]}, X
    )
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("items/0 items/2 named/first pair/0", "items/1 items/3 named/second pair/1")


@shown
def lists_of_other_things(path: Path) -> Split:
    """Lists that hold what is no object, which leaves a gap among their items; in one of them something is dead."""
    module = tf.Module()
    module.living = [variable(4, 2), None, variable(4, 2)]
    module.mixed = [None, variable(4, 2), 1, variable(4, 2), "text", variable(4, 2)]
    module.serve = serving(lambda x: {"y": x @ module.living[0] + x @ module.living[2] + x @ module.mixed[5]}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("mixed/1 mixed/3", "living/0 living/2 mixed/5")


@shown
def tables_in_a_list(path: Path) -> Split:
    """A table that goes is the first item of a list, whose other item, behind it, is a variable; none is dead."""
    module = tf.Module()
    words = tf.lookup.KeyValueTensorInitializer(list(WORDS), tf.range(3, dtype=tf.int64))
    module.parts = [tf.lookup.StaticHashTable(words, -1), variable(4, 2)]
    module.serve = serving(lambda x: {"y": x @ module.parts[1]}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("", "parts/1", "parts/0")


@shown
def implementations(path: Path) -> Split:
    """Two functions of which TensorFlow takes that for the device, if both take and give as much; they differ."""
    module = tf.Module()
    module.kernel, module.second, module.dead = variable(4, 2), variable(4, 2), variable(4, 3)

    def implement(factor: float, **device: str) -> Any:
        attributes = {"api_implements": "matmul", **device}
        return tf.function(
            lambda x, one, other: (factor * (x @ one), x @ other),
            input_signature=[X, tf.TensorSpec([4, 2]), tf.TensorSpec([4, 2])],
            autograph=False,
            experimental_attributes=attributes,
        )

    there, here = implement(1), implement(2, api_preferred_device="CPU")
    wrapped = tf.function(lambda x: there(x, module.kernel, module.second), autograph=False)

    def run(x: Any) -> Any:
        here.get_concrete_function().add_to_graph()
        x @ module.dead
        return {"y": there(x, module.kernel, module.second)[0], "z": wrapped(x)[0]}

    module.serve = serving(run, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("dead", "kernel second")


@shown
def distributed(path: Path) -> Split:
    """Variables of a strategy, saved with one for each of its devices: gradpass counts none of them, and all stay."""
    module = tf.Module()
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        module.kernel, module.dead = variable(4, 2, name="kernel"), variable(4, 3, name="dead")
    module.serve = serving(lambda x: {"y": x @ module.kernel}, X)
    policy = tf.saved_model.experimental.VariablePolicy.EXPAND_DISTRIBUTED_VARIABLES
    options = tf.saved_model.SaveOptions(experimental_variable_policy=policy)
    tf.saved_model.save(module, str(path), signatures=module.serve, options=options)
    return split("", "")


@shown
def nothing_dead(path: Path) -> Split:
    module = tf.Module()
    module.kernel = variable(4, 2)
    module.serve = serving(lambda x: {"y": x @ module.kernel}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("", "kernel")


@shown
def everything_dead(path: Path) -> Split:
    module = tf.Module()
    module.kernel, module.bias = variable(4, 2), variable(2)
    module.serve = serving(lambda x: {"y": 2 * x}, X)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return split("kernel bias", "")
