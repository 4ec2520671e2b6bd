"""``--join``, and the tables on disk that joins and layouts stand on."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, environment
from growth import inputs
from hypothesis import given
from hypothesis import strategies as st

from cxr_reason.errors import InputError
from cxr_reason.joins import Join, Joined, JoinError
from cxr_reason.shelves import Shelf, key_text, together
from cxr_reason.streams import Input, Row

REPORTS = (
    "study_id,report\n"
    "S1,Small left pleural effusion. No pneumothorax.\n"
    "S2,The heart is enlarged. The lungs are clear.\n"
    "S3,No pleural effusion. Mild pulmonary edema.\n"
)


@pytest.fixture
def write(tmp_path: Path):
    def writer(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return writer


def joined(source: str, *joins: str, **options: Any) -> tuple[list[Row], Joined]:
    table = Joined(Input(source), [Join.parse(text) for text in joins], **options)
    return list(table.rows()), table


# ------------------------------------------------------------------------------------------------------------- tables


def test_columns_of_other_tables_are_added_and_both_sides_counted(write):
    ages = write("ages.tsv.gz", gzip.compress(b"uid\tage\tsite\nS3\t61\tA\nS1\t40\t\nS9\t5\tB\n"))
    labels = write("labels.jsonl", '{"study_id":"S1","Edema":-1.0}\n{"study_id":"S2","Edema":null,"Fracture":1}\n')
    rows, table = joined(write("reports.csv", REPORTS), f"{ages}:study_id=uid", f"{labels}:study_id")
    assert table.header() == ["study_id", "report", "age", "site", "Edema", "Fracture"]
    added = [{name: row.data[name] for name in row.data if name not in ("study_id", "report")} for row in rows]
    assert added == [{"age": "40", "site": "", "Edema": -1.0}, {"Fracture": 1}, {"age": "61", "site": "A"}]
    assert [(row.file, row.line) for row in rows] == [(table.name, line) for line in (2, 3, 4)]
    assert table.notes() == [
        f"{ages}: 2 of 3 rows found their key, 1 of its 3 keys found no row",
        f"{labels}: 2 of 3 rows found their key, 0 of its 2 keys found no row",
    ]


def test_keys_are_compared_as_they_read(write):
    source = write("reports.jsonl", '{"n":7,"report":"a"}\n{"n":8.0,"report":"b"}\n{"n":null,"report":"c"}\n')
    rows, table = joined(source, f"{write('t.csv', 'n,x' + chr(10) + ' 7 ,1' + chr(10) + '8,2' + chr(10) + ',3')}:n")
    assert [row.data.get("x") for row in rows] == ["1", "2", None]
    assert "1 of its rows have no key" in table.notes()[0]


def test_a_file_with_a_colon_in_its_name_and_what_is_no_join():
    assert Join.parse("a:b/c.csv:uid") == Join("a:b/c.csv", "uid", "uid")
    assert Join.parse("c.csv:uid = study") == Join("c.csv", "uid", "study")
    for text in ("c.csv", ":uid", "c.csv:", "c.csv:=x", "c.csv:uid="):
        with pytest.raises(ValueError, match="FILE:COLUMN"):
            Join.parse(text)


@pytest.mark.parametrize(
    ("name", "content", "key", "where", "what"),
    [
        ("t.csv", b"uid,x\n1,2\n", "study_id", "t.csv:1", "no column 'study_id'. Columns: uid, x"),
        ("t.csv", b"uid,x\n1,2\n", "uid", "reports.csv:1", "no column 'uid'. Columns: study_id, report"),
        ("t.csv", b"study_id,x\nS1,1\nS2,2\n\nS1,3\n", "study_id", "t.csv:5", "stands in line 2 already"),
        ("t.csv", "study_id,x\nS1,1\nS2,caf\xe9\n".encode("latin-1"), "study_id", "t.csv:3", "not utf-8 text"),
        ("t.csv", "study_id,caf\xe9\nS1,1\n".encode("latin-1"), "study_id", "t.csv:1", "not utf-8 text"),
        ("t.csv", "study_id,x\nS1,1\n".encode("utf-16-le"), "study_id", "t.csv", "UTF-16"),
        ("t.csv", b"study_id,x\nS1,1\nS2,1,2\n", "study_id", "t.csv:3", "3 columns where the header has 2"),
        ("t.csv", b"study_id,report\nS1,1\n", "study_id", "t.csv:1", "have a column 'report' already"),
        ("t.csv", b"study_id,x\n", "study_id", "t.csv", "no rows"),
        ("t.jsonl", b'{"study_id":"S1"}\n{"study_id":"S2"\n', "study_id", "t.jsonl:2", "not valid JSON"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(write, name, content, key, where, what):
    with pytest.raises(InputError) as caught:
        joined(write("reports.csv", REPORTS), f"{write(name, content)}:{key}")
    assert str(caught.value.where).endswith(where)
    assert what in caught.value.what
    assert "caf" not in str(caught.value)


def test_the_encoding_is_that_of_the_input(write):
    table = write("t.csv", "study_id,x\nS1,caf\xe9\n".encode("latin-1"))
    rows, _ = joined(write("reports.csv", REPORTS), f"{table}:study_id", encoding="cp1252")
    assert rows[0].data["x"] == "café"


def test_two_tables_must_not_bring_the_same_column(write):
    table = write("t.csv", "study_id,x\nS1,1\n")
    with pytest.raises(JoinError, match="column 'x' already"):
        joined(write("reports.csv", REPORTS), f"{table}:study_id", f"{table}:study_id")


def test_a_later_row_that_has_the_column_already_is_unreadable_by_itself(write):
    source = write("r.jsonl", '{"n":1,"report":"a"}\n{"n":2,"report":"b","x":0}\n{"n":3,"report":"c"}\n')
    rows, _ = joined(source, f"{write('t.csv', 'n,x' + chr(10) + '1,5' + chr(10) + '2,6')}:n")
    assert [row.error and "column 'x' already" in row.error for row in rows] == [None, True, None]
    assert rows[1].raw is not None  # for --rejects
    assert json.loads(rows[1].raw) == {"n": 2, "report": "b", "x": 0}


def test_joining_again_after_a_rewind_counts_from_the_start(write):
    rows, table = joined(write("reports.csv", REPORTS), f"{write('t.csv', 'study_id,x' + chr(10) + 'S1,1')}:study_id")
    digest, notes = table.digest().hexdigest(), table.notes()
    table.rewind()
    assert list(table.rows()) == rows
    assert (table.digest().hexdigest(), table.notes()) == (digest, notes)


# ------------------------------------------------------------------------------------------------------------ shelves

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@inputs(60)
@given(st.dictionaries(st.text(min_size=1).filter(str.strip), VALUES, min_size=1, max_size=5))
def test_what_is_put_on_a_shelf_comes_back(tmp_path_factory, entries):
    entries = {key_text(key): value for key, value in entries.items()}
    path = tmp_path_factory.getbasetemp() / "shelf.jsonl"
    path.write_text("".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in entries.items()))
    shelf = Shelf(Input(path), "key")
    assert {key: shelf.find(key) for key in entries} == {
        key: [{} if value is None else {"value": value}] for key, value in entries.items()
    }
    assert shelf.found == shelf.keys == len(entries)
    assert shelf.find("\ud800 is no key of these") == []


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")) | st.none(), max_size=30)


@inputs(60)
@given(ROWS)
def test_together_brings_groups_together_and_loses_nothing(keys):
    rows = [
        Row("f", line, None, "bad") if pair is None else Row("f", line, {"wide": pair[0], "narrow": pair[1]})
        for line, pair in enumerate(keys)
    ]
    found = list(together(iter(rows), lambda data: (data["wide"], data["narrow"])))
    good = [row for row in rows if row.data]
    first = {}
    for row in good:
        first.setdefault(row.data["wide"], row.line)
        first.setdefault((row.data["wide"], row.data["narrow"]), row.line)
    good.sort(key=lambda row: (first[row.data["wide"]], first[row.data["wide"], row.data["narrow"]], row.line))
    assert found == [row for row in rows if row.error] + good


def test_memory_does_not_grow_with_the_table(tmp_path):
    peaks = []
    for count in (5_000, 20_000):
        path = tmp_path / "t.csv"
        path.write_text("key,text\n" + "".join(f"k{n},{n:0100}\n" for n in range(count)))
        tracemalloc.start()
        shelf = Shelf(Input(path), "key")
        last = deque(together(Input(path).rows(), lambda data: (data["key"], "")), maxlen=1)
        assert last[0].data["key"] == f"k{count - 1}"
        shelf.close()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000  # the texts of the 15,000 rows more are 1,500,000 characters


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_tables_leave_no_file_behind_whatever_happens(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "t.csv").write_text("key,text\n" + "".join(f"k{n},{n:01000}\n" for n in range(20_000)))
    script = (
        "import sys\n"
        "from cxr_reason.shelves import Shelf\n"
        "from cxr_reason.streams import Input\n"
        "shelf = Shelf(Input('t.csv'), 'key')\n"
        "print(shelf.keys, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": tmp_path},
        env=environment(SQLITE_TMPDIR=str(tmp_path / "scratch")),
    ) as process:
        assert process.stdout.readline() == b"20000\n"
        opened = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(name.startswith(str(tmp_path / "scratch")) and name.endswith("(deleted)") for name in opened)
        assert list((tmp_path / "scratch").iterdir()) == []
        process.kill()


# -------------------------------------------------------------------------------------------------------- the command


def test_join_on_the_command_line(cxr: Run, write, tmp_path):
    source = write("reports.csv", REPORTS)
    ages = write("ages.csv", "uid,age_group\nS1,old\nS4,young\n")
    done = cxr("mine", source, "--findings", "--join", f"{ages}:study_id=uid")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line).get("age_group") for line in done.stdout.splitlines()] == ["old", None, None]
    assert f"{ages}: 1 of 3 rows found their key, 1 of its 2 keys found no row\n" in done.stderr
    assert cxr("mine", "-", "--findings", "--join", f"{ages}:study_id=uid", stdin=REPORTS).stdout == done.stdout
    piped = cxr("mine", source, "--findings", "--join", "-:study_id=uid", stdin=Path(ages).read_text())
    assert piped.stdout == done.stdout
    assert "stdin is the input already" in cxr("mine", "-", "--join", "-:study_id", stdin=REPORTS).stderr
    # A report that lies in another table than the studies do.
    studies = write("studies.csv", "study_id,patient_id\nS2,P1\nS3,P2\n")
    other = cxr("mine", studies, "--findings", "--join", f"{source}:study_id")
    assert [json.loads(line)["report"][:9] for line in other.stdout.splitlines()] == ["The heart", "No pleura"]


def test_mistakes_in_a_join_end_with_2_and_nothing_found_is_a_warning(cxr: Run, write):
    source, table = write("reports.csv", REPORTS), write("t.csv", "uid,x\n1,2\n")
    for join, message in (
        (table, "write FILE:COLUMN"),
        (f"{table}:study_id", "t.csv:1: --join"),
    ):
        done = cxr("mine", source, "--join", join)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    done = cxr("mine", source, "-q", "--join", f"{table}:study_id=uid")
    assert done.returncode == 0
    assert "not one row found its key" in done.stderr
