"""`cxr infer` with real models: untrained ones of a few thousand parameters, on films of noise."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import MODEL, ChatServer, asked, images
from conftest import ROOT, Run, environment
from processes import wait_for
from small_models import CONTEXT, vision_model

from cxr_reason import engines, records
from cxr_reason.cluster import Shard
from cxr_reason.engines import Message, Prompt, Sampling, leftovers, models, prompts
from cxr_reason.errors import CxrError, InputError, TooManyFailures
from cxr_reason.films import Films
from cxr_reason.inference import blind, stage, voting
from cxr_reason.streams import Input, Row

# Models are quick to make and slow to import: one process has them all. Their libraries warn of one another.
pytestmark = [pytest.mark.xdist_group("models"), pytest.mark.filterwarnings("ignore")]

ITEMS, STUDY, PATIENT = 64, 4, 8
PATIENCE = 400  # seconds that vLLM may take to start on a busy machine; a tenth is usual
SHORT = Sampling(max_tokens=24)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions, films and a model, made once."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)  # with models so small, threads wait for one another
    root = tmp_path_factory.mktemp("infer")
    vision_model(root / "model")
    for number in range(ITEMS // STUDY):
        size = 112, 112 + 28 * (number % 3)
        noise = Image.frombytes("L", size, random.Random(number).randbytes(size[0] * size[1]))
        noise.save(root / f"film{number}.png")
    lines = []
    for number in range(ITEMS):
        record = {
            "id": f"q{number}",
            "study_id": f"s{number // STUDY}",
            "patient_id": f"p{number // PATIENT}",
            "task": "binary",
            "images": [f"film{number // STUDY}.png"],
            "question": f"Does film {number} show a pleural effusion?",
            "options": ["No", "Yes"],
            "answer": "A",
            "report": "No effusion.",
            "steps": [{"text": "No effusion is seen.", "kind": "observe"}],
        }
        lines.append(records.dumps(record) + "\n")
    (root / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    return root


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(
    folder: Path,
    output: Path,
    *,
    source: Path | None = None,
    sampling: Sampling = SHORT,
    batch_size: int = 16,
    settings: stage.Settings | None = None,
    **given: Any,
) -> list[dict[str, Any]]:
    """What transformers predicts."""
    plan = engines.plan("transformers", str(folder / "model"), batch_size=batch_size)
    stage.infer(
        Input(source or folder / "questions.jsonl", formats=("jsonl",)),
        plan,
        films=given.pop("films", Films()),
        sampling=sampling,
        settings=settings or stage.Settings(),
        output=output,
        **given,
    )
    return read(output)


@pytest.fixture(scope="session")
def greedy(folder: Path) -> list[dict[str, Any]]:
    return run(folder, folder / "greedy.jsonl")


# --- what is asked, and what is answered


def test_the_wording_of_a_prompt_and_of_what_is_to_be_learnt() -> None:
    record = {
        "id": "a", "question": "Is there an effusion?", "options": ["No", "Yes"], "answer": "B",
        "steps": [{"text": "Look at the angles."}, {"text": "Fluid is seen. "}],
    }  # fmt: skip
    prompt = prompts.prompt_of(record)
    assert prompt.messages == (Message("user", f"Is there an effusion? Options:\nA) No\nB) Yes\n{prompts.THINK}"),)
    assert prompt.key == "a"
    assert prompts.prompt_of(record, think=False).messages[0].text.endswith(f"\n{prompts.ANSWER}")
    assert prompts.prompt_of(record, instruction="").messages[0].text.endswith("B) Yes")
    assert prompts.completion_of(record) == ("<think>Look at the angles.\n\nFluid is seen.</think>\n<answer>B</answer>")
    assert prompts.completion_of(record, think=False) == "<answer>B</answer>"
    for without in ("steps", "answer"):
        with pytest.raises(ValueError, match="no example"):
            prompts.completion_of({name: value for name, value in record.items() if name != without})


def test_records_gain_predictions_and_keep_the_rest(folder: Path, greedy: list[dict[str, Any]]) -> None:
    asked_for = read(folder / "questions.jsonl")
    assert [record["id"] for record in greedy] == [record["id"] for record in asked_for]
    for record, before in zip(greedy, asked_for, strict=True):
        assert before.items() <= record.items()
        assert records.check(record) == []
        assert record["model"] == str(folder / "model")
        assert record["generation"]["tokens"] <= SHORT.max_tokens
        assert record["generation"]["ends"] == (["length"] if record["generation"]["tokens"] == 24 else ["stop"])
        assert record["provenance"][-1]["backend"] == "transformers"
    assert len({record["prediction"] for record in greedy}) > ITEMS // STUDY // 2  # films make a difference


def test_what_was_said_of_an_earlier_prediction_is_gone(folder: Path, tmp_path: Path) -> None:
    source = folder / "again.jsonl"
    old = {**read(folder / "questions.jsonl")[0], "prediction": "old", "correct": True, "radrscore": 0.5}
    source.write_text(records.dumps(old) + "\n", encoding="utf-8")
    (record,) = run(folder, tmp_path / "out.jsonl", source=source, settings=stage.Settings(reports=False))
    assert record["prediction"] != "old"
    assert not {"correct", "radrscore", "report"} & set(record)


def test_items_of_the_benchmark_are_read(folder: Path, tmp_path: Path) -> None:
    item = {
        "image_path": ["film0.png"], "item_id": "7", "question": "Is there an effusion? Options:\nA) No\nB) Yes",
        "answer": "B", "original_report": "Effusion.", "reason_steps": ["An effusion is seen."],
    }  # fmt: skip
    source = folder / "benchmark.json"
    source.write_text(json.dumps([item]), encoding="utf-8")
    (record,) = run(folder, tmp_path / "out.jsonl", source=source)
    assert (record["id"], record["options"]) == ("7", ["No", "Yes"])
    assert "prediction" in record


def test_a_bad_film_rejects_its_own_items_by_name(folder: Path, greedy: list[dict[str, Any]], tmp_path: Path) -> None:
    source, rejects = folder / "bad.jsonl", tmp_path / "rejects.jsonl"
    told = read(folder / "questions.jsonl")[:30]
    (folder / "torn.png").write_bytes((folder / "film0.png").read_bytes()[:200])
    told[3]["images"] = ["torn.png"]
    source.write_text("".join(records.dumps(record) + "\n" for record in told), encoding="utf-8")
    predicted = run(folder, tmp_path / "out.jsonl", source=source, rejects=rejects)
    assert [record["prediction"] for record in predicted] == [
        record["prediction"] for record in greedy[:30] if record["id"] != "q3"
    ]
    (reject,) = read(rejects)
    assert (reject["id"], reject["line"], reject["reasons"][0]["check"]) == ("q3", 4, "film")
    assert "torn.png" in reject["reasons"][0]["message"]
    with pytest.raises(TooManyFailures, match="1 of 30"):
        run(folder, tmp_path / "strict.jsonl", source=source, max_failed=0.01)
    assert len(read(tmp_path / "strict.jsonl")) == 29


def test_what_can_not_be_asked_is_rejected(folder: Path, tmp_path: Path) -> None:
    source, rejects = folder / "unasked.jsonl", tmp_path / "rejects.jsonl"
    good, no_film, no_question, too_long = read(folder / "questions.jsonl")[:4]
    no_film["images"] = []
    no_question["question"] = " "
    too_long["question"] = "word " * CONTEXT
    told = [no_film, no_question, good, too_long]
    source.write_text("".join(records.dumps(record) + "\n" for record in told), encoding="utf-8")
    (record,) = run(folder, tmp_path / "out.jsonl", source=source, rejects=rejects, max_failed=1.0)
    assert record["id"] == good["id"]
    assert [reject["reasons"][0]["check"] for reject in read(rejects)] == ["film", "question", "engine"]


# --- transformers


def test_the_batch_changes_no_text(folder: Path, greedy: list[dict[str, Any]], tmp_path: Path) -> None:
    again = run(folder, tmp_path / "out.jsonl", batch_size=5, limit=16)
    assert [record["prediction"] for record in again] == [record["prediction"] for record in greedy[:16]]


def test_drawn_texts_depend_on_the_question_and_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    drawn = Sampling(max_tokens=8, temperature=1.0, top_p=0.95, top_k=50, n=3)

    def texts(name: str, sampling: Sampling = drawn, **given: Any) -> list[list[str]]:
        told = run(folder, tmp_path / name, sampling=sampling, limit=8, **given)
        assert all(record["prediction"] == record["predictions"][0] for record in told)
        return [record["predictions"] for record in told]

    first = texts("a")
    assert texts("b", batch_size=5) == first
    other = texts("c", Sampling(max_tokens=8, temperature=1.0, top_p=0.95, top_k=50, n=3, seed=1))
    assert other != first
    assert len({text for told in first for text in told}) > 12


def test_a_small_temperature_is_greedy(folder: Path, greedy: list[dict[str, Any]], tmp_path: Path) -> None:
    cold = run(folder, tmp_path / "out.jsonl", sampling=Sampling(max_tokens=24, temperature=1e-4), limit=8)
    assert [record["prediction"] for record in cold] == [record["prediction"] for record in greedy[:8]]


def test_out_of_memory_halves_the_batch_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines.load("transformers", str(folder / "model"), batch_size=8)
    generate, sizes = engine._model.generate, []  # type: ignore[attr-defined]
    room = 3

    def cramped(**given: Any) -> Any:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > room:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: not enough memory")
        return generate(**given)

    monkeypatch.setattr(engine._model, "generate", cramped)  # type: ignore[attr-defined]
    asked_for = [Prompt((Message("user", f"question {number}"),)) for number in range(11)]
    told = list(engine.complete(asked_for, Sampling(max_tokens=4)))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert len(told) == 11
    assert all(completion.texts for completion in told)
    assert "out of memory with 8" in capsys.readouterr().err
    room = 0
    with pytest.raises(CxrError, match="a single question"):
        list(engine.complete(asked_for[:2], Sampling(max_tokens=4)))
    engine.close()


def test_prompts_with_and_without_films_and_a_stop(folder: Path) -> None:
    from PIL import Image

    engine = engines.load("transformers", str(folder / "model"), batch_size=4)
    film = Image.new("RGB", (56, 56))
    mixed = [Prompt((Message("user", "what?"),), (film,) * (number % 3)) for number in range(6)]
    told = list(engine.complete(mixed, SHORT))
    alone = [next(engine.complete([prompt], SHORT)) for prompt in mixed]
    assert told == alone
    text = told[1].texts[0]
    (stopped,) = engine.complete([mixed[1]], Sampling(max_tokens=24, stop=(text[3:5],)))
    assert (stopped.texts, stopped.ends) == ((text[: text.index(text[3:5])],), ("stop",))
    engine.close()


# --- blind controls, votes


def test_blank_films_are_all_the_same_and_of_their_own_size(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    grey = blind.blank([Image.new("RGB", (5, 9))])
    assert (grey[0].size, grey[0].getextrema()) == ((5, 9), ((128, 128),) * 3)
    told = run(folder, tmp_path / "out.jsonl", settings=stage.Settings(blind="blank"), limit=8)
    assert told[0]["provenance"][-1]["blind"] == "blank"


def test_shuffled_films_are_another_patients_whatever_the_shard(
    folder: Path, greedy: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = folder / "questions.jsonl"
    rows = [Row(str(source), number, record) for number, record in enumerate(read(source), 1)]
    shuffle = blind.Shuffle(rows, seed=0)
    chosen = [shuffle.images_for(row.data or {}) for row in rows]
    for row, images_chosen in zip(rows, chosen, strict=True):
        assert row.data
        assert images_chosen
        assert int(images_chosen[0][4:-4]) // 2 != int(row.data["patient_id"][1:])
    assert len({images_chosen[0] for images_chosen in chosen if images_chosen}) > ITEMS // STUDY // 2
    assert blind.Shuffle(reversed(rows), seed=0).identity == shuffle.identity
    assert blind.Shuffle(rows, seed=1).identity != shuffle.identity
    assert shuffle.images_for({"id": "x", "images": ["a", "b"]}) is None
    settings = stage.Settings(blind="shuffle")
    whole = run(folder, tmp_path / "whole.jsonl", settings=settings)
    parts = [run(folder, tmp_path / f"{i}.jsonl", settings=settings, shard=Shard(i, 2)) for i in range(2)]
    assert sorted(map(json.dumps, whole)) == sorted(map(json.dumps, parts[0] + parts[1]))
    changed = sum(a["prediction"] != b["prediction"] for a, b in zip(whole, greedy, strict=True))
    assert changed > ITEMS // 4


def test_a_pool_of_films_is_bounded() -> None:
    rows = (Row("x", n, {"id": f"r{n}", "patient_id": f"p{n}", "images": [f"{n}.png"]}) for n in range(5000))
    pool = blind.Shuffle(rows, seed=0)._pools[1]
    assert len(pool) == blind.POOL


def test_the_majority_answers() -> None:
    record = {"question": "Is there an effusion?", "options": ["No", "Yes"], "task": "binary"}
    texts = ["<answer>A</answer>", "I can't say.", "<answer>B</answer>", "x <answer>Yes</answer>"]
    votes = voting.answers(record, texts)
    assert votes == ["A", None, "B", "B"]
    assert voting.elected(votes) == 2
    # As `cxr score` reads it: what follows the reasoning without a tag is an answer.
    assert voting.answers({**record, "options": ["No", "Yes"]}, ["<think>I look.</think> The answer is B, Yes."]) == [
        "B"
    ]
    assert voting.elected(["A", "B", "B", "A"]) == 0  # a tie: who came first
    assert voting.elected([None, None]) == 0
    assert voting.elected(["Edema, effusion", None, "no", "edema  effusion"]) == 0


# --- models by name


def test_pickles_and_what_is_no_model_are_refused_by_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        models.resolve(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle"):
        models.resolve(str(tmp_path))
    with pytest.raises(InputError, match=r"no config\.json"):
        models.resolve(str(folder))
    with pytest.raises(InputError, match="no such folder"):
        models.resolve(str(folder / "missing"))
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="no such folder"):  # not asked of the hub, as there is a folder model/
        models.resolve("model/best")


def test_a_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(folder / "model", tmp_path / "copy")
    here, there = models.resolve(str(folder / "model")), models.resolve(str(copy))
    assert models.fingerprint(here) == models.fingerprint(there)
    assert models.dtype_of(there) == "float32"
    vision_model(copy, seed=1)
    assert models.fingerprint(here) != models.fingerprint(there)


@pytest.fixture(scope="session")
def adapter(folder: Path) -> Path:
    """A LoRA on the model, saved as peft saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder / "model")
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj|down_proj)"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.manual_seed(0)
                parameter.normal_(std=0.5)
    tuned.save_pretrained(folder / "adapter")
    return folder / "adapter"


