"""Self-BLEU against sacrebleu and nltk, and what must hold of it."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from sdd.metrics.bleu import bleu_against_others, self_bleu, token_ids, tokenize_13a

ADVERSARIAL = (
    "",
    " \t\n",
    "a",
    "the the the the the",
    "the the",
    "the cat sat on the mat.",
    "The cat sat on the mat.",
    "1,000.5 is 1,000.5, not 1.000,5.",
    "5..5 ...5 5... .5 5. ,.5 5.,x x..y",
    "re-use 5-a a-5 5-5-5 -5 - --",
    "&quot;x&quot; &amp;quot; &lt;b&gt; &amp;lt; &amp",
    "a <skipped> b<skip<skipped>ped>",
    "line-\nbroken\nend-\n",
    "it's 'so' \"said\" (she) [x] {y} ~z^ `k` a_b $5 %6 a/b c\\d",
    "no\u00a0break \u2003em\u0085nel\x1cfs",
    "日本語。日本語、日本語",
    "\U0001f600\U0001f600 hi \U0001f600",
    "lone \ud800 half",
    "nul\x00 byte\x00",
    "٣.٤ ½.½ x٣-y",
    "the cat sat on the mat.",
    "On the mat, the cat sat; on the mat.",
)
VOCABULARY = ("the", "cat", "sat", "on", "mat", ",", "1.5", "re-use", "x.", "(y)", "z\n")
MIXED = st.text(st.sampled_from("ab01 .,-&;'\"<>\n\t\r\u00a0\x1c\u2028é٣日\ud800(" + "~_/"), max_size=30)


def random_texts(seed: int, n: int, longest: int = 40, vocabulary=VOCABULARY) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(vocabulary, rng.integers(0, longest + 1))) for _ in range(n)]


def others(texts, i):
    return [*texts[:i], *texts[i + 1 :]]


def sacrebleu_of(texts, **options) -> list[float]:
    metric = BLEU(**{"effective_order": True, **options})
    return [metric.sentence_score(text, others(texts, i)).score / 100 for i, text in enumerate(texts)]


def nltk_of(texts, smoothing, max_order=4) -> list[float]:
    words, weights = [text.split() for text in texts], (1 / max_order,) * max_order
    return [sentence_bleu(others(words, i), w, weights, smoothing) for i, w in enumerate(words)]


GROUPS = [
    ADVERSARIAL,
    ADVERSARIAL[3:6],
    ("", ""),
    ("a", "a"),
    ("a b", "a"),
    ("a b c d e", "e d c b a", "a b"),
    *(random_texts(seed, n, longest) for seed, n, longest in [(0, 2, 40), (1, 5, 6), (2, 16, 60), (3, 9, 3)]),
]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.one_of(MIXED, st.text(max_size=30)))
def test_tokens_are_those_of_sacrebleu(text):
    assert tokenize_13a(text) == Tokenizer13a()(text.rstrip()).split()


def test_tokens_of_hard_texts_are_those_of_sacrebleu():
    rng = np.random.default_rng(0)
    alphabet = np.array(list("ab015 ..,,-&;'\"<>\n\u00a0é٣(~_/@[`:"))
    noise = ["".join(rng.choice(alphabet, 40)) for _ in range(2000)]
    latin = ["".join(map(chr, rng.integers(0, 0x250, 60))) for _ in range(200)]
    for text in (*ADVERSARIAL, *noise, *latin):
        assert tokenize_13a(text) == Tokenizer13a()(text.rstrip()).split(), repr(text)


@pytest.mark.parametrize("texts", GROUPS, ids=range(len(GROUPS)))
def test_each_score_is_sacrebleus(texts):
    expected = sacrebleu_of(texts)
    np.testing.assert_allclose(bleu_against_others(texts), expected, atol=1e-12)
    assert self_bleu(texts) == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("max_order", [1, 2, 4, 6])
@pytest.mark.parametrize("effective_order", [True, False])
@pytest.mark.parametrize(("smooth", "theirs"), [("exp", "exp"), ("none", "none"), ("epsilon", "floor")])
def test_the_options_are_sacrebleus(smooth, theirs, effective_order, max_order):
    for texts in GROUPS:
        if (
            smooth == "epsilon" and not effective_order
        ):  # nltk's definition there: short texts are the difference
            texts = [text for text in texts if len(tokenize_13a(text)) >= max_order]
        if len(texts) < 2:
            continue
        options = {"effective_order": effective_order, "max_ngram_order": max_order}
        ours = bleu_against_others(texts, smooth=smooth, effective_order=effective_order, max_order=max_order)
        np.testing.assert_allclose(ours, sacrebleu_of(texts, smooth_method=theirs, **options), atol=1e-12)


@pytest.mark.parametrize("texts", GROUPS, ids=range(len(GROUPS)))
@pytest.mark.parametrize("max_order", [2, 3, 4])
def test_with_epsilon_and_words_it_is_nltks_method1(texts, max_order):
    ours = bleu_against_others(
        texts, smooth="epsilon", effective_order=False, max_order=max_order, tokenize=str.split
    )
    theirs = nltk_of(texts, SmoothingFunction().method1, max_order)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("texts", GROUPS, ids=range(len(GROUPS)))
def test_without_smoothing_it_is_nltks_method0(texts):
    ours = bleu_against_others(texts, smooth="none", effective_order=False, tokenize=str.split)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk warns of each 0 and returns about 1e-77
        theirs = nltk_of(texts, SmoothingFunction().method0)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


SIX_TOKENS = st.lists(st.sampled_from("abc"), min_size=6, max_size=6).map(" ".join)
TEXTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=8).map(" ".join), min_size=2, max_size=6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from(["exp", "epsilon", "none"]), st.booleans())
def test_scores_are_within_bounds_and_follow_a_permutation(texts, random, smooth, effective_order):
    options = {"smooth": smooth, "effective_order": effective_order}
    scores = bleu_against_others(texts, **options)
    assert ((scores >= 0) & (scores <= 1)).all()
    order = random.sample(range(len(texts)), len(texts))
    np.testing.assert_array_equal(bleu_against_others([texts[i] for i in order], **options), scores[order])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(TEXTS)
def test_twice_the_same_texts_score_one(texts):
    # A copy of each is among its references; only a text without a token scores 0.
    expected = [float(bool(text)) for text in texts * 2]
    assert bleu_against_others(texts * 2).tolist() == expected


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(SIX_TOKENS, min_size=3, max_size=6))
def test_more_references_of_one_length_never_lower_a_score(texts):
    assert (bleu_against_others(texts)[:-1] >= bleu_against_others(texts[:-1]) - 1e-12).all()


@pytest.mark.parametrize(("length", "effective_order", "expected"), [
    *((0, True, 0), (1, True, 1), (3, True, 1), (3, False, 0), (4, False, 1), (9, True, 1)),
])  # fmt: skip
def test_identical_texts_score_one_when_they_are_long_enough(length, effective_order, expected):
    texts = [" ".join("w" * (i + 1) for i in range(length))] * 3
    assert self_bleu(texts, effective_order=effective_order) == expected


@pytest.mark.parametrize("smooth", ["exp", "epsilon", "none"])
def test_texts_without_a_common_token_score_zero(smooth):
    assert self_bleu(["a b c d e", "f g h i j", "k l"], smooth=smooth) == 0


def test_there_is_nothing_to_compare_with_fewer_than_two_texts():
    assert math.isnan(self_bleu([])) and math.isnan(self_bleu(["a b"]))
    assert bleu_against_others([]).shape == (0,) and np.isnan(bleu_against_others(["a"])).all()


def test_many_tokens_and_long_texts_do_not_overflow():
    # About 2^17 different tokens: in 32 bits, different bigrams would have equal numbers.
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 2**17, 150_000))) for _ in range(2)]
    assert len({token for text in texts for token in text.split()}) > 0.8 * 2**17
    np.testing.assert_allclose(bleu_against_others(texts), sacrebleu_of(texts), rtol=1e-12)


def test_token_ids():
    ids, lengths = token_ids([["b", "a", "b"], [], ["c", "a"]])
    assert ids.tolist() == [0, 1, 0, 2, 1] and lengths.tolist() == [3, 0, 2]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: self_bleu(["a", "b"], smooth="floor"), "smooth = 'floor'; valid: exp, epsilon, none"),
    (lambda: self_bleu(["a", "b"], max_order=0), "max_order = 0; valid: >= 1"),
    (lambda: self_bleu("ab"), "got one string; valid: a sequence of strings"),
    (lambda: self_bleu(["a", 3]), r"texts\[1\] is a int; valid: a string"),
])  # fmt: skip
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
