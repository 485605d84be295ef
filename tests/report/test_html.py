"""HTML: one file that needs nothing else, a drawing a path, nothing over a box, names that stay names."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from html import unescape
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from rich.cells import cell_len

from gradpass.report import html, neighbourhood
from gradpass.report.diagnostics import Diagnostic, Report, Source
from gradpass.report.html import LETTER, PADDING, Picture, fragment, picture, render_html
from gradpass.report.layout import Layout, Pair, Point, arrange
from gradpass.report.neighbourhood import MOST
from gradpass.report.repair import CheckRow
from tests.report.frozen import NASTY, Frozen, chain, nasty, several, web
from tests.report.test_text import declined

VOID = {"meta", "circle", "rect", "path"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Tags with their attributes, ids and words; complains of what is not closed."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def drawn(report: Report) -> list[tuple[Diagnostic, Picture]]:
    found = [(d, report.drawing(d)) for d in report.diagnostics]
    return [(d, picture(d, drawing)) for d, drawing in found if drawing is not None]


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    source = render_html(web(tmp_path))
    page = Page(source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"}
    assert not {key for _, attributes in page.tags for key in attributes} & {"src", "href", "srcset", "data"}
    addresses = set(re.findall(r"\w+://[^\"' ]+", source))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG, which nobody fetches
    assert "@import" not in source and not re.search(r"url\((?!#)", source)
    assert "prefers-color-scheme: dark" in source


def test_a_drawing_for_each_path(tmp_path: Path) -> None:
    for report in (several(), nasty(), chain(tmp_path), web(tmp_path)):
        page = Page(render_html(report))
        assert page.count("svg") == sum(bool(d.path) for d in report.diagnostics) > 0
        svgs = [attributes for tag, attributes in page.tags if tag == "svg"]
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        for svg in svgs:
            assert svg["role"] == "img"
            assert set(str(svg["aria-labelledby"]).split()) <= set(ids)
        assert page.count("desc") == page.count("svg") and page.count("section") == len(report.diagnostics)


def test_a_notebook_shows_the_same_without_the_page() -> None:
    report = several()
    shown = report._repr_html_()
    assert shown == fragment(report) and shown in render_html(report)
    assert "<html" not in shown and "<body" not in shown and Page(shown).count("svg") == 2


def test_names_stay_names() -> None:
    report = nasty()
    source = render_html(report)
    page = Page(source)
    assert page.count("script") == 0 and "<script" not in source
    assert not {key for _, attributes in page.tags for key in attributes if key.startswith("on")}
    assert report.diagnostics[0].help.replace("`", "") in page.words
    assert NASTY.replace("\r", "\\r") in unescape(source)


def test_the_path_is_the_spine_and_a_long_one_is_elided(tmp_path: Path) -> None:
    ((diagnostic, made),) = drawn(chain(tmp_path, 40, 40))
    middle = {drawn.x + drawn.width / 2 for drawn in made.boxes}
    assert max(middle) - min(middle) < 1e-6 and len(made.boxes) < 20
    words = [(drawn.label, drawn.box.state) for drawn in made.boxes]
    assert words == [
        ("x", "severed"), ("block_0/sin", "severed"), ("block_1/sin", "severed"), ("… 35 more …", "severed"),
        ("block_37/sin", "severed"), ("block_38/sin", "severed"), ("block_39/sin", "severed"),
        ("quantise/Round", "cut"),
        ("tail_0/cos", "live"), ("tail_1/cos", "live"), ("tail_2/cos", "live"), ("… 34 more …", "live"),
        ("tail_37/cos", "live"), ("tail_38/cos", "live"), ("tail_39/cos", "live"),
    ]  # fmt: skip
    assert diagnostic.path[0] == "x" and [b.y for b in made.boxes] == sorted(b.y for b in made.boxes)
    assert [(link.flow, link.mark is not None) for link in made.links if link.mark] == [("broken", True)]


def test_what_the_gradient_does_is_told_by_the_links(tmp_path: Path) -> None:
    made = Frozen()
    x = made.node("Placeholder", "x")
    scores = made.node("Exp", "scores", x)
    hard = made.node("FloorDiv", "hard", scores, made.node("Cos", "by", x))
    made.node("Mul", "out", hard, made.node("Sin", "other", made.node("Placeholder", "y")))
    report = made.report(tmp_path)
    (diagnostic,) = report.diagnostics
    drawing = report.drawing(diagnostic)
    assert drawing is not None
    names = [box.label for box in drawing.boxes]
    flows = {(names[link.start], names[link.end]): link.flow for link in drawing.links}
    assert flows == {
        ("x", "by"): "severed",
        ("by", "hard"): "broken",
        ("x", "scores"): "severed", ("scores", "hard"): "broken", ("hard", "out"): "live", ("other", "out"): "live",
    }  # fmt: skip


def test_nothing_turns_the_direction_of_reading(tmp_path: Path) -> None:
    made = Frozen()
    wild = "a\u202e\x00\x1b[31mb"
    made.node("Sin", "y", made.node("Round", wild, made.node("Placeholder", f"{wild}/x")))
    report = made.report(tmp_path)
    report.diagnostics[0].source = Source(wild, 1, wild)
    source = render_html(report)
    assert not set(source) & {"\u202e", "\x00", "\x1b"} and "a\\u202e\\x00\\x1b[31mb" in source


def test_wide_letters_have_room(tmp_path: Path) -> None:
    made = Frozen()
    made.node("Sin", "y", made.node("Round", "hard", made.node("Placeholder", "層" * 40)))
    ((_, picture),) = drawn(made.report(tmp_path))
    label = picture.boxes[0].label
    assert label == "…" + "層" * 13 and picture.boxes[0].width >= cell_len(label) * LETTER + 2 * PADDING


def test_a_repair_has_its_plan_and_its_checks() -> None:
    rows = [CheckRow("values", "failed", 3.0, 0.0, NASTY), CheckRow("onnx-fixed", "skipped", None, 1e-4, "op Erfc")]
    report = declined("[rank] <unknown>", rows)
    report.before.model = None
    page = Page(render_html(report))
    words = " ".join(page.words.split())
    assert report._repr_html_() in render_html(report)
    assert "cross-check failed (values): nothing was written" in words
    assert page.words.count("[rank] <unknown>") == 2  # of the plan, and of the finding
    cells = [tag for tag, _ in page.tags if tag == "td"]
    assert len(cells) == 3 + 2 * 7 + 2 * 4 and "skipped0.0001op Erfc" in page.words and page.count("script") == 0


def test_an_op_beside_all_ways_has_no_way(tmp_path: Path) -> None:
    report = chain(tmp_path)
    report.diagnostics[0].path = ["quantise/Round"]
    ((_, made),) = drawn(report)
    assert made.title.endswith(": what stands around quantise/Round")
    assert made.description == "quantise/Round (Round) stands beside all ways from a target to an output."


def test_whom_an_op_raises_for_is_told() -> None:
    report = several()
    report.diagnostics[0].starves, report.diagnostics[0].raises = [], ["raising/kernel"]
    assert "raises for\nraising/kernel\n" in Page(render_html(report)).words


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node has a box of its own, which makes the fullest drawing that there can be."""
    monkeypatch.setattr(neighbourhood, "ALIKE", MOST)


