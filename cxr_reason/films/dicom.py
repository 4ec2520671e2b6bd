"""DICOM: from what a detector stored to what a reader sees (PS3.3 C.7.6.3, C.11.1, C.11.2 and C.11.6).

Stored values go through the modality LUT or rescaling, the first VOI LUT or else the first window, and are inverted
where a low value means bright. The tables' arithmetic is pydicom's. Of the header only the tags below are read: no
name, no date and no text is ever in memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cxr_reason.films import tones
from cxr_reason.films.limits import check_size
from cxr_reason.films.refusal import FilmError, lacks, refusing
from cxr_reason.records import VIEW_NAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

MAGIC, MAGIC_AT = b"DICM", 128

_PIXEL_TAGS = (
    *("PixelData", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "Modality"),
)
_PIXEL_DATA = b"\xe0\x7f\x10\x00"

NOT_FILMS = {
    "CT": "a CT slice",
    "ECG": "an ECG",
    "MG": "a mammogram",
    "MR": "an MR slice",
    "NM": "a scintigram",
    "PT": "a PET slice",
    "RTDOSE": "a dose map",
    "SEG": "a segmentation",
    "US": "an ultrasound picture",
}
"""Modalities that are no radiographs. Whatever else stands there, or nothing, is let through."""

_VIEW_CODES = {
    **{"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA"},
    **dict.fromkeys(("399067008", "399173006", "399198007", "R-10236", "R-10232"), "LAT"),
}
"""Codes of CID 4010, DX View: SNOMED CT, and those that it had before. Any other is `other` too."""

MAX_STRETCH = 4
"""Pixels that are said to be longer than this are taken for square: somebody mistyped."""


def is_dicom(content: bytes) -> bool:
    return content[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def read_dicom(content: bytes, *, where: str) -> Image.Image:
    """The grey picture of a DICOM file, its pixels square. Raises FilmError, CxrError where a decoder is missing."""
    with refusing(where):
        dataset = _header(io.BytesIO(content), _PIXEL_TAGS, where=where)
        if "PixelData" not in dataset:
            raise FilmError("truncated" if _PIXEL_DATA in content else "no-pixels", where=where)
        _check(dataset, where=where)
        shown = _picture(dataset, where=where)
        return _squared(shown, dataset, where=where)


def view_of(content: io.BufferedIOBase, *, where: str) -> str | None:
    """PA, AP, LAT or other; None where the file doesn't say. Reads no pixels."""
    with refusing(where):
        dataset = _header(content, ("ViewPosition", "ViewCodeSequence"), pixels=False, where=where)
        if position := str(dataset.get("ViewPosition") or "").strip().upper():
            return VIEW_NAMES.get(position, "other")
        if codes := dataset.get("ViewCodeSequence"):
            return _VIEW_CODES.get(str(codes[0].get("CodeValue")), "other")
        return None


