"""Readers, grouping, hashes and sinks, in this process. Real processes are in test_runner.py."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cxr_reason import console, sinks, streams, tables
from cxr_reason.errors import CxrError, InputError
from cxr_reason.sinks import FileSink
from cxr_reason.streams import Group, Input, Row, group_consecutive, stable_hash, stable_id


@pytest.fixture
def rows(tmp_path: Path):
    """Write bytes (or text) to a file and read it."""

    def reader(content: bytes | str, name: str = "in", **options) -> list[Row]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(Input(path, **options).rows())

    return reader


def told(found: list[Row]) -> list[tuple[int, object]]:
    """Lines and what stands there: the data, or "unreadable"."""
    return [(row.line, row.data if row.error is None else "unreadable") for row in found]


# -------------------------------------------------------------------------------------------------- formats and text


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_header_tells_the_delimiter(rows, delimiter):
    text = delimiter.join(["id", "report"]) + "\n" + delimiter.join(["1", '"a, b; c\td | e"']) + "\n"
    assert told(rows(text)) == [(2, {"id": "1", "report": "a, b; c\td | e"})]


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl.gz", "in"])
def test_the_content_tells_the_format_whatever_the_name(rows, name):
    expected = {"id": "1", "report": "x"}
    assert told(rows('{"id":"1","report":"x"}\n', name)) == [(1, expected)]
    assert told(rows("id,report\n1,x\n", name)) == [(2, expected)]
    assert told(rows(gzip.compress(b"id,report\n1,x\n"), name)) == [(2, expected)]
    # Members after each other, as `cat a.gz b.gz` makes them.
    joined = gzip.compress(b'{"id":"1","report":"x"}\n') + gzip.compress(b'{"id":"1","report":"x"}\n')
    assert told(rows(joined, name)) == [(1, expected), (2, expected)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_byte_order_mark_is_no_text(rows, encoding):
    assert told(rows("id,report\n1,é\n".encode(encoding))) == [(2, {"id": "1", "report": "é"})]
    assert told(rows('{"id":"é"}\n'.encode(encoding))) == [(1, {"id": "é"})]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-16", "utf-8-sig", "shift-jis"])
def test_a_named_encoding_is_used(rows, encoding):
    text = "ß" if encoding != "shift-jis" else "肺"
    assert told(rows(f"id,report\n1,{text}\n".encode(encoding), encoding=encoding)) == [
        (2, {"id": "1", "report": text})
    ]


def test_line_ends_of_all_systems(rows):
    for end in ("\r\n", "\n", "\r"):
        assert [row.data for row in rows(end.join(["id,report", '1,"a', 'b"', "2,c"]) + end)][1] == {
            "id": "2",
            "report": "c",
        }
    assert told(rows('id,report\r\n1,"a\r\nb"\r\n')) == [(2, {"id": "1", "report": "a\r\nb"})]


def test_the_line_is_where_the_row_starts(rows):
    found = rows('id,report\n1,"three\nlines\nlong"\n\n2,"said ""so"""\n')
    assert told(found) == [(2, {"id": "1", "report": "three\nlines\nlong"}), (6, {"id": "2", "report": 'said "so"'})]


def test_one_byte_in_another_encoding_costs_its_row_and_names_the_remedy(rows):
    found = rows("id,report\n1,ok\n2,caf\xe9\n3,ok\n".encode("latin-1"))
    assert told(found) == [(2, {"id": "1", "report": "ok"}), (3, "unreadable"), (4, {"id": "3", "report": "ok"})]
    assert "byte 0xe9 in column 6" in found[1].error
    assert "--encoding" in found[1].error
    assert "caf" not in found[1].error


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no rows"),
        (b"\n\n  \n", "no rows"),
        (b"id,report\n", "no rows"),
        (gzip.compress(b"", mtime=0), "no rows"),
        (b"id,id\n1,2\n", "columns 1 and 2 have the same name"),
        (b",id\n1,2\n", "column 1 has no name"),
        (b"[]", "no rows"),
        (b"[1, 2]", "JSON array, but not of objects"),
        (b"PAR1....", "damaged"),
        (b"PK\x03\x04....", "Excel"),
        (bytes(range(256)), "binary"),
        ("id,report\n1,x\n".encode("utf-16-le"), "utf-16-le"),
        (gzip.compress(b"id,report\n1,x\n" * 1000, mtime=0)[:-30], "gzip"),
        (gzip.compress(b"id,report\n1,x\n", mtime=0)[:12], "gzip"),
        (b'id,"report\n1,x\n', "header"),
        (b"id,r\xe9port\n1,x\n", "header"),
    ],
)
def test_an_input_that_cannot_be_read_at_all_says_so(rows, content, problem):
    with pytest.raises(InputError, match=problem) as caught:
        rows(content)
    assert str(caught.value).count("\n") <= 1


