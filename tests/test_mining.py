"""What `cxr mine` asks, and what its chains say: every finding's wording, the examples, small reports."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ROOT, Run

from cxr_reason import columns, records, runner
from cxr_reason.cli import main
from cxr_reason.mining import miner, sampling, sights, stage, tally, tasks, wording
from cxr_reason.mining.dice import Dice, coin
from cxr_reason.mining.language import CONCLUSIONS, DEFINITIONS, MANNERS, PLANS, QUESTIONS, REGIONS, SENTENCES
from cxr_reason.mining.settings import Settings
from cxr_reason.mining.tasks import Options
from cxr_reason.mining.wording import Details
from cxr_reason.radiology import LEXICON, Finding, claims, read, verify
from cxr_reason.records import TASKS
from cxr_reason.streams import Input, Row

EXAMPLES = ROOT / "examples" / "reports.csv"
Record = dict[str, Any]


def mined(report: str, *, row: dict[str, Any] | None = None, **options: Any) -> list[Record]:
    """The records of one report."""
    result = result_of(report, row=row, **options)
    assert not result.rejects, result.rejects
    return result.records


def result_of(report: str, *, row: dict[str, Any] | None = None, study: str = "S1", **options: Any) -> Any:
    data = {"study_id": study, "report": report, **(row or {})}
    own = {name: options.pop(name) for name in list(options) if name in Settings.__dataclass_fields__}
    settings = Settings(columns.guess_columns(list(data), data), Options(**options), **own)
    return miner.mine(Row("reports.csv", 2, data), settings)


def studies(path: Path = EXAMPLES) -> Iterator[tuple[Any, dict[str, str]]]:
    source = Input(path)
    mapping = columns.guess_columns(source.header(), source.sample())
    for unit in miner.by_study(source.rows(), mapping=mapping):
        if not isinstance(unit, Row) or unit.data is not None:
            yield unit, mapping


@pytest.fixture(scope="module", params=[0, 1], ids=["seed 0", "seed 1"])
def examples(request: pytest.FixtureRequest) -> list[Record]:
    """All questions of the examples, none thinned out, open ones too."""
    options = Options(open_ended=True, thinned=False, seed=request.param)
    return [record for unit, mapping in studies() for record in miner.mine(unit, Settings(mapping, options)).records]


def right(record: Record) -> str:
    """The text of the right answer."""
    return record["options"][ord(record["answer"]) - ord("A")] if record["options"] else record["answer"]


def told(record: Record, kind: str = "observe") -> list[dict[str, Any]]:
    return [finding for step in record["steps"] if step["kind"] == kind for finding in step.get("findings", ())]


# ---------------------------------------------------------------------------------------------------------- wording


@pytest.mark.parametrize("name", MANNERS)
def test_sentences_are_read_back_as_what_they_say(name: str) -> None:
    manner = MANNERS[name]
    if not manner.told:
        return
    region_name = name.endswith("abnormality")
    # The engine doesn't know "abscesses", so a sentence about several can't be checked by it.
    sides = {"direction": [None, "left", "right"], "own": [None]}.get(manner.side, [None, "left", "right", "bilateral"])
    if "{which}" in manner.noun:
        sides = [None, "left", "right", "bilateral"]
    if name == "lung abscess":
        sides.remove("bilateral")
    severities = [None] if manner.device or not manner.asked else [None, "mild", "moderate-severe"]
    for side, severity in itertools.product(sides, severities):
        details = Details(name, side=side, severity=severity)
        if not region_name:
            reads_back(wording.present(details), details, "present", "definite")
            for certainty in ("probable", "possible", "differential"):
                reads_back(wording.hedged(details, certainty), details, "uncertain", certainty)
        if severity is None and side is None:
            reads_back(wording.absent(details), details, "absent", "definite")


def side_of(finding: Finding) -> str | None:
    """Its side, where it isn't in the name itself."""
    return finding.side if finding.name != "dextrocardia" else None


def reads_back(sentences: tuple[str, ...], details: Details, status: str, certainty: str) -> None:
    assert sentences
    wanted = [(details.name, status, certainty, details.side, details.severity, details.bound)]
    for sentence in sentences:
        read_back = [(f.name, f.status, f.certainty, side_of(f), f.severity, f.bound) for f in claims(sentence)]
        assert read_back == wanted, sentence


