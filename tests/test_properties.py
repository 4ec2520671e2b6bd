"""Whatever comes in: hundreds of files through the readers, and hostile ones of growing length."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Callable

import promises
import pytest
from growth import assert_linear, inputs, long_line
from hypothesis import given
from hypothesis import strategies as st

from cxr_reason.streams import Input

cells = st.one_of(st.sampled_from(["a", '"', '"a\nb"', '""', "", "ä", "\x00", "1"]), st.text(max_size=8))
tables = st.lists(st.lists(cells, max_size=5).map(",".join), max_size=12).map(
    lambda rows: ("study_id,report,view\n" + "\n".join(rows)).encode()
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
json_lines = st.tuples(st.lists(json_values.map(json.dumps), max_size=8), st.text(max_size=6)).map(
    lambda parts: ('{"report": "x"}\n' + "\n".join(parts[0]) + parts[1]).encode()
)
files = st.one_of(st.binary(max_size=600), st.text(max_size=400).map(str.encode), tables, json_lines)
files = st.one_of(files, files.map(lambda data: gzip.compress(data, mtime=0)), files.map(lambda data: data[:-3]))


@inputs(350)
@given(data=files)
def test_readers_give_rows_or_say_why_not(data: bytes) -> None:
    promises.readers(data)


def rows_of(text: str) -> int:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        with contextlib.closing(Input(file.name)) as source:
            return sum(1 for _ in source.rows())


def columns(n: int) -> str:
    return ",".join(f"c{number}" for number in range(n)) + "\n" + ",".join("x" * n)


FILES: dict[str, tuple[Callable[[int], str], int]] = {
    "5 MB cell": (lambda n: f'study_id,report\n1,"{long_line(n)}"\n2,clear\n', 5_000_000),
    "5 MB JSON line": (lambda n: json.dumps({"report": long_line(n)}) + '\n{"report": "clear"}\n', 5_000_000),
    "commas": (lambda n: "study_id,report\n1" + "," * n + "\n2,clear\n", 100_000),
    "columns": (columns, 30_000),
    "quotes": (lambda n: "study_id,report\n1," + '"' * n + "\n2,clear\n", 1_000_000),
    "open quotes": (lambda n: "study_id,report\n" + '1,"clear\n' * n, 20_000),
    "newlines in a cell": (lambda n: 'study_id,report\n1,"' + "\n" * n + '"\n2,clear\n', 200_000),
    "empty lines": (lambda n: "study_id,report\n" + "\n" * n + "2,clear\n", 200_000),
    "deep JSON": (lambda n: '{"report": "clear"}\n' + "[" * n + "\n", 1_000_000),
    "JSON escapes": (lambda n: '{"report": "' + "\\u0041" * n + '"}\n', 500_000),
}


@pytest.mark.parametrize("shape", FILES)
def test_file_reading_time_is_linear(shape: str) -> None:
    make, size = FILES[shape]
    assert_linear(rows_of, make, size)
