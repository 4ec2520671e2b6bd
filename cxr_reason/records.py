"""The record: the one JSON object a line that flows through every pipe and gains fields as it goes.

`FIELDS` is the schema, in the order in which fields are written. Fields that it doesn't know pass through untouched,
after the known ones. `check` tells what is wrong with a record, `dumps` writes it in its one canonical form (the same
record always gives the same bytes), `stamp` notes which stage made it, and how.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import lru_cache
from operator import is_
from typing import Any, NoReturn

import orjson

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
SPLIT_NAMES = {
    **{"train": "train", "training": "train", "validate": "validate", "validation": "validate", "valid": "validate"},
    **{"val": "validate", "dev": "validate", "test": "test", "testing": "test", "eval": "test"},
}
"""What tables call the splits, in small letters."""
VIEWS = ("PA", "AP", "LAT", "other")
VIEW_NAMES = {"PA": "PA", "AP": "AP"} | dict.fromkeys(("LAT", "LATERAL", "LL", "RL", "XTABLE LATERAL"), "LAT")
"""What tables and DICOM's View Position call the views, in capitals. Any other is `other`, as are films taken lying on
the side, turned or tilted."""
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
ENDS = ("stop", "length")
REPORT_TEXT = ("report", "prior_report")
"""The fields that hold text of reports, which ``--no-reports`` leaves out."""

Test = Callable[[Any], bool]
Explain = Callable[[str, Any], list[str]]
Shape = str | list["Shape"] | dict[str, "Shape"]
"""How a value is built: "text", "bool", "state" (-1 to 1), "offset" or "number", [items] or {key: value}."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be: `holds` is asked of every record and is quick, `explain` only of those that are wrong.

    `shape` is what the columns of Arrow are made of; where the value may be a text or an object, it is the object's.
    The keys of an object stand in the order in which they are written.
    """

    holds: Test
    explain: Explain
    shape: Shape


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record, and the stages that write it."""

    kind: Kind
    stages: tuple[str, ...]
    doc: str
    nullable: bool = True


