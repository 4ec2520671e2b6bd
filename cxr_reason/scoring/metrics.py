"""Text metrics that others know models by, each computed by its own library: how alike two texts are, word by word.

They compare the prediction's reasoning (without its answer) with the reference chain (the texts of all its steps) and
know nothing of radiology: ROUGE and BLEU pay a flipped negation almost as well as the truth. They stand beside
RadRScore so that a model can be compared with what was published elsewhere.

`METRICS` is the table. ``radeval:NAME`` is a metric of RadEval (EMNLP 2025 demonstrations, 40). Of its registry those
are known here that are numbers in [0, 1], are made for such texts, and ask no service: a report's text must not leave
the machine. Most of them load a model by name, which their libraries fetch from its hub unless it lies in their cache.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from cxr_reason.environment import install_line
from cxr_reason.errors import CxrError
from cxr_reason.rewards import prose

Scorer = Callable[[str, str], Mapping[str, float]]
"""(reference, text) to values by measure."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: the `measures` that it gives, and what makes its scorer, importing `module` of the package `package`.

    `extra` is that of ours which brings the package, if one does.
    """

    measures: tuple[str, ...]
    make: Callable[[], Scorer]
    module: str
    package: str
    extra: str | None = None


def _rouge() -> Scorer:
    """ROUGE-1, -2 and -L (Lin 2004) as F1 over stemmed words, as most papers tell it."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    return lambda reference, text: {name: told.fmeasure for name, told in scorer.score(reference, text).items()}


def _bleu() -> Scorer:
    """BLEU-4 of each item (Papineni et al. 2002), smoothed exponentially as sacrebleu does where an n-gram is missing.

    The mean of these is not the corpus BLEU, which is no mean of items and has no interval over patients.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(effective_order=True)
    return lambda reference, text: {"bleu": scorer.sentence_score(text, [reference]).score / 100}


def _radeval(name: str) -> Scorer:
    """The metric `name` of RadEval's registry, item by item."""
    with _quiet_stdout():
        from radeval import RadEval

        evaluator = RadEval(metrics=[name], per_sample=True, show_progress=False)

    def score(reference: str, text: str) -> dict[str, float]:
        with _quiet_stdout():
            told: Mapping[str, Sequence[float]] = evaluator(refs=[reference], hyps=[text])
        return {f"radeval:{measure}": float(values[0]) for measure, values in told.items()}

    return score


_RADEVAL: dict[str, tuple[str, ...]] = {
    "bleu": ("bleu",),
    "rouge": ("rouge1", "rouge2", "rougeL"),
    "bertscore": ("bertscore",),
    "radeval_bertscore": ("radeval_bertscore",),
    "f1chexbert": ("f1chexbert_sample_acc_5", "f1chexbert_sample_acc_all"),
    "radgraph": ("radgraph_simple", "radgraph_partial", "radgraph_complete"),
    "ratescore": ("ratescore",),
    "srrbert": ("srrbert_weighted_f1", "srrbert_weighted_precision", "srrbert_weighted_recall"),
    "temporal": ("temporal_f1",),
    "green": ("green",),
}
"""What each of its metrics gives for a single item, under RadEval's own names."""

METRICS: dict[str, Metric] = {
    "rouge": Metric(("rouge1", "rouge2", "rougeL"), _rouge, "rouge_score", "rouge-score", "metrics"),
    "bleu": Metric(("bleu",), _bleu, "sacrebleu", "sacrebleu", "metrics"),
    **{
        f"radeval:{name}": Metric(
            tuple(f"radeval:{measure}" for measure in measures), partial(_radeval, name), "radeval", "radeval"
        )
        for name, measures in _RADEVAL.items()
    },
}
"""Each metric by the name that `--metrics` takes."""


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """What a library prints goes to stderr: stdout is for the score."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def load(names: Iterable[str]) -> None:
    """Make the scorers of `names`, before any work is done. Raises CxrError where a library or its model is missing."""
    for name in names:
        metric = METRICS[name]
        if importlib.util.find_spec(metric.module) is None:
            mend = install_line([f"cxr-reason[{metric.extra}]" if metric.extra else metric.package])
            raise CxrError(f"{name} needs {metric.package}", where="--metrics", hint=mend)
        try:
            _scorer(name)
        except Exception as error:  # whatever a stranger's library raises; no report has been read yet
            first = str(error).partition("\n")[0]
            raise CxrError(
                f"{name} can't be loaded: {type(error).__name__}: {first}",
                where="--metrics",
                hint=f"It is {metric.package}'s own metric; most of those need a model from the hub, once.",
            ) from None


def values(names: Iterable[str], record: Mapping[str, Any]) -> dict[str, float]:
    """The measures of `names` for the prediction of `record`, each in [0, 1].

    None at all where there is no prediction or no reference chain; 0 where the prediction reasons nothing. A value
    that a library puts outside [0, 1] (BERTScore of texts that have nothing in common) becomes the nearer end, and what
    it can't tell (NaN) is left out.
    """
    reference, prediction = reference_text(record), record.get("prediction")
    if not reference or not isinstance(prediction, str):
        return {}
    told = prose.parts(prediction)[0]
    found: dict[str, float] = {}
    for name in names:
        if told:
            scores = _scorer(name)(reference, told)
            found |= {name: _within(value) for name, value in scores.items() if not math.isnan(value)}
        else:
            found |= dict.fromkeys(METRICS[name].measures, 0.0)
    return found


def reference_text(record: Mapping[str, Any]) -> str:
    """The reference chain as one text; "" where there is none."""
    steps = record.get("steps")
    told = (
        [step.get("text") if isinstance(step, Mapping) else step for step in steps] if isinstance(steps, list) else []
    )
    return " ".join(text.strip() for text in told if isinstance(text, str) and text.strip())


def _within(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 6)


@cache
def _scorer(name: str) -> Scorer:
    """The scorer of a metric, made once in each process: some load a model."""
    return METRICS[name].make()
