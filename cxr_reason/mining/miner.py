"""From the rows of a study to its records: what `cxr mine` does to each of them, in any process.

`mine` is pure: the same study and the same settings give the same records, wherever and whenever.
"""

from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, lru_cache
from typing import Any

from cxr_reason import columns, readings, records
from cxr_reason.mining import labels, priors, sights, tally, tasks, temporal, views
from cxr_reason.mining.apart import split_of
from cxr_reason.mining.dice import coin, mix, salt
from cxr_reason.mining.tasks import Options, Question
from cxr_reason.mining.views import Films
from cxr_reason.radiology import Reading, read
from cxr_reason.runner import Reject, Result
from cxr_reason.streams import Group, Row, group_consecutive, stable_hash, stable_id

REJECTIONS = {
    "empty": "There is no report text.",
    "language": "The text isn't English, and only English is read.",
    "not-chest": "The report is of another part of the body.",
    "not-understood": "Next to nothing of the text could be understood.",
}
NO_QUESTION = "Nothing in the report can be asked with certainty under these options."

PRIOR_REJECTED = "the report of the prior can't be used"
OTHER_SPLIT = "the prior is in another split"

_VIEWS = {"PA": "PA", "AP": "AP", "LAT": "LAT", "LATERAL": "LAT", "LL": "LAT"}
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Settings:
    """All that decides the records of a study."""

    mapping: Mapping[str, str]
    """Which column is what: `columns.guess_columns`."""
    options: Options = field(default_factory=Options)
    findings_only: bool = False
    split: str | None = None
    image_root: str | None = None
    plain_normals: float = 1.0
    """Share of the plain normal reports that is kept (`is_plain`)."""
    language: str = "en"
    """What the reports are known to be written in. The engine tells other languages by itself, but not every stem."""
    labels: str = "own"
    """Whose labels decide: "own" for those that we read, "input" for what `label_columns` hold."""
    label_columns: Mapping[str, str] = field(default_factory=dict)
    """Which column holds which label: `columns.label_columns`."""

    def provenance(self, seal: str | None = None) -> list[dict[str, str]]:
        """The one entry that every record gets; `seal` is that of the study's reading."""
        entry = self._entry
        return [entry if seal is None else entry | {"reading": seal}]

    @cached_property
    def _entry(self) -> dict[str, str]:
        policies = {name: getattr(self.options, name) for name in ("negatives", "uncertain", "definition")}
        policies["labels"] = self.labels
        stamped: dict[str, Any] = {}
        records.stamp(stamped, stage="mine", config=records.config_hash(self.as_dict()), **policies)
        entry: dict[str, str] = stamped["provenance"][0]
        return entry

    def as_dict(self) -> dict[str, Any]:
        """For `records.config_hash`."""
        options = {name: getattr(self.options, name) for name in Options.__slots__}
        own: dict[str, Any] = {"findings_only": self.findings_only, "split": self.split, "image_root": self.image_root}
        own |= {"plain_normals": self.plain_normals, "labels": self.labels}
        own |= {} if self.language == "en" else {"language": self.language}
        return {**options, **own, "mapping": dict(self.mapping), "label_columns": dict(self.label_columns)}


def by_study(rows: Iterator[Row], *, mapping: Mapping[str, str], pairs: bool = True) -> Iterator[Group | Row]:
    """Rows as studies, with `pairs` each with its patient's study before; without study ids each row is a study."""
    studies = group_consecutive(rows, lambda row: columns.cell(row.data or {}, mapping, "study_id"))
    return priors.attach(studies, mapping) if pairs else studies


