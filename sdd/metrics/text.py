"""Text-level metrics of the responses to one prompt: how alike they are as strings.

None of them sees meaning, and each depends on the number and the length of the
texts; compare equal numbers, and see `response_words` beside them. Shaib et al.
2024 (2403.00553) compare most of them. They are computed on the host.
"""

import gzip
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from sdd.metrics.bleu import check_texts, self_bleu

NAMES = ("self_bleu", "rouge_l", "compression_ratio", "ngram_diversity", "response_words")
MAX_PAIRWISE = 256


def num_pairwise(num_texts: int, max_pairwise: int | None = MAX_PAIRWISE) -> int:
    """Number of a prompt's texts that `rouge_l` compares: all of them up to max_pairwise (None: no limit).

    Raises:
      ValueError: if max_pairwise < 2.
    """
    if max_pairwise is not None and max_pairwise < 2:
        raise ValueError(f"num_pairwise: max_pairwise = {max_pairwise}; valid: >= 2, or None for no limit")
    return num_texts if max_pairwise is None else min(num_texts, max_pairwise)


def rouge_l(texts: Sequence[str], *, max_pairwise: int | None = None, seed: int = 0) -> float:
    """Mean ROUGE-L F1 over the pairs of texts (Lin 2004), a homogenization score (2309.05196).

    F1 = 2 L / (a + b) of two texts with a and b tokens whose longest common
    subsequence has L. Tokens are those of the package rouge-score without stemming: runs
    of a-z and 0-9 in lower case, so a text in another script has none. Two texts of which one
    has no token score 0. The package `diversity` computes the same, but returns 1 where every
    pair scores 0, and rounds.

    Args:
      texts: N strings.
      max_pairwise: more texts than this are replaced by a uniform subset of that many,
        the same for equal N and seed: there are N^2 / 2 pairs, of a b / 64 steps each. None
        compares all.
      seed: of the subset.

    Returns:
      in [0, 1]; higher means less diverse; nan for less than two texts.

    Raises:
      ValueError: if max_pairwise < 2, or texts are not strings.
    """
    check_texts("rouge_l", texts)
    num_compared = num_pairwise(len(texts), max_pairwise)
    if num_compared < 2:
        return math.nan
    if num_compared < len(texts):
        rows = np.random.default_rng(seed).choice(len(texts), num_compared, replace=False)
        texts = [texts[i] for i in rows]
    vocabulary: dict[str, int] = {}
    # Numbers, not characters, stand for tokens: no limit at 0x10FFFF, no hole at the surrogates.
    ids = [
        array("q", [vocabulary.setdefault(t, len(vocabulary)) for t in re.findall("[a-z0-9]+", text.lower())])
        for text in texts
    ]
    length_N = np.array([len(row) for row in ids])
    common_NxN = process.cdist(ids, ids, scorer=LCSseq.similarity, dtype=np.int32)
    f1_NxN = 2 * common_NxN / np.maximum(length_N[:, None] + length_N, 1)
    return float(f1_NxN[np.triu_indices(len(ids), 1)].mean())


def compression_ratio(texts: Sequence[str], algorithm: str = "gzip") -> float:
    """Bytes over compressed bytes of the texts, joined by spaces (Shaib et al. 2024, 2403.00553).

    Higher means less diverse. It grows with the total length (the dictionary fills up, and the
    header of about 20 bytes for gzip and 60 for xz weighs less): compare equal lengths.
    The package `diversity` puts a gzip stream into a second one, whose bytes count
    too, so its gzip numbers are smaller (0.2 % at 64 texts of 150 words, 5 % at 16 of 20);
    its xz numbers are these, rounded. zlib's own version can move the gzip number slightly.

    Args:
      texts: strings; encoded in UTF-8, lone surrogates as they are.
      algorithm: "gzip" (level 9) or "xz" (preset 6).

    Returns:
      above 0, below 1 for short texts; nan if there are no bytes.

    Raises:
      ValueError: for another algorithm, or texts that are not strings.
    """
    check_texts("compression_ratio", texts)
    data = " ".join(texts).encode("utf-8", "surrogatepass")
    if algorithm == "gzip":
        compressed = gzip.compress(data, mtime=0)
    elif algorithm == "xz":
        import lzma  # some builds of Python lack it

        compressed = lzma.compress(data)
    else:
        raise ValueError(f"compression_ratio: algorithm = {algorithm!r}; valid: gzip, xz")
    return len(data) / len(compressed) if data else math.nan


def _ngrams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)))


def ngram_diversity(texts: Sequence[str], max_n: int = 4) -> float:
    """Sum over n = 1 .. max_n of different / all n-grams of the joined texts (2403.00553).

    The texts are joined by spaces and split at each single space, as the package `diversity` does: an
    n-gram may reach over the end of a text, and two spaces in a row hold an empty word.

    Returns:
      in (0, max_n]; higher means more diverse; nan if there are less than max_n words, or no text.

    Raises:
      ValueError: if max_n < 1, or texts are not strings.
    """
    check_texts("ngram_diversity", texts)
    if max_n < 1:
        raise ValueError(f"ngram_diversity: max_n = {max_n}; valid: >= 1")
    words = " ".join(texts).split(" ")
    if not len(texts) or len(words) < max_n:
        return math.nan
    return sum(len(set(_ngrams(words, n))) / (len(words) - n + 1) for n in range(1, max_n + 1))


def distinct_text_counts(texts: Sequence[str]) -> np.ndarray:
    """Counts each different text, for `sdd.metrics.distinct_at_k`; runs of whitespace count as one space.

    Returns:
      S int64, in the order of first occurrence; their sum is the number of texts.

    Raises:
      ValueError: if texts are not strings.
    """
    check_texts("distinct_text_counts", texts)
    return np.array(list(Counter(" ".join(text.split()) for text in texts).values()), np.int64)


def response_words(texts: Sequence[str]) -> float:
    """Mean number of words, split at whitespace, of a text; nan without a text.

    Raises:
      ValueError: if texts are not strings.
    """
    check_texts("response_words", texts)
    return sum(len(text.split()) for text in texts) / len(texts) if len(texts) else math.nan


def text_metrics_of(
    texts_B: Sequence[Sequence[str]], *, max_pairwise: int | None = MAX_PAIRWISE, seed: int = 0
) -> dict[str, np.ndarray]:
    """The text metrics of each prompt, with their default arguments.

    Args:
      texts_B: the responses to each of B prompts; prompts may differ in how many they have.
      max_pairwise: as in `rouge_l`, the one metric that grows with the square of a prompt's texts;
        `num_pairwise` says how many texts it compared.
      seed: of the subset that `rouge_l` then takes.

    Returns:
      name -> B float64 for `NAMES`; nan where a metric is undefined for a prompt.

    Raises:
      ValueError: if max_pairwise < 2, or texts are not strings.
    """
    num_pairwise(0, max_pairwise)  # also if there is no prompt
    for b, texts in enumerate(texts_B):
        check_texts(f"text_metrics_of: texts_B[{b}]", texts)
    rows = [
        (
            self_bleu(texts),
            rouge_l(texts, max_pairwise=max_pairwise, seed=seed),
            compression_ratio(texts),
            ngram_diversity(texts),
            response_words(texts),
        )
        for texts in texts_B
    ]
    values_BxM = np.array(rows, np.float64).reshape(len(rows), len(NAMES))
    return {name: values_BxM[:, m].copy() for m, name in enumerate(NAMES)}
