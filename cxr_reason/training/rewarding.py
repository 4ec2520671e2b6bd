"""The rewards of a run: names to functions, and functions that a run survives."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cxr_reason import console
from cxr_reason.errors import CxrError
from cxr_reason.radiology.verify import Silence
from cxr_reason.rewards.functions import OF_REASONING, REWARDS, Reward, texts
from cxr_reason.training.settings import RlSettings

RADEVAL = "radeval:"


def resolve(name: str, *, silence: Silence = "normal") -> Reward:
    """The function of a reward: one of ours, a metric of RadEval, or ``package.module:function``.

    `silence` is what those of reasoning make of a finding that the report doesn't mention. Raises CxrError where there
    is none of that name.
    """
    if name in OF_REASONING:
        return partial(REWARDS[name], silence=silence)
    if name in REWARDS:
        return REWARDS[name]
    if name.startswith(RADEVAL):
        return _of_metric(name)
    module, colon, function = name.partition(":")
    if not colon:
        raise CxrError(
            f"there is no reward {name!r}",
            where="--reward",
            hint=f"There are {', '.join(REWARDS)}, {RADEVAL}NAME, and your own as package.module:function.",
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CxrError(f"{name} can't be imported ({type(error).__name__})", where="--reward") from error
    if not callable(found):
        raise CxrError(f"{name} is no function", where="--reward")
    return found  # type: ignore[no-any-return]


def _of_metric(name: str) -> Reward:
    """The first measure of a metric of `cxr score --metrics`."""
    from cxr_reason.scoring import metrics

    if name not in metrics.METRICS:
        known = ", ".join(known for known in metrics.METRICS if known.startswith(RADEVAL))
        raise CxrError(f"there is no metric {name!r}", where="--reward", hint=f"There are {known}.")
    metrics.load([name])
    measure = metrics.METRICS[name].measures[0]

    def reward(completions: Sequence[Any], steps: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = ({"steps": chain, "prediction": text} for chain, text in zip(steps, texts(completions), strict=True))
        return [metrics.values([name], row).get(measure) for row in rows]

    return reward


def of(chosen: RlSettings) -> list[Surviving]:
    """The rewards of a run, in the order of its settings. Raises CxrError for one that there isn't."""
    return [
        Surviving(name, resolve(name, silence=chosen.silence), strict=chosen.strict_rewards) for name in chosen.rewards
    ]


class Surviving:
    """A reward that fails on an item names itself and the item, gives nothing for it, and the run goes on.

    With `strict` the run ends there. `failures` counts. A message tells no text: an exception's own may quote one.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, strict: bool = False) -> None:
        self.__name__ = name
        self._function = function
        self._strict = strict
        self.failures = 0

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        try:
            told = list(self._function(prompts=prompts, completions=completions, **columns))
            if len(told) != len(completions):
                raise CxrError(
                    f"it gave {len(told)} numbers for {len(completions)} completions", where=f"--reward {self.__name__}"
                )
        except CxrError:
            raise
        except Exception as error:  # whatever a stranger's function raises
            told = self._one_by_one(error, prompts, completions, columns)
        ids = columns.get("id") or [None] * len(told)
        return [self._number(value, identity) for value, identity in zip(told, ids, strict=True)]

    def _one_by_one(
        self, error: Exception, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> list[Any]:
        told: list[Any] = []
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            mine = {
                name: [value[number]] if isinstance(value, list) and len(value) == len(completions) else value
                for name, value in columns.items()
            }
            try:
                (value,) = self._function(prompts=[prompt], completions=[completion], **mine)
                told.append(value)
            except Exception as again:
                told.append(None)
                self._failed(
                    f"raised {type(again).__name__}", (columns.get("id") or [None])[number : number + 1], again
                )
        return told

    def _number(self, value: Any, identity: Any) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            self._failed(f"gave a {type(value).__name__}", [identity], error)
            return None
        if not math.isfinite(number):
            self._failed(f"gave {number}", [identity], None)
            return None
        return number

    def _failed(self, what: str, identity: Sequence[Any], cause: Exception | None) -> None:
        self.failures += 1
        told = f"the reward {self.__name__} {what} on item {identity[0] if identity else None}"
        if self._strict:
            raise CxrError(told, where=f"--reward {self.__name__}") from cause
        console.warn(f"{told}: left out", kind="rewards that failed")
