"""Records to items on disk: what a trainer reads, in memory that doesn't grow with the input.

Every input is read once. Its records become items, a conversation with its films' paths, in Arrow files below
``OUT/data/`` that are mapped into memory; films are opened when a batch asks for them. Whether an item is in the
validation part, keeps its reasoning or comes more than once are functions of its patient, its id and the seed alone.

    OUT/data/train-0.arrow, …     the items of each input
    OUT/data/validate.arrow       those of the patients that are kept for validation
    OUT/data/evaluate.jsonl       records that are answered at each evaluation
    OUT/data/data.json            what they were made of; written last
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cxr_reason import console, radrbench, records, runner
from cxr_reason.apart import Guard, digest_of, identity
from cxr_reason.engines.prompts import completion_of, prompt_of
from cxr_reason.errors import CxrError, TooManyFailures
from cxr_reason.films import FilmError, Films
from cxr_reason.films.ahead import ahead
from cxr_reason.sinks import whole
from cxr_reason.streams import GROUP_ROWS, Group, Input, Row, Seen, folder_of, stable_hash, with_id
from cxr_reason.training.refusals import Refusals
from cxr_reason.training.settings import WHAT_ITEMS_ARE, Settings

if TYPE_CHECKING:
    from datasets import Dataset

FOLDER = "data"
REJECTS = "rejects.jsonl"
MANIFEST = "data.json"
EVALUATE = "evaluate.jsonl"
ROWS_A_BATCH = 256
FILM_READERS = 32
"""Threads that open films while records are read, at most."""
SINGLE_CLASS_FROM = 8
"""Items of a task from which one and the same answer is no chance."""

Sift = Callable[[Mapping[str, Any], bool], str | None]
"""(record, whether its reasoning is asked for) -> why it is not worth training on, in words, or None."""
Measure = Callable[[list[dict[str, Any]], str, Sequence[Any]], int]
"""(conversation, completion, films) -> tokens."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an item holds beside its conversation and its films."""

    completion: bool = True
    """Whether it ends with what the model shall write; else it holds the record that this is judged by."""
    chains: bool = True
    """Whether reasoning needs a chain to be learnt from or judged by."""


REWARDED = (
    "id", "task", "study_id", "patient_id", "question", "options", "answer", "report", "prior_report", "steps",
)  # fmt: skip
"""What of a record a reward may ask for, a column each."""


@dataclass(slots=True)
class Counts:
    """What became of the records."""

    read: int = 0
    unreadable: int = 0
    no_film: int = 0
    test: int = 0
    sifted: int = 0
    """Those that `Sift` found not worth training on."""
    train: int = 0
    validate: int = 0
    answer_only: int = 0
    longest: int = 0
    """Tokens of the longest item that is trained."""
    by_task: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Source:
    """An input: what it is and what was in it."""

    path: str
    digest: str
    items: int = 0


@dataclass(frozen=True, slots=True)
class Items:
    """What `prepare` made."""

    folder: Path
    sources: tuple[Source, ...]
    validated: int
    """How many are kept for validation."""
    sample: int
    """How many records were wanted for evaluations."""
    counts: Mapping[str, Any]
    identity: str
    """Changes with all that decides the items, and so not with `sample`."""


# --------------------------------------------------------------------------------------------------------- identity


