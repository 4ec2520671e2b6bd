"""A training run from its records to its model: what `cxr sft` and `cxr rl` have in common.

A `Stage` says what is its own: TRL's trainer and its arguments, what an item is, how it is measured. The rest is one
way for both: records become items on disk, what would spoil the run is refused, checkpoints appear whole, a run that
was stopped goes on, and the model that is kept is the one that answered best.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cxr_reason import console, records
from cxr_reason.cluster import ranks_from_environment
from cxr_reason.engines import Message, Prompt, models
from cxr_reason.engines.chat import Chat
from cxr_reason.errors import CxrError, Terminated
from cxr_reason.films import Films
from cxr_reason.sinks import whole
from cxr_reason.training import checkpoints, curves, data, ranks, settings
from cxr_reason.training.refusals import Refusals
from cxr_reason.training.settings import Settings

CURVES = "training.svg"
MAY_CHANGE = frozenset(
    (
        *("keep", "eval_items", "eval_tokens", "micro_batch"),
        *("save_steps", "eval_steps", "logging_steps", "report_to", "run_name", "project", "ddp_timeout"),
        *("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "log_level"),
    )
)
"""Settings that a run may go on with in another value: they decide what is kept and shown, not what is learnt."""
DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "report_to": "none",
    "logging_steps": 1,  # TRL waits for the numbers of every step anyway
    "save_steps": 200,
    "eval_steps": 200,
    "ddp_timeout": 24 * 3600,  # while the first process reads the records, the others wait
}
VISION = ("visual", "vision_tower", "vision_model", "vision_encoder")
PROJECTOR = ("merger", "projector")
PROBED = 4
"""Sizes of films on which model and processor are tried together."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is trained on what, and where it goes; the command line without its settings."""

    inputs: Sequence[str]
    """Files and folders of records; ``-`` is stdin."""
    model: str
    out: Path
    settings: Settings
    allowed: Sequence[str] = ()
    """Refusals that are none (`refusals.ALLOWABLE`)."""
    apart_from: Sequence[str] = ()
    image_root: Path | None = None
    film_cache: Path | None = None
    max_failed: float = 0.05
    rejects: Path | None = None
    """Where records go that are left out, with reasons."""
    force: bool = False
    dry_run: bool = False
    """Whether to stop when the records are read and nothing was refused; no model is loaded."""
    trust_remote_code: bool = False

    @property
    def seed(self) -> int:
        return int(self.settings.trainer.get("seed", 0))

    @property
    def films(self) -> Films:
        return Films(root=self.image_root, max_pixels=self.settings.max_pixels, cache=self.film_cache)


class Stage(ABC):
    """What one kind of training has of its own."""

    name: str
    kind: type[Settings] = Settings
    """Its settings."""
    may_change: frozenset[str] = MAY_CHANGE
    has_loss: bool = True
    """Whether there is a loss on validation items, which needs no answers."""
    shape: data.Shape = data.Shape()
    """What its items hold."""

    @abstractmethod
    def config(self) -> Any:
        """The class of TRL's arguments."""

    @abstractmethod
    def arguments(self, run: Run, *, world: int) -> dict[str, Any]:
        """TRL's arguments that are ours to decide, beside those of every stage."""

    @abstractmethod
    def measure(self, run: Run, chat: Chat, refusals: Refusals) -> data.Measure:
        """What measures an item in tokens."""

    @abstractmethod
    def trainer(self, run: Run, model: Any, adapter: Any, *, args: Any, first: bool, **given: Any) -> Any:
        """TRL's trainer with our checkpoints and our evaluation; `given` are its data, processor and callbacks."""

    def sift(self, run: Run) -> data.Sift | None:
        """What says which records aren't worth training on."""
        return None

    def decides(self, run: Run) -> dict[str, Any]:
        """What decides its items, beside `settings.WHAT_ITEMS_ARE`."""
        return {}

    @property
    def resolved(self) -> str:
        """The file of its settings, beside the model."""
        return f"{self.name}.yaml"

    def known(self) -> list[str]:
        """The names of the arguments that TRL's trainer takes."""
        return [entry.name for entry in fields(self.config())]

    def settings(self, **sources: Any) -> Settings:
        """`settings.resolve` for this stage; `sources` are its recipe, file, flags and sets."""
        return settings.resolve(self.name, known=self.known(), kind=self.kind, **sources)


