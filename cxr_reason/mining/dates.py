"""When a study was made, and which dates a report names when it compares.

`moment` reads what archives write into a column of times: ISO, ``yyyymmdd`` (DICOM), day and month in numbers or words,
or a mere number that orders a patient's studies. 05.03.2024 is the 5th of March wherever it is written; 05/03/2024 and
05-03-2024 are read as the column has it (`Order`). `named` finds the dates of a text, whole or in part ("3/4", "March
2031", "yesterday"), in every reading that they may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_YEARS = (1900, 2300)  # archives shift the years of their studies into the future
_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_CLOCK = re.compile(
    r"(?<=\d)[T ,]+(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?\s*([ap])?\.?(?:m\.?)?(?![\d:])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a study was made. Moments of one `kind` can be compared by `order`; `day` is None for a mere number."""

    kind: str
    """ "time" to the minute or better, "day", or "number"."""
    order: float
    """Seconds since 1 Jan 1, or the number itself."""
    day: date | None

    def comparable(self, other: Moment) -> bool:
        return (self.day is None) == (other.day is None)

    def before(self, other: Moment) -> bool:
        """Whether it is certainly the earlier one: a day without a time is not before a time of that day."""
        if "day" in (self.kind, other.kind):
            return (self.day or date.min) < (other.day or date.min)
        return self.order < other.order


@lru_cache(maxsize=1024)
def moment(text: str, *, day_first: bool = False) -> Moment | None:
    """What `text` says of when a study was made; None where it can't be read. Raises nothing for any text.

    A date in numbers is read in the order that `day_first` says, or not at all.
    """
    text = text.strip()
    if not text.isascii() or len(text) > 40:
        return None
    whole, _, fraction = text.partition(".")
    if whole.isdigit() and (not fraction or fraction.isdigit()):
        if len(whole) in _DIGITS:
            try:
                return _at(datetime.strptime(whole, _DIGITS[len(whole)]), exact=len(whole) > 8)
            except ValueError:
                return None
        return Moment("number", float(text), None) if len(whole) < 8 else None
    try:
        return _at(datetime.fromisoformat(text), exact=len(text) > 10)
    except ValueError:
        pass
    clock = _CLOCK.search(text)
    told = text[: clock.start()] if clock else text
    days = list(named(told, day_first=day_first))
    if len(days) != 1 or not days[0].whole:
        return None
    match = _NUMERIC.search(told)
    if match and _order_of(match) is (MONTH_FIRST if day_first or match["mark"] == "." else DAY_FIRST):
        return None
    first = days[0].days[0]
    try:
        made = datetime(*first)  # type: ignore[arg-type]
        if clock:
            hour = int(clock[1]) % 12 + 12 * (clock[4] in "pP") if clock[4] else int(clock[1])
            made = made.replace(hour=hour, minute=int(clock[2]), second=int(clock[3] or 0))
    except ValueError:
        return None
    return _at(made, exact=clock is not None)


DAY_FIRST, MONTH_FIRST, EITHER = "day-first", "month-first", "either"


def order_of(text: str) -> str | None:
    """How the date in numbers that `text` holds must be read: DAY_FIRST, MONTH_FIRST, EITHER.

    None where there is none, or where it is the same in both orders, or written with dots.
    """
    match = _NUMERIC.search(text)
    return None if match is None or match["mark"] == "." else _order_of(match)


def _order_of(match: re.Match[str]) -> str | None:
    first, second = int(match["first"]), int(match["second"])
    if not (0 < first < 32 and 0 < second < 32) or first == second or match["year"] is None:
        return None
    if first > 12:
        return DAY_FIRST if second < 13 else None
    return MONTH_FIRST if second > 12 else EITHER


def _at(made: datetime, *, exact: bool) -> Moment | None:
    """Ordered by the time in UTC where a zone is given, with the day on the wall."""
    day = made.date()
    if not _YEARS[0] <= day.year < _YEARS[1]:
        return None
    if made.tzinfo is not None:
        made = made.astimezone(UTC).replace(tzinfo=None)
    return Moment("time" if exact else "day", (made - datetime.min).total_seconds(), day)


# ------------------------------------------------------------------------------------------------- dates in a report


