"""Films: what is read of which file, what is refused and why, and what never leaves a file.

All pictures are made here but two: a real chest film, `RG1` of the package pydicom-data, and the films of
`shared/data/nih64` where they lie beside the checkout.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import data_store
import numpy as np
import pydicom
import pydicom.data
import pytest
from click.testing import CliRunner
from conftest import ROOT, Run, environment
from cxr_reason.commands._films import film_options
from growth import inputs
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, PngImagePlugin
from playwright.sync_api import sync_playwright
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxr_reason import console
from cxr_reason.cli import main
from cxr_reason.errors import CxrError, InputError
from cxr_reason.films import MAX_PIXELS, FilmError, Films, digest, fit, read, reading, refusal, view
from cxr_reason.films import cache as film_cache
from cxr_reason.films.fitting import fitted
from cxr_reason.films.limits import MAX_FILE_BYTES
from cxr_reason.streams import folder_of

SECRET = "Zbigniew^Testpatient"
REAL = Path(next(iter(data_store.__path__))) / "data"
NIH = ROOT.parent / "shared" / "data" / "nih64"

# 48 rows of 40 values, all different in a row and from row to row.
RAMP = (np.arange(40)[None, :] * 6 + np.arange(48)[:, None] // 3).astype(np.uint8)


def png(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", **options)
    return stream.getvalue()


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=100, subsampling=0, **options)
    return stream.getvalue()


def dataset(pixels: np.ndarray, *, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A film as a detector would write it: MONOCHROME2, 12 bits where the pixels have 16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken files pydicom warns also those who write them on purpose
        return _dataset(pixels, syntax, elements)


def _dataset(pixels: np.ndarray, syntax: UID, elements: dict[str, Any]) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.PatientName, made.PatientID, made.PatientBirthDate = SECRET, SECRET, "19700101"
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    made.Modality = "DX"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = 12 if pixels.dtype.itemsize == 2 else 8
    for name, value in elements.items():
        setattr(made, name, value)
    made.HighBit = made.BitsStored - 1
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    return made


def dicom(pixels: np.ndarray | Dataset, **elements: Any) -> bytes:
    made = pixels if isinstance(pixels, Dataset) else dataset(pixels, **elements)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, made, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes into a file, whose name says nothing of them."""

    def write(content: bytes, name: str = "film.bin") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def seen(path: Path) -> np.ndarray:
    image = read(path)
    assert image.mode == "L"
    assert image.info == {}
    return np.asarray(image)


def reason(path: Path | str) -> str:
    with pytest.raises(FilmError) as raised:
        read(path)
    error = raised.value
    assert error.where == os.fspath(path)
    assert error.reason in refusal.REASONS
    assert error.hint
    assert SECRET not in str(error)
    return error.reason


