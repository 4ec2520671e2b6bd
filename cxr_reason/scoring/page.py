"""The page of a score: figures with their intervals, and every case with its chain beside the report. One file.

Figures are plain HTML. Cases are embedded as JSON, one block each, and drawn by page.js when they are looked at, so
that some thousand open at once. Whatever a case says is text to the browser: it is set as such, and the page's policy
runs no script but its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from cxr_reason import pages
from cxr_reason.records import dumps_plain
from cxr_reason.scoring import statistics, tables
from cxr_reason.scoring.figures import Figures
from cxr_reason.scoring.tally import MEASURES, criticals, measured, task_of
from cxr_reason.sinks import Sink
from cxr_reason.streams import Input, stable_hash

CASES = 5000
"""So many cases a page holds; of more, all with a critical miss or a false critical, and a seeded draw of the rest."""
_EXCERPT = 90
Line = Mapping[str, Any]

_SHORT = {measure: tables.name_of(measure).replace("positive", "pos.") for measure in MEASURES}
_SHORT["balanced_radrscore"] = "balanced"


def write(
    sink: Sink,
    score: Mapping[str, Any],
    details: Path,
    *,
    others: Path | None = None,
    reports: bool = True,
    count: int = CASES,
    seed: int = 0,
    figures: Figures | None = None,
    folders: Iterable[tuple[Path, int]] = (),
) -> None:
    """Write the page of `score` into `sink`, with the cases of `details` (lines as `judge` makes them).

    `others` has those of the other model, paired by id. Without `reports` no report text is in it, nor what quotes it.
    `figures` gives the films of the cases, which the page has only where it is given; `folders` are those where their
    paths begin, each with how many lines in a row it is for.
    """
    bases = chain(*(repeat(folder, count) for folder, count in folders), repeat(Path()))
    chosen = _chosen(_lines(details), count, seed)
    wanted = _by_id(others, set(chosen.values())) if others else {}
    style, script = (pages.asset(__package__, f"page.{kind}") for kind in ("css", "js"))
    sink.write(_encoded(pages.head(_title(score), style=style, script=script, images=figures is not None)))
    sink.write(_encoded(_header(score, len(chosen), reports=reports)))
    sink.write(_encoded(_figures(score)))
    sink.write(_encoded(_CASES.format(tasks="".join(f"<option>{escape(task)}</option>" for task in score["tasks"]))))
    index: list[dict[str, Any]] = []
    for number, (line, base) in enumerate(zip(_lines(details), bases, strict=False)):
        if number in chosen:
            other = wanted.get(chosen[number])
            told = case(line, other, reports=reports)
            if figures:
                told["films"] = figures.of(line, base)
                for name, data in figures.fresh():
                    sink.write(_block(name, data))
            sink.write(_block(f"case-{len(index)}", told))
            index.append(entry(line))
    sink.write(_block("index", index))
    sink.write(_encoded(f"<script>{script}</script>\n</body>\n</html>\n"))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _lines(path: Path) -> Iterator[Line]:
    for row in Input(path, formats=("jsonl",)).rows():
        assert row.data is not None
        yield row.data


def _chosen(lines: Iterable[Line], count: int, seed: int) -> dict[int, str]:
    """The places of the cases that the page holds, with their ids."""
    ranked = (
        (not any(criticals(line)), stable_hash("page", seed, line.get("id"), number), number, str(line.get("id")))
        for number, line in enumerate(lines)
    )
    return {number: identity for _, _, number, identity in heapq.nsmallest(count, ranked)}


def _by_id(path: Path, wanted: set[str]) -> dict[str, Line]:
    return {str(line.get("id")): line for line in _lines(path) if str(line.get("id")) in wanted}


def _block(name: str, content: Any) -> bytes:
    """JSON that the page holds. Without a "<" in it nothing in a text can end its block."""
    data = dumps_plain(content).replace(b"<", b"\\u003c")
    return b'<script type="application/json" id="%b">%b</script>\n' % (name.encode(), data)


# -------------------------------------------------------------------------------------------------------------- cases


def entry(line: Line) -> dict[str, Any]:
    """What the list of cases and its filters need of a case."""
    missed, invented = criticals(line)
    claims = [claim for claim in line.get("claims") or () if isinstance(claim, Mapping)]
    question = " ".join(str(line.get("question") or "").split())
    told = {
        "id": str(line.get("id") or ""),
        "task": task_of(line),
        "question": question if len(question) <= _EXCERPT else question[: _EXCERPT - 1] + "…",
        "correct": line.get("correct"),
        "factuality": line.get("factuality"),
        "radrscore": line.get("radrscore"),
        "unread": line.get("answer_read") is False,
        "missed": bool(missed),
        "false": bool(invented),
        "side": any(claim.get("side_error") for claim in claims),
        "hedge": any(claim.get("hedge_as_fact") for claim in claims),
        "against_itself": line.get("supports_answer") is False,
    }
    return {
        name: value for name, value in told.items() if name == "correct" or (value is not None and value is not False)
    }


def case(line: Line, other: Line | None = None, *, reports: bool = True) -> dict[str, Any]:
    """What is shown of a case; with the other model's chain, if there is one."""
    told = {
        name: line[name]
        for name in ("id", "study_id", "patient_id", "task", "question", "options", "answer", "images")
        if line.get(name) is not None
    }
    if reports:
        told |= {name: line[name] for name in ("report", "prior_report") if line.get(name)}
    missed, invented = criticals(line)
    told["reference"] = [
        {name: fact[name] for name in ("finding", "status", "side", "urgency", "state") if fact.get(name) is not None}
        for fact in line.get("reference") or ()
    ]
    told |= {"missed": missed, "false": invented, "by": [_attempt(line, reports)]}
    if other is not None:
        told["by"].append(_attempt(other, reports))
    return told


