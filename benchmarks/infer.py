"""How fast `cxr infer --engine vllm` is beside vLLM alone, and in what memory.

    python benchmarks/infer.py MODEL                      # interleaved pairs, some minutes
    python benchmarks/infer.py MODEL --memory 500,20000   # peak memory, films and one token each
    python benchmarks/infer.py --untrained DIR            # an untrained Qwen2-VL of tests/small_models.py, made in DIR
    python benchmarks/infer.py --untrained DIR --write    # also puts the row into BENCHMARKS.md

A pair is `cxr infer` and a bare `LLM.generate` over the same films and prompts with the same settings, one after the
other, each in a process of its own, in turns of who goes first; `vllm run-batch` is a third where it runs. Time counts
from the moment that the model is loaded to the last completion, films read and lines written included; loading stands
apart. The bare loop reads the films with Pillow and writes nothing.

The ratio of a pair is bare seconds / ours: 1 is as fast, below 1 slower. Its median comes with the interval of the
order statistics that covers the median of so many pairs with at least 90 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from math import comb
from pathlib import Path
from typing import Any

from bench import ROOT, conditions, note, parser_of, publish, spread, table

FILMS = 64
QUESTIONS = ("a pleural effusion", "cardiomegaly", "a pneumothorax", "a fracture", "edema", "a nodule")


def write_input(folder: Path, items: int, side: int) -> Path:
    """`items` questions over `FILMS` films of noise."""
    from PIL import Image

    for number in range(FILMS):
        noise = random.Random(number).randbytes(side * side)
        Image.frombytes("L", (side, side), noise).save(folder / f"{number}.png")
    path = folder / f"questions-{items}.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(items):
            record = {
                "id": f"q{number}",
                "images": [f"{number // 4 % FILMS}.png"],
                "question": f"Film {number}: is there {QUESTIONS[number % len(QUESTIONS)]}?",
                "options": ["No", "Yes"],
                "answer": "A",
            }
            file.write(json.dumps(record) + "\n")
    return path


def untrained(folder: Path) -> Path:
    """A model that writes nonsense and never stops: every text has its full length."""
    sys.path.insert(0, str(ROOT / "tests"))
    from small_models import vision_model
    from transformers import AutoModelForImageTextToText

    vision_model(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.lm_head.weight.data[model.generation_config.eos_token_id] = 0.0  # another token is always likelier
    model.save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------- who is measured


def ours(model: str, questions: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "cxr_reason", "infer", str(questions), "--ckpt", model, "--engine", "vllm"]
    command += ["--max-tokens", str(arguments.tokens), "-o", str(questions.with_suffix(".out")), "--force"]
    command += ["--batch-size", str(arguments.batch_size)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        sys.exit(done.stderr)
    told = re.search(r"([\d,]+) tokens, .* in ([\d.]+) s after ([\d.]+) s of loading", done.stderr)
    assert told, done.stderr
    seconds, loading = float(told[2]), float(told[3])
    return {
        "seconds": seconds, "loading": loading, "whole": time.monotonic() - began,
        "tokens": int(told[1].replace(",", "")),
    }  # fmt: skip


def bare(model: str, questions: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, model, "--bare", str(questions), "--tokens", str(arguments.tokens)]
    command += ["--batch-size", str(arguments.batch_size)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        sys.exit(done.stderr)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told | {"whole": time.monotonic() - began}


def bare_loop(model: str, questions: Path, arguments: argparse.Namespace) -> None:
    """What somebody would write who has the films, the prompts and vLLM."""
    os.environ["VLLM_LOGGING_STREAM"], os.environ["VLLM_NO_USAGE_STATS"] = "ext://sys.stderr", "1"
    sys.path.insert(0, str(ROOT))
    from PIL import Image
    from vllm import LLM, SamplingParams

    from cxr_reason import environment
    from cxr_reason.engines import models, prompts, vllm
    from cxr_reason.engines.chat import Chat

    checkpoint = models.resolve(model)
    chat = Chat(checkpoint)
    on_gpu = bool(environment.gpus())
    began = time.monotonic()
    llm = LLM(
        model, dtype=models.dtype_of(checkpoint), max_model_len=-1, enforce_eager=not on_gpu,
        max_num_seqs=arguments.batch_size, limit_mm_per_prompt={"image": vllm.MAX_IMAGES, "video": 0},
        mm_processor_cache_gb=vllm.IMAGE_CACHE_GIB,
        **({} if on_gpu else {"gpu_memory_utilization": vllm.CPU_MEMORY}),
    )  # fmt: skip
    loaded = time.monotonic()
    asked: list[dict[str, Any]] = []
    for line in questions.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        with Image.open(questions.parent / record["images"][0]) as film:
            prompt = prompts.prompt_of(record, images=[film.convert("RGB")])
        asked.append({"prompt": chat.text(prompt), "multi_modal_data": {"image": list(prompt.images)}})
    outputs = llm.generate(asked, SamplingParams(temperature=0, max_tokens=arguments.tokens), use_tqdm=False)
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(json.dumps({"seconds": time.monotonic() - loaded, "loading": loaded - began, "tokens": tokens}))


def run_batch(model: str, questions: Path, arguments: argparse.Namespace) -> dict[str, float] | None:
    """`vllm run-batch` on the same films as data URIs; its whole time, as it doesn't tell its loading's."""
    import base64

    sys.path.insert(0, str(ROOT))
    from cxr_reason.engines import prompts

    batch, results = questions.with_suffix(".batch"), questions.with_suffix(".batched")
    with open(batch, "w", encoding="utf-8") as file:
        for line in questions.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            film = base64.b64encode((questions.parent / record["images"][0]).read_bytes()).decode()
            content = [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{film}"}},
                {"type": "text", "text": prompts.prompt_of(record).messages[0].text},
            ]
            messages = [{"role": "user", "content": content}]
            body = {"model": model, "messages": messages, "max_tokens": arguments.tokens, "temperature": 0}
            request = {"custom_id": record["id"], "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(request) + "\n")
    command = [sys.executable, ROOT / "tools" / "vllm_command.py", "run-batch", "-i", batch, "-o", results]
    command += ["--model", model]
    command += ["--max-num-seqs", str(arguments.batch_size), "--enforce-eager", "--gpu-memory-utilization", "0.3"]
    command += ["--dtype", "float32", "--limit-mm-per-prompt", '{"image": 16, "video": 0}']
    began = time.monotonic()
    done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8")
    whole = time.monotonic() - began
    if done.returncode or not results.exists():
        print("vllm run-batch failed:", done.stderr[-500:], file=sys.stderr)
        return None
    told = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    tokens = sum(line["response"]["body"]["usage"]["completion_tokens"] for line in told)
    return {"whole": whole, "tokens": tokens}


# ----------------------------------------------------------------------------------------------------------- measures


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """(lowest, highest, coverage) of the order statistics that cover the median with 90 %, or of all."""
    told, n = sorted(ratios), len(ratios)
    best = (told[0], told[-1], 1 - 2 * 0.5**n)
    for cut in range(1, n // 2):
        coverage = 1 - 2 * sum(comb(n, k) for k in range(cut + 1)) / 2**n
        if coverage >= 0.9:
            best = (told[cut], told[-1 - cut], coverage)
    return best


def speed(model: str, folder: Path, arguments: argparse.Namespace) -> str:
    questions = write_input(folder, arguments.items, arguments.side)
    runs: dict[str, list[dict[str, float]]] = {"cxr infer": [], "LLM.generate": []}
    for pair in range(arguments.pairs):
        order = [("cxr infer", ours), ("LLM.generate", bare)]
        for name, measure in order if pair % 2 == 0 else reversed(order):
            told = measure(model, questions, arguments)
            runs[name].append(told)
            note(f"pair {pair + 1}: {name}: {told['seconds']:.1f} s, {told['loading']:.0f} s of loading")
    ratios = [b["seconds"] / o["seconds"] for o, b in zip(runs["cxr infer"], runs["LLM.generate"], strict=True)]
    low, high, coverage = interval(ratios)
    rows = []
    for name, told in runs.items():
        seconds = [run["seconds"] for run in told]
        rate = statistics.median(run["tokens"] / run["seconds"] for run in told)
        loading, whole = (statistics.median(run[part] for run in told) for part in ("loading", "whole"))
        rows.append([name, spread(seconds, 1), f"{rate:,.0f}", f"{loading:.0f}", f"{whole:.0f}"])
    if arguments.run_batch and (told := run_batch(model, questions, arguments)):
        rows.append(["vllm run-batch, once", "", "", "", f"{told['whole']:.0f}"])
    about = f"{arguments.items:,} items, {arguments.tokens} tokens an answer"
    return (
        f"{table([about, 's, median (range)', 'tokens/s', 'loading, s', 'whole, s'], rows)}\n\n"
        f"`LLM.generate`'s seconds ÷ ours: median {statistics.median(ratios):.3f} "
        f"({low:.3f} to {high:.3f}, {coverage:.0%}; {len(ratios)} pairs)."
    )


def memory(model: str, folder: Path, arguments: argparse.Namespace) -> str:
    """The peak of the process and of all its children together, sampled, less what children share with their parent."""
    rows = []
    for items in map(int, arguments.memory.split(",")):
        questions = write_input(folder, items, arguments.side)
        command = [sys.executable, "-m", "cxr_reason", "infer", str(questions), "--ckpt", model, "--engine", "vllm"]
        command += ["--max-tokens", "1", "-o", str(questions.with_suffix(".out")), "--force", "-q"]
        command += ["--batch-size", str(arguments.batch_size)]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
        peak, stop = [0.0, 0.0], threading.Event()

        def watch(process: subprocess.Popen[bytes] = process, peak: list[float] = peak, stop: Any = stop) -> None:
            while not stop.wait(0.5):
                family = descendants(process.pid)
                sizes = [proportional(pid) for pid in family]
                peak[0], peak[1] = max(peak[0], sizes[0]), max(peak[1], sum(sizes))

        watcher = threading.Thread(target=watch)
        watcher.start()
        process.wait()
        stop.set()
        watcher.join()
        rows.append([f"{items:,}", f"{peak[0]:,.0f}", f"{peak[1]:,.0f}"])
        note(" ".join(rows[-1]))
    return table(["items", "peak of `cxr infer`, MiB", "of it and vLLM's processes, MiB"], rows)


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def proportional(pid: int) -> float:
    """The proportional set size, in MiB: what is shared counts in parts."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    size = re.search(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)
    return int(size[1]) / 1024 if size else 0.0


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--untrained", metavar="DIR", type=Path)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--side", type=int, default=112, help="of a film, in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--run-batch", action="store_true")
    parser.add_argument("--memory", metavar="N,N")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.untrained:
        arguments.model = str(untrained(arguments.untrained))
    if not arguments.model:
        parser.error("name a model")
    if arguments.bare:
        bare_loop(arguments.model, arguments.bare, arguments)
        return
    with tempfile.TemporaryDirectory(prefix="cxr-infer-") as folder:
        told = (memory if arguments.memory else speed)(arguments.model, Path(folder), arguments)
    name = "infer.py --memory" if arguments.memory else f"infer.py --tokens {arguments.tokens}"
    publish(name, f"{conditions(f'{os.cpu_count()} cores')}.\n\n{told}", write=arguments.write)


if __name__ == "__main__":
    main()
