"""Man pages from the commands' own help, into docs/man: `make docs` writes them, `make lint` checks them.

python tools/man_pages.py            # write
python tools/man_pages.py --check    # fail where one differs
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from click_man.man import ManPage

from cxr_reason import __version__
from cxr_reason.cli import COMMANDS, load, main

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "man"
MORE = """.SH EXIT STATUS
0 done, 1 error, 2 usage, 3 too many rows could not be read, 130 interrupted, 141 the reader of the pipe has gone,
143 terminated after saving.
.SH ENVIRONMENT
Every option can be set as CXR_COMMAND_OPTION; what is typed wins. NO_COLOR turns colours off.
.SH SEE ALSO
"""


def page(name: str | None, command: click.Command) -> str:
    """The man page of `cxr NAME`, or of `cxr` itself."""
    words = f"cxr {name}" if name else "cxr"
    context = click.Context(command, info_name=words)
    told = ManPage(words)
    told.version, told.date = f"cxr {__version__}", ""
    first, _, rest = plain(command.help or "").partition("\n")
    told.short_help = first.rstrip(".")
    told.synopsis = plain(" ".join(command.collect_usage_pieces(context)))
    told.description = f"{first}\n{rest}".strip()
    told.options = [
        tuple(map(plain, record))
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context))
    ]
    if not name:
        told.commands = [(known, listed.line) for known, listed in COMMANDS.items()]
    others = ["cxr", *(f"cxr-{known}" for known in COMMANDS)]
    also = ", ".join(f"{other}(1)" for other in others if other != words.replace(" ", "-"))
    return f"{told}{MORE}{also}\n"


def plain(text: str) -> str:
    """`text` as troff takes it: paragraphs in one line each, plain letters, no line that begins as a command would."""
    text = text.replace("\b", "").replace("\\", r"\e").replace("…", "...")
    assert text.isascii(), text
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(re.sub(r"^([.'])", r"\\&\1", part) for part in paragraphs)


def run(check: bool) -> int:
    pages = {"cxr": page(None, main)} | {f"cxr-{name}": page(name, load(name)) for name in COMMANDS}
    stale = [
        name
        for name, text in pages.items()
        if not (FOLDER / f"{name}.1").exists() or (FOLDER / f"{name}.1").read_text() != text
    ]
    if check:
        for name in stale:
            print(f"docs/man/{name}.1 is not what the command says: make docs", file=sys.stderr)
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages.items():
        (FOLDER / f"{name}.1").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(run("--check" in sys.argv[1:]))
