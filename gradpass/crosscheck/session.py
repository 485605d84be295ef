"""The values once more in a session, as TensorFlow 1 and TensorFlow Serving run a SavedModel.

A session runs the top-level graph, and not the objects that `tf.saved_model.load` makes: other nodes hold the
variables, and other functions put their values there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradpass.crosscheck.check import Check, Disagreement, Skip, attempt, guarded
from gradpass.crosscheck.load import Signature
from gradpass.crosscheck.quiet import quiet
from gradpass.crosscheck.values import compare_values, run_both

NAME = "session"
SAMPLES = 4


def in_session(
    original: Path,
    fixed: Path,
    entries: Collection[str],
    without: Mapping[str, Collection[str]],
    progress: Callable[[str], None] = lambda _: None,
) -> list[Check]:
    """Checks for each entry that both give the same bytes in a session; `without` are outputs that only one has.

    Skipped where the original itself does not run in one: a name that two variables bear is one variable there.
    """
    found: list[Check] = []
    with quiet():
        for entry in entries:
            progress(f"cross-check: {entry} in a session")
            name = f"{NAME} of {entry}" if len(entries) > 1 else NAME

            def check(entry: str = entry) -> list[Check]:
                row = _compared(original, fixed, entry, without.get(entry, ()))
                if row.status == "failed" and _compared(original, original, entry, ()).status == "failed":
                    raise Skip("the original itself gives other outputs in each session")
                return [row]

            found += [replace(each, name=name) for each in guarded([NAME], check)]
    return found


def _compared(original: Path, fixed: Path, entry: str, without: Collection[str]) -> Check:
    with _opened(original, entry) as one, _opened(fixed, entry) as other:
        if isinstance(one, str):
            raise Skip(f"the original does not load in a session: {one}")
        if isinstance(other, str):
            raise Disagreement(f"the original loads in a session, and the other does not: {other}")
        return compare_values(NAME, False, run_both(one.without(without), other, SAMPLES, 0), [])


@contextmanager
def _opened(path: Path, entry: str) -> Iterator[Signature | str]:
    """An entry of a model, to be called in a session of its own as long as it is open; else why it does not load."""
    import tensorflow as tf

    v1, graph = tf.compat.v1, tf.Graph()
    # TensorFlow's optimizer may order sums otherwise in one of two graphs that differ in what is dead only.
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    # Not entered, which would make its graph that of all that is drawn and compared meanwhile.
    with closing(v1.Session(graph=graph, config=config)) as session:

        def load() -> Any:
            with graph.as_default():
                return v1.saved_model.load(session, ["serve"], str(path))

        loaded = attempt(load)
        if loaded.value is None:
            yield str(loaded.reason)
            return
        signature = loaded.value.signature_def[entry]
        tensors = [*signature.inputs.values(), *signature.outputs.values()]
        if any(info.WhichOneof("encoding") != "name" for info in tensors):
            raise Skip("sparse and ragged tensors are not drawn")
        specs = {
            name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.dtypes.as_dtype(info.dtype), name)
            for name, info in signature.inputs.items()
        }
        fetches = {name: info.name for name, info in signature.outputs.items()}

        def call(inputs: dict[str, Any]) -> dict[str, Any]:
            feeds = {signature.inputs[name].name: value.numpy() for name, value in inputs.items()}
            return {name: tf.constant(value) for name, value in session.run(fetches, feeds).items()}

        yield Signature(specs, sorted(fetches), [], call)
