"""The few ways in which a command ends, each with its exit code.

Library code raises; `cxr_reason.cli` alone turns what was raised into a message and an exit code:

    0 done    1 error    2 usage    3 too many unreadable rows    130 interrupted    141 closed pipe    143 terminated

A message says what is wrong, where (``file:line``) and what to do. It never quotes a record's text: reports stay
out of logs.
"""

from __future__ import annotations

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_TOO_MANY_FAILURES = 3
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
EXIT_TERMINATED = 143


class CxrError(Exception):
    """Something that the person at the keyboard can mend.

    `what` is the problem in a full sentence, `where` a ``file:line`` or a file, `hint` what to do about it.
    """

    exit_code = EXIT_ERROR

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """One line, or two where there is a hint: ``where: what`` and what to do."""
        first = f"{self.where}: {self.what}" if self.where else self.what
        return f"{first}\n{self.hint}" if self.hint else first

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders under --jobs; Exception's own way would drop the keyword-only fields.
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[CxrError], what: str, where: str | None, hint: str | None) -> CxrError:
    return kind(what, where=where, hint=hint)


class InputError(CxrError):
    """The input as a whole can't be used: no such file, no report column, no rows, the wrong encoding."""


class UsageError(CxrError):
    """What was asked for doesn't go together, or doesn't fit the input, which only showed when it was read."""

    exit_code = EXIT_USAGE


class TooManyFailures(CxrError):
    """More rows than `--max-failed` allows could not be read. Raised after everything else has been written."""

    exit_code = EXIT_TOO_MANY_FAILURES


class Stop(BaseException):
    """The run ends early although nothing is wrong. Not an `Exception`, so no handler for a bad row swallows it."""

    exit_code: int


class Terminated(Stop):
    """SIGTERM arrived, and the work so far has been saved."""

    exit_code = EXIT_TERMINATED


class ClosedPipe(Stop):
    """Whoever reads our stdout has gone, as in ``| head``. Raised by the stdout writer alone: an EPIPE from anywhere
    else (a worker, a server) is an error."""

    exit_code = EXIT_CLOSED_PIPE