@pytest.mark.parametrize("site", ["upper lobe", "lower lobe", "base", "apex", "perihilar", "retrocardiac", "mid lung"])
@pytest.mark.parametrize("name", ["lung opacity", "lung nodule", "atelectasis", "pneumothorax", "consolidation"])
@pytest.mark.parametrize("side", [None, "left", "bilateral"])
def test_places_are_read_back(name: str, site: str, side: str | None) -> None:
    for sentence in wording.present(Details(name, side=side, site=site)):
        assert [(f.name, f.side, f.site) for f in claims(sentence)] == [(name, side, site)], sentence


@pytest.mark.parametrize(
    ("bound", "name"),
    [
        ("gross", "cardiomegaly"),
        ("gross", "bone abnormality"),
        ("large", "pleural effusion"),
        ("focal", "consolidation"),
        ("acute", "fracture"),
        ("definite", "pneumonia"),
    ],
)
def test_bounds_are_kept(bound: str, name: str) -> None:
    reads_back(wording.absent(Details(name, bound=bound)), Details(name, bound=bound), "absent", "definite")


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (Details("pleural effusion", side="left", severity="mild"), "a small left pleural effusion"),
        (Details("bulla", side="bilateral", severity="mild-moderate"), "small to moderate bilateral bullae"),
        (Details("lung nodule", side="left", site="upper lobe", size="8 mm"), "an 8 mm left upper lobe nodule"),
        (Details("granuloma", calcified=True, several=True), "calcified granulomas"),
        (Details("atelectasis", side="bilateral", site="base"), "bibasilar atelectasis"),
        (Details("lung opacity", side="left", site="lingula"), "a lingular opacity"),
        (Details("lung opacity", side="left", site="retrocardiac"), "a retrocardiac opacity on the left"),
        (Details("fracture", side="left", acuity="old"), "an old fracture on the left"),
        (Details("elevated hemidiaphragm", side="right"), "elevation of the right hemidiaphragm"),
        (Details("blunted costophrenic angle", side="bilateral"), "blunting of both costophrenic angles"),
        (Details("blunted costophrenic angle"), "blunting of a costophrenic angle"),
        (Details("hyperinflation", side="bilateral", severity="mild"), "mild hyperinflation"),
        (Details("cardiomegaly", severity="severe"), "severe cardiomegaly"),
        (Details("low lung volumes", severity="mild"), "mildly low lung volumes"),
        (Details("scoliosis", side="left"), "scoliosis to the left"),
        (Details("lung mass", side="right", site="apex", several=True), "right apical masses"),
    ],
)  # fmt: skip
def test_noun_phrases(details: Details, text: str) -> None:
    assert wording.phrase(details).text == text


def test_a_device_has_its_tip() -> None:
    tube = Details("endotracheal tube", tip="4 cm above the carina")
    line = Details("picc", side="right", tip="lower SVC")
    assert "An endotracheal tube is in place, its tip 4 cm above the carina." in wording.present(tube)
    assert "A right PICC line is in place, its tip in the lower SVC." in wording.present(line)


@pytest.mark.parametrize("tip", ["XXXX", "the ___ vein", "[**Hospital1**]", "a" * 200])
def test_what_is_masked_or_no_place_is_left_out(tip: str) -> None:
    finding = read("A right PICC line ends in the SVC.").findings[0]
    finding.device = {"type": "picc", "tip": tip}
    assert wording.details_of(finding, "A right PICC line ends in the SVC.").tip is None


def test_every_finding_can_be_said_and_looked_for() -> None:
    assert set(MANNERS) == set(LEXICON.findings)
    for manner in MANNERS.values():
        assert manner.region in REGIONS
        assert manner.sign or not manner.asked
        assert not manner.asked or min(manner.rates) > 0


def test_plans_and_conclusions_claim_nothing_of_their_own() -> None:
    for region in REGIONS.values():
        for sentence in region.look:
            assert [f.name for f in claims(sentence) if f.status == "present"] in ([], ["support device"]), sentence
    for kind in ("normal", "abnormal", "doubtful", "discounted", "improved", "stable", "worse", "gone", "appeared"):
        for template in CONCLUSIONS[kind]:
            assert not [f for f in claims(template.format(letter="A", answer="Stable")) if f.status == "present"]


