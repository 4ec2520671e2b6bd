"""The lexicon: what `lexicon.toml` says, compiled once into an automaton that finds its phrases.

`LEXICON` is made at first use of this module and never changes. Every word that it knows has a letter of a private
alphabet, so that a sentence is a string with a letter a word, and all phrases are found in one pass (Aho-Corasick).
What a phrase may mean (a finding, an organ, a side, a cue ...) is a `Word`, made when it is first met.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

MASK = "\0"  # the canonical word for a de-identified word
ORDINAL = "#"
_ORDINALS = frozenset(
    [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
    ]
)
_POSSESSIVE = re.compile("['\u2019]s$")
_CLASSES = {
    "d": "the a an", "p": "of in at from within with for to by without", "v": "is are was were has have", "c": "and or",
    "n": "no", "m": ", ; :",
}  # fmt: skip
_GROUP = re.compile(r"\(([^)]*)\)(\??)|(\S+)")
_BRITISH = (
    ("oedem", "edem"), ("haem", "hem"), ("anaem", "anem"), ("oesoph", "esoph"), ("tumour", "tumor"), ("fibre", "fiber"),
    ("centre", "center"), ("calibre", "caliber"), ("paed", "ped"), ("isation", "ization"), ("ised", "ized"),
    ("ising", "izing"), ("ischaem", "ischem"), ("colour", "color"), ("grey", "gray"), ("favour", "favor"),
    ("goitre", "goiter"), ("caecum", "cecum"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One named finding of the lexicon."""

    name: str
    label: str | None  # CheXpert-14
    parents: tuple[str, ...]
    signs: tuple[str, ...]  # findings that usually come with it
    region: str
    reported: bool  # readers nearly always mention it
    acute: bool  # "no acute process" denies it
    urgency: str  # critical | urgent | routine
    article: str  # a | an | "" (mass noun) | plural
    noun: str
    device: bool
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """What is said of an organ: "enlarged", "clear", "opacity"."""

    name: str
    adjective: bool  # it may stand after its organ ("the heart is enlarged")
    predicate: bool  # it counts only right after or right before its organ: "large", "low"
    default: str | None  # the finding where no organ is named; "" = nothing of ours
    on: dict[str, str]  # organ -> finding; "!" before it: denied; "" = nothing of ours
    severity: str | None
    certainty: str | None
    change: str | None
    moving: bool  # the change belongs to the word even where it pairs: "enlarging heart"


@dataclass(slots=True)
class Word:
    """All that one phrase may mean. A field is None where the phrase has no such meaning."""

    finding: str | None = None
    organ: str | None = None
    quality: Quality | None = None
    side: str | None = None
    site: str | None = None
    severity: str | None = None
    change: str | None = None
    acuity: str | None = None
    bound: str | None = None
    cue: str | None = None
    limit: str | None = None  # a limit of the film


@dataclass(slots=True, eq=False)
class Item:
    """One phrase of the lexicon: its meaning, its words, and the side that it names or holds ("left fifth rib").

    There is one Item a meaning, so that two sentences which say the same have the same items.
    """

    word: Word
    text: str
    side: str | None
    cue: str | None = None  # the word's, here for speed, as the rest
    head: bool = False  # names a finding or a quality
    names: bool = False  # names an organ, a finding or a quality
    verb: bool = False
    tells: bool = False  # may give a finding an attribute
    joint: bool = False  # joins what stands before to what follows, so that last it says nothing
    film: bool = False  # names the chest by its film: "the study of yesterday"
    modifier: bool = False  # says something of a finding: side, site, severity, change, acuity, bound

    def settle(self) -> Item:
        """Set what follows from the word and the text, once both are complete."""
        word = self.word
        self.cue = word.cue
        self.head = word.finding is not None or word.quality is not None
        self.names = self.head or word.organ is not None
        self.verb = word.cue in ("be", "there", "not_seen") or self.text.startswith(_AUXILIARIES)
        self.joint = word.cue in _JOINTS and not self.head
        self.film = word.organ == "chest" and not _THORAX.search(self.text)
        self.modifier = bool(word.side or word.site or word.severity or word.change or word.acuity or word.bound)
        self.tells = self.modifier or self.side is not None
        if word.quality is not None and (word.quality.change or word.quality.name == "calcified"):
            self.tells = True
        return self

    def meaning(self) -> tuple[Any, ...]:
        """What tells this item from others. The words count only where rules look at them: an item that two phrases
        share has the words of whichever was met first.
        """
        word = self.word
        values = _word_values(word)
        named = word.finding or word.organ or word.site or word.limit
        plain = named and not (word.cue or word.severity or word.change or word.quality or word.bound or word.acuity)
        text = ("calcif" in self.text, "tip" in self.text) if plain else self.text
        return (*values, word.quality and word.quality.name, self.side, self.film, text)


