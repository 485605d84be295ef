"""Markdown: what a comment shows, read back with a Markdown parser, whatever the names are."""

from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gradpass.report.build import build
from gradpass.report.markdown import SHOWN_FINDINGS, code, render_markdown, text
from gradpass.report.repair import CheckRow
from gradpass.report.text import summary_line
from gradpass.report.words import visible
from tests.report.frozen import NASTY, nasty, several
from tests.report.test_text import declined
from tests.report.verdicts import cut, model, target, verdict


def parsed(source: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(source)


def flat(tokens: list[Token]) -> list[Token]:
    return [token for outer in tokens for token in (outer, *(outer.children or ()))]


def shown(token: Token) -> str:
    """The words of a paragraph or a cell, as a reader sees them."""
    parts = (child for child in token.children or () if child.type in ("text", "code_inline"))
    return "".join(child.content for child in parts)


def cells(source: str) -> list[list[str]]:
    """The table's rows."""
    rows: list[list[str]] = []
    tokens = parsed(source)
    for i, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append(shown(tokens[i + 1]))
    return rows


def test_a_comment_in_full() -> None:
    report = several().filtered(select=("GP102",))
    assert render_markdown(report) == (
        f"**gradpass** `saved_model`: {summary_line(report).plain}\n"
        "\n"
        "|  | code | finding | starves | parameters |\n"
        "| --- | --- | --- | --- | ---: |\n"
        "| ❌ | GP102 | `ArgMax` picks an index, which has no derivative: `a` and `b` get None | `a`, `b` | 12 |\n"
        "\n"
        "<details>\n"
        "<summary>GP102 hard-argmax at <code>my models/net.py:42</code></summary>\n"
        "\n"
        "`ArgMax` picks an index, which has no derivative: `a` and `b` get None\n"
        "\n"
        "- line: `code = tf.argmax(scores, 1)`\n"
        "- path: `a` → `MatMul` **✗** `ArgMax` → `Mul` → `y`\n"
        "- help: use `tf.nn.softmax(scores)` as weights: `tf.reduce_sum(tf.nn.softmax(scores) * values, -1)`\n"
        "- fix: `gradpass fix saved_model` adds a derivative: softmax-argmax (estimator)\n"
        "\n"
        "</details>\n"
    )


def test_a_row_a_finding() -> None:
    report = several()
    rows = cells(render_markdown(report))
    assert [row[1] for row in rows[1:]] == [d.code for d in report.diagnostics]
    assert {len(row) for row in rows} == {5}


def test_names_break_out_of_nothing() -> None:
    source = render_markdown(nasty())
    rows = cells(source)
    one_line = " ".join(NASTY.split())
    assert len(rows) == 2 and [len(row) for row in rows] == [5, 5]
    assert rows[1][3].startswith(one_line)
    tokens = flat(parsed(source))
    tags = {token.content for token in tokens if token.type == "html_inline"}
    assert tags <= {"<code>", "</code>"}
    blocks = "".join(token.content for token in tokens if token.type == "html_block")
    assert set(re.findall(r"</?[a-z]+", blocks)) == {
        "<details",
        "</details",
        "<summary",
        "</summary",
        "<code",
        "</code",
    }
    assert not {token.type for token in tokens} & {"link_open", "image", "em_open", "heading_open", "fence"}


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_name_is_one_cell_and_reads_as_it_is(name: str) -> None:
    one_line = " ".join(name.split())
    table = f"| a | b |\n| --- | --- |\n| {code(name)} | {text(f'see {name}')} |\n"
    row = cells(table)[1]
    assert len(row) == 2
    assert row[0] == visible(one_line)
    assert row[1].replace("`", "") == visible(" ".join(f"see {name}".split())).replace("`", "")


def test_nothing_turns_the_direction_of_reading() -> None:
    assert code("a\u202eb\x1b") == "<code>a&#92;u202eb&#92;x1b</code>"
    assert text("see `a\u202eb` \x00") == "see <code>a&#92;u202eb</code> &#92;x00"


def test_a_repair_has_its_plan_and_its_checks() -> None:
    rows = [
        CheckRow("values", "failed", 3.0, 0.0, NASTY),
        CheckRow("onnx-fixed", "skipped", None, 1e-4, "op Erfc", "rounding", 2.5),
    ]
    source = render_markdown(declined("[rank] | unknown", rows))
    assert "cross-check failed (values): nothing was written" in source
    found = cells(source)
    assert ["GP102 ArgMax ArgMax", "left as it is: [rank] | unknown", ""] in found
    assert ["onnx-fixed", "skipped", "", "0.0001", "2.5 s", "op Erfc", "rounding"] in found
    assert [row[:4] for row in found if row[0] == "values"] == [["values", "failed", "3", "0"]]
    assert "- fix: none: &#91;rank&#93; &#124; unknown" in source


def test_a_comment_is_no_longer_than_github_takes() -> None:
    targets = [target(f"v{i}", "none") for i in range(500)]
    cuts = [cut("ArgMax", [i], node=f"n{i}/ArgMax") for i in range(500)]
    source = render_markdown(
        build(model({f"n{i}/ArgMax": "ArgMax" for i in range(500)}), [verdict(targets, cuts=cuts)])
    )
    assert len(source) < 65_536
    assert len(cells(source)) == SHOWN_FINDINGS + 1 and source.endswith("\nand 450 more findings\n")
