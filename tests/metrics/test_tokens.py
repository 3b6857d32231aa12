"""Token metrics against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics import (
    distinct_n,
    expectation_adjusted_distinct_n,
    negative_log_likelihood,
    ngram_counts,
    response_length,
    sequence_entropy,
    sequence_negative_log_likelihood,
    token_entropy,
)
from sdd.metrics import tokens as tokens_lib


def ragged(seed: int, b: int = 3, n: int = 4, t: int = 6):
    rng = np.random.default_rng(seed)
    mask = np.arange(t) < rng.integers(0, t + 1, (b, n))[..., None]
    mask[0] = np.arange(t) < 1 + np.arange(n)[:, None]  # no ties of lengths: the two means differ
    values = np.where(mask, rng.random((b, n, t)), np.nan)  # padding must not leak
    return rng.integers(0, 3, (b, n, t)), mask, values


@pytest.mark.parametrize("xp", [np, jnp])
def test_means_are_those_of_plain_loops(xp):
    _, mask, values = ragged(0)
    rows = [[v[m].tolist() for v, m in zip(vs, ms)] for vs, ms in zip(values, mask)]
    per_token = [sum(map(sum, row)) / sum(map(len, row)) if any(row) else np.nan for row in rows]
    per_sequence = [np.mean([sum(r) for r in row]) for row in rows]
    lengths = [np.mean([len(r) for r in row]) for row in rows]
    values, mask = xp.asarray(values), xp.asarray(mask)
    np.testing.assert_allclose(token_entropy(values, mask), per_token, rtol=1e-5)
    np.testing.assert_allclose(sequence_entropy(values, mask), per_sequence, rtol=1e-5)
    np.testing.assert_allclose(negative_log_likelihood(-values, mask), per_token, rtol=1e-5)
    np.testing.assert_allclose(sequence_negative_log_likelihood(-values, mask), per_sequence, rtol=1e-5)
    np.testing.assert_allclose(response_length(mask), lengths, rtol=1e-6)


def test_a_prompt_without_tokens_is_undefined_per_token_and_zero_per_sequence():
    mask = np.zeros((1, 2, 3), bool)
    assert np.isnan(token_entropy(np.ones((1, 2, 3)), mask)).all()
    assert sequence_entropy(np.ones((1, 2, 3)), mask).tolist() == [0]
    assert np.isnan(distinct_n(np.ones((1, 2, 3), int), mask)).all()


def test_jit_and_vmap():
    _, mask, values = ragged(1)
    got = jax.jit(jax.vmap(token_entropy))(values, mask)
    np.testing.assert_allclose(got, token_entropy(values, mask), rtol=1e-5)


def naive_ngrams(tokens, mask, n):
    grams = []
    for row, keep in zip(tokens, mask):
        for i in range(len(row) - n + 1):
            if all(keep[i : i + n]):
                grams.append(tuple(row[i : i + n].tolist()))
    return len(set(grams)), len(grams)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_ngrams_are_those_of_a_plain_loop(seed, n):
    tokens, mask, _ = ragged(seed)
    expected = [naive_ngrams(*row, n) for row in zip(tokens, mask)]
    distinct, total = ngram_counts(tokens, mask, n)
    assert list(zip(distinct.tolist(), total.tolist())) == expected


def test_ngrams_of_a_vocabulary_too_large_to_pack():
    tokens = np.array([[[2**30, 2**31 - 1, 2**30, 2**31 - 1, 2**30]]])
    distinct, total = ngram_counts(tokens, np.ones_like(tokens, bool), 4)
    assert (distinct.tolist(), total.tolist()) == ([2], [2])


def test_identical_rollouts_share_their_ngrams():
    tokens = np.tile(np.arange(5), (1, 4, 1))
    assert distinct_n(tokens, np.ones((1, 4, 5), bool))[0] == 0.25
    with pytest.raises(ValueError, match="n = 0"):
        distinct_n(tokens, np.ones((1, 4, 5), bool), 0)


def test_expectation_adjusted_is_one_for_uniform_tokens_of_any_number():
    rng = np.random.default_rng(0)
    for num_tokens in (10, 300):
        tokens = rng.integers(0, 50, (400, 1, num_tokens))
        mask = np.ones_like(tokens, bool)
        assert expectation_adjusted_distinct_n(tokens, mask, 50).mean() == pytest.approx(1, abs=0.02)
    assert distinct_n(tokens, mask, 1).mean() < 0.2  # the plain ratio falls with the number


def test_expectation_adjusted_by_hand():
    # 2 different of 3 tokens, V = 4: 2 / (4 (1 - (3/4)^3))
    got = expectation_adjusted_distinct_n(np.array([[[1, 1, 2]]]), np.ones((1, 1, 3), bool), 4)
    assert got[0] == pytest.approx(2 / (4 * (1 - 0.75**3)))


def test_blocks_of_prompts_count_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(0, 3, (7, 4, 6)), rng.random((7, 4, 6)) < 0.8
    whole = tokens_lib.ngram_counts(tokens, mask, 2)
    monkeypatch.setattr(tokens_lib, "_TOKENS", 50)
    np.testing.assert_array_equal(tokens_lib.ngram_counts(tokens, mask, 2), whole)
