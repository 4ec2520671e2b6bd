"""Everything that a person sees on stderr: notes, warnings, progress and tables. Data never passes through here.

rich is imported only where something is drawn on a terminal; off terminals (and with ``TERM=dumb``) nothing moves and
tables are plain text, so batch logs stay readable and short commands stay fast. ``NO_COLOR`` is honoured by rich.
A stderr that has gone away is ignored: losing a message must not lose the run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import rich.console
    import rich.progress

Cell = str | int | float | bool | None

# The first warnings of a kind are shown as they come, the rest are counted for `close`.
SHOWN_PER_KIND = 3
REDRAW_SECONDS = 0.2


@dataclass
class _Spoken:
    """What the process as a whole has been told (`-q`, `-v`) and has said."""

    quiet: bool = False
    verbose: bool = False
    consoles: dict[str, rich.console.Console] = field(default_factory=dict)
    warned: Counter[str] = field(default_factory=Counter)


_state = _Spoken()


def set_quiet(quiet: bool) -> None:
    """With `quiet`, only warnings and errors reach stderr: no notes, progress or closing tables."""
    _state.quiet = quiet


def set_verbose(verbose: bool) -> None:
    """With `verbose`, errors come with their tracebacks."""
    _state.verbose = verbose


def is_verbose() -> bool:
    return _state.verbose


def reset() -> None:
    """Forget what an earlier command of the same process said: each command starts alike."""
    global _state
    _state = _Spoken()


def close() -> None:
    """Say how many warnings of each kind were held back. The command line calls this once, at the very end."""
    for kind, count in _state.warned.items():
        if count > SHOWN_PER_KIND:
            _say(f"warning: {count - SHOWN_PER_KIND:,} more: {kind}", style="yellow")
    _state.warned.clear()


def is_terminal() -> bool:
    """Whether a person reads stderr as it comes, on a terminal of whatever kind."""
    return _is_terminal(sys.stderr)


def note(message: str) -> None:
    """Say something worth knowing; `-q` silences it."""
    if not _state.quiet:
        _say(message)


def warn(message: str, *, kind: str | None = None) -> None:
    """Say that something is probably not as it should be; `-q` does not silence it.

    Warnings of one `kind` (default: the same message) are grouped: `SHOWN_PER_KIND` are shown, the rest counted. Give
    a `kind` where messages differ only by a line number or a name: "rows with too few columns".
    """
    kind = kind or message
    _state.warned[kind] += 1
    if _state.warned[kind] <= SHOWN_PER_KIND:
        _say(f"warning: {message}", style="yellow")


def error(message: str) -> None:
    """Say what stopped the command."""
    _say(f"error: {message}", style="bold red")


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    file: TextIO | None = None,
) -> None:
    """Print a table: boxed on a terminal, aligned plain text elsewhere.

    Whole numbers get thousands separators, floats three decimals, None an empty cell; columns of numbers are
    right-aligned. `file` is for the rare table that is a command's data (stdout); the default is stderr, where `-q`
    silences it.
    """
    if file is None and _state.quiet:
        return
    cells = list(rows)
    numeric = [
        bool(cells) and all(isinstance(row[i], int | float) and not isinstance(row[i], bool) for row in cells)
        for i in range(len(columns))
    ]
    title, columns = _printable(title), [_printable(name) for name in columns]
    texts = [[_printable(_text(cell)) for cell in row] for row in cells]
    stream = file or sys.stderr
    if not _can_draw(stream):
        plain = _plain_table(title, columns, texts, numeric)
        if file is None:
            _write(plain)
        else:
            file.write(plain)
        return

    import rich.box
    import rich.table
    from rich.text import Text

    drawn = rich.table.Table(title=Text(title), title_justify="left", box=rich.box.SIMPLE_HEAD)
    for name, right in zip(columns, numeric, strict=True):
        drawn.add_column(Text(name), justify="right" if right else "left")
    for line in texts:
        drawn.add_row(*(Text(cell) for cell in line))
    _console(stream).print(drawn)


class Progress:
    """A counter on stderr: how many, how fast, and the time left where the end is known.

    Draws only on a terminal, without `-q`, and only as the last command of a pipe: two commands that redraw the same
    line are unreadable. It redraws from `advance`, not from a thread, so that worker processes may be forked at any
    time.
    """

    def __init__(self, label: str, total: int | None = None, *, unit: str = "rows") -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.count = 0
        self.fraction: float | None = None
        self.detail = ""
        """What else is worth seeing, after all the rest."""
        self.also: Counter[str] = Counter()
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> Progress:
        if not _state.quiet and _can_draw(sys.stderr) and not _is_pipe(sys.stdout):
            import rich.progress

            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.TextColumn("{task.fields[status]}", markup=False),
                console=_console(sys.stderr),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task(self.label, total=None, status="")
            self._started = self._drawn = time.monotonic()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def advance(
        self,
        n: int = 1,
        *,
        fraction: Callable[[], float | None] | None = None,
        also: Mapping[str, int] | None = None,
    ) -> None:
        """Count `n` more, and `also` of other things whose pace is shown too.

        `fraction` tells how much of the input is behind us, in [0, 1], where `total` is unknown.
        """
        self.count += n
        self.also.update(also or {})
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            if fraction is not None:
                self.fraction = fraction()
            assert self._task is not None
            self._bar.update(self._task, status=self.status(now - self._started), refresh=True)

    def status(self, elapsed: float) -> str:
        """The line after the label, `elapsed` seconds into the run: ``12,000 of 20,000 rows  3,100/s  0:02 left``."""
        done = f"{self.count:,}" if self.total is None else f"{self.count:,} of {self.total:,}"
        parts = [f"{done} {self.unit}", f"{self.count / elapsed:,.0f}/s"]
        parts += [f"{count / elapsed:,.0f} {name}/s" for name, count in self.also.items()]
        fraction = self.count / self.total if self.total else self.fraction
        if fraction:
            parts.append(f"{_clock(elapsed * max(0.0, 1 - fraction) / fraction)} left")
        return "  ".join([*parts, *filter(None, [self.detail])])


def progress(label: str, total: int | None = None, *, unit: str = "rows") -> Progress:
    """A context manager with `.advance(n)`; see `Progress`."""
    return Progress(label, total, unit=unit)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.3f}" if isinstance(cell, float) else cell


def _plain_table(title: str, columns: Sequence[str], rows: list[list[str]], numeric: list[bool]) -> str:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [title] if title else []
    for row in [list(columns), ["-" * width for width in widths], *rows]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _can_draw(stream: TextIO) -> bool:
    """Whether `stream` can be drawn on. Judged for each stream: a redirected stderr says nothing about stdout."""
    terminal = _is_terminal(stream) and os.environ.get("TERM") != "dumb"
    # Without rich all is plain text, so that `cxr doctor` can say that rich is missing.
    return terminal and importlib.util.find_spec("rich") is not None


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # no stream at all (daemons), or one that is closed
        return False


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):  # no stream, or one without a file behind it, as in tests
        return False


def _console(stream: TextIO) -> rich.console.Console:
    # One console a stream: a note printed while progress is drawn must go through the console that draws it.
    name = "stdout" if stream is sys.stdout else "stderr"
    if name not in _state.consoles:
        from rich.console import Console

        _state.consoles[name] = Console(file=stream, highlight=False, soft_wrap=False)
    return _state.consoles[name]


def _printable(message: str) -> str:
    """Control characters (escape codes in a file name) shown, not obeyed."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in message)


def _say(message: str, *, style: str | None = None) -> None:
    message = _printable(message)
    if not _can_draw(sys.stderr):
        _write(message + "\n")
        return
    with contextlib.suppress(OSError):
        _console(sys.stderr).print(message, style=style, markup=False, emoji=False, soft_wrap=True)


def _write(text: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()
