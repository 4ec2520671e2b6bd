"""Why a film can't be used: one table of reasons, and the error that names one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cxr_reason import environment
from cxr_reason.errors import CxrError, InputError

_ANEW = "Copy or export it anew."

REASONS = {
    "missing": ("there is no such file", "Relative paths begin at the input's folder; --image-root names another."),
    "link-loop": ("its symbolic link leads to itself", "Mend the link."),
    "not-a-file": ("this is a folder or a device, not a film", "Name the file itself."),
    "unreadable": ("the file can't be read", "Its permissions or its disk forbid it."),
    "empty": ("the file is empty", _ANEW),
    "not-an-image": ("this is no PNG, JPEG or DICOM file, whatever its name says", _ANEW),
    "unsupported": ("this kind of film can't be read", "Convert it to PNG, or to uncompressed DICOM."),
    "not-a-film": ("this is no radiograph", "Leave it out of the images."),
    "truncated": ("the file ends too early", _ANEW),
    "damaged": ("the file is damaged", _ANEW),
    "too-large": ("the picture is larger than any film", "Export it with fewer pixels."),
    "too-narrow": ("the picture is a strip, not a film", "Leave it out of the images."),
    "animated": ("the picture moves", "Export the one frame that matters."),
    "multi-frame": ("the file holds several frames", "Export the one frame that matters."),
    "no-pixels": ("the DICOM file holds no picture", "It may be a report or a presentation state: leave it out."),
}
"""Each reason with what is said of it, and what to do."""


class FilmError(InputError):
    """A film that can't be used, and why. `reason` is a key of `REASONS`, `where` the file.

    `told` says more than the reason alone. It never holds anything that stands in the file.
    """

    def __init__(self, reason: str, *, where: str, told: str | None = None) -> None:
        what, hint = REASONS[reason]
        super().__init__(told or what, where=where, hint=hint)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.reason, self.where, self.what)


def _rebuild(reason: str, where: str, told: str) -> FilmError:
    return FilmError(reason, where=where, told=told)


def lacks(package: str, *, where: str) -> CxrError:
    """The error where `package` isn't installed. Not a `FilmError`: no other film of its kind would fare better."""
    extra = "films" if package in ("PIL", "numpy") else "dicom"
    return CxrError(f"this film needs {package}", where=where, hint=environment.install_line([f"cxr-reason[{extra}]"]))


@contextmanager
def refusing(where: str, *, reason: str = "damaged") -> Iterator[None]:
    """Whatever the decoders raise becomes a `FilmError`. Their messages may quote the file, and are left out."""
    try:
        yield
    except CxrError:
        raise
    except ImportError as error:
        raise lacks((error.name or "a decoder").partition(".")[0], where=where) from None
    except Exception:
        raise FilmError(reason, where=where) from None
    except BaseException as error:
        # Where RLE's decoder would write beyond the picture it panics, being Rust: no `Exception` in Python.
        if type(error).__name__ != "PanicException":
            raise
        raise FilmError(reason, where=where) from None