def train(stage: Stage, run: Run) -> dict[str, Any]:
    """Train, or go on where an earlier run stopped; the model is then in `run.out`, and its checkpoints below.

    Gives {"checkpoint", "step", "best_step", "metrics"}; {} in processes other than the first, and of a dry run. Raises
    CxrError for what is refused, Terminated (or KeyboardInterrupt) after a signal, when a checkpoint has been saved.
    """
    # TRL tells its makers of every trainer that is made; nothing of a run is anybody's business.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loaders fork
    rank, world = ranks_from_environment()
    if rank:
        console.set_quiet(True)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for our last line alone
            return _train(stage, run, first=rank == 0, world=world)
    except CxrError as error:
        if rank:
            raise ranks.Followed(error.exit_code) from error
        raise


def _train(stage: Stage, run: Run, *, first: bool, world: int) -> dict[str, Any]:
    import transformers

    if not console.is_verbose():
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        warnings.filterwarnings("ignore", category=UserWarning, module=r"trl\.")  # of versions, again and again
    args = None if run.dry_run else _arguments(stage, run, world=world)
    checkpoint = models.resolve(run.model, trust_remote_code=run.trust_remote_code)
    chat = Chat(checkpoint, trust_remote_code=run.trust_remote_code)
    if not chat.sees:
        raise CxrError("this model takes no images", where=run.model, hint="Name a vision-language model.")
    with _locked(run.out) if first else contextlib.nullcontext():
        done = ranks.first_does(lambda: _prepared(stage, run, checkpoint, chat))
        if world > 1:
            done = ranks.gathered([done])[0]
        assert done
        about, finished = done
        if finished:
            console.note(f"{run.out} is trained already, with these settings on these records: --force starts over")
            return finished
        if run.dry_run:
            console.note(f"the items are in {run.out / data.FOLDER}: the same command without --dry-run trains on them")
            return {}
        return _fit(stage, run, args, checkpoint, chat, about, first=first)


# -------------------------------------------------------------------------------------------------------- preparation


def _arguments(stage: Stage, run: Run, *, world: int) -> Any:
    """TRL's arguments. Making them joins the processes of a distributed run."""
    import torch

    given = dict(run.settings.trainer)
    on_cpu = given.get("use_cpu") or not torch.cuda.is_available()
    if on_cpu:
        given.setdefault("bf16", False)
        given.setdefault("dataloader_pin_memory", False)
    elif world == 1 and torch.cuda.device_count() > 1:
        raise CxrError(
            f"{torch.cuda.device_count()} GPUs are visible, and this is one process",
            hint=f"Start it by `torchrun --nproc-per-node gpu -m cxr_reason {stage.name} …`, or set "
            "CUDA_VISIBLE_DEVICES=0.",
        )
    own = {
        "output_dir": os.fspath(run.out),
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "save_strategy": "steps",
        "eval_strategy": "no",
        "metric_for_best_model": f"eval_{run.settings.best_metric}",
        "greater_is_better": run.settings.best_metric not in settings.LESS_IS_BETTER,
        "load_best_model_at_end": False,
        **stage.arguments(run, world=world),
    }
    quiet = {} if console.is_verbose() else {"log_level": "error", "log_level_replica": "error"}
    try:
        return stage.config()(**{**DEFAULTS, **quiet, **given, **own})
    except (TypeError, ValueError) as error:
        # Transformers' messages about its arguments name settings, never data.
        raise CxrError(f"the trainer doesn't take these settings: {error}", where="settings") from error