_THORAX = re.compile("chest|thora")
_word_values = attrgetter(*(name for name in Word.__slots__ if name != "quality"))
_JOINTS = frozenset({"of", "in", "comma", "article", "and"})
_AUXILIARIES = ("has ", "have ", "is ", "are ", "was ", "were ")


def expand(phrase: str) -> Iterator[str]:
    """Yield every wording of a phrase: "(a|b) c?" has four."""
    slots = []
    for choices, optional, word in _GROUP.findall(phrase):
        slots.append([word] if word else choices.split("|") + ([""] if optional else []))
    for words in product(*slots):
        yield " ".join(w for w in words if w)


def plurals(word: str) -> list[str]:
    """The plural forms that a word may have in a report; wrong ones do no harm, nobody writes them."""
    if word in ("", ORDINAL, "mask") or not word[-1].isalpha():
        return []
    if word.endswith("ss"):
        return [word + "es"]
    if word.endswith("sis"):
        return [word[:-2] + "es"]
    if word.endswith("s"):
        return [word + "es"] if word.endswith("us") else []
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return [word[:-1] + "ies"]
    if word.endswith(("x", "ch", "sh")):
        return [word + "es"]
    if word.endswith("a"):
        return [word + "e", word + "s"]
    return [word + "s"]


Place = tuple[int, int, int]
"""A phrase's number, its first word, and the word after its last."""


class Letters(dict[str, str]):
    """A word of a text, in lower case -> its letter; worked out when it is first met."""

    def __init__(self, letter_of: Callable[[str], str]) -> None:
        super().__init__()
        self._letter_of = letter_of

    def __missing__(self, word: str) -> str:
        if len(self) > _MOST_WORDS:
            self.clear()
        letter = self[word] = self._letter_of(word)
        return letter


_MOST_WORDS = 12_000
_FIRST_LETTER = 0x4E00  # of the private alphabet; words that the lexicon doesn't know have their class for a letter
_SPECIAL = {"mask": MASK, **dict.fromkeys(_ORDINALS, ORDINAL)}


