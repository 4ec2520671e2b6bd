"""The score of a run: figures with intervals, as one JSON object (`result`) and as tables for people (`show`).

A figure of a task is the mean over its items, and a figure of the run the mean over tasks, so that the task with the
most questions doesn't decide. Items without a usable judgement are in no mean of reasoning; they are counted. The
object's schema is told in docs/scoring.md and tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from cxr_reason import __version__, console
from cxr_reason.scoring import statistics
from cxr_reason.scoring.floors import FREQUENT, LITANY
from cxr_reason.scoring.tally import ALL, CELLS, MEASURES, NAMED, THINK_ANSWER, Tally

if TYPE_CHECKING:
    from cxr_reason.scoring.statistics import Floats

SCHEMA = 1
FEW = 20
"""Figures over fewer are marked wherever they are told."""
_DIGITS = 6
Figure = dict[str, Any]
"""{"value": in [0, 1] or null, "low" and "high": its 95 % interval or null, "n": items, "few": whether n < 20}"""


def figure(value: float | None, n: int, replicates: Floats | None = None, *, few: bool | None = None) -> Figure:
    """`value` over `n` items with its interval. `few` where not n itself tells whether the items are too few."""
    bounds = statistics.interval(replicates) if replicates is not None and value is not None and n > 1 else None
    low, high = bounds or (None, None)
    return {
        "value": _rounded(value),
        "low": _rounded(low),
        "high": _rounded(high),
        "n": n,
        "few": n < FEW if few is None else few,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


# ------------------------------------------------------------------------------------------------------------ figures


def result(tally: Tally, *, judge: str, **about: Any) -> dict[str, Any]:
    """Everything that is known of a run. `about` is put beside it: how the run was made."""
    counts = tally.counts
    return {
        "schema": SCHEMA,
        "version": __version__,
        "judge": judge,
        **about,
        "models": sorted(key.partition("/")[2] for key in counts if key.startswith("model/") and key != "model/"),
        "items": counts["items"],
        "intervals": {
            "level": statistics.LEVEL,
            "draws": tally.draws,
            "seed": tally.seed,
            "clustered_by": {kind: counts[f"cluster/{kind}"] for kind in ("patient", "study", "item")},
        },
        "overall": over_tasks(tally, ALL),
        "all_items": over_items(tally, ALL),
        "tasks": {task: of_task(tally, ALL, task) for task in tally.tasks()},
        "floors": _floors(tally),
        "counts": _counts(tally),
        "findings": _findings(tally),
        "critical": {
            name: {
                "items": counts[key],
                "named": [{"id": identity, "findings": findings} for identity, findings in held],
                "all_named": counts[key] <= NAMED,
            }
            for name, key, held in (
                ("missed", "missed", tally.missed),
                ("false", "invented", tally.invented),
            )
        },
        "groups": {
            field: {value: over_tasks(tally, f"{field}={value}") for value in sorted(values)}
            for field, values in sorted(tally.groups.items())
        },
    }


def of_task(tally: Tally, group: str, task: str) -> dict[str, Figure]:
    """The measures of one task in `group`: means over items."""
    return {measure: _mean(tally, group, [task], measure) for measure in _measures(tally, group, task)}


def over_items(tally: Tally, group: str) -> dict[str, Figure]:
    """The measures of `group`: means over all its items, whatever their task."""
    found: dict[str, Figure] = {}
    for measure in _measures(tally, group):
        tasks = tally.tasks(group, measure)
        total = sum(tally.sums[group, task, measure][0] for task in tasks)
        n = int(sum(tally.sums[group, task, measure][1] for task in tasks))
        replicates = None
        if tally.replicates and not _is_floor(group):
            above = sum(tally.replicates.sums((group, task, measure)) for task in tasks)
            below = sum(tally.replicates.sums((group, task, measure, "n")) for task in tasks)
            replicates = statistics.ratio(above, below)  # type: ignore[arg-type]  # never of nothing
        found[measure] = figure(total / n, n, replicates)
    return found


def over_tasks(tally: Tally, group: str) -> dict[str, Figure]:
    """The measures of `group`: means over tasks of the means over their items."""
    return {measure: _mean(tally, group, tally.tasks(group, measure), measure) for measure in _measures(tally, group)}


def _mean(tally: Tally, group: str, tasks: Sequence[str], measure: str) -> Figure:
    sums = [tally.sums[group, task, measure] for task in tasks]
    value = sum(total / n for total, n in sums) / len(sums)
    replicates = None
    if tally.replicates and not _is_floor(group):
        by_task = [
            statistics.ratio(
                tally.replicates.sums((group, task, measure)), tally.replicates.sums((group, task, measure, "n"))
            )
            for task in tasks
        ]
        replicates = sum(by_task[1:], start=by_task[0]) / len(by_task)
    n = int(sum(n for _, n in sums))
    return figure(value, n, replicates, few=any(n < FEW for _, n in sums))


def _measures(tally: Tally, group: str, task: str | None = None) -> Iterator[str]:
    """The measures that `group` has, in the order of the tables."""
    met = {key[2] for key in tally.sums if key[0] == group and task in (None, key[1])}
    yield from (measure for measure in (*MEASURES, THINK_ANSWER) if measure in met)


def _is_floor(group: str) -> bool:
    return group.startswith("floor/")


def _floors(tally: Tally) -> dict[str, Any]:
    """The floors, over the tasks and by task: {floor: {"overall", "tasks", "answers"}}."""
    found = {}
    for floor in (LITANY, FREQUENT):
        tasks, answers = {}, {}
        for task in tally.tasks():
            for answer in tally.answers_of(floor, task)[:1]:
                tasks[task] = _floor(tally, f"floor/{floor}/{answer}", task)
                if answer:
                    answers[task] = answer
        if tasks:
            found[floor] = {"overall": _over(tasks), "tasks": tasks, "answers": answers}
    return found


def _floor(tally: Tally, group: str, task: str) -> dict[str, Figure]:
    """A floor's measures in a task, over all its items: where its answer isn't offered it has nothing to say."""
    found = {}
    for measure in _measures(tally, group, task):
        n = int(tally.sums[f"floor/{LITANY}/", task, measure][1])
        found[measure] = figure(tally.sums[group, task, measure][0] / n, n)
    return found


def _over(tasks: Mapping[str, Mapping[str, Figure]]) -> dict[str, Figure]:
    """The mean over tasks of figures that are known by task."""
    found = {}
    for measure in (*MEASURES, THINK_ANSWER):
        told = [figures[measure] for figures in tasks.values() if measure in figures]
        if told:
            mean = sum(one["value"] for one in told) / len(told)
            found[measure] = figure(mean, sum(one["n"] for one in told), few=any(one["few"] for one in told))
    return found


def _counts(tally: Tally) -> dict[str, Any]:
    counts = tally.counts

    def under(prefix: str) -> dict[str, int]:
        return {key.removeprefix(prefix): counts[key] for key in sorted(counts) if key.startswith(prefix)}

    items, judged = under("items/"), under("judged/")
    return {
        "items": items,
        "unjudged": {task: items[task] - judged[task] for task in items},
        "answers_unread": under("unread/"),
        "zero_denominators": under("zero/"),
        "claims": under("claims/"),
        "side_errors": {"claims": counts["side_errors"], "items": counts["items with side_errors"]},
        "hedges_as_facts": {"claims": counts["hedges_as_facts"], "items": counts["items with hedges_as_facts"]},
    }


def _findings(tally: Tally) -> dict[str, Any]:
    """Per finding how often it was called rightly, the most frequent first: see `tally.cells`."""
    ordered = sorted(tally.cells, key=lambda name: (-tally.cells[name].total(), name))
    return {name: _finding(tally, name) for name in ordered}


def _finding(tally: Tally, name: str) -> dict[str, Any]:
    cells = tally.cells[name]
    drawn = {cell: tally.replicates.sums(("finding", name, cell)) for cell in CELLS} if tally.replicates else None

    def share(above: Mapping[str, int], below: Mapping[str, int]) -> Figure:
        n = sum(cells[cell] for cell in below)
        total = sum(weight * cells[cell] for cell, weight in below.items())
        value = sum(weight * cells[cell] for cell, weight in above.items()) / total if total else None
        replicates = None
        if drawn is not None:
            replicates = statistics.ratio(
                sum(weight * drawn[cell] for cell, weight in above.items()),  # type: ignore[arg-type]
                sum(weight * drawn[cell] for cell, weight in below.items()),  # type: ignore[arg-type]
            )
        return figure(value, n, replicates)

    return {
        "n": cells.total(),
        **{cell: cells[cell] for cell in CELLS},
        "sensitivity": share({"tp": 1}, {"tp": 1, "fn": 1}),
        "specificity": share({"tn": 1}, {"tn": 1, "fp": 1}),
        "ppv": share({"tp": 1}, {"tp": 1, "fp": 1}),
        "f1": share({"tp": 2}, {"tp": 2, "fp": 1, "fn": 1}),
    }


# --------------------------------------------------------------------------------------------------------- for people

HEADINGS = {
    "accuracy": "accuracy",
    "factuality": "factual",
    "completeness": "complete",
    "coverage": "coverage",
    "effectiveness": "effective",
    "radrscore": "RadRScore",
    "positive_factuality": "pos.fact",
    "positive_completeness": "pos.compl",
    "balanced_radrscore": "balanced",
}
FEW_MARK = "*"
SHOWN_FINDINGS = 20
SHOWN_IDS = 10


def text_of(told: Figure | None) -> str:
    """A figure with three digits, marked where it stands for too few items; "-" where there is none."""
    if told is None or told["value"] is None:
        return "-"
    return f"{told['value']:.3f}{FEW_MARK if told['few'] else ''}"


def range_of(told: Figure | None) -> str:
    """The interval of a figure, "-" where there is none."""
    if told is None or told["low"] is None:
        return "-"
    return f"{told['low']:.3f} to {told['high']:.3f}"


def with_range(told: Figure | None) -> str:
    """A figure with its interval: 0.531 (0.512 to 0.549)."""
    return text_of(told) if told is None or told["low"] is None else f"{text_of(told)} ({range_of(told)})"


def difference_of(told: Figure) -> str:
    """A difference with its interval: +0.031 (-0.004 to +0.066)."""
    value = f"{told['value']:+.3f}{FEW_MARK if told['few'] else ''}"
    return value if told["low"] is None else f"{value} ({told['low']:+.3f} to {told['high']:+.3f})"


def show(score: Mapping[str, Any], file: TextIO) -> None:
    """The tables for people."""
    _show_tasks(score, file)
    _show_overall(score, file)
    _show_counts(score, file)
    _show_findings(score, file)
    for field, groups in score["groups"].items():
        rows = [(value, *_row(figures)) for value, figures in groups.items()]
        _table(f"By {field}: mean over tasks", [field, "items", *HEADINGS.values()], rows, file)
    if against := score.get("against"):
        _show_against(against, file)
    if _has_few(score):
        file.write(f"\n{FEW_MARK} over fewer than {FEW} items: chance may have made it.\n")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], file: TextIO) -> None:
    file.write("\n")
    console.table(title, columns, rows, file=file)


def _row(figures: Mapping[str, Figure]) -> tuple[str, ...]:
    n = max((one["n"] for one in figures.values()), default=0)
    return (f"{n:,}", *(text_of(figures.get(measure)) for measure in HEADINGS))


def _show_tasks(score: Mapping[str, Any], file: TextIO) -> None:
    rows = [(task, *_row(figures)) for task, figures in score["tasks"].items()]
    rows.append(("mean over tasks", *_row(score["overall"])))
    rows += [(f"floor: {name}", *_row(floor["overall"])) for name, floor in score["floors"].items()]
    models = ", ".join(score["models"])
    title = f"Score of {models}, judge: {score['judge']}" if models else f"Score, judge: {score['judge']}"
    console.table(title, ["task", "items", *HEADINGS.values()], rows, file=file)


def _show_overall(score: Mapping[str, Any], file: TextIO) -> None:
    """The mean over tasks once more, with intervals."""
    if not score["intervals"]["draws"]:
        return
    names = {**HEADINGS, THINK_ANSWER: "chain supports its answer"}
    rows = [
        (measure.replace("_", " ") if measure in HEADINGS else names[measure], text_of(told), range_of(told))
        for measure, told in score["overall"].items()
    ]
    _table(f"Mean over tasks, with 95 % intervals ({clusters(score)})", ["part", "mean", "95 %"], rows, file)


def clusters(score: Mapping[str, Any]) -> str:
    """What was drawn for the intervals, and where the patient isn't known."""
    by = score["intervals"]["clustered_by"]
    if not by["study"] and not by["item"]:
        return "bootstrap over patients"
    unknown = by["study"] + by["item"]
    if by["patient"]:
        return f"bootstrap over patients; of {unknown:,} items the patient isn't known"
    return "bootstrap over " + ("studies" if by["study"] else "items") + ": no patient is known"


