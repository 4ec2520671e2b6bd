"""How fast films are opened, cold and from the cache, and in which memory, beside bare Pillow.

    python benchmarks/films.py                  # 24 films of each kind, a minute or two
    python benchmarks/films.py --write          # also puts the table into BENCHMARKS.md
    python benchmarks/films.py -n 6 --repeats 1 # a quick look

Films are made here: 2048 x 2048 pixels, blurred shapes with the noise of a detector, so that they compress as films
do. Each measurement is a process of its own, pinned to one core, that opens all films of a kind once; kinds take turns.
CPU time counts, and imports are left out of it. Bare Pillow opens, resizes (Lanczos) and converts the same files to the
same size, and checks nothing. Peak memory is what the kernel reports for the whole process, cold. Needs the extra
`dicom`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import MEGABYTE, conditions, megabytes, note, parser_of, pin, publish, table

SIDE = 2048


def film(number: int) -> object:
    """A picture of 12 bits, as an array of SIDE x SIDE."""
    import numpy as np

    dice = np.random.default_rng(number)
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    made = 1600 + 900 * np.cos(7 * x + number) * np.sin(5 * y)
    for _ in range(6):
        left, top, wide, high = dice.uniform((0.2, 0.2, 0.05, 0.05), (0.8, 0.8, 0.2, 0.3))
        made += dice.uniform(-900, 900) * np.exp(-(((x - left) / wide) ** 2) - ((y - top) / high) ** 2)
    return np.clip(made + dice.normal(0, 12, made.shape), 0, 4095).astype(np.uint16)


def make(folder: Path, count: int) -> None:
    for number in range(count):
        pixels = film(number)
        for kind in KINDS:
            (folder / kind).mkdir(exist_ok=True)
            write(kind, pixels, folder / kind / f"{number:03}")


def write(kind: str, pixels: object, path: Path) -> None:
    import numpy as np
    from PIL import Image

    assert isinstance(pixels, np.ndarray)
    eight = Image.fromarray((pixels >> 4).astype(np.uint8))
    match kind:
        case "PNG":
            eight.save(path, format="PNG")
        case "PNG, 16 bits":
            Image.fromarray(pixels).save(path, format="PNG")
        case "JPEG":
            eight.save(path, format="JPEG", quality=95)
        case _:
            write_dicom(pixels, path, lossless=kind == "DICOM, JPEG 2000")


def write_dicom(pixels: object, path: Path, *, lossless: bool) -> None:
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

    assert isinstance(pixels, np.ndarray)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3", "DX"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME1", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.WindowCenter, made.WindowWidth = 2048, 4096
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"
    if lossless:
        made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    made.save_as(path, enforce_file_format=True)


KINDS = ("PNG", "PNG, 16 bits", "JPEG", "DICOM", "DICOM, JPEG 2000")


def ours(folder: Path, cache: Path | None) -> Callable[[Path], object]:
    from cxr_reason.films import Films

    return Films(cache=cache).open


def bare(folder: Path, cache: Path | None) -> Callable[[Path], object]:
    from PIL import Image

    def opened(path: Path) -> object:
        with Image.open(path) as image:
            return image.resize((448, 448), Image.Resampling.LANCZOS).convert("RGB")

    return opened


WAYS = {"cold": ours, "from the cache": ours, "bare Pillow": bare}


def measure(way: str, kind: str, folder: Path) -> None:
    """Print CPU milliseconds a film, and the peak memory in MB, of this process."""
    opened = WAYS[way](folder, folder / "cache" if way == "from the cache" else None)
    paths = sorted((folder / kind).iterdir())
    opened(paths[0])  # imports
    started = time.process_time()
    for path in paths[1:]:
        opened(path)
    taken = 1e3 * (time.process_time() - started) / (len(paths) - 1)
    print(taken, megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def measured(way: str, kind: str, folder: Path) -> tuple[float, float]:
    """What `measure` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", way, kind, str(folder)], capture_output=True, text=True, check=True
    )
    taken, peak = map(float, done.stdout.split())
    return taken, peak


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("-n", "--films", type=int, default=24, help="films of each kind")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        way, kind, folder = given.measure
        measure(way, kind, Path(folder))
        return
    if given.make:
        make(given.make, given.films)
        return
    pin()
    with tempfile.TemporaryDirectory(prefix="cxr-films-") as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory starts at what its parent has.
        maker = [sys.executable, __file__, "--make", str(folder), "--films", str(given.films)]
        subprocess.run(maker, check=True)
        jobs = [(way, kind) for kind in KINDS for way in WAYS if "DICOM" not in kind or way != "bare Pillow"]
        figures: dict[tuple[str, str], list[tuple[float, float]]] = {job: [] for job in jobs}
        for way, kind in jobs:
            measured(way, kind, folder)  # fills the cache, and the memory of the system
        for repeat in range(1, given.repeats + 1):
            for way, kind in jobs:
                figures[way, kind].append(measured(way, kind, folder))
            note(f"{repeat}/{given.repeats}")
        about = f"{conditions('one core')}. {given.films} films of each kind, {given.repeats} interleaved runs."
        publish("films.py", f"{about}\n\n{told(figures, folder)}", write=given.write)


def told(figures: dict[tuple[str, str], list[tuple[float, float]]], folder: Path) -> str:
    rows = []
    for kind in KINDS:
        sizes = [path.stat().st_size for path in (folder / kind).iterdir()]
        cells = [kind, f"{statistics.mean(sizes) / MEGABYTE:.1f}"]
        for way in WAYS:
            if (way, kind) not in figures:
                cells.append("-")
                continue
            taken = statistics.median(ms for ms, _ in figures[way, kind])
            cells.append(f"{taken:.1f}")
            if way != "bare Pillow":
                cells.append(f"{1e3 / taken:.0f}")
        peak = statistics.median(peak for _, peak in figures["cold", kind])
        rows.append([*cells, f"{peak:.0f}"])
    ways = ("cold, ms", "films/s", "from the cache, ms", "films/s", "bare Pillow, ms")
    return table((f"films of {SIDE} x {SIDE}", "MB", *ways, "peak MB"), rows)


if __name__ == "__main__":
    main()