def _plain(holds: Test, wanted: str, shape: Shape) -> Kind:
    return Kind(holds, lambda name, value: [f"{name} must be {wanted}, not {_told(value)}"], shape)


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_span(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    start, end = value
    return type(start) is int and type(end) is int and 0 <= start <= end


def _one_of(*allowed: str) -> Kind:
    # `in` a tuple, not a set: the value may be a list.
    return Kind(allowed.__contains__, lambda name, value: [f"{name} must be one of {', '.join(allowed)}"], "text")


def _list_of(item: Kind) -> Kind:
    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(map(item.holds, value))

    def explain(name: str, value: Any) -> list[str]:
        if not isinstance(value, list):
            return [f"{name} must be a list, not {_told(value)}"]
        return [
            problem
            for number, entry in enumerate(value)
            if not item.holds(entry)
            for problem in item.explain(f"{name}[{number}]", entry)
        ]

    return Kind(holds, explain, [item.shape])


def _object(fields: Mapping[str, Kind], *required: str) -> Kind:
    """An object with these `fields`, each null but for the `required` ones; other keys are let through."""

    tests = {name: kind.holds for name, kind in fields.items()}

    def holds(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        for key, entry in value.items():
            if entry is not None and key in tests and not tests[key](entry):
                return False
        return all(value.get(key) is not None for key in required)

    def explain(name: str, value: Any) -> list[str]:
        if not isinstance(value, dict):
            return [f"{name} must be an object, not {_told(value)}"]
        missing = [f"{name}.{key} is missing" for key in required if value.get(key) is None]
        return missing + [
            problem
            for key, entry in value.items()
            if entry is not None and key in fields and not tests[key](entry)
            for problem in fields[key].explain(f"{name}.{key}", entry)
        ]

    return Kind(holds, explain, {key: kind.shape for key, kind in fields.items()})


def _either(first: Kind, second: Kind) -> Kind:
    """`first` or `second`; what is neither is explained as the second."""
    return Kind(lambda value: first.holds(value) or second.holds(value), second.explain, second.shape)


def _maybe(kind: Kind) -> Kind:
    """`kind`, or null."""
    return Kind(lambda value: value is None or kind.holds(value), kind.explain, kind.shape)


def _are_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(
        label in LABELS and type(state) is int and -1 <= state <= 1 for label, state in value.items()
    )


def _explain_labels(name: str, value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"{name} must be an object, not {_told(value)}"]
    return [
        f"{name}.{label} must be 1 (present), 0 (absent) or -1 (uncertain); leave it out where unmentioned"
        if label in LABELS
        else f"{name}: {label!r} is none of CheXpert's 14 labels"
        for label, state in value.items()
        if not _are_labels({label: state})
    ]


TEXT = _plain(lambda value: isinstance(value, str), "text", "text")
BOOLEAN = _plain(lambda value: isinstance(value, bool), "true or false", "bool")
NUMBER = _plain(_is_number, "a finite number", "number")
SHARE = _plain(lambda value: _is_number(value) and 0 <= value <= 1, "a number in [0, 1]", "number")
SPAN = _plain(_is_span, "[start, end], offsets in the report", ["offset"])
COUNT = _plain(lambda value: type(value) is int and value >= 0, "a whole number, 0 or more", "offset")
TEXTS = _list_of(TEXT)
IMAGE = _either(
    TEXT,
    _object(
        {"path": TEXT, "view": _one_of(*VIEWS), "portable": BOOLEAN, "time": TEXT, "role": _one_of(*ROLES)}, "path"
    ),
)
FINDING = _object(
    {
        "name": TEXT,
        "label": _one_of(*LABELS),
        "status": _one_of(*STATUSES),
        "certainty": _one_of(*CERTAINTIES),
        "alternatives": TEXTS,
        "bound": TEXT,
        "side": _one_of(*SIDES),
        "site": TEXT,
        "severity": TEXT,
        "size": TEXT,
        "size_mm": NUMBER,
        "change": _one_of(*CHANGES),
        "acuity": _one_of(*ACUITIES),
        "calcified": BOOLEAN,
        "device": _object({"type": TEXT, "tip": TEXT, "position": TEXT, "event": TEXT}),
        "conflict": BOOLEAN,
        "time": _one_of(*TIMES),
        "span": SPAN,
        "section": TEXT,
    },
    "name",
    "status",
)
STEP = _object(
    {
        "text": TEXT,
        "kind": _one_of(*STEP_KINDS),
        "film": _one_of(*ROLES),  # "prior": the prior report bears it out, and `evidence` are offsets in that
        "findings": _list_of(FINDING),
        "basis": _one_of(*BASES),
        "evidence": _list_of(SPAN),
        "verdict": _one_of(*VERDICTS),
    },
    "text",
    "kind",
)
PROVENANCE = _object(
    {"stage": TEXT, "version": TEXT, "backend": TEXT, "config": TEXT, "model": TEXT}, "stage", "version"
)
GENERATION = _object(
    {"prompt_tokens": COUNT, "tokens": COUNT, "ends": _list_of(_one_of(*ENDS)), "votes": _list_of(_maybe(TEXT))},
)
# In the order of CheXpert's labeler, which is the engine's: "No Finding" first, lesions before opacities.
_WRITTEN = ("No Finding", *LABELS[:2], LABELS[3], LABELS[2], *LABELS[4:-1])
LABELLED = Kind(_are_labels, _explain_labels, dict.fromkeys(_WRITTEN, "state"))
_INPUT, _MINE, _REFINE, _INFER, _SCORE = ("input",), ("mine",), ("mine", "refine"), ("infer",), ("score",)
_EVERY = ("mine", "refine", "infer", "score")

FIELDS: dict[str, Field] = {
    "id": Field(
        TEXT, _MINE, "stable: same input row and task, same id, whatever the order or the shard", nullable=False
    ),
    "study_id": Field(TEXT, _INPUT, "the study that the row belongs to"),
    "patient_id": Field(TEXT, _INPUT, "the patient, for priors and splits"),
    "split": Field(_one_of(*SPLITS), _INPUT, "train, validate or test, where the input has it"),
    "sex": Field(_either(NUMBER, TEXT), _INPUT, "the patient's: F, M, or as the input has it"),
    "age": Field(_either(NUMBER, TEXT), _INPUT, "the patient's, as the input has it"),
    "study_time": Field(TEXT, _INPUT, "when the study was made"),
    "prior_study_id": Field(TEXT, _INPUT, "the patient's study before, which a temporal question compares with"),
    "task": Field(_one_of(*TASKS), _MINE, "binary, single, multiple, anomaly or temporal"),
    "images": Field(
        _list_of(IMAGE),
        _INPUT,
        "paths, or objects {path, view, portable, time, role}; in temporal questions both studies', the current first",
    ),
    "question": Field(TEXT, _MINE, "what is asked"),
    "options": Field(TEXTS, _MINE, "texts to choose from, null where the question is open"),
    "answer": Field(TEXT, _MINE, "a letter, or a text where the question is open"),
    "report_source": Field(_one_of("labels"), _MINE, "labels: the report is ours, made of the input's labels"),
    "report": Field(TEXT, _INPUT, "the text that the chain was mined from"),
    "prior_report": Field(TEXT, _INPUT, "the report of the prior study, in temporal questions"),
    "findings": Field(_list_of(FINDING), _MINE, "what the report says, a finding each"),
    "labels": Field(LABELLED, _MINE, "CheXpert-14 at mention level: 1, 0, -1; unmentioned = no key"),
    "own_labels": Field(LABELLED, _MINE, "what we read, where `labels` are the input's (`--labels input`)"),
    "input_labels": Field(LABELLED, _INPUT, "what the input says, where `labels` are what we read"),
    "normal": Field(BOOLEAN, _MINE, "nothing abnormal of any kind"),
    "acute": Field(BOOLEAN, _MINE, "something acute; null where the report doesn't say"),
    "quality": Field(TEXTS, _MINE, "limits that the report names"),
    "understood": Field(SHARE, _MINE, "share of the sentences that could be read, in [0, 1]"),
    "steps": Field(_list_of(STEP), _REFINE, "the chain of reasoning; a step with film prior tells of the film before"),
    "prediction": Field(TEXT, _INFER, "the model's full text"),
    "predictions": Field(TEXTS, _INFER, "all of the model's texts, where several were asked for (`--n`)"),
    "model": Field(TEXT, _INFER, "what made the prediction"),
    "generation": Field(GENERATION, _INFER, "tokens in and out, how each text ended, and what each answers (`--vote`)"),
    "correct": Field(_either(BOOLEAN, SHARE), _SCORE, "right or wrong; open questions: F1 over findings, in [0, 1]"),
    "factuality": Field(SHARE, _SCORE, "claims that the report supports / all claims"),
    "completeness": Field(SHARE, _SCORE, "reference findings that are told rightly / all of them"),
    "coverage": Field(SHARE, _SCORE, "reference findings that are named at all / all of them"),
    "effectiveness": Field(SHARE, _SCORE, "steps that the reference chain supports / all steps"),
    "radrscore": Field(SHARE, _SCORE, "mean of factuality, completeness and effectiveness"),
    "positive_factuality": Field(SHARE, _SCORE, "factuality of the findings called present"),
    "positive_completeness": Field(SHARE, _SCORE, "completeness of the findings present"),
    "balanced_radrscore": Field(SHARE, _SCORE, "mean of the positive and the negative half"),
    "provenance": Field(_list_of(PROVENANCE), _EVERY, "what made it, stage by stage", nullable=False),
}


def check(record: Mapping[str, Any]) -> list[str]:
    """What is wrong with `record`, a sentence a problem that starts with the field's name; empty when it is fine.

    Only `id` is required: every stage checks for itself the fields that it needs. No sentence quotes the record's text.
    """
    problems = [] if record.get("id") else ["id is missing"]
    for name, value in record.items():
        field = FIELDS.get(name)
        if field is None or (value is None and field.nullable) or field.kind.holds(value):
            continue
        if name != "id" or value:
            problems += field.kind.explain(name, value)
    if isinstance(record.get("options"), list) and not problems:
        letters = [letter(number) for number in range(len(record["options"]))]
        if record.get("answer") not in letters:
            problems.append(f"answer must be a letter of its {len(letters)} options")
    return problems


def letter(index: int) -> str:
    """The letter of the option with this index, from 0."""
    return chr(ord("A") + index)


def index_of(letter: str, options: Sized) -> int | None:
    """Which of `options` a `letter` means, small or capital, from 0; None where it is no letter of theirs."""
    index = ord(letter.upper()) - ord("A") if len(letter.upper()) == 1 else -1
    return index if 0 <= index < len(options) else None


class Refused(ValueError):
    """JSON that we don't take; the message doesn't quote it."""


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def dumps(record: Mapping[str, Any]) -> str:
    """`record` as one line of JSON without the newline: known fields first, in the order of `FIELDS`.

    Raises ValueError, naming the field, for NaN and infinity, which JSON doesn't have. Lone surrogates (half an emoji,
    as in broken exports) are written as escapes, so the line is always valid UTF-8.
    """
    return _dumped(record).decode()


def _dumped(record: Mapping[str, Any]) -> bytes:
    ordered = {name: record[name] for name in FIELDS if name in record}
    if len(ordered) < len(record):
        ordered |= {name: value for name, value in record.items() if name not in FIELDS}
    return dumps_plain(ordered)


def dumps_plain(entry: Mapping[str, Any]) -> bytes:
    """Like `dumps`, encoded, for objects that are no records (rejects): keys keep their order."""
    try:
        return _encoded(entry)
    except ValueError:  # a number that JSON doesn't have or orjson can't write, or half an emoji
        pass
    try:
        line = _encode(entry)
    except ValueError:
        raise ValueError(f"{_not_finite(entry)} holds NaN or infinity, which JSON can't say") from None
    try:
        return line.encode()
    except UnicodeEncodeError:
        return _encode_ascii(entry).encode()


def _encoded(entry: Mapping[str, Any]) -> bytes:
    """JSON by orjson, several times as fast as json. Raises ValueError where the two may differ.

    orjson writes NaN as null, so a null is taken only from members that are never numbers.
    """
    try:
        line = orjson.dumps(entry)
    except orjson.JSONEncodeError as error:
        raise ValueError from error
    if (nulls := line.count(b"null")) and nulls != sum(map(line.count, _NULLS)):
        raise ValueError
    return line


_NULLS = (b'"label":null', b'"acute":null', b'"options":null')


# What all records of a study say alike. In `FIELDS` they stand together.
OF_STUDY = (
    *("report", "prior_report", "findings", "labels", "own_labels", "input_labels"),
    *("normal", "acute", "quality", "understood"),
)


@lru_cache(maxsize=256)
def _layout(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """`names` as they are written: those before what is the study's, those of the study, the rest."""
    known = [name for name in FIELDS if name in names]
    ours = tuple(name for name in known if name in OF_STUDY)
    start = known.index(ours[0]) if ours else len(known)
    others = (name for name in names if name not in FIELDS)
    return tuple(known[:start]), ours, (*known[start + len(ours) :], *others)


def dump_lines(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Each of `records` as `dumps` writes it, encoded and with its newline.

    What follows on a record of the same study shares its report and findings, the very objects, with it: these are
    encoded once, which is most of the work. Raises ValueError like `dumps`.
    """
    shared: list[Any] = []
    between = b""
    for record in records:
        first, ours, last = _layout(tuple(record))
        try:
            own = [record[name] for name in ours]
            if len(own) != len(shared) or not all(map(is_, own, shared)):
                between, shared = _members(record, ours), own
            parts = (_members(record, first), between, _members(record, last))
            yield b"{%b}\n" % b",".join(filter(None, parts))
        except ValueError:  # `dumps` knows what to do
            shared, between = [], b""
            yield _dumped(record) + b"\n"


def _members(record: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    return _encoded({name: record[name] for name in names})[1:-1]


def loads(line: str | bytes) -> Any:
    """Read one line of JSON. Raises ValueError: JSONDecodeError, or `Refused` for what only Python would read."""
    try:
        return _decode(line if isinstance(line, str) else line.decode())
    except RecursionError:
        raise Refused("nested too deeply") from None


class Loader:
    """`loads` for one line after the other: what a line says of its study as the last one did isn't read again.

    Lines of one study then share these values, the very objects, which `dump_lines` makes use of.
    """

    def __init__(self) -> None:
        self._text = ""
        self._values: dict[str, Any] = {}

    def __call__(self, line: str | bytes) -> Any:
        line = line if isinstance(line, str) else line.decode()
        start = line.find(_STUDY_BEGINS)
        end = line.find(_STEPS_BEGIN, start)
        if start > 0 and end > 0:
            # A quote after a comma stands outside of texts, so both places are between members; that those are the
            # record's own, and no inner object's, is certain if each of the three parts can be read by itself.
            try:
                before, after = _decode(line[:start] + "}"), _decode("{" + line[end + 1 :])
                text = line[start + 1 : end]
                if text != self._text:
                    self._values, self._text = _decode("{" + text + "}"), text
                return before | self._values | after
            except (ValueError, RecursionError):
                self._text = ""
        return loads(line)


_STUDY_BEGINS, _STEPS_BEGIN = ',"report":', ',"steps":'


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
    if not isinstance(entries, list):  # somebody else's, or damaged: kept, for `check` to complain of
        entries = [entries]
    if entry not in entries:
        record["provenance"] = [*entries, entry]
    return record


def _told(value: Any) -> str:
    """What `value` is, without a word of it if it is text."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)[:20]
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


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