@pytest.fixture(scope="session")
def tuned(folder: Path, adapter: Path) -> list[dict[str, Any]]:
    """What transformers predicts with the adapter."""
    output = folder / "tuned.jsonl"
    stage.infer(
        Input(folder / "questions.jsonl", formats=("jsonl",)),
        engines.plan("transformers", str(adapter), batch_size=16),
        films=Films(),
        sampling=SHORT,
        settings=stage.Settings(),
        output=output,
    )
    return read(output)


def test_an_adapter_finds_its_model(
    folder: Path, adapter: Path, greedy: list[dict[str, Any]], tuned: list[dict[str, Any]]
) -> None:
    found = models.resolve(str(adapter))
    assert (found.path, found.adapter) == (folder / "model", adapter)
    assert models.resolve(str(folder / "model"), lora=str(adapter)).adapter == adapter
    assert sum(a["prediction"] != b["prediction"] for a, b in zip(greedy, tuned, strict=True)) > ITEMS // 2


# --- the command


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    made = ChatServer(lambda request: f"<think>{len(images(request))}</think><answer>B</answer>")
    yield made
    made.close()


def test_the_command_asks_an_endpoint(cxr: Run, server: ChatServer, folder: Path) -> None:
    done = cxr(
        *("infer", "questions.jsonl", "--endpoint", server.url, "--no-reports", "--limit", "5"),
        *("--instruction", "In one word.", "--n", "3", "--temperature", "1", "--vote"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["prediction"] for record in told] == ["<think>1</think><answer>B</answer>"] * 5
    assert told[0]["generation"]["votes"] == ["B", "B", "B"]
    assert (told[0]["model"], "report" in told[0]) == (MODEL, False)
    assert asked(server.requests[-1]).endswith("B) Yes\nIn one word.")
    assert "5 predicted" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Name one, --ckpt MODEL"),
        (["--ckpt", "no/such/model"], "no such folder"),
        (["--ckpt", "m", "--endpoint", "http://8.8.8.8/v1"], "no private address"),
        (["--ckpt", "m", "--vote"], "--vote needs several texts"),
        (["--ckpt", "m", "--n", "3"], "--temperature"),
        (["--ckpt", "m", "--instruction", "prompts/missing.txt"], "no readable file"),
        (["--ckpt", "m", "--engine", "endpoint"], "Name it: --endpoint"),
        (["--ckpt", "m", "--engine", "vllm", "--endpoint", "http://127.0.0.1:1/v1"], "Leave out one of the two"),
    ],
)
def test_mistakes_are_told_at_once(cxr: Run, folder: Path, arguments: Sequence[str], told: str) -> None:
    done = cxr("infer", "questions.jsonl", *arguments, cwd=folder)
    assert done.returncode in (1, 2)
    assert (done.stdout, told in done.stderr) == ("", True), done.stderr


