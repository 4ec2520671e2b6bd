"""The record: the one JSON object a line that flows through every pipe and gains fields as it goes.

`FIELDS` is the schema, in the order in which fields are written. Fields that it doesn't know pass through untouched,
after the known ones. `check` tells what is wrong with a record, `dumps` writes it in its one canonical form (the same
record always gives the same bytes), `stamp` notes which stage made it, and how.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cxr_reason import __version__

LABELS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
TASKS = ("binary", "single", "multiple", "anomaly", "temporal")
SPLITS = ("train", "validate", "test")
VIEWS = ("PA", "AP", "LAT", "other")
ROLES = ("current", "prior")
STATUSES = ("present", "absent", "uncertain")
CERTAINTIES = ("definite", "probable", "possible", "differential")
TIMES = ("current", "history", "resolved", "hypothetical")
SIDES = ("left", "right", "bilateral")
CHANGES = ("new", "worse", "stable", "better", "resolved")
ACUITIES = ("acute", "chronic", "old")
STEP_KINDS = ("plan", "observe", "conclude")
BASES = ("stated", "region", "silent")
VERDICTS = ("supported", "contradicted", "unverifiable")

Problems = Iterator[str]
Check = Callable[[str, Any], Problems]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: `check(name, value)` yields problems; `stages` are those that write it."""

    check: Check
    stages: tuple[str, ...]
    doc: str
    nullable: bool = False


def _text(name: str, value: Any) -> Problems:
    if not isinstance(value, str):
        yield f"{name} must be text, not {_kind(value)}"


def _boolean(name: str, value: Any) -> Problems:
    if not isinstance(value, bool):
        yield f"{name} must be true or false, not {_kind(value)}"


def _number(name: str, value: Any) -> Problems:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{name} must be a number, not {_kind(value)}"
    elif not math.isfinite(value):
        yield f"{name} must be a finite number"


def _share(name: str, value: Any) -> Problems:
    problems = list(_number(name, value))
    yield from problems
    if not problems and not 0 <= value <= 1:
        yield f"{name} must lie in [0, 1]"


def _correct(name: str, value: Any) -> Problems:
    if not isinstance(value, bool):
        yield from _share(name, value)


def _one_of(*allowed: str) -> Check:
    def check(name: str, value: Any) -> Problems:
        if value not in allowed:
            yield f"{name} must be one of {', '.join(allowed)}"

    return check


def _list_of(item: Check) -> Check:
    def check(name: str, value: Any) -> Problems:
        if not isinstance(value, list):
            yield f"{name} must be a list, not {_kind(value)}"
            return
        for number, entry in enumerate(value):
            yield from item(f"{name}[{number}]", entry)

    return check


def _object(fields: Mapping[str, Check], *required: str) -> Check:
    """An object with the checked `fields`, None allowed but in the `required` ones; other keys are let through."""

    def check(name: str, value: Any) -> Problems:
        if not isinstance(value, dict):
            yield f"{name} must be an object, not {_kind(value)}"
            return
        for key in required:
            if value.get(key) is None:
                yield f"{name}.{key} is missing"
        for key, entry in value.items():
            if key in fields and entry is not None:
                yield from fields[key](f"{name}.{key}", entry)

    return check


def _span(name: str, value: Any) -> Problems:
    numbers = isinstance(value, list | tuple) and len(value) == 2 and all(type(offset) is int for offset in value)
    if not (numbers and 0 <= value[0] <= value[1]):
        yield f"{name} must be [start, end], offsets in the report"


def _image(name: str, value: Any) -> Problems:
    if isinstance(value, str):
        return
    fields = {"path": _text, "view": _one_of(*VIEWS), "portable": _boolean, "time": _text, "role": _one_of(*ROLES)}
    yield from _object(fields, "path")(name, value)


def _labels(name: str, value: Any) -> Problems:
    if not isinstance(value, dict):
        yield f"{name} must be an object, not {_kind(value)}"
        return
    for label, state in value.items():
        if label not in LABELS:
            yield f"{name}: {label!r} is none of CheXpert's 14 labels"
        elif type(state) is not int or state not in (1, 0, -1):
            yield f"{name}.{label} must be 1 (present), 0 (absent) or -1 (uncertain); leave it out where unmentioned"