def spooled(folder: Path) -> Path:
    """stdin, written to ``OUT/data/stdin.jsonl``: a run that is continued, and `cxr rl` after it, need it again."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "stdin.jsonl"
    with whole(target) as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return target


# ----------------------------------------------------------------------------------------------------------- choices


def is_kept_for_validation(record: Mapping[str, Any], *, share: float, seed: int) -> bool:
    """Whether the patient of `record` (or its study, or itself) belongs to the validation part."""
    who = record.get("patient_id") or record.get("study_id") or record.get("id")
    return stable_hash("validate", seed, who) < share * 2**64


def is_answer_only(record: Mapping[str, Any], *, share: float, seed: int) -> bool:
    return stable_hash("answer-only", seed, record.get("id")) < share * 2**64


def copies(record: Mapping[str, Any], *, weight: float, seed: int) -> int:
    """How often an item is taken: `weight` times in expectation, over items."""
    whole, rest = divmod(weight, 1)
    return int(whole) + (stable_hash("copies", seed, record.get("id")) < rest * 2**64)


def was_refined(record: Mapping[str, Any]) -> bool:
    stages = [entry.get("stage") for entry in record.get("provenance") or () if isinstance(entry, Mapping)]
    return "refine" in stages


# ----------------------------------------------------------------------------------------------------------- reading


class _Seen(NamedTuple):
    """The films of an item."""

    paths: list[str]
    images: list[Any]


@dataclass(slots=True)
class _Item:
    record: dict[str, Any]
    split: str
    """train, validate or test."""
    answer_only: bool = False
    messages: list[dict[str, str]] = field(default_factory=list)
    completion: str = ""
    films: list[str] = field(default_factory=list)

    def row(self, shape: Shape) -> dict[str, Any]:
        told = {name: str(self.record.get(name) or "") for name in ("id", "task", "patient_id", "study_id")}
        row = {**told, "prompt": self.messages, "images": self.films}
        if shape.completion:
            return {**row, "completion": self.completion}
        judged = {name: self.record.get(name) for name in REWARDED}
        return {**row, "think": not self.answer_only, "record": records.dumps(judged)}


def _given_split(record: Mapping[str, Any]) -> str | None:
    return records.SPLIT_NAMES.get(str(record.get("split") or "").lower())


class Reader:
    """Turns records into items, and counts what becomes of them."""

    def __init__(
        self,
        settings: Settings,
        *,
        seed: int,
        films: Films,
        measure: Measure | None,
        refusals: Refusals,
        apart_from: Sequence[str] = (),
        max_failed: float = 0.05,
        shape: Shape | None = None,
        stage: str = "sft",
        rejects: BinaryIO | None = None,
        sift: Sift | None = None,
    ) -> None:
        self.shape = shape or Shape()
        self.stage = stage
        self.rejects = rejects
        self.sift = sift
        self.settings = settings
        self.seed = seed
        self.films = films
        self.measure = measure
        self.refusals = refusals
        self.apart_from = apart_from
        self.max_failed = max_failed
        self.counts = Counts()
        self.answers: dict[str, tuple[Counter[str], Counter[str]]] = {}
        self._sources: list[Path] = []
        self._texts = Seen()
        self._guard = Guard(
            {name: name for name in ("patient_id", "study_id", "images", "split")},
            apart_from=apart_from,
            films=True,
            root=os.fspath(films.root) if films.root else None,
        )

    def items(self, sources: Iterable[Path]) -> Iterator[tuple[int, _Item]]:
        """(number of its source, item) of all that is trained or validated on, each as often as it is taken."""
        self._sources = list(sources)
        yield from self._usable(self._apart(self._records(self._sources)))

    def _records(self, sources: Iterable[Path]) -> Iterator[tuple[int, Row]]:
        for number, path in enumerate(sources):
            for row in radrbench.records_of(Input(path, formats=("jsonl", "array")).rows()):
                self.counts.read += 1
                told = row.error
                if row.data is not None:
                    told = self._problem(row.data)
                if told:
                    self._failed(row, told)
                else:
                    yield number, row

    def _problem(self, record: dict[str, Any]) -> str | None:
        """Why `record` is no item, in words."""
        with_id(record)
        if problems := records.check(record):
            return problems[0]
        missing = next((name for name in ("question", "answer") if not record.get(name)), None)
        return f"{missing} is missing" if missing else None

    def _failed(self, row: Row, told: str) -> None:
        self.counts.unreadable += 1
        console.warn(f"{row.file}:{row.line}: {told}", kind="records that can't be used")
        self._reject(row, "record", told)

    def _reject(self, row: Row, check: str, told: str) -> None:
        """Write what is left out to the file of rejects, where there is one."""
        if self.rejects is None:
            return
        if row.data is None:
            self.rejects.write(runner.unreadable_line(row))
        else:
            reasons = [{"check": check, "message": told}]
            reject = runner.Reject(row.data.get("id"), self.stage, reasons, row.data)
            self.rejects.write(runner.reject_line(reject, row))

    def _apart(self, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row, str]]:
        """Each record with its split; what is not apart is noted."""
        waiting: list[list[tuple[int, Row, str]]] = []

        def studies() -> Iterator[Group]:
            for study in _studies(rows):
                members = [(number, row, self._split(row.data or {})) for number, row in study]
                waiting.append(members)
                # One row a set of films is enough, and asks for no file twice.
                distinct = {json.dumps((row.data or {}).get("images"), default=str): row for _, row, _ in members}
                # A patient who is kept for validation by us is whole there; one whom the input puts there may not be.
                shown = [
                    Row(row.file, row.line, {**(row.data or {}), "split": _given_split(row.data or {}) or "train"})
                    for row in distinct.values()
                ]
                yield Group(str((members[0][1].data or {}).get("study_id") or ""), shown)

        for group in self._guard.judged(studies()):
            assert isinstance(group, Group)
            for number, row, split in waiting.pop():
                if group.barred:
                    self.refusals.note("shared", str((row.data or {})["id"]), group.barred)
                yield number, row, split

    def _split(self, record: Mapping[str, Any]) -> str:
        if given := _given_split(record):
            return given
        kept = is_kept_for_validation(record, share=self.settings.eval_share, seed=self.seed)
        return "validate" if kept else "train"

    def _usable(self, rows: Iterator[tuple[int, Row, str]]) -> Iterator[tuple[int, _Item]]:
        for number, row, split, seen in ahead(self._seen, self._untested(rows), most=FILM_READERS):
            item = _Item(row.data or {}, split)
            try:
                length = self._fill(item, seen)
            except FilmError as error:
                self.counts.no_film += 1
                told = f"{error.where}: {error.what}"
                console.warn(f"{row.file}:{row.line}: {told}", kind="items whose film can't be used")
                self._reject(row, "film", told)
                continue
            except ValueError as error:  # of `prompts`: no chain, where one is wanted
                self._failed(row, str(error))
                continue
            if self.sift and split == "train" and (why := self.sift(item.record, not item.answer_only)):
                self.counts.sifted += 1
                self._reject(row, "spread", why)
                continue
            if length > self.settings.max_length:
                self.refusals.note("too-long", item.record["id"], f"the first has {length:,} tokens")
                self._reject(row, "too-long", f"it has {length:,} tokens")
                continue
            self.counts.longest = max(self.counts.longest, length)
            yield from self._taken(number, item)

    def _untested(self, rows: Iterator[tuple[int, Row, str]]) -> Iterator[tuple[int, Row, str]]:
        for entry in rows:
            if entry[2] == "test":
                self.counts.test += 1
            else:
                yield entry

    def _seen(self, entry: tuple[int, Row, str]) -> tuple[int, Row, str, _Seen | FilmError]:
        """`entry` with its films, opened; in a thread."""
        number, row, split = entry
        try:
            paths = self.films.paths(row.data or {}, base=folder_of(row.file, [self._sources[number]]))
            return number, row, split, _Seen([os.path.abspath(path) for path in paths], [*map(self.films.open, paths)])
        except FilmError as error:
            return number, row, split, error

    def _fill(self, item: _Item, seen: _Seen | FilmError) -> int:
        """Make the conversation of `item`; its length in tokens. Raises FilmError."""
        record, settings = item.record, self.settings
        item.answer_only = is_answer_only(record, share=settings.answer_only_share, seed=self.seed)
        if isinstance(seen, FilmError):
            raise seen
        item.films = seen.paths
        think = not item.answer_only
        prompt = prompt_of(record, think=think, instruction=settings.instruction)
        item.messages = [{"role": turn.role, "content": turn.text} for turn in prompt.messages]
        if self.shape.completion:
            item.completion = completion_of(record, think=think)
        elif think and self.shape.chains and not (record.get("steps") and record.get("report")):
            raise ValueError("a record without a report and steps can't be judged by its reasoning")
        return self.measure(item.messages, item.completion, seen.images) if self.measure else 0

    def _taken(self, number: int, item: _Item) -> Iterator[tuple[int, _Item]]:
        record, counts = item.record, self.counts
        if item.split == "validate":
            counts.validate += 1
            yield number, item
            return
        task = str(record.get("task") or "unknown")
        times = copies(record, weight=self.settings.task_weights.get(task, 1.0), seed=self.seed)
        if not times:
            return
        if self.shape.chains and not item.answer_only and not was_refined(record):
            self.refusals.note("unrefined", record["id"])
        counts.repeated += self._texts.add(json.dumps([item.messages, item.completion, item.films]))
        counts.train += times
        counts.answer_only += times * item.answer_only
        counts.by_task[task] += times
        self._note_answer(task, record)
        for _ in range(times):
            yield number, item

    def _note_answer(self, task: str, record: Mapping[str, Any]) -> None:
        options = record.get("options")
        if isinstance(options, list) and options:
            letters, texts = self.answers.setdefault(task, (Counter(), Counter()))
            letters[str(record["answer"])] += 1
            index = records.index_of(str(record["answer"]), options)
            assert index is not None, "a record's answer is a letter of its options"
            texts[str(options[index])] += 1

    def close(self) -> None:
        """All is read: raise for what is refused, warn of the rest."""
        counts = self.counts
        failed = counts.unreadable + counts.no_film
        if failed > self.max_failed * max(1, counts.read):
            raise TooManyFailures(
                f"{failed:,} of {counts.read:,} records can't be used, more than --max-failed allows. No step was made"
            )
        if not counts.train and not self.refusals.counts:
            self.refusals.note("empty", "", f"{counts.read:,} records read, {counts.test:,} of them of the split test")
        for task, (letters, texts) in self.answers.items():
            same = sum(letters.values()) >= SINGLE_CLASS_FROM and min(len(letters), len(texts)) == 1
            if same:
                self.refusals.note("single-class", "", f"{task}: {sum(letters.values()):,} items")
        self.refusals.settle(total=counts.train + counts.validate + self.refusals.counts.get("too-long", 0))
        if counts.repeated:
            console.warn(f"about {counts.repeated:,} items repeat the text and the films of another")


# ----------------------------------------------------------------------------------------------------------- writing


def _schema(shape: Shape) -> Any:
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    texts = [(name, pa.string()) for name in ("id", "task", "patient_id", "study_id")]
    more = [("completion", pa.string())] if shape.completion else [("think", pa.bool_()), ("record", pa.string())]
    return pa.schema([*texts, ("prompt", pa.list_(turn)), ("images", pa.list_(pa.string())), *more])


def _studies(rows: Iterator[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Adjacent records of one study, at most `GROUP_ROWS`; what belongs to no study stands alone."""
    for _, run in groupby(rows, key=lambda entry: (entry[1].data or {}).get("study_id") or (entry[0], entry[1].line)):
        while members := list(islice(run, GROUP_ROWS)):
            yield members