def test_missing_files_folders_and_unknown_encodings_are_errors(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        list(Input(tmp_path / "absent").rows())
    with pytest.raises(InputError, match=r"this folder holds no index\.json.*\nName a file"):
        list(Input(tmp_path).rows())
    for encoding in ("klingon", "hex"):
        with pytest.raises(InputError, match="no encoding"):
            Input("-", encoding=encoding)


def test_a_command_that_reads_records_refuses_a_table(rows):
    with pytest.raises(InputError, match="looks like a table"):
        rows("id,report\n1,x\n", formats=("jsonl",))
    # …but a spoilt first line doesn't make a table of records.
    assert told(rows('garbage\n{"id":"1"}\n', formats=("jsonl",))) == [(1, "unreadable"), (2, {"id": "1"})]


# --------------------------------------------------------------------------------------------- rows that can't be read


def test_ragged_rows_cost_themselves(rows):
    found = rows('a,b,c\n1,2,3\n1,2\n1,2,3,4\n\n"x\ny",2,3\n"x\ny",2\n4,5,6\n')
    assert told(found) == [
        (2, {"a": "1", "b": "2", "c": "3"}),
        (3, "unreadable"),
        (4, "unreadable"),
        (6, {"a": "x\ny", "b": "2", "c": "3"}),
        (8, "unreadable"),
        (10, {"a": "4", "b": "5", "c": "6"}),
    ]
    assert found[1].error == "2 columns where the header has 3"
    assert found[4].raw == '"x\ny",2\n'


def test_a_quote_that_is_never_closed_costs_one_row(rows):
    body = "".join(f'{number},"report {number}\nsecond line"\n' for number in range(3, 400))
    found = rows(f'id,report\n1,"fine"\n2,"never closed\n{body}')
    assert [row.line for row in found if row.error] == [3]
    assert [row.data["id"] for row in found if row.data] == ["1", *map(str, range(3, 400))]


def test_shreds_of_a_broken_row_do_not_become_rows(rows):
    # The second line of row 2 would parse as two columns; its first cell is not shaped like an id.
    found = rows('id,report\n1,"fine"\n2,"he said "no" and\nthe heart is big, lungs clear"\n3,"fine"\n')
    assert told(found) == [
        (2, {"id": "1", "report": "fine"}),
        (3, "unreadable"),
        (5, {"id": "3", "report": "fine"}),
    ]
    assert "lines 3 to 4" in found[1].error
    assert "big" in found[1].raw


def test_a_torn_end_is_an_unreadable_row(rows):
    found = rows('id,report\n1,x\n2,"torn he')
    assert told(found) == [(2, {"id": "1", "report": "x"}), (3, "unreadable")]
    assert "torn" in found[1].error
    found = rows('{"id":"1"}\n{"id":"2","repo')
    assert told(found) == [(1, {"id": "1"}), (2, "unreadable")]
    assert "torn" in found[1].error
    assert "repo" not in found[1].error
    # A missing newline alone is no fault.
    assert told(rows('{"id":"1"}\n{"id":"2"}')) == [(1, {"id": "1"}), (2, {"id": "2"})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not valid JSON"),
        ('{"a":NaN}', "NaN is not JSON"),
        ("[1]", "no object"),
        ("null", "no object"),
        ("3", "no object"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a":' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a":"fine but for a NUL\0"}', "NUL"),
    ],
)
def test_lines_that_are_no_records(rows, line, problem):
    found = rows(f'{{"id":"1"}}\n{line}\n{{"id":"2"}}\n')
    assert told(found) == [(1, {"id": "1"}), (2, "unreadable"), (3, {"id": "2"})]
    assert problem in found[1].error
    assert "999" not in found[1].error


