"""Which films a study has, and what can't be asked of them.

What shows only on a lateral film isn't asked, nor told, where there is none. The size of the heart and the width of the
mediastinum are enlarged by an AP projection: of such a film they are asked only where the question tells it
(``--tell-view``). What is affected by which film is data: ``[views]`` of language.toml. Where nobody says what kind of
film it is, everything is asked.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from cxr_reason.mining.chains import Sight
from cxr_reason.mining.language import VIEWS
from cxr_reason.mining.sights import View
from cxr_reason.radiology import Reading

NO_LATERAL = "it shows only on a lateral film, and there is none"
MAGNIFIED = "its size can't be judged on an AP or portable film (--tell-view asks with the view told)"

# The projection in a report's words; never the "AP window", the "AP diameter" or a "PA catheter".
_FILM = r"(?:\w+ )?(?:chest|view|film|radiograph|projection)"
_SAID = {
    "AP": (
        ("AP", "ntero"),
        re.compile(rf"\bAP\b(?! (?:window|diameter|dimension|measure|axis))|\b[Aa]ntero-?posterior {_FILM}"),
    ),
    "PA": (
        ("PA", "ostero"),
        re.compile(rf"\bPA (?:(?:and|&|upright|erect)\b|{_FILM})|\bPA/LAT|\b[Pp]ostero-?anterior\b"),
    ),
}


@dataclass(frozen=True, slots=True)
class Films:
    """What is known of a study's films."""

    frontal: str | None = None
    """PA or AP; None where nobody says, or there are both."""
    portable: bool = False
    lateral: bool | None = None
    """Whether there is a lateral among the images; None where a view isn't known."""
    told: bool = False
    """Whether the views are those of the images, not only the report's words."""

    @property
    def magnified(self) -> bool:
        return self.frontal == "AP" or self.portable

    def differ(self, other: Films) -> bool:
        """Whether heart and vessels look otherwise on these films than on `other` for technical reasons."""
        mine, others = self._projection(), other._projection()
        return mine is not None and others is not None and mine != others

    def _projection(self) -> str | None:
        return "AP" if self.magnified else self.frontal or ("lateral" if self.lateral else None)

    def described(self) -> str | None:
        """ "a portable AP film", "a PA and a lateral film"; None where nothing is known."""
        frontal = " ".join(filter(None, ("portable" if self.portable else "", self.frontal or "")))
        kinds = [frontal] if frontal else []
        if self.lateral:
            kinds.append("lateral")
        articles = [f"{'an' if kind == 'AP' else 'a'} {kind}" for kind in kinds]
        return f"{' and '.join(articles)} film" if kinds else None


@dataclass(slots=True)
class Told:
    """One report: its reading, sorted for asking, and the films that it is of."""

    reading: Reading
    view: View
    films: Films


def films_of(images: Iterable[Any], row_views: Iterable[str], reading: Reading) -> Films:
    """What the images' views tell, else those of the input's rows, else the report."""
    entries = [image if isinstance(image, Mapping) else {} for image in images]
    views = [view if isinstance(view := entry.get("view"), str) else "" for entry in entries]
    portable = any(entry.get("portable") is True for entry in entries) or "portable" in reading.quality
    told = set(views or row_views) - {""}
    frontal = {"AP", "PA"} & told
    if not frontal:
        frontal = {name for name in ("AP", "PA") if _is_said(name, reading.text)}
    known = bool(views) and all(view in ("AP", "PA", "LAT") for view in views)
    lateral = True if "LAT" in views else False if known else None
    return Films(frontal.pop() if len(frontal) == 1 else None, portable, lateral, bool(told))


def _is_said(projection: str, text: str) -> bool:
    """Whether a report names this projection of its film."""
    hints, said = _SAID[projection]
    return any(hint in text for hint in hints) and said.search(text) is not None  # most reports have no such letters


def limit(one: Told, *, told: bool) -> Counter[str]:
    """Take out of the view of `one` what can't be asked of its films; returns how many findings that were, by reason.

    `told`: whether the question tells the view.
    """
    reading, view, films = one.reading, one.view, one.films
    counts: Counter[str] = Counter()
    if films.lateral is False:
        hidden = {sight.name for sight in view.seen if _is_lateral(sight, reading)}
        hidden |= VIEWS.lateral_findings & (view.denials.keys() | {sight.name for sight in view.seen})
        if hidden:
            counts[NO_LATERAL] += len(hidden)
            view.seen = [sight for sight in view.seen if not _is_lateral(sight, reading)]
            view.suspected = [sight for sight in view.suspected if not _is_lateral(sight, reading)]
            view.absent = [sight for sight in view.absent if sight.name not in VIEWS.lateral_findings]
            view.denials = {name: why for name, why in view.denials.items() if name not in hidden}
    if films.magnified and not told:
        named = {sight.name for sight in (*view.seen, *view.suspected)} | view.denials.keys()
        if withheld := VIEWS.magnified & named:
            counts[MAGNIFIED] += len(withheld)
            view.withheld = withheld
            view.denials = {name: why for name, why in view.denials.items() if name not in withheld}
    return counts


def _is_lateral(sight: Sight, reading: Reading) -> bool:
    """Whether a finding shows on the lateral film only: by its kind, by its place or by the report's word."""
    if sight.name in VIEWS.lateral_findings or sight.details.site in VIEWS.lateral_sites:
        return True
    return any(VIEWS.lateral_words.search(sentence_of(reading, span)) for span in sight.spans)


def sentence_of(reading: Reading, span: list[int]) -> str:
    """The sentence in which `span` starts, in lower case; "" where there is none."""
    number = bisect_right(reading.sentences, span[0], key=attrgetter("start")) - 1
    if number < 0 or reading.sentences[number].end <= span[0]:
        return ""
    return reading.text[reading.sentences[number].start : reading.sentences[number].end].lower()


def told_before(question: str, films: Films, earlier: Films | None = None) -> str:
    """`question` with a sentence before it that tells the view, where it is known."""
    own = films.described()
    before = earlier.described() if earlier else None
    if own is None:
        return question
    if before:
        return f"The current study has {own}, the earlier one {before}. {question}"
    return f"{'These are' if ' and ' in own else 'This is'} {own}. {question}"
