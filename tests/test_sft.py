"""`cxr sft`: real runs on phantoms that end with a model, are killed and go on, and refuse what would spoil them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import environment
from small_models import vision_model
from trainings import Done, Training, chains, read, torchrun, weights, write

from cxr_reason.errors import CxrError, TooManyFailures
from cxr_reason.films import Films
from cxr_reason.training import checkpoints, curves, data, settings
from cxr_reason.training.refusals import REFUSALS, Refusals

pytestmark = pytest.mark.xdist_group("sft")  # one worker draws the phantoms, once

CANARY = "quokkazebra"
STEPS = 8
SAVE = 2
COMMON = (
    *("--recipe", "tiny", "--max-steps", str(STEPS), "--batch-size", "4", "--save-every", str(SAVE)),
    *("--eval-every", "4", "--eval-items", "3", "--set", "eval_tokens=8"),
)
LORA = ("--lora", "4", "--set", "lora_dropout=0.3")
MODELS = {"full": (), "lora": LORA}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model/`` and ``films/chains.jsonl``, whose reports all hold the canary's name."""
    folder = tmp_path_factory.mktemp("sft")
    vision_model(folder / "model")
    records = read(chains(folder / "films", 24))
    for record in records:
        record["report"] += f" Exam read by Dr. {CANARY}."
        record["reader"] = CANARY
    write(folder / "films" / "chains.jsonl", records)
    return folder


@pytest.fixture(scope="module")
def records(world: Path) -> list[dict[str, Any]]:
    return read(world / "films" / "chains.jsonl")


def command(world: Path, out: Path, *more: str, records: Path | None = None) -> tuple[str, ...]:
    source = records or world / "films" / "chains.jsonl"
    return (str(source), "--model", str(world / "model"), "-o", str(out), *COMMON, *more)


@pytest.fixture(scope="module")
def whole(world: Path) -> dict[str, tuple[Path, Done]]:
    """A run of each kind that nobody disturbed, which also tells TensorBoard."""
    found = {}
    for kind, more in MODELS.items():
        out = world / f"whole-{kind}"
        tracked = ("--report-to", "tensorboard", "--set", "logging_steps=1")
        found[kind] = out, Training(world / f"log-{kind}", *command(world, out, *more, *tracked)).wait()
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)


# ------------------------------------------------------------------------------------------------------- a whole run


@pytest.mark.parametrize("kind", MODELS)
def test_a_run_ends_with_a_model_and_one_line(whole: dict[str, tuple[Path, Done]], kind: str) -> None:
    out, done = whole[kind]
    assert done.code == 0, done.stderr
    assert done.result["checkpoint"] == str(out)
    assert done.result["step"] == STEPS
    assert {"loss", "eval_loss", "eval_accuracy", "eval_radrscore", "train_loss"} <= done.result["metrics"].keys()
    told = checkpoints.read(out)
    assert told
    assert told["stage"] == "sft"
    assert told["config"]["learning_rate"] == 1e-3
    assert checkpoints.fault(out) is None
    assert not list(out.rglob("training_args.bin"))
    assert len(checkpoints.numbered(out)) <= 3  # two are kept, and the best
    assert {row["step"] for row in read(out / "metrics.jsonl")} == set(range(1, STEPS + 1))
    ElementTree.parse(out / "training.svg")


