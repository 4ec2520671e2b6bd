"""Two films of a patient: which study is the one before, what is asked about the change, and what of a single view.

`pairs.jsonl` holds pairs of reports of our own with the answer that a radiologist would give, written before the engine
had read any of them.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run
from growth import inputs
from hypothesis import given
from hypothesis import strategies as st

from cxr_reason import columns, console, courses, records, runner
from cxr_reason.errors import InputError
from cxr_reason.mining import miner, priors, tasks, wording
from cxr_reason.mining.dates import moment, named
from cxr_reason.mining.language import MANNERS
from cxr_reason.mining.settings import Settings
from cxr_reason.mining.wording import Details
from cxr_reason.radiology import claims, read
from cxr_reason.refining import study
from cxr_reason.refining.checks import CHECKS
from cxr_reason.streams import Group, Input, Row

PAIRS = [json.loads(line) for line in (ROOT / "tests" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
COLUMNS = ("study_id", "patient_id", "study_time", "image_path", "view", "report")
FLIPPED = {"Improved": "Worse", "Worse": "Improved", "Stable": "Stable", None: None}

# What the engine reads otherwise than a radiologist; only a change of the engine can mend it.
MISREAD = {
    "pair-010": "“remains” is read as “unchanged”, which then contradicts the grades",
}

Answers = dict[tuple[str, str], str]


def answers(cxr: Run, folder: Path, *, swapped: bool = False) -> Answers:
    """What `cxr mine` answers about every finding of every pair: {(pair, finding): answer}."""
    source = folder / f"pairs{swapped:d}.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for pair in PAIRS:
            name, reports, shown = pair["id"], [pair["prior"], pair["current"]], [pair["prior_view"], pair["view"]]
            if swapped:
                reports.reverse()
                shown.reverse()
            table.writerow([f"{name}-a", name, pair["prior_time"], f"{name}-a.png", shown[0], reports[0]])
            table.writerow([f"{name}-b", name, pair["time"], f"{name}-b.png", shown[1], reports[1]])
    mined = folder / f"questions{swapped:d}.jsonl"
    done = cxr("mine", str(source), "--tasks", "temporal", "--per-finding", "10000", "-o", str(mined))
    assert done.returncode == 0, done.stderr
    refined = cxr("refine", str(mined))
    # Every chain holds out as it is: what each film shows is borne out by its own report.
    assert "0 of them mended), 0 rejected" in refined.stderr, refined.stderr
    found = {}
    for line in refined.stdout.splitlines():
        record = json.loads(line)
        assert records.check(record) == []
        found[record["study_id"][:8], record["id"].split("-temporal-")[1][:-5]] = right(record)
    return found


@pytest.fixture(scope="module")
def asked(cxr: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Answers]:
    """The answers, and those of the pairs the other way round."""
    folder = tmp_path_factory.mktemp("pairs")
    return answers(cxr, folder), answers(cxr, folder, swapped=True)


def right(record: dict[str, Any]) -> str:
    return str(record["options"][ord(record["answer"]) - ord("A")])


def slug(pair: dict[str, Any]) -> tuple[str, str]:
    return pair["id"], pair["finding"].replace(" ", "-")


def test_there_are_pairs_of_every_kind() -> None:
    assert min(Counter(pair["expected"] for pair in PAIRS).values()) >= 25
    assert len(MISREAD) <= 0.05 * len(PAIRS)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, id=pair["id"], marks=[pytest.mark.xfail(reason=MISREAD[pair["id"]], strict=True)])
        if pair["id"] in MISREAD
        else pytest.param(pair, id=pair["id"])
        for pair in PAIRS
    ],
)
def test_each_pair_has_the_answer_of_a_radiologist(pair: dict[str, Any], asked: tuple[Answers, Answers]) -> None:
    assert asked[0].get(slug(pair)) == pair["expected"], pair["why"]


def test_a_swapped_pair_flips_the_answer(asked: tuple[Answers, Answers]) -> None:
    forwards, backwards = asked
    flips = 0
    for pair in PAIRS:
        there, back = forwards.get(slug(pair)), backwards.get(slug(pair))
        if there in ("Improved", "Worse"):
            assert back in (FLIPPED[there], None), pair["id"]
        told = [read(pair[name]).facts() for name in ("prior", "current")]
        worded = any(fact.change for facts in told for fact in facts if fact.name == pair["finding"])
        if pair["expected"] and pair["id"] not in MISREAD and not worded:
            flips += 1
            assert back == FLIPPED[pair["expected"]], pair["id"]
    assert flips > 25


# ------------------------------------------------------------------------------------------------ which study is before


def linked(
    *studies: tuple[Any, ...],
    header: Sequence[str] = ("study_id", "patient_id", "study_time"),
    date_order: str | None = None,
) -> dict[str, Any]:
    """{study: the study before, or why there is none}."""
    mapping = columns.guess_columns([*header, "report"])
    units = [
        Row("f", line, None, "torn")
        if study is None
        else Group(study[0], [Row("f", line, dict(zip(header, study, strict=True)))])
        for line, study in enumerate(studies, 2)
    ]
    made = list(priors.attach(iter(units), mapping, date_order=date_order))
    assert made == units  # in the order of the input, none lost
    return {
        unit.key: unit.prior[0].data["study_id"] if unit.prior else unit.no_prior  # type: ignore[index]
        for unit in made
        if isinstance(unit, Group)
    }


@pytest.mark.parametrize(
    ("times", "before"),
    [
        (("2031-03-04", "2031-03-05", "2031-03-07"), (priors.FIRST, "a", "b")),
        (("2031-03-07", "2031-03-04", "2031-03-05"), ("c", priors.FIRST, "b")),
        (("20310304", "2031-03-05 07:00", "7 Mar 2031"), (priors.FIRST, "a", "b")),
        (("3", "1", "2"), ("c", priors.FIRST, "b")),
        (("31/12/2030", "02/01/2031", "01/02/2031"), (priors.FIRST, "a", "b")),  # one date tells: the day comes first
        (("05.03.2031", "04.06.2031", "01.04.2031"), (priors.FIRST, "c", "a")),  # with dots it always does
        (("03.25.2031", "04.06.2031", "01.04.2031"), (priors.NO_TIME,) * 3),
        (("2031-03-04", "2031-03-04", "2031-03-07"), (priors.SAME_TIME, priors.SAME_TIME, priors.SAME_TIME)),
        (("2031-03-04", "2031-03-04T08:00", "2031-03-03"), (priors.SAME_TIME, priors.SAME_TIME, priors.FIRST)),
        (("2031-03-04", "", "2031-03-07"), (priors.NO_TIME,) * 3),
        (("2031-03-04", "3", "2031-03-07"), (priors.NO_TIME,) * 3),
    ],
)
def test_the_prior_is_the_last_earlier_study(times: tuple[str, ...], before: tuple[str, ...]) -> None:
    assert linked(*[(name, "P1", time) for name, time in zip("abc", times, strict=True)]) == dict(
        zip("abc", before, strict=True)
    )


def test_a_prior_that_is_named_counts_if_it_is_the_last_before() -> None:
    header = ("study_id", "patient_id", "study_time", "prior_study_id")
    rows = [("a", "P", "1", ""), ("b", "P", "2", "a"), ("c", "P", "3", "a"), ("d", "P", "4", "e"), ("e", "P", "5", "z")]
    assert linked(*rows, header=header) == {
        "a": priors.FIRST,
        "b": "a",
        "c": priors.BETWEEN,
        "d": priors.NOT_EARLIER,
        "e": None,  # "z" isn't here: the report's own word may still be asked for
    }
    without_times = [(study, patient, prior) for study, patient, _, prior in rows[:3]]
    assert linked(*without_times, header=("study_id", "patient_id", "prior_study_id")) == {
        "a": None,
        "b": "a",
        "c": "a",
    }


def test_nobody_gets_the_prior_of_another_patient() -> None:
    assert linked(("a", "P1", "1"), ("b", "P2", "2"), ("c", "", "3"), ("d", "", "4"), ("e", "P2", "5")) == {
        "a": priors.FIRST,
        "b": priors.FIRST,
        "c": None,
        "d": None,
        "e": priors.APART,
    }


def test_a_patient_with_a_torn_row_or_too_many_has_none() -> None:
    torn = linked(("a", "P1", "1"), None, ("b", "P1", "2"), None, ("c", "P2", "1"), ("d", "P2", "2"))
    assert torn == {"a": priors.UNREADABLE, "b": priors.UNREADABLE, "c": priors.FIRST, "d": "c"}
    many = linked(*[(f"s{number}", "P1", str(number)) for number in range(priors.GROUP_ROWS + 5)])
    assert set(many.values()) == {priors.TOO_MANY}


def test_patients_that_do_not_stand_together_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    linked(("a", "P1", "1"), ("b", "P2", "1"), ("c", "P1", "2"), ("d", "P2", "2"))
    assert "about 2 patients have rows that don't stand together" in capsys.readouterr().err


moments = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="0123456789-/:.T apmJnMrZ+", max_size=24),
    st.datetimes().map(str),
    st.dates().map(lambda day: day.strftime("%m/%d/%y")),
    st.integers().map(str),
    st.sampled_from(["", "nan", "NaT", "1e9", "inf", "0", "2031-02-29", "24:00", "²"]),
)


@inputs(200)
@given(times=st.lists(moments, max_size=6), text=moments)
def test_no_date_breaks_anything(times: list[str], text: str) -> None:
    found = linked(*[(f"s{number}", "P1", time) for number, time in enumerate(times)])
    assert len(found) == len(times)
    list(named(text, today=date(2031, 3, 6)))
    report = f"COMPARISON: {text}\nCompared to {text}, the left effusion has increased since {text}."
    priors.Compared(read(report), text).elsewhere(priors.days_of("3/4/2031"))


@inputs(200)
@given(
    one=st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1)),
    apart=st.timedeltas(timedelta(minutes=1), timedelta(9999)),
)
def test_times_are_ordered_however_they_are_written(one: datetime, apart: timedelta) -> None:
    first, second = one.replace(second=0, microsecond=0), (one + apart).replace(second=0, microsecond=0)
    for form in ("%Y-%m-%dT%H:%M", "%Y%m%d%H%M%S", "%d %b %Y %H:%M", "%m/%d/%Y %I:%M %p", "%B %d, %Y %H:%M"):
        earlier, later = moment(first.strftime(form)), moment(second.strftime("%Y-%m-%d %H:%M:%S"))
        assert earlier is not None, form
        assert later is not None
        assert earlier.before(later) is (first < second)


@pytest.mark.parametrize("mark", ["/", "-"])
def test_the_column_tells_whether_the_day_comes_first(mark: str) -> None:
    """In March and June, as another patient's 25th of May tells; month first, June would come before March."""
    studies = [("a", "P1", "05/03/2031"), ("b", "P1", "04/06/2031"), ("c", "P2", "25/05/2031")]
    told = [(name, patient, time.replace("/", mark)) for name, patient, time in studies]
    assert linked(*told) == {"a": priors.FIRST, "b": "a", "c": priors.FIRST}