def mine(unit: Group | Row, settings: Settings) -> Result:
    """The records of one study, or why there are none. Raises nothing that a report could cause."""
    tables = _tables(unit)
    given, fault = _given(tables, settings)
    study = _study(tables, settings, with_labels=bool(fault))
    if settings.split is not None and study.get("split") != settings.split:
        return Result(counts={"left out/other split": 1})
    identity = study["study_id"]
    if isinstance(unit, Group) and unit.barred:
        return Result(rejects=[Reject(identity, "mine", [{"check": "split", "message": unit.barred}], study)])
    if fault and settings.labels == "input":
        return Result(rejects=[Reject(identity, "mine", [{"check": "labels", "message": fault}], study)])
    reading = read(study["report"])
    foreign = settings.language != "en" and reading.rejection != "empty"
    rejection = "language" if foreign else reading.rejection
    compared = Counter({"labels/unread": 1} if fault else {})
    if given and not rejection:
        compared = labels.compared(reading.labels, given)
    if rejection and settings.labels == "input" and (text := labels.told(given)):
        study |= {"report": text, "report_source": "labels"}
        reading = read(text)
        rejection = reading.rejection
    if rejection is not None:
        reason = {"check": rejection, "message": REJECTIONS[rejection]}
        return Result(rejects=[Reject(identity, "mine", [reason], study)])
    seed = mix(stable_hash(identity) ^ salt("seed", str(settings.options.seed)))
    if settings.plain_normals < 1 and is_plain(reading) and coin(seed, "plain") >= settings.plain_normals:
        return Result(counts={"left out/plain normal": 1})
    earlier = study.pop("prior_report", None)
    study |= _read(reading) | _labels(reading, given, settings)
    if settings.findings_only:
        before = {} if earlier is None else {"prior_report": earlier}
        record = {"id": identity, **study, **before, "provenance": settings.provenance()}
        return Result([record], counts=tally.count(reading, ()) + compared)
    result = _asked(unit, study, reading, earlier, seed, settings, given if settings.labels == "input" else None)
    result.counts = Counter(result.counts) + compared
    return result


def _asked(
    unit: Group | Row,
    study: dict[str, Any],
    reading: Reading,
    prior_report: str | None,
    seed: int,
    settings: Settings,
    given: Mapping[str, int] | None,
) -> Result:
    """The questions about one study, as records. `given` are the input's labels, where they decide."""
    options = settings.options
    prior_images = _split_by_role(study)
    now = _told(reading, study.get("images", ()), _tables(unit), settings, given)
    if study.get("report_source"):  # CheXpert's labels know nothing of a scoliosis
        now.view.whole = options.definition == "chexpert"
    left_out = Counter({f"finding/{why}": n for why, n in views.limit(now, told=options.tell_view).items()})
    asked = tasks.questions(seed, reading, now.view, options)
    two: list[Question] = []
    prior = None
    if "temporal" in options.tasks:
        prior, why = _prior(unit, study, prior_report, prior_images, settings)
        if prior is not None:
            two, reasons, why = _two_films(seed, now, prior, study, settings)
            left_out.update({f"temporal finding/{reason}": number for reason, number in reasons.items()})
        if why:
            left_out[f"temporal/{why}"] += 1
    counts = tally.count(reading, [*asked, *two])
    if not asked and not two:
        if not (now.view.seen or now.view.denials):
            reason = {"check": "no-question", "message": NO_QUESTION}
            return Result(rejects=[Reject(study["study_id"], "mine", [reason], study)], counts=counts)
        if options.tasks != ("temporal",):
            left_out["not drawn, so that yes and no stay in balance"] += 1
    counts.update({f"left out/{reason}": number for reason, number in left_out.items()})
    if not asked and not two:
        return Result(counts=counts)
    study["provenance"] = settings.provenance(readings.seal(study["report"], study["findings"]))
    films = now.films if options.tell_view else None
    made = [_record(study, question, seed, settings, films) for question in asked]
    if two:
        assert prior is not None
        both = _of_two_films(study, prior)
        earlier = prior.told.films if prior.told else None
        made += [_record(both, question, seed, settings, films, earlier) for question in two]
    return Result(made, counts=counts)


def is_plain(reading: Reading) -> bool:
    """Whether the report is a normal one in stock phrases: nothing in it but plain denials, and no number."""
    return (
        reading.normal
        and all(found.status == "absent" and found.time == "current" for found in reading.findings)
        and not any(character.isdigit() for character in reading.text)
    )


# --------------------------------------------------------------------------------------------------------- two films


