"""The settings of a training run: recipe < file < flags < ``--set``, resolved once and written beside the model.

Our own settings are the fields of `Settings`; everything else goes to TRL's trainer by its own name. Names are checked
against both, so a slip of the pen is an error and not a setting that does nothing.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_reason import records
from cxr_reason.errors import CxrError, InputError
from cxr_reason.scoring.tally import MEASURES, THINK_ANSWER

if TYPE_CHECKING:
    from cxr_reason.radiology.verify import Silence

UNREAD = "unread"
"""Share of the answers that can't be read."""
LESS_IS_BETTER = ("loss", UNREAD)
DTYPES = ("float32", "bfloat16", "float16")

RECIPES = Path(__file__).with_name("recipes.toml")

OURS_TO_DECIDE = {
    "steps_per_generation": "a step takes the completions of its own questions",
    "generation_batch_size": "a step takes the completions of its own questions",
    "reward_weights": "rewards decides it",
    "log_completions": "ours are written, to a file alone",
    "output_dir": "-o names the folder",
    "per_device_train_batch_size": "batch_size and micro_batch decide it",
    "per_device_eval_batch_size": "micro_batch decides it",
    "gradient_accumulation_steps": "batch_size and micro_batch decide it",
    "save_strategy": "save_steps alone decides",
    "eval_strategy": "eval_steps alone decides",
    "save_total_limit": "keep decides it",
    "save_only_model": "a run could not be continued",
    "load_best_model_at_end": "best_metric decides which model is kept",
    "metric_for_best_model": "best_metric decides it",
    "greater_is_better": "best_metric decides it",
    "packing": "TRL packs no films",
    "padding_free": "TRL can't with films",
    "remove_unused_columns": "films would be among them",
    "dataset_text_field": "records become conversations",
    "assistant_only_loss": "the loss is on the completion",
    "completion_only_loss": "the loss is on the completion",
    "disable_tqdm": "progress is ours",
    "push_to_hub": "nothing is sent anywhere",
    "enable_jit_checkpoint": "SIGTERM is answered already",
    "restore_callback_states_from_checkpoint": "runs are continued already",
    "resume_from_checkpoint": "runs are continued by themselves",
    "model_init_kwargs": "--model and dtype decide it",
}
"""Arguments of TRL's trainer that may not be set, and why."""


