"""Answers of a language model kept on disk, so that a run that was killed, or is repeated, asks nothing twice.

A file an answer, under a hash of all that decides it. Files appear whole or not at all, and any number of processes on
any number of machines may share a folder without locks. The prompt isn't kept, but answers are made from reports: the
folder and its files are readable by their owner alone, and deleting the folder forgets them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from cxr_reason.errors import CxrError


class Cache:
    """A folder of answers. Makes it where it isn't there; raises CxrError where that can't be done."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CxrError(
                f"no cache can be kept there: {error.strerror}",
                where=str(folder),
                hint="Name a folder for --llm-cache.",
            ) from None

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under `key`; None where nothing was, or a file is damaged."""
        try:
            told = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) else None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        path = self._path(key)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(json.dumps(answer, ensure_ascii=True).encode())
            os.replace(beside, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise CxrError(f"the cache can't be written: {error.strerror}", where=str(self.folder)) from None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.json"