FINDING: dict[str, Check] = {
    "name": _text,
    "label": _one_of(*LABELS),
    "status": _one_of(*STATUSES),
    "certainty": _one_of(*CERTAINTIES),
    "alternatives": _list_of(_text),
    "time": _one_of(*TIMES),
    "bound": _text,
    "side": _one_of(*SIDES),
    "site": _text,
    "severity": _text,
    "size": _text,
    "size_mm": _number,
    "change": _one_of(*CHANGES),
    "acuity": _one_of(*ACUITIES),
    "calcified": _boolean,
    "device": _object({"type": _text, "tip": _text, "position": _text, "event": _text}),
    "conflict": _boolean,
    "span": _span,
    "section": _text,
}
_finding = _object(FINDING, "name", "status")

STEP: dict[str, Check] = {
    "text": _text,
    "kind": _one_of(*STEP_KINDS),
    "findings": _list_of(_finding),
    "basis": _one_of(*BASES),
    "evidence": _list_of(_span),
    "verdict": _one_of(*VERDICTS),
}

PROVENANCE: dict[str, Check] = {"stage": _text, "version": _text, "backend": _text, "config": _text, "model": _text}

_INPUT, _MINE, _REFINE, _INFER, _SCORE = ("input",), ("mine",), ("mine", "refine"), ("infer",), ("score",)
_EVERY = ("mine", "refine", "infer", "score")

FIELDS: dict[str, Field] = {
    "id": Field(_text, _MINE, "stable: same input row and task, same id, whatever the order or the shard"),
    "study_id": Field(_text, _INPUT, "the study that the row belongs to", nullable=True),
    "patient_id": Field(_text, _INPUT, "the patient, for priors and splits", nullable=True),
    "split": Field(_one_of(*SPLITS), _INPUT, "train, validate or test, where the input has it", nullable=True),
    "study_time": Field(_text, _INPUT, "when the study was made", nullable=True),
    "prior_study_id": Field(_text, _INPUT, "the study that a temporal question compares with", nullable=True),
    "task": Field(_one_of(*TASKS), _MINE, "binary, single, multiple, anomaly or temporal", nullable=True),
    "images": Field(_list_of(_image), _INPUT, "paths, or objects {path, view, portable, time, role}", nullable=True),
    "question": Field(_text, _MINE, "what is asked", nullable=True),
    "options": Field(_list_of(_text), _MINE, "texts to choose from, null where the question is open", nullable=True),
    "answer": Field(_text, _MINE, "a letter, or a text where the question is open", nullable=True),
    "report": Field(_text, _INPUT, "the text that the chain was mined from", nullable=True),
    "prior_report": Field(_text, _INPUT, "the report of the prior study", nullable=True),
    "findings": Field(_list_of(_finding), _MINE, "what the report says, a finding each", nullable=True),
    "labels": Field(_labels, _MINE, "CheXpert-14 at mention level: 1, 0, -1; unmentioned = no key", nullable=True),
    "normal": Field(_boolean, _MINE, "nothing abnormal of any kind", nullable=True),
    "acute": Field(_boolean, _MINE, "something acute; null where the report doesn't say", nullable=True),
    "quality": Field(_list_of(_text), _MINE, "limits that the report names", nullable=True),
    "understood": Field(_share, _MINE, "share of the sentences that could be read, in [0, 1]", nullable=True),
    "steps": Field(_list_of(_object(STEP, "text", "kind")), _REFINE, "the chain of reasoning", nullable=True),
    "prediction": Field(_text, _INFER, "the model's full text", nullable=True),
    "model": Field(_text, _INFER, "what made the prediction", nullable=True),
    "correct": Field(_correct, _SCORE, "right or wrong; open questions: F1 over findings, in [0, 1]", nullable=True),
    "factuality": Field(_share, _SCORE, "claims that the report supports / all claims", nullable=True),
    "completeness": Field(_share, _SCORE, "reference findings that are told rightly / all of them", nullable=True),
    "coverage": Field(_share, _SCORE, "reference findings that are named at all / all of them", nullable=True),
    "effectiveness": Field(_share, _SCORE, "steps that the reference chain supports / all steps", nullable=True),
    "radrscore": Field(_share, _SCORE, "mean of factuality, completeness and effectiveness", nullable=True),
    "positive_factuality": Field(_share, _SCORE, "factuality of the findings called present", nullable=True),
    "positive_completeness": Field(_share, _SCORE, "completeness of the findings present", nullable=True),
    "balanced_radrscore": Field(_share, _SCORE, "mean of the positive and the negative half", nullable=True),
    "provenance": Field(_list_of(_object(PROVENANCE, "stage", "version")), _EVERY, "what made it, stage by stage"),
}