def test_templates_have_only_slots_that_are_filled() -> None:
    slots = {"np", "Np", "n", "is", "Is", "has", "Has", "letter", "answer", "places", "tip"}
    for table in (SENTENCES, PLANS, CONCLUSIONS, QUESTIONS, DEFINITIONS):
        for templates in table.values():
            assert {slot for text in templates for slot in re.findall(r"{(\w*)}", text)} <= slots


# -------------------------------------------------------------------------------------------------------- questions


def test_records_are_whole(examples: list[Record]) -> None:
    assert {record["task"] for record in examples} == set(TASKS)
    for record in examples:
        assert records.check(record) == []
        assert record["steps"][0]["kind"] == "plan"
        assert record["steps"][-1]["kind"] == "conclude"
        assert told(record)
    identities = [record["id"] for record in examples]
    assert len(set(identities)) == len(identities)


def test_nothing_is_asked_or_offered_that_is_related_to_what_is_there(examples: list[Record]) -> None:
    checked = 0
    for record in examples:
        there = {
            fact.name
            for fact in read(record["report"]).facts()
            if fact.status != "absent" and fact.time != "hypothetical"
        }
        wrong: list[str] = []
        if record["task"] == "binary" and right(record) == "No":
            wrong = [finding["name"] for finding in told(record, "conclude")]
        elif record["task"] == "single" and record["options"]:
            options = [option for option in record["options"] if option != right(record)]
            wrong = [claim.name for option in options for claim in claims(option)]
            assert len(wrong) == 3
        for name in wrong:
            checked += 1
            assert not any(LEXICON.related(name, other) for other in there), record["id"]
    assert checked > 50


def test_right_options_hold_and_wrong_ones_do_not(examples: list[Record]) -> None:
    for record in examples:
        if record["task"] not in ("single", "multiple") or not record["options"]:
            continue
        for option in record["options"]:
            verdict = verify(option, record["report"], silence="unknown").verdict
            assert (verdict == "supported") == (option == right(record)), (record["id"], option, verdict)


def test_every_claim_of_a_chain_is_borne_out_by_its_report(examples: list[Record]) -> None:
    for record in examples:
        for step in record["steps"]:
            if step["kind"] != "observe":
                continue
            report = record["prior_report" if step.get("film") == "prior" else "report"]
            assert step["basis"] in ("stated", "region")
            assert all(0 <= start < end <= len(report) for start, end in step["evidence"])
            verdict = verify(step["text"], report, silence="unknown")
            assert verdict.verdict == "supported", (record["id"], step["text"], verdict)


def test_steps_list_what_their_text_claims(examples: list[Record]) -> None:
    for record in examples:
        for step in record["steps"]:
            if step["kind"] == "observe":
                said = {(f["name"], f["status"], f["certainty"], f.get("side")) for f in step["findings"]}
                read_back = {(f.name, f.status, f.certainty, side_of(f)) for f in claims(step["text"])}
                assert said == read_back, step["text"]


def test_an_abnormal_film_has_all_its_findings_told(examples: list[Record]) -> None:
    for record in examples:
        if record["task"] == "anomaly" and right(record) == "Abnormal":
            view = sights.look(read(record["report"]))
            names = {finding["name"] for finding in told(record) if finding["status"] != "absent"}
            assert names == {sight.name for sight in view.seen + view.suspected}


def test_chains_hold_no_mask_no_prior_and_no_repetition(examples: list[Record]) -> None:
    for record in examples:
        texts = [step["text"] for step in record["steps"]]
        assert len(set(texts)) == len(texts)
        assert not re.search(r"XX|__|\[\*\*|\breport|\bprior|\bprevious|{|}|  |\.\.", " ".join(texts)), texts
        assert [text for text in texts if not text[0].isupper() or text[-1] != "."] == []


def test_counting_option_parts_gives_nothing_away(examples: list[Record]) -> None:
    sets = [record["options"] for record in examples if record["task"] == "multiple" and record["options"]]
    assert sets
    for options in sets:
        parts = Counter(part for option in options for part in option.split("; "))
        assert set(parts.values()) == {2}


