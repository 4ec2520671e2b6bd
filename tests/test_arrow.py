"""Arrow and Parquet: not a byte is lost on the way there and back, and a run that is killed gives the same file."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from conftest import ROOT, Run, environment
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import wait_for
from pyarrow import parquet as pq

from cxr_reason import arrow, parquet, records, runner
from cxr_reason.cli import main
from cxr_reason.errors import InputError
from cxr_reason.streams import Input
from cxr_reason.writers import WRITERS

pytestmark = pytest.mark.xdist_group("arrow")  # one worker makes the files, once

CXR = [sys.executable, "-m", "cxr_reason"]
DRIVER = [sys.executable, str(ROOT / "tests" / "stream_driver.py"), "copy"]
STUDIES = 900


@pytest.fixture(scope="module")
def made(cxr: Run, tmp_path_factory) -> Path:
    """The examples, mined and refined, in every format."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("questions.jsonl", "questions.arrow", "questions.parquet", "questions/"):
        assert cxr("mine", "-q", str(ROOT / "examples" / "reports.csv"), "-o", f"{folder}/{name}").returncode == 0
    for name in ("chains.jsonl", "chains.arrow"):
        assert cxr("refine", "-q", f"{folder}/questions.jsonl", "-o", f"{folder}/{name}").returncode == 0
    return folder


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def there_and_back(rows: list[dict]) -> list[str]:
    """What `dumps` makes of `rows` after they have been through the bytes of an Arrow stream."""
    writer = WRITERS["arrow"]
    data = writer.head() + writer.batch([writer.encode(rows)]) + writer.tail()
    return [records.dumps(record) for batch in pa.ipc.open_stream(data) for record in arrow.from_batch(batch)]


# -------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", ["questions.jsonl", "chains.jsonl"])
def test_the_examples_come_back_as_they_were(made, name):
    rows = [records.loads(line) for line in lines(made / name)]
    assert len(rows) > 100
    assert there_and_back(rows) == [line.decode() for line in lines(made / name)]


@pytest.mark.parametrize("name", ["questions.arrow", "chains.arrow"])
def test_the_schema_has_a_place_for_all_that_we_write_ourselves(made, name):
    """`extra` holds the nulls that JSON writes out, and nothing else."""
    extras = pa.ipc.open_stream(made / name).read_all().column("extra").to_pylist()
    said = [json.loads(extra) for extra in extras if extra is not None]
    assert 0 < len(said) < len(extras)
    assert all(value is None for extra in said for value in extra.values())


def odd_record(chance: random.Random, number: int) -> dict:
    """A record with something in it that a column can't say, in one way or another."""
    finding = {"name": "edema", "label": "Edema", "status": "present", "size_mm": 3.5, "span": [0, 4]}
    record = {
        "id": f"r{number}",
        "images": ["a.png", {"path": "b.png", "view": "PA"}],
        "report": "Oedème, mild. 心臓 🫀",
        "findings": [finding, {**finding, "label": None, "device": {"type": "tube"}, "alternatives": []}],
        "labels": {"Edema": 1},
        "steps": [{"text": "Look.", "kind": "plan", "findings": [finding], "evidence": [[0, 4], [5, 9]]}],
        "understood": 1.0,
        "provenance": [{"stage": "mine", "version": "1", "backend": "rules", "config": "c", "negatives": "region"}],
        "site": {"ward": [1, None, 2.5]},
    }
    oddities = [
        lambda: finding.update({"grade": chance.choice([None, 2, "II"])}),
        lambda: finding.update(status=finding.pop("status")),
        lambda: finding.update(size_mm=chance.choice([3, 10**400, True, "3", None, -0.0, 5e-324])),
        lambda: finding.pop("label"),
        lambda: finding.update(span=chance.choice([[0, 2**40], (0, 4), [0, None], [0.0, 4], []])),
        lambda: record.update(
            images=chance.choice([None, [], [{"path": "only.png"}], [None], "one", [{"view": "PA"}]])
        ),
        lambda: record.update(labels=chance.choice([{}, None, {"Edema": True}, {"Fracture": 1, "Edema": 0}, {"X": 1}])),
        lambda: record.update(report=chance.choice(["half an emoji \ud83e", "", "\0", None, 7])),
        lambda: record.update(understood=chance.choice([1, None, 10**30, False, 0.1 + 0.2])),
        lambda: record.update(correct=chance.choice([True, 0.5, 1, None])),
        lambda: record.update(acute=chance.choice([None, 0, "no"])),
        lambda: record.update(options=chance.choice([None, [], ["a", None], ["a", 1], {"A": "a"}])),
        lambda: record["provenance"][0].update(chance.choice([{"n": 1}, {"model": "m"}, {"policies": "x"}, {"": ""}])),
        lambda: record["provenance"].append(None),
        lambda: record.update(extra=chance.choice([None, "x", {"id": 1}])),
        lambda: record.update({"\ud83e": 1, "z": 1e16, "a": 12345678901234567890, "label": None}),
        lambda: record["steps"].append(chance.choice([{}, None, "a text", {"text": None}, {"kind": "x", "text": "y"}])),
        lambda: [record.pop(name) for name in chance.sample(list(record), 3)],
        lambda: record.update(findings=chance.choice([[], None, {}, [[finding]], [{}]])),
    ]
    for oddity in chance.sample(oddities, chance.randrange(4)):
        try:
            oddity()
        except (KeyError, AttributeError, TypeError):  # another one took away what it wanted to spoil
            continue
    return record