class Lexicon:
    """`lexicon.toml`, ready for use.

    Attributes: `findings` (name -> Entry), `organs` (organ -> findings denied when it is normal), `refine` (finding ->
    {organ -> finding}), `vocabulary` (every word that it knows), `letters` (word of a text -> its letter), `kinds` (for
    `str.translate`: letter -> class), `orders` (letter -> the word or class that stands for it in word_order.json).
    """

    def __init__(self, path: Path) -> None:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        self.data = data
        self._alphabet: dict[str, str] = {}
        self._numbers: dict[str, int] = {}  # phrase, as letters -> its number
        self._phrases: list[list[Any]] = []  # of each phrase: its text, then meaning, value, meaning, value ...
        self._items: list[Item | None] = []
        self._same: dict[tuple[Any, ...], Item] = {}
        self.foreign = frozenset(data["words"]["foreign"].split()) - set(data["words"]["function"].split())
        self._spellings: dict[str, str] = {slip: word for word, slips in data["spellings"].items() for slip in slips}
        self.vocabulary: set[str] = set(_ORDINALS)
        for group in ("function", "report", "other", "ordinary"):
            self.vocabulary.update(data["words"][group].split())
        self.findings: dict[str, Entry] = {}
        self.organs: dict[str, tuple[str, ...]] = {}
        self.refine: dict[str, dict[str, str]] = data["refine"]
        self._load(data)
        self._automaton = AhoCorasick(
            list(self._numbers),
            matchkind=MatchKind.LeftmostLongest,
            implementation=Implementation.ContiguousNFA,
            store_patterns=False,
        )
        # a letter for every word: what it does in a sentence, for telling report English from other text
        films = [film.split()[-1] for film in data["elsewhere"]["films"]]
        self.classes: dict[str, str] = {
            **dict.fromkeys(self.foreign, "f"), **dict.fromkeys(self.vocabulary, "k"),
            **{word: letter for letter, words in _CLASSES.items() for word in words.split()}, MASK: "x", "0": "0",
            ORDINAL: "k", **dict.fromkeys((p for p in data["elsewhere"]["parts"] if " " not in p), "b"),
            **dict.fromkeys((form for film in films for form in (film, *plurals(film))), "j"), "chest": "h",
        }  # fmt: skip
        table = json.loads(path.with_name("word_order.json").read_text(encoding="utf-8"))
        self.order: dict[str, dict[str, int]] = table["seen"]  # 10 ln(P(b | a) / P(b)), tools/word_order.py
        self.unseen: dict[str, int] = table["unseen"]
        self._openers = frozenset(key[0] for key in self._numbers)
        words = {*self.vocabulary, *self.classes, *self.order}
        self.kinds: dict[int, str] = {}
        self.orders: dict[str, str] = {"u": "<u>", ".": "<.>"}
        for word in words:
            letter = self._letter(word)
            self.kinds[ord(letter)] = self.classes.get(word) or _kind_of_unknown(word)
            self.orders[letter] = word if word in self.order else self.class_of(word)
        self.letters = Letters(self._letter_of)

    # ------------------------------------------------------------------ building
    def _load(self, data: dict[str, Any]) -> None:
        """Raises ValueError for a key that means nothing: what it was to say would be lost in silence."""
        for table, known in _KEYS.items():
            for name, raw in data[table].items():
                if unknown := raw.keys() - known:
                    raise ValueError(f"lexicon.toml: {table}.{name} has a key without a meaning: {min(unknown)}")
        for name, raw in data["findings"].items():
            self.findings[name] = Entry(
                name=name, label=raw.get("label"), parents=tuple(raw.get("parents", ())),
                signs=tuple(raw.get("signs", ())), region=raw["region"], reported=raw.get("reported", False),
                acute=raw.get("acute", False), urgency=raw.get("urgency", "routine"), article=raw.get("article", "a"),
                noun=raw.get("noun", name), device=raw.get("device", False), phrases=tuple(raw["phrases"]),
            )  # fmt: skip
            self._add(raw["phrases"], "finding", name, plural=True)
        for name, raw in data["organs"].items():
            self.organs[name] = tuple(raw.get("normal", ()))
            self._add(raw["phrases"], "organ", name, plural=True)
        for name, raw in data["qualities"].items():
            quality = Quality(
                name=name, adjective=raw.get("adjective", False), predicate=raw.get("predicate", False),
                default=raw.get("default"), on=raw.get("on", {}), severity=raw.get("severity"),
                certainty=raw.get("certainty"), change=raw.get("change"), moving=raw.get("moving", False),
            )  # fmt: skip
            self._add(raw["phrases"], "quality", quality, plural=True)
        for name, phrases in data["sites"].items():
            self._add(phrases, "site", name, plural=True)
        for name, phrases in data["sided_sites"].items():
            side, site = name.split("|")
            self._add(phrases, "side", side)
            self._add(phrases, "site", site)
        for table, meaning in _TABLES.items():
            for name, phrases in data[table].items():
                self._add(phrases, meaning, name)

    def _add(self, phrases: Iterable[str], meaning: str, value: Any, *, plural: bool = False) -> None:
        for phrase in phrases:
            for wording in expand(phrase):
                words = wording.split()
                fixed = bool(words) and words[-1].startswith("~")
                words = [w.lstrip("~") for w in words]
                forms = [words]
                if plural and not fixed and words:
                    forms += [[*words[:-1], form] for form in plurals(words[-1])]
                for form in forms:
                    self._insert(form, meaning, value)

    def _insert(self, words: list[str], meaning: str, value: Any) -> None:
        if not words:
            return
        canonical = [_SPECIAL.get(word, word) for word in words]
        self.vocabulary.update(canonical)
        key = "".join([self._letter(word) for word in canonical])
        number = self._numbers.setdefault(key, len(self._phrases))
        if number == len(self._phrases):
            self._phrases.append([" ".join(words)])
            self._items.append(None)
        self._phrases[number] += (meaning, value)

    def _letter(self, word: str) -> str:
        letter = self._alphabet.get(word)
        if letter is None:
            letter = self._alphabet[word] = chr(_FIRST_LETTER + len(self._alphabet))
        return letter

    # ------------------------------------------------------------------ phrases
    def phrases(self, letters: str) -> tuple[tuple[Item, ...], list[Place]]:
        """What every phrase in a sentence means, and where it stands: longest first from the left."""
        made = self._items
        places = self._automaton.find_matches_as_indexes(letters)
        return tuple([made[number] or self._item(number) for number, _, _ in places]), places

    def _item(self, number: int) -> Item:
        """The phrase's item; phrases of one meaning share one: "effusion" and "pleural effusions"."""
        text, *told = self._phrases[number]
        item = Item(Word(), text, _inner_side(text))
        for meaning, value in zip(told[::2], told[1::2], strict=True):
            if getattr(item.word, meaning) is None:
                setattr(item.word, meaning, value)
            if meaning == "side":
                item.side = item.word.side
        item = self._items[number] = self._same.setdefault(item.settle().meaning(), item)
        return item

    # ------------------------------------------------------------------ words
    @cached_property
    def _corrections(self) -> dict[str, str]:
        """Every long word with one letter left out -> the word, where that is unambiguous (SymSpell's index)."""
        index: dict[str, str] = {}
        for word in self.vocabulary:
            if len(word) >= 7:
                for i in range(1, len(word)):
                    key = word[:i] + word[i + 1 :]
                    index[key] = word if index.setdefault(key, word) == word else ""
        return index

    def _letter_of(self, word: str) -> str:
        canonical = self.canonical(word)
        return self._alphabet.get(canonical) or _kind_of_unknown(canonical)

    def class_of(self, word: str) -> str:
        """What stands for a canonical word in word_order.json, unless the word itself is there."""
        opener = "N" if self._alphabet.get(word) in self._openers else ""
        return f"<{self.classes.get(word) or _kind_of_unknown(word)}{opener}>"

    def canonical(self, word: str) -> str:
        """The word as the lexicon spells it: British spelling, short forms and one slip in a long word undone,
        numbers classed.

        `word` is in lower case. The first letter is never corrected, and an unknown word stays as it is.
        """
        if word[0].isdigit():
            if "/" in word and word in self.vocabulary:
                return word  # "2/2": secondary to
            return ORDINAL if word[-1] in "hdt" else "0"
        return self._canonical_of(_POSSESSIVE.sub("", word))

    def _canonical_of(self, word: str) -> str:
        if word.endswith(("n't", "n\u2019t")):
            return "cannot" if word.startswith(("can", "could")) else "not"
        if word in _ORDINALS:
            return ORDINAL
        if word in self._spellings:
            return self._spellings[word]
        if word in self.vocabulary:
            return word
        if re.fullmatch(r"x{3,}|_{2,}|\[\*\*.*", word):
            return MASK
        if re.fullmatch(r"[tlc]\d{1,2}", word):
            return "vertebra"
        for british, american in _BRITISH:
            word = word.replace(british, american)
        if word in self.vocabulary or len(word) < 7 or len(word) > 30 or not word.isalpha():
            return word
        shorter = {word[:i] + word[i + 1 :] for i in range(1, len(word))}
        found = {self._corrections.get(word, "")} | {w for w in shorter if w in self.vocabulary and len(w) >= 7}
        found |= {w for key in shorter if (w := self._corrections.get(key)) and _one_edit(word, w)}
        found.discard("")
        return found.pop() if len(found) == 1 else word

    # ------------------------------------------------------------------ hierarchy
    @cached_property
    def _children(self) -> dict[str, tuple[str, ...]]:
        children: dict[str, list[str]] = {}
        for entry in self.findings.values():
            for parent in entry.parents:
                children.setdefault(parent, []).append(entry.name)
        return {name: tuple(names) for name, names in children.items()}

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        def up(name: str) -> frozenset[str]:
            parents = self.findings[name].parents
            return frozenset(parents).union(*(up(p) for p in parents)) if parents else frozenset()

        return {name: up(name) for name in self.findings}

    @cached_property
    def _descendants(self) -> dict[str, frozenset[str]]:
        down: dict[str, set[str]] = {name: set() for name in self.findings}
        for name, above in self._ancestors.items():
            for ancestor in above:
                down[ancestor].add(name)
        return {name: frozenset(names) for name, names in down.items()}

    def ancestors(self, name: str) -> frozenset[str]:
        """Every more general finding."""
        return self._ancestors[name]

    def descendants(self, name: str) -> frozenset[str]:
        """Every more special finding."""
        return self._descendants[name]

    def related(self, a: str, b: str) -> bool:
        """True where one can't be offered as wrong beside the other: the same, kin in the hierarchy, or its sign."""
        if a == b or a in self._ancestors[b] or b in self._ancestors[a]:
            return True
        return a in self.findings[b].signs or b in self.findings[a].signs

    def is_region(self, name: str) -> bool:
        """True for names that carry a statement about a whole region ("lung abnormality")."""
        return name.endswith(" abnormality")


