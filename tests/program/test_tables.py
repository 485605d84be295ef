"""A table kept as the newest version and what differs in older ones gives back the rows of each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradpass.errors import GradpassError
from gradpass.program import tables

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
ROWS = st.dictionaries(st.sampled_from("ABCD"), st.lists(st.integers(0, 2), max_size=2))
VERSIONS = st.dictionaries(st.sampled_from(["2.9", "2.18", "2.20", "2.100"]), ROWS, min_size=1)


@pytest.fixture(autouse=True, scope="module")
def scripts() -> Iterator[None]:
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def store(path: Path, version: str, rows: tables.Rows) -> None:
    from probe_store import layout, stale, write

    write(layout(path, version, rows))
    assert stale(layout(path, version, rows)) == []


@settings(deadline=None)
@given(VERSIONS, st.randoms(use_true_random=False))
def test_every_version_reads_as_it_was_written(contents: dict[str, tables.Rows], rng: object) -> None:
    order = list(contents)
    rng.shuffle(order)  # type: ignore[attr-defined]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "facts.json"
        for version in order:
            store(path, version, {"E": [9]})  # what is written later replaces what was there
            store(path, version, contents[version])
        assert tables.versions(path) == sorted(contents, key=tables.order)
        for version, rows in contents.items():
            assert tables.read(path, version) == (version, rows)
        assert tables.read(path).version == max(contents, key=tables.order)


def test_only_what_differs_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    store(path, "2.18", {"Same": [1], "Other": [1], "Gone": [1]})
    store(path, "2.20", {"Same": [1], "Other": [2], "New": [1]})
    older = (tmp_path / "facts-2.18.json").read_text()
    assert older == '{"version":"2.18","ops":{\n"Gone":[1],\n"New":null,\n"Other":[1]\n}}\n'


def test_what_is_stale(tmp_path: Path) -> None:
    from probe_store import difference, layout, stale

    path = tmp_path / "facts.json"
    store(path, "2.18", {"A": [1]})
    files = layout(path, "2.18", {"A": [2]})
    assert stale(files) == [path]
    assert difference(path, files[path])[-2:] == ['-"A":[1]', '+"A":[2]']
    assert stale(layout(path, "2.19", {"A": [1]})) == [path, tmp_path / "facts-2.18.json"]


def test_the_newest_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    store(path, "2.20", {"A": [1]})
    (tmp_path / "facts-2.18.json").write_text("no table")
    assert tables.read(path).rows == tables.read(path, "2.20").rows == {"A": [1]}
    with pytest.raises(ValueError):
        tables.read(path, "2.18")


def test_a_version_that_nobody_wrote(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    store(path, "2.20", {"A": [1]})
    with pytest.raises(GradpassError, match=r"2\.17; choose one of 2\.20"):
        tables.read(path, "2.17")
