"""Markdown: what a comment shows, read back with a Markdown parser, whatever the names are."""

from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gradpass.report.markdown import code, render_markdown, text
from gradpass.report.text import summary_line
from tests.report.frozen import NASTY, nasty, several


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
        "| | code | finding | starves | parameters |\n"
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
        "- fix: `gradpass fix` adds a derivative: softmax-argmax (estimator)\n"
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
    assert row[0] == one_line
    assert row[1].replace("`", "") == " ".join(f"see {name}".split()).replace("`", "")
