"""What breaks when a fuzzer finds its way: the promises of tests/promises.py, guided by coverage (atheris, libFuzzer).

    python benchmarks/fuzz.py                          # readers, engine, answers and films, ten minutes each
    python benchmarks/fuzz.py --write                  # also puts the table into docs/faults.md
    python benchmarks/fuzz.py --targets engine --minutes 1
    python benchmarks/fuzz.py --targets engine --replay FILE     # what is broken by an input that was found

It begins with the corpus in tests/corpus and with our own examples, and keeps there what reaches code that nothing
reached before: a line of JSON an input, the smallest that do. Every change is tested on them (test_corpus.py). An input
that breaks a promise, hangs for 25 seconds or takes 4 GB is written to build/fuzz/, and the exit code is 1. Inputs are
of our own making only: generated reports, examples and phantoms.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import ROOT, conditions, parser_of, publish, table
from generate import reports

CORPUS = ROOT / "tests" / "corpus"
BUILD = ROOT / "build" / "fuzz"
LONGEST = {"readers": 2_000, "engine": 600, "answers": 1_000, "films": 4_000}
"""Bytes of an input; longer ones say little more and take longer."""
BROKEN = ("crash", "timeout", "oom")
LIMITS = ("-timeout=25", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=1")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--targets", nargs="+", choices=LONGEST, default=list(LONGEST))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        fuzz(options.targets[0], options.inside)
    elif options.replay:
        promises()[options.targets[0]](options.replay.read_bytes())
    else:
        rows = [campaign(target, options.minutes) for target in options.targets]
        head = ["target", "minutes", "inputs tried", "per s", "peak MB", "corpus before", "after", "broken"]
        text = f"{table(head, rows)}\n\n{conditions('one core')}."
        publish("fuzz.py", text, write=options.write, page=ROOT / "docs" / "faults.md")
        sys.exit(any(row[-1] != "0" for row in rows))


def promises() -> dict:
    sys.path.insert(0, str(ROOT / "tests"))
    from promises import PROMISES

    return PROMISES


def fuzz(target: str, arguments: list[str]) -> None:
    """Run libFuzzer in this process, which it ends; the first argument is the program that it starts for others."""
    import atheris

    with atheris.instrument_imports(include=["cxr_reason"], enable_loader_override=False):
        promise = promises()[target]
    atheris.Setup(arguments, promise)
    atheris.Fuzz()


def campaign(target: str, minutes: float) -> list[str]:
    """Fuzz `target`, keep what is new, and tell."""
    folder = BUILD / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="cxr-fuzz-") as name:
        kept, found, merged = (Path(name, part) for part in ("kept", "found", "merged"))
        before = list(load(target))
        lay(kept, [*before, *seeds(target)])
        found.mkdir()
        merged.mkdir()
        words = Path(name, "words")
        words.write_text("".join(f'"{word}"\n' for word in dictionary()))
        log = folder / "log.txt"
        tried, peak, end = 0, 0, time.monotonic() + minutes * 60
        while (left := int(end - time.monotonic())) > 0:
            told = inside(
                target, f"-max_total_time={left}", f"-max_len={LONGEST[target]}", f"-dict={words}",
                f"-artifact_prefix={folder}/", *LIMITS, found, kept, log=log,
            )  # fmt: skip
            tried += sum(map(int, re.findall(r"stat::number_of_executed_units:\s*(\d+)", told)))
            peak = max([peak, *map(int, re.findall(r"stat::peak_rss_mb:\s*(\d+)", told))])
            if any(any(folder.glob(f"{kind}-*")) for kind in BROKEN):
                break
        inside(target, "-merge=1", *LIMITS, merged, kept, found, log=log)
        after = sorted((path.read_bytes() for path in merged.iterdir()), key=lambda data: (len(data), data))
        save(target, after)
    broken = sorted(path for kind in BROKEN for path in folder.glob(f"{kind}-*"))
    for path in broken:
        print(f"broken: python benchmarks/fuzz.py --targets {target} --replay {path}", file=sys.stderr)
    return [
        target, f"{minutes:g}", f"{tried:,}", f"{tried / minutes / 60:,.0f}", f"{peak:,}", f"{len(before):,}",
        f"{len(after):,}", str(len(broken)),
    ]  # fmt: skip


def inside(target: str, *arguments: object, log: Path) -> str:
    """What libFuzzer says in a process of its own, which also goes to `log`."""
    program = log.with_name("run")  # libFuzzer merges in processes of its own, which it starts by this one's name
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" --targets {target} --inside "$0" "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with log.open("a") as file:
        file.write(done.stdout)
    return done.stdout


def dictionary() -> Iterator[str]:
    """The lexicon's words, as libFuzzer takes them."""
    from cxr_reason.radiology import LEXICON  # not above: what is imported before `fuzz` isn't instrumented

    phrases = {phrase for entry in LEXICON.findings.values() for phrase in entry.phrases}
    for word in sorted(phrases | {word for phrase in phrases for word in phrase.split()}):
        yield "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "" for c in word)


