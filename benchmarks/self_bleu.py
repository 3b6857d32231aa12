"""Self-BLEU of a prompt's responses at once, against a loop over sacrebleu.

    python benchmarks/self_bleu.py [--quick]

``sdd.metrics.bleu.bleu_against_others`` counts every n-gram of N responses once and scores them all from
that. The loop calls sacrebleu for each response with the N - 1 others as references: ``sentence_bleu``, and
``BLEU.sentence_score`` of one object, which remembers the tokens of texts that it has seen (our side
tokenizes anew each time). Texts are of about ``words`` words drawn from Zipf's law, with punctuation. Both
sides compute the same; ``ratio`` is seconds of the loop over ours, for all prompts. One JSON line a
measurement.
"""

import argparse
import json
from collections.abc import Callable, Sequence

import numpy as np
from common.timing import ratios, report

from sdd.metrics.bleu import bleu_against_others

try:
    import sacrebleu
except ImportError:
    raise SystemExit("benchmarks/self_bleu.py measures against sacrebleu: pip install sacrebleu") from None

SHAPE = dict(prompts=3, responses=64, words=150)
QUICK = dict(prompts=1, responses=3, words=10)
VOCABULARY = 3000


def texts_of(rng: np.random.Generator, responses: int, words: int) -> list[str]:
    """Responses of words / 2 .. 3 words / 2 words, one of eight with punctuation."""
    shares = 1 / np.arange(1, VOCABULARY + 1)
    texts = []
    for length in rng.integers(words // 2, 3 * words // 2 + 1, responses):
        ids = rng.choice(VOCABULARY, length, p=shares / shares.sum())
        marks = rng.choice([".", ",", " (so)", "-", *[""] * 28], length)
        texts.append(" ".join(f"w{i:x}{mark}" for i, mark in zip(ids, marks)))
    return texts


def looped(score: Callable, prompts: Sequence[list[str]]) -> np.ndarray:
    """Each response's score against the others; prompts x responses, in 0 .. 1."""
    return np.array(
        [[score(t, texts[:i] + texts[i + 1 :]).score / 100 for i, t in enumerate(texts)] for texts in prompts]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measures against both loops and prints their lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, once: whether it runs")
    quick = parser.parse_args(argv).quick
    shape = QUICK if quick else SHAPE
    rng = np.random.default_rng(0)
    prompts = [texts_of(rng, shape["responses"], shape["words"]) for _ in range(shape["prompts"])]
    remembering = sacrebleu.BLEU(effective_order=True)
    loops = {
        "self_bleu": ("a loop over sacrebleu.sentence_bleu", sacrebleu.sentence_bleu),
        "self_bleu_remembered": ("a loop over BLEU.sentence_score of one object", remembering.sentence_score),
    }

    def ours() -> np.ndarray:
        return np.array([bleu_against_others(texts) for texts in prompts])

    for name, (against, score) in loops.items():
        np.testing.assert_allclose(ours(), looped(score, prompts), atol=1e-9)  # or the ratio means nothing
        measured = ratios(ours, lambda score=score: looped(score, prompts), repetitions=1 if quick else 7)
        line = report(name, against, measured, shape)
        line["versions"]["sacrebleu"] = sacrebleu.__version__
        print(json.dumps(line))


if __name__ == "__main__":
    main()
