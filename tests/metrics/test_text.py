"""Text metrics against rouge-score, the package `diversity` and plain loops."""

import gzip
import importlib.util
import itertools
import lzma
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from sdd.metrics.bleu import self_bleu
from sdd.metrics.strategies import distinct_at_k
from sdd.metrics.text import (
    NAMES,
    compression_ratio,
    distinct_text_counts,
    ngram_diversity,
    num_pairwise,
    response_words,
    rouge_l,
    text_metrics_of,
)

ADVERSARIAL = (
    "",
    " \t\n",
    "a",
    "the cat sat on the mat.",
    "The CAT sat, on the mat!",
    "the cat sat on the mat.",
    "1,000.5 re-use re-use &quot;so&quot; a_b",
    "two  spaces   three\nlines\n",
    "日本語。日本語",
    "\U0001f600 hi \U0001f600",
    "nul\x00 byte \u212a \u0130 é",
)
HARD = (*ADVERSARIAL, "lone \ud800 half")  # the references cannot write it to a file
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d-e", "F", ""]), max_size=8).map(" ".join)
TEXTS = st.lists(WORDS, min_size=2, max_size=6)


def random_texts(seed: int, n: int, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    vocabulary = ["the", "cat", "sat", "on", "mat.", "1.5", "re-use", "x", "", "z\n", "Why?"]
    return [" ".join(rng.choice(vocabulary, rng.integers(0, longest + 1))) for _ in range(n)]


GROUPS = [
    ADVERSARIAL,
    ("a b", "a b"),
    ("a", "b"),
    *(random_texts(s, n) for s, n in [(0, 2), (1, 5), (2, 12)]),
]
IDS = range(len(GROUPS))


def diversity(module: str):
    """A file of the package `diversity`, whose __init__ needs packages that are not installed."""
    folder = Path(importlib.util.find_spec("diversity").origin).parent
    spec = importlib.util.spec_from_file_location(f"diversity_{module}", folder / f"{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("texts", [*GROUPS, HARD])
def test_rouge_l_is_that_of_rouge_score(texts):
    scorer = RougeScorer(["rougeL"])
    pairs = itertools.combinations(texts, 2)
    expected = np.mean([scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs])
    assert rouge_l(texts) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_is_the_homogenization_score_of_diversity_but_where_all_is_zero(monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate", types.SimpleNamespace(load=None))  # BERTScore's, not used
    homogenization_score = diversity("homogenization").homogenization_score
    for texts in GROUPS:
        if rouge_l(texts) > 0:
            assert homogenization_score(texts, verbose=False) == round(rouge_l(texts), 3)
    assert homogenization_score(["a", "b"], verbose=False) == 1 and rouge_l(["a", "b"]) == 0


def test_rouge_l_has_more_different_words_than_16_bits():
    many = " ".join(map(str, range(70_000)))  # surrogates, as characters, would be among them
    some = " ".join(map(str, range(55_296, 57_344)))
    assert rouge_l([many, some]) == pytest.approx(2 * 2048 / (70_000 + 2048), rel=1e-12)


def test_rouge_l_of_a_subset_is_unbiased_and_draws_no_text_twice():
    texts = random_texts(4, 12, 8)
    drawn = [rouge_l(texts, max_pairwise=4, seed=seed) for seed in range(400)]
    error = np.std(drawn) / math.sqrt(len(drawn))
    assert error > 0 and abs(np.mean(drawn) - rouge_l(texts)) < 4 * error
    assert rouge_l(texts, max_pairwise=4, seed=1) == drawn[1]
    assert rouge_l(texts, max_pairwise=12) == rouge_l(texts)
    different = [f"w{i}" for i in range(6)]
    assert all(rouge_l(different, max_pairwise=5, seed=seed) == 0 for seed in range(20))
    assert [num_pairwise(n, 4) for n in (0, 3, 4, 9)] == [0, 3, 4, 4]
    assert num_pairwise(257) == 256 and num_pairwise(257, None) == 257


@pytest.mark.parametrize("texts", GROUPS, ids=IDS)
def test_compression_ratio_is_that_of_diversity(texts):
    theirs = diversity("compression").compression_ratio
    assert round(compression_ratio(texts, "xz"), 3) == theirs(texts, "xz")
    # It compresses the gzip stream again, under the file name "compressed"; ours is one stream.
    data = " ".join(texts).encode()
    twice = len(gzip.compress(gzip.compress(data))) + len("compressed\0")
    assert round(len(data) / twice, 3) == theirs(texts)
    assert compression_ratio(texts) == len(data) / len(gzip.compress(data))


def test_compression_ratio_of_long_texts_is_near_that_of_diversity():
    texts = random_texts(5, 64, 300)
    theirs = diversity("compression").compression_ratio(texts)
    assert theirs < compression_ratio(texts) < 1.05 * theirs


def test_compressed_bytes_hold_the_texts():
    texts = ["lone \ud800 half", "\x00", "é"]
    data = " ".join(texts).encode("utf-8", "surrogatepass")
    assert compression_ratio(texts) == len(data) / len(gzip.compress(data))
    assert compression_ratio(texts, "xz") == len(data) / len(lzma.compress(data))


@pytest.mark.parametrize("max_n", [1, 2, 4])
def test_ngram_diversity_is_that_of_diversity(max_n):
    theirs = diversity("ngram_diversity").ngram_diversity_score
    for texts in (*GROUPS, HARD):
        if len(" ".join(texts).split(" ")) < max_n:
            assert math.isnan(ngram_diversity(texts, max_n))
        else:
            assert round(ngram_diversity(texts, max_n), 3) == theirs(texts, max_n)


def test_distinct_text_counts_feed_distinct_at_k():
    texts = ["a b", " a\n b ", "a  b", "ab", "", " ", "A b"]
    counts = distinct_text_counts(texts)
    assert counts.tolist() == [3, 1, 2, 1] and counts.dtype == np.int64
    normal = [" ".join(text.split()) for text in texts]
    for k in (1, 3, 7):
        enumerated = np.mean([len(set(drawn)) for drawn in itertools.combinations(normal, k)])
        assert distinct_at_k(counts, k) == pytest.approx(enumerated, rel=1e-12)
    assert distinct_text_counts([]).shape == (0,)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(TEXTS, st.randoms(use_true_random=False))
def test_bounds_and_permutation(texts, random):
    shuffled = random.sample(texts, len(texts))
    assert 0 <= rouge_l(texts) <= 1
    assert rouge_l(shuffled) == pytest.approx(rouge_l(texts), abs=1e-12)
    np.testing.assert_allclose(response_words(shuffled), response_words(texts), rtol=1e-12)
    assert sorted(distinct_text_counts(shuffled)) == sorted(distinct_text_counts(texts))
    words = " ".join(texts).split(" ")
    # The n-grams over the ends of texts depend on the order, single words do not.
    assert ngram_diversity(shuffled, 1) == ngram_diversity(texts, 1)
    if len(words) >= 4:
        assert 0 < ngram_diversity(texts) <= 4


@settings(max_examples=50, deadline=None, derandomize=True)
@given(TEXTS)
def test_twice_the_same_texts_are_no_more_diverse(texts):
    twice = texts * 2
    assert ngram_diversity(twice, 1) == pytest.approx(ngram_diversity(texts, 1) / 2)
    assert distinct_text_counts(twice).tolist() == (2 * distinct_text_counts(texts)).tolist()
    assert response_words(twice) == pytest.approx(response_words(texts))
    # Of the 2n (2n - 1) / 2 pairs n are of a text with its copy, and the others are the old ones, four times.
    n, copies = len(texts), sum(any(c.isalpha() for c in text) for text in texts)
    old = rouge_l(texts) * n * (n - 1) / 2
    assert rouge_l(twice) == pytest.approx((4 * old + copies) / (n * (2 * n - 1)), abs=1e-12)


def test_the_extremes():
    same, different = ["the cat sat on the mat"] * 5, [f"a{i} b{i} c{i} d{i}" for i in range(5)]
    assert rouge_l(same) == 1 and rouge_l(different) == 0
    assert ngram_diversity(different) == 4
    long = [" ".join(map(str, range(200)))] * 20
    assert compression_ratio(long) > 2 * compression_ratio([" ".join(map(str, range(4000)))])


@pytest.mark.filterwarnings("error")  # nan is meant, not stumbled over
def test_what_is_undefined_is_nan():
    for metric in (self_bleu, rouge_l):
        assert math.isnan(metric([])) and math.isnan(metric(["a b"]))
    for metric in (compression_ratio, ngram_diversity, response_words):
        assert math.isnan(metric([]))
    assert math.isnan(compression_ratio([""]))
    assert math.isnan(ngram_diversity(["a b c"])) and ngram_diversity(["a b c"], 3) == 3
    assert rouge_l(["", ""]) == 0 and response_words(["", "a b"]) == 1


def test_long_texts():
    texts = [" ".join(map(str, np.random.default_rng(seed).integers(0, 50, 40_000))) for seed in range(2)]
    assert min(map(len, texts)) > 100_000
    assert all(np.isfinite(value).all() for value in text_metrics_of([texts]).values())


def test_all_metrics_of_each_prompt():
    prompts = [HARD, [], ["a b c d"], random_texts(6, 9), ["same one here now"] * 3]
    serial = text_metrics_of(prompts, max_pairwise=5, seed=3)
    assert tuple(serial) == NAMES and all(v.shape == (5,) and v.dtype == np.float64 for v in serial.values())
    for b, texts in enumerate(prompts):
        alone = (
            *(self_bleu(texts), rouge_l(texts, max_pairwise=5, seed=3), compression_ratio(texts)),
            *(ngram_diversity(texts), response_words(texts)),
        )
        np.testing.assert_array_equal([serial[name][b] for name in NAMES], alone)
    assert all(value.shape == (0,) for value in text_metrics_of([]).values())


@pytest.mark.parametrize(("call", "message"), [
    (lambda: compression_ratio(["a"], "zip"), "algorithm = 'zip'; valid: gzip, xz"),
    (lambda: ngram_diversity(["a"], 0), "max_n = 0; valid: >= 1"),
    (lambda: rouge_l(["a"], max_pairwise=1), "max_pairwise = 1; valid: >= 2"),
    (lambda: text_metrics_of([], max_pairwise=0), "max_pairwise = 0; valid: >= 2"),
    (lambda: text_metrics_of([["a"], "b"]), r"texts_B\[1\]: got one string; valid: a sequence"),
    *((lambda f=f: f(["a", None]), r"texts\[1\] is a NoneType; valid: a string") for f in (
        rouge_l, compression_ratio, ngram_diversity, response_words, distinct_text_counts,
    )),
])  # fmt: skip
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
