"""What all commands have in common, tested by real processes over the one table of commands."""

from __future__ import annotations

import atexit
import gzip
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from chat_server import ChatServer
from conftest import ROOT, Run, environment
from PIL import Image

from cxr_reason import __version__
from cxr_reason.cli import COMMANDS, load

# Commands that read no records. All others get the tests of data commands and need an input below.
WITHOUT_INPUT = {"demo", "doctor"}
# Commands that read records and write a model: a test file of their own says what they do with both.
TRAINING = {"sft", "rl"}
DATA_COMMANDS = [name for name in COMMANDS if name not in WITHOUT_INPUT | TRAINING]
HEAVY = {"torch", "transformers", "datasets", "numpy", "pandas", "pyarrow"}
# For intervals and films; the help does without.
NUMERIC = {"score": {"numpy"}, "demo": {"numpy"}, "infer": {"numpy"}}


@cache
def flags(name: str) -> list[str]:
    """What a command needs for JSON lines on stdout: of `score` no tables for people, of `infer` a model and films."""
    if name == "infer":
        films = Path(tempfile.mkdtemp(prefix="cxr-films-"))
        atexit.register(shutil.rmtree, films)
        Image.new("L", (64, 64), 90).save(films / FILM)
        return ["--endpoint", ChatServer().url, "--image-root", str(films)]
    return {"score": ["--json"]}.get(name, [])


FILM = "film.png"
REPORTS = 40  # one broken row is then 2.4 %, less than --max-failed allows
SENTENCES = (
    "The lungs are clear.",
    "Small left pleural effusion.",
    "The heart is mildly enlarged.",
    "No pneumothorax.",
)


def reports_csv() -> str:
    rows = (f"S{n},FINDINGS: {SENTENCES[n % 4]} {SENTENCES[(n + 1) % 4]} Film {n}." for n in range(REPORTS))
    return "study_id,report\n" + "".join(f"{row}\n" for row in rows)


@pytest.fixture(scope="session")
def inputs(cxr: Run) -> dict[str, tuple[str, str]]:
    """For each data command a good input, and a line that it can't read, to be appended to the former."""
    mined = cxr("mine", stdin=reports_csv()).stdout
    predicted = [
        {**json.loads(line), "prediction": "There is no effusion. <answer>A</answer>"} for line in mined.splitlines()
    ]
    seen = [{**json.loads(line), "images": [FILM]} for line in mined.splitlines()]
    return {
        "infer": ("".join(json.dumps(record) + "\n" for record in seen), '{"id": "torn\n'),
        "mine": (reports_csv(), "one cell only\n"),
        "refine": (mined, '{"id": "torn\n'),
        "score": ("".join(json.dumps(record) + "\n" for record in predicted), '{"id": "torn\n'),
    }


