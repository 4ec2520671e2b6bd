"""JSON arrays as rows: every layout, every kind of damage, in bounded memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections import deque
from pathlib import Path

import pytest
from growth import inputs
from hypothesis import given
from hypothesis import strategies as st

from cxr_reason import arrays
from cxr_reason.streams import Input, Row

ITEMS = [{"id": f"a{n}", "text": 'said "so" [1] {2}, \\ é', "sub": [{"id": n, "deep": {"x": []}}]} for n in range(5)]
LAYOUTS = {
    "indented": {"indent": 2},
    "flat": {"indent": 0},
    "one line": {"separators": (",", ":")},
    "escaped": {"ensure_ascii": True, "indent": "\t"},
}


def dumped(items: list, layout: str) -> str:
    return json.dumps(items, **{"ensure_ascii": False, **LAYOUTS[layout]})


@pytest.fixture
def rows(tmp_path: Path):
    def reader(content: bytes | str, **options) -> list[Row]:
        path = tmp_path / "in.json"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(Input(path, **options).rows())

    return reader


def told(found: list[Row]) -> list[object]:
    """The items' ids, "unreadable" for what has none."""
    return [row.data.get("id") if row.data else "unreadable" for row in found]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("piece_bytes", [7, 64 * 1024])
def test_every_layout_gives_the_items(rows, monkeypatch, layout, piece_bytes):
    monkeypatch.setattr("cxr_reason.streams.PIECE_BYTES", piece_bytes)
    text = dumped(ITEMS, layout)
    found = rows(text)
    assert [row.data for row in found] == ITEMS
    assert [row.line for row in found] == [
        1 + text[: text.index(f'"a{number}"')].rpartition("{")[0].count("\n") for number in range(5)
    ]
    assert [row.data for row in rows(gzip.compress(text.encode()))] == ITEMS
    assert [row.data for row in rows(text.encode("utf-16"))] == ITEMS


def test_a_command_of_records_takes_an_array_and_header_and_sample_lose_no_row(tmp_path):
    path = tmp_path / "in.json"
    path.write_text(dumped(ITEMS, "indented"), encoding="utf-8-sig")
    source = Input(path, formats=("jsonl",))
    assert source.header() == ["id", "text", "sub"]
    assert source.sample() == ITEMS[0]
    assert [row.data for row in source.rows()] == ITEMS


def test_arrays_after_each_other_are_one_as_cat_makes_them(rows):
    assert told(rows('[{"id": 1}]\n[{"id": 2},\n{"id": 3}]\n')) == [1, 2, 3]


