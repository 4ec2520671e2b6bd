"""What the pages for people have in common: each is one file that asks for nothing from anywhere, in one look."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files

MARK = '<meta name="generator" content="cxr">'
"""By which a page is known as ours."""
_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
"""
_HEAD += """<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'{scripts}{images}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
"""


def asset(package: str, name: str) -> str:
    """The text of the file `name` in `package`."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def head(title: str, *, style: str = "", script: str = "", images: bool = False) -> str:
    """A page up to its body. `style` comes after the look of all pages.

    Of scripts the browser runs `script` alone, told by its hash: whatever text a page holds, none of it is executed.
    With `images` it shows pictures that stand in the page itself.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _HEAD.format(
        title=escape(title),
        style=asset(__package__, "pages.css") + style,
        scripts=f"; script-src 'sha256-{digest}'" if script else "",
        images="; img-src data:" if images else "",
    )
