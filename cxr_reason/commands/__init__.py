"""A checkout keeps the commands in the top-level folder `commands/`; this lends them their installed name.

Installed, `commands/` is `cxr_reason.commands` (pyproject.toml, `package-dir`) and this file is left out.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "commands")]
