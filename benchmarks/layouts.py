"""Memory and time of `cxr mine --layout mimic` on a made-up archive of N images, and on one of ten times as many.

    python benchmarks/layouts.py                  # 2,000 and 20,000 images, a minute
    python benchmarks/layouts.py --rows 100000    # 100,000 and 1,000,000 images; 3 GB of disk, most of an hour
    python benchmarks/layouts.py --write          # also puts the table into BENCHMARKS.md

The archive is shaped like MIMIC-CXR: a tree of reports, and tables of metadata, splits and labels with an image or a
study a row, in the tree's order and, with ``--shuffle``, in none. Its reports are those of generate.py. Each size is
read twice: the layout alone, which shows what joining costs, and by `cxr mine --findings`, which is what people run.
"""

from __future__ import annotations

import csv
import gzip
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import conditions, cxr_command, measure, note, parser_of, pin, publish, table
from generate import reports

METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime"
)
SPLIT = "dicom_id,study_id,subject_id,split"
LABELS = "subject_id,study_id,Atelectasis,Cardiomegaly,Edema,No Finding,Pleural Effusion,Pneumothorax"
IMAGES_A_STUDY = (1, 1, 2, 2, 2)  # 1.6, in MIMIC-CXR 1.66
STUDIES_A_PATIENT = (1, 1, 2, 3, 10)  # 3.4, in MIMIC-CXR 3.5

READ = """import sys
from cxr_reason.layouts import open_layout
print(sum(1 for _ in open_layout("mimic", sys.argv[1]).rows()))
"""


def studies(images: int, rnd: random.Random) -> Iterator[tuple[int, int, list[str]]]:
    """(patient, study, ids of images) in the order of the tree, until there are `images`."""
    patient, study = 10_000_000, 50_000_000
    apart = round(9_000_000 / (images / 1.6 / 3.4 + 1))  # patients fill p10 to p18, whatever their number
    while images > 0:
        patient += rnd.randrange(1, max(2, 2 * apart))
        for _ in range(rnd.choice(STUDIES_A_PATIENT)):
            study += rnd.randrange(1, 9)
            count = min(images, rnd.choice(IMAGES_A_STUDY))
            if count:
                yield patient, study, [f"{rnd.getrandbits(160):040x}" for _ in range(count)]
            images -= count


def make(folder: Path, images: int, seed: int, shuffle: bool) -> int:
    """Write the archive; returns how many studies it has."""
    rnd = random.Random(seed)
    texts = reports(images, seed)
    metadata, split, labels = [], [], []
    made = 0
    for patient, study, ids in studies(images, rnd):
        text = next(texts).text
        path = folder / "files" / f"p{patient // 1_000_000}" / f"p{patient}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"                                 FINAL REPORT\n {text}\n", encoding="utf-8")
        date, clock = f"21{made % 100:02}0{made % 9 + 1}1{made % 10}", f"{made * 7 % 240000}.375"
        for number, image in enumerate(ids):
            metadata.append(
                (image, patient, study, "CHEST (PA AND LAT)", ("PA", "LATERAL")[number], 3056, 2544, date, clock)
            )
            split.append((image, study, patient, ("train", "validate", "test")[patient % 3]))
        labels.append((patient, study, "1.0", "", "", "", "0.0", "-1.0"))
        made += 1
    for name, header, rows in (("metadata", METADATA, metadata), ("split", SPLIT, split), ("chexpert", LABELS, labels)):
        if shuffle:
            rnd.shuffle(rows)
        with gzip.open(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt", 3, encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header.split(","), *rows])
    return made


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=2000, help="images of the smaller archive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffle", action="store_true", help="tables in no order")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="only write an archive of --rows images there")
    parser.add_argument("--folder", type=Path, help="where the archives are made and deleted again [temporary folder]")
    options = parser.parse_args()
    if options.make:
        print(make(options.make, options.rows, options.seed, options.shuffle))
        return
    pin()
    lines = []
    for images in (options.rows, 10 * options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder, output = Path(name) / "archive", Path(name)
            folder.mkdir()
            started = time.perf_counter()
            # In a process of its own: a child's peak memory starts at what its parent has.
            maker = [
                sys.executable,
                __file__,
                "--make",
                str(folder),
                "--rows",
                str(images),
                "--seed",
                str(options.seed),
            ]
            maker += ["--shuffle"] * options.shuffle
            made = int(subprocess.run(maker, check=True, capture_output=True, text=True).stdout)
            note(f"{images:,} images of {made:,} studies made in {time.perf_counter() - started:.0f} s")
            for what, command in (
                ("the layout alone", [sys.executable, "-c", READ, str(folder)]),
                (
                    "`cxr mine --findings`",
                    [*cxr_command(), "mine", "--layout", "mimic", str(folder), "--findings", "-q"],
                ),
            ):
                run = measure([command], output)
                if what != "the layout alone" and run.lines < 0.98 * made:
                    raise SystemExit(f"{run.lines:,} records of {made:,} reports")
                rate, seconds, memory = f"{made / run.cpu:,.0f}", f"{run.wall:,.1f}", f"{run.peaks[0]:,.0f}"
                lines.append((what, f"{images:,}", f"{made:,}", seconds, f"{run.cpu:,.1f}", rate, memory))
                note(f"{what}: {seconds} s, {memory} MB")
    head = ("", "images", "reports", "seconds", "CPU seconds", "reports a CPU second", "peak MB")
    publish("layouts.py", f"{conditions('one core')}.\n\n{table(head, lines)}", write=options.write)


if __name__ == "__main__":
    main()