def test_an_order_that_nothing_tells_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    studies = [("a", "P1", "05/03/2031"), ("b", "P1", "04/06/2031")]
    assert linked(*studies) == {"a": "b", "b": priors.FIRST}
    assert "'study_time': no date tells whether the day or the month is first" in capsys.readouterr().err
    assert linked(*studies, date_order="day-first") == {"a": priors.FIRST, "b": "a"}
    assert linked(("c", "P1", "05/25/2031"), *studies, date_order="day-first")["a"] == priors.NO_TIME
    assert capsys.readouterr().err == ""


def test_dates_that_contradict_each_other_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = [("a", "P1", "13/03/2031"), ("b", "P2", "04/06/2031"), ("c", "P3", "05/25/2031")]
    with pytest.raises(InputError, match="'study_time' has the month first, and that of f:2 has the day first") as told:
        linked(*studies)
    assert "f:4" in str(told.value)
    monkeypatch.setattr(priors, "LOOK_AHEAD", 2)
    with pytest.raises(InputError, match="those before were taken to have the month first"):
        linked(("a", "P1", "05/03/2031"), ("b", "P2", "04/06/2031"), ("c", "P3", "25/05/2031"))


def test_dates_in_one_reading_hold_nothing_back() -> None:
    def units() -> Iterator[Group]:
        for day in range(10, 15):
            yield Group(f"s{day}", [Row("f", day, {"patient_id": f"p{day}", "t": f"2031-03-{day}"})])
            taken.append(day)

    taken: list[int] = []
    order = priors.Order({"study_id": "study_id", "patient_id": "patient_id", "study_time": "t"})
    next(order.found(units()))
    assert taken == []