def _prepared(
    stage: Stage, run: Run, checkpoint: models.Checkpoint, chat: Chat
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Everything before a model is loaded: the items on disk, and what is known of the run.

    Gives what ``cxr.json`` will say, and the result where the run is finished already.
    """
    _require_own(run.out, checkpoint)
    checkpoints.sweep(run.out)
    fingerprint = models.fingerprint(checkpoint)
    if run.force:
        _start_over(run.out)
    inputs = [data.spooled(run.out / data.FOLDER) if name == "-" else Path(name) for name in run.inputs]
    refusals = Refusals(run.allowed)
    items = data.prepare(
        inputs,
        run.out,
        run.settings,
        seed=run.seed,
        films=run.films,
        measure=stage.measure(run, chat, refusals),
        refusals=refusals,
        apart_from=run.apart_from,
        max_failed=run.max_failed,
        shape=stage.shape,
        stage=stage.name,
        rejects=run.rejects,
        sift=stage.sift(run),
        about={
            **stage.decides(run),
            "template": records.config_hash({"template": chat.template, "tokenizer": len(chat.tokenizer)}),
        },
    )
    decides = {name: value for name, value in run.settings.as_dict().items() if name not in stage.may_change}
    identity = records.config_hash({**decides, "items": items.identity, "model": fingerprint})
    about: dict[str, Any] = {
        "stage": stage.name,
        "identity": identity,
        "model": run.model,
        "parent": {"path": os.fspath(checkpoint.adapter or checkpoint.path), "fingerprint": fingerprint},
        "data": [{"path": source.path, "blake2b": source.digest, "items": source.items} for source in items.sources],
        "image_root": os.path.abspath(run.image_root) if run.image_root else None,
        "counts": dict(items.counts),
        "config": run.settings.as_dict(),
    }
    finished = _check_earlier(stage, run, identity)
    if finished is None:
        about_file = f"What this model was trained with: cxr {stage.name} --config"
        settings.write(run.settings, run.out / stage.resolved, about=about_file)
        _tell(stage, items, run.settings)
    return about, finished


def _require_own(out: Path, checkpoint: models.Checkpoint) -> None:
    """Raise CxrError where `out` holds a model that would be lost: the one that is trained, or one that isn't ours."""
    if any(folder and folder.resolve() == out.resolve() for folder in (checkpoint.path, checkpoint.adapter)):
        raise CxrError("the model that is trained lies in this folder", where=str(out), hint="Give another -o.")
    if checkpoints.holds_model(out) and not (out / data.FOLDER / data.MANIFEST).exists():
        raise CxrError(
            "a model lies in this folder that isn't from cxr, or whose records are gone",
            where=str(out),
            hint="Give another -o, or move it away.",
        )


def _start_over(out: Path) -> None:
    for _, path in checkpoints.numbered(out):
        shutil.rmtree(path)
    checkpoints.withdraw(out)
    for name in (checkpoints.METRICS, CURVES):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / checkpoints.COMPLETIONS, ignore_errors=True)
    data_folder = out / data.FOLDER
    if data_folder.is_dir():
        (data_folder / data.MANIFEST).unlink(missing_ok=True)


def _check_earlier(stage: Stage, run: Run, identity: str) -> dict[str, Any] | None:
    """The result of a run that is finished. Raises CxrError where another run's checkpoints lie in the folder."""
    told = checkpoints.read(run.out)
    saved = [checkpoints.read(path) for _, path in checkpoints.numbered(run.out)]
    for earlier in filter(None, [told, *saved]):
        if earlier.get("identity") != identity:
            changed = _changed(stage, earlier.get("config") or {}, run.settings.as_dict())
            raise CxrError(
                "a run with other settings, records or another model is in this folder"
                + (f" ({', '.join(changed)} changed)" if changed else ""),
                where=str(run.out),
                hint="Give another -o, the same settings to go on with that one, or --force to start over.",
            )
    if told is not None and checkpoints.fault(run.out) is None:
        return dict(told["result"])
    return None