@pytest.mark.usefixtures("unlike")
def test_two_hundred_nodes_are_drawn_and_the_rest_is_counted(tmp_path: Path) -> None:
    ((_, made),) = drawn(web(tmp_path))
    assert len(made.boxes) == MOST and made.left_out == 75
    assert made.width < 1600
    assert "75 nodes further around are not drawn" in Page(render_html(web(tmp_path))).words


def test_of_very_many_findings_the_first_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "DRAWN", 1)
    page = Page(render_html(several()))
    assert page.count("svg") == 1 and page.count("section") == 4
    assert "Only the first 1 of 4 findings are drawn" in page.words


def test_nodes_that_are_alike_are_one_box(tmp_path: Path) -> None:
    made = Frozen()
    hard = made.node("Round", "hard", made.node("Placeholder", "x"))
    made.node("AddN", "sum", *(made.node("Sin", f"s_{i}", hard) for i in range(30)))
    ((_, picture),) = drawn(made.report(tmp_path))
    groups = [drawn for drawn in picture.boxes if drawn.box.role == "group"]
    assert [(g.label, "s_1," in g.box.title or "s_0," in g.box.title) for g in groups] == [("Sin × 29", True)]


def overlapping(layout: Layout, sizes: list[Point]) -> list[Pair]:
    """Boxes that touch each other."""
    found = []
    for a, b in combinations(range(len(sizes)), 2):
        (ax, ay), (bx, by) = layout.places[a], layout.places[b]
        if abs(ax - bx) < (sizes[a][0] + sizes[b][0]) / 2 and ay < by + sizes[b][1] and by < ay + sizes[a][1]:
            found.append((a, b))
    return found