# --------------------------------------------------------------------------------------------------------------- corpus


def load(target: str) -> Iterator[bytes]:
    """The inputs that stay: a line of JSON each, its characters the bytes."""
    path = CORPUS / f"{target}.jsonl"
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line).encode("latin-1")


def save(target: str, inputs: Iterable[bytes]) -> None:
    CORPUS.mkdir(exist_ok=True)
    lines = (json.dumps(data.decode("latin-1")) + "\n" for data in inputs)
    (CORPUS / f"{target}.jsonl").write_text("".join(lines))


def lay(folder: Path, inputs: Iterable[bytes]) -> None:
    folder.mkdir()
    for number, data in enumerate(inputs):
        (folder / f"{number:06}").write_bytes(data)


# ---------------------------------------------------------------------------------------------------------------- seeds


def seeds(target: str) -> Iterator[bytes]:
    """Where a fuzzer starts: well-formed inputs of every kind."""
    texts = [report.text for report in reports(60, seed=5)]
    match target:
        case "readers":
            yield from tables(texts)
        case "engine":
            for text in texts:
                first, _, _ = text.partition(". ")
                yield f"{first}\n{text}".encode()
        case "answers":
            for line in (ROOT / "examples" / "predictions.jsonl").read_text().splitlines():
                record = json.loads(line)
                fields = ("|".join(record["options"] or ()), record["question"], record["report"])
                head = "\n".join(field.replace("\n", " ") for field in fields)
                yield f"{head}\n{record['prediction']}".encode()
        case "films":
            yield from pictures()


def tables(texts: list[str]) -> Iterator[bytes]:
    """The same few rows in every format that is read."""
    import pyarrow
    from pyarrow import parquet

    rows = [{"study_id": f"s{number}", "view": "PA", "report": text[:90]} for number, text in enumerate(texts[:4])]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for mark in ",;\t|":
        cells = [mark.join(rows[0])] + [mark.join(f'"{cell}"' for cell in row.values()) for row in rows]
        for end in ("\n", "\r\n", "\r"):
            yield end.join(cells).encode()
        yield "\n".join(cells).encode("utf-16")
        yield ("\ufeff" + "\n".join(cells)).encode()
    yield lines.encode()
    yield gzip.compress(lines.encode(), mtime=0)
    yield json.dumps(rows).encode()
    yield json.dumps(rows, indent=1).encode()
    columns = pyarrow.Table.from_pylist(rows[:2])
    for writer in (pyarrow.ipc.new_stream, pyarrow.ipc.new_file):
        sink = pyarrow.BufferOutputStream()
        with writer(sink, columns.schema) as out:
            out.write_table(columns)
        yield sink.getvalue().to_pybytes()
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(columns, sink)
    yield sink.getvalue().to_pybytes()


def pictures() -> Iterator[bytes]:
    """Small films of every kind: grey, colour, palette, 16 bits, interlaced, and DICOM as a machine writes it."""
    import numpy
    from PIL import Image
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    grey = Image.fromarray(numpy.arange(48 * 40, dtype="uint8").reshape(48, 40))
    for mode in ("L", "RGB", "P", "1", "RGBA", "LA", "I;16"):
        wide = mode == "I;16"
        film = Image.fromarray(numpy.asarray(grey, "uint16") * 9) if wide else grey.convert(mode)
        buffer = io.BytesIO()
        film.save(buffer, "png")
        yield buffer.getvalue()
    for options in ({"quality": 60}, {"progressive": True}):
        buffer = io.BytesIO()
        grey.save(buffer, "jpeg", **options)
        yield buffer.getvalue()
    for inverted in (False, True):
        film = Dataset()
        film.file_meta = FileMetaDataset()
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = DigitalXRayImageStorageForPresentation
        film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid(entropy_srcs=["cxr"])
        film.Modality, film.ViewPosition = "DX", "PA"
        film.Rows, film.Columns, film.SamplesPerPixel = 48, 40, 1
        film.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
        film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
        film.WindowCenter, film.WindowWidth = 2000, 3000
        film.PixelData = (numpy.asarray(grey, "uint16") * 16).tobytes()
        buffer = io.BytesIO()
        film.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


if __name__ == "__main__":
    main()