def test_letters_are_spread() -> None:
    letters = Counter()
    for number in range(400):
        letters.update(
            record["answer"] for record in mined("Small left effusion.", study=f"S{number}", tasks=("anomaly",))
        )
    assert set(letters) == {"A", "B"}
    assert min(letters.values()) > 150


# ------------------------------------------------------------------------------------------------------- the traps


def test_silence_is_asked_about_only_on_request_and_never_worded_as_an_observation() -> None:
    report = "Degenerative changes of the thoracic spine."

    def denials(policy: str) -> list[Record]:
        made = [
            record
            for number in range(60)
            for record in mined(report, study=f"T{number}", negatives=policy, thinned=False, tasks=("binary",))
        ]
        return [record for record in made if right(record) == "No"]

    assert denials("stated") == denials("region") == []
    silent = denials("silent")
    assert silent
    for record in silent:
        (finding,) = told(record)
        assert LEXICON.findings[finding["name"]].reported
        assert LEXICON.findings[finding["name"]].region not in ("bones", "devices", "upper abdomen", "aorta")
        (step,) = [step for step in record["steps"] if step["kind"] == "observe"]
        assert (step["basis"], step["evidence"], finding["certainty"]) == ("silent", [], "probable")
        assert step["text"].startswith("Nothing ")


def test_a_bounded_absence_is_not_asked_about_and_keeps_its_bound() -> None:
    report = "The heart is normal in size. No large pleural effusion. No focal consolidation."
    made = [r for number in range(40) for r in mined(report, study=f"S{number}", thinned=False)]
    asked = {f["name"] for r in made if r["task"] == "binary" for f in told(r, "conclude")}
    assert asked == {"cardiomegaly"}
    bounds = {(f["name"], f.get("bound")) for r in made if r["task"] == "anomaly" for f in told(r)}
    assert {("pleural effusion", "large"), ("consolidation", "focal")} <= bounds
    assert not {("pleural effusion", None), ("consolidation", None)} & bounds


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        ("Probable left lower lobe pneumonia.", ("probable", "pneumonia", "left")),
        ("There may be a small right pleural effusion.", ("possible", "pleural effusion", "right")),
    ],
)
def test_hedges_keep_their_grade(report: str, sentence: tuple[str, str, str]) -> None:
    (record,) = mined(report, tasks=("anomaly",))
    assert right(record) == "Abnormal"
    assert [(f["certainty"], f["name"], f["side"]) for f in told(record)] == [sentence]
    assert all(finding["status"] == "uncertain" for finding in told(record))


def test_competing_findings_stay_competing() -> None:
    (record,) = mined("Left basilar opacity, atelectasis versus pneumonia.", tasks=("anomaly",))
    step = next(step for step in record["steps"] if "versus" in step["text"])
    assert {(f["name"], f["certainty"]) for f in step["findings"]} == {
        ("atelectasis", "differential"),
        ("pneumonia", "differential"),
    }


def test_what_is_uncertain_is_excluded_or_counted_as_asked() -> None:
    report = "Possible left pneumonia. The heart is normal in size."

    def answers(policy: str) -> set[str]:
        made = [
            record
            for number in range(80)
            for record in mined(
                report, study=f"S{number}", uncertain=policy, thinned=False, tasks=("binary", "anomaly")
            )
        ]
        return {right(r) for r in made if "pneumonia" in r["id"]}

    assert answers("exclude") == set()
    assert answers("present") == {"Yes"}
    assert answers("absent") == {"No"}


def test_a_contradiction_is_asked_about_by_no_question() -> None:
    report = "FINDINGS: Small right pleural effusion. The heart is enlarged.\nIMPRESSION: No pleural effusion."
    for record in mined(report, thinned=False, open_ended=True):
        names = {finding["name"] for finding in told(record) + told(record, "conclude")}
        assert "pleural effusion" not in names


def test_history_is_never_told() -> None:
    for record in mined("INDICATION: Pneumonia.\nFINDINGS: History of pneumothorax. Mild cardiomegaly.", thinned=False):
        assert {"pneumonia", "pneumothorax"}.isdisjoint(finding["name"] for finding in told(record))


