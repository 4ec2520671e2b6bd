"""What reaches stderr: grouped warnings, tables drawn on terminals and plain elsewhere, nothing that moves in a log."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import click
import pytest
from conftest import environment

from cxr_reason import cli, console


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    console.reset()
    yield
    console.reset()


def on_a_terminal(script: str, **env: str) -> str:
    """What `script` shows to somebody whose stderr is a terminal."""
    keyboard, terminal = pty.openpty()
    variables = environment(**{"TERM": "xterm-256color", **env})
    if "NO_COLOR" not in env:
        variables.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", f"import time\nfrom cxr_reason import console\n{script}"],
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env=variables,
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(keyboard, 65536):
            shown += piece
    except OSError:  # Linux says EIO when the other end has closed
        pass
    finally:
        os.close(keyboard)
    assert process.wait(timeout=60) == 0
    return shown.decode()


def test_repeated_warnings_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    for line in range(2, 12):
        console.warn(f"a.csv:{line}: too few columns", kind="rows with too few columns")
    console.warn("something else")
    console.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "warning: a.csv:2: too few columns",
        "warning: a.csv:3: too few columns",
        "warning: a.csv:4: too few columns",
        "warning: something else",
        "warning: 7 more: rows with too few columns",
    ]


def test_quiet_silences_all_but_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    console.set_quiet(True)
    console.note("a note")
    console.table("a table", ["finding"], [["edema"]])
    console.warn("a warning")
    console.error("an error")
    assert capsys.readouterr().err == "warning: a warning\nerror: an error\n"


def test_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("By finding", ["finding", "present", "f1"], [["edema", 12000, 0.5], ["effusion", 3, None]])
    assert capsys.readouterr().err == (
        "By finding\nfinding   present  f1\n--------  -------  -----\nedema      12,000  0.500\neffusion        3\n"
    )


def test_a_table_of_data_ignores_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    console.set_quiet(True)
    console.table("", ["ready"], [[True], [False]], file=sys.stdout)
    assert capsys.readouterr() == ("ready\n-----\nyes\nno\n", "")


def test_control_characters_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("no such file: \x1b[2Ja\rb.csv")
    assert capsys.readouterr().err == "warning: no such file: \\x1b[2Ja\\rb.csv\n"
    console.table("of \x1b[2J", ["\x1b[1m"], [["\x1b[2J"]])
    assert "\x1b" not in capsys.readouterr().err


def test_a_lost_stderr_loses_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = io.StringIO()
    lost.close()
    monkeypatch.setattr(sys, "stderr", lost)
    console.warn("nobody hears this")
    monkeypatch.setattr(sys, "stderr", None)
    console.warn("nor this")
    with console.progress("mine") as progress:
        progress.advance()


def test_progress_tells_count_rate_and_time_left() -> None:
    progress = console.progress("mine", 20_000)
    progress.advance(5_000)
    assert progress.status(2.0) == "5,000 of 20,000 rows  2,500/s  0:06 left"
    unknown = console.progress("mine", unit="reports")
    unknown.advance(300)
    assert unknown.status(1.0) == "300 reports  300/s"
    unknown.fraction = 0.01
    assert unknown.status(36.0) == "300 reports  8/s  59:24 left"


def test_progress_is_silent_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("mine", 3) as progress:
        progress.advance(3)
    assert capsys.readouterr() == ("", "")


PROGRESS = (
    "with console.progress('mine', 9) as progress:\n"
    "    for _ in range(3): time.sleep(0.25); progress.advance()\n"
    "    console.note('halfway [b]there[/b]')\n"
)


def test_progress_moves_on_a_terminal_and_leaves_notes_whole() -> None:
    shown = on_a_terminal(PROGRESS)
    assert "3 of 9 rows" in shown
    assert "halfway [b]there[/b]\r\n" in shown


@pytest.mark.parametrize("prelude", ["import os; os.environ['TERM'] = 'dumb'\n", "console.set_quiet(True)\n"])
def test_progress_is_silent_for_dumb_terminals_and_the_quiet(prelude: str) -> None:
    assert "rows" not in on_a_terminal(prelude + PROGRESS)


@pytest.mark.parametrize(("no_color", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color(no_color: dict[str, str], coloured: bool) -> None:
    assert ("\x1b[33m" in on_a_terminal("console.warn('careful')", **no_color)) is coloured


def test_drawn_table_quotes_its_cells() -> None:
    shown = on_a_terminal("console.table('T', ['finding', 'present'], [['[bold]edema', 12000]])")
    assert "[bold]edema" in shown
    assert "12,000" in shown


def test_warnings_that_were_held_back_are_counted_before_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def clumsy() -> None:
        for number in range(5):
            console.warn(f"row {number}", kind="rows that can't be read")
        raise click.UsageError("no such thing")

    group = cli.Commands()
    with mock.patch.object(cli, "load", return_value=clumsy), pytest.raises(SystemExit):
        group(["mine"])
    assert "2 more: rows that can't be read" in capsys.readouterr().err
