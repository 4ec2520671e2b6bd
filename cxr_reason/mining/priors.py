"""The study before: which one it is, and whether a report compares with it or with another film.

`attach` gives each study its prior, the patient's last earlier study. Rows of one patient stand together, as those of
one study do; the adjacent studies of a patient are collected, put in order by their times and let go in the order of
the input, so that shards, processes and continued runs see the same. A prior is given only where it is certain: times
that can't be read or are the same, or a row that can't be read among them, leave the patient's studies without one, and
the study says why (`Group.no_prior`).

Whether 05/03/2024 is in March or in May is the column's matter, not the patient's: `Order` finds it out.

`elsewhere` holds the dates that a report names against the prior's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import dropwhile, islice

from cxr_reason import columns, console
from cxr_reason.errors import InputError
from cxr_reason.mining.dates import DAY_FIRST, EITHER, MONTH_FIRST, Moment, Named, moment, named, order_of
from cxr_reason.radiology import Reading
from cxr_reason.radiology.sections import SILENT, sections
from cxr_reason.streams import GROUP_ROWS, Group, Row, Seen

# Rows that are held back until a date tells the order of day and month. That so many dates all lie in the first twelve
# days of their months happens only in tables that are made so.
LOOK_AHEAD = 2000
MOST_DATES = 20  # no report names more, and time stays linear for texts that are none
FIRST = "it is the patient's first study here"
NO_TIME = "a time of the patient's studies is missing or can't be read"
SAME_TIME = "two of the patient's studies have the same time, so their order is unknown"
BETWEEN = "there are studies between it and the prior that it names"
NOT_EARLIER = "the prior that it names isn't earlier"
UNREADABLE = "a row among the patient's studies can't be read"
TOO_MANY = f"the patient has more than {GROUP_ROWS:,} rows"
APART = "the patient's rows don't stand together"
COMPARES_NOTHING = "the report says that there is no film to compare with"
COMPARES_ELSEWHERE = "the report compares with a film of another date than the prior's"


# ---------------------------------------------------------------------------------------------------- which study


def attach(
    units: Iterable[Group | Row], mapping: Mapping[str, str], *, date_order: str | None = None
) -> Iterator[Group | Row]:
    """`units` in their order, each study with the rows of its prior, or with why it has none.

    Without a column of patients, and one of times or of priors' ids, they pass through as they are. `date_order` is
    DAY_FIRST or MONTH_FIRST, None to find it out. Raises InputError where dates of the column contradict each other.
    """
    ordered = "study_time" in mapping or "study_order" in mapping
    if "patient_id" in mapping and (ordered or "prior_study_id" in mapping):
        order = Order(mapping, date_order)
        return _attached(order.found(iter(units)) if ordered else iter(units), mapping, order, ordered=ordered)
    return iter(units)


class Order:
    """Whether the dates of a column have the day first, or the month, where they are numbers with slashes or dashes.

    The first date that can only be read in one way tells. Until it comes, and a date has been met that can be read in
    both, units are held back, at most `LOOK_AHEAD` rows of them; then the month is taken to be first, with a warning.
    A date that contradicts what was found out ends the run: others were read the wrong way, and films have changed
    places. What the user `told` stands; what can't be read so, can't be read.
    """

    def __init__(self, mapping: Mapping[str, str], told: str | None = None) -> None:
        self.order = told
        self._told = told is not None
        self._column = mapping.get("study_time") or mapping.get("study_order", "")
        self._mapping = mapping
        self._by = ""  # where the date stands that told it

    @property
    def day_first(self) -> bool:
        return self.order == DAY_FIRST

    def found(self, units: Iterator[Group | Row]) -> Iterator[Group | Row]:
        """The same units, none with a date that may be read in two ways before `order` is known."""
        if self._told:
            yield from units
            return
        held: deque[Group | Row] = deque()
        rows = 0
        for unit in units:
            says = self._heard(unit)
            if self.order is None and (held or says == EITHER):
                held.append(unit)
                rows += 1 if isinstance(unit, Row) else len(unit.rows)
                if rows >= LOOK_AHEAD:
                    self._settle()
            else:
                yield from held
                held.clear()
                yield unit
        if held and self.order is None:
            self._settle()
        yield from held

    def _heard(self, unit: Group | Row) -> str | None:
        """How the unit's date must be read."""
        says = order_of(made_at(unit.rows, self._mapping)) if isinstance(unit, Group) else None
        if says in (DAY_FIRST, MONTH_FIRST):
            where = f"{unit.rows[0].file}:{unit.rows[0].line}" if isinstance(unit, Group) else ""
            if self.order not in (None, says):
                before = f"that of {self._by} has" if self._by else "those before were taken to have"
                first, other = ("day", "month") if says == DAY_FIRST else ("month", "day")
                raise InputError(
                    f"this date in column {self._column!r} has the {first} first, and {before} the {other} first",
                    where=where,
                    hint="Write all dates in one way, as 2024-03-05, or say which way counts: --date-order "
                    f"{DAY_FIRST} or {MONTH_FIRST}. Dates that can't be read so then count as missing.",
                )
            if self.order is None:
                self.order, self._by = says, where
        return says

    def _settle(self) -> None:
        self.order = MONTH_FIRST
        console.warn(
            f"column {self._column!r}: no date tells whether the day or the month is first; the month is taken to be "
            f"first (--date-order {DAY_FIRST} says otherwise)"
        )