def test_usual_signs_are_not_observed() -> None:
    (record,) = mined("Moderate left pleural effusion.", tasks=("anomaly",))
    assert [finding["name"] for finding in told(record)] == ["pleural effusion"]


def test_a_normal_chest_denies_nothing_chronic() -> None:
    for number in range(40):
        for record in mined("Normal chest.", study=f"S{number}", thinned=False, tasks=("binary",)):
            name = told(record, "conclude")[0]["name"]
            assert LEXICON.findings[name].acute


@pytest.mark.parametrize("check", miner.REJECTIONS)
def test_what_is_not_a_report_is_rejected_in_words(check: str) -> None:
    texts = {
        "empty": "",
        "language": "Das Herz ist nicht vergrößert. Kein Erguss, kein Pneumothorax. Die Lunge ist frei.",
        "not-chest": "LEFT ANKLE, THREE VIEWS. There is an oblique fracture of the distal fibula.",
        "not-understood": "See dictated report.",
        "no-finding": "Stable chest.",
    }
    result = result_of(texts[check])
    assert result.records == []
    assert [reason["check"] for reject in result.rejects for reason in reject.reasons] == [check]
    assert result.rejects[0].reasons[0]["message"].endswith(".")


# -------------------------------------------------------------------------------------------------------- the tasks


def test_definitions_decide_and_are_said() -> None:
    report = "A right PICC line is in place. The lungs are clear. The heart is normal in size. No acute disease."
    answers = {name: mined(report, tasks=("anomaly",), definition=name)[0] for name in DEFINITIONS}
    assert {name: right(record) for name, record in answers.items()} == {
        "any": "Abnormal",
        "chexpert": "Normal",
        "acute": "Normal",
    }
    assert "evice" in answers["any"]["question"]
    assert "acute" in answers["acute"]["question"]
    assert {entry["definition"] for r in answers.values() for entry in r["provenance"]} == set(DEFINITIONS)


PRIOR = {"prior_study_id": "S0"}


@pytest.mark.parametrize(
    ("report", "answer"),
    [
        ("The left pleural effusion has decreased.", "Improved"),
        ("The left pleural effusion is unchanged.", "Stable"),
        ("The left pleural effusion has increased.", "Worse"),
    ],
)
def test_temporal_questions_follow_the_reports_own_words(report: str, answer: str) -> None:
    (record,) = mined(report, row=PRIOR, tasks=("temporal",))
    assert right(record) == answer
    assert sorted(record["options"]) == ["Improved", "Stable", "Worse"]
    assert "pleural effusion" in record["question"]
    assert told(record)[0]["change"] == {"Improved": "better", "Stable": "stable", "Worse": "worse"}[answer]


@pytest.mark.parametrize(
    ("report", "row"),
    [
        ("The left pleural effusion has decreased.", {}),
        ("The left pleural effusion has increased. The right pleural effusion has decreased.", PRIOR),
        ("Stable chest. Small left pleural effusion.", PRIOR),
        ("Small left pleural effusion.", PRIOR),
    ],
)
def test_no_temporal_question_without_a_prior_or_one_direction(report: str, row: dict[str, str]) -> None:
    assert not [record for record in result_of(report, row=row).records if record["task"] == "temporal"]


def test_change_is_told_in_temporal_questions_only() -> None:
    for record in mined("The left pleural effusion has increased.", row=PRIOR, thinned=False):
        assert any("change" in finding for finding in told(record)) == (record["task"] == "temporal")


def test_open_questions_list_what_is_there() -> None:
    made = mined("Small left pleural effusion. Mild cardiomegaly. No pneumothorax.", open_ended=True)
    (record,) = [record for record in made if record["task"] == "multiple" and record["options"] is None]
    assert record["answer"] == "small left pleural effusion; mild cardiomegaly"
    single = mined("Small left pleural effusion. No pneumothorax.", open_ended=True, tasks=("single",))
    assert [record["answer"] for record in single if record["options"] is None] == ["small left pleural effusion"]


def test_yes_and_no_are_kept_alike_where_reports_are_as_the_lexicon_expects() -> None:
    for name, manner in MANNERS.items():
        shares = tasks._shares(name, "stated")
        if shares:
            there, denied = manner.rates
            assert there * shares["yes"] == pytest.approx(denied * shares["no"])
    hits = sum(coin(number * 0x9E3779B97F4A7C15 % 2**64, "yes", "pneumonia") < 0.3 for number in range(10_000))
    assert 2_800 < hits < 3_200