def counted_apart(score: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What is told beside the figures: how often what happened."""
    counts, critical = score["counts"], score["critical"]
    return [
        ("items without a usable judgement, in no mean of reasoning", sum(counts["unjudged"].values())),
        ("answers that couldn't be read, counted as wrong", sum(counts["answers_unread"].values())),
        *((f"nothing to divide by in {part}, counted as 0", n) for part, n in counts["zero_denominators"].items()),
        *((f"claims {verdict}", n) for verdict, n in counts["claims"].items()),
        ("claims with the wrong side", counts["side_errors"]["claims"]),
        ("hedges told as facts", counts["hedges_as_facts"]["claims"]),
        ("items with a critical miss", critical["missed"]["items"]),
        ("items with a false critical", critical["false"]["items"]),
    ]


def _show_counts(score: Mapping[str, Any], file: TextIO) -> None:
    critical = score["critical"]
    _table("Counted apart", ["what", "number"], counted_apart(score), file)
    for name, title in (("missed", "Critical misses"), ("false", "False criticals")):
        named = critical[name]["named"][:SHOWN_IDS]
        if named:
            more = critical[name]["items"] - len(named)
            file.write(f"\n{title}:\n")
            file.writelines(f"  {case['id']}: {', '.join(case['findings'])}\n" for case in named)
            if more:
                file.write(f"  and {more:,} more (--json names {NAMED:,})\n")


def _show_findings(score: Mapping[str, Any], file: TextIO) -> None:
    shares = ("sensitivity", "specificity", "ppv", "f1")
    rows = [
        (name, told["n"], told["tp"] + told["fn"], *(with_range(told[share]) for share in shares))
        for name, told in list(score["findings"].items())[:SHOWN_FINDINGS]
    ]
    if rows:
        more = len(score["findings"]) - len(rows)
        title = "Findings, with 95 % intervals" if score["intervals"]["draws"] else "Findings"
        title += f" (the {SHOWN_FINDINGS} most frequent; {more:,} more in --json)" if more else ""
        _table(title, ["finding", "n", "present", "sensitivity", "specificity", "PPV", "F1"], rows, file)


def _show_against(against: Mapping[str, Any], file: TextIO) -> None:
    rows = [
        (
            measure.replace("_", " "),
            told["n"],
            text_of({**told, "value": told["ours"]}),
            text_of({**told, "value": told["theirs"]}),
            difference_of(told),
            f"{told['p']:.4f}",
        )
        for measure, told in against["overall"].items()
    ]
    title = f"Against {against['name']}: paired differences, mean over tasks"
    _table(title, ["part", "pairs", "ours", "theirs", "difference (95 %)", "p"], rows, file)
    for who in ("ours", "theirs"):
        unmatched = against["unmatched"][who]
        if unmatched["items"]:
            named = ", ".join(unmatched["named"][:SHOWN_IDS])
            file.write(f"only in {who}, not compared: {unmatched['items']:,} ({named}, …)\n")


def _has_few(score: Mapping[str, Any]) -> bool:
    """Whether any figure anywhere is marked."""
    if isinstance(score, Mapping):
        return score.get("few") is True or any(map(_has_few, score.values()))
    return False
