"""RadRBench-CXR's published layout, read and written: its items and our records, one for one.

The layout is that of the benchmark and of its evaluation files in ChestX-Reasoner's public repository (arXiv
2504.20930; ``eval/res/reasoning_res``): a JSON array of items. Items of different files differ, and what they hold by
one name differs too; docs/radrbench.md lists what was met. `records_of` makes records of the items among rows, and
passes everything else on; any command that reads records can put it between its input and its work.

A record holds more than an item: `from_item(to_item(record))` keeps what the layout can hold, the question with its
options and answer, the texts of the steps, the reports, the images' paths, the prediction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cxr_reason.records import index_of
from cxr_reason.records import letter as letter_of
from cxr_reason.streams import Row, record_id, stable_hash

# What tells an item, where it has a question and none of our reports.
MARKS = ("original_report", "original_report2", "image_path", "answer_content", "item_id", "pred")
# GPT-4o's judgements, as the evaluation files have them.
JUDGEMENTS = ("gt_key_finding", "pred_key_finding", "recall_res", "precision_res", "efficiency")

_OPTIONS = re.compile(r"(?<!\s)\s*+\boptions?\s*+:\s*+", re.IGNORECASE)
_LETTERED = re.compile(r"^\(?([A-Z])[).:]\s*(.*)$", re.DOTALL)
_INLINE = re.compile(r"(?<!\s)\s++(?=\(?[B-Z]\)\s)")
# What a prompt adds to the question.
_PROMPT = re.compile(r"(?<!\s)\s*+\bLet's think step by step\b.*", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_CHAT = re.compile(r"^system\n.*?\nassistant\n", re.DOTALL)
_FENCE = re.compile(r"^```\w*+\s*+|(?<!\s)\s*+```$")
_BOTH_REPORTS = re.compile(r"^\s*Previous Report:(.*?)\n\s*Current Report:(.*)$", re.DOTALL)
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\b[Dd]r\.)(?<!\bvs\.)(?<!\b[Nn]o\.)(?<!\be\.g\.)(?<!\bi\.e\.)\s+(?=[\"'(]?[A-Z0-9])"
)
_COURSE = re.compile(r"improv|better|resolv|stable|unchanged|same|wors|progress", re.IGNORECASE)
_NORMAL = re.compile(r"\b(?:ab)?normal\b", re.IGNORECASE)


def is_item(data: Mapping[str, Any]) -> bool:
    """Whether `data`, a row, is an item of the layout and no record of ours."""
    return "question" in data and "report" not in data and any(mark in data for mark in MARKS)


def records_of(rows: Iterable[Row]) -> Iterator[Row]:
    """`rows`, with a record in the place of each item of the layout. Other rows pass as they are."""
    for row in rows:
        yield replace(row, data=from_item(row.data)) if row.data and is_item(row.data) else row


# ------------------------------------------------------------------------------------------------ from item to record


def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an item. Takes any item: what is missing is missing in the record, and nothing is raised.

    Fields that the record has no place for pass through by their names, GPT-4o's judgements among them; its `correct`
    is true or false, and null where it is neither yes nor no. Steps have no kind: `cxr refine` tells it from the text.
    """
    record = {name: value for name, value in item.items() if name not in _CONSUMED}
    question, options = _question(_text(item.get("question")))
    record |= {"question": question, "options": options}
    report, prior = _reports(item)
    answer = _answer(item, options)
    task = _task(question, options, answer, paired=prior is not None)
    record |= {"task": task, "answer": answer} | _identity(item, question, options, report)
    if report is not None:
        record["report"] = report
    if prior is not None:
        record["prior_report"] = prior
    if images := _images(item.get("image_path"), paired=task == "temporal"):
        record["images"] = images
    if (texts := _steps(item.get("reason_steps"))) is not None:
        record["steps"] = [{"text": text} for text in texts]
    elif item.get("reason_steps"):
        record["reason_steps"] = item["reason_steps"]
    if isinstance(item.get("pred"), str):
        record["prediction"] = _CHAT.sub("", item["pred"])
    if "correct" in item:
        record["correct"] = _yes(item["correct"])
    return record


_CONSUMED = frozenset({
    "question", "answer", "answer_content", "item_id", "original_report", "original_report1", "original_report2",
    "image_path", "reason_steps", "pred", "correct",
})  # fmt: skip


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _identity(item: Mapping[str, Any], question: str, options: list[str] | None, report: str | None) -> dict[str, str]:
    """Published ids ("[Findings Summarization] [OpenI] [7]OpenI") are of films, and several questions share one."""
    given = item.get("item_id")
    if not isinstance(given, str | int) or not str(given).strip():
        return {"id": record_id({"question": question, "options": options, "report": report})}
    name = str(given)
    if not name.startswith("["):
        return {"id": name}
    return {"id": f"{name}-{stable_hash(question, *(options or ())) >> 48:04x}", "study_id": name}


def _question(text: str) -> tuple[str, list[str] | None]:
    """The question and the options that its text holds."""
    text = _PROMPT.sub("", text).strip()
    *_, last = None, *_OPTIONS.finditer(text)
    options = _lines_of_options(text[last.end() :]) if last else None
    return (text[: last.start()], options) if last and options else (text, None)


def _lines_of_options(text: str) -> list[str] | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = _INLINE.split(lines[0])
    options: list[str] = []
    for line in lines:
        lettered = _LETTERED.match(line)
        if lettered and lettered[1] == letter_of(len(options)):
            options.append(lettered[2].strip())
        elif options:
            options[-1] += f" {line}"  # an option of several lines
        else:
            options = lines  # without letters
            break
    return options if len(options) > 1 else None


