"""The score of a run: figures with intervals, as one JSON object (`result`) and as tables for people (`show`).

A figure of a task is the mean over its items, and a figure of the run the mean over tasks, so that the task with the
most questions doesn't decide. Items without a usable judgement are in no mean of reasoning; they are counted. The
object's schema is told in docs/scoring.md and tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from cxr_reason import __version__, console
from cxr_reason.scoring import statistics
from cxr_reason.scoring.floors import FREQUENT, LITANY
from cxr_reason.scoring.tally import ALL, CELLS, MEASURES, NAMED, THINK_ANSWER, Tally, floor_group, in_order

if TYPE_CHECKING:
    from cxr_reason.scoring.statistics import Floats

SCHEMA = 1
FEW = 20
"""Figures over fewer are marked wherever they are told."""
_DIGITS = 6
Figure = dict[str, Any]
"""{"value": in [0, 1] or null, "low" and "high": its 95 % interval or null, "n": items, "few": whether n < 20}"""


class Mean(NamedTuple):
    """`total` over `n` items: a mean or a share; `above` and `below` are the replicates of the two, shape (draws,)."""

    total: float
    n: int
    above: Floats | None = None
    below: Floats | None = None


def figure(
    value: float | None, n: int, bounds: tuple[float, float] | None = None, *, few: bool | None = None
) -> Figure:
    """`value` over `n` items with its interval. `few` where not n itself tells whether the items are too few.

    An interval without a width says that no replicate differs, not that the value is sure: there is none then.
    """
    low, high = (_rounded(end) for end in bounds) if bounds and value is not None and n > 1 else (None, None)
    if low is not None and low == high:
        low = high = None
    return {
        "value": _rounded(value),
        "low": low,
        "high": high,
        "n": n,
        "few": n < FEW if few is None else few,
    }


def mean_of(means: Sequence[Mean]) -> Figure:
    """The mean of `means`, one of each task, as a figure."""
    value = sum(one.total / one.n for one in means) / len(means)
    few = any(one.n < FEW for one in means)
    return figure(value, sum(one.n for one in means), _interval(means), few=few)


def _interval(means: Sequence[Mean]) -> tuple[float, float] | None:
    drawn, alone = [], []
    for one in means:
        if one.above is None or one.below is None:
            return None
        drawn.append(statistics.ratio(one.above, one.below))
        alone.append(statistics.exact(one.total / one.n, one.n, one.below))
    bounds = statistics.interval(reduce(add, drawn) / len(drawn))
    if bounds is None or bounds[0] < bounds[1]:
        return bounds
    # All replicates are alike, which of tasks that are all 0 or 1 says little: the mean of their own intervals.
    low, high = (sum(ends) / len(alone) for ends in zip(*alone, strict=True))
    return low, high


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
        "models": sorted(filter(None, tally.met.get("models", []))),
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
    return {measure: mean_of([_mean(tally, group, task, measure)]) for measure in _measures(tally, group, task)}


def over_items(tally: Tally, group: str) -> dict[str, Figure]:
    """The measures of `group`: means over all its items, whatever their task."""
    found: dict[str, Figure] = {}
    for measure in _measures(tally, group):
        means = [_mean(tally, group, task, measure) for task in tally.tasks(group, measure)]
        found[measure] = mean_of([_together(means)])
    return found


def over_tasks(tally: Tally, group: str) -> dict[str, Figure]:
    """The measures of `group`: means over tasks of the means over their items."""
    return {
        measure: mean_of([_mean(tally, group, task, measure) for task in tally.tasks(group, measure)])
        for measure in _measures(tally, group)
    }


def _mean(tally: Tally, group: str, task: str, measure: str, items: str | None = None) -> Mean:
    """A measure of a task in `group`; `items` is the group in which its items are counted, if that is another."""
    items = group if items is None else items
    total, n = tally.sums[group, task, measure][0], int(tally.sums[items, task, measure][1])
    if tally.replicates is None:
        return Mean(total, n)
    sums = tally.replicates.sums
    return Mean(total, n, sums((group, task, measure)), sums((items, task, measure, "n")))


def _together(means: Sequence[Mean]) -> Mean:
    """All items of `means` as those of one."""
    total, n = sum(one.total for one in means), sum(one.n for one in means)
    above = [one.above for one in means if one.above is not None]
    below = [one.below for one in means if one.below is not None]
    return Mean(total, n, reduce(add, above), reduce(add, below)) if above else Mean(total, n)


def _measures(tally: Tally, group: str, task: str | None = None) -> list[str]:
    """The measures that `group` has, in the order of the tables."""
    return in_order(key[2] for key in tally.sums if key[0] == group and task in (None, key[1]))


def _floors(tally: Tally) -> dict[str, Any]:
    """The floors, over the tasks and by task: {floor: {"overall", "tasks", "answers"}}."""
    found = {}
    for floor in (LITANY, FREQUENT):
        chosen = {task: answers[0] for task in tally.tasks() if (answers := tally.answers_of(floor, task))}
        if chosen:
            found[floor] = _floor(tally, floor, chosen)
    return found


def _floor(tally: Tally, floor: str, chosen: Mapping[str, str]) -> dict[str, Any]:
    """The measures of a floor with the answer that it gives in each task."""
    tasks: dict[str, dict[str, Figure]] = {}
    over: dict[str, list[Mean]] = {}
    for task, answer in chosen.items():
        tasks[task] = {}
        group = floor_group(floor, answer)
        for measure in _measures(tally, group, task):
            mean = _mean(tally, group, task, measure, floor_group(floor))
            tasks[task][measure] = mean_of([mean])
            over.setdefault(measure, []).append(mean)
    return {
        "overall": {measure: mean_of(over[measure]) for measure in in_order(over)},
        "tasks": tasks,
        "answers": {task: answer for task, answer in chosen.items() if answer},
    }


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

    def share(above: Mapping[str, int], below: Mapping[str, int]) -> Figure:
        """The share of weighted cells in others, over the items of the latter."""
        n = sum(cells[cell] for cell in below)
        total, whole = (sum(weight * cells[cell] for cell, weight in part.items()) for part in (above, below))
        if tally.replicates is None or not whole:
            return figure(total / whole if whole else None, n)
        drawn = {cell: tally.replicates.sums(("finding", name, cell)) for cell in below}
        sums = [reduce(add, [weight * drawn[cell] for cell, weight in part.items()]) for part in (above, below)]
        return figure(total / whole, n, _interval([Mean(total, whole, *sums)]))

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
_NAMES = {
    "radrscore": "RadRScore",
    "balanced_radrscore": "balanced RadRScore",
    THINK_ANSWER: "chain supports its answer",
}
FEW_MARK = "*"
SHOWN_FINDINGS = 20
SHOWN_IDS = 10


def name_of(measure: str) -> str:
    """A measure for people."""
    return _NAMES.get(measure, measure.replace("_", " ") if measure in MEASURES else measure)


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
        _show_groups(field, groups, file)
    if against := score.get("against"):
        _show_against(against, file)
    if _has_few(score):
        file.write(f"\n{FEW_MARK} {few_means(score)}: chance may have made it.\n")


def few_means(score: Mapping[str, Any]) -> str:
    """What the mark of a figure says."""
    means = ", or a mean over tasks one of which has fewer" if len(score["tasks"]) > 1 else ""
    return f"over fewer than {FEW} items{means}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], file: TextIO) -> None:
    file.write("\n")
    console.table(title, columns, rows, file=file)


def texts_of(rows: Iterable[Mapping[str, Figure]]) -> list[str]:
    """The text metrics among the measures of `rows`."""
    return in_order({measure for figures in rows for measure in figures if measure not in (*MEASURES, THINK_ANSWER)})


def _show_tasks(score: Mapping[str, Any], file: TextIO) -> None:
    rows = list(score["tasks"].items())
    rows.append(("mean over tasks", score["overall"]))
    rows += [(f"floor: {name}", floor["overall"]) for name, floor in score["floors"].items()]
    models = ", ".join(score["models"])
    title = f"Score of {models}, judge: {score['judge']}" if models else f"Score, judge: {score['judge']}"
    _show_measures(title, "task", rows, file)


def _show_groups(field: str, groups: Mapping[str, Mapping[str, Figure]], file: TextIO) -> None:
    file.write("\n")
    _show_measures(f"By {field}: mean over tasks", field, list(groups.items()), file)


def _show_measures(title: str, first: str, rows: Sequence[tuple[str, Mapping[str, Figure]]], file: TextIO) -> None:
    """Our measures, and the text metrics of others where there are any."""
    # Where a judge left items out, figures of reasoning rest on fewer than the answers do.
    judged = any(_rests_on(figures)[0] != _rests_on(figures)[1] for _, figures in rows)
    columns = [first, "items", *(["judged"] if judged else []), *HEADINGS.values()]
    console.table(title, columns, [_row(*row, HEADINGS, judged=judged) for row in rows], file=file)
    if texts := texts_of(figures for _, figures in rows):
        _table("Text metrics", [first, "items", *texts], [_row(*row, texts) for row in rows], file)


def _row(name: str, figures: Mapping[str, Figure], measures: Iterable[str], *, judged: bool = False) -> tuple[str, ...]:
    told = [figures.get(measure) for measure in measures]
    n = max((one["n"] for one in told if one), default=0)
    return (name, f"{n:,}", *([f"{_rests_on(figures)[1]:,}"] if judged else []), *map(text_of, told))


def _rests_on(figures: Mapping[str, Figure]) -> tuple[int, int]:
    """How many items the answers of `figures` rest on, and how many their reasoning."""
    return tuple(figures[one]["n"] if one in figures else 0 for one in ("accuracy", "radrscore"))  # type: ignore[return-value]


def _show_overall(score: Mapping[str, Any], file: TextIO) -> None:
    """The mean over tasks once more, with intervals and how many items each part rests on."""
    if not score["intervals"]["draws"]:
        return
    rows = [(name_of(measure), told["n"], text_of(told), range_of(told)) for measure, told in score["overall"].items()]
    _table(f"Mean over tasks, with 95 % intervals ({clusters(score)})", ["part", "items", "mean", "95 %"], rows, file)


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
            name_of(measure),
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
        if repeated := against["repeated"][who]:
            file.write(f"ids that came before in {who}, of which the last counts: {repeated:,}\n")
        unmatched = against["unmatched"][who]
        if unmatched["items"]:
            named = ", ".join(unmatched["named"][:SHOWN_IDS])
            file.write(f"only in {who}, not compared: {unmatched['items']:,} ({named}, …)\n")


def _has_few(score: Mapping[str, Any]) -> bool:
    """Whether any figure anywhere is marked."""
    if isinstance(score, Mapping):
        return score.get("few") is True or any(map(_has_few, score.values()))
    return False