@dataclass(slots=True)
class _Prior:
    """The study before, as far as it is known."""

    told: views.Told | None
    """None where only its id is known."""
    study_id: str | None
    report: str | None
    images: list[Any]
    days: tuple[date, ...]
    """When it was made, where that is known."""
    split: str | None


def _prior(
    unit: Group | Row, study: Mapping[str, Any], report: str | None, images: list[Any], settings: Settings
) -> tuple[_Prior | None, str | None]:
    """The study before `unit`, and why it has none to compare with, where one was looked for."""
    rows = unit.prior if isinstance(unit, Group) else None
    if isinstance(unit, Group) and unit.no_prior and report is None:
        return None, unit.no_prior
    identity, made, split = study.get("prior_study_id"), "", None
    tables: list[dict[str, Any]] = []
    if rows:
        tables = _tables(Group("", rows))
        before = _study(tables, settings)
        _split_by_role(before)
        identity = before["study_id"]
        made = priors.made_at(rows, settings.mapping)
        images = images or before.get("images", [])
        report = report or before["report"]
        split = before.get("split")
    if not identity and report is None and not rows:
        return None, None
    if report is None:
        return _Prior(None, identity, None, images, priors.days_of(made), split), None
    reading = read(report)
    if reading.rejection is not None:
        return None, PRIOR_REJECTED
    told = _told(reading, images, tables, settings)
    views.limit(told, told=True)  # what its films can't show is no evidence of a change
    return _Prior(told, identity, report, images, priors.days_of(made), split), None


def _two_films(
    seed: int, now: views.Told, prior: _Prior, study: Mapping[str, Any], settings: Settings
) -> tuple[list[Question], Counter[str], str | None]:
    """The temporal questions, and for how many findings there is none, or why there is none at all."""
    if prior.split is not None and study.get("split") not in (None, prior.split):
        return [], Counter(), OTHER_SPLIT
    compared = priors.Compared(now.reading, study.get("study_time", ""))
    why = compared.elsewhere(prior.days)
    if why:
        return [], Counter(), why
    two, reasons = temporal.questions(seed, now, prior.told, settings.options, compared=compared, days=prior.days)
    return two, reasons, None


def _told(
    reading: Reading,
    images: Iterable[Any],
    tables: Iterable[dict[str, Any]],
    settings: Settings,
    given: Mapping[str, int] | None = None,
) -> views.Told:
    """A report with what can be seen on its films."""
    view = sights.look(reading, negatives=settings.options.negatives, given=given)
    rows = (_VIEWS.get(columns.cell(table, settings.mapping, "view").upper(), "") for table in tables)
    return views.Told(reading, view, views.films_of(images, rows, reading))


def _split_by_role(study: dict[str, Any]) -> list[Any]:
    """Take the images that the input calls those of a prior out of `study`, and the roles off the others."""
    images = study.get("images", [])
    prior = [image for image in images if isinstance(image, dict) and image.get("role") == "prior"]
    if any(isinstance(image, dict) and "role" in image for image in images):
        study["images"] = [_without_role(image) for image in images if image not in prior]
    return [_without_role(image) for image in prior]


def _without_role(image: Any) -> Any:
    if not isinstance(image, dict):
        return image
    left = {name: value for name, value in image.items() if name != "role"}
    return left if len(left) > 1 else left.get("path")


def _of_two_films(study: Mapping[str, Any], prior: _Prior) -> dict[str, Any]:
    """The study's fields with those of the one before: its images follow the current ones."""
    both = dict(study)
    if prior.study_id:
        both["prior_study_id"] = prior.study_id
    if prior.report is not None:
        both["prior_report"] = prior.report
    pairs = (("current", study.get("images", ())), ("prior", prior.images))
    images = [
        {**(image if isinstance(image, dict) else {"path": image}), "role": role}
        for role, some in pairs
        for image in some
    ]
    if images:
        both["images"] = images
    return both


# -------------------------------------------------------------------------------------------------------------- input


def _tables(unit: Group | Row) -> list[dict[str, Any]]:
    rows = [unit] if isinstance(unit, Row) else unit.rows
    return [row.data for row in rows if row.data is not None]