# ------------------------------------------------------------------------------------------------------ purity, input


def test_a_study_gives_the_same_whatever_comes_before_it() -> None:
    units = list(studies())
    settings = Settings(units[0][1])
    forwards = [miner.mine(unit, settings).records for unit, _ in units]
    backwards = [miner.mine(unit, settings).records for unit, _ in reversed(units)]
    assert forwards == backwards[::-1]
    assert [records.dumps(r) for made in forwards for r in made] == [
        records.dumps(r) for unit, _ in units for r in miner.mine(unit, settings).records
    ]


def test_seeds_differ() -> None:
    units = list(studies())
    made = [
        [r["id"] for unit, mapping in units for r in miner.mine(unit, Settings(mapping, Options(seed=seed))).records]
        for seed in (0, 1)
    ]
    assert made[0] != made[1]


def test_dice_are_fair_and_repeatable() -> None:
    rolls = Counter(Dice(number, "test").roll(4) for number in range(4_000))
    assert all(900 < count < 1_100 for count in rolls.values())
    assert Dice(7, "a").shuffled(range(20)) == Dice(7, "a").shuffled(range(20)) != list(range(20))


def test_rows_of_a_study_become_its_images() -> None:
    mapping = {"study_id": "study", "report": "text", "images": "path", "view": "view"}
    rows = [
        Row("f", number, {"study": "S1", "text": "Small left effusion.", "path": path, "view": view, "site": "east"})
        for number, (path, view) in enumerate([("a.png", "PA"), ("b.png", "LATERAL")])
    ]
    (group,) = miner.by_study(iter(rows), mapping=mapping)
    result = miner.mine(group, Settings(mapping, image_root="films"))
    assert result.records[0]["images"] == [
        {"path": "films/a.png", "view": "PA"},
        {"path": "films/b.png", "view": "LAT"},
    ]
    assert result.records[0]["site"] == "east"  # unknown columns pass through
    assert "text" not in result.records[0]


def test_splits_are_named_our_way_and_can_be_chosen() -> None:
    (record,) = mined("Small left effusion.", row={"split": "val"}, tasks=("anomaly",))
    assert record["split"] == "validate"
    assert result_of("Small left effusion.", row={"split": "val"}, split="train").records == []


def test_plain_normals_can_be_thinned_and_nothing_else() -> None:
    def kept(report: str) -> int:
        return sum(bool(result_of(report, study=f"S{n}", plain_normals=0.25).records) for n in range(400))

    assert 70 < kept("The heart is normal in size. The lungs are clear. No pleural effusion.") < 130
    assert kept("The heart is normal in size. The lungs are clear. Healed left rib fracture.") == 400


def test_findings_are_one_record_a_report() -> None:
    result = result_of("Small left effusion. No pneumothorax.", findings_only=True)
    (record,) = result.records
    assert records.check(record) == []
    assert record["labels"] == {"Pleural Effusion": 1, "Pneumothorax": 0}
    assert not {"question", "steps"} & set(record)


def test_the_table_counts_each_finding_once_a_report() -> None:
    counts: Counter[str] = Counter()
    for report in (
        "Small left effusion. Moderate right effusion.",
        "No effusion.",
        "Possible effusion.",
        "Clear lungs.",
    ):
        counts.update(tally.count(read(report), ()))
    rows = {row[0]: row[1:] for row in tally.rows(counts)}
    assert rows["pleural effusion"] == (1, 1, 1, 1, 0, 0)


# ------------------------------------------------------------------------------------------------------- the command


def test_jobs_and_shards_change_nothing(cxr: Run, tmp_path: Path) -> None:
    whole = cxr("mine", str(EXAMPLES)).stdout
    assert cxr("mine", str(EXAMPLES), "--jobs", "2").stdout == whole
    parts = [cxr("mine", str(EXAMPLES), "--shard", f"{i}/2").stdout.splitlines() for i in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole.splitlines())
    assert all(parts)


