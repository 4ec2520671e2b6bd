"""``general.toml``, the wording by which free text is read, as patterns.

They are tried on lower-case text only: without re.IGNORECASE the branches are skipped by their first letter, which is
ten times as fast.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

WORDING: dict[str, Any] = tomllib.loads(files(__package__).joinpath("general.toml").read_text(encoding="utf-8"))


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Any of `patterns`, at the start of a word."""
    return re.compile(r"\b(?:" + "|".join(patterns) + ")")