DAMAGE = {
    "a quote too few": ('"id": "a2"', '"id": "a2'),
    "a quote too many": ('"id": "a2"', '"id": ""a2"'),
    "no comma": ('"id": "a2",', '"id": "a2"'),
    "a bracket too few": ("[\n      {\n        \"id\": 2,", "\n      {\n        \"id\": 2,"),
    "a bracket too many": ('"id": "a2",', '"id": {"a2",'),
    "the end too early": ('"id": "a2",', '"id": "a2"},'),
    "a number that is none": ('"id": "a2"', '"id": NaN'),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_item_costs_one_item(rows, damage):
    before, after = DAMAGE[damage]
    text = dumped(ITEMS, "indented")
    assert before in text
    found = rows(text.replace(before, after))
    good = [row.data["id"] for row in found if row.data and row.data in ITEMS]
    assert good == ["a0", "a1", "a3", "a4"]
    bad = [row for row in found if row.data is None]
    assert bad
    assert len(bad) == 1
    assert abs(bad[0].line - text[: text.index('"a2"')].count("\n")) <= 2
    assert not any("said" in (row.error or "") for row in bad)  # an error quotes nothing


def test_an_item_without_its_end_does_not_swallow_the_next(rows):
    for layout in LAYOUTS:
        text = dumped(ITEMS, layout)
        end = text.index('"a3"')
        cut = text[: text.rindex("}", 0, end)] + text[text.rindex("}", 0, end) + 1 :]
        assert told(rows(cut)) == ["a0", "a1", "unreadable", "a3", "a4"], layout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_a_torn_array_the_rows_before_are_kept_and_the_error_says_where(rows, layout):
    text = dumped(ITEMS, layout)
    inside = rows(text[: text.index('"a3"') + 6])
    assert told(inside) == ["a0", "a1", "a2", "unreadable"]
    assert inside[-1].error == "the array is torn: it ends inside this item"
    assert inside[-1].line == 1 + text[: text.index('"a3"')].rpartition("{")[0].count("\n")
    after = rows(text.rstrip().removesuffix("]"))
    assert told(after) == ["a0", "a1", "a2", "a3", "a4", "unreadable"]
    assert after[-1].error == "the array is torn: it has no end"


def test_what_is_no_object_and_what_stands_after_the_end_is_unreadable(rows):
    assert told(rows('[{"id": 1}, 2, "a, b", null, [{"id": 3}], {"id": 4}]')) == [
        1, "unreadable", "unreadable", "unreadable", "unreadable", 4,
    ]  # fmt: skip
    found = rows('[{"id": 1}] Smith')
    assert told(found) == [1, "unreadable"]
    assert "after the end" in found[1].error
    assert "Smith" not in found[1].error


def test_what_cannot_be_decoded_costs_its_item(rows):
    text = '[\n{"id": 1},\n{"id": "caf\xe9"},\n{"id": 3}\n]'
    found = rows(text.encode("latin-1"))
    assert [(row.line, row.error) for row in found if row.error] == [(3, "not utf-8 text")]
    assert told(found) == [1, "unreadable", 3]
    assert told(rows(text.encode("latin-1"), encoding="latin-1")) == [1, "café", 3]


def test_an_endless_item_is_passed_over(rows, monkeypatch):
    monkeypatch.setattr(arrays, "LINE_BYTES", 1 << 16)
    endless = '{"id": "' + "x" * (1 << 18) + '"}'
    for text in (f'[\n{{"id": 1}},\n{endless},\n{{"id": 3}}\n]', f'[{{"id": 1}},{endless},{{"id": 3}}]'):
        found = rows(text)
        assert told(found) == [1, "unreadable", 3]
        assert len(found[1].raw) <= 1 << 17


@inputs(150)
@given(
    at=st.integers(0, 10_000),
    gone=st.integers(0, 3),
    put=st.text('{}[]",: \n\\x', max_size=3),
    layout=st.sampled_from(list(LAYOUTS)),
)
def test_damage_anywhere_raises_nothing_and_leaves_the_items_before_it(tmp_path, at, gone, put, layout):
    text = dumped(ITEMS, layout)
    ends = [text.index(f'"a{number}"') for number in range(1, 5)]
    at = ends[0] + at % (len(text) - ends[0])
    path = tmp_path / "damaged.json"
    path.write_text(f"{text[:at]}{put}{text[at + gone :]}", encoding="utf-8", newline="")
    found = list(Input(path).rows())
    before = sum(end < at for end in ends)
    assert [row.data for row in found[:before]] == ITEMS[:before]


@pytest.mark.parametrize("damage", ["", '{"id": "torn, '])
def test_memory_is_that_of_an_item(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(arrays, "LINE_BYTES", 1 << 20)
    path = tmp_path / "long.json"
    with path.open("w") as file:
        file.write(f'[{{"id": "first"}},{damage}')
        file.writelines(f'{{"id": {n}, "text": "{"x" * 500}"}},' for n in range(20_000))
        file.write('{"id": "last"}]')
    tracemalloc.start()
    try:
        last = deque(Input(path).rows(), maxlen=1).pop()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last.data == {"id": "last"}
    assert peak < 6 * (1 << 20)  # of 10 MiB; the item that is torn may take LINE_BYTES some times over