def test_the_model_loads_in_transformers_and_trl(whole: dict[str, tuple[Path, Done]]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl.trainer.utils import create_model_from_path

    out, _ = whole["full"]
    best = out / f"checkpoint-{whole['full'][1].result['best_step']}"
    saved = weights(best)
    for model in (AutoModelForImageTextToText.from_pretrained(out), create_model_from_path(str(out))):
        assert (model.lm_head.weight.detach().numpy() == saved["lm_head.weight"]).all()
    assert AutoProcessor.from_pretrained(out).chat_template


def test_an_adapter_goes_on_its_base_once(whole: dict[str, tuple[Path, Done]], world: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    out, done = whole["lora"]
    assert done.code == 0, done.stderr
    names = weights(out)
    assert names
    assert not any("visual" in name for name in names)
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(world / "model"), out)
    assert list(model.peft_config) == ["default"]
    assert sum("lora_A" in name for name, _ in model.named_parameters()) * 2 == len(names)


def test_a_finished_run_is_not_made_again(whole: dict[str, tuple[Path, Done]], world: Path) -> None:
    out, first = whole["full"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again = Training(world / "again", *command(world, out)).wait()
    assert (again.code, again.result) == (0, first.result)
    assert "trained already" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    other = Training(world / "other", *command(world, out, "--lr", "0.1")).wait()
    assert (other.code, other.stdout) == (1, "")
    assert "learning_rate changed" in other.stderr


def test_a_model_that_is_not_ours_is_not_written_over(world: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(world / "model", theirs)
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    for more in ((), ("--force",)):
        done = Training(tmp_path / "log", *command(world, theirs, *more)).wait()
        assert (done.code, "isn't from cxr" in done.stderr) == (1, True), done.stderr
        again = Training(tmp_path / "log", *command(world, world / "model", *more)).wait()
        assert (again.code, "the model that is trained lies in this folder" in again.stderr) == (1, True)
    assert {name: (theirs / name).read_bytes() for name in before} == before
    assert {path.name for path in theirs.iterdir() if path.is_file() and path.name != ".lock"} == set(before)


def test_starting_over_leaves_nothing_of_the_model_before(world: Path, tmp_path: Path) -> None:
    """An adapter's settings beside whole weights would be taken for the model."""
    out = tmp_path / "out"
    once = ("--max-steps", "1", "--eval-every", "0", "--force")
    for more in (LORA, ()):
        done = Training(tmp_path / "log", *command(world, out, *once, *more)).wait()
        assert done.code == 0, done.stderr
    assert not list(out.glob("adapter*"))
    assert checkpoints.fault(out) is None
    assert (out / "config.json").exists()
    checkpoints.withdraw(out)
    assert not [path for path in out.iterdir() if path.suffix in (".safetensors", ".json") and "config" in path.name]


def test_the_settings_beside_the_model_make_the_same_run(whole: dict[str, tuple[Path, Done]]) -> None:
    out, _ = whole["full"]
    told = checkpoints.read(out)
    assert told
    known = {"learning_rate", "max_steps", *told["config"]} - set(settings.own())
    again = settings.resolve("sft", known=known, file=settings.read_file(out / "sft.yaml"))
    assert again.as_dict() == told["config"]


def test_no_text_leaves_the_data(whole: dict[str, tuple[Path, Done]]) -> None:
    for out, done in whole.values():
        assert CANARY not in done.stdout + done.stderr
        files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != data.FOLDER]
        assert any("tfevents" in path.name for path in files)
        assert not [path for path in files if CANARY.encode() in path.read_bytes()]
        assert CANARY in (out / data.FOLDER / data.EVALUATE).read_text()  # or nothing was tested


def test_an_adapter_is_trained_on(whole: dict[str, tuple[Path, Done]], world: Path, tmp_path: Path) -> None:
    before, _ = whole["lora"]
    arguments = list(command(world, tmp_path / "out", "--max-steps", "2", "--gradient-checkpointing"))
    arguments[2] = str(before)
    done = Training(tmp_path / "log", *arguments).wait()
    assert done.code == 0, done.stderr
    ours, theirs = weights(tmp_path / "out"), weights(before)
    assert ours.keys() == theirs.keys()
    assert any((ours[name] != theirs[name]).any() for name in ours)
    told = checkpoints.read(tmp_path / "out")
    assert told
    assert told["parent"]["path"] == str(before)


def test_a_frozen_vision_tower_stays_as_it_is(world: Path, tmp_path: Path) -> None:
    done = Training(tmp_path / "log", *command(world, tmp_path / "out", "--max-steps", "2", "--freeze-vision")).wait()
    assert done.code == 0, done.stderr
    assert "the vision tower is frozen" in done.stderr
    before, after = weights(world / "model"), weights(tmp_path / "out")
    tower = [name for name in before if "visual" in name and "merger" not in name]
    assert tower
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert not moved & set(tower)
    assert any("merger" in name for name in moved)
    assert "lm_head.weight" in moved


@pytest.mark.vllm
@pytest.mark.xdist_group("models")  # one vLLM at a time
def test_the_model_loads_in_vllm(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert Training(tmp_path / "log", *command(world, out, "--max-steps", "2", "--eval-items", "0",
                                               "--best-metric", "loss")).wait().code == 0  # fmt: skip
    said = {}
    for engine in ("vllm", "transformers"):
        target = tmp_path / f"{engine}.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "cxr_reason", "infer", str(world / "films" / "chains.jsonl"), "--ckpt", str(out),
             "--engine", engine, "--limit", "6", "--max-tokens", "8", "-o", str(target)],
            capture_output=True, encoding="utf-8", env=environment(VLLM_CPU_KVCACHE_SPACE="1"), timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said[engine] = [record["prediction"] for record in read(target)]
    assert len(said["vllm"]) == 6
    assert said["vllm"] == said["transformers"]


# ---------------------------------------------------------------------------------------------------- kills and resumes


@pytest.mark.parametrize("kind", MODELS)
def test_a_run_that_is_killed_three_times_is_the_same_run(
    whole: dict[str, tuple[Path, Done]], world: Path, kind: str, tmp_path: Path
) -> None:
    dice = random.Random()  # anywhere: no seed may be a lucky one
    out, done = tmp_path / "out", None
    for turn in range(3):
        first = SAVE * turn + 1
        lines, delay = dice.randrange(first, first + SAVE), dice.random() * 0.2
        print(f"kill {turn}: after line {lines} and {delay:.3f} s")  # pytest shows it where the test fails
        condition = reached(out, lines)
        run = Training(tmp_path / f"log-{turn}", *command(world, out, *MODELS[kind]))
        killed = run.when(condition, kill=signal.SIGKILL, delay=delay)
        assert killed.code in (0, -signal.SIGKILL)
    done = Training(tmp_path / "log-last", *command(world, out, *MODELS[kind])).wait()
    assert done.code == 0, done.stderr
    undisturbed, _ = whole[kind]
    assert read(out / "metrics.jsonl") == read(undisturbed / "metrics.jsonl")
    assert_same_weights(out, undisturbed)


def reached(out: Path, lines: int) -> Any:
    """Whether a run that starts after this call has come so far: it begins with a ``metrics.jsonl`` of its own."""
    path = out / "metrics.jsonl"
    before = path.stat().st_ino if path.exists() else None
    return lambda: path.exists() and path.stat().st_ino != before and path.read_bytes().count(b"\n") >= lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_stops(
    whole: dict[str, tuple[Path, Done]], world: Path, number: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # The third line is logged at the third step: the fourth has an evaluation, which then is made up for.
    done = Training(tmp_path / "log", *command(world, out)).when(reached(out, 3), kill=number)
    assert (done.code, done.stdout) == (143, "")
    saved = checkpoints.newest(out)
    assert saved
    assert saved.step >= 3
    assert f"stopped at step {saved.step}" in done.stderr
    assert not checkpoints.read(out)  # it is no model yet
    if number == signal.SIGTERM:
        again = Training(tmp_path / "log", *command(world, out)).wait()
        assert again.code == 0, again.stderr
        assert read(out / "metrics.jsonl") == read(whole["full"][0] / "metrics.jsonl")
        assert f"going on from step {saved.step} " in again.stderr
        assert_same_weights(out, whole["full"][0])


def test_a_run_that_is_killed_at_its_very_end_takes_no_step_more(
    whole: dict[str, tuple[Path, Done]], world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole["full"][0], out)
    (out / checkpoints.FILE).unlink()
    (out / "model.safetensors").unlink()
    done = Training(tmp_path / "log", *command(world, out)).wait()
    assert done.code == 0, done.stderr
    assert done.result["step"] == STEPS
    assert_same_weights(out, whole["full"][0])


def test_a_broken_checkpoint_is_passed_over(whole: dict[str, tuple[Path, Done]], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole["full"][0], out)
    newest = checkpoints.newest(out)
    assert newest
    file = newest.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    second = checkpoints.newest(out)
    assert second
    assert second.step < newest.step
    assert f"{newest.path}: model.safetensors has" in capsys.readouterr().err
    (second.path / checkpoints.FILE).unlink()
    third = checkpoints.newest(out)
    assert third is None or third.step < second.step


def test_two_processes_refuse_with_one_voice(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    raw = write(tmp_path / "raw" / "raw.jsonl", [{**record, "provenance": []} for record in records])
    more = ("--image-root", str(world / "films"))
    done = torchrun("sft", *command(world, tmp_path / "out", *more, records=raw))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("error: unrefined: items come with chains that weren't refined") == 1
    assert 'Traceback (most recent call last):\n  File "<frozen' not in done.stderr.partition("error: unrefined")[0]
    assert not checkpoints.numbered(tmp_path / "out")


def test_items_may_have_several_films_or_none(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    mine = [record for record in records if record["split"] != "test"]
    films = [record["images"] for record in mine]
    mixed = [
        {**record, "images": [*images, *films[0]] if number % 3 == 0 else images if number % 3 == 1 else []}
        for number, (record, images) in enumerate(zip(mine, films, strict=True))
    ]
    source = write(tmp_path / "in" / "chains.jsonl", mixed)
    more = ("--image-root", str(world / "films"), "--max-steps", "3", "--allow", "shared")
    done = Training(tmp_path / "log", *command(world, tmp_path / "out", *more, records=source)).wait()
    assert done.code == 0, done.stderr
    assert done.result["step"] == 3


def test_a_dry_run_leaves_the_items_for_the_run_itself(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dry = Training(tmp_path / "log", *command(world, out, "--dry-run", "--set", "bf16=true")).wait()
    assert (dry.code, dry.stdout) == (0, "")
    assert "without --dry-run trains on them" in dry.stderr
    assert not checkpoints.numbered(out)
    items = {path: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    assert out / "data" / "train-0.arrow" in items
    done = Training(tmp_path / "log", *command(world, out)).wait()
    assert done.code == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in items} == items
    unrefined = Training(tmp_path / "log", *command(world, tmp_path / "none", "-n", "--max-length", "300")).wait()
    assert unrefined.code == 1
    assert "error: too-long" in unrefined.stderr


def test_what_is_left_out_goes_to_the_rejects(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    mine = [record for record in records if record["split"] != "test"]
    gone = {**mine[0], "id": "gone", "images": ["nowhere.png"]}
    unanswered = {**mine[1], "id": "unanswered", "answer": ""}
    source = write(tmp_path / "in" / "chains.jsonl", [*mine, gone, unanswered])
    with open(source, "a", encoding="utf-8") as file:
        file.write("{torn\n")
    rejects = tmp_path / "rejects.jsonl"
    more = ("--image-root", str(world / "films"), "--max-steps", "1", "--eval-every", "0", "--max-failed", "50%")
    done = Training(
        tmp_path / "log", *command(world, tmp_path / "out", *more, "--rejects", str(rejects), records=source)
    ).wait()
    assert done.code == 0, done.stderr
    told = {row["line"]: row for row in read(rejects)}
    last = len(mine)
    assert sorted(told) == [last + 1, last + 2, last + 3]
    assert [told[last + 1]["id"], told[last + 1]["reasons"][0]["check"]] == ["gone", "film"]
    assert told[last + 2]["record"]["id"] == "unanswered"
    assert told[last + 3]["raw"].startswith("{torn")
    once, rejects = rejects.read_bytes(), tmp_path / "again.jsonl"  # from the items that are there already
    more = (*more[:-2], "--max-failed", "50%", "--rejects", str(rejects))
    assert Training(tmp_path / "log", *command(world, tmp_path / "out", *more, records=source)).wait().code == 0
    assert rejects.read_bytes() == once


def test_two_processes_are_one_with_the_doubled_batch(world: Path, tmp_path: Path) -> None:
    pair, one = tmp_path / "pair", tmp_path / "one"
    more = ("--max-steps", "4", "--set", "max_grad_norm=0.5")
    alone = Training(tmp_path / "log", *command(world, one, *more)).wait()
    assert alone.code == 0, alone.stderr
    done = torchrun("sft", *command(world, pair, *more))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    ours, theirs = read(pair / "metrics.jsonl"), read(one / "metrics.jsonl")
    assert len(ours) == len(theirs) > 4
    for row, other in zip(ours, theirs, strict=True):
        # The validation loss is a mean over batches, and the last one of a process may be small.
        told = [
            {name: value for name, value in r.items() if name not in ("eval_loss", "eval_entropy")}
            for r in (row, other)
        ]
        assert told[0] == pytest.approx(told[1], abs=1e-3)
    for name, value in weights(pair).items():
        assert abs(value - weights(one)[name]).max() < 1e-3


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(world: Path, folder: Path, given: list[dict[str, Any]], *more: str, model: Path | None = None) -> Done:
    for record in given:
        record["images"] = [str(world / "films" / str(image)) for image in record["images"]]
    source = write(folder / "given.jsonl", given)
    arguments = [str(source), "--model", str(model or world / "model"), "-o", str(folder / "out"), *COMMON, *more]
    done = Training(folder, *arguments).wait()
    assert done.stdout == ""
    assert not list((folder / "out").glob("checkpoint-*"))
    assert CANARY not in done.stderr
    return done


def test_longer_items_are_refused_and_never_cut(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    done = refused(world, tmp_path, records, "--max-length", "300")
    assert done.code == 1
    assert "error: too-long: items are longer than --max-length; " in done.stderr
    assert "%), such as " in done.stderr
    assert "--allow too-long: they are left out" in done.stderr


def test_a_template_without_images_is_refused(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    model = vision_model(tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text("{%- for m in messages -%}{{ m['role'] }}: {% for part in m['content'] %}{% if part['type'] == "
                        "'text' %}{{ part['text'] }}{% endif %}{% endfor %}\n{%- endfor -%}assistant:")  # fmt: skip
    done = refused(world, tmp_path, records, model=model)
    assert done.code == 1
    assert "error: template: the model's chat template has no place for images" in done.stderr


def test_image_tokens_that_do_not_match_are_refused(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    model = vision_model(tmp_path / "model")
    processor = model / "processor_config.json"
    told = json.loads(processor.read_text())
    told["image_processor"]["merge_size"] = 1  # four times the tokens that the model has features for
    processor.write_text(json.dumps(told))
    done = refused(world, tmp_path, records, model=model)
    assert done.code == 1
    assert "error: image-tokens: the tokens that stand for a film" in done.stderr
    assert "56x56" in done.stderr


def prepared(world: Path, folder: Path, given: list[dict[str, Any]], **more: Any) -> data.Items:
    source = write(folder / "given.jsonl", given)
    chosen = settings.Settings(**more.pop("settings", {}))
    options: dict[str, Any] = {"seed": 0, "films": Films(root=world / "films"), "measure": None, "refusals": Refusals()}
    return data.prepare([source], folder / "out", chosen, **{**options, **more})


REFUSED = {
    "empty": lambda record: {**record, "split": "test"},
    "single-class": lambda record: {**record, "split": None, "answer": "A", "task": "single"},
    "unrefined": lambda record: {**record, "provenance": record["provenance"][:1]},
    "shared": lambda record: {**record, "patient_id": "p1", "split": record["split"] or "train"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_spoil_a_run_is_refused_by_name(
    world: Path, records: list[dict[str, Any]], name: str, tmp_path: Path
) -> None:
    changed = [REFUSED[name](record) for record in records if record["options"]]
    with pytest.raises(CxrError) as caught:
        prepared(world, tmp_path, changed)
    assert caught.value.where == name
    assert caught.value.hint
    assert REFUSALS[name].mend in caught.value.hint
    if REFUSALS[name].allowed:
        assert prepared(world, tmp_path, changed, refusals=Refusals([name])).counts["train"]


def test_a_film_of_the_test_split_is_known_under_another_name(
    world: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    train = [record for record in records if record["split"] == "train"]
    test = {**train[0], "id": "t", "patient_id": "other", "study_id": "other", "split": "test"}
    with pytest.raises(CxrError, match=r"The film is in the split test already"):
        prepared(world, tmp_path, [test, *train])
    held_out = write(tmp_path / "bench.jsonl", [test])
    write(tmp_path / "bench.jsonl", [{**test, "images": [str(world / "films" / test["images"][0])]}])
    with pytest.raises(CxrError, match=r"in a file to be apart from already"):
        prepared(world, tmp_path, train, apart_from=[str(held_out)])


def test_splits_of_the_input_share_no_patient(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    train = [record for record in records if record["split"] == "train"]
    kept = {**train[0], "id": "v", "study_id": "other", "split": "validate", "images": [records[-1]["images"][0]]}
    with pytest.raises(CxrError, match="The patient is in the split train already"):
        prepared(world, tmp_path, [*train, kept])


def test_a_record_without_a_chain_is_left_out_unless_only_its_answer_is_asked(
    world: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    bare = [{**record, "steps": []} if number == 0 else record for number, record in enumerate(records)]
    assert prepared(world, tmp_path, bare).counts["unreadable"] == (records[0]["split"] != "test")
    answers = [{**record, "steps": None} for record in records]
    assert prepared(world, tmp_path, answers, settings={"answer_only_share": 1}).counts["unreadable"] == 0


def test_too_many_missing_films_end_the_run(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    few = [{**record, "images": ["gone.png"]} if number == 0 else record for number, record in enumerate(records)]
    assert prepared(world, tmp_path, few).counts["no_film"] == 1
    many = [{**record, "images": ["gone.png"]} for record in records]
    with pytest.raises(TooManyFailures):
        prepared(world, tmp_path, many)


# ---------------------------------------------------------------------------------------------------------- the items


def rows(items: data.Items, name: str = "train-0") -> list[dict[str, Any]]:
    from datasets import Dataset

    return list(Dataset.from_file(str(items.folder / f"{name}.arrow")))


def test_items_are_conversations(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    items = prepared(world, tmp_path, records, settings={"answer_only_share": 0.5})
    by_id = {record["id"]: record for record in records}
    found = rows(items)
    assert found
    think = 0
    for row in found:
        record = by_id[row["id"]]
        assert record["split"] == "train"
        assert row["completion"].endswith(f"<answer>{record['answer']}</answer>")
        assert record["question"] in row["prompt"][0]["content"]
        assert row["images"] == [str(world / "films" / record["images"][0])]
        if "<think>" in row["completion"]:
            think += 1
            assert all(step["text"] in row["completion"] for step in record["steps"])
    assert 0.25 < think / len(found) < 0.75
    assert items.counts["answer_only"] == len(found) - think


def test_a_task_comes_as_often_as_its_weight(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    plain = Counter(row["task"] for row in rows(prepared(world, tmp_path, records)))
    weighted = prepared(world, tmp_path, records, settings={"task_weights": {"binary": 2, "anomaly": 0}})
    twice = Counter(row["task"] for row in rows(weighted))
    assert twice["binary"] == 2 * plain["binary"]
    assert twice["anomaly"] == 0
    assert twice["single"] == plain["single"]
    assert weighted.counts["by_task"]["binary"] == twice["binary"]


def test_patients_are_kept_for_validation_as_a_whole(
    world: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    unsplit = [{**record, "split": None} for record in records]
    items = prepared(world, tmp_path, unsplit, settings={"eval_share": 0.3, "eval_items": 5})
    kept, trained = ({row["patient_id"] for row in rows(items, name)} for name in ("validate", "train-0"))
    assert kept
    assert trained
    assert not kept & trained
    sample = data.sample_of(items)
    assert len(sample) == min(5, items.validated)
    assert {record["patient_id"] for record in sample} <= kept
    again = prepared(world, tmp_path / "b", unsplit[::-1], settings={"eval_share": 0.3, "eval_items": 5})
    assert [record["id"] for record in data.sample_of(again)] == [record["id"] for record in sample]


def test_items_are_made_once(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    first = prepared(world, tmp_path, records)
    stamp = (first.folder / "train-0.arrow").stat().st_mtime_ns
    assert prepared(world, tmp_path, records) == first
    assert (first.folder / "train-0.arrow").stat().st_mtime_ns == stamp
    assert prepared(world, tmp_path, records[:-1]).identity != first.identity


def test_a_run_may_go_on_with_another_number_of_questions_at_its_evaluations(
    world: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    unsplit = [{**record, "split": None} for record in records]
    few, more = (
        prepared(world, tmp_path, unsplit, settings={"eval_share": 0.5, "eval_items": count}) for count in (1, 2)
    )
    assert more.identity == few.identity  # or the run would be taken for another one
    assert len(data.sample_of(more)) == 2


def test_a_mix_takes_from_its_inputs_by_their_shares(
    world: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    train = [record for record in records if record["split"] == "train"]
    halves = [write(tmp_path / f"{name}.jsonl", train[number::2]) for number, name in enumerate("ab")]
    films = Films(root=world / "films")
    chosen = settings.Settings(mix={str(halves[0]): 3, str(halves[1]): 1})
    items = data.prepare(halves, tmp_path, chosen, seed=0, films=films, measure=None, refusals=Refusals())
    mixed, _ = data.datasets_of(items, chosen, films=films, seed=0)
    ids = mixed.with_format(None)["id"]
    ours = {record["id"] for record in train[0::2]}
    assert set(ids) == {record["id"] for record in train}  # all of both is seen
    assert 0.6 < sum(identity in ours for identity in ids) / len(ids) < 0.9
    batch = mixed[:2]
    assert [image.size for images in batch["images"] for image in images] == [(56, 56)] * 2
    assert batch["completion"][0][0]["role"] == "assistant"


def test_records_come_from_a_pipe_too(world: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    text = (world / "films" / "chains.jsonl").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "cxr_reason", "sft", "-", "--model", str(world / "model"), "-o", str(tmp_path / "out"),
         "--image-root", str(world / "films"), *COMMON, "--max-length", "10"],
        input=text, capture_output=True, encoding="utf-8", env=environment(), timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{len([r for r in records if r['split'] != 'test']):,} of" in done.stderr
    assert (tmp_path / "out" / data.FOLDER / "stdin.jsonl").read_text() == text


# ------------------------------------------------------------------------------------------------------------ settings


KNOWN = ("learning_rate", "weight_decay", "max_steps", "max_length", "packing")


def test_what_is_said_last_counts() -> None:
    told = settings.resolve(
        "sft",
        known=[*KNOWN, *settings.recipes("sft")["tiny"]],
        recipe="tiny",
        file={"learning_rate": 1.0, "weight_decay": 0.5, "keep": 7},
        flags={"learning_rate": 2.0, "max_length": 99},
        sets={"max_length": "100"},
    )
    assert (told.trainer["learning_rate"], told.trainer["weight_decay"]) == (2.0, 0.5)
    assert (told.keep, told.max_length, told.batch_size) == (7, 100, 16)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"lerning_rate": 1}, "Is learning_rate meant?"),
        ({"packing": True}, "packing can't be set: TRL packs no films"),
        ({"batch_size": "many"}, "batch_size can't be 'many'"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"freeze_vision": 3}, "freeze_vision can't be 3"),
        ({"eval_share": 2}, "eval_share is a share"),
        ({"task_weights": {"binry": 1}}, "there is no task 'binry'"),
        ({"best_metric": "radrscor"}, "there is no measure 'radrscor'"),
        ({"dtype": "int8"}, "dtype can't be 'int8'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(sets: dict[str, Any], message: str) -> None:
    with pytest.raises(CxrError) as caught:
        settings.resolve("sft", known=KNOWN, sets=sets)
    assert message in str(caught.value)


@pytest.mark.parametrize(("batch", "micro", "world", "dealt"), [
    (128, 4, 8, (4, 4)), (16, 16, 2, (8, 1)), (6, 4, 1, (3, 2)), (4, 16, 1, (4, 1)), (7, 4, 1, (1, 7)),
])  # fmt: skip
def test_a_step_takes_as_many_items_however_it_is_dealt(
    batch: int, micro: int, world: int, dealt: tuple[int, int]
) -> None:
    assert settings.accumulation(batch, micro, world=world) == dealt
    assert dealt[0] * dealt[1] * world == batch


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(CxrError, match=r"can't be dealt to 3 processes"):
        settings.accumulation(16, 4, world=3)


def test_curves_are_drawn_of_what_was_logged() -> None:
    rows = [{"step": step, "loss": 4 / step} for step in range(1, 2001)] + [{"step": 1000, "eval_accuracy": 0.5}]
    root = ElementTree.fromstring(curves.svg(rows, title="a & b"))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2
    assert 100 < len(lines[0].attrib["points"].split()) <= curves.MOST_POINTS


@pytest.fixture(autouse=True)
def _offline() -> Iterator[None]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    del os.environ["HF_HUB_OFFLINE"]
