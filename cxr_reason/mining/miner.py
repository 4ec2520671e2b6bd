"""From the rows of a study to its records: what `cxr mine` does to each of them, in any process.

`mine` is pure: the same study and the same settings give the same records, wherever and whenever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from cxr_reason import columns, readings, records
from cxr_reason.mining import labels, priors, sights, tally, tasks, temporal, views
from cxr_reason.mining.dice import coin, mix, salt
from cxr_reason.mining.settings import Settings
from cxr_reason.mining.studies import labels_of, of_two_films, split_by_role, study_of, tables_of
from cxr_reason.mining.tasks import Question
from cxr_reason.mining.views import Films
from cxr_reason.radiology import Reading, read
from cxr_reason.runner import Reject, Result
from cxr_reason.streams import Group, Row, group_consecutive, stable_hash

REJECTIONS = {
    "empty": "There is no report text.",
    "language": "The text isn't English, and only English is read.",
    "not-chest": "The report is of another part of the body, or of another kind of imaging.",
    "not-understood": "Next to nothing of the text could be understood.",
    "no-finding": "The report only compares the film with an earlier one, and names no finding.",
}
CHECKS = (*REJECTIONS, "split", "labels", "no-question")
"""What studies are rejected for."""
NO_QUESTION = "Nothing in the report can be asked with certainty under these options."

PRIOR_REJECTED = "the report of the prior can't be used"
OTHER_SPLIT = "the prior is in another split"

_SLUG = re.compile(r"[^a-z0-9]+")


def by_study(
    rows: Iterator[Row], *, mapping: Mapping[str, str], pairs: bool = True, date_order: str | None = None
) -> Iterator[Group | Row]:
    """Rows as studies, with `pairs` each with its patient's study before (`priors.attach`).

    Without study ids each row is a study.
    """
    studies = group_consecutive(rows, lambda row: columns.cell(row.data or {}, mapping, "study_id"))
    return priors.attach(studies, mapping, date_order=date_order) if pairs else studies


def mine(unit: Group | Row, settings: Settings) -> Result:
    """The records of one study, or why there are none. Raises nothing that a report could cause."""
    tables = tables_of(unit)
    result = _mined(unit, tables, settings)
    if len(tables) > 1:
        result.counts = {**result.counts, **tally.further_rows(tables, settings.mapping)}
    return result


def _mined(unit: Group | Row, tables: list[dict[str, Any]], settings: Settings) -> Result:
    given, fault = labels_of(tables, settings)
    study = study_of(tables, settings, with_labels=bool(fault))
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
    compared: Mapping[str, int] = {"labels/unread": 1} if fault else {}
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
        return Result([record], counts=tally.count(reading, (), compared))
    result = _asked(unit, study, reading, earlier, seed, settings, given if settings.labels == "input" else None)
    if compared:
        result.counts = {**result.counts, **compared}
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
    prior_images = split_by_role(study)
    now = _told(reading, study.get("images", ()), tables_of(unit), settings, given)
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
    study["provenance"] = settings.provenance(readings.seal(study["report"], study["findings"], study["normal"]))
    films = now.films if options.tell_view else None
    made = [_record(study, question, seed, settings, films) for question in asked]
    if two:
        assert prior is not None
        both = of_two_films(study, prior_id=prior.study_id, prior_report=prior.report, prior_images=prior.images)
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
        tables = tables_of(Group("", rows))
        before = study_of(tables, settings)
        split_by_role(before)
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
    rows = (records.VIEW_NAMES.get(columns.cell(table, settings.mapping, "view").upper(), "") for table in tables)
    return views.Told(reading, view, views.films_of(images, rows, reading))


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
