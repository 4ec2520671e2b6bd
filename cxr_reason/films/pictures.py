"""PNG and JPEG: pictures that were made to be looked at, so that little is left to do."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cxr_reason.films.limits import check_size
from cxr_reason.films.refusal import FilmError, refusing
from cxr_reason.films.tones import grey_of

if TYPE_CHECKING:
    from PIL import Image

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_ENDS = {PNG: b"IEND\xaeB`\x82", JPEG: b"\xff\xd9"}


def read_picture(content: bytes, *, where: str) -> Image.Image:
    """The grey picture of a PNG or JPEG file, upright. Raises FilmError."""
    kind = PNG if content.startswith(PNG) else JPEG
    with refusing(where, reason="damaged" if _ENDS[kind] in content else "truncated"):
        image = _opened(content, kind)
        check_size(*image.size, where=where)
        if kind == PNG and getattr(image, "n_frames", 1) > 1:  # a JPEG of several is a photo with its small versions
            raise FilmError("animated", where=where)
        if kind == PNG:
            # Decoding doesn't look at the checksums, so that a damaged film could pass for a whole one.
            _opened(content, kind).verify()
        image.load()
        return _upright(_grey(image))


def _opened(content: bytes, kind: bytes) -> Image.Image:
    """The header, read. Not by `Image.open`, which would try other formats and warn of sizes that we refuse anyway."""
    from PIL.JpegImagePlugin import jpeg_factory
    from PIL.PngImagePlugin import PngImageFile

    stream = io.BytesIO(content)
    return PngImageFile(stream) if kind == PNG else jpeg_factory(stream)


def _grey(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageChops

    if image.mode.startswith("I;16"):
        import numpy as np

        return Image.fromarray(grey_of(np.asarray(image)))
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")
    grey = image.convert("L")
    if "A" in image.getbands():
        # On black, as around a film. Alpha compositing would need three more pictures of this size.
        grey = ImageChops.multiply(grey, image.getchannel("A"))
    return grey


def _upright(image: Image.Image) -> Image.Image:
    """`image` turned as its EXIF says; where that can't be read, as it is."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image