def test_nul_bytes_cost_their_row(rows):
    found = rows("id,report\n" + "1,fine enough\n" * 50 + "2,n\0ul\n3,x\n")
    assert [row.line for row in found if row.error] == [52]


def test_a_line_beyond_the_limit_costs_itself(rows, monkeypatch):
    monkeypatch.setattr("cxr_reason.streams.LINE_BYTES", 1 << 20)
    for first, filler in (("id,report\n", "1,"), ('{"id":"0"}\n', '{"id":"')):
        found = rows(first + filler + "x" * (3 << 20) + "\n" + ("2,y\n" if first[0] == "i" else '{"id":"2"}\n'))
        assert [row.line for row in found if row.error] == [2]
        assert "longer than 1 MiB" in next(row.error for row in found if row.error)
        assert found[-1].data["id"] == "2"
        assert found[-1].line == 3


def test_long_inputs_take_linear_time(rows):
    started = time.monotonic()
    report = "x" * 10_000_000
    assert rows(f'id,report\n1,"{report}"\n')[0].data["report"] == report
    assert rows(json.dumps({"report": report}) + "\n")[0].data["report"] == report
    assert told(rows("id,report\n" + "," * 100_000 + "\n1,x\n")) == [(3, {"id": "1", "report": "x"})]
    wide = ",".join(f"c{number}" for number in range(100_000))
    assert len(rows(f"{wide}\n{wide}\n")[0].data) == 100_000
    with pytest.raises(InputError):
        rows("," * 100_000 + "\n1\n")
    # Every line opens a quote that closes only at the next: each is read twice, not again and again.
    assert len(rows("id,report\n" + '1,"x\n' * 20_000)) > 0
    assert time.monotonic() - started < 20


def test_hostile_quotes_are_not_read_again_without_end(rows, monkeypatch):
    monkeypatch.setattr(tables, "REPLAY_CHARACTERS", 10_000)
    content = "id,report\n" + '1,"x\n' + "y\n" * 5000
    found = rows(content)
    assert found
    assert all(row.error for row in found)


# ------------------------------------------------------------------------------------------------------ properties

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=8), st.sampled_from(",\t;|"))
@example([["", "", ""]], ",")
@example([["\r", "\n", '"']], ";")
def test_what_a_csv_writer_writes_comes_back(tmp_path_factory, table, delimiter):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["first", "second", "third"], *table])
    path = tmp_path_factory.mktemp("csv") / "in"
    path.write_bytes(stream.getvalue().encode())
    assert [list(row.data.values()) for row in Input(path).rows()] == table


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.integers(0, 30), st.sampled_from(["a", "ab,", "a\nb, c", "two\n\nlines,x,\n"]))
def test_a_stray_quote_costs_its_row_and_makes_no_other(tmp_path_factory, spoilt, place, body):
    reports = {f"r{number}": f"Report {number}: {body} and so on to the end of it" for number in range(40)}
    lines = [f'{name},"{text}"\n' for name, text in reports.items()]
    cut = place + len(f'r{spoilt},"Re')
    # Between letters: elsewhere a quote may leave a valid table with another meaning.
    assume(lines[spoilt][cut - 1 : cut + 1].isalpha())
    lines[spoilt] = lines[spoilt][:cut] + '"' + lines[spoilt][cut:]
    path = tmp_path_factory.mktemp("quote") / "in"
    path.write_text("study_id,report\n" + "".join(lines))
    found = {row.data["study_id"]: row.data["report"] for row in Input(path).rows() if row.data}
    del reports[f"r{spoilt}"]
    assert found == reports


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.dictionaries(st.text(), json_values, min_size=1, max_size=4), min_size=1, max_size=5))
def test_what_a_json_writer_writes_comes_back(tmp_path_factory, objects):
    path = tmp_path_factory.mktemp("jsonl") / "in"
    path.write_bytes("".join(json.dumps(entry) + "\n" for entry in objects).encode())
    assert [row.data for row in Input(path).rows()] == objects