@dataclass(frozen=True, slots=True)
class Named:
    """A date as a text names it: each reading as (year, month, day), None for what isn't said; where it stands."""

    days: tuple[tuple[int | None, int | None, int | None], ...]
    start: int

    @property
    def whole(self) -> bool:
        return None not in self.days[0]

    def fits(self, day: date) -> bool:
        """Whether it may mean `day`."""
        wanted = (day.year, day.month, day.day)
        return any(all(part in (None, want) for part, want in zip(told, wanted, strict=True)) for told in self.days)


_YEAR = r"(?P<year>\d{4}|\d\d)"
_NUMERIC = re.compile(
    rf"(?<![\d/.-])(?P<first>\d{{1,2}})(?P<mark>[/.-])(?P<second>\d{{1,2}})(?:(?P=mark){_YEAR})?(?![\d/]|[.-]\d)"
)
_ISO = re.compile(r"(?<![\d/.-])(?P<year>\d{4})(?P<mark>[-/.]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)(?!\d)")
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_WORDS = re.compile(
    rf"(?<![\w/])(?:(?P<before>\d{{1,2}})(?:st|nd|rd|th)?(?: of)?[ -])?{_MONTH}"
    rf"(?:[ -](?P<after>\d{{1,2}})(?:st|nd|rd|th)?(?![\d:]))?(?:,? ?-?(?P<year>\d{{4}}))?(?!\w)",
    re.IGNORECASE,
)
_ALONE = re.compile(r"(?:\b(?:in|from|of|since|dated) )(?P<year>(?:19|20|21|22)\d\d)(?![\d/-])", re.IGNORECASE)
_AGO = re.compile(
    rf"\b(?:(?P<yesterday>yesterday|(?:the )?day before|(?:previous|prior|preceding) day)"
    rf"|(?P<today>(?:earlier|same) (?:\w+ ){{0,2}}(?:day|today)|earlier today|this morning)"
    rf"|(?P<count>\d{{1,2}}|{'|'.join(_NUMBERS)}) days? (?:ago|prior|earlier|before|previously))\b",
    re.IGNORECASE,
)


def named(text: str, *, day_first: bool = False, today: date | None = None) -> Iterator[Named]:
    """The dates that `text` names, in no order. `today` resolves "yesterday", which is no date without it."""
    taken: list[tuple[int, int]] = []
    for pattern, reading in ((_ISO, _iso), (_NUMERIC, _numeric), (_WORDS, _worded), (_ALONE, _year_alone)):
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            if days := reading(match, day_first):
                taken.append(match.span())
                yield Named(days, match.start())
    if today is not None:
        for match in _AGO.finditer(text):
            back = 1 if match["yesterday"] else 0 if match["today"] else _count(match["count"])
            day = today - timedelta(back)
            yield Named(((day.year, day.month, day.day),), match.start())


def _count(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS.index(word.lower()) + 1


_Days = tuple[tuple[int | None, int | None, int | None], ...]


def _iso(match: re.Match[str], day_first: bool) -> _Days:
    return _valid((int(match["year"]), int(match["month"]), int(match["day"])))


def _numeric(match: re.Match[str], day_first: bool) -> _Days:
    if match["year"] is None and match["mark"] != "/":
        return ()  # "1.5", "3-4"
    year = None if match["year"] is None else int(match["year"])
    if year is not None and year < 100:
        year += 2000 if year < 70 else 1900
    first, second = int(match["first"]), int(match["second"])
    american, european = (year, first, second), (year, second, first)
    return _valid(*((european, american) if day_first or match["mark"] == "." else (american, european)))


def _worded(match: re.Match[str], day_first: bool) -> _Days:
    year, day = match["year"], match["before"] or match["after"]
    if year is None and day is None:
        return ()  # "may", "march"
    month = _MONTHS.index(match["month"].lower()) + 1
    return _valid((int(year) if year else None, month, int(day) if day else None))


def _year_alone(match: re.Match[str], day_first: bool) -> _Days:
    return ((int(match["year"]), None, None),)


def _valid(*days: tuple[int | None, int | None, int | None]) -> _Days:
    """Those of `days` that can be in a calendar."""
    found = []
    for year, month, day in days:
        try:
            date(year or 2000, month or 1, day or 1)
        except ValueError:
            continue
        if year is None or _YEARS[0] <= year < _YEARS[1]:
            found.append((year, month, day))
    return tuple(found)
