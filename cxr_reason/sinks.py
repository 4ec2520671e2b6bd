"""Where bytes go: a file that appears whole or not at all, our own stdout, or nowhere.

`FileSink` writes to ``OUT.partial`` beside the target and renames at the end, so the old file stays until the new one
is whole. It can be cut back to an earlier offset, which is how a killed run is continued (see `runner`). What the
bytes are is no concern of a sink: see `writers`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from cxr_reason.errors import ClosedPipe, CxrError

STDOUT_FLUSH_SECONDS = 0.1
STDOUT_BYTES = 1 << 18


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes) -> None: ...

    def flush(self) -> int:
        """Hand everything to the system; returns the offset reached, 0 where there is none."""

    def seal(self) -> None:
        """All is written: do what takes long before `commit`. May be broken off and done again."""

    def commit(self) -> None:
        """Make it visible under its own name."""

    def close(self, *, keep: bool) -> None:
        """Let go, without `commit` the unfinished file is kept only if `keep`."""


def claim_stdout() -> None:
    """Keep stdout for `sys.stdout` alone: what native code and child processes print to it goes to stderr from here on.

    For commands that load other people's engines, before the first of them is imported.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream with a file behind it, as in tests
        sys.stdout.flush()
        ours, theirs = sys.stdout.fileno(), sys.stderr.fileno()
        kept = os.dup(ours)
        os.dup2(theirs, ours)
        sys.stdout = os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


class NullSink:
    """Takes everything and writes nothing: ``--dry-run``, no ``--rejects``."""

    def write(self, data: bytes) -> None:
        pass

    def flush(self) -> int:
        return 0

    def seal(self) -> None:
        pass

    def commit(self) -> None:
        pass

    def close(self, *, keep: bool) -> None:
        pass


class StdoutSink:
    """Our own stdout. Flushed at least every `STDOUT_FLUSH_SECONDS` of writing, so that ``| head`` sees rows early.

    Else it is written in large pieces: two commands of a pipe that share a core would wake each other at every line.
    """

    def __init__(self) -> None:
        if sys.stdout is None:  # whoever started us closed it
            raise CxrError("stdout is closed", hint="Name a file: -o FILE")
        self._stream = sys.stdout.buffer
        self._pieces: list[bytes] = []
        self._held = 0
        self._flushed = time.monotonic()
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no pipe, or not on Linux
            fcntl.fcntl(self._stream.fileno(), fcntl.F_SETPIPE_SZ, STDOUT_BYTES)

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= STDOUT_BYTES or time.monotonic() - self._flushed > STDOUT_FLUSH_SECONDS:
            self.flush()

    def flush(self) -> int:
        self._flushed = time.monotonic()
        data = b"".join(self._pieces)
        self._pieces, self._held = [], 0
        try:
            self._stream.write(data)
            self._stream.flush()
        except BrokenPipeError:
            raise ClosedPipe from None
        return 0

    def seal(self) -> None:
        self.flush()

    def commit(self) -> None:
        self.flush()

    def close(self, *, keep: bool) -> None:
        if self._pieces:
            self.flush()


class FileSink:
    """A file that appears whole or not at all: written as ``NAME.partial``, renamed by `commit`.

    Gzipped if the name ends in ``.gz``: each `flush` ends a gzip member, so that bytes can be cut off there; flushing
    after the same rows gives the same bytes. A pipe or device (``/dev/null``) is written straight.
    """

    BUFFER_BYTES = 256 * 1024

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))  # the file that a link names is replaced, not the link
        self.partial = self._target.with_name(self._target.name + ".partial")
        self.gzipped = self._target.name.endswith(".gz")
        self.regular = self._target.is_file() or not self._target.exists()
        self._descriptor = -1
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._offset = 0

    def open(self) -> None:
        """Take hold of the file; `go_on_from` must follow. Raises CxrError where another process has it, or nobody may.

        An unfinished file of an earlier run is left as it is.
        """
        self._check_target()
        if not self._target.parent.is_dir():
            raise CxrError(f"there is no folder {self._target.parent}", where=str(self.path), hint="Make it first.")
        name = self.partial if self.regular else self._target
        try:
            self._descriptor = os.open(name, (os.O_RDWR if self.regular else os.O_WRONLY) | os.O_CREAT, 0o600)
        except OSError as error:
            raise CxrError(error.strerror or "can't be written", where=str(self.path)) from None
        if self.regular:
            self._lock(name)
            # Whoever may read the result: what is left behind by a run that was killed is nobody else's to read.
            os.fchmod(self._descriptor, 0o600)

    def _mode(self) -> int:
        """Who may read the file in the end: as its predecessor, as reports may be readable by few; else as usual."""
        if self._target.is_file():
            return stat.S_IMODE(self._target.stat().st_mode)
        mask = os.umask(0o077)  # there is no way to only ask
        os.umask(mask)
        return 0o666 & ~mask

    def _check_target(self) -> None:
        if self._target.is_dir():
            raise CxrError("this is a folder", where=str(self.path), hint="Name a file to write.")

    def go_on_from(self, offset: int) -> bool:
        """Drop what stands after the first `offset` bytes and write there; False where there are not so many."""
        if self.regular:
            if os.fstat(self._descriptor).st_size < offset:
                return False
            os.ftruncate(self._descriptor, offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
        self._offset = offset
        return True

    def write(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= self.BUFFER_BYTES and not self.gzipped:
            self._drain()

    def flush(self) -> int:
        self._drain()
        return self._offset

    def seal(self) -> None:
        self._drain()

    def commit(self) -> None:
        self._drain()
        if self.regular:
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, self._mode())
            os.replace(self.partial, self._target)
        self._release()

    def close(self, *, keep: bool) -> None:
        if self._descriptor >= 0:
            if self.regular and not keep:
                self.partial.unlink(missing_ok=True)
            self._release()

    def _drain(self) -> None:
        if not self._buffered:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        view = memoryview(gzip.compress(data, 6, mtime=0) if self.gzipped else data)
        try:
            while view:
                written = os.write(self._descriptor, view)
                self._offset += written
                view = view[written:]
        except OSError as error:
            raise self._full(error) or error from None

    def _full(self, error: OSError) -> CxrError | None:
        """`error` in words if it says that the disk is full."""
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return None
        kept = " The file of that name is as it was before." if self._target.is_file() else ""
        return CxrError(
            f"the disk is full ({os.strerror(error.errno)}).{kept}",
            where=str(self.path),
            hint=f"Free some space and run the same command again. (What is written so far: {self.partial})",
        )

    def _lock(self, name: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, the other run may have renamed what is open here to its target.
            ours = name.exists() and os.path.samestat(name.stat(), os.fstat(self._descriptor))
        except OSError as error:
            # Some network file systems have no locks.
            ours = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        if not ours:
            self._release()
            raise CxrError(
                "another run is writing this file",
                where=str(self.path),
                hint="Wait for it, or give this run another -o (one for each shard).",
            )

    def _release(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


@contextlib.contextmanager
def whole(path: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """A small file of ours that appears whole or not at all; with `sync`, also where the machine goes down.

    Written to ``NAME.partial`` and renamed. Unlike `opened` it takes no lock: nobody else writes it.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[FileSink]:
    """A file that is taken hold of before the work begins: after an hour of work it would be late to find it locked."""
    sink = FileSink(path)
    sink.open()
    try:
        sink.go_on_from(0)
        yield sink
    finally:
        sink.close(keep=False)