# ------------------------------------------------------------------------------------------------ what is compared with

PRIOR_DAY = date(2031, 3, 4)


@pytest.mark.parametrize(
    ("report", "why"),
    [
        ("COMPARISON: 3/4/2031.", None),
        ("COMPARISON: Chest radiographs from 04 Mar 2031 and 2/2/2031.", None),
        ("COMPARISON: March 4.", None),
        ("COMPARISON: Radiograph of March 2031.", None),
        ("COMPARISON: ___.", None),
        ("COMPARISON: Radiograph ___, CT 1/1/2030.", None),
        ("COMPARISON: Prior study.", None),
        ("The effusion is unchanged.", None),
        ("Compared to two days prior, the effusion is unchanged.", None),
        ("COMPARISON: 2031-03-03.", priors.COMPARES_ELSEWHERE),
        ("COMPARISON: 11/4/2030", priors.COMPARES_ELSEWHERE),
        ("COMPARISON: Portable film of May 4.", priors.COMPARES_ELSEWHERE),
        ("As compared to yesterday, the effusion is unchanged.", priors.COMPARES_ELSEWHERE),
        ("In comparison with the study of 1/9, the effusion is unchanged.", priors.COMPARES_ELSEWHERE),
        ("Discussed by telephone from the ward on 3/6/2031.", None),
        ("Comparison is made with the prior study of 1/9.", priors.COMPARES_ELSEWHERE),
        ("COMPARISON: None.", priors.COMPARES_NOTHING),
        ("COMPARISON: No prior studies available. FINDINGS: Effusion.", priors.COMPARES_NOTHING),
        ("There are no prior films for comparison.", priors.COMPARES_NOTHING),
        ("No prior CT studies. No interval change. No comparison was needed.", None),
    ],
)
def test_a_report_may_compare_with_another_film(report: str, why: str | None) -> None:
    text = f"{report}\nHeart size is normal. The lungs are clear."
    assert priors.Compared(read(text), "2031-03-06").elsewhere([PRIOR_DAY]) == why