def _attached(
    units: Iterator[Group | Row], mapping: Mapping[str, str], order: Order, *, ordered: bool
) -> Iterator[Group | Row]:
    seen = Seen()
    apart = 0
    block: list[Group | Row] = []
    patient, rows, fault = "", 0, ""
    for unit in units:
        if isinstance(unit, Row):
            if block and rows < GROUP_ROWS:
                block.append(unit)
                rows += 1
            else:
                yield unit
            continue
        name = columns.cell(unit.rows[0].data or {}, mapping, "patient_id")
        if not name or name != patient:
            yield from _linked(block, mapping, fault, order, ordered=ordered)
            block, rows, patient, fault = [], 0, name, ""
            if name and seen.add(name):
                apart += 1
                fault = APART
        elif rows + len(unit.rows) > GROUP_ROWS:
            fault = TOO_MANY
            yield from _linked(block, mapping, fault, order, ordered=ordered)
            block, rows = [], 0
        if name:
            block.append(unit)
            rows += len(unit.rows)
        else:
            yield unit
    yield from _linked(block, mapping, fault, order, ordered=ordered)
    if apart:
        console.warn(
            f"about {apart:,} patients have rows that don't stand together: the later ones get no temporal question. "
            "Sort the input by patient."
        )


def _linked(
    block: list[Group | Row], mapping: Mapping[str, str], fault: str, order: Order, *, ordered: bool
) -> Iterator[Group | Row]:
    """The studies of one patient, and rows that can't be read among them, each study with its prior."""
    groups = [unit for unit in block if isinstance(unit, Group)]
    # Rows after the last study are another patient's as likely as not.
    if any(isinstance(unit, Row) for unit in dropwhile(lambda unit: isinstance(unit, Row), reversed(block))):
        fault = fault or UNREADABLE
    if not fault:
        moments: list[Moment | None] = [None] * len(groups)
        if ordered:
            moments = [moment(made_at(group.rows, mapping), day_first=order.day_first) for group in groups]
        by_id = {group.key: number for number, group in enumerate(groups) if group.key}
        for number, group in enumerate(groups):
            given = columns.cell(group.rows[0].data or {}, mapping, "prior_study_id")
            if ordered or given:
                link(number, groups, moments, by_id, given)
    elif ordered:
        for group in groups:
            group.no_prior = fault
    yield from block


def link(
    number: int, groups: list[Group], moments: list[Moment | None], by_id: Mapping[str, int], given: str = ""
) -> None:
    """Give the study `groups[number]` its prior among the patient's `groups`, or say why it has none.

    A prior that the input names by its id counts, where it is the last before; one that isn't in the input leaves the
    study as it is.
    """
    group = groups[number]
    if given:
        earlier = by_id.get(given)
        if earlier is None or given == group.key:
            return
        last, why = _last_before(number, moments)
        if why == NO_TIME or last == earlier:  # without times, the input's word has to do
            group.prior = groups[earlier].rows
        elif why == SAME_TIME:
            group.no_prior = SAME_TIME
        else:
            group.no_prior = BETWEEN if _is_before(moments[earlier], moments[number]) else NOT_EARLIER
        return
    if all(made is None for made in moments) and len(groups) == 1:
        group.no_prior = FIRST
        return
    last, group.no_prior = _last_before(number, moments)
    if last is not None:
        group.prior = groups[last].rows


def _last_before(number: int, moments: list[Moment | None]) -> tuple[int | None, str | None]:
    """Which study is the last before the one that is asked for, or why there is none. All times must be known: a study
    without one might lie between."""
    now = moments[number]
    known = [made for made in moments if made is not None]
    if now is None or len(known) < len(moments) or not all(made.comparable(now) for made in known):
        return None, NO_TIME
    last: int | None = None
    for other, made in enumerate(known):
        if other != number and not now.before(made):
            if not made.before(now):
                return None, SAME_TIME
            if last is None or known[last].before(made):
                last = other
    if last is None:
        return None, FIRST
    earlier = (made for other, made in enumerate(known) if other != last and made.before(now))
    return (last, None) if all(made.before(known[last]) for made in earlier) else (None, SAME_TIME)


def _is_before(earlier: Moment | None, now: Moment | None) -> bool:
    return earlier is not None and now is not None and earlier.before(now)


def made_at(rows: list[Row], mapping: Mapping[str, str]) -> str:
    """What the input says of when a study was made, or its place in the order of the patient's studies."""
    data = rows[0].data or {}
    return columns.cell(data, mapping, "study_time") or columns.cell(data, mapping, "study_order")