def _changed(stage: Stage, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted({*before, *now} - stage.may_change)
    return [name for name in names if before.get(name) != now.get(name)]


def _tell(stage: Stage, items: data.Items, chosen: Settings) -> None:
    counts = items.counts
    rows = [[task, number] for task, number in sorted(counts["by_task"].items())]
    console.table("What is trained", ["task", "items"], rows)
    left_out = {
        "of the split test": counts["test"],
        "unreadable": counts["unreadable"],
        "without their film": counts["no_film"],
        "whose answers are worth the same": counts["sifted"],
    }
    told = ", ".join(f"{number:,} {name}" for name, number in left_out.items() if number)
    console.note(
        f"{stage.name}: {counts['read']:,} records, {counts['train']:,} items to train on "
        f"({counts['answer_only']:,} of them answer-only), {counts['validate']:,} for validation, the longest of "
        f"{counts['longest']:,} tokens" + (f"; left out: {told}" if told else "")
    )
    for source in items.sources if chosen.mix else ():
        console.note(f"mix: {source.items:,} items of {source.path}")


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The output folder, made where it isn't there, held by this run alone."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CxrError(error.strerror or "can't be written", where=str(out)) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CxrError("another run is training here", where=str(out), hint="Wait for it, or give -o.") from None
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------------ training


def _fit(
    stage: Stage,
    run: Run,
    args: Any,
    checkpoint: models.Checkpoint,
    chat: Chat,
    about: dict[str, Any],
    *,
    first: bool,
) -> dict[str, Any]:
    from transformers import AutoProcessor, PrinterCallback, TrainerState

    from cxr_reason.training.callbacks import AtStart, Numbers, StopOnSignal
    from cxr_reason.training.evaluation import Exam

    items = data.load_manifest(run.out)
    assert items
    films, chosen = run.films, run.settings
    train, validate = data.datasets_of(items, chosen, films=films, seed=run.seed)
    sample = data.sample_of(items) if validate is not None else []
    if validate is not None and int(args.eval_steps or 0) and (sample or stage.has_loss):
        args.eval_strategy = "steps"
    else:
        args.metric_for_best_model = None
        console.note("nothing is evaluated: the last model is the one that stays")
    processor = AutoProcessor.from_pretrained(checkpoint.texts, trust_remote_code=run.trust_remote_code)
    stop, numbers = StopOnSignal(), Numbers(run.out, name=stage.name, first=first)
    model, adapter = _model(run, checkpoint)
    trainer = stage.trainer(
        run, model, adapter, args=args, first=first, train_dataset=train, eval_dataset=validate,
        processing_class=processor, callbacks=[stop, numbers],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(AtStart(trainer.make_up))
    _check_films(trainer, chat)
    trainer.keep = chosen.keep
    trainer.best_metric = chosen.best_metric
    trainer.about = lambda: {**about, "step": trainer.state.global_step, "metrics": _metrics(trainer.state)}
    if sample:
        trainer.exam = Exam(
            sample,
            chat,
            films=films,
            max_tokens=chosen.eval_tokens,
            batch_size=args.per_device_eval_batch_size,
            thinks=[
                not data.is_answer_only(record, share=chosen.answer_only_share, seed=run.seed) for record in sample
            ],
            instruction=chosen.instruction,
        )
    saved = checkpoints.newest(run.out)
    if saved:
        console.note(f"going on from step {saved.step:,} ({saved.path})")
        trainer.state = TrainerState.load_from_json(os.fspath(saved.path / "trainer_state.json"))
    speed = {}
    # Trainer would take one step more than it should from the last checkpoint of a run that was killed at its very end.
    if not saved or saved.step < trainer.state.max_steps:
        with stop:
            try:
                speed = _trained(trainer, saved)
            finally:
                numbers.close()
                if first:
                    _draw(run.out)
        speed["tokens_per_second"] = numbers.tokens_per_second
    if stop.stopped and trainer.state.global_step < trainer.state.max_steps:
        if stop.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(f"stopped at step {trainer.state.global_step:,}, saved: the same command goes on from there")
    return ranks.first_does(lambda: _published(run, trainer.state, about, speed)) or {}


def _trained(trainer: Any, saved: checkpoints.Saved | None) -> dict[str, Any]:
    """Take the steps that are left; how the loss and the speed were."""
    started, before = time.monotonic(), saved.step if saved else 0
    done = trainer.train(resume_from_checkpoint=os.fspath(saved.path) if saved else None)
    steps = trainer.state.global_step - before
    return {"train_loss": done.training_loss, "steps_per_second": steps / (time.monotonic() - started)}


def _model(run: Run, checkpoint: models.Checkpoint) -> tuple[Any, Any]:
    """The model, with the adapter that it comes with, and what a new adapter shall be."""
    from transformers import AutoModelForImageTextToText

    chosen = run.settings
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint.path, dtype=chosen.dtype, use_safetensors=True, trust_remote_code=run.trust_remote_code
        )
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise models.explain(error, checkpoint) from error
    if chosen.freeze_vision:
        _freeze_vision(model, run.model)
    adapter = None
    if checkpoint.adapter:
        from peft import PeftModel

        if chosen.lora_rank:
            raise CxrError(
                "this is a LoRA already, and is trained on as it is", where=run.model, hint="Leave --lora out."
            )
        model = PeftModel.from_pretrained(model, checkpoint.adapter, is_trainable=True)
    elif chosen.lora_rank:
        from peft import LoraConfig

        adapter = LoraConfig(
            r=chosen.lora_rank,
            lora_alpha=chosen.lora_alpha or 2 * chosen.lora_rank,
            lora_dropout=chosen.lora_dropout,
            target_modules="all-linear",
            # vLLM applies adapters to the language model alone.
            exclude_modules=rf".*\b({'|'.join((*VISION, *PROJECTOR, 'multi_modal_projector'))})\b.*",
            task_type="CAUSAL_LM",
        )
    return model, adapter


def _freeze_vision(model: Any, name: str) -> None:
    """Train no weight of the vision tower; what carries its output over to the language model is trained."""
    frozen = 0
    for path, parameter in model.named_parameters():
        parts = path.split(".")
        if any(part in VISION for part in parts) and not any(word in part for part in parts for word in PROJECTOR):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    if not frozen:
        raise CxrError("no vision tower is known in this model", where=name, hint="Leave --freeze-vision out.")
    console.note(f"the vision tower is frozen: {frozen:,} weights")


def _check_films(trainer: Any, chat: Chat) -> None:
    """Refuse, before the first step, a processor whose tokens for a film are not as many as the model's features.

    Tried on the model itself with films of several sizes. Weights that are spread over processes can't be tried so.
    """
    import torch

    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    refusals, tried = Refusals(), 0
    sizes: set[tuple[Any, ...]] = set()
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.eval()
    for index in range(min(len(trainer.train_dataset), 50)):
        example = trainer.train_dataset[index]
        size = tuple(image.size for image in example["images"])
        if not size or size in sizes or len(sizes) >= PROBED:
            continue
        sizes.add(size)
        inputs = _asked(chat, example["prompt"], example["images"]).to(trainer.accelerator.device)
        tried += 1
        try:
            with torch.no_grad(), trainer.compute_loss_context_manager():
                model(**inputs, use_cache=False)
        except (ValueError, RuntimeError, IndexError) as error:
            if not isinstance(error, ValueError) and "out of memory" in str(error):
                raise
            shapes = ", ".join(f"{width}x{height}" for width, height in size)
            refusals.note("image-tokens", "", f"films of {shapes} pixels")
    model.train()
    refusals.settle(total=tried)


def _asked(chat: Chat, messages: Sequence[Mapping[str, str]], images: Sequence[Any]) -> Any:
    """What a model is given of a conversation and its films."""
    turns = tuple(Message(turn["role"], turn["content"]) for turn in messages)  # type: ignore[arg-type]
    text = chat.text(Prompt(turns, images=tuple(images)))
    return chat.processor(text=[text], images=[list(images)], add_special_tokens=False, return_tensors="pt")


def _metrics(state: Any, step: int | None = None) -> dict[str, Any]:
    """The numbers that were logged last, by name; the last of those up to `step`, where one is given."""
    from cxr_reason.training.callbacks import LIKE_SPEED, numbers

    told: dict[str, Any] = {}
    for row in state.log_history:
        if step is None or row["step"] <= step:
            told |= numbers(row)
    return {name: value for name, value in told.items() if not name.endswith(LIKE_SPEED) and name != "step"}


def _published(run: Run, state: Any, about: Mapping[str, Any], speed: Mapping[str, Any]) -> dict[str, Any]:
    """Make the output folder the model of the best checkpoint; what stdout gets."""
    best = state.best_global_step
    chosen = next((path for step, path in checkpoints.numbered(run.out) if step == (best or state.global_step)), None)
    if chosen is None or checkpoints.fault(chosen):
        raise CxrError(
            "the checkpoint that was to be kept is gone", where=str(run.out), hint="Was it deleted meanwhile?"
        )
    kept = best or state.global_step
    metrics = _metrics(state, kept)
    result = {
        "checkpoint": os.fspath(run.out),
        "step": state.global_step,
        "best_step": best,
        "metrics": {**metrics, **speed},
    }
    checkpoints.publish(chosen, run.out, {**about, "step": kept, "metrics": metrics, "result": result})
    return result


def _draw(out: Path) -> None:
    from cxr_reason.training.callbacks import read_metrics

    rows = read_metrics(out / checkpoints.METRICS)
    if rows:
        with whole(out / CURVES) as file:
            file.write(curves.svg(rows, title=out.name).encode())