def _header(content: Any, tags: tuple[str, ...], *, where: str, pixels: bool = True) -> Dataset:
    """The elements `tags` of a file, and nothing else of it."""
    try:
        import pydicom
        from pydicom.filereader import read_dataset
        from pydicom.uid import DeflatedExplicitVRLittleEndian
    except ImportError:
        raise lacks("pydicom", where=where) from None
    content.seek(MAGIC_AT + len(MAGIC))
    meta = read_dataset(content, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = meta["TransferSyntaxUID"].value
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom inflates such a file without a limit.
        raise FilmError("unsupported", where=where, told="the file is deflated, which is not read")
    content.seek(0)
    return pydicom.dcmread(content, stop_before_pixels=not pixels, specific_tags=list(tags))


def _check(dataset: Dataset, *, where: str) -> None:
    """What the header alone can tell."""
    from pydicom.pixels.utils import get_expected_length

    if kind := NOT_FILMS.get(str(dataset.get("Modality"))):
        raise FilmError("not-a-film", where=where, told=f"this is {kind}, not a radiograph")
    _decoder(dataset.file_meta.TransferSyntaxUID, where=where)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise FilmError("multi-frame", where=where, told=f"the file holds {frames:,} frames")
    samples, bits = int(dataset.SamplesPerPixel), int(dataset.BitsAllocated)
    if samples not in (1, 3) or bits not in (1, 8, 16):
        told = f"films of {samples} x {bits} bits a pixel can't be read"
        raise FilmError("unsupported", where=where, told=told)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    check_size(columns, rows, where=where, pixel_bytes=samples * max(1, bits // 8))
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        if len(dataset.PixelData) < get_expected_length(dataset):
            raise FilmError("truncated", where=where)
    elif _codestream_shape(dataset.PixelData) not in (None, (columns, rows, samples)):
        raise FilmError(
            "damaged", where=where, told="the file is damaged: its picture is not of the size that it tells"
        )


def _codestream_shape(pixel_data: bytes) -> tuple[int, int, int] | None:
    """The width, height and channels in the header of a compressed picture: what its decoder will believe.

    None for RLE, which has no header. Raises ValueError or IndexError where there is none in a JPEG of any kind.
    """
    from pydicom.encaps import get_frame

    frame = get_frame(pixel_data, 0, number_of_frames=1)
    if (start := frame[:1024].find(b"\xff\x4f\xff\x51")) >= 0:  # JPEG 2000, in a box or not: SOC and SIZ (15444-1 A.5)
        right, bottom, left, top = (int.from_bytes(frame[start + n : start + n + 4]) for n in (8, 12, 16, 20))
        return right - left, bottom - top, int.from_bytes(frame[start + 40 : start + 42])
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # SOFn; JPEG-LS
            height, width = (int.from_bytes(frame[at + n : at + n + 2]) for n in (5, 7))
            return width, height, frame[at + 9]
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise ValueError("no frame header")


def _picture(dataset: Dataset, *, where: str) -> Image.Image:
    from PIL import Image

    pixels = _decoded(dataset, where=where)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        return Image.fromarray(_shown(pixels, dataset))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        pixels = apply_color_lut(pixels, dataset)
    if pixels.dtype.itemsize > 1:
        bits = 16 if photometric == "PALETTE COLOR" else int(dataset.BitsStored)
        pixels = (pixels >> (bits - 8)).astype("uint8")
    return Image.fromarray(pixels).convert("L")


def _decoded(dataset: Dataset, *, where: str) -> NDArray[np.integer[Any]]:
    """The stored values: rows x columns, of colour scans x 3 in RGB."""
    from pydicom.pixels.utils import pixel_array

    decoder = _decoder(dataset.file_meta.TransferSyntaxUID, where=where)
    # The others that pydicom knows are slower, allocate what a file tells them to, or abort the process.
    plugin = "pylibjpeg" if "pylibjpeg" in decoder.available_plugins else ""
    pixels: NDArray[np.integer[Any]] = pixel_array(dataset, decoding_plugin=plugin, view_only=True)
    return pixels


def _decoder(syntax: UID, *, where: str) -> Decoder:
    """Raises FilmError where nobody reads `syntax`, CxrError where what reads it isn't installed."""
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        told = f"{syntax.name if syntax.is_transfer_syntax else 'its transfer syntax'} can't be read"
        raise FilmError("unsupported", where=where, told=told) from None
    if not decoder.is_available:
        raise lacks(f"a decoder for {syntax.name}", where=where)
    return decoder


def _shown(pixels: NDArray[np.integer[Any]], dataset: Dataset) -> NDArray[np.uint8]:
    """The picture of grey `pixels`. All arithmetic is done on the few values that a pixel can have."""
    import numpy as np

    stored = tones.values_of(pixels.dtype)
    counts = tones.counted(pixels)
    padding = _padding(stored, dataset)
    if padding is not None:
        counts[padding] = 0
    with np.errstate(all="ignore"):
        brightness = _windowed(stored, counts, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
        brightness = 1 - brightness  # once, where both say so, as they should
    if padding is not None:
        brightness[padding] = 0  # black, as around a film
    return tones.painted(pixels, brightness)


def _windowed(stored: NDArray[Any], counts: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """The brightness in [0, 1] of each stored value, as the window wants it.

    Where there is no window, or only a broken one (of no width, or in which every pixel looks the same), all values are
    shown, from the lowest to the highest.
    """
    from pydicom.pixels.processing import apply_modality_lut

    values = _tried(apply_modality_lut, stored, dataset)
    values = stored if values is None else values
    for window in (_voi_lut, _window):
        shown = _tried(window, values, dataset)
        if shown is not None and _tells_apart(shown, values, counts):
            brightness: NDArray[Any] = shown
            return brightness
    bits = int(dataset.BitsStored)
    if bits <= 8 and values is stored and stored.dtype.kind == "u":  # made to be looked at, like a JPEG
        return stored / ((1 << bits) - 1)
    return tones.spread(values, counts)


def _tried(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` gives, None where the tables or numbers that it needs are broken."""
    try:
        return work(*arguments)
    except Exception:
        return None


def _voi_lut(values: NDArray[Any], dataset: Dataset) -> NDArray[Any] | None:
    """The first VOI LUT, from the darkest to the brightest of its entries; None where there is none."""
    import numpy as np
    from pydicom.pixels.processing import apply_voi

    if not dataset.get("VOILUTSequence"):
        return None
    entries, first, _ = dataset.VOILUTSequence[0].LUTDescriptor
    # Its entries often have fewer bits than it says, so their own range counts.
    all_entries = apply_voi(np.arange(first, first + (entries or 1 << 16)), dataset)
    low, high = int(all_entries.min()), int(all_entries.max())
    looked_up: NDArray[Any] = apply_voi(values, dataset)
    return (looked_up.astype(float) - low) / (high - low)


def _window(values: NDArray[Any], dataset: Dataset) -> NDArray[Any] | None:
    """The first window; None where there is none."""
    import numpy as np
    from pydicom.pixels.processing import apply_windowing

    if "WindowCenter" not in dataset and "WindowWidth" not in dataset:
        return None
    low, high = apply_windowing(np.array([-1e12, 1e12]), dataset)
    brightness: NDArray[Any] = (apply_windowing(values, dataset) - low) / (high - low)
    return brightness


def _tells_apart(shown: NDArray[Any], values: NDArray[Any], counts: NDArray[Any]) -> bool:
    """Whether different values of a film are still different when shown."""
    import numpy as np

    there = counts > 0
    if not there.any() or values[there].min() == values[there].max():
        return bool(np.isfinite(shown).all())
    seen = np.rint(255 * np.clip(shown[there], 0, 1))
    return bool(np.isfinite(seen).all() and seen.min() < seen.max())


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    """Which of the stored values stand for "no film here"; None where none does (PS3.3 C.7.5.1.1.2)."""
    if (value := dataset.get("PixelPaddingValue")) is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    # In files that call it unsigned, the padding of signed pixels stands as if it were unsigned.
    ends = [_signed(int(end), stored) for end in (value, value if limit is None else limit)]
    return (min(ends) <= stored) & (stored <= max(ends))


def _signed(value: int, stored: NDArray[Any]) -> int:
    bits = 8 * stored.dtype.itemsize
    return value - (1 << bits) if stored.dtype.kind == "i" and value >= 1 << (bits - 1) else value


def _squared(image: Image.Image, dataset: Dataset, *, where: str) -> Image.Image:
    """`image` with square pixels: the side along which they are longer is stretched."""
    from PIL.Image import Resampling

    ratio = _tried(_aspect, dataset) or 1.0
    if abs(ratio - 1) < 0.01 or not 1 / MAX_STRETCH <= ratio <= MAX_STRETCH:
        return image
    width, height = image.size
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(*size, where=where)
    return image.resize(size, Resampling.BICUBIC)


def _aspect(dataset: Dataset) -> float:
    """Height of a pixel by its width."""
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        if (told := dataset.get(keyword)) and len(told) == 2:
            return float(told[0]) / float(told[1])
    return 1.0