def days_of(text: str) -> tuple[date, ...]:
    """The day of a study's time, both readings where "2/1" may be either; none for a mere order or no time."""
    made = (moment(text, day_first=day_first) for day_first in (False, True))
    return tuple(sorted({one.day for one in made if one is not None and one.day is not None}))


# ------------------------------------------------------------------------------------- what the report compares with

_HEADING = re.compile(r"comparisons?(?:[ \t]+\w+)?[ \t]*:?[ \t\n]*$", re.IGNORECASE)
_FILM_BEFORE = (
    r"compar\w+|(?:prior|previous|preceding|earlier|last|recent) (?:\w+ ){0,2}?"
    r"(?:stud|film|exam|radiograph|x-?ray|image|chest)\w*"
)
_CONTEXT = re.compile(rf"\b(?:{_FILM_BEFORE}|since|relative to|from)\b", re.IGNORECASE)
# Where a sentence tells of no finding, "from 3/4" may be anything.
_PLAINLY = re.compile(rf"\b(?:{_FILM_BEFORE})\b", re.IGNORECASE)
_LEADS = re.compile(
    r"^\W*(?:(?:as|in|when|exam\w*|direct|is|was|made) ){0,2}(?:compar\w+|relative to|since)\b", re.IGNORECASE
)
_NOTHING = re.compile(
    r"\W*(?:none\b|no\b(?! (?:significant|interval|relevant) )|n/?a\b|not available|unavailable|nil\b)", re.IGNORECASE
)
_NO_FILM = re.compile(
    r"\b(?:no|without) (?:(?:available|relevant|recent|other) )?(?:prior|previous|comparison|earlier|old) ?"
    r"(?:\w+ ){0,2}?(?:stud(?:y|ies)|films?|exams?|examinations?|radiographs?|x-?rays?|images|imaging)\b"
    r"|\bno (?:priors?|comparisons?)(?: \w+){0,3} (?:available|comparison)\b|\bno (?:priors|comparisons?)\s*(?:[.;]|$)"
    r"|\b(?:priors?|comparisons?)(?: (?:stud(?:y|ies)|films?|exams?|radiographs?|images))?"
    r" (?:is|are) (?:not |un)available\b",
    re.IGNORECASE,
)
_MASK = re.compile(r"_{2,}|X{3,}|\[\*\*")
_OTHER_KIND = re.compile(r"\b(?:ct|mri?|pet|ultrasound)\b", re.IGNORECASE)


class Compared:
    """What a report says that it compares with: no film, films of some date, or nothing that could be held against.

    `whole` are the dates of its comparison as a whole.
    """

    def __init__(self, reading: Reading, made: str) -> None:
        """`made` is what the input says of when the study was made; it resolves "yesterday"."""
        days = days_of(made)
        today = days[0] if len(days) == 1 else None
        text = reading.text
        self.nothing = False
        self.whole: list[Named] = []
        starts = sorted(found.span[0] for found in reading.findings)
        self._sentences: list[tuple[int, int, list[Named]]] = []
        for section in sections(text):
            if section.name == SILENT and _HEADING.search(text[max(0, section.start - 40) : section.start]):
                told = text[section.start : section.end]
                self.nothing = self.nothing or _NOTHING.match(told) is not None or _NO_FILM.search(told) is not None
                self.whole += _dates(told, today)
        for sentence in reading.sentences:
            told = text[sentence.start : sentence.end]
            context = _CONTEXT.search(told)
            if context is None:
                continue
            if _NO_FILM.search(told) and not _OTHER_KIND.search(told):
                self.nothing = True
            dates = [found for found in _dates(told, today) if found.start >= context.start()]
            if not dates:
                continue
            found_here = bisect_left(starts, sentence.start) < bisect_left(starts, sentence.end)
            if found_here and sentence.evidence:
                self._sentences.append((sentence.start, sentence.end, dates))
            if sentence.evidence and (_LEADS.match(told) or (not found_here and _PLAINLY.search(told))):
                self.whole += dates

    def elsewhere(self, prior: Sequence[date]) -> str | None:
        """Why the report as a whole doesn't compare with the film of `prior` (`days_of`); None where it does or may."""
        if self.nothing:
            return COMPARES_NOTHING
        return None if _may_be(self.whole, prior) else COMPARES_ELSEWHERE

    def apart(self, spans: Iterable[list[int]], prior: Sequence[date]) -> bool:
        """Whether a sentence of one of `spans` compares with another film."""
        return any(
            start <= span[0] < end and not _may_be(dates, prior)
            for span in spans
            for start, end, dates in self._sentences
        )


def _dates(text: str, today: date | None) -> list[Named]:
    """The dates in `text`; none where one is masked, because the one that counts may be hidden."""
    return [] if _MASK.search(text) else list(islice(named(text, today=today), MOST_DATES))


def _may_be(dates: list[Named], prior: Sequence[date]) -> bool:
    return not prior or not dates or any(found.fits(day) for found in dates for day in prior)