class _Writer:
    """An Arrow stream, as `datasets` maps it into memory."""

    def __init__(self, path: Path, shape: Shape) -> None:
        import pyarrow as pa

        self._pa = pa
        self._schema = _schema(shape)
        self._file = pa.OSFile(os.fspath(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._rows: list[dict[str, Any]] = []
        self.count = 0

    def write(self, row: dict[str, Any]) -> None:
        self.count += 1
        self._rows.append(row)
        if len(self._rows) >= ROWS_A_BATCH:
            self._drain()

    def _drain(self) -> None:
        if self._rows:
            self._stream.write_batch(self._pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._drain()
        self._stream.close()
        self._file.close()


def prepare(
    sources: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    seed: int,
    films: Films,
    measure: Measure | None,
    refusals: Refusals,
    apart_from: Sequence[str] = (),
    max_failed: float = 0.05,
    shape: Shape | None = None,
    stage: str = "sft",
    rejects: Path | None = None,
    sift: Sift | None = None,
    about: Mapping[str, Any] | None = None,
) -> Items:
    """Read `sources` into items below ``out/data``, or find those of an earlier run that were made of the same.

    What is left out goes to the file `rejects`. `about` is what else decides the items, such as the model. Raises
    CxrError for what is refused, and TooManyFailures.
    """
    shape = shape or Shape()
    digests = [digest_of(path) for path in sources]
    decided = {name: value for name, value in settings.as_dict().items() if name in WHAT_ITEMS_ARE}
    config = records.config_hash(
        {**decided, **(about or {}), "seed": seed, "digests": digests, "shape": asdict(shape),
         "apart_from": identity(apart_from),
         "allowed": sorted(refusals.allowed), "root": str(films.root)}
    )  # fmt: skip
    folder = out / FOLDER
    if (items := load_manifest(out)) and (items.identity, items.sample) == (config, settings.eval_items):
        _hand_out(folder / REJECTS, rejects)
        return items
    building = out / f".{FOLDER}.partial"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    sample = _Sample(settings.eval_items, seed=seed)
    with ExitStack() as stack, console.progress(f"{stage}: reading", unit="records") as progress:
        stack.callback(_hand_out, building / REJECTS, rejects)  # whatever comes, and once the file is closed
        reader = Reader(
            settings,
            seed=seed,
            films=films,
            measure=measure,
            refusals=refusals,
            apart_from=apart_from,
            max_failed=max_failed,
            shape=shape,
            stage=stage,
            rejects=stack.enter_context(open(building / REJECTS, "wb")),
            sift=sift,
        )
        writers = [_Writer(building / f"train-{number}.arrow", shape) for number in range(len(sources))]
        validate = _Writer(building / "validate.arrow", shape)
        for writer in (*writers, validate):
            stack.callback(writer.close)
        for number, item in reader.items(sources):
            progress.advance(reader.counts.read - progress.count)
            if item.split == "validate":
                validate.write(item.row(shape))
                sample.add(item.record, item.films)
            else:
                writers[number].write(item.row(shape))
        reader.close()
    sample.write(building / EVALUATE)
    told = {
        "identity": config,
        "sources": [
            {"path": os.path.abspath(path), "blake2b": digest, "items": writer.count}
            for path, digest, writer in zip(sources, digests, writers, strict=True)
        ],
        "validated": validate.count,
        "sample": settings.eval_items,
        "counts": reader.counts.as_dict(),
    }
    (building / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    _keep_stdin(folder, building)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(building, folder)
    made = load_manifest(out)
    assert made
    return made


def _hand_out(kept: Path, rejects: Path | None) -> None:
    """Copy what was left out, which lies beside the items, to the file that was asked for."""
    if rejects:
        with whole(rejects) as file, open(kept, "rb") as source:
            shutil.copyfileobj(source, file)


def _keep_stdin(folder: Path, building: Path) -> None:
    if (folder / "stdin.jsonl").is_file():
        os.replace(folder / "stdin.jsonl", building / "stdin.jsonl")


def load_manifest(out: Path) -> Items | None:
    """The items below ``out/data``; None where there are none, or none that are whole."""
    folder = out / FOLDER
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sources = tuple(Source(entry["path"], entry["blake2b"], entry["items"]) for entry in told["sources"])
        return Items(folder, sources, told["validated"], told["sample"], told["counts"], told["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Sample:
    """The `size` records of the smallest hashes, in the order of these: the same ones whatever else is in the input."""

    def __init__(self, size: int, *, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._held: list[tuple[int, str]] = []  # a heap, the largest hash first
        self._ids: set[str] = set()

    def add(self, record: Mapping[str, Any], films: Sequence[str]) -> None:
        if not self._size or record["id"] in self._ids:
            return
        rank = -stable_hash("evaluate", self._seed, record["id"])
        if len(self._held) >= self._size and rank <= self._held[0][0]:
            return
        line = records.dumps({**record, "images": list(films)})
        self._ids.add(record["id"])
        if len(self._held) < self._size:
            heapq.heappush(self._held, (rank, line))
        else:
            _, gone = heapq.heapreplace(self._held, (rank, line))
            self._ids.discard(json.loads(gone)["id"])

    def write(self, path: Path) -> None:
        lines = [line + "\n" for _, line in sorted(self._held, reverse=True)]
        path.write_text("".join(lines), encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- datasets


class Opening:
    """What a batch asks of the items: their conversations, and their films opened.

    Picklable, for loaders in processes of their own. A film that was there before training and can't be opened any
    more ends the run by name.
    """

    def __init__(self, films: Films) -> None:
        self.films = films

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        told = {
            "prompt": batch["prompt"],
            "images": [[self.films.open(path) for path in paths] for paths in batch["images"]],
        }
        if "completion" in batch:
            return told | {"completion": [[{"role": "assistant", "content": text}] for text in batch["completion"]]}
        judged = [records.loads(line) for line in batch["record"]]
        return told | {"think": batch["think"]} | {name: [row.get(name) for row in judged] for name in REWARDED}


def datasets_of(items: Items, settings: Settings, *, films: Films, seed: int) -> tuple[Dataset, Dataset | None]:
    """What is trained and what is validated on, mapped from disk; mixed where `settings.mix` says so.

    A mix goes on until every input was seen whole, the smaller ones again and again: nothing is left out.
    """
    from datasets import Dataset, concatenate_datasets, interleave_datasets

    parts = [
        Dataset.from_file(os.fspath(items.folder / f"train-{number}.arrow")) for number in range(len(items.sources))
    ]
    if settings.mix:
        weights = list(settings.mix.values())
        used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if len(part) and weight]
        if not used:
            raise CxrError("no input of the mix has anything to train on", where="--mix")
        total = sum(weight for _, weight in used)
        train = interleave_datasets(
            [part for part, _ in used],
            probabilities=[weight / total for _, weight in used],
            seed=seed,
            stopping_strategy="all_exhausted",
        )
    else:
        train = concatenate_datasets([part for part in parts if len(part)])
    validate = Dataset.from_file(os.fspath(items.folder / "validate.arrow")) if items.validated else None
    opening = Opening(films)
    return train.with_transform(opening), validate.with_transform(opening) if validate is not None else None


def sample_of(items: Items) -> list[dict[str, Any]]:
    """The records that are answered at each evaluation, their films' paths absolute."""
    with open(items.folder / EVALUATE, encoding="utf-8") as file:
        return [records.loads(line) for line in file]