# --- every command


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_goes_to_stdout(cxr: Run, name: str, flag: str) -> None:
    done = cxr(*filter(None, [name]), flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(filter(None, ['cxr', name]))} [OPTIONS]")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listed_line_is_the_first_line_of_the_help(name: str) -> None:
    assert (load(name).help or "").splitlines()[0] == COMMANDS[name].line


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_unknown_option_is_a_usage_error(cxr: Run, name: str) -> None:
    done = cxr(*filter(None, [name]), "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-such-option" in done.stderr


def test_unknown_command_names_the_nearest(cxr: Run) -> None:
    done = cxr("docter")
    assert (done.returncode, done.stdout) == (2, "")
    assert "doctor" in done.stderr


def test_version(cxr: Run) -> None:
    assert cxr("--version").stdout == f"cxr {__version__}\n"
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_quiet_and_verbose(name: str) -> None:
    flags = {flag for parameter in load(name).params for flag in parameter.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= flags


def test_help_imports_no_command_and_nothing_heavy() -> None:
    ours = {"rich", "jsonlines", "cxr_reason.commands", "cxr_reason.radiology"}
    assert loaded_by("--help") & (HEAVY | ours) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_the_training_stack(name: str, inputs: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    assert loaded_by(name, "--help") & HEAVY == set()
    if name in TRAINING:
        return
    alone = ["--studies", "1", "-o", str(tmp_path)] if name == "demo" else []
    arguments = alone if name in WITHOUT_INPUT else ["-", *flags(name)]
    loaded = loaded_by(name, *arguments, stdin=inputs.get(name, ("", ""))[0])
    assert f"cxr_reason.commands.{name}" in loaded
    assert loaded & HEAVY <= NUMERIC.get(name, set())


def test_mine_by_rules_loads_nothing_of_refine(inputs: dict[str, tuple[str, str]]) -> None:
    loaded = loaded_by("mine", "-", stdin=inputs["mine"][0])
    assert "cxr_reason.mining.stage" in loaded
    assert not [module for module in loaded if module.startswith("cxr_reason.refining")]


def loaded_by(*arguments: str, stdin: str = "") -> set[str]:
    """The modules in memory when `cxr ARGUMENTS` ends."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
        "from cxr_reason.cli import main\n"
        "main(sys.argv[1:], prog_name='cxr')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


# --- commands that read records


def test_every_data_command_has_an_input_here(inputs: dict[str, tuple[str, str]]) -> None:
    assert set(DATA_COMMANDS) == set(inputs) & set(COMMANDS)


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_stdout_is_jsonl_and_nothing_else(cxr: Run, inputs: dict[str, tuple[str, str]], name: str) -> None:
    done = cxr(name, *flags(name), stdin=inputs[name][0])
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records
    assert all(isinstance(record, dict) for record in records)
    assert done.stderr  # the closing table
    assert not any(line.startswith("{") for line in done.stderr.splitlines())
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_quiet_says_nothing_when_nothing_is_wrong(cxr: Run, inputs: dict[str, tuple[str, str]], name: str) -> None:
    done = cxr(name, "-q", *flags(name), stdin=inputs[name][0])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_empty_input_is_an_error(cxr: Run, name: str) -> None:
    done = cxr(name, *flags(name))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no rows" in done.stderr


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_missing_file_is_named(cxr: Run, name: str, tmp_path: Path) -> None:
    done = cxr(name, "not-there.csv", *flags(name), cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "not-there.csv" in done.stderr


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_a_bad_line_is_named_and_set_aside(
    cxr: Run, inputs: dict[str, tuple[str, str]], name: str, tmp_path: Path
) -> None:
    good, bad = inputs[name]
    source = tmp_path / "input.txt"
    source.write_text(good + bad, encoding="utf-8")
    clean = cxr(name, "-", *flags(name), stdin=good)
    done = cxr(name, str(source), *flags(name), "--rejects", str(tmp_path / "rejects.jsonl"))
    assert done.returncode == 0, done.stderr
    assert f"input.txt:{good.count(chr(10)) + 1}" in done.stderr
    assert done.stdout.count("\n") == clean.stdout.count("\n")
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [reject["line"] for reject in rejects if reject["line"] > good.count("\n")] == [good.count("\n") + 1]


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_too_many_bad_lines_exit_with_3(cxr: Run, inputs: dict[str, tuple[str, str]], name: str) -> None:
    good, bad = inputs[name]
    done = cxr(name, *flags(name), stdin=good + bad * REPORTS)
    assert done.returncode == 3
    whole = cxr(name, *flags(name), stdin=good).stdout
    assert done.stdout.count("\n") == whole.count("\n")  # and yet everything is written


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_waiting_on_a_terminal_shows_the_help_and_stops(name: str) -> None:
    keyboard, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cxr_reason", name],
            stdin=terminal,
            capture_output=True,
            encoding="utf-8",
            env=environment(),
            timeout=60,
        )
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Usage: cxr {name}" in done.stderr


# --- how a command ends

ENDINGS = {
    "CxrError('no report column', where='a.csv:1', hint='Use --map.')": (
        1,
        "error: a.csv:1: no report column\nUse --map.",
    ),
    "TooManyFailures('9 of 10 rows')": (3, "error: 9 of 10 rows"),
    "Terminated()": (143, ""),
    "ClosedPipe()": (141, ""),
    "KeyboardInterrupt()": (130, "interrupted"),
    "KeyError('Mr. Smith, effusion')": (1, "error: internal error: KeyError in "),
    "ModuleNotFoundError('No module', name='torch')": (1, "error: the package torch is not installed"),
    "FileNotFoundError(2, 'No such file or directory', 'a.csv')": (1, "error: a.csv: No such file or directory"),
    "BrokenPipeError(32, 'Broken pipe')": (1, "error: Broken pipe"),
}


def run_a_command_that(does: str, *flags: str, **options: object) -> subprocess.Popen[str]:
    """`cxr doctor`, replaced by a command whose body is `does`."""
    script = (
        "import sys, time, click\n"
        "from cxr_reason import cli\n"
        "from cxr_reason.errors import *\n"
        "@click.command()\n"
        "@cli.verbosity_options\n"
        "def command():\n"
        f"    {does}\n"
        "cli.load = lambda name: command\n"
        "cli.main(['doctor', *sys.argv[1:]], prog_name='cxr')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, *flags],
        stdout=options.get("stdout", subprocess.PIPE),  # type: ignore[call-overload]
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )


@pytest.mark.parametrize("raised", ENDINGS)
def test_errors_become_messages_and_exit_codes(raised: str) -> None:
    code, message = ENDINGS[raised]
    process = run_a_command_that(f"raise {raised}")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.startswith(message)
    assert "Traceback" not in err
    assert "Smith" not in err


def test_verbose_tells_where_but_quotes_no_record() -> None:
    process = run_a_command_that("raise KeyError('Mr. Smi' 'th')", "-v")  # the traceback may quote this line of code
    _, err = process.communicate(timeout=60)
    assert 'File "<string>", line' in err
    assert "Smith" not in err


def test_interrupt_exits_with_130() -> None:
    process = run_a_command_that("print('ready', flush=True); time.sleep(60)")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_closed_pipe_exits_with_141_and_no_noise() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = run_a_command_that("print('x' * 100_000)", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_an_error_in_words() -> None:
    with open("/dev/full", "w") as full:
        process = run_a_command_that("print('x')", stdout=full)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[0] == "error: No space left on device"
    assert "Traceback" not in err


def test_options_can_come_from_the_environment(cxr: Run) -> None:
    assert json.loads(cxr("doctor", env={"CXR_DOCTOR_JSON": "1", "CXR_VERSION": "0.1"}).stdout)["cxr"] == __version__
    assert cxr("doctor", env={"CXR_DOCTOR_JSON": "0"}).stdout.startswith("Commands of cxr")


@pytest.mark.parametrize("name", COMMANDS)
def test_variables_are_named_for_the_flags(name: str) -> None:
    options = {flag: option.envvar for option in load(name).params for flag in option.opts if flag.startswith("--")}
    assert options == {flag: f"CXR_{name}{flag[1:]}".replace("-", "_").upper() for flag in options}
    assert options["--quiet"] == f"CXR_{name.upper()}_QUIET"


# --- shell completion


def complete(*words: str) -> list[str]:
    """What bash is offered for the last of `words`."""
    script = "from cxr_reason.cli import main; main(prog_name='cxr')"
    env = environment(_CXR_COMPLETE="bash_complete", COMP_WORDS=" ".join(["cxr", *words]), COMP_CWORD=str(len(words)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", env=env, timeout=60)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_of_commands_and_options() -> None:
    assert complete("") == list(COMMANDS)
    assert complete("doc") == ["doctor"]
    assert "--json" in complete("doctor", "--")
    assert complete("doctor", "doc") == ["doctor"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(cxr: Run, shell: str) -> None:
    done = cxr(env={"_CXR_COMPLETE": f"{shell}_source"})
    assert done.returncode == 0
    assert "_CXR_COMPLETE" in done.stdout


# --- the documentation


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_commands_of_the_readme_run_as_written(tmp_path: Path) -> None:
    run_blocks(readme(), tmp_path)


def run_blocks(page: str, tmp_path: Path) -> None:
    """All code of `page` but `make` and the installation, which the tests themselves go through, and what runs or
    trains models, which `make demo` does."""
    blocks = [block for block in code_blocks(page) if not WITH_MODELS.search(block)]
    assert blocks
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "archive.csv.gz").write_bytes(gzip.compress((ROOT / "examples" / "reports.csv").read_bytes()))
    for name in ("mimic", "chexpert-plus", "openi", "padchest"):
        folder = "mimic-cxr" if name == "mimic" else name
        (tmp_path / folder).symlink_to(ROOT / "tests" / "layouts" / name)
    (tmp_path / "ages.csv").write_text("patient,decade\n10000117,60s\n")
    cxr = f'cxr() {{ {sys.executable} -m cxr_reason "$@"; }}; python3() {{ {sys.executable} "$@"; }}; set -e\n'
    for block in blocks:
        done = subprocess.run(
            ["bash", "-c", cxr + block],
            capture_output=True,
            encoding="utf-8",
            env=environment(),
            cwd=tmp_path,
            timeout=300,
        )
        assert done.returncode == 0, block + done.stderr
        assert "error" not in done.stderr, block + done.stderr
    for name in {name for block in blocks for name in re.findall(r"(?:-o|--rejects|>) (\S+)", block)}:
        assert (tmp_path / name).exists(), name


def readme_blocks() -> list[str]:
    return code_blocks(readme())


def code_blocks(page: str) -> list[str]:
    code = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.M | re.S)
    return [block for kind, block in code if kind in ("", "bash") and not re.match(r"make |python3 -m venv", block)]


WITH_MODELS = re.compile(r"--ckpt|--model")


def test_readme_shows_every_command_with_options_that_it_has() -> None:
    calls = [call for block in readme_blocks() for call in re.findall(r"\bcxr (\w+)([^|>#\n]*)", block)]
    assert {name for name, _ in calls} >= {*DATA_COMMANDS, *TRAINING}
    for name, rest in calls:
        known = {option for parameter in load(name).params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) <= known, (name, rest)


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    named = set(re.findall(r"`make ([a-z]+)`", readme()))
    assert named == targets - {"help"}


def test_tree_of_the_readme_is_the_tree() -> None:
    block = re.search(r"^```tree\n(.*?)^```", readme(), flags=re.M | re.S)
    assert block
    named = set()
    folder = ""
    for line in block[1].splitlines():
        entry = line.split()[0]
        folder = folder if line.startswith(" ") else entry if entry.endswith("/") else ""
        named.add(folder + entry if line.startswith(" ") else entry)
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    package = ROOT / "cxr_reason"
    ours = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    private = {"__init__.py", "__main__.py", "commands"}  # `commands` is only the stub for a checkout
    expected = {f"cxr_reason/{path.name}{'/' if path.is_dir() else ''}" for path in ours if path.name not in private}
    assert sorted(expected - named) == []


def test_links_of_the_pages_lead_somewhere() -> None:
    pages = [
        *ROOT.glob("*.md"),
        *(page for name in ("docs", "benchmarks", "examples") for page in (ROOT / name).rglob("*.md")),
    ]
    text = {page: re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S) for page in pages}
    headings = {page: {anchor(title) for title in re.findall(r"^#+ (.*)$", text[page], flags=re.M)} for page in pages}
    assert len(pages) > 25
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", text[page]):
            if not link.startswith("http"):
                name, _, part = link.partition("#")
                target = (page.parent / name).resolve() if name else page
                assert target.exists(), (page.name, link)
                assert not part or part in headings[target], (page.name, link)


def anchor(title: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