def test_a_thousand_odd_records_come_back_as_they_were():
    chance = random.Random(4)
    rows = [records.loads(records.dumps(odd_record(chance, number))) for number in range(1000)]
    prepared = [row for record in rows for row in arrow.prepare([record])]
    assert sum("extra" in row for row in prepared) > 500
    assert there_and_back(rows) == list(map(records.dumps, rows))


texts = st.text(max_size=6) | st.sampled_from(["Edema", "present", "\ud800"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


def shaped(shape: records.Shape) -> st.SearchStrategy:
    """Values of `shape`, and now and then something else in a place of it."""
    scalar = {
        "text": texts, "bool": st.booleans(), "state": st.integers(-1, 1), "offset": st.integers(0, 99),
        "number": st.floats(0, 1),
    }  # fmt: skip
    if isinstance(shape, str):
        return scalar[shape]
    if isinstance(shape, list):
        return st.lists(shaped(shape[0]) | values, max_size=3) | st.lists(shaped(shape[0]), max_size=3)
    members = st.dictionaries(st.sampled_from(list(shape)), st.none(), max_size=5).flatmap(
        lambda keys: st.fixed_dictionaries({key: shaped(shape[key]) for key in sorted(keys, key=list(shape).index)})
    )
    return members | st.tuples(members, st.dictionaries(texts, values, max_size=2)).map(lambda both: both[0] | both[1])


fields = {name: shaped(field.kind.shape) | values for name, field in records.FIELDS.items()}
any_record = st.lists(st.sampled_from([*records.FIELDS, "extra", "mine own", "ward"]), unique=True, max_size=5).flatmap(
    lambda names: st.fixed_dictionaries({name: fields.get(name, values) for name in names})
)


@settings(max_examples=150, deadline=None)
@given(st.lists(any_record, min_size=1, max_size=3))
def test_any_record_comes_back_as_it_was(rows):
    assert there_and_back(rows) == list(map(records.dumps, rows))
    for record, back in zip(rows, arrow.from_batch(arrow.to_batch(rows)), strict=True):
        assert list(back) == list(records.loads(records.dumps(record)))


def test_what_a_column_can_hold_stands_in_the_column():
    record = {
        "id": "1",
        "images": ["a.png", {"path": "b.png", "view": "PA", "mine": 1}],
        "findings": [{"name": "edema", "status": "present", "size_mm": 3, "grade": 2}],
        "labels": {"Edema": 1, "Fracture": True},
        "correct": True,
        "report": "broken \ud83e",
    }
    row = arrow.to_batch([record]).to_pylist()[0]
    assert [image["path"] for image in row["images"]] == ["a.png", "b.png"]
    assert (row["findings"][0]["name"], row["findings"][0]["size_mm"]) == ("edema", 3.0)
    assert (row["labels"]["Edema"], row["labels"]["Fracture"], row["labels"]["Pneumonia"]) == (1, None, None)
    assert (row["correct"], row["report"]) == (1.0, "broken ?")
    assert list(json.loads(row["extra"])) == ["images", "findings", "labels", "correct", "report"]


def test_numbers_that_json_lacks_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^findings\[0\]\.size_mm holds NaN"):
        arrow.prepare(
            [{"id": "1", "findings": [{"name": "x", "label": None, "status": "absent", "size_mm": math_nan}]}]
        )


math_nan = float("nan")


def test_objects_that_records_share_change_no_byte(made):
    apart = [records.loads(line) for line in lines(made / "questions.jsonl")]
    loader = records.Loader()
    shared = [loader(line) for line in lines(made / "questions.jsonl")]
    assert any(one["findings"] is other["findings"] for one, other in pairwise(shared))
    assert arrow.message(arrow.to_batch(apart)) == arrow.message(arrow.to_batch(shared))


def test_a_batch_that_no_array_could_hold_is_cut(monkeypatch):
    """A column holds 2 GiB of text. Here building fails for more than three rows, as it would for more than 2 GiB."""
    whole = arrow._column
    monkeypatch.setattr(
        arrow, "_column", lambda pa, values, kind: whole(pa, values, kind) if len(values) < 4 else cut()
    )
    rows = [{"id": str(number)} for number in range(10)]
    assert [len(batch) for batch in arrow.build(arrow.prepare(rows))] == [2, 3, 2, 3]


def cut() -> None:
    raise arrow._Chunked


# --------------------------------------------------------------------------------------------------------- commands


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    command = f'set -o pipefail; cxr() {{ {" ".join(CXR)} "$@"; }}\n{script}'
    return subprocess.run(["bash", "-c", command], capture_output=True, cwd=folder, env=environment(), timeout=120)


def test_a_pipe_of_arrow_is_the_pipe_of_json_lines(made):
    script = (
        f"cxr mine -q {ROOT}/examples/reports.csv --format arrow | tee first | cxr refine -q --format arrow > c.arrow\n"
        "cmp first questions.arrow && cmp c.arrow chains.arrow\n"
        "cxr refine -q --format jsonl c.arrow | cmp - chains.jsonl"
    )
    done = shell(script, made)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


@pytest.mark.parametrize("source", ["questions.arrow", "questions.parquet", "questions"])
def test_every_format_gives_the_same_chains(made, source):
    done = shell(f"cxr refine -q {source} | cmp - chains.jsonl", made)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_processes_change_no_byte(made, tmp_path):
    for name in ("questions.arrow", "questions.parquet"):
        done = shell(f"cxr mine -q --jobs 2 {ROOT}/examples/reports.csv -o {tmp_path}/{name}", made)
        assert done.returncode == 0
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_two_shards_together_are_the_whole(made):
    script = "for i in 0 1; do cxr mine -q {} --shard $i/2 --format arrow > {}; cxr refine -q {}; done"
    done = shell(script.format(f"{ROOT}/examples/reports.csv", "shard$i.arrow", "shard$i.arrow"), made)
    assert Counter(done.stdout.splitlines()) == Counter(lines(made / "chains.jsonl"))
    assert sum(len(pa.ipc.open_stream(made / f"shard{i}.arrow").read_all()) for i in (0, 1)) == len(
        lines(made / "questions.jsonl")
    )


def test_a_reader_that_leaves_ends_mine_with_141(made):
    table = "for i in 1 2 3 4 5 6 7 8; do tail -n +2 reports.csv | sed s/^S/$i-S/; done"
    script = f"cp {ROOT}/examples/reports.csv . && (head -1 reports.csv; {table}) > many.csv; set +o pipefail\n"
    script += "cxr mine -q many.csv --max-failed 1 --format arrow | head -c 9000 | wc -c\n"
    script += 'echo "${PIPESTATUS[0]}"'
    assert shell(script, made).stdout.split() == [b"9000", b"141"]


def test_sampling_works_in_every_format(made):
    script = (
        f"for f in s.jsonl s.arrow s.parquet; do cxr mine -q --per-finding 2 {ROOT}/examples/reports.csv -o $f; done\n"
    )
    script += "for f in s.arrow s.parquet; do cxr refine -q $f | cmp - <(cxr refine -q s.jsonl); done; wc -l < s.jsonl"
    done = shell(script, made)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_the_name_of_the_output_tells_the_format(cxr, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = str(made / "questions.jsonl")
    (tmp_path / "folder").mkdir()
    for arguments, problem in (
        (["--format", "jsonl", "-o", "x.arrow"], "x.arrow asks for arrow"),
        (["--format", "arrow", "-o", "x.parquet"], "x.parquet asks for parquet"),
        (["--format", "parquet", "-o", "x.jsonl.gz"], "x.jsonl.gz asks for jsonl"),
        (["--format", "jsonl", "-o", "folder"], "folder asks for parquet"),
        (["--format", "parquet"], "Parquet needs a file"),
        (["--format", "parquet", "-o", "-"], "Parquet needs a file"),
        (["-o", "x.parquet.gz"], "leave the .gz out"),
    ):
        done = CliRunner().invoke(main, ["refine", source, *arguments])
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert problem in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert cxr("refine", "-q", source, "-o", "x.arrow.gz", cwd=tmp_path).returncode == 0
    assert gzip.decompress((tmp_path / "x.arrow.gz").read_bytes()) == (made / "chains.arrow").read_bytes()
    piped = shell(f"cxr refine -q {source} --format arrow -o -", tmp_path)
    assert piped.stdout == (made / "chains.arrow").read_bytes()


def test_an_output_without_records_has_the_schema_all_the_same(cxr, tmp_path):
    table = "study_id,report\n1,Le coeur est de taille normale et les poumons sont clairs.\n"
    for name in ("none.arrow", "none.parquet", "none/"):
        done = cxr("mine", "-q", "-", "-o", f"{tmp_path}/{name}", stdin=table)
        assert done.returncode == 0, done.stderr
    found = pa.ipc.open_stream(tmp_path / "none.arrow").read_all()
    assert (len(found), found.schema) == (0, arrow.schema())
    assert pq.read_table(tmp_path / "none.parquet").schema == arrow.schema()
    assert pq.read_table(tmp_path / "none" / "part-00000.parquet").num_rows == 0


def test_without_pyarrow_it_says_what_to_install(made):
    script = "import sys; sys.modules['pyarrow'] = None; from cxr_reason.cli import main; main(sys.argv[1:])"
    for arguments in (
        ["refine", "questions.arrow"], ["refine", "questions/"], ["refine", "questions.jsonl", "--format", "arrow"],
        ["refine", "questions.jsonl", "-o", "x.parquet"],
    ):  # fmt: skip
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=made, env=environment(), timeout=60)
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert "need pyarrow" in done.stderr
        assert "pip install -c" in done.stderr
        assert not (made / "x.parquet.partial").exists()


# ------------------------------------------------------------------------------------------------------------ kills


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "reports.csv"
    rows = (f"s{number},text of {number} {'x' * (number % 97)}\n" for number in range(STUDIES))
    path.write_text("study_id,report\n" + "".join(rows))
    return path


def start(*arguments: object, **options) -> subprocess.Popen[bytes]:
    words = [*DRIVER, *map(str, arguments)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(), **options)


def finish(*arguments: object) -> str:
    process = start(*arguments)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error.decode()
    return error.decode()


def content(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}


def interrupted(table: str | Path, output: str, *options: object) -> None:
    """Kill a run when it has saved some of its work."""
    process = start(table, "-o", output, "--pause", 0.002, *options)
    journal = Path(f"{output.rstrip('/')}.partial.json")
    wait_for(journal.exists)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    assert 0 < json.loads(journal.read_text())["done"] < STUDIES


@pytest.mark.parametrize(
    ("name", "jobs"),
    [("out.arrow", 1), ("out.arrow", 2), ("out.parquet", 1), ("out/", 2), ("out.json", 2), ("out.arrow.gz", 1)],
)
def test_kill_9_gives_the_same_bytes(table, tmp_path, name, jobs):
    (tmp_path / "whole").mkdir()
    finish(table, "-o", f"{tmp_path}/whole/{name}")
    output = f"{tmp_path}/killed/{name}"
    (tmp_path / "killed").mkdir()
    options = ["--jobs", jobs, "--save-every", 0.01]
    interrupted(table, output, *options)
    with open(f"{output.rstrip('/')}.partial", "ab") as partial:
        partial.write(b"a torn batch")
    told = finish(table, "-o", output, *options)
    assert "continuing an earlier run" in told
    assert content(Path(output)) == content(tmp_path / "whole" / name.rstrip("/"))
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [name.rstrip("/")]
    if name == "out.json":
        found = json.loads(Path(output).read_bytes())
        assert [record["id"] for record in found] == [f"s{number}" for number in range(STUDIES)]


KILLED_AT_A_RENAME = """
import os, signal, sys
at = sys.argv.pop(1)
def hook(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]).endswith(at):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.argv[0] = {driver!r}
exec(compile(open({driver!r}).read(), {driver!r}, "exec"))
"""


@pytest.mark.parametrize("at", ["part-00000.parquet", "index.json", "out.parquet"])
def test_a_kill_while_parquet_gets_its_name_costs_nothing(table, tmp_path, at):
    output = str(tmp_path / "out.parquet") if at == "out.parquet" else f"{tmp_path}/out/"
    finish(table, "-o", output, "--limit", 7)
    script = KILLED_AT_A_RENAME.format(driver=DRIVER[1])
    words = [sys.executable, "-c", script, at, "copy", str(table), "-o", output, "--save-every", "0.01"]
    done = subprocess.run(words, capture_output=True, env=environment(), timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if at == "out.parquet":
        assert len(pq.read_table(output)) == 7
    else:
        with pytest.raises(InputError, match=r"no index\.json"):
            list(Input(output).rows())
    assert "continuing an earlier run" in finish(table, "-o", output)
    whole = tmp_path / ("whole.parquet" if at == "out.parquet" else "whole")
    finish(table, "-o", whole if at == "out.parquet" else f"{whole}/")
    assert list(content(Path(output)).values()) == list(content(whole).values())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_is_replaced_when_the_new_one_is_whole(table, tmp_path):
    output = f"{tmp_path}/out/"
    finish(table, "-o", output)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "part-00007.parquet").write_text("of a larger run")
    before = content(tmp_path / "out")
    interrupted(table, output, "--limit", STUDIES - 1, "--save-every", 0.01)
    assert content(tmp_path / "out") == before
    finish(table, "-o", output, "--limit", 5, "--force")
    assert sorted(content(tmp_path / "out")) == ["index.json", "notes.txt", "part-00000.parquet"]
    assert [row.data["id"] for row in Input(output).rows()] == ["s0", "s1", "s2", "s3", "s4"]


def test_a_folder_of_somebody_else_is_left_alone(table, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    process = start(table, "-o", f"{tmp_path}/photos")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"holds other files and no index.json" in error
    assert content(tmp_path / "photos") == {"a.jpg": b"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_full_disk_leaves_the_old_parquet(table, tmp_path):
    output = tmp_path / "out.parquet"
    output.write_text("old")
    command = f"ulimit -f 4; trap '' XFSZ; {' '.join(DRIVER)} {table} -o {output}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    assert output.read_text() == "old"


def copy_row(row: object) -> runner.Result:
    return runner.Result([row.data])  # type: ignore[attr-defined]


def test_parts_have_the_same_number_of_rows_and_an_index(made, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "PART_ROWS", 50)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 20)
    source = made / "chains.jsonl"
    runner.run(Input(source), copy_row, stage="copy", output=f"{tmp_path}/chains/", output_format="parquet")
    index = json.loads((tmp_path / "chains" / "index.json").read_text())
    ids = [json.loads(line)["id"] for line in lines(source)]
    assert (index["schema"], index["rows"]) == (arrow.SCHEMA_VERSION, len(ids))
    starts = range(0, len(ids), 50)
    assert [(part["rows"], part["first"]) for part in index["parts"]] == [
        (len(ids[s : s + 50]), ids[s]) for s in starts
    ]
    assert [part["last"] for part in index["parts"]] == [ids[s : s + 50][-1] for s in starts]
    for part in index["parts"]:
        path = tmp_path / "chains" / part["file"]
        told = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        assert (part["sha256"], part["bytes"]) == (told, path.stat().st_size)
    assert pq.ParquetFile(tmp_path / "chains" / "part-00000.parquet").num_row_groups == 3
    rows = list(Input(tmp_path / "chains").rows())
    assert [records.dumps(row.data).encode() for row in rows] == lines(source)
    assert (rows[60].file, rows[60].line) == (f"{tmp_path}/chains/part-00001.parquet", 11)


# ---------------------------------------------------------------------------------------------------------- reading


def as_file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    return sink.getvalue()


@pytest.mark.parametrize(("kind", "piped"), [("stream", True), ("file", True), ("file", False), ("gzipped", False)])
def test_arrow_is_read_from_files_and_pipes(cxr, made, tmp_path, kind, piped):
    data = (made / "questions.arrow").read_bytes()
    data = {"stream": data, "file": as_file(pa.ipc.open_stream(data).read_all()), "gzipped": gzip.compress(data)}[kind]
    path = tmp_path / "input"
    path.write_bytes(data)
    done = shell(f"cat {path} | cxr refine -q" if piped else f"cxr refine -q {path}", made)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (made / "chains.jsonl").read_bytes()


def test_a_table_of_somebody_else_is_read_like_a_csv(tmp_path):
    when = datetime(2023, 2, 3, 7, 40, tzinfo=UTC)
    reports = pa.table(
        {
            "StudyInstanceUID": pa.array([101.0, 102.0, None]),  # what pandas makes of integers with a gap
            "report_text": pa.array(["No effusion.", "Clear.", None]).dictionary_encode(),
            "StudyDate": pa.array([when, None, when], pa.timestamp("ns", "UTC")),
            "dose": pa.array([float("nan"), 0.5, 1.5]),
            "age": pa.array([Decimal("71"), Decimal("64.5"), None], pa.decimal128(5, 1)),
            "views": pa.array([[{"path": "a.png", "seen": when}], [], None]),
            "pixels": pa.array([b"\xff\x00", b"plain", None]),
            "__index_level_0__": pa.array([7, 8, 9]),
        }
    )
    pq.write_table(reports, tmp_path / "reports.parquet", row_group_size=2)
    (tmp_path / "reports.arrow").write_bytes(as_file(reports))
    for name in ("reports.parquet", "reports.arrow"):
        source = Input(tmp_path / name)
        assert source.header() == reports.column_names[:-1]
        assert [row.data for row in source.rows()] == [
            {
                "StudyInstanceUID": 101.0, "report_text": "No effusion.", "StudyDate": "2023-02-03T07:40:00+00:00",
                "age": 71, "views": [{"path": "a.png", "seen": "2023-02-03T07:40:00+00:00"}],
            },
            {
                "StudyInstanceUID": 102.0, "report_text": "Clear.", "dose": 0.5, "age": 64.5, "views": [],
                "pixels": "plain",
            },
            {"StudyDate": "2023-02-03T07:40:00+00:00", "dose": 1.5},
        ]  # fmt: skip


def test_records_are_told_from_tables_that_look_like_them(made, tmp_path):
    """Other programs drop columns and the schema's metadata; a column called extra alone makes no record."""
    questions = pq.read_table(made / "questions.parquet")
    fewer = questions.drop_columns(["correct", "radrscore", "model"]).replace_schema_metadata(None)
    pq.write_table(fewer, tmp_path / "fewer.parquet")
    rows = [row.data for row in Input(tmp_path / "fewer.parquet").rows()]
    assert [records.dumps(row).encode() for row in rows] == lines(made / "questions.jsonl")
    pq.write_table(pa.table({"id": ["1"], "extra": ["not JSON"]}), tmp_path / "other.parquet")
    assert [row.data for row in Input(tmp_path / "other.parquet").rows()] == [{"id": "1", "extra": "not JSON"}]
    pq.write_table(questions.replace_schema_metadata({"cxr.schema": "2"}), tmp_path / "newer.parquet")
    with pytest.raises(InputError, match="another version of cxr"):
        Input(tmp_path / "newer.parquet").header()
    extra = questions.column_names.index("extra")
    spoilt = questions.set_column(extra, "extra", [["[1]", *[None] * (len(questions) - 1)]])
    pq.write_table(spoilt, tmp_path / "spoilt.parquet")
    first, *others = Input(tmp_path / "spoilt.parquet").rows()
    assert (first.data, first.line, first.raw) == (None, 1, "[1]")
    assert "extra" in first.error
    assert all(row.data for row in others)


def test_tables_are_mined_with_their_columns_guessed(cxr, tmp_path):
    told = {"StudyInstanceUID": [101.0, None], "report_text": ["Small left pleural effusion.", "No pneumothorax."]}
    pq.write_table(pa.table(told), tmp_path / "reports.parquet")
    done = cxr("mine", "--findings", str(tmp_path / "reports.parquet"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["study_id"] == "101"
    assert "holds infinity" not in done.stderr
    pq.write_table(pa.table({**told, "dose": [1.0, float("inf")]}), tmp_path / "reports.parquet")
    done = cxr("mine", "--findings", str(tmp_path / "reports.parquet"), "--max-failed", "1")
    assert "reports.parquet:2: the column 'dose' holds infinity" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_stream_that_breaks_off_says_where(made, tmp_path):
    whole = (made / "questions.arrow").read_bytes()
    first = len(arrow.schema().serialize())
    batches = list(pa.ipc.open_stream(whole))
    after = first + len(batches[0].serialize().to_pybytes())
    path = tmp_path / "torn.arrow"
    for size in (3, 100, first, first + 5, after - 1, after, after + 3, after + 500, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        rows = []
        with pytest.raises(InputError) as caught:  # noqa: PT012 - the rows before it count
            for row in Input(path).rows():
                rows.append(row)
        held = 0 if size < after else len(batches[0]) if size < len(whole) - 8 else sum(map(len, batches))
        assert len(rows) == held, size
        assert size == 3 or f"torn.arrow:{held + 1}: the data ends here or is damaged" in str(caught.value)


def test_what_stood_before_the_damage_is_kept_and_the_run_goes_on(table, tmp_path):
    finish(table, "-o", tmp_path / "in.arrow")
    whole = (tmp_path / "in.arrow").read_bytes()
    finish(tmp_path / "in.arrow", "-o", tmp_path / "whole.jsonl")
    (tmp_path / "in.arrow").write_bytes(whole[: len(whole) // 2])
    process = start(tmp_path / "in.arrow", "-o", tmp_path / "out.jsonl")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"the data ends here or is damaged" in error
    assert b"done and saved" in error
    (tmp_path / "in.arrow").write_bytes(whole)
    assert "continuing an earlier run" in finish(tmp_path / "in.arrow", "-o", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["in.arrow", "in.parquet", "in/"])
def test_a_killed_run_knows_its_input_again(table, tmp_path, name):
    source = f"{tmp_path}/{name}"
    finish(table, "-o", source)
    output = str(tmp_path / "out.jsonl")
    interrupted(source, output, "--save-every", 0.01)
    copy = tmp_path.with_name(f"{tmp_path.name}-copy")
    shutil.copytree(tmp_path, copy)
    assert "continuing an earlier run" in finish(source, "-o", output)
    content_before = Path(output).read_bytes()
    assert len(content_before.splitlines()) == STUDIES
    # The same again, with another first row.
    shutil.rmtree(tmp_path)
    copy.rename(tmp_path)
    table.with_name("other.csv").write_text(table.read_text().replace("text of 0", "text of nil", 1))
    finish(table.with_name("other.csv"), "-o", source)
    assert "has changed since the earlier run: starting over" in finish(source, "-o", output)
    assert Path(output).read_bytes() == content_before.replace(b"text of 0", b"text of nil", 1)


def test_damaged_bytes_are_an_error_and_no_crash(made, tmp_path):
    script = (
        "import random, sys\nfrom pathlib import Path\nfrom cxr_reason.streams import Input\n"
        "from cxr_reason.errors import InputError\nchance = random.Random(1)\nrefused = 0\n"
        "for name in sys.argv[1:]:\n"
        "    whole = Path(name).read_bytes()\n"
        "    for _ in range(25):\n"
        "        data = bytearray(whole)\n"
        "        for _ in range(5):\n"
        "            data[chance.randrange(len(data) if chance.random() < .5 else 20000)] ^= 1 << chance.randrange(8)\n"
        "        Path('spoilt').write_bytes(data if chance.random() < .7 else data[:chance.randrange(len(data))])\n"
        "        try:\n            list(Input('spoilt').rows())\n"
        "        except InputError:\n            refused += 1\n"
        "print(refused)"
    )
    words = [sys.executable, "-c", script, str(made / "questions.arrow"), str(made / "questions.parquet")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 20


def test_folders_that_cannot_be_read_say_why(made, tmp_path):
    shutil.copytree(made / "questions", tmp_path / "q")
    index, part = tmp_path / "q" / "index.json", tmp_path / "q" / "part-00000.parquet"
    told = index.read_text()
    whole = part.read_bytes()
    for damage, problem in (
        (lambda: part.write_bytes(whole[:-1]), r"part-00000\.parquet: this part isn't the file that the index"),
        (part.unlink, r"part-00000\.parquet: this part is missing"),
        (lambda: index.write_text(told.replace('"schema": 1', '"schema": 2')), "another version of cxr"),
        (lambda: index.write_text("{"), r"index\.json: this isn't JSON"),
        (lambda: index.write_text('{"schema": 1, "parts": [1]}'), "isn't an index"),
        (lambda: index.write_text(told.replace("part-00000", "../q/part-00000")), "isn't a file of this folder"),
        (lambda: index.write_text(told.replace('"part-00000.parquet"', "7")), "isn't a file of this folder"),
        (index.unlink, r"no index\.json.*\n.*was stopped: run the same command again"),
    ):
        part.write_bytes(whole)
        index.write_text(told)
        damage()
        with pytest.raises(InputError, match=problem):
            list(Input(tmp_path / "q").rows())
    (tmp_path / "x.parquet.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(InputError, match="gzipped Parquet"):
        list(Input(tmp_path / "x.parquet.gz").rows())


def test_parquet_on_a_pipe_is_refused(cxr, made):
    done = shell("cat questions.parquet | cxr refine", made)
    assert done.returncode == 1
    assert b"Parquet can't be read from a pipe" in done.stderr


DATASETS = """
import json, sys, warnings
warnings.simplefilter("error")
import datasets
datasets.disable_progress_bars()
made, out = sys.argv[1:]
def load(kind, name):
    return datasets.load_dataset(kind, data_files=f"{made}/{name}", split="train", cache_dir=f"{out}/cache")
found = {
    name: load(kind, name)
    for kind, name in [
        ("parquet", "questions.parquet"), ("parquet", "questions/*.parquet"), ("arrow", "questions.arrow"),
        ("arrow", "chains.arrow"), ("json", "questions.jsonl"), ("json", "chains.jsonl"), ("parquet", "bare.parquet"),
    ]
}
rows = found["questions.arrow"]
rows.save_to_disk(f"{out}/saved", max_shard_size="100KB")
datasets.DatasetDict(train=rows.select(range(40)), validation=rows.select(range(40, 60))).save_to_disk(f"{out}/splits")
print(json.dumps({
    "rows": {name: len(table) for name, table in found.items()},
    "features": {name: repr(table.features) for name, table in found.items() if "jsonl" not in name},
    "labels": rows[0]["labels"], "answers": found["questions.jsonl"]["answer"][:] == rows["answer"][:],
}))
"""


def test_datasets_reads_every_output_and_we_read_what_it_saves(cxr, made, tmp_path):
    runner.run(Input(made / "bare.jsonl") if (made / "bare.jsonl").exists() else bare(made), copy_row, stage="copy",
               output=made / "bare.parquet", output_format="parquet")  # fmt: skip
    offline = environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    words = [sys.executable, "-c", DATASETS, str(made), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=offline, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    counts = {name: len(lines(made / f"{name}.jsonl")) for name in ("questions", "chains")}
    assert {name: rows for name, rows in told["rows"].items() if name != "bare.parquet"} == {
        name: counts["chains" if "chains" in name else "questions"] for name in told["rows"] if name != "bare.parquet"
    }
    assert len(set(told["features"].values())) == 1  # also of the file that has next to nothing
    assert told["labels"]["Cardiomegaly"] == 1
    assert told["answers"]
    assert cxr("refine", "-q", str(tmp_path / "saved")).stdout.encode() == (made / "chains.jsonl").read_bytes()
    assert len(list((tmp_path / "saved").glob("*.arrow"))) > 1
    splits = [row.data.get("split") for row in Input(tmp_path / "splits").rows()]
    own = [json.loads(line).get("split") for line in lines(made / "questions.jsonl")]
    assert splits == [split or "train" for split in own[:40]] + [split or "validate" for split in own[40:60]]


def bare(folder: Path) -> Input:
    """Records that have next to nothing: all but one column are null."""
    (folder / "bare.jsonl").write_text('{"id":"1"}\n{"id":"2"}\n')
    return Input(folder / "bare.jsonl")