pieces = st.lists(
    st.sampled_from(
        [b"id,report\n", b'"', b",", b"\n", b"\r", b"\0", b"{", b'{"id":1}\n', b"\x1f\x8b\x08", b"\xff\xfe"]
    )
    | st.binary(max_size=12),
    max_size=12,
)


@settings(max_examples=500, deadline=None)
@given(pieces.map(b"".join), st.sampled_from([b"", b"id,report\n1,x\n", b'{"id":1}\n', b"\xef\xbb\xbf"]))
def test_any_bytes_give_rows_or_an_input_error(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("any") / "in"
    for written in (start + content, gzip.compress(start + content, 1)):
        path.write_bytes(written)
        try:
            found = list(Input(path).rows())
        except InputError:
            continue
        lines = [row.line for row in found]
        assert lines == sorted(lines)
        assert all((row.data is None) == (row.error is not None) for row in found)


# ------------------------------------------------------------------------------------------------- Input's other sides


def test_asking_for_header_and_sample_loses_no_row(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,report\nbroken\n1,x\n2,y\n")
    source = Input(path)
    assert source.header() == ["id", "report"]
    assert source.sample() == {"id": "1", "report": "x"}
    assert [row.line for row in source.rows()] == [2, 3, 4]
    digest = source.digest().hexdigest()
    source.rewind()
    assert [row.line for row in source.rows()] == [2, 3, 4]
    assert source.digest().hexdigest() == digest


def test_the_digest_stands_for_what_was_read(tmp_path):
    digests = []
    for content in ("id\n1\n2\n", "id\n1\n3\n"):
        path = tmp_path / "in.csv"
        path.write_text(content)
        source = Input(path)
        reader = source.rows()
        next(reader)
        first = source.digest().hexdigest()
        next(reader)
        assert 0 < (source.fraction() or 0) <= 1
        digests.append((first, source.digest().hexdigest()))
        reader.close()
    (first, second), (same, other) = digests
    assert first == same
    assert second != other


def test_stdin_is_read_as_it_arrives(monkeypatch):
    asked = []

    pieces = [b"id,rep", b"ort\n1,x\n", b"2,y\n"]

    class Slow(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            piece = pieces[len(asked)] if len(asked) < len(pieces) else b""
            asked.append(piece)
            buffer[: len(piece)] = piece
            return len(piece)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow())))
    reader = Input("-").rows()
    first = next(reader)
    assert (first.file, first.data) == ("<stdin>", {"id": "1", "report": "x"})
    assert len(asked) == 2
    with pytest.raises(InputError, match="second time"):
        Input(None).rewind()


# ---------------------------------------------------------------------------------------------------- keys and groups


def test_hashes_depend_on_the_parts_alone():
    # Fixed for ever: ids and samples of published data depend on it.
    assert stable_id("study", 7) == f"{stable_hash('study', 7):016x}" == "474c36a58e078f7b"
    assert stable_hash("ab", "c") != stable_hash("a", "bc")
    assert stable_hash("\ud800") != stable_hash("\ud801")


def make(*keys: str | None) -> list[Row]:
    """Rows by their study; None is an unreadable row."""
    return [
        Row("in", line, None, "broken") if key is None else Row("in", line, {"study": key})
        for line, key in enumerate(keys, 1)
    ]


def grouped(*keys: str | None) -> list[list[int] | int]:
    units = group_consecutive(iter(make(*keys)), lambda row: row.data["study"])
    return [unit.line if isinstance(unit, Row) else [row.line for row in unit.rows] for unit in units]


def test_adjacent_rows_of_a_study_stand_together():
    assert grouped("a", "a", "b", "c", "c") == [[1, 2], [3], [4, 5]]
    assert grouped("", "", "a") == [[1], [2], [3]]
    assert grouped() == []
    # An unreadable row neither splits a study nor gets lost.
    assert grouped(None, "a", None, "a", "b", None) == [1, [2, 4], 3, [5], 6]