def _attempt(line: Line, reports: bool) -> dict[str, Any]:
    """One model's answer to a case, its chain and what was made of it."""
    shown = (
        "text",
        "step",
        "film",
        "finding",
        "status",
        "certainty",
        "side",
        "verdict",
        "basis",
        "side_error",
        "hedge_as_fact",
    )
    return {
        **{
            name: line.get(name)
            for name in ("model", "chosen", "answer_read", "correct", "supports_answer")
            if name in line
        },
        "scores": [[tables.name_of(name), value] for name, value in measured(line).items() if name != "accuracy"],
        "zero": list(line.get("zero_denominators") or ()),
        "prediction": line.get("prediction"),
        "steps": [
            {name: step[name] for name in ("text", "effective") if name in step}
            for step in line.get("steps") or ()
            if isinstance(step, Mapping)
        ],
        "claims": [
            {name: claim[name] for name in shown if claim.get(name)}
            | ({"spans": claim["spans"]} if reports and claim.get("spans") else {})
            for claim in line.get("claims") or ()
            if isinstance(claim, Mapping)
        ],
    }


# ------------------------------------------------------------------------------------------------------------ figures

_WITH_TEXT = "<strong>This page holds report text.</strong> Treat it as you treat the reports."
_WITHOUT_TEXT = "Report text was left out of this page (<code>--no-reports</code>)."
_CASES = """<section id="cases">
<h2>Cases</h2>
<form id="filters" role="search" aria-label="Cases">
<label>Search <input type="search" id="search" placeholder="words of a case, press /" autocomplete="off"></label>
<label>Task <select id="task"><option value="">all</option>{tasks}</select></label>
<label>Answer <select id="answer"><option value="">all</option><option value="right">right</option>
<option value="wrong">wrong</option><option value="unread">not read</option></select></label>
<label>Reasoning <select id="reasoning"><option value="">all</option>
<option value="low">factuality below 0.5</option><option value="missed">critical miss</option>
<option value="false">false critical</option><option value="side">wrong side</option>
<option value="hedge">hedge told as fact</option><option value="against_itself">chain speaks against the answer</option>
<option value="unjudged">not judged</option></select></label>
<label>Order <select id="order"><option value="">as given</option><option value="factuality">lowest factuality</option>
<option value="radrscore">lowest RadRScore</option></select></label>
<button type="reset">Clear</button>
<output id="count" aria-live="polite"></output>
</form>
<p class="keys"><kbd>/</kbd> search, <kbd>↑</kbd> <kbd>↓</kbd> or <kbd>k</kbd> <kbd>j</kbd> another case,
<kbd>Esc</kbd> back to the list</p>
<div class="cases">
<div id="list" role="listbox" tabindex="0" aria-label="Cases"><div id="rows"></div></div>
<article id="case" tabindex="-1" aria-label="Case"></article>
</div>
<noscript><p>The cases need JavaScript. Nothing is fetched from anywhere.</p></noscript>
</section>
</main>
"""


_NO_INTERVALS = {
    True: "No intervals were asked for (<code>--draws 0</code>).",
    False: "Without numpy there are no intervals.",
}


def _title(score: Mapping[str, Any]) -> str:
    return "Score" + (f" of {', '.join(score['models'])}" if score["models"] else "")


def _header(score: Mapping[str, Any], held: int, *, reports: bool) -> str:
    items, draws = score["items"], score["intervals"]["draws"]
    kept = (
        "" if held == items else f" The page holds {held:,} of them: critical misses and false criticals, and a draw."
    )
    intervals = f"95 % intervals by {tables.clusters(score)}." if draws else _NO_INTERVALS[statistics.available()]
    return (
        f"<header>\n<h1>{escape(_title(score))}</h1>\n<p>{items:,} items, judge: {escape(score['judge'])}.{kept} "
        f"{intervals} {tables.FEW_MARK}: {escape(tables.few_means(score))}.</p>\n"
        f"<p>{_WITH_TEXT if reports else _WITHOUT_TEXT} For research, not for clinical use.</p>"
        "\n</header>\n<main>\n"
    )


def _figures(score: Mapping[str, Any]) -> str:
    parts = [_bars(score), _by_task(score)]
    if "against" in score:
        parts.append(_against(score["against"]))
    parts += [_findings(score), _counted(score)]
    parts += [_group(field, groups) for field, groups in score["groups"].items()]
    return '<section id="figures">\n<h2>Figures</h2>\n' + "".join(parts) + "</section>\n"