@dataclass(slots=True)
class Settings:
    """Everything that decides what a run trains; `trainer` are TRL's arguments by name."""

    batch_size: int = 16
    """Items a step, over all processes: however a run is started, it takes the same steps."""
    micro_batch: int = 4
    """Items that a device holds at once, at most."""
    max_length: int = 4096
    """Tokens of an item, films included; nothing is ever cut."""
    max_pixels: int = 448 * 448
    answer_only_share: float = 0.0
    """Share of the items that are trained without reasoning, in [0, 1]."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """Copies of each item of a task, in expectation; 1 where nothing is said."""
    mix: dict[str, float] = field(default_factory=dict)
    """Share of each input among the items seen; empty: as they come."""
    instruction: str | None = None
    """Instead of the standing one (`engines.prompts`)."""
    eval_share: float = 0.02
    """Share of the patients who are kept for validation, where the input has no split."""
    eval_items: int = 100
    """Items that are answered at each evaluation; 0 for the loss alone."""
    eval_tokens: int = 512
    """Longest answer at an evaluation."""
    best_metric: str = "balanced_radrscore"
    """By which the best checkpoint is known: a measure of `cxr score`, or ``loss``."""
    keep: int = 2
    """Newest checkpoints that are kept; the best is kept beside them."""
    lora_rank: int = 0
    """0 trains all weights."""
    lora_alpha: int | None = None
    """Twice the rank where nothing is said."""
    lora_dropout: float = 0.05
    freeze_vision: bool = False
    dtype: str = "float32"
    """Of the weights in memory; ``bf16`` of the trainer computes in bfloat16 all the same."""
    trainer: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Flat, as a file for ``--config`` has it."""
        told = asdict(self)
        return {**told.pop("trainer"), **told}

    def check(self) -> None:
        """Raise CxrError for a value that can't be."""
        for name in ("batch_size", "micro_batch", "max_length", "max_pixels", "keep"):
            if getattr(self, name) < 1:
                raise CxrError(f"{name} must be 1 or more", where="settings")
        for name in ("answer_only_share", "eval_share", "lora_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise CxrError(f"{name} is a share: give it in [0, 1]", where="settings")
        known = [*MEASURES, THINK_ANSWER, *LESS_IS_BETTER]
        if self.best_metric not in known:
            raise CxrError(
                f"best_metric: there is no measure {self.best_metric!r}",
                where="settings",
                hint=f"Measures: {', '.join(known)}.",
            )
        if self.dtype not in DTYPES:
            raise CxrError(
                f"dtype can't be {self.dtype!r}", where="settings", hint=f"It is one of {', '.join(DTYPES)}."
            )
        unknown = sorted(set(self.task_weights) - set(records.TASKS))
        if unknown:
            raise CxrError(
                f"task_weights: there is no task {unknown[0]!r}",
                where="settings",
                hint=f"Tasks: {', '.join(records.TASKS)}.",
            )
        if any(weight < 0 for weight in [*self.task_weights.values(), *self.mix.values()]):
            raise CxrError("a weight can't be negative", where="settings")


CREDITS = ("step", "sequence")


@dataclass(slots=True)
class RlSettings(Settings):
    """Those of reinforcement learning: `batch_size` counts questions, `micro_batch` completions."""

    rewards: dict[str, float] = field(default_factory=lambda: {"format": 1.0, "accuracy": 1.0, "process": 1.0})
    """Weight of each reward: a name of `rewards.functions`, ``radeval:NAME`` or ``package.module:function``."""
    credit: str = "step"
    """``step``: a completion's tokens share its advantage, those of its steps more or less by their verdicts;
    ``sequence``: all alike."""
    step_weight: float = 0.5
    """How much the verdicts of the steps count beside the reward of the whole (λ of `training.credit`)."""
    silence: Silence = "normal"
    """What rewards of reasoning make of a finding that the report doesn't mention."""
    min_reward_std: float = 0.0
    """Groups whose rewards differ by less are left out of the step; 0 keeps them."""
    strict_rewards: bool = False
    """Whether a reward that fails ends the run."""
    keep_completions: bool = True
    """Whether completions go with their rewards and verdicts to ``completions/``."""

    def check(self) -> None:
        super(RlSettings, self).check()
        if self.best_metric == "loss":
            raise CxrError(
                "best_metric can't be the loss, which says nothing in reinforcement learning",
                where="settings",
                hint="Name a measure of cxr score, such as balanced_radrscore.",
            )
        if self.credit not in CREDITS:
            raise CxrError(f"credit can't be {self.credit!r}", where="settings", hint=f"It is {' or '.join(CREDITS)}.")
        if self.silence not in ("normal", "unknown"):
            raise CxrError(f"silence can't be {self.silence!r}", where="settings", hint="It is normal or unknown.")
        if self.step_weight < 0 or self.min_reward_std < 0:
            raise CxrError("step_weight and min_reward_std can't be negative", where="settings")
        if not self.rewards:
            raise CxrError("there is no reward", where="settings", hint="Name one: --reward accuracy=1.")


def own(kind: type[Settings] = Settings) -> tuple[str, ...]:
    """The names of our own settings."""
    return tuple(entry.name for entry in fields(kind) if entry.name != "trainer")


WHAT_ITEMS_ARE = ("max_length", "max_pixels", "answer_only_share", "task_weights", "mix", "instruction", "eval_share")
"""Settings that decide the items, and so have to be the same where a run goes on; `eval_items` may change."""


@cache
def recipes(stage: str) -> dict[str, dict[str, Any]]:
    """The settings of each recipe that has a `stage`."""
    told = tomllib.loads(RECIPES.read_text(encoding="utf-8"))
    return {name: stages[stage] for name, stages in told.items() if stage in stages}


def resolve(
    stage: str,
    *,
    known: Iterable[str],
    kind: type[Settings] = Settings,
    recipe: str | None = None,
    file: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a run. `known` are the names that TRL's trainer takes.

    Raises CxrError for a name that nobody knows, for one that is `OURS_TO_DECIDE`, and for a value of another kind.
    """
    told: dict[str, Any] = {**(defaults or {}), **(recipes(stage)[recipe] if recipe else {})}
    for source, values in (("--config", file), ("the flags", flags), ("--set", sets)):
        for name, value in (values or {}).items():
            _check_name(name, own(kind), set(known), source, stage)
            told[name] = value
    ours = {name: told.pop(name) for name in own(kind) if name in told}
    settings = kind(**{name: _of_kind(kind, name, value) for name, value in ours.items()}, trainer=told)
    settings.check()
    return settings


def _check_name(name: str, ours: Iterable[str], known: set[str], source: str, stage: str) -> None:
    if name in ours:
        return
    if why := OURS_TO_DECIDE.get(name):
        raise CxrError(f"{name} can't be set: {why}", where=source)
    if name not in known:
        near = difflib.get_close_matches(name, [*ours, *known], n=1)
        hint = f"Is {near[0]} meant?" if near else f"`cxr {stage} -h` and TRL's trainer name the settings."
        raise CxrError(f"there is no setting {name!r}", where=source, hint=hint)


def _of_kind(settings: type[Settings], name: str, value: Any) -> Any:
    """`value` as the setting `name` has it: YAML reads 1e-4 as a text, and 1 where 1.0 is meant."""
    kinds = {entry.name: str(entry.type) for entry in fields(settings)}
    kind = kinds[name]
    if value is None and "None" in kind:
        return None
    if isinstance(value, bool) != (kind == "bool"):
        raise CxrError(f"{name} can't be {value!r}", where="settings")
    try:
        if kind.startswith("int"):
            if float(value) != int(value):
                raise ValueError
            return int(value)
        if kind == "float":
            return float(value)
        if kind.startswith("dict"):
            return {str(key): float(weight) for key, weight in dict(value).items()}
    except (TypeError, ValueError):
        raise CxrError(f"{name} can't be {value!r}", where="settings") from None
    return value if kind == "bool" else str(value)


def accumulation(batch: int, micro: int, *, world: int) -> tuple[int, int]:
    """(items a device holds, micro-steps a step), so that a step takes `batch` items over `world` processes.

    At most `micro` are held at once. Raises CxrError where that doesn't divide.
    """
    share, rest = divmod(batch, world)
    if rest or not share:
        raise CxrError(
            f"batches of {batch} can't be dealt to {world} processes",
            where="--batch-size",
            hint=f"Take a multiple of {world}.",
        )
    held = next(size for size in range(min(micro, share), 0, -1) if share % size == 0)
    return held, share // held


def read_file(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError where it can't be read as such."""
    import yaml

    try:
        told = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"no settings can be read here ({type(error).__name__})", where=str(path)) from None
    if not isinstance(told, dict):
        raise InputError("a file of settings is a list of NAME: VALUE", where=str(path))
    return {str(name): _number(value) for name, value in told.items()}


def value_of(text: str) -> Any:
    """What stands behind ``--set name=``, read as YAML: a number, true, a text, a {map}."""
    import yaml

    try:
        return _number(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-4 for a text, because it has no point."""
    if isinstance(value, str):
        try:
            return float(value) if value[:1] in "0123456789.-+" else value
        except ValueError:
            return value
    return value


def write(settings: Settings, path: Path, *, about: str) -> None:
    """Write `settings` as a file that ``--config`` reads."""
    import yaml

    path.write_text(f"# {about}\n" + yaml.safe_dump(settings.as_dict(), sort_keys=True), encoding="utf-8")