def _answer(item: Mapping[str, Any], options: list[str] | None) -> str:
    """A letter where there are options, else a text."""
    answer, content = _untagged(_text(item.get("answer"))), _text(item.get("answer_content"))
    if not options:
        return answer or content
    letter = answer.strip("() .").upper()
    if index_of(letter, options) is not None:
        return letter
    known = [option.casefold() for option in options]
    text = next((text for text in (answer, content) if text.casefold() in known), None)
    return answer if text is None else letter_of(known.index(text.casefold()))


def _untagged(answer: str) -> str:
    tagged = _TAGGED.search(answer)
    return " ".join((tagged[1] if tagged else answer).split())


def _reports(item: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The report and the prior one. Where there are two, the first is the prior."""
    prior, current, both = (item.get(f"original_report{which}") for which in ("1", "2", ""))
    if isinstance(current, str):
        return current, prior if isinstance(prior, str) else None
    if isinstance(both, str) and (found := _BOTH_REPORTS.match(both)):
        return found[2].strip(), found[1].strip()
    report = both if isinstance(both, str) else prior
    return (report if isinstance(report, str) else None), None


def _images(paths: Any, *, paired: bool) -> list[Any]:
    """Of two films that are compared, the prior is the first."""
    given = [paths] if isinstance(paths, str) else paths if isinstance(paths, list) else []
    listed = [path for path in given if isinstance(path, str)]
    if paired and len(listed) == 2:
        return [{"path": path, "role": role} for path, role in zip(listed, ("prior", "current"), strict=True)]
    return listed


def _steps(given: Any) -> list[str] | None:
    """The steps of a chain as texts: a list, one text, or the JSON of either, maybe inside an object; else None."""
    if isinstance(given, dict):
        return _steps(given.get("reason_steps", given.get("reason_step")))
    if isinstance(given, list):
        texts = [_text(step.get("text") if isinstance(step, dict) else step) for step in given]
        return texts if texts and all(texts) else None
    text = _FENCE.sub("", _text(given))
    if text.startswith(("{", "[")):
        try:
            return _steps(json.loads(text))
        except (ValueError, RecursionError):
            return None
    return [sentence.strip() for sentence in _SENTENCE_END.split(text)] if text else None


def _task(question: str, options: list[str] | None, answer: str, *, paired: bool) -> str:
    """Which task the question sets: the layout has no field for it."""
    choices = options or [answer]
    words = {choice.casefold().strip(" .") for choice in choices}
    if words <= {"yes", "no"}:
        return "binary"
    if len(choices) <= 2 and all(map(_NORMAL.search, choices)) and not paired:
        return "anomaly"
    if paired or (options and all(map(_COURSE.search, options))):
        return "temporal"
    if re.search(r"\bfinding\b|\bone\b", question, re.IGNORECASE):
        return "single"
    if not options or re.search(r"\bfindings\b", question, re.IGNORECASE):
        return "multiple"
    return "multiple" if sum(bool(re.search("[,;]", option)) for option in options) > 1 else "single"


def _yes(value: Any) -> bool | None:
    """The reference takes any text with a yes in it for a yes."""
    if isinstance(value, bool):
        return value
    text = _text(value).casefold()
    return True if "yes" in text else False if "no" in text else None


# ------------------------------------------------------------------------------------------------ from record to item


def to_item(record: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a record with a question and an answer, in the layout's own field names.

    Raises ValueError where the record has neither.
    """
    question, answer = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError("only a record with a question and an answer can be an item of RadRBench-CXR")
    options = record.get("options") or []
    index = index_of(answer, options)
    item: dict[str, Any] = {
        "image_path": _paths(record.get("images") or ()),
        "answer": answer,
        "answer_content": answer if index is None else options[index],
        "dataset_name": record.get("dataset_name") or "Image Classification",
        "item_id": _item_id(record),
        "question": asked(question, options),
    }
    report, prior = record.get("report") or "", record.get("prior_report")
    if prior and record.get("task") == "temporal":
        item |= {"original_report1": prior, "original_report2": report}
        report = f"Previous Report: {prior}\nCurrent Report: {report}"
    item["original_report"] = report
    if "plan" in record:
        item["plan"] = record["plan"]
    item["reason_steps"] = [step["text"] for step in record.get("steps") or ()] or record.get("reason_steps", [])
    if "prediction" in record:
        item["pred"] = record["prediction"]
    if isinstance(correct := record.get("correct"), bool):
        item["correct"] = "yes" if correct else "no"
    return item | {name: record[name] for name in JUDGEMENTS if name in record}


def _item_id(record: Mapping[str, Any]) -> Any:
    study = record.get("study_id")
    return study if isinstance(study, str) and study.startswith("[") else record.get("id")


def asked(question: str, options: list[str]) -> str:
    """The question with its options, as the layout has it."""
    lines = [f"{letter_of(number)}) {' '.join(option.split())}" for number, option in enumerate(options)]
    return "\n".join([f"{question} Options:", *lines]) if lines else question


def prior_first(images: Iterable[Any]) -> list[Any]:
    """`images` of a record in the order in which the benchmark, and models trained on it, have them."""
    return sorted(images, key=lambda image: not (isinstance(image, dict) and image.get("role") == "prior"))


def _paths(images: Iterable[Any]) -> list[str]:
    return [image["path"] if isinstance(image, dict) else image for image in prior_first(images)]