def crossed(layout: Layout, sizes: list[Point]) -> list[tuple[Pair, int]]:
    """Links that run over a box which they neither come from nor go to."""
    found = []
    for pair, points in layout.routes.items():
        for (x, y), (to_x, to_y) in pairwise(points):
            for step in range(1, 20):
                t = step / 20
                at_x = x * (1 - t) ** 2 * (1 + 2 * t) + to_x * t**2 * (3 - 2 * t)  # both handles half way up
                bent = (1 - t) ** 3 * y + 3 * t * (1 - t) * (y + to_y) / 2 + t**3 * to_y
                for box, (place, size) in enumerate(zip(layout.places, sizes, strict=True)):
                    inside = abs(at_x - place[0]) < size[0] / 2 and place[1] < bent < place[1] + size[1]
                    if inside and box not in pair:
                        found.append((pair, box))
    return found


@pytest.mark.usefixtures("unlike")
def test_nothing_runs_over_a_box(tmp_path: Path) -> None:
    for report in (chain(tmp_path, 40, 40), web(tmp_path)):
        (diagnostic,) = report.diagnostics
        drawing = report.drawing(diagnostic)
        assert drawing is not None
        made = picture(diagnostic, drawing)
        sizes = [(box.width, box.height) for box in made.boxes]
        layout = arrange(sizes, [(link.start, link.end) for link in drawing.links], drawing.spine)
        assert overlapping(layout, sizes) == [] and crossed(layout, sizes) == []
        for box in made.boxes:
            assert max(len(box.label), len(box.detail)) * LETTER <= box.width - 2 * PADDING + 1e-6
            assert box.x >= 0 and box.x + box.width <= made.width and box.y + box.height <= made.height


@given(st.data())
def test_any_links_are_laid_out_without_overlaps(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 25))
    spine = data.draw(st.integers(2, count))
    ends = st.integers(0, count - 1)
    links = data.draw(st.lists(st.tuples(ends, ends).filter(lambda pair: pair[0] != pair[1]), max_size=60))
    links = list(dict.fromkeys([*((i, i + 1) for i in range(spine - 1)), *links]))
    sizes = [(data.draw(st.floats(20, 220)), 26.0 + 70 * (i % 2)) for i in range(count)]
    layout = arrange(sizes, links, spine)
    assert overlapping(layout, sizes) == [] and crossed(layout, sizes) == []
    assert set(layout.routes) == set(links)
    tops = [layout.places[i][1] for i in range(spine)]
    assert tops == sorted(set(tops)) and len({round(layout.places[i][0], 6) for i in range(spine)}) == 1


MEASURE = """<script>
const found = [];
const boxes = [...document.querySelectorAll('.gp-box')];
const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const rects = boxes.map(box => box.querySelector('rect').getBoundingClientRect());
boxes.forEach((box, i) => {
  for (const text of box.querySelectorAll('text')) {
    const words = text.getBoundingClientRect();
    if (words.left < rects[i].left || words.right > rects[i].right || words.bottom > rects[i].bottom + 1)
      found.push('outside: ' + text.textContent);
    rects.forEach((rect, j) => { if (j !== i && overlaps(words, rect)) found.push('over: ' + text.textContent); });
  }
});
const fills = Object.fromEntries(['live', 'severed', 'cut'].map(state => [state,
  getComputedStyle(document.querySelector('.gp-box.gp-' + state + ' rect')).fill]));
const pre = document.createElement('pre');
pre.id = 'measured';
pre.textContent = JSON.stringify({ boxes: boxes.length, found, fills, wide: document.body.scrollWidth });
document.body.append(pre);
</script>"""


@pytest.mark.usefixtures("unlike")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to open the page")
@pytest.mark.parametrize("wide", [False, True], ids=["chain", "web"])
def test_a_browser_shows_it(tmp_path: Path, wide: bool) -> None:
    report = web(tmp_path) if wide else chain(tmp_path)
    page = tmp_path / "page.html"
    page.write_text(render_html(report).replace("</body>", MEASURE + "</body>"), "utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--window-size=1400,1000"]  # fmt: skip
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    matched = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert matched is not None, done.stderr
    measured = json.loads(unescape(matched.group(1)))
    ((_, made),) = drawn(report)
    assert measured["boxes"] == len(made.boxes) and measured["found"] == []
    assert len(set(measured["fills"].values())) == 3
    assert measured["wide"] <= 1400
    shot = tmp_path / "shot.png"
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
    assert struct.unpack(">II", shot.read_bytes()[16:24]) == (1400, 1000)