def test_shuffling_needs_a_file(cxr: Run) -> None:
    done = cxr("infer", "-", "--ckpt", "m", "--blind", "shuffle", stdin="{}")
    assert (done.returncode, "name a file" in done.stderr) == (2, True)


def test_a_dry_run_looks_at_films_and_loads_nothing(cxr: Run, folder: Path) -> None:
    done = cxr("infer", "questions.jsonl", "--ckpt", "model", "--engine", "transformers", "-n", cwd=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"{ITEMS} could be asked" in done.stderr


# --- vLLM, for real


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cxr_reason", "infer", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(VLLM_CPU_KVCACHE_SPACE="1"),
        cwd=cwd,
    )


def lines_of(path: Path) -> list[bytes]:
    """The whole lines that stand in a file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def agreement(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    same = [a["prediction"] == b["prediction"] for a, b in zip(one, other, strict=True)]
    return sum(same) / len(same)


@pytest.mark.vllm
def test_vllm_is_killed_and_goes_on_and_agrees_with_transformers(
    folder: Path, adapter: Path, tuned: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A LoRA's folder as it is, films, few at once so that it takes a while; kill -9, and the same command again."""
    output, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    arguments = ("questions.jsonl", "--ckpt", adapter, "--engine", "vllm", "--max-tokens", 24, "--batch-size", 2)
    process = start(*arguments, "-o", output, cwd=folder)
    try:
        wait_for(lambda: len(lines_of(partial)) >= 8 or process.poll() is not None, PATIENCE)
    finally:
        engines_of_it = leftovers.family([process.pid])
        process.kill()
        process.communicate()  # returns when nobody holds its pipes any more
    assert engines_of_it
    wait_for(lambda: not any(leftovers.started(pid) == since for pid, since in engines_of_it.items()))
    done = lines_of(partial)
    assert 8 <= len(done) < ITEMS
    process = start(*arguments, "-o", output, cwd=folder)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, ""), err
    assert f"{len(done)} rows or studies are done" in err
    assert lines_of(output)[: len(done)] == done
    predicted = read(output)
    assert len(predicted) == ITEMS
    assert agreement(predicted, tuned) >= 0.95
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.vllm
def test_a_server_of_vllm_is_killed_and_restarted_in_mid_run(
    folder: Path, greedy: list[dict[str, Any]], tmp_path: Path
) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output, partial, log = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial", tmp_path / "server.log"

    def serve() -> subprocess.Popen[bytes]:
        with open(log, "ab") as told:
            return subprocess.Popen(
                [
                    sys.executable, ROOT / "tools" / "vllm_command.py", "serve", folder / "model",
                    "--served-model-name", "small", "--port", str(port), "--enforce-eager", "--dtype", "float32",
                    "--gpu-memory-utilization", "0.3", "--limit-mm-per-prompt", '{"image": 2, "video": 0}',
                ],
                stdout=told, stderr=told, start_new_session=True,
                env=environment(VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1"),
            )  # fmt: skip

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    server = serve()
    try:
        wait_for(lambda: answers() or server.poll() is not None, PATIENCE)
        assert server.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        url = f"http://127.0.0.1:{port}/v1"
        arguments = ("--endpoint", url, "--max-tokens", 24, "--batch-size", 2, "-o", output)
        process = start("questions.jsonl", *arguments, cwd=folder)
        wait_for(lambda: len(lines_of(partial)) >= 4 or process.poll() is not None, PATIENCE)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        reached = len(lines_of(partial))
        time.sleep(0.5)
        assert process.poll() is None, process.communicate()[1]
        assert reached < ITEMS
        server = serve()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert "trying again" in err
        assert agreement(read(output), greedy) >= 0.95
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


# --- the published benchmark

TASKS = (
    "chexpert_binary", "chexpert_multi", "chexpert_multi_no_option", "chexpert_single",
    "mimic_binary", "mimic_multi", "mimic_multi_no_option", "mimic_single", "temporal",
)  # fmt: skip
CHAIN = ["Check both costophrenic angles.", "There is a small left pleural effusion.", "The heart is normal in size."]


def item(task: str) -> dict[str, Any]:
    """One item of a task, in the benchmark's layout and our own words."""
    report = "Small left pleural effusion. Normal heart size."
    base = {"image_path": ["film0.png"], "reason_steps": CHAIN, "original_report": report}
    match task.partition("_")[2]:
        case "binary":
            return {**base, "question": "Is an effusion present? Options:\nA) No\nB) Yes", "answer": "B"}
        case "single":
            told = "Which finding is present? Options:\nA) Pneumothorax\nB) Pleural effusion\nC) Edema\nD) Fracture"
            return {**base, "question": told, "answer": "B"}
        case "multi":
            told = "Which findings are present? Options:\nA) Edema, fracture\nB) Pleural effusion"
            return {**base, "question": told, "answer": "B"}
        case "multi_no_option":
            return {**base, "question": "Which findings are present?", "answer": "pleural effusion"}
    two = {"original_report1": "Moderate left pleural effusion.", "original_report2": report}
    told = "How has the effusion changed? Options:\nA) Improved\nB) Stable\nC) Worse"
    return {**base, **two, "image_path": ["film0.png", "film1.png"], "question": told, "answer": "A"}


def test_the_published_benchmark_from_films_to_its_table(folder: Path, tmp_path: Path) -> None:
    """A model that sees all gets full marks in each of the nine tasks."""

    def knowing(request: dict[str, Any]) -> str:
        question = asked(request)
        if "changed" in question:
            assert len(images(request)) == 2
        answer = "A" if "changed" in question else "B" if "B)" in question else "pleural effusion"
        return f"<think>{' '.join(CHAIN)}</think><answer>{answer}</answer>"

    bench = tmp_path / "benchmark"
    bench.mkdir()
    for task in TASKS:
        (bench / f"{task}_gt_reasoning.json").write_text(json.dumps([item(task)] * 2), encoding="utf-8")
    made = ChatServer(knowing)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "examples" / "radrbench.sh", bench, tmp_path / "out",
         "--endpoint", made.url, "--image-root", folder],
        capture_output=True, encoding="utf-8", env=environment(PATH=path), timeout=120,
    )  # fmt: skip
    made.close()
    assert done.returncode == 0, done.stderr
    head, *rows, mean = done.stdout.splitlines()
    assert head.split()[:3] == ["task", "items", "accuracy"]
    assert [row.split()[:2] for row in rows] == [[task, "2"] for task in TASKS]
    assert [row.split()[2] for row in rows] == ["1.000"] * 9
    assert [float(row.split()[6]) for row in rows] == pytest.approx([1.0] * 9, abs=0.1)
    assert mean.split()[:4] == ["mean", "over", "tasks", "18"]