def _bars(score: Mapping[str, Any]) -> str:
    """Each measure on a line from 0 to 1: its interval, its mean, and the floors."""
    rows = []
    for measure, told in score["overall"].items():
        marks = [
            f'<i class="floor floor-{number}" style="left:{100 * floor["overall"][measure]["value"]:.2f}%" '
            f'title="{escape(name)}: {tables.text_of(floor["overall"][measure])}"></i>'
            for number, (name, floor) in enumerate(score["floors"].items())
            if measure in floor["overall"]
        ]
        band = ""
        if told["low"] is not None:
            left, width = 100 * told["low"], 100 * (told["high"] - told["low"])
            band = f'<i class="band" style="left:{left:.2f}%;width:{width:.2f}%"></i>'
        rows.append(
            f'<tr><th scope="row">{escape(tables.name_of(measure))}</th><td>{escape(tables.with_range(told))}</td>'
            f'<td class="track" aria-hidden="true"><div>{band}{"".join(marks)}'
            f'<i class="mean" style="left:{100 * told["value"]:.2f}%"></i></div></td></tr>'
        )
    floors = " ".join(
        f'<span><i class="floor floor-{number}"></i> floor: {escape(name)}</span>'
        for number, name in enumerate(score["floors"])
    )
    key = f'<p class="key"><span><i class="mean"></i> mean over tasks, with its interval</span> {floors}</p>\n'
    return f'<table class="bars">\n<tbody>\n{"".join(rows)}</tbody>\n</table>\n{key}'


def _by_task(score: Mapping[str, Any]) -> str:
    rows = [(task, figures, "") for task, figures in score["tasks"].items()]
    rows.append(("mean over tasks", score["overall"], "total"))
    rows += [(f"floor: {name}", floor["overall"], "soft") for name, floor in score["floors"].items()]
    return _measures_tables("By task", "task", rows)


def _group(field: str, groups: Mapping[str, Any]) -> str:
    rows = [(value, figures, "") for value, figures in groups.items()]
    return _measures_tables(f"By {field}: mean over tasks", field, rows)


def _measures_tables(title: str, first: str, rows: Sequence[tuple[str, Mapping[str, Any], str]]) -> str:
    """Our measures, and the text metrics of others where there are any."""
    told = _measures_table(title, first, rows, MEASURES)
    if texts := tables.texts_of(figures for _, figures, _ in rows):
        told += _measures_table(f"{title}: text metrics", first, rows, texts)
    return told


def _measures_table(
    title: str, first: str, rows: Sequence[tuple[str, Mapping[str, Any], str]], measures: Iterable[str]
) -> str:
    measures = list(measures)
    body = []
    for name, figures, kind in rows:
        n = max((figures[one]["n"] for one in measures if one in figures), default=0)
        cells = "".join(_cell(figures.get(measure)) for measure in measures)
        body.append(f'<tr class="{kind}"><th scope="row">{escape(name)}</th><td>{n:,}</td>{cells}</tr>\n')
    return _table(title, [first, "items", *(_SHORT.get(measure, measure) for measure in measures)], body)


def _cell(told: tables.Figure | None) -> str:
    interval = tables.range_of(told)
    small = "" if interval == "-" else f"<small>{escape(interval)}</small>"
    return f"<td>{escape(tables.text_of(told))}{small}</td>"


def _table(title: str, columns: Sequence[str], rows: Sequence[str], *, folded: bool = False) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table></div>\n"
    )
    if folded:
        return f"<details><summary>{escape(title)}</summary>\n{table}</details>\n"
    return f"<h3>{escape(title)}</h3>\n{table}"


def _against(against: Mapping[str, Any]) -> str:
    rows = [
        f'<tr><th scope="row">{escape(tables.name_of(measure))}</th><td>{told["n"]:,}</td><td>{told["ours"]:.3f}</td>'
        f"<td>{told['theirs']:.3f}</td><td>{escape(tables.difference_of(told))}</td><td>{told['p']:.4f}</td></tr>\n"
        for measure, told in against["overall"].items()
    ]
    title = f"Against {against['name']}: paired differences, mean over tasks"
    return _table(title, ["part", "pairs", "ours", "theirs", "difference (95 %)", "p"], rows)


def _findings(score: Mapping[str, Any]) -> str:
    shares = ("sensitivity", "specificity", "ppv", "f1")
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{told["n"]:,}</td><td>{told["tp"] + told["fn"]:,}</td>'
        + "".join(_cell(told[share]) for share in shares)
        + "</tr>\n"
        for name, told in score["findings"].items()
    ]
    columns = ["finding", "n", "present", "sensitivity", "specificity", "PPV", "F1"]
    return _table(f"Findings ({len(rows):,})", columns, rows, folded=True)


def _counted(score: Mapping[str, Any]) -> str:
    rows = [f'<tr><th scope="row">{escape(what)}</th><td>{n:,}</td></tr>\n' for what, n in tables.counted_apart(score)]
    return _table("Counted apart", ["what", "number"], rows, folded=True)
