"""What other metrics take for an item: JSON pairs [reference, text] on stdin, {metric: seconds or why not} on stdout.

    python benchmarks/peers/text_metrics.py rouge bleu radeval:bleu radeval:rouge radeval:bertscore < pairs.json

Runs in the peers' own environment, on one core. RadEval gets all pairs at once, as its users call it; making a scorer
and the first pair are warming up and not timed.
"""

import contextlib
import json
import sys
import time


def scorer(name):
    """What scores lists of references and texts."""
    if name == "rouge":
        from rouge_score.rouge_scorer import RougeScorer

        rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
        return lambda refs, texts: [rouge.score(ref, text) for ref, text in zip(refs, texts, strict=True)]
    if name == "bleu":
        from sacrebleu.metrics.bleu import BLEU

        bleu = BLEU(effective_order=True)
        return lambda refs, texts: [bleu.sentence_score(text, [ref]) for ref, text in zip(refs, texts, strict=True)]
    from radeval import RadEval

    evaluator = RadEval(metrics=[name.partition(":")[2]], per_sample=True, show_progress=False)
    return lambda refs, texts: evaluator(refs=refs, hyps=texts)


def main():
    refs, texts = map(list, zip(*json.load(sys.stdin), strict=True))
    told = {}
    for name in sys.argv[1:]:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                score = scorer(name)
                score(refs[:1], texts[:1])
                started = time.process_time()
                score(refs, texts)
                told[name] = (time.process_time() - started) / len(refs)
        except Exception as error:
            told[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    print(json.dumps(told))


if __name__ == "__main__":
    main()
