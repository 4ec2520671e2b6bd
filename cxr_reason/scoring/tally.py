"""What is counted of judged items: `noted` takes the numbers of one, `Tally` adds them up in flat memory.

A judged item is a "details line": what `rewards.judge` makes of a record. Its texts stay where they are; what passes
between processes and is kept is a note, some numbers and names, and what is kept of that are sums. Only ids of critical
misses and false criticals are held, the first `NAMED` of each, and with `hold` the numbers of every item, for a
comparison with another model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from cxr_reason.radiology import LEXICON
from cxr_reason.scoring import statistics

Line = Mapping[str, Any]
Note = dict[str, Any]
"""The numbers of one item, JSON-ready."""

MEASURES: dict[str, str] = {
    "accuracy": "correct",
    "factuality": "factuality",
    "completeness": "completeness",
    "coverage": "coverage",
    "effectiveness": "effectiveness",
    "radrscore": "radrscore",
    "positive_factuality": "positive_factuality",
    "positive_completeness": "positive_completeness",
    "balanced_radrscore": "balanced_radrscore",
}
"""Each measure, and the field of a details line that has it: a number in [0, 1], a bool, or null where not judged."""
THINK_ANSWER = "think_answer_agreement"
TEXT_METRICS = "text_metrics"
"""The field of a details line with the values of `metrics.METRICS`, by measure, where they were asked for."""

NAMED = 1000
"""Critical misses, and false criticals, whose ids are held; the rest are counted."""
TOLD_APART = 40
"""Values of a field, tasks, models or answers that are told apart: each costs memory, and records may hold anything."""
OTHERS = "(others)"
CELLS = ("tp", "fp", "tn", "fn")


# ------------------------------------------------------------------------------------------------------- of one item


def noted(line: Line, *, by: Sequence[str] = ()) -> Note:
    """The numbers of a details line. `by` names fields whose values make groups; see `group_value`."""
    values = measured(line)
    agrees = line.get("supports_answer")
    if isinstance(agrees, bool):
        values[THINK_ANSWER] = float(agrees)
    cluster, kind = cluster_of(line)
    claims = _objects(line.get("claims"))
    missed, invented = criticals(line)
    return {
        "id": str(line.get("id") or ""),
        "cluster": cluster,
        "kind": kind,
        "task": task_of(line),
        "model": str(line.get("model") or ""),
        "groups": [[field, group_value(line, field)] for field in by],
        "values": values,
        "judged": line.get("radrscore") is not None,
        "unread": line.get("answer_read") is False,
        "zero": [str(part) for part in line.get("zero_denominators") or ()],
        "cells": sorted(cells(line).items()),
        "missed": missed,
        "invented": invented,
        "claims": Counter(str(claim.get("verdict")) for claim in claims),
        "side_errors": sum(bool(claim.get("side_error")) for claim in claims),
        "hedges_as_facts": sum(bool(claim.get("hedge_as_fact")) for claim in claims),
    }


def measured(line: Line) -> dict[str, float]:
    """The measures that `line` has."""
    values = {}
    for name, field in MEASURES.items():
        value = line.get(field)
        if isinstance(value, bool | int | float):
            values[name] = float(value)
    texts = line.get(TEXT_METRICS)
    return values | {name: float(value) for name, value in texts.items()} if isinstance(texts, Mapping) else values


def in_order(measures: Iterable[str]) -> list[str]:
    """`measures` as tables have them: ours, whether the chain supports its answer, then text metrics by name."""
    known = (*MEASURES, THINK_ANSWER)
    given = set(measures)
    return [name for name in known if name in given] + sorted(given.difference(known))


def cluster_of(line: Line) -> tuple[str, str]:
    """Who an item belongs to, and how that is known: by "patient", else by "study", else it stands alone ("item")."""
    for kind in ("patient", "study"):
        if value := line.get(f"{kind}_id"):
            return f"{kind} {value}", kind
    return f"item {line.get('id')}", "item"


def task_of(line: Line) -> str:
    """The task; questions without options are one of their own: answering in free text is another matter."""
    task = str(line.get("task") or "unknown")
    return task if line.get("options") else f"{task}, open"


def group_value(line: Line, field: str) -> str:
    """What `field` is, as the name of a group: of the line, or of its first current film (`view`). Capitals or not."""
    value = _of_name(line, field)
    if value is None:
        films = [film for film in line.get("images") or () if isinstance(film, Mapping)]
        value = next((told for film in films if film.get("role") != "prior" and (told := _of_name(film, field))), None)
    return UNKNOWN if value is None or value == "" else str(value)


def _of_name(told: Line, field: str) -> Any:
    if field in told:
        return told[field]
    return next((value for name, value in told.items() if name.casefold() == field.casefold()), None)


def group_fields(line: Line) -> list[str]:
    """The fields of a record, and of its films, that groups may be made by: those that hold a short value."""
    films = [film for film in line.get("images") or () if isinstance(film, Mapping)]
    told = {name for part in (line, *films) for name, value in part.items() if _is_short(value)}
    return sorted(told - _NO_GROUPS)


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float | str) and len(str(value)) <= _SHORT and "\n" not in str(value)


_SHORT = 40
_NO_GROUPS = {"id", "study_id", "patient_id", "prior_study_id", "path", "question", "answer", "prediction"}
UNKNOWN = "(unknown)"
"""The group of what has no value."""


def cells(line: Line) -> dict[str, str]:
    """For each finding of an item, whether the model called it rightly: tp, fp, tn or fn.

    The truth is the reference chain's, present or absent; for what that doesn't have, the verdict of the model's own
    claim. A call is a claim that the finding is there or may be there (a hedge alarms the reader too); whoever doesn't
    mention it hasn't called it. What is uncertain in the reference or, where that is silent, in the report is left out,
    and so are claims that nobody can verify and whole regions ("the lungs are clear"). A wrong side, severity or course
    of what is there doesn't make a call wrong: it costs factuality, and side errors are counted apart.
    """
    called: dict[str, bool] = {}
    truth: dict[str, bool] = {}
    for claim in of_this_film(line):
        finding, status, verdict = claim.get("finding"), claim.get("status"), claim.get("verdict")
        if not isinstance(finding, str):
            continue
        calls = status != "absent"
        called[finding] = called.get(finding, False) or calls
        if claim.get("side_error") or claim.get("reported") == "present":
            truth[finding] = True
        elif claim.get("reported") == "uncertain":
            continue
        elif verdict in ("supported", "contradicted") and finding not in truth:
            truth[finding] = calls == (verdict == "supported")
    for fact in _objects(line.get("reference")):
        finding, status = fact.get("finding"), fact.get("status")
        if not isinstance(finding, str):
            continue
        if status == "uncertain":
            truth.pop(finding, None)
            continue
        truth[finding] = status == "present"
        if finding not in called:  # told of a kind of it, maybe
            called[finding] = status == "present" and fact.get("state") == "told"
    names = {(True, True): "tp", (True, False): "fp", (False, False): "tn", (False, True): "fn"}
    return {
        finding: names[called[finding], present]
        for finding, present in truth.items()
        if finding in LEXICON.findings and not LEXICON.is_region(finding)
    }


def criticals(line: Line) -> tuple[list[str], list[str]]:
    """(critical findings that are there and were denied or not mentioned, those that were called and aren't there)."""
    missed = [
        str(fact.get("finding"))
        for fact in _objects(line.get("reference"))
        if fact.get("urgency") == "critical"
        and fact.get("status") == "present"
        and fact.get("state") in ("missed", "opposite")
    ]
    invented = [
        str(claim.get("finding"))
        for claim in of_this_film(line)
        if claim.get("status") == "present"
        and claim.get("verdict") == "contradicted"
        and not claim.get("side_error")
        and not claim.get("reported")  # it is there or suspected, if not like this
        and is_critical(claim.get("finding"))
    ]
    return sorted(set(missed)), sorted(set(invented))


def of_this_film(line: Line) -> list[Mapping[str, Any]]:
    """The claims of a line but those about the film before."""
    return [claim for claim in _objects(line.get("claims")) if claim.get("film") != "prior"]


def is_critical(finding: object) -> bool:
    """Whether somebody must hear of `finding` at once, by the lexicon."""
    entry = LEXICON.findings.get(finding) if isinstance(finding, str) else None
    return entry is not None and entry.urgency == "critical"


def _objects(entries: object) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


# ------------------------------------------------------------------------------------------------------ of all items

ALL = ""
"""The group of all items."""


class Tally:
    """Sums over the notes of a run, in the order of its input: the `runner.Aside` of `cxr score`.

    `draws` replicates are kept for intervals (none without numpy, or with 0). With `hold` every item's numbers are held
    by its id, about a kilobyte each.
    """

    def __init__(self, *, draws: int = statistics.DRAWS, seed: int = 0, hold: bool = False) -> None:
        self.draws = draws if statistics.available() else 0
        self.seed = seed
        self.hold = hold
        self.replicates = statistics.Replicates(self.draws, seed=seed) if self.draws else None
        self.restore(None)

    def restore(self, state: Any) -> None:
        state = state or {}
        self.counts = Counter[str](state.get("counts", {}))
        self.sums: dict[tuple[str, ...], list[float]] = {tuple(key): value for key, value in state.get("sums", [])}
        """By (group, task, measure) and (floor, task, measure): [sum, number of items]."""
        self.cells: dict[str, Counter[str]] = {name: Counter(own) for name, own in state.get("cells", {}).items()}
        self.missed: list[list[Any]] = state.get("missed", [])
        self.invented: list[list[Any]] = state.get("invented", [])
        self.groups: dict[str, list[str]] = state.get("groups", {})
        """The values met of each field that groups are made by."""
        self.met: dict[str, list[str]] = state.get("met", {})
        """The tasks, the models, and of each floor and task the answers that were met, up to `TOLD_APART` of each."""
        self.held: dict[str, Note] = state.get("held", {})
        if self.replicates:
            self.replicates.restore(state.get("replicates"))

    def state(self) -> Any:
        return {
            "counts": self.counts,
            "sums": [[list(key), value] for key, value in self.sums.items()],
            "cells": self.cells,
            "missed": self.missed,
            "invented": self.invented,
            "groups": self.groups,
            "met": self.met,
            "held": self.held,
            "replicates": self.replicates.state() if self.replicates else None,
        }

    def add(self, notes: Iterable[Note]) -> None:
        for note in notes:
            note = note | {"task": _among(self.met.setdefault("tasks", []), note["task"])}
            self._count(note)
            columns: dict[Hashable, float] = {("finding", finding, cell): 1.0 for finding, cell in note["cells"]}
            self._sum(note, columns)
            self._floors(note, columns)
            if self.replicates:
                self.replicates.add(note["cluster"], columns, batch=note["task"])
            if self.hold:
                self._hold(note)

    def _count(self, note: Note) -> None:
        task = note["task"]
        self.counts["items"] += 1
        self.counts[f"items/{task}"] += 1
        _among(self.met.setdefault("models", []), note["model"])
        self.counts[f"cluster/{note['kind']}"] += 1
        for name in ("unread", "judged"):
            self.counts[f"{name}/{task}"] += note[name]
        for part in note["zero"]:
            self.counts[f"zero/{part}"] += 1
        for verdict, number in note["claims"].items():
            self.counts[f"claims/{verdict}"] += number
        for name in ("side_errors", "hedges_as_facts"):
            self.counts[name] += note[name]
            self.counts[f"items with {name}"] += bool(note[name])
        for name, held in (("missed", self.missed), ("invented", self.invented)):
            if note[name]:
                self.counts[name] += 1
                if len(held) < NAMED:
                    held.append([note["id"], note[name]])
        for finding, cell in note["cells"]:
            self.cells.setdefault(finding, Counter())[cell] += 1

    def _sum(self, note: Note, columns: dict[Hashable, float]) -> None:
        task = note["task"]
        by = [f"{field}={_among(self.groups.setdefault(field, []), value)}" for field, value in note["groups"]]
        for group in (ALL, *by):
            for measure, value in note["values"].items():
                self._add(group, task, measure, value, columns)
                columns[group, task, measure, "n"] = 1.0

    def _floors(self, note: Note, columns: dict[Hashable, float]) -> None:
        """`floors`: for each floor its values, by the answer that it gives ("" where it gives but one).

        Items are counted under the floor itself: where an answer isn't offered it has nothing to say, and gets nothing.
        """
        task = note["task"]
        for floor, by_answer in note.get("floors", {}).items():
            answers = self.met.setdefault(f"{floor}/{task}", [])
            for answer, values in by_answer.items():
                if _among(answers, answer) != answer:
                    continue  # what comes so late is hardly the most frequent
                for measure, value in values.items():
                    self._add(floor_group(floor, answer), task, measure, value, columns)
            for measure in {measure for values in by_answer.values() for measure in values}:
                self._add(floor_group(floor), task, measure, 0.0, columns)
                columns[floor_group(floor), task, measure, "n"] = 1.0

    def _add(self, group: str, task: str, measure: str, value: float, columns: dict[Hashable, float]) -> None:
        entry = self.sums.setdefault((group, task, measure), [0.0, 0])
        entry[0] += value
        entry[1] += 1
        if value:  # most of a floor's are 0, and wait in memory
            columns[group, task, measure] = value

    def _hold(self, note: Note) -> None:
        self.counts["repeated"] += note["id"] in self.held
        self.held[note["id"]] = {name: note[name] for name in ("cluster", "task", "values")}

    # What `tables` asks for.

    def tasks(self, group: str = ALL, measure: str | None = None) -> list[str]:
        """The tasks of which `group` has items (with `measure`), in the alphabet's order."""
        found = {key[1] for key in self.sums if key[0] == group and measure in (None, key[2])}
        return sorted(found)

    def answers_of(self, floor: str, task: str) -> list[str]:
        """The answers that `floor` gives, or might always give, in `task`; the one that is right most often first."""

        def right(answer: str) -> float:
            return self.sums.get((floor_group(floor, answer), task, "accuracy"), [0.0])[0]

        met = self.met.get(f"{floor}/{task}", [])
        return sorted((answer for answer in met if answer != OTHERS), key=lambda answer: (-right(answer), answer))


def floor_group(floor: str, answer: str | None = None) -> str:
    """The group of a floor that always gives `answer`; without one, that in which the floor's items are counted."""
    return f"floor/{floor}" if answer is None else f"floor/{floor}/{answer}"


def _among(met: list[str], value: str) -> str:
    """`value`, noted in `met`; `OTHERS` where it comes late among very many."""
    if value not in met and len(met) >= TOLD_APART:
        value = OTHERS
    if value not in met:
        met.append(value)
    return value