def _kind_of_unknown(word: str) -> str:
    return "u" if word.isalpha() else "."


def _inner_side(text: str) -> str | None:
    """The side that a phrase holds. "Both" hides in bibasilar, bases and apices."""
    if text.startswith(_BOTH) or text.endswith(("bases", "apices")):
        return "bilateral"
    if not _SIDED.search(text) or "ventric" in text or "atri" in text:
        return None  # the left ventricle is no side of the chest
    words = text.split()
    named = {w for w in words if w in ("left", "right")}
    if text.startswith("levo"):
        named.add("left")
    if text.startswith("dextro"):
        named.add("right")
    return named.pop() if len(named) == 1 else None


_SIDED = re.compile("left|right|levo|dextro")
_BOTH = ("bibas", "biapic", "bilater", "bihil", "biperihilar")


def _one_edit(a: str, b: str) -> bool:
    """True if the words differ by one letter put in, left out, changed, or two neighbours swapped."""
    if abs(len(a) - len(b)) > 1 or a[0] != b[0]:
        return False
    i = 0
    while i < min(len(a), len(b)) and a[i] == b[i]:
        i += 1
    if len(a) == len(b):
        return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])
    return a[i + 1 :] == b[i:] if len(a) > len(b) else a[i:] == b[i + 1 :]


_TABLES = {
    "sides": "side", "severity": "severity", "change": "change", "acuity": "acuity", "bounds": "bound", "cues": "cue",
    "quality": "limit",
}  # fmt: skip

_KEYS = {
    "findings": {field.name for field in fields(Entry)} - {"name"},
    "organs": {"normal", "phrases"},
    "qualities": ({field.name for field in fields(Quality)} - {"name"}) | {"phrases"},
}

LEXICON = Lexicon(Path(__file__).with_name("lexicon.toml"))
