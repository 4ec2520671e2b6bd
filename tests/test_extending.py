"""What docs/extending.md tells to write, written: it works as it stands there."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run, environment
from test_contract import run_blocks

from cxr_reason import engines
from cxr_reason.engines import Completion, Prompt, Sampling
from cxr_reason.radiology import lexicon
from cxr_reason.refining import checks, study
from cxr_reason.streams import Row

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
RECORD = {
    "id": "r", "study_id": "s", "task": "binary", "question": "Is there a pleural effusion?", "options": ["No", "Yes"],
    "answer": "B", "report": "Small left pleural effusion.", "steps": [
        {"kind": "observe", "text": "There is a small left pleural effusion!"},
        {"kind": "conclude", "text": "An effusion is seen, so the answer is B, Yes."},
    ],
}  # fmt: skip


def code(name: str) -> str:
    (block,) = re.findall(rf"^```\w+ {name}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return block


def test_a_finding_is_a_block_of_the_lexicon(cxr: Run, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cxr_reason", tmp_path / "cxr_reason", symlinks=False)
    shutil.copytree(ROOT / "commands", tmp_path / "commands")
    with open(tmp_path / "cxr_reason" / "radiology" / "lexicon.toml", "a", encoding="utf-8") as file:
        file.write("\n" + code("lexicon"))
    told = json.dumps({"report": "There is a left lung sequestration. The heart is not enlarged."})
    for folder, names in ((ROOT, {"cardiomegaly"}), (tmp_path, {"cardiomegaly", "lung sequestration"})):
        done = cxr("mine", "--findings", stdin=told, env=environment(PYTHONPATH=str(folder)), cwd=folder)
        assert done.returncode == 0, done.stderr
        assert {finding["name"] for finding in json.loads(done.stdout)["findings"]} == names
    assert "lung sequestration" not in lexicon.LEXICON.findings


def test_a_check_is_a_function_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECKS", dict(checks.CHECKS))
    exec(code("check"), vars(checks))
    told = {"silence": "normal", "max_steps": 24, "max_chars": 6000, "config": "c"}
    (refused,) = study.refine(Row("x", 1, RECORD), checks=("loud",), **told).rejects
    assert refused.reasons[-1]["message"] == "Step 1 shouts."
    assert study.refine(Row("x", 1, RECORD), checks=("claims",), **told).records
    del checks.loud


def test_a_reward_is_a_function() -> None:
    space: dict[str, Any] = {}
    exec(code("reward"), space)
    turns = [[{"role": "assistant", "content": "x" * length}] for length in (10, 900)]
    assert space["brief"](turns, prompts=[[], []]) == [1.0, 0.0]


def test_an_engine_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("cxr_reason.engines.first")
    vars(module).update(
        Any=Any, Iterable=Iterable, Iterator=Iterator, Prompt=Prompt, Sampling=Sampling, Completion=Completion
    )
    exec(code("engine"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(engines, "ENGINES", dict(engines.ENGINES))
    exec(code("engines"), vars(engines))
    assert importlib.import_module(module.__name__) is module
    engine = engines.load("first", "tiny")
    told = list(engine.complete([Prompt(()), Prompt(())], Sampling()))
    assert [one.texts for one in told] == [("<think>Not looked.</think><answer>A</answer>",)] * 2
    engine.close()


@pytest.mark.parametrize("page", ["tutorial", "own-data"])
def test_the_commands_of_a_guide_run_as_written(page: str, tmp_path: Path) -> None:
    run_blocks((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), tmp_path)
