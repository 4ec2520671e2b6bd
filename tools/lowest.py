"""The oldest versions that pyproject.toml allows, for pip: `make lowest` tests what needs no model with them.

python tools/lowest.py arrow films > oldest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
_REQUIREMENT = re.compile(r"([\w.-]+)>=([\d.]+)(?:,<[\d.]+)?")
_EXTRAS = re.compile(r"cxr-reason\[(.+)\]")


def lowest(*extras: str) -> Iterator[str]:
    """``name==version`` of the base and of `extras`, each at its lower bound. Raises ValueError where one has none."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for requirement in (
        *project["dependencies"],
        *(part for extra in extras for part in project["optional-dependencies"][extra]),
    ):
        if inner := _EXTRAS.fullmatch(requirement):
            yield from lowest(*inner[1].split(","))
        elif bound := _REQUIREMENT.fullmatch(requirement):
            yield f"{bound[1]}=={bound[2]}"
        else:
            raise ValueError(f"{requirement} has no lower bound")


if __name__ == "__main__":
    print("\n".join(sorted(set(lowest(*sys.argv[1:])))))
