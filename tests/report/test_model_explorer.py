"""The overlay for Model Explorer: what each node says, and that the package's own classes and adapters take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.proto.graph_pb2 import GraphDef

from gradpass import check
from gradpass.errors import GradpassError
from gradpass.report.diagnostics import Report
from gradpass.report.model_explorer import COLOURS, overlay, render_model_explorer
from tests.report.frozen import Frozen, chain, several, web

FIELDS = {"results", "name", "hideInAggregatedStatsTable", "hideInChildrenStatsTable", "showExpandedSummaryOnGroupNode"}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with a cut in a called function and one in a loop's body."""
    import tensorflow as tf

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(tf.ones([4, 3]), name="w")
            self.u = tf.Variable(1.0, name="u")

        @tf.function
        def pick(self, scores: Any) -> Any:
            return tf.gather(tf.constant([1.0, 2.0, 3.0]), tf.argmax(scores, 1), name="pick")

        @tf.function
        def constant(self) -> Any:
            return tf.sin(tf.constant(1.0))

        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def serve(self, x: Any) -> Any:
            total = tf.zeros([])
            for _ in tf.range(3):
                total += tf.round(self.u * total)
            return self.pick(x @ self.w) + total + self.constant()

    made = Module()
    folder = tmp_path_factory.mktemp("explorer") / "model"
    tf.saved_model.save(made, str(folder), signatures=made.serve)
    return folder


def names(target: Path) -> dict[str, dict[str, str]]:
    """By graph id the names of nodes by node id, as the file has them, read without our own reader of graphs."""
    if target.is_dir():
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        saved = SavedModel.FromString((target / "saved_model.pb").read_bytes())
        graph = saved.meta_graphs[0].graph_def
    else:
        graph = GraphDef.FromString(target.read_bytes())
    found = {"main": {str(i): node.name for i, node in enumerate(graph.node)}}
    for function in graph.library.function:
        found[function.signature.name] = {str(i + 1): node.name for i, node in enumerate(function.node_def)}
    return found


def said(report: Report, target: Path) -> dict[tuple[str, str], str]:
    """What the overlay says, by function and node; functions without their numbers."""
    known = names(target)
    return {
        (graph.removeprefix("__inference_").rpartition("_")[0] or graph, known[graph][node]): data["value"]
        for graph, content in overlay(report).items()
        for node, data in content["results"].items()
    }


def test_nodes_say_what_becomes_of_the_gradient(module: Path) -> None:
    told = said(check(module), module)
    argmax = {key: value for key, value in told.items() if key[0] in ("pick", "serve", "signature_wrapper", "main")}
    expected = {
        ("pick", "ArgMax"): "GP102 hard-argmax",
        ("pick", "pick"): "the gradient arrives",
        ("serve", "MatMul/ReadVariableOp"): "no gradient arrives",
        ("serve", "matmul"): "no gradient arrives",
        ("serve", "PartitionedCall"): "GP102 hard-argmax inside",
    }
    for (graph, node), value in expected.items():
        found = {text for (g, n), text in argmax.items() if g == graph and n.lower() == node.lower()}
        assert found == {value}, (graph, node)
    assert argmax["main", "StatefulPartitionedCall"].startswith("GP102 hard-argmax inside; GP103")
    assert told["while_body", "while/Round"] == "GP103 rounding"
    assert "inside" in next(value for (graph, node), value in told.items() if (graph, node) == ("serve", "while"))


def test_a_frozen_graph_is_one_graph(tmp_path: Path) -> None:
    report = chain(tmp_path, 2, 2)
    assert said(report, tmp_path / "frozen.pb") == {
        ("main", "x"): "no gradient arrives",
        ("main", "block_0/sin"): "no gradient arrives",
        ("main", "block_1/sin"): "no gradient arrives",
        ("main", "quantise/Round"): "GP103 rounding",
        ("main", "tail_0/cos"): "the gradient arrives",
        ("main", "tail_1/cos"): "the gradient arrives",
    }


def test_one_cut_behind_another(tmp_path: Path) -> None:
    made = Frozen()
    sign = made.node("Sign", "sign", made.node("Exp", "exp", made.node("Placeholder", "x")))
    made.node("Cos", "out", made.node("Round", "round", made.node("Sin", "between", sign)))
    report = made.report(tmp_path)
    assert {d.code for d in report.diagnostics} == {"GP301", "GP103"}
    assert said(report, tmp_path / "frozen.pb") == {
        ("main", "x"): "no gradient arrives",
        ("main", "exp"): "no gradient arrives",
        ("main", "sign"): "GP301 hard-sign",
        ("main", "between"): "no gradient arrives",
        ("main", "round"): "GP103 rounding",
        ("main", "out"): "the gradient arrives",
    }


def test_it_has_the_form_that_model_explorer_reads(module: Path, tmp_path: Path) -> None:
    colours = dict(COLOURS.values())
    for report in (check(module), web(tmp_path)):
        for content in json.loads(render_model_explorer(report)).values():
            assert set(content) == FIELDS
            for node, data in content["results"].items():
                assert node.isdecimal() and set(data) == {"value", "bgColor", "textColor"}
                assert colours[data["bgColor"]] == data["textColor"]


def test_a_report_without_its_model_has_no_overlay() -> None:
    report = several()
    report.model = None
    with pytest.raises(GradpassError, match="without its model"):
        overlay(report)


def test_its_own_classes_and_adapters_take_it(module: Path, tmp_path: Path) -> None:
    reason = "130 MB: `pip install gradpass[explorer]` brings Model Explorer"
    builder = pytest.importorskip("model_explorer.node_data_builder", reason=reason)
    from model_explorer.builtin_graphdef_adapter import BuiltinGraphdefAdapter
    from model_explorer.builtin_tf_direct_adapter import BuiltinTfDirectAdapter

    chain(tmp_path)
    for target, adapter in ((module, BuiltinTfDirectAdapter()), (tmp_path / "frozen.pb", BuiltinGraphdefAdapter())):
        text = render_model_explorer(check(target))
        data = json.loads(text)
        graphs = {}
        for graph, content in data.items():
            results = {node: builder.NodeDataResult(**result) for node, result in content.pop("results").items()}
            graphs[graph] = builder.GraphNodeData(results=results, **content)
        again = json.loads(builder.ModelNodeData(graphsData=graphs).to_json_string())
        assert again.keys() == json.loads(text).keys()
        for graph, content in json.loads(text).items():
            assert content.items() <= again[graph].items()
        (collection,) = adapter.convert(str(target), {"const_element_count_limit": 4})["graphCollections"]
        shown = {graph["id"]: {node["id"]: node for node in graph["nodes"]} for graph in collection.graphs}
        known = names(target)
        for graph, content in json.loads(text).items():
            for node in content["results"]:
                assert shown[graph][node]["namespace"] == known[graph][node]