def test_per_finding_takes_the_smallest_hashes_of_each_cell(cxr: Run, tmp_path: Path) -> None:
    source = tmp_path / "reports.csv"
    lines = [f"S{n},{'Small left effusion.' if n % 3 else 'No effusion. No pneumothorax.'}\n" for n in range(60)]
    source.write_text("study_id,report\n" + "".join(lines))
    done = cxr("mine", str(source), "--per-finding", "4")
    assert done.returncode == 0, done.stderr
    cells = Counter(
        (r["task"], right(r), r["id"].split("-", 1)[1][:-5]) for r in map(json.loads, done.stdout.splitlines())
    )
    assert max(cells.values()) == 4
    assert not [r for r in map(json.loads, done.stdout.splitlines()) if "cell" in r]
    source.write_text("study_id,report\n" + "".join(reversed(lines)))
    again = cxr("mine", str(source), "--per-finding", "4").stdout
    assert sorted(again.splitlines()) == sorted(done.stdout.splitlines())
    assert cxr("mine", str(source), "--per-finding", "4", "--shard", "0/2").returncode == 2


def test_per_finding_writes_what_can_be_read_before_it_complains(cxr: Run, tmp_path: Path) -> None:
    source, output, rejects = tmp_path / "r.csv", tmp_path / "out.jsonl", tmp_path / "why.jsonl"
    rows = ["too,many,cells" if n % 2 else f"S{n},Small left pleural effusion." for n in range(20)]
    source.write_text("study_id,report\n" + "\n".join(rows) + "\n")
    done = cxr("mine", str(source), "--per-finding", "2", "-o", str(output), "--rejects", str(rejects))
    assert done.returncode == 3
    assert "Everything else is written" in done.stderr
    assert len(output.read_text().splitlines()) > 0
    assert len(rejects.read_text().splitlines()) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "r.csv", "why.jsonl"]


def test_per_finding_goes_on_with_all_questions_of_a_run_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / "r.csv", tmp_path / "out.jsonl"
    source.write_text("study_id,report\n" + "".join(f"S{n},Small left pleural effusion.\n" for n in range(20)))
    line = ["mine", str(source), "--per-finding", "2", "-o", str(output)]

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sampling, "cutoffs", killed)
        assert CliRunner().invoke(main, line).exit_code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl.questions.partial", "r.csv"]
    assert (tmp_path / "out.jsonl.questions.partial").stat().st_mode & 0o777 == 0o600
    assert CliRunner().invoke(main, line).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "r.csv"]


def test_per_finding_leaves_nothing_of_an_input_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("study_id,report\n")
    line = ["mine", str(tmp_path / "r.csv"), "--per-finding", "2", "-o", str(tmp_path / "out.jsonl")]
    assert CliRunner().invoke(main, line).exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_cutoffs_keep_the_given_number() -> None:
    rows = [Row("f", n, {"id": f"q{n}", "cell": f"binary/x/{'yes' if n % 2 else 'no'}"}) for n in range(50)]
    limits = sampling.cutoffs(rows, count=5, seed=0)
    kept = [record for row in rows for record in sampling.keep(row, cutoffs=limits, seed=0).records]
    assert len(kept) == 10