@pytest.mark.parametrize(
    ("before", "now", "course"),
    [
        ("Small left effusion.", "Large left effusion.", ("worse", "grade")),
        ("Small to moderate left effusion.", "Large left effusion.", ("worse", "grade")),
        ("Small to moderate left effusion.", "Moderate left effusion.", None),
        ("No effusion.", "Large left effusion.", ("worse", "appeared")),
        ("Small left effusion.", "No effusion.", ("improved", "gone")),
        ("Small bilateral effusions.", "Moderate right and large left effusions.", ("worse", "grade")),
        ("Small left effusion.", "Small right effusion.", None),
        ("No left effusion.", "Small right effusion.", None),
        ("Mild left lower lobe atelectasis.", "Severe left basilar atelectasis.", ("worse", "grade")),
        ("Mild left lower lobe atelectasis.", "Severe left apical atelectasis.", None),
        ("Small effusion.", "Large left effusion.", None),
        ("Small left effusion.", "Probable large left effusion.", None),
        ("No large effusion.", "Large left effusion.", None),
        ("No effusion.", "No effusion.", None),
    ],
)
def test_courses(before: str, now: str, course: tuple[str, str] | None) -> None:
    assert courses.course(claims(before), claims(now)) == course
    swapped = courses.course(claims(now), claims(before))
    flipped = {"improved": "worse", "worse": "improved", "stable": "stable"}
    assert (swapped and swapped.answer) == (course and flipped[course[0]])


# ------------------------------------------------------------------------------------------------------- the records