def check(record: Mapping[str, Any]) -> list[str]:
    """What is wrong with `record`, a sentence a problem that starts with the field's name; empty when it is fine.

    Only `id` is required: every stage checks for itself the fields that it needs. No sentence quotes the record's text.
    """
    problems = [] if record.get("id") else ["id is missing"]
    for name, value in record.items():
        field = FIELDS.get(name)
        if field and not (value is None and (field.nullable or name == "id")):
            problems.extend(field.check(name, value))
    if isinstance(record.get("options"), list) and not problems:
        letters = [chr(ord("A") + number) for number in range(len(record["options"]))]
        if record.get("answer") not in letters:
            problems.append(f"answer must be a letter of its {len(letters)} options")
    return problems


class Refused(ValueError):
    """JSON that we don't take; the message doesn't quote it."""


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def dumps(record: Mapping[str, Any]) -> str:
    """`record` as one line of JSON without the newline: known fields first, in the order of `FIELDS`.

    Raises ValueError, naming the field, for NaN and infinity, which JSON doesn't have. Lone surrogates (half an emoji,
    as in broken exports) are written as escapes, so the line is always valid UTF-8.
    """
    ordered = {name: record[name] for name in FIELDS if name in record}
    if len(ordered) < len(record):
        ordered |= {name: value for name, value in record.items() if name not in FIELDS}
    return dumps_plain(ordered)


def dumps_plain(entry: Mapping[str, Any]) -> str:
    """Like `dumps`, for objects that are no records (rejects): keys keep their order."""
    try:
        line = _encode(entry)
    except ValueError:
        raise ValueError(f"{_not_finite(entry)} holds NaN or infinity, which JSON can't say") from None
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            return _encode_ascii(entry)
    return line


def loads(line: str | bytes) -> Any:
    """Read one line of JSON. Raises ValueError: JSONDecodeError, or `Refused` for what only Python would read."""
    try:
        return _decode(line if isinstance(line, str) else line.decode())
    except RecursionError:
        raise Refused("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def config_hash(config: Mapping[str, Any]) -> str:
    """12 hex digits that stand for the options in `config`, whatever their order."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def stamp(
    record: dict[str, Any],
    *,
    stage: str,
    config: str,
    backend: str = "rules",
    model: str | None = None,
    **policies: str,
) -> dict[str, Any]:
    """Note in `record` which stage made it, and return it. `config` is a `config_hash`, `policies` are told in full.

    The same entry is noted once: a stage that changes nothing on its own output leaves the same bytes.
    """
    entry = {"stage": stage, "version": __version__, "backend": backend, "config": config}
    if model is not None:
        entry["model"] = model
    entry |= policies
    entries = record.get("provenance") or []
    if entry not in entries:
        record["provenance"] = [*entries, entry]
    return record


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def _not_finite(value: Any, path: str = "") -> str:
    """Where in `value` the first number is that JSON can't hold, as ``steps[2].size``; the whole path if it hides."""
    if isinstance(value, float) and not math.isfinite(value):
        return path
    entries: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        entries = [(f"{path}.{key}" if path else str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        entries = [(f"{path}[{number}]", entry) for number, entry in enumerate(value)]
    return next((found for where, entry in entries if (found := _not_finite(entry, where))), "")