def test_the_command_tells_what_it_found(cxr: Run) -> None:
    done = cxr("mine", str(EXAMPLES))
    assert done.returncode == 0
    header = next(line for line in done.stderr.splitlines() if line.startswith("finding"))
    assert header.split() == ["finding", "present", "absent", "uncertain", "silent", "conflict", "questions"]
    assert "1 study rejected: language" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks", "guess"), "'guess' is none of"),
        (("--per-finding", "3", "--findings"), "--findings makes none"),
        (("--map", "report=nowhere"), "there is no column 'nowhere'"),
    ],
)
def test_usage_errors_say_what_is_wrong(cxr: Run, arguments: tuple[str, ...], message: str) -> None:
    done = cxr("mine", str(EXAMPLES), *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_table_without_reports_is_an_error_that_lists_its_columns(cxr: Run) -> None:
    done = cxr("mine", "-", stdin="study_id,colour\nS1,red\n")
    assert done.returncode == 1
    assert "Columns: study_id, colour" in done.stderr
    assert "--map report=" in done.stderr


def test_tasks_can_be_chosen(cxr: Run) -> None:
    for task in TASKS[:4]:
        made = [json.loads(line) for line in cxr("mine", str(EXAMPLES), "--tasks", task).stdout.splitlines()]
        assert {record["task"] for record in made} == {task}


@pytest.mark.parametrize(
    ("report", "unsaid"),
    [
        ("No gross focal opacity. Heart size is normal. The aorta is tortuous.", "gross"),
        ("No XXXX effusion. Heart size is normal. The aorta is tortuous.", "masked"),
        ("No new opacity. Heart size is normal. The aorta is tortuous.", "new"),
        ("The lungs are otherwise clear. The aorta is tortuous.", "other"),
        ("Opacity in the left mid lung. Midline retrocardiac opacity.", "retrocardiac opacity on the left"),
    ],
)
def test_what_no_reader_would_say_is_left_out(report: str, unsaid: str) -> None:
    for record in mined(report, tasks=("anomaly",)):
        assert not [step["text"] for step in record["steps"] if re.search(rf"\b{unsaid}", step["text"])]


def test_gross_denials_are_said_as_adverbs() -> None:
    made = mined("The lungs are grossly clear.", tasks=("anomaly",))
    said = [step["text"] for record in made for step in record["steps"]]
    assert any(re.search(r"\bgrossly (?:clear|normal)", text) for text in said)


def test_columns_and_counts_are_told_in_words(cxr: Run, tmp_path: Path) -> None:
    table = tmp_path / "r.csv"
    table.write_text("PatID,Geschlecht,Befund\nP1,W,The heart is enlarged.\n")
    done = cxr("mine", str(table), "--findings")
    assert "columns: patient_id=PatID, findings=Befund, sex=Geschlecht; no study_id" in done.stderr
    assert "1 record from 1 report\n" in done.stderr
    assert json.loads(done.stdout)["sex"] == "F"
    assert cxr("mine", str(table), "--findings", "-q").stderr == ""


def test_rows_of_a_study_already_met_are_told(cxr: Run, tmp_path: Path) -> None:
    """An accession that comes again is glued to its report, or merged into it: either must be seen."""
    table = tmp_path / "r.csv"
    rows = ["A,The heart is enlarged.,a.png", "A,The heart is enlarged.,a.png", "A,The heart is enlarged.,b.png"]
    rows += ["A,No pleural effusion.,c.png", "B,No pleural effusion.,d.png", "A1,,e.png"]
    table.write_text("study_id,report,image_path\n" + "\n".join(rows) + "\n")
    done = cxr("mine", str(table), "--findings")
    told = (
        "3 rows are of a study already met: 1 with the same report, 1 with another, which is joined to it, 1 repeated"
    )
    assert told in done.stderr
    first = json.loads(done.stdout.splitlines()[0])
    assert first["images"] == ["a.png", "b.png", "c.png"]
    assert first["report"] == "The heart is enlarged.\nNo pleural effusion."
    assert "already met" not in cxr("mine", str(EXAMPLES)).stderr


def test_the_table_of_findings_is_cut_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counter({f"finding/finding {n}/present": n + 1 for n in range(50)} | {"reports": 50})
    stage._tell(runner.Summary(records=1, counts=counts), [], asked=False, by_model=False)
    whole = capsys.readouterr().err
    assert whole.startswith("What the reports say\n")
    assert whole.count("finding ") > 50
    assert "questions" not in whole
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    stage._tell(runner.Summary(records=1, counts=counts), [], asked=True, by_model=False)
    cut = capsys.readouterr().err
    assert "What the reports say, and what is asked (the 20 most frequent; 2> FILE holds 30 more)" in cut
    assert cut.count("finding ") == 21


def test_an_image_root_is_put_before_a_path_once(cxr: Run, tmp_path: Path) -> None:
    table = tmp_path / "r.csv"
    table.write_text("study_id,report,image_path\nA,The heart is enlarged.,a.png\n")
    once = cxr("mine", str(table), "--findings", "--image-root", "films").stdout
    assert json.loads(once)["images"] == ["films/a.png"]
    (tmp_path / "r.jsonl").write_text(once)
    twice = cxr("mine", str(tmp_path / "r.jsonl"), "--findings", "--image-root", "./films/").stdout
    assert json.loads(twice)["images"] == ["films/a.png"]