def pair(current: str, prior: str, *, rows: tuple[dict[str, str], dict[str, str]] = ({}, {}), **options: Any) -> Any:
    """What `mine` makes of the second of two studies."""
    data = [
        {"study_id": name, "patient_id": "P", "study_time": day, "report": report, "image_path": f"{name}.png", **row}
        for name, day, report, row in zip(("a", "b"), ("20310304", "20310306"), (prior, current), rows, strict=True)
    ]
    mapping = columns.guess_columns(list({name: None for row in data for name in row}))
    units = miner.by_study((Row("f", line, row) for line, row in enumerate(data, 2)), mapping=mapping)
    return miner.mine(list(units)[1], Settings(mapping, tasks.Options(thinned=False, **options)))


def test_only_temporal_records_show_the_film_before() -> None:
    done = pair("Large left effusion.", "Small left effusion.")
    by_task = {record["task"]: record for record in done.records}
    both = by_task.pop("temporal")
    assert both["prior_study_id"] == "a"
    assert both["prior_report"] == "Small left effusion."
    assert both["images"] == [{"path": "b.png", "role": "current"}, {"path": "a.png", "role": "prior"}]
    (before,) = [step for step in both["steps"] if step.get("film") == "prior"]
    assert "small left" in before["text"]
    assert [both["prior_report"][start:end] for start, end in before["evidence"]] == ["effusion"]
    assert by_task
    for record in by_task.values():
        assert not {"prior_report", "prior_study_id"} & record.keys()
        assert record["images"] == ["b.png"]


def test_a_prior_of_another_split_or_without_a_usable_report_is_left_alone() -> None:
    other = pair("Large left effusion.", "Small left effusion.", rows=({"split": "train"}, {"split": "test"}))
    assert other.counts[f"left out/temporal/{miner.OTHER_SPLIT}"] == 1
    foot = pair("Large left effusion.", "LEFT ANKLE, THREE VIEWS. There is an oblique fracture of the distal fibula.")
    assert foot.counts[f"left out/temporal/{miner.PRIOR_REJECTED}"] == 1
    assert not [record for result in (other, foot) for record in result.records if record["task"] == "temporal"]


def judged(steps: list[Any], **fields: Any) -> tuple[list[str], list[str]]:
    """The steps that `refine` keeps of a chain about a left effusion, and the checks that found something."""
    record = {
        "id": "q",
        "study_id": "b",
        "task": "temporal",
        "question": "How has the left pleural effusion changed since the earlier film?",
        "options": ["Improved", "Stable", "Worse"],
        "answer": "C",
        "report": "Large left pleural effusion. No pneumothorax.",
        "prior_report": "Small left pleural effusion.",
        "steps": steps,
        **fields,
    }
    rows = [Row("f", 1, record)]
    done = study.refine(
        Group("b", rows), checks=tuple(CHECKS), silence="normal", max_steps=24, max_chars=6000, config="0" * 12
    )
    if done.rejects:
        return [], [reason["check"] for reason in done.rejects[0].reasons]
    return [step["text"] for step in done.records[0]["steps"]], [key for key in done.counts if "/" in key]


BEFORE = {"text": "On the film before, there is a small left pleural effusion.", "kind": "observe", "film": "prior"}
NOW = {"text": "On the current film, there is a large left pleural effusion.", "kind": "observe"}
SO = {"text": "More of it than before means that it is worse: the answer is C, Worse.", "kind": "conclude"}


def test_what_each_film_shows_is_held_against_its_own_report() -> None:
    whole = [step["text"] for step in (BEFORE, NOW, SO)]
    assert judged([BEFORE, NOW, SO]) == (whole, [])
    invented = {**BEFORE, "text": "On the film before, there is a moderate left pleural effusion."}
    assert judged([invented, BEFORE, NOW, SO]) == (whole, ["mended/claims"])
    assert judged([{**BEFORE, "film": "current"}, NOW, SO]) == ([], ["claims", "conclusion"])
    assert judged([BEFORE, SO])[1] == ["conclusion"]
    assert judged([BEFORE, NOW, {**SO, "text": "So the answer is A, Improved."}], answer="A")[1] == ["conclusion"]


