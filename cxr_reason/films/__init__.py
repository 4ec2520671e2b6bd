"""Films: image files read once, the same way everywhere, and never trusted.

PNG, JPEG and DICOM become an upright 8-bit picture, lungs dark and bones white; what can't be read is refused by name
(`FilmError`) before anything large is allocated. Nothing but pixels and the view leaves a file. What is done to which
file, and why: docs/films.md.

    films = Films(root=Path("archive/"), cache=Path("films/"))
    images = films.of(record, base=None)

Pillow and numpy (extra `films`) and pydicom with its decoders (extra `dicom`) are imported when a film is read.
"""

from cxr_reason.films.cache import digest
from cxr_reason.films.fitting import MAX_PIXELS, fit
from cxr_reason.films.opening import Films
from cxr_reason.films.reading import read, view
from cxr_reason.films.refusal import FilmError

__all__ = ["MAX_PIXELS", "FilmError", "Films", "digest", "fit", "read", "view"]