# ---------------------------------------------------------------------------------------------------- PNG and JPEG


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_a_png_of_any_kind_shows_its_grey_values(film: Callable[..., Path], mode: str) -> None:
    grey = Image.fromarray(RAMP)
    image = Image.fromarray(RAMP.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    stretched = 255 * (RAMP.astype(float) - RAMP.min()) / (int(RAMP.max()) - int(RAMP.min()))
    assert_allclose(seen(film(png(image))), stretched if mode == "I;16" else RAMP, atol=1)


def test_one_bit_is_black_and_white(film: Callable[..., Path]) -> None:
    assert_array_equal(seen(film(png(Image.fromarray(RAMP > 100)))), np.where(RAMP > 100, 255, 0))


def test_twelve_bits_in_sixteen_are_not_dark_and_dead_pixels_do_not_decide(film: Callable[..., Path]) -> None:
    pixels = np.tile(RAMP.astype(np.uint16) * 16, (20, 20))
    plain = seen(film(png(Image.fromarray(pixels)))).copy()
    assert (plain.min(), plain.max()) == (0, 255)
    pixels[5, 5] = 65535
    plain[5, 5] = 255
    assert_allclose(seen(film(png(Image.fromarray(pixels)))).astype(int), plain, atol=1)
    assert seen(film(png(Image.fromarray(np.full((9, 9), 700, np.uint16))))).max() == 0


def test_what_is_transparent_is_black(film: Callable[..., Path]) -> None:
    image = Image.fromarray(RAMP).convert("LA")
    image.putalpha(Image.fromarray(np.where(np.arange(40) < 20, 0, 255).astype(np.uint8)[None, :].repeat(48, 0)))
    expected = np.where(np.arange(40) < 20, 0, RAMP)
    assert_array_equal(seen(film(png(image))), expected)
    palette = Image.fromarray(np.array([[0, 1]] * 4, dtype=np.uint8), mode="P")
    palette.putpalette([200, 200, 200, 90, 90, 90])
    assert seen(film(png(palette, transparency=0))).tolist() == [[0, 90]] * 4
    assert seen(film(png(palette, transparency=b"\xff\x00"))).tolist() == [[200, 0]] * 4


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_any_kind_shows_its_grey_values(film: Callable[..., Path], mode: str) -> None:
    assert_allclose(seen(film(jpeg(Image.fromarray(RAMP).convert("RGB").convert(mode)))).astype(int), RAMP, atol=3)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(1, RAMP), (2, np.fliplr(RAMP)), (3, np.rot90(RAMP, 2)), (6, np.rot90(RAMP, 1)), (8, np.rot90(RAMP, -1))],
)
@pytest.mark.parametrize("write", [png, jpeg])
def test_a_turned_photo_stands_upright(
    film: Callable[..., Path], write: Callable[..., bytes], orientation: int, stored: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = write(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    assert_allclose(seen(film(photo)).astype(int), RAMP, atol=3)


def test_a_broken_exif_costs_no_film(film: Callable[..., Path]) -> None:
    for broken in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9):
        assert_allclose(seen(film(jpeg(Image.fromarray(RAMP), exif=broken))).astype(int), RAMP, atol=3)


def test_a_photo_that_brings_a_small_version_of_itself_is_a_film(film: Callable[..., Path]) -> None:
    stream = io.BytesIO()
    image = Image.fromarray(RAMP)
    image.save(stream, format="MPO", save_all=True, append_images=[image.resize((20, 24))], quality=100)
    assert_allclose(seen(film(stream.getvalue())).astype(int), RAMP, atol=3)


# ----------------------------------------------------------------------------------------------------------- DICOM

TWELVE = np.linspace(0, 4095, 48 * 40).astype(np.uint16).reshape(48, 40)


def shown(film: Callable[..., Path], pixels: np.ndarray = TWELVE, **elements: Any) -> np.ndarray:
    return seen(film(dicom(pixels, **elements)))


def linear(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_window_is_what_is_seen(film: Callable[..., Path], syntax: UID) -> None:
    pixels = TWELVE.byteswap() if syntax == ExplicitVRBigEndian else TWELVE
    made = dicom(pixels, syntax=syntax, WindowCenter=1000, WindowWidth=1001)
    # PS3.3 C.11.2.1.2: from c - 0.5 - (w - 1)/2 to c - 0.5 + (w - 1)/2
    assert_allclose(seen(film(made)), linear(TWELVE, 499.5, 1499.5), atol=1)


def test_the_first_of_several_windows_counts(film: Callable[..., Path]) -> None:
    several = shown(film, WindowCenter=[1000, 3000], WindowWidth=[1001, 50])
    assert_array_equal(several, shown(film, WindowCenter=1000, WindowWidth=1001))


def test_other_window_functions(film: Callable[..., Path]) -> None:
    exact = shown(film, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert_allclose(exact, linear(TWELVE, 1500, 2500), atol=1)
    sigmoid = shown(film, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    assert_allclose(sigmoid, 255 / (1 + np.exp(-4 * (TWELVE - 2000.0) / 1000)), atol=1)


def test_low_is_bright_in_monochrome1_and_is_turned_once(film: Callable[..., Path]) -> None:
    plain = shown(film, WindowCenter=1000, WindowWidth=1001)
    for told in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"PresentationLUTShape": "INVERSE"},
    ):
        turned = shown(film, WindowCenter=1000, WindowWidth=1001, **told)
        assert_allclose(turned.astype(int), 255 - plain.astype(int), atol=1)


@pytest.mark.parametrize("slope", [2, -2])
def test_rescaling_comes_before_the_window(film: Callable[..., Path], slope: int) -> None:
    scaled = TWELVE.astype(float) * slope + 100
    given = {"RescaleSlope": slope, "RescaleIntercept": 100, "WindowCenter": slope * 1000, "WindowWidth": 2001}
    assert_allclose(shown(film, **given), linear(scaled, slope * 1000 - 1000.5, slope * 1000 + 999.5), atol=1)
    del given["WindowCenter"], given["WindowWidth"]
    assert_allclose(shown(film, **given), linear(scaled, scaled.min(), scaled.max()), atol=2)


def test_signed_pixels(film: Callable[..., Path]) -> None:
    pixels = TWELVE.astype(np.int16) - 2048
    assert_allclose(shown(film, pixels, WindowCenter=0, WindowWidth=2001), linear(pixels, -1000.5, 999.5), atol=1)


def lut(entries: list[int], first: int, bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", vr, entries if vr == "US" else struct.pack(f"<{len(entries)}H", *entries))
    return item


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_lut_counts_more_than_a_window(film: Callable[..., Path], vr: str) -> None:
    table = lut([int(4095 * (n / 2047) ** 2) for n in range(2048)], 1000, 16, vr)  # of its 16 bits it uses 12
    made = shown(film, VOILUTSequence=[table], WindowCenter=1000, WindowWidth=1001)
    inside = np.clip(TWELVE.astype(float) - 1000, 0, 2047)
    assert_allclose(made, 255 * (inside / 2047) ** 2, atol=1)


def test_a_modality_lut(film: Callable[..., Path]) -> None:
    table = lut([4095 - n for n in range(4096)], 0, 16)
    made = shown(film, ModalityLUTSequence=[table], WindowCenter=1000, WindowWidth=1001)
    assert_allclose(made, linear(4095 - TWELVE.astype(float), 499.5, 1499.5), atol=1)


BROKEN_WINDOWS = (
    {"WindowCenter": 1000},
    {"WindowCenter": 1000, "WindowWidth": 0},
    {"WindowCenter": None, "WindowWidth": None},
    {"WindowCenter": 90000, "WindowWidth": 10},  # every pixel is black in it
    {"WindowCenter": [], "WindowWidth": []},
    {"VOILUTSequence": [Dataset()]},
    {"VOILUTSequence": [lut([7] * 4096, 0, 16)]},
    {"WindowCenter": 1000, "WindowWidth": 1001, "VOILUTFunction": "CUBIC"},
    {"RescaleSlope": 0, "RescaleIntercept": 5, "WindowCenter": 1000, "WindowWidth": 1001},
)


@pytest.mark.parametrize("told", BROKEN_WINDOWS)
def test_where_the_window_shows_nothing_all_values_are_shown(film: Callable[..., Path], told: dict[str, Any]) -> None:
    made = shown(film, **told)
    if told.get("RescaleSlope") == 0:  # the film itself is said to be of one value
        assert len(np.unique(made)) == 1
    else:
        assert_allclose(made, linear(TWELVE, 0, 4095), atol=2)


def test_eight_bits_without_a_window_stay_as_they_are(film: Callable[..., Path]) -> None:
    assert_array_equal(shown(film, RAMP), RAMP)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_decides_nothing(film: Callable[..., Path], photometric: str) -> None:
    pixels = TWELVE // 4 + 500
    plain = shown(film, pixels, PhotometricInterpretation=photometric)
    framed = pixels.copy()
    framed[:, :4] = 4095
    made = shown(film, framed, PhotometricInterpretation=photometric, PixelPaddingValue=4095)
    assert made[:, :4].max() == 0
    assert_allclose(made[:, 4:].astype(int), plain[:, 4:], atol=2)
    framed[:, :2] = 4000
    made = shown(
        film,
        framed,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=4000,
        PixelPaddingRangeLimit=4095,
    )
    assert made[:, :4].max() == 0


def test_the_padding_of_signed_pixels_may_be_written_unsigned(film: Callable[..., Path]) -> None:
    pixels = TWELVE.astype(np.int16) // 4
    pixels[:, :4] = -2000
    made = dataset(pixels, syntax=ImplicitVRLittleEndian)
    made.add_new("PixelPaddingValue", "US", 65536 - 2000)
    whole = seen(film(dicom(made)))
    assert whole[:, :4].max() == 0
    assert_allclose(whole[:, 4:], linear(pixels[:, 4:], 0, 1023), atol=2)


@pytest.mark.parametrize(
    ("elements", "size"),
    [
        ({"PixelAspectRatio": [2, 1]}, (40, 96)),
        ({"PixelSpacing": [0.1, 0.2]}, (80, 48)),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, (40, 48)),
        ({"PixelSpacing": [0, 0.2]}, (40, 48)),
        ({"PixelSpacing": [0.1, 10]}, (40, 48)),  # somebody mistyped
    ],
)
def test_pixels_become_square(film: Callable[..., Path], elements: dict[str, Any], size: tuple[int, int]) -> None:
    assert read(film(dicom(TWELVE, **elements))).size == size


def test_colour_scans_become_grey(film: Callable[..., Path]) -> None:
    assert_allclose(shown(film, np.stack([RAMP] * 3, axis=2)), RAMP, atol=1)
    deep = np.stack([RAMP.astype(np.uint16) * 257] * 3, axis=2)
    assert_allclose(shown(film, deep, BitsStored=16), RAMP, atol=1)
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = struct.pack("<256H", *(257 * (255 - n) for n in range(256)))
    assert_allclose(shown(film, RAMP, **palette), 255 - RAMP, atol=1)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_without_loss_is_the_same_film(film: Callable[..., Path], syntax: UID) -> None:
    made = dataset(TWELVE, WindowCenter=1000, WindowWidth=1001)
    plain = seen(film(dicom(made)))
    made.compress(syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    assert_array_equal(seen(film(dicom(made))), plain)


def test_a_jpeg_inside_dicom(film: Callable[..., Path]) -> None:
    made = dataset(RAMP, syntax=JPEGBaseline8Bit)
    made.PixelData = encapsulate([jpeg(Image.fromarray(RAMP))])
    assert_allclose(seen(film(dicom(made))).astype(int), RAMP, atol=3)


@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGExtended.dcm", "JPEGLSNearLossless_16.dcm"])
def test_the_other_jpegs_of_hospitals(film: Callable[..., Path], name: str) -> None:
    found = REAL / name if (REAL / name).exists() else Path(str(pydicom.data.get_testdata_file(name)))
    made = pydicom.dcmread(found)
    made.Modality = "DX"  # they are scintigrams
    assert len(np.unique(seen(film(dicom(made))))) > 5


def test_a_real_film_in_three_encodings() -> None:
    """RG1: MONOCHROME1, 15 bits, 1955 rows of 1841 pixels."""
    plain = read(REAL / "RG1_UNCR.dcm")
    assert plain.size == (1841, 1955)
    assert_array_equal(np.asarray(read(REAL / "RG1_J2KR.dcm")), np.asarray(plain))  # without loss
    small, lossy = (np.asarray(fit(film).convert("L")).astype(int) for film in (plain, read(REAL / "RG1_J2KI.dcm")))
    assert abs(small - lossy).mean() < 1
    height, width = small.shape
    lung = small[height // 4 : height // 2, width // 5 : width // 3]
    spine = small[height // 2 : 3 * height // 4, 9 * width // 20 : 11 * width // 20]
    assert lung.mean() + 40 < spine.mean()  # lungs dark, bones white
    assert view(REAL / "RG1_UNCR.dcm") == "PA"


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "ap "}, "AP"),
        ({"ViewPosition": "LL"}, "LAT"),
        ({"ViewPosition": "LLD"}, "other"),
        ({"ViewPosition": SECRET[:16]}, "other"),
        ({"ViewPosition": ""}, None),
        ({}, None),
    ],
)
def test_the_view_that_a_file_tells(film: Callable[..., Path], elements: dict[str, str], expected: str | None) -> None:
    assert view(film(dicom(TWELVE, **elements))) == expected


def test_the_view_as_a_code_and_of_other_files(film: Callable[..., Path]) -> None:
    known = {"AnteroPosterior": "AP", "PosteroAnterior": "PA", "RightLateral": "LAT", "LeftLateral": "LAT"}
    for name, expected in {**known, "LateralProjection": "LAT", "LeftOblique": "other"}.items():
        code, told = getattr(codes.cid4010, name), Dataset()
        told.CodeValue, told.CodingSchemeDesignator, told.CodeMeaning = code.value, code.scheme_designator, code.meaning
        assert view(film(dicom(TWELVE, ViewCodeSequence=[told]))) == expected
    assert view(film(png(Image.fromarray(RAMP)))) is None
    assert view(film(dicom(TWELVE, ViewPosition="PA")[:900])) == "PA"  # no pixels are read
    with pytest.raises(FilmError):
        view("not-there.dcm")


# -------------------------------------------------------------------------------------------------------- refusals


def header_only(width: int, height: int, *, colour: int = 2) -> bytes:
    """A PNG that says how large it is and has next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def large_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header says another size than it has."""
    made = bytearray(jpeg(Image.fromarray(RAMP)))
    at = made.index(b"\xff\xc0")
    made[at + 5 : at + 9] = struct.pack(">2H", height, width)
    return bytes(made)


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(np.roll(RAMP, n, axis=1)) for n in range(3)]
    frames[0].save(stream, format="PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def as_format(name: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RAMP).save(stream, format=name)
    return stream.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


def encapsulated(syntax: UID, frame: bytes, **elements: Any) -> bytes:
    made = dataset(TWELVE, syntax=syntax, **elements)
    made.PixelData = encapsulate([frame])
    return dicom(made)


def without(keyword: str) -> bytes:
    made = dataset(TWELVE)
    delattr(made, keyword)
    return dicom(made)


def renamed(content: bytes, syntax: UID) -> bytes:
    """`content`, of a transfer syntax that nobody knows."""
    return content.replace(syntax.encode(), b"9" + syntax.encode()[1:])


def overlong() -> bytes:
    """RLE whose runs go on behind the last pixel."""
    made = bytearray(compressed(RLELossless))
    start = made.index(b"\xfe\xff\x00\xe0", made.rindex(b"\xe0\x7f\x10\x00") + 24)
    made[start + 72] = 0x81  # the first run, of 128
    return bytes(made)


NOISE = np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)
PNG, JPEG, DICOM = png(Image.fromarray(NOISE)), jpeg(Image.fromarray(NOISE)), dicom(TWELVE)

REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "no bytes": ("empty", lambda: b""),
    "text": ("not-an-image", lambda: b"study,report\n" * 99),
    "noise": ("not-an-image", lambda: NOISE.tobytes()),
    "a GIF": ("unsupported", lambda: as_format("GIF")),
    "a TIFF": ("unsupported", lambda: as_format("TIFF")),
    "a WebP": ("unsupported", lambda: as_format("WebP")),
    "a BMP": ("unsupported", lambda: as_format("BMP")),
    "a JPEG 2000": ("unsupported", lambda: as_format("JPEG2000")),
    "DICOM without its header": ("unsupported", lambda: b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + DICOM[400:]),
    "half a PNG": ("truncated", lambda: PNG[: len(PNG) // 2]),
    "the start of a PNG": ("truncated", lambda: PNG[:20]),
    "half a JPEG": ("truncated", lambda: JPEG[: len(JPEG) // 2]),
    "the start of a JPEG": ("truncated", lambda: JPEG[:4]),
    "a PNG with one wrong bit": ("damaged", lambda: flipped(PNG, len(PNG) // 2)),
    "a PNG of no width": ("damaged", lambda: header_only(0, 5)),
    "half a DICOM": ("truncated", lambda: DICOM[: len(DICOM) // 2 + 400]),
    "half a compressed DICOM": ("truncated", lambda: (REAL / "RG3_J2KI.dcm").read_bytes()[:90_000]),
    "a huge PNG": ("too-large", lambda: header_only(60_000, 60_000)),
    "a PNG that Pillow would warn of": ("too-large", lambda: header_only(10_000, 10_000)),
    "a huge JPEG": ("too-large", lambda: large_jpeg(65_000, 65_000)),
    "a huge DICOM": ("too-large", lambda: dicom(TWELVE, Rows=60_000, Columns=60_000)),
    "a strip": ("too-narrow", lambda: png(Image.new("L", (10, 900)))),
    "an animation": ("animated", animation),
    "several frames": ("multi-frame", lambda: dicom(TWELVE, NumberOfFrames=2)),
    "a CT slice": ("not-a-film", lambda: dicom(TWELVE, Modality="CT")),
    "no pixels": ("no-pixels", lambda: without("PixelData")),
    "no rows": ("damaged", lambda: without("Rows")),
    "no columns": ("damaged", lambda: dicom(TWELVE, Columns=0)),
    "32 bits": ("unsupported", lambda: dicom(TWELVE, BitsAllocated=32)),
    "a film of CMYK": ("unsupported", lambda: dicom(TWELVE, SamplesPerPixel=4)),
    "an unknown way of colours": ("damaged", lambda: dicom(TWELVE, PhotometricInterpretation="MONOCHROME9")),
    "a deflated file": ("unsupported", lambda: dicom(dataset(TWELVE, syntax=DeflatedExplicitVRLittleEndian))),
    "RLE that goes on": ("damaged", overlong),
    "a JPEG of other channels": ("damaged", lambda: encapsulated(JPEGBaseline8Bit, jpeg(Image.new("RGB", (40, 48))))),
    "a video": ("unsupported", lambda: encapsulated(MPEG2MPML, b"\0\0\1\xb3" * 9)),
    "an unknown transfer syntax": ("unsupported", lambda: renamed(encapsulated(RLELossless, b"\0" * 90), RLELossless)),
    "a JPEG larger than it should be": ("damaged", lambda: encapsulated(JPEGBaseline8Bit, large_jpeg(65_000, 65_000))),
    "no JPEG where there should be one": ("damaged", lambda: encapsulated(JPEGBaseline8Bit, b"\xff\xd8\xff\xd9")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(film: Callable[..., Path], name: str) -> None:
    expected, content = REFUSED[name]
    assert reason(film(content())) == expected


def test_refused_places(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.png") == "missing"
    assert reason(tmp_path / ("n" * 300)) == "missing"
    assert reason(f"{tmp_path}/a\0b") == "missing"
    assert reason(f"{tmp_path}/half-\udc00-a-letter") == "missing"
    (tmp_path / "film.png").write_bytes(PNG)
    assert reason(tmp_path / "film.png" / "deeper.png") == "missing"
    assert reason(tmp_path) == "not-a-file"
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "not-a-file"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert reason(tmp_path / "loop") == "link-loop"
    with open(tmp_path / "long", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert reason(tmp_path / "long") == "too-large"


def test_refused_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(PNG)
    path.chmod(0)
    if os.access(path, os.R_OK):  # as root nothing is forbidden: here the system says no itself
        path = Path("/proc/self/mem")
        if not path.exists():
            pytest.skip("nothing is forbidden here")
    assert reason(path) in ("unreadable", "empty")


def test_every_reason_has_a_test() -> None:
    tested = {expected for expected, _ in REFUSED.values()}
    assert tested | {"missing", "link-loop", "not-a-file", "unreadable"} == set(refusal.REASONS)


def test_a_refusal_survives_the_way_to_another_process() -> None:
    error = FilmError("too-large", where="a.png", told="the picture has 9 x 9 pixels")
    back = pickle.loads(pickle.dumps(error))
    assert (back.reason, back.where, back.what, back.hint) == (error.reason, error.where, error.what, error.hint)
    assert isinstance(back, InputError)


def test_a_missing_decoder_is_no_fault_of_the_film(film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(CxrError, match="needs pydicom") as raised:
        read(film(DICOM))
    assert not isinstance(raised.value, FilmError)
    assert "cxr-reason[dicom]" in str(raised.value)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CxrError, match=r"cxr-reason\[films\]"):
        read(film(PNG))


# ------------------------------------------------------------------------------------------------ hostile, at random

SEEDS = {
    "png": PNG,
    "jpeg": JPEG,
    "deep png": png(Image.fromarray(TWELVE)),
    "dicom": DICOM,
    "jpeg in dicom": encapsulated(JPEGBaseline8Bit, JPEG, Rows=60, Columns=50, BitsAllocated=8, BitsStored=8),
}


@cache
def compressed(syntax: UID) -> bytes:
    made = dataset(TWELVE)
    made.compress(syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return dicom(made)


@pytest.fixture(scope="module")
def decoders() -> None:
    """Loads what decodes films, which takes a second of its own where the machine is busy."""
    for content in SEEDS.values():
        reading.decoded(content, where="film")


def survives(content: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(FilmError):
        assert reading.decoded(content, where="film").mode == "L"
    assert time.process_time() - started < 1


@pytest.mark.usefixtures("decoders")
@inputs(300)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0" * 128 + b"DICM"]))
def test_random_bytes_are_refused_or_read(content: bytes, start: bytes) -> None:
    survives(start + content)


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("name", [*SEEDS, "rle", "jpeg 2000"])
def test_files_with_wrong_bytes_are_refused_or_read(name: str) -> None:
    syntaxes = {"rle": RLELossless, "jpeg 2000": JPEG2000Lossless}
    whole = SEEDS.get(name) or compressed(syntaxes[name])

    @inputs(150)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=12), st.integers(0, 40))
    def mutated(changes: list[tuple[int, int]], cut: int) -> None:
        content = bytearray(whole)
        for at, value in changes:
            # Half of the changes go to the headers: the pixels are the larger part of a file, but not of its dangers.
            content[at if at % 2 else at % 700 % len(content)] = value
        survives(bytes(content[: len(content) - cut * len(content) // 80]))

    mutated()


BOMBS = """
import io, resource, sys, time
sys.path.insert(0, "tests")
import test_films as t
from cxr_reason.films import FilmError, reading
for content in (t.DICOM, t.PNG, t.compressed(t.RLELossless), t.compressed(t.JPEG2000Lossless)):
    reading.decoded(content, where="warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for content in t.bombs():
    started = time.process_time()
    try:
        reading.decoded(content, where="bomb")
    except FilmError:
        pass
    assert time.process_time() - started < 1, time.process_time() - started
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def bombs() -> Iterator[bytes]:
    """Small files that want gigabytes, or minutes."""
    yield header_only(60_000, 60_000)
    yield header_only(5_700, 5_700, colour=6)  # just within the limit, and empty
    yield large_jpeg(65_000, 65_000)
    yield large_jpeg(5_700, 5_700)
    yield dicom(TWELVE, Rows=65_535, Columns=65_535, NumberOfFrames=1)
    yield dicom(TWELVE, Rows=5_000, Columns=5_000)
    yield encapsulated(JPEGBaseline8Bit, large_jpeg(65_000, 65_000))
    yield encapsulated(
        RLELossless, struct.pack("<16L", 2, 64, 66, *[0] * 13) + b"\x81\0" * 4_000_000
    )  # 500 MB of zeros
    made = bytearray(compressed(JPEG2000Lossless))
    at = made.index(b"\xff\x4f\xff\x51")
    made[at + 8 : at + 16] = struct.pack(">2I", 60_000, 60_000)
    yield bytes(made)
    packed = zlib.compressobj(wbits=-15)
    zeros = b"".join(packed.compress(b"\0" * (1 << 20)) for _ in range(500)) + packed.flush()
    deflated = dicom(dataset(TWELVE, syntax=DeflatedExplicitVRLittleEndian))
    end = 144 + struct.unpack("<I", deflated[140:144])[0]
    yield deflated[:end] + zeros
    yield png(Image.new("L", (8, 8)), pnginfo=text_bomb())


def text_bomb() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for number in range(40):
        info.add_text(f"key {number}", "A" * 1_000_000, zip=True)
    return info


def test_small_files_that_want_much_memory_do_not_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMBS], capture_output=True, encoding="utf-8", env=environment(), cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300  # MB


# --------------------------------------------------------------------------------------------------------- fitting


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([MAX_PIXELS, 5000, 1]), st.sampled_from([1, 28]))
def test_a_fitted_film_is_small_enough_and_in_proportion(width: int, height: int, most: int, multiple: int) -> None:
    new_width, new_height = fitted(width, height, max_pixels=most, multiple=multiple)
    assert new_width % multiple == new_height % multiple == 0
    assert new_width * new_height <= max(most, multiple * max(new_width, new_height))
    assert new_width <= max(width, multiple)
    assert new_height <= max(height, multiple)
    if multiple == 1 and min(new_width, new_height) > 1:
        assert abs(new_width / new_height / (width / height) - 1) <= 1 / min(new_width, new_height)


def test_small_films_are_left_alone_and_large_ones_are_smoothed() -> None:
    small = Image.fromarray(RAMP)
    assert_array_equal(np.asarray(fit(small))[:, :, 0], RAMP)
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (2000, 1000)))
    fine = np.asarray(fit(stripes))
    assert fine.shape == (448, 448, 3)
    assert abs(fine[9:-9, 9:-9].astype(int) - 127).max() < 12  # grey, not a pattern


# ---------------------------------------------------------------------------------------------- films and the cache


def test_films_of_a_record_lie_where_its_input_does(tmp_path: Path) -> None:
    for number, folder in enumerate(("in", "root")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png(Image.new("L", (8, 8), 40 + number)))
    (tmp_path / "in" / "b.dcm").write_bytes(dicom(RAMP))
    record = {"images": ["a.png", {"path": "b.dcm", "view": "PA"}]}
    first, second = Films().of(record, base=tmp_path / "in")
    assert (first.mode, first.size, first.getpixel((0, 0))) == ("RGB", (8, 8), (40, 40, 40))
    assert_array_equal(np.asarray(second)[:, :, 2], RAMP)
    rooted = Films(root=tmp_path / "root")
    assert rooted.of({"images": ["a.png"]}, base=tmp_path / "in")[0].getpixel((0, 0)) == (41, 41, 41)
    assert rooted.paths({"images": [str(tmp_path / "in" / "a.png")]}, base=None) == [tmp_path / "in" / "a.png"]
    assert Films().of({"images": None}, base=None) == Films().of({}, base=None) == []
    for record in ({"images": [""]}, {"images": [{"view": "PA"}]}, {"images": [7]}):
        with pytest.raises(FilmError, match="no path"):
            Films().of(record, base=None)


def test_a_film_is_what_it_is_without_a_cache(tmp_path: Path, film: Callable[..., Path]) -> None:
    path = film((REAL / "RG3_UNCI.dcm").read_bytes())
    films = Films(cache=tmp_path / "cache", max_pixels=64 * 64)
    made, kept = (np.asarray(Films(cache=tmp_path / "cache", max_pixels=64 * 64).open(path)) for _ in range(2))
    assert_array_equal(made, np.asarray(fit(read(path), max_pixels=64 * 64)))
    assert_array_equal(kept, made)
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(films)).open(path)), made)
    films.open(path).paste(0, (0, 0, 9, 9))  # one's own picture
    assert_array_equal(np.asarray(films.open(path)), made)


def kept_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_cache_tells_films_by_content_and_setting(tmp_path: Path, film: Callable[..., Path]) -> None:
    one, same, other = film(PNG, "one"), film(PNG, "same"), film(JPEG, "other")
    for path in (one, same, other):
        Films(cache=tmp_path / "cache").open(path)
    assert len(kept_in(tmp_path / "cache")) == 2
    Films(cache=tmp_path / "cache", max_pixels=900).open(one)
    (small,) = kept_in(tmp_path / "cache" / "v1-900")
    with open(one, "rb") as file:
        assert small.stem == digest(file)
    # What is asked for again is not made again: the cache is believed.
    small.write_bytes(png(Image.new("L", (5, 5), 77)))
    assert Films(cache=tmp_path / "cache", max_pixels=900).open(same).getpixel((2, 2)) == (77, 77, 77)
    one.write_bytes(JPEG)  # another film
    assert Films(cache=tmp_path / "cache", max_pixels=900).open(one).size != (5, 5)


@pytest.mark.parametrize("torn", [b"", PNG[:30], b"no picture"])
def test_a_torn_film_is_made_anew(tmp_path: Path, film: Callable[..., Path], torn: bytes) -> None:
    path = film(PNG)
    expected = np.asarray(Films(cache=tmp_path / "cache").open(path))
    (kept,) = kept_in(tmp_path / "cache")
    whole = kept.read_bytes()
    kept.write_bytes(torn)
    assert_array_equal(np.asarray(Films(cache=tmp_path / "cache").open(path)), expected)
    assert kept.read_bytes() == whole


def test_processes_share_a_cache(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(png(Image.fromarray(np.roll(NOISE, number))))
    script = (
        "import sys; from pathlib import Path; from cxr_reason.films import Films\n"
        "films = Films(root=Path(sys.argv[1]), cache=Path(sys.argv[1]) / 'cache', max_pixels=900)\n"
        "record = {'images': [f'{number}.png' for number in range(12)]}\n"
        "print(hash(b''.join(film.tobytes() for film in films.of(record, base=None))))"
    )
    env = environment(PYTHONHASHSEED="1")
    commands = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen(commands, stdout=subprocess.PIPE, env=env) for _ in range(4)]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(said) == 1
    assert len(kept_in(tmp_path / "cache")) == 12


def test_a_full_disk_is_said_once_and_stops_nothing(
    tmp_path: Path, film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(film_cache.os, "replace", full)
    console.reset()
    films = Films(cache=tmp_path / "cache")
    for content in (PNG, JPEG, DICOM):
        films.open(film(content))
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert kept_in(tmp_path / "cache") == []


def test_a_cache_that_can_not_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be kept"):
        Films(cache=tmp_path / "file" / "cache")


# --------------------------------------------------------------------------------------------------------- privacy


def personal() -> dict[str, bytes]:
    """The same name wherever a film can hold one."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", SECRET)
    info.add_itxt("Comment", SECRET)
    exif = Image.Exif()
    exif[0x010E] = SECRET
    grey = Image.fromarray(RAMP)
    item = Dataset()
    item.PatientName = SECRET
    texts = {"StudyDescription": SECRET, "ImageComments": SECRET, "OtherPatientIDsSequence": [item]}
    broken = dataset(TWELVE, **texts, StudyDate="not a date", SeriesDescription=SECRET)
    return {
        "a.png": png(grey, pnginfo=info, exif=exif),
        "b.jpg": jpeg(grey, exif=exif, comment=SECRET.encode()),
        "c.dcm": dicom(TWELVE, **texts),
        "d.dcm": dicom(broken)[:-100],
        "e.dcm": dicom(TWELVE, **texts, PhotometricInterpretation=SECRET[:16]),
        "f.dcm": dicom(TWELVE, **texts, WindowCenter=1, WindowWidth=0, PresentationLUTShape=SECRET[:16]),
    }


def test_no_name_leaves_a_film(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], recwarn: Any
) -> None:
    told = []
    films = Films(cache=tmp_path / "cache")
    files = personal()
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    recwarn.clear()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert SECRET.encode()[:16] in content
        for work in (films.open, read, view):
            try:
                made = work(tmp_path / name)  # type: ignore[operator]
                told.append(pickle.dumps(made) if isinstance(made, Image.Image) else str(made).encode())
            except FilmError as error:
                told += [str(error).encode(), pickle.dumps(error)]
    told += [path.read_bytes() for path in kept_in(tmp_path / "cache")]
    told += [caplog.text.encode(), *capsys.readouterr().out.encode().splitlines(), *map(str.encode, map(str, recwarn))]
    assert len(told) > 20
    assert not [one for one in told if SECRET.encode()[:8] in one]


def test_names_do_not_reach_the_page_or_the_messages_of_a_command(cxr: Run, tmp_path: Path) -> None:
    for name, content in personal().items():
        (tmp_path / name).write_bytes(content)
    source = predictions(tmp_path, [[name] for name in personal()])
    page = tmp_path / "page.html"
    done = cxr("score", str(source), "--html", str(page), "--films", "thumbnail", "-v")
    assert done.returncode == 0, done.stderr
    assert SECRET[:8] not in done.stdout + done.stderr + page.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- films on the page


def predictions(folder: Path, images: list[list[Any]]) -> Path:
    """Records with a prediction, one for each list of images."""
    lines = (ROOT / "examples" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[: len(images)]]
    path = folder / "predictions.jsonl"
    path.write_text("".join(json.dumps({**r, "images": i}) + "\n" for r, i in zip(records, images, strict=True)))
    return path


def blocks(page: Path) -> dict[str, Any]:
    found = {}
    for part in page.read_text(encoding="utf-8").split('<script type="application/json" id="')[1:]:
        name, _, rest = part.partition('">')
        found[name] = json.loads(rest.partition("</script>")[0])
    return found


IMAGES: list[list[Any]] = [["a.png"], ["a.png", {"path": "b.png", "view": "AP", "portable": True, "role": "prior"}]]
IMAGES += [["gone.png"], [""], ["text.png"], []]


@pytest.fixture(scope="module")
def illustrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("illustrated")
    (folder / "a.png").write_bytes(PNG)
    (folder / "b.png").write_bytes(png(Image.fromarray(np.tile(RAMP, (40, 40)))))
    (folder / "text.png").write_text("study,report")
    source = predictions(folder, IMAGES)
    for kind in ("none", "link", "thumbnail"):
        done = CliRunner().invoke(
            main, ["score", "-q", str(source), "--html", str(folder / f"{kind}.html"), "--films", kind]
        )
        assert done.exit_code == 0, done.output
    return folder


def test_a_page_has_no_films_unless_asked(illustrated: Path) -> None:
    assert "img-src" not in (illustrated / "none.html").read_text()
    assert not [name for name, block in blocks(illustrated / "none.html").items() if "films" in block]


def test_links_lead_to_the_films(illustrated: Path) -> None:
    cases = blocks(illustrated / "link.html")
    assert cases["case-0"]["films"] == [{"label": "film", "link": "a.png"}]
    assert cases["case-1"]["films"][1] == {"label": "prior portable AP", "link": "b.png"}
    assert cases["case-2"]["films"] == [{"label": "film", "missing": "there is no such file"}]
    assert cases["case-5"]["films"] == []


def test_small_pictures_stand_in_the_page_once(illustrated: Path) -> None:
    cases = blocks(illustrated / "thumbnail.html")
    pictures = {name: data for name, data in cases.items() if name.startswith("film-")}
    assert len(pictures) == 2
    assert cases["case-0"]["films"][0]["picture"] == cases["case-1"]["films"][0]["picture"]
    assert [cases[f"case-{n}"]["films"][0].get("missing") for n in (2, 3, 4)] == [
        "there is no such file",
        "an image of the record has no path",
        "this is no PNG, JPEG or DICOM file, whatever its name says",
    ]
    assert all(data.startswith("data:image/webp;base64,") and len(data) < 12_000 for data in pictures.values())


def test_films_of_several_inputs_lie_beside_each(tmp_path: Path) -> None:
    """Each record's paths begin at its own file's folder; a folder of parts takes the place of a file."""
    for site in ("north", "south"):
        (tmp_path / site).mkdir()
        (tmp_path / site / f"{site}.png").write_bytes(PNG)
        predictions(tmp_path / site, [[f"{site}.png"]])
    south = tmp_path / "south"
    records = CliRunner().invoke(main, ["refine", "-q", str(south / "predictions.jsonl"), "-o", f"{south / 'parts'}/"])
    assert records.exit_code == 0, records.output
    inputs = [str(tmp_path / "north" / "predictions.jsonl"), str(south / "parts")]
    page = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["score", "-q", *inputs, "--html", str(page), "--films", "link"])
    assert done.exit_code == 0, done.output
    links = [case["films"][0].get("link") for name, case in blocks(page).items() if name.startswith("case-")]
    assert links == ["north/north.png", "south/south.png"]


def test_where_relative_paths_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/chains").mkdir(parents=True)
    assert folder_of("data/chains/part-00000.parquet", ["data/chains"]) == Path("data")
    assert folder_of("data/chains//part-00000.parquet", ["x.jsonl", "data/chains/"]) == Path("data")
    assert folder_of("data/chains/a.jsonl", ["data/chains/a.jsonl"]) == Path("data/chains")
    monkeypatch.chdir("data/chains")
    assert folder_of("./part-00000.parquet", ["."]) == Path("..")
    assert folder_of("<stdin>", []) == Path()


def test_films_without_a_page_are_a_mistake(cxr: Run) -> None:
    done = cxr("score", "examples/predictions.jsonl", "--films", "link", cwd=ROOT)
    assert done.returncode == 2
    assert "--html" in done.stderr


@pytest.mark.xdist_group("browser")
def test_the_browser_shows_what_the_page_may_show(illustrated: Path) -> None:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto((illustrated / "thumbnail.html").as_uri())
        tab.wait_for_selector("#case h3")
        tab.keyboard.press("j")
        tab.wait_for_selector(".films img >> nth=1")
        widths = tab.eval_on_selector_all(".films img", "images => images.map((image) => image.naturalWidth)")
        assert widths == [50, 233]
        assert tab.locator(".films figcaption").all_inner_texts() == ["film", "prior portable AP"]
        assert said == []
        browser.close()


# ------------------------------------------------------------------------------------------------------------ manners


def test_the_options_of_commands_that_read_films(tmp_path: Path) -> None:
    given: list[Films] = []

    @click.command()
    @film_options
    def command(films: Films) -> None:
        given.append(films)

    def run(*flags: str) -> int:
        return CliRunner().invoke(command, flags).exit_code

    assert run() == 0
    assert run("--max-pixels", "100x60", "--image-root", "films", "--film-cache", str(tmp_path / "kept")) == 0
    assert run("--max-pixels", "50000") == 0
    assert [(films.root, films.max_pixels) for films in given] == [
        (None, MAX_PIXELS),
        (Path("films"), 6000),
        (None, 50000),
    ]
    assert (tmp_path / "kept").is_dir()
    for wrong in ("0", "0x9", "-3x-3", "big", "9x", "9x9x9"):
        assert run("--max-pixels", wrong) == 2


def test_films_are_read_in_threads_without_a_word(
    film: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    palette = Image.fromarray(RAMP).convert("P")
    path = film(png(palette, transparency=b"\xff" * 9))  # Pillow would warn of it
    expected = seen(path)
    filters = list(warnings.filters)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                assert_array_equal(seen(path), expected)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert warnings.filters == filters
    assert capsys.readouterr().err == ""


def test_nothing_heavy_is_imported_before_a_film_is_read() -> None:
    script = "import sys, cxr_reason.films, cxr_reason.commands._films; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", env=environment())
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"PIL", "numpy", "pydicom", "torch"}


def test_mining_a_table_of_dicoms_reads_no_film(cxr: Run) -> None:
    table = "study_id,images,report\n" + "".join(f"s{n},{n}.dcm,No pleural effusion. Film {n}.\n" for n in range(9))
    done = cxr("mine", "-", stdin=table)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["images"] == ["0.dcm"]


@pytest.mark.skipif(not NIH.exists(), reason="the real films of shared/data/nih64 are not beside this checkout")
def test_real_films_of_an_archive() -> None:
    with open(NIH / "labels.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) > 1000
    paths = sorted((NIH / "images").rglob("*.png"))
    assert len(paths) == 1000
    films = Films()
    for path in paths:
        film = films.open(path)
        assert (film.mode, film.size) == ("RGB", (64, 64))
        assert np.asarray(film).std() > 10
