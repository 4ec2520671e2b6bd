"""Reading a model's answer as JSON of a wanted shape.

Engines enforce a schema while they write where they can; whether an answer meets it is decided here all the same. Only
what the schemas of this package use is known: type, properties, required, items, enum, and limits of length and number.
A library would know more, and would quote the answer in its messages, where report text may stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
}
_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
_FENCE = re.compile(r"\A```(?:json)?(.*)```\Z", re.DOTALL)


class Unusable(ValueError):
    """An answer that can't be used, and why, in a sentence to the model; never a word of it."""


def value_of(text: str, schema: Mapping[str, Any]) -> Any:
    """The JSON value that `text` is, of the shape of `schema`. Raises Unusable.

    A model's thoughts before it and the fence around it, which servers that don't enforce a schema let through, are
    left out.
    """
    text = _THOUGHT.sub("", text).strip()
    if fenced := _FENCE.match(text):
        text = fenced[1]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable("It is not one JSON object and nothing else.") from None
    if wrong := fault(value, schema):
        raise Unusable(f"It doesn't have the shape that was asked for: {wrong}.")
    return value


def fault(value: Any, schema: Mapping[str, Any], place: str = "the answer") -> str | None:
    """What is wrong with `value`, without a word of its text; None where it meets `schema`."""
    wanted = schema["type"]
    if not isinstance(value, _TYPES[wanted]) or (wanted == "integer" and isinstance(value, bool)):
        return f"{place} must be {'an' if wanted[0] in 'aeiou' else 'a'} {wanted}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{place} must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str):
        return _limits(len(value), schema.get("minLength"), schema.get("maxLength"), f"{place} must have", "characters")
    if isinstance(value, list):
        few = _limits(len(value), schema.get("minItems"), schema.get("maxItems"), f"{place} must have", "items")
        return few or _first(fault(item, schema["items"], f"{place}[{n}]") for n, item in enumerate(value))
    if isinstance(value, dict):
        known = schema["properties"]
        if missing := [name for name in schema.get("required", ()) if name not in value]:
            return f"{place} lacks {missing[0]}"
        if value.keys() - known.keys():
            return f"{place} has fields that weren't asked for"
        return _first(fault(entry, known[name], f"{place}.{name}") for name, entry in value.items())
    if isinstance(value, int):
        return _limits(value, schema.get("minimum"), schema.get("maximum"), f"{place} must be", "")
    return None


def _limits(number: int, least: int | None, most: int | None, must: str, unit: str) -> str | None:
    if least is not None and number < least:
        return f"{must} at least {least} {unit}".rstrip()
    if most is not None and number > most:
        return f"{must} at most {most} {unit}".rstrip()
    return None


def _first(faults: Any) -> str | None:
    return next(filter(None, faults), None)