def _given(tables: list[dict[str, Any]], settings: Settings) -> tuple[dict[str, int], str]:
    """The input's labels of a study, and why there are none where they can't be read."""
    try:
        return labels.given(tables, settings.label_columns), ""
    except ValueError as error:
        return {}, f"{error}."


def _study(tables: list[dict[str, Any]], settings: Settings, *, with_labels: bool = False) -> dict[str, Any]:
    """The study's own fields. Rows of one study are its images; reports that differ stand one after the other.

    `with_labels` keeps the columns of labels as they are.
    """
    mapping, first = settings.mapping, tables[0]
    reports = dict.fromkeys(text for table in tables if (text := columns.compose_report(table, mapping)))
    report = "\n".join(reports)
    images = [image for table in tables for image in _images(table, settings)]
    identity = columns.cell(first, mapping, "study_id") or stable_id(report or images)
    study: dict[str, Any] = {"study_id": identity}
    for name in ("patient_id", "study_time", "prior_study_id"):
        if text := columns.cell(first, mapping, name):
            study[name] = text
    if split := split_of(first, mapping):
        study["split"] = split
    if images:
        study["images"] = images
    if isinstance(prior := first.get("prior_report"), str) and prior.strip():
        study["prior_report"] = prior.strip()
    study["report"] = report
    ours = _own_columns((*mapping.values(), *(() if with_labels else settings.label_columns.values())))
    study |= {name: value for name, value in first.items() if name not in ours and value not in (None, "")}
    return study


@lru_cache(maxsize=64)
def _own_columns(mapped: tuple[str, ...]) -> frozenset[str]:
    """Columns that don't pass through untouched: those that were used, and those that would be taken for ours."""
    return frozenset(mapped) | frozenset(records.FIELDS)


def _images(table: Mapping[str, Any], settings: Settings) -> Iterator[Any]:
    column = settings.mapping.get("images")
    view = _VIEWS.get(columns.cell(table, settings.mapping, "view").upper())
    for image in columns.image_list(table.get(column)) if column else ():
        entry = dict(image) if isinstance(image, dict) else {"path": image}
        if settings.image_root and isinstance(entry.get("path"), str):
            entry["path"] = os.path.join(settings.image_root, entry["path"])
        if view:
            entry.setdefault("view", view)
        yield entry if len(entry) > 1 else entry.get("path")


# ------------------------------------------------------------------------------------------------------------ records


def _read(reading: Reading) -> dict[str, Any]:
    """What the engine makes of the report, as fields of a record."""
    return {
        "findings": [finding.as_dict() for finding in reading.findings],
        "labels": reading.labels,
        "normal": reading.normal,
        "acute": reading.acute,
        "quality": reading.quality,
        "understood": round(reading.understood, 3),
    }


def _labels(reading: Reading, given: Mapping[str, int], settings: Settings) -> dict[str, Any]:
    """The labels that decide, and beside them the others, where the input has any."""
    if settings.labels == "input":
        return {"labels": given, "own_labels": reading.labels}
    return {"input_labels": given} if given else {}


def _record(
    study: Mapping[str, Any],
    question: Question,
    seed: int,
    settings: Settings,
    films: Films | None = None,
    earlier: Films | None = None,
) -> dict[str, Any]:
    """`films` and those of the `earlier` study are told in the question, where they are given."""
    kind = question.task if question.options is not None else f"{question.task}-open"
    slug = _slug(question.finding or settings.options.definition)
    suffix = mix(seed ^ salt(kind, question.finding)) >> 48
    record = {
        **study,
        "id": f"{study['study_id']}-{kind}-{slug}-{suffix:04x}",
        "task": question.task,
        "question": question.question if films is None else views.told_before(question.question, films, earlier),
        "options": question.options,
        "answer": question.answer,
        "steps": question.steps,
    }
    if not settings.options.thinned:
        record["cell"] = f"{kind}/{question.finding}/{question.cell}"
    return record


@lru_cache(maxsize=1024)
def _slug(name: str) -> str:
    return _SLUG.sub("-", name.lower()).strip("-")