def test_a_study_that_comes_back_is_said(capsys):
    console.reset()
    assert grouped("a", "b", "a", "b", "c") == [[1], [2], [3], [4], [5]]
    assert "about 2 studies" in capsys.readouterr().err
    assert grouped("a", "b", "c") == [[1], [2], [3]]
    assert capsys.readouterr().err == ""


def test_one_key_for_all_rows_does_not_fill_the_memory(capsys):
    units = list(group_consecutive(iter(make(*["same"] * 2500)), lambda row: row.data["study"]))
    assert [len(unit.rows) for unit in units if isinstance(unit, Group)] == [1000, 1000, 500]
    capsys.readouterr()


def test_a_gzip_that_ends_in_a_line_that_is_too_long_is_an_error(tmp_path, monkeypatch):
    """The rest of such a line is passed over; the end of the data in it must not pass for the end of the input."""
    monkeypatch.setattr(streams, "LINE_BYTES", 2000)
    text = f"study_id,report\ns1,normal\ns2,{random.Random(1).randbytes(200_000).hex()}\ns3,normal\n"
    path = tmp_path / "r.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert [row.line for row in Input(path).rows()] == [2, 3, 4]
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match="ends here or is damaged") as told:
        list(Input(path).rows())
    assert told.value.where == f"{path}:3"


def test_a_folder_of_tables_names_them(tmp_path):
    for name in ("reports.csv", "labels.CSV.gz", "notes.md", "a.parquet", "b.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"It holds a.parquet, b.tsv, labels.CSV.gz and 1 more: name one"):
        list(Input(tmp_path).rows())


# -------------------------------------------------------------------------------------------------------------- sinks


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    target.chmod(0o640)
    sink = FileSink(target)
    sink.open()
    sink.write(b"new\n")
    sink.flush()
    assert sink.partial.stat().st_mode & 0o777 == 0o600
    assert target.read_text() == "old"
    sink.commit()
    assert target.read_text() == "new\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_is_unfinished_is_nobody_elses_to_read(tmp_path):
    mask = os.umask(0o022)
    try:
        sink = FileSink(tmp_path / "new.jsonl")
        sink.open()
        assert sink.partial.stat().st_mode & 0o777 == 0o600
        sink.commit()
        assert (tmp_path / "new.jsonl").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)


def test_a_small_file_that_fails_leaves_nothing(tmp_path):
    def fail() -> None:
        with sinks.whole(tmp_path / "small") as file:
            file.write(b"half")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_file_behind_a_link_is_replaced_not_the_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    sink = FileSink(tmp_path / "link")
    sink.open()
    sink.write(b"new")
    sink.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_a_partial_file_is_cut_back_and_continued(tmp_path, name):
    def write(sink: FileSink, *pieces: bytes) -> int:
        offset = 0
        for piece in pieces:
            sink.write(piece)
            offset = sink.flush()
        return offset

    whole = FileSink(tmp_path / f"whole-{name}")
    whole.open()
    write(whole, b"one\n", b"two\n")
    whole.commit()
    sink = FileSink(tmp_path / name)
    sink.open()
    offset = write(sink, b"one\n")
    write(sink, b"tor")
    sink.close(keep=True)
    sink = FileSink(tmp_path / name)
    sink.open()
    assert not sink.go_on_from(10_000)
    assert sink.go_on_from(offset)
    write(sink, b"two\n")
    sink.commit()
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    if name == "out.gz":
        assert gzip.decompress((tmp_path / name).read_bytes()) == b"one\ntwo\n"


def test_two_runs_cannot_write_one_file(tmp_path):
    first, second = FileSink(tmp_path / "out"), FileSink(tmp_path / "out")
    first.open()
    with pytest.raises(CxrError, match="another run"):
        second.open()
    first.close(keep=False)
    second.open()
    second.close(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.write_text("old")
    sink = FileSink(target)
    sink.open()

    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sinks.os, "write", full)
    sink.write(b"new")
    with pytest.raises(CxrError, match=r"disk is full.*as it was before"):
        sink.flush()
    sink.close(keep=False)
    assert target.read_text() == "old"


@pytest.mark.parametrize("place", ["folder", "absent/out"])
def test_a_place_that_cannot_be_written_is_said(tmp_path, place):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CxrError, match="folder"):
        FileSink(tmp_path / place).open()