def test_a_film_before_without_a_report_or_in_another_task_is_not_told_of() -> None:
    assert judged([BEFORE, NOW, SO], prior_report=None)[1] == ["claims", "conclusion"]
    yes = {"text": "So the film does show a left pleural effusion, and the answer is A, Yes.", "kind": "conclude"}
    question = {"question": "Is there a left pleural effusion?", "options": ["Yes", "No"], "answer": "A"}
    kept, found = judged([BEFORE, NOW, yes], task="binary", **question)
    assert kept == [NOW["text"], yes["text"]]
    assert found == ["mended/prior"]


def test_the_same_words_may_be_true_of_both_films() -> None:
    text = "There is a small left pleural effusion."
    both = [{**BEFORE, "text": text}, {**NOW, "text": text}, {"text": "The answer is B, Stable.", "kind": "conclude"}]
    assert judged(both, report="Small left pleural effusion.", answer="B")[0] == [
        text,
        text,
        "The answer is B, Stable.",
    ]


@pytest.mark.parametrize("name", [name for name, manner in MANNERS.items() if manner.asked and not manner.device])
def test_sentences_about_two_films_are_read_back(name: str) -> None:
    manner = MANNERS[name]
    sides = [None, "left"] if manner.side != "own" or "{which}" in manner.noun else [None]
    for side in sides:
        details = Details(name, side=side)
        for kind in ("before_present", "before_absent", "now_present", "now_absent", "new", "resolved"):
            there, change = kind.endswith("present") or kind == "new", kind if kind in ("new", "resolved") else None
            for sentence in (
                wording.changed(details, kind) if change else wording.on_film(details, kind, kind.endswith("present"))
            ):
                read_back = [(f.name, f.status, f.certainty, f.side, f.change) for f in claims(sentence)]
                wanted = (name, "present" if there else "absent", "definite", side, change)
                if change or "enlarged" not in sentence:
                    assert read_back == [wanted], sentence


def test_shards_and_processes_change_nothing(cxr: Run, tmp_path: Path) -> None:
    source = tmp_path / "patients.csv"
    grades = ("Small", "Moderate", "Large")
    with source.open("w", encoding="utf-8") as file:
        file.write("study_id,patient_id,study_time,report\n")
        for number in range(120):
            file.write(f"S{number},P{number // 4},{4 - number % 4},{grades[number % 3]} left pleural effusion.\n")
    arguments = ("mine", str(source), "--tasks", "temporal")
    whole = cxr(*arguments).stdout
    assert len(whole.splitlines()) == 90
    assert cxr(*arguments, "--jobs", "2").stdout == whole
    parts = [cxr(*arguments, "--shard", f"{number}/2").stdout.splitlines() for number in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole.splitlines())
    assert all(parts)


def test_a_run_that_was_stopped_goes_on_with_the_same_priors(tmp_path: Path) -> None:
    source, out = tmp_path / "patients.jsonl", tmp_path / "out.jsonl"
    words = ("decreased", "increased", "not changed")
    with source.open("w", encoding="utf-8") as file:
        for number in range(60):
            row = {"study_id": f"S{number}", "patient_id": f"P{number // 5}", "study_time": str(number)}
            report = f"The left pleural effusion has {words[number % 3]}."
            file.write(json.dumps(row | {"report": report}) + "\n")
    mapping = columns.guess_columns(["study_id", "patient_id", "study_time", "report"])
    settings = Settings(mapping, tasks.Options(tasks=("temporal",)))
    stop_at = "S33"

    def work(unit: Any) -> Any:
        if unit.key == stop_at:
            raise KeyboardInterrupt
        return miner.mine(unit, settings)

    def mined(output: Path) -> Any:
        units = partial(miner.by_study, mapping=mapping)
        return runner.run(Input(source), work, stage="mine", units=units, output=output, checkpoint_seconds=0)

    with pytest.raises(KeyboardInterrupt):
        mined(out)
    stop_at = ""
    assert mined(out).resumed == 33
    assert mined(tmp_path / "whole.jsonl").records == 48
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_images_that_the_input_calls_a_priors_are_in_temporal_records_only() -> None:
    images = [{"path": "now.png", "view": "PA", "role": "current"}, {"path": "before.png", "role": "prior"}]
    row = {
        "study_id": "S",
        "prior_study_id": "R",
        "report": "The left pleural effusion has increased.",
        "images": images,
    }
    settings = Settings(columns.guess_columns(list(row), row), tasks.Options(tasks=("anomaly", "temporal")))
    one_film, two_films = miner.mine(Row("f", 1, row), settings).records
    assert one_film["images"] == [{"path": "now.png", "view": "PA"}]
    assert two_films["images"] == images


