"""A page to read by: every sampled claim beside its report, the sentence that it rests on marked. One file, no script.

It tells no verdict of ours: readers are blind. What it looks like is ``pages.css`` and ``page.css``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from cxr_reason import pages
from cxr_reason.sheets import NO_EVIDENCE, asked, evidence, evidence_spans

Note = Mapping[str, Any]

_HEADER = """<header>
<h1>Claims to review</h1>
<p>{count} from {reports}. For each: does the report bear the claim out? Write the verdict into the row of the
sheet that has the claim's number, under <i>verdict</i>.</p>
<dl>
<dt>supported</dt><dd>the report says so, or it follows from what it says</dd>
<dt>contradicted</dt><dd>the report says otherwise</dd>
<dt>unverifiable</dt><dd>the report says neither, or is less certain or less exact than the claim</dd>
</dl>
<p>Where a claim names a side or a severity, say under <i>side_correct</i> and <i>severity_correct</i> whether it is the
report's: y or n. Where two films are compared both reports are shown; a claim about the film before says so.</p>
<p>{privacy}</p>
</header>
<main>
"""
_WITH_TEXT = (
    "<strong>This page holds report text.</strong> Treat it as you treat the reports. Marked sentences are those that "
    "the program looked at; the numbers name the claims. A claim without one may rest on anything, or on silence."
)
_WITHOUT_TEXT = "Report text was left out of this page (<code>--no-reports</code>): read it where it is kept."
_BOXES = (
    '<p class="boxes">{verdicts} <span>side: &#9744;&#8239;y &#9744;&#8239;n</span> '
    "<span>severity: &#9744;&#8239;y &#9744;&#8239;n</span></p>"
).format(
    verdicts=" ".join(f"<span>&#9744;&#8239;{name}</span>" for name in ("supported", "contradicted", "unverifiable"))
)


def page(notes: Sequence[Note], *, reports: bool = True) -> bytes:
    """The page for `Sample.chosen`. Without `reports` it has no word of them."""
    groups = [list(group) for _, group in groupby(notes, key=lambda note: note["report_id"])]
    head = pages.head("Claims to review", style=pages.asset(__package__, "page.css")) + _HEADER.format(
        count=_counted(len(notes), "claim"),
        reports=_counted(len(groups), "report"),
        privacy=_WITH_TEXT if reports else _WITHOUT_TEXT,
    )
    body = "".join(_section(group, reports) for group in groups)
    return f"{head}{body}</main>\n</body>\n</html>\n".encode("utf-8", "backslashreplace")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _section(notes: Sequence[Note], reports: bool) -> str:
    """A report with its claims."""
    study = escape(notes[0]["study"])
    title = f"Study {study}" if study else "Report"
    text = _reports(notes) if reports else ""
    claims = "".join(_claim(note, reports) for note in notes)
    return (
        f'<section>\n<h2>{title} <small>{escape(notes[0]["report_id"])}</small></h2>\n<div class="pair">\n{text}'
        f'<ol class="claims">\n{claims}</ol>\n</div>\n</section>\n'
    )


def _reports(notes: Sequence[Note]) -> str:
    """The report, and that of the film before where there is one."""
    marked = _marked([note for note in notes if note.get("film") != "prior"], notes[0]["report"])
    if before := notes[0].get("prior_report"):
        earlier = _marked([note for note in notes if note.get("film") == "prior"], before)
        marked = f"<h3>Current film</h3>\n{marked}\n<h3>Film before</h3>\n{earlier}"
    return f'<div class="report" tabindex="0">{marked}</div>\n'


def _marked(notes: Sequence[Note], report: str) -> str:
    """A report, the sentences marked in which the claims' evidence stands."""
    claims: dict[tuple[int, int], list[int]] = {}
    for note in notes:
        for span in evidence_spans(note):
            claims.setdefault(span, []).append(note["row"])
    at, parts = 0, list[str]()
    for start, end in sorted(claims):
        rows = ", ".join(f'<a href="#claim-{row}">{row}</a>' for row in claims[start, end])
        parts += [escape(report[at:start]), f"<mark>{escape(report[start:end])}</mark><sup>{rows}</sup>"]
        at = end
    return "".join([*parts, escape(report[at:])]).strip()


def _claim(note: Note, reports: bool) -> str:
    step, sentence = escape(note["step_text"]), escape(note["sentence"])
    if step != sentence:
        step = step.replace(sentence, f"<b>{sentence}</b>", 1)
    told = ""
    if reports:
        quoted = " ".join(f"<q>{escape(text)}</q>" for text in evidence(note))
        told = f'<p class="evidence">{quoted or escape(NO_EVIDENCE)}</p>\n'
    ids = escape(f"{note['id']} · {note['record']}, step {note['step']}, claim {note['claim']}")
    return (
        f'<li id="claim-{note["row"]}" value="{note["row"]}">\n<p class="claim">{escape(note["statement"])}</p>\n'
        f'<p class="step">{step}</p>\n{told}<p class="question">{escape(asked(note))}</p>\n'
        f'{_BOXES}\n<p class="ids">{ids}</p>\n</li>\n'
    )