# -------------------------------------------------------------------------------------------------------------- views


def names(result: Any) -> set[str]:
    """What is asked about in yes-no questions."""
    return {record["id"].split("-binary-")[1][:-5] for record in result.records if record["task"] == "binary"}


def one(report: str, **options: Any) -> Any:
    row = {"study_id": "S1", "report": report, "image_path": "a.png", **options.pop("row", {})}
    asked = [
        miner.mine(
            Row("f", 2, {**row, "study_id": f"S{number}"}),
            Settings(columns.guess_columns(list(row)), tasks.Options(thinned=False, **options)),
        )
        for number in range(30)
    ]
    asked[0].records = [record for result in asked for record in result.records]
    return asked[0]


BONES = "Compression fracture of the T8 vertebral body. Small left pleural effusion."


@pytest.mark.parametrize(("view", "is_asked"), [("PA", False), ("LAT", True), ("", True)])
def test_what_shows_on_the_lateral_only_is_asked_where_there_is_one(view: str, is_asked: bool) -> None:
    done = one(BONES, row={"view": view})
    assert ("vertebral-fracture" in names(done)) is is_asked
    told = {
        finding["name"] for record in done.records for step in record["steps"] for finding in step.get("findings", ())
    }
    assert ("vertebral fracture" in told) is is_asked
    assert "pleural effusion" in told


def test_the_reports_word_tells_what_shows_on_the_lateral() -> None:
    report = "Lung opacity seen only on the lateral view. Blunting of the posterior costophrenic angle. Scoliosis."
    assert names(one(report, row={"view": "PA"})) & {"lung-opacity", "blunted-costophrenic-angle"} == set()
    assert {"lung-opacity", "blunted-costophrenic-angle"} <= names(one(report))


@pytest.mark.parametrize(
    ("report", "view", "sentence"),
    [
        ("Moderate cardiomegaly.", "AP", "This is an AP film. "),
        ("PORTABLE AP CHEST. Moderate cardiomegaly.", "", "This is a portable AP film. "),
        ("AP portable view. The heart is normal in size.", "", "This is a portable AP film. "),
        ("Bedside film. Moderate cardiomegaly.", "", "This is a portable film. "),
    ],
)
def test_heart_size_on_ap_films_is_asked_with_the_view_told(report: str, view: str, sentence: str) -> None:
    silent = one(report, row={"view": view})
    assert "cardiomegaly" not in names(silent)
    assert sum(number for key, number in silent.counts.items() if "AP or portable" in key) >= 1
    told = one(report, row={"view": view}, tell_view=True)
    assert "cardiomegaly" in names(told)
    assert all(record["question"].startswith(sentence) for record in told.records)


@pytest.mark.parametrize(
    "report", ["Moderate cardiomegaly. Clear AP window.", "PA and lateral views. Mild cardiomegaly."]
)
def test_heart_size_is_asked_as_ever_of_other_films(report: str) -> None:
    assert "cardiomegaly" in names(one(report))


def test_refine_reads_questions_that_tell_the_view(cxr: Run, tmp_path: Path) -> None:
    mined = tmp_path / "q.jsonl"
    cxr("mine", str(ROOT / "examples" / "reports.csv"), "--tell-view", "-o", str(mined))
    done = cxr("refine", str(mined))
    plain = cxr("refine", "-", stdin=cxr("mine", str(ROOT / "examples" / "reports.csv")).stdout)
    assert done.stdout.count('"question":"This is') > 30
    assert done.stdout.count("The current study has") > 3
    assert " 0 rejected" in done.stderr
    assert " 0 rejected" in plain.stderr


def test_the_table_tells_why_something_is_not_asked(cxr: Run) -> None:
    done = cxr("mine", str(ROOT / "examples" / "reports.csv"))
    lines = [" ".join(line.split()) for line in done.stderr.splitlines()]
    assert "not asked because studies findings" in lines
    assert any(line.startswith("no question about change: its sides went different ways") for line in lines)
