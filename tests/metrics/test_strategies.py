"""distinct@k against all subsets; entropy, Good-Turing and shares against hand values."""

import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics import (
    distinct_at_k,
    num_distinct,
    strategy_counts,
    strategy_entropy,
    top_strategy_share,
    unseen_mass,
)

ids_lists = st.lists(st.integers(-1, 3), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(ids_lists, st.data())
def test_distinct_at_k_is_the_mean_over_every_subset(ids, data):
    correct = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    n = len(ids)
    all_counts = strategy_counts(np.array([ids]), 4)
    correct_counts = strategy_counts(np.array([ids]), 4, np.array([correct]))
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(zip(ids, correct), k))
        distinct = np.mean([len({i for i, _ in s if i >= 0}) for s in subsets])
        distinct_correct = np.mean([len({i for i, ok in s if i >= 0 and ok}) for s in subsets])
        assert distinct_at_k(all_counts, k, n)[0] == pytest.approx(distinct, abs=1e-12)
        assert distinct_at_k(correct_counts, k, n)[0] == pytest.approx(distinct_correct, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(ids_lists, st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter_and_more_draws_never_lose(ids, random):
    shuffled = random.sample(ids, len(ids))
    names = random.sample(range(4), 4)
    renamed = [i if i < 0 else names[i] for i in shuffled]
    ks = np.arange(1, len(ids) + 1)
    before = distinct_at_k(strategy_counts(np.array([ids]), 4), ks, len(ids))
    np.testing.assert_allclose(
        distinct_at_k(strategy_counts(np.array([renamed]), 4), ks, len(ids)), before, atol=1e-12
    )
    assert (np.diff(before) >= -1e-12).all()
    assert before[0, -1] == pytest.approx(len({i for i in ids if i >= 0}))


def test_identical_rollouts_are_one_strategy():
    np.testing.assert_allclose(distinct_at_k(np.array([[0, 9, 0]]), range(1, 10)), np.ones((1, 9)))


def test_all_different_rollouts_give_k():
    np.testing.assert_allclose(distinct_at_k(np.ones((1, 9)), range(1, 10)), [np.arange(1.0, 10)], rtol=1e-12)


def test_distinct_at_k_float32_with_4096_rollouts():
    counts = np.array([[4000, 90, 5, 1, 0], [1024, 1024, 1024, 1023, 1]])
    ks = (1, 2, 64, 1000, 4095, 4096)
    exact = [
        [sum(1 - math.comb(4096 - c, k) / math.comb(4096, k) for c in map(int, row)) for k in ks]
        for row in counts
    ]
    jitted = jax.jit(lambda c: distinct_at_k(c, ks, 4096))(counts)
    np.testing.assert_allclose(jitted, exact, rtol=1e-5)


def test_counts_are_counted_among_all_rollouts():
    # One correct rollout of four: drawing one finds it in a quarter of the cases.
    assert distinct_at_k(np.array([[1, 0]]), 1, 4)[0] == pytest.approx(0.25)
    assert distinct_at_k(np.array([[1, 0]]), 1)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("xp", [np, jnp])
def test_strategy_counts_is_a_counter(xp):
    rng = np.random.default_rng(1)
    ids, mask = rng.integers(-1, 5, (6, 20)), rng.random((6, 20)) < 0.5
    got = strategy_counts(xp.asarray(ids), 5, xp.asarray(mask))
    for row, row_ids, row_mask in zip(got, ids, mask):
        counter = Counter(row_ids[row_mask].tolist())
        assert [counter[s] for s in range(5)] == row.tolist()


def test_errors_are_one_line():
    with pytest.raises(ValueError, match=r"ids 0 .. 3; valid: -1 \(none\) .. 2"):
        strategy_counts(np.array([[0, 3]]), 3)
    with pytest.raises(ValueError, match="k = 3 exceeds a prompt's n = 2"):
        distinct_at_k(np.array([[1, 1]]), 3)
    with pytest.raises(ValueError, match="2 more counts than num_samples"):
        distinct_at_k(np.array([[3, 1]]), 1, 2)


def test_miller_madow_by_hand():
    # 4, 3, 1 of 8: the plug-in value, plus (3 - 1) / 16.
    plug_in = -(0.5 * math.log(0.5) + 0.375 * math.log(0.375) + 0.125 * math.log(0.125))
    counts = np.array([[4, 3, 1, 0], [0, 0, 0, 0], [5, 0, 0, 0]])
    np.testing.assert_allclose(strategy_entropy(counts, miller_madow=False), [plug_in, np.nan, 0])
    np.testing.assert_allclose(strategy_entropy(counts), [plug_in + 0.125, np.nan, 0])
    np.testing.assert_allclose(strategy_entropy(jnp.asarray(counts)), strategy_entropy(counts), atol=1e-6)


def test_miller_madow_removes_most_of_the_bias():
    p = np.array([0.5, 0.3, 0.2])
    counts = np.random.default_rng(0).multinomial(32, p, size=20_000)
    truth = -(p * np.log(p)).sum()
    plain = abs(strategy_entropy(counts, miller_madow=False).mean() - truth)
    corrected = abs(strategy_entropy(counts).mean() - truth)
    assert corrected < plain / 5


def test_good_turing_by_hand_and_on_average():
    np.testing.assert_allclose(
        unseen_mass(np.array([[5, 1, 1, 0], [3, 3, 0, 0], [0, 0, 0, 0]])), [2 / 7, 0, np.nan]
    )
    # Its mean is the mean unseen mass of one rollout fewer: sum p (1-p)^(n-1).
    p = np.arange(1, 11) / 55
    counts = np.random.default_rng(0).multinomial(12, p, size=20_000)
    assert unseen_mass(counts).mean() == pytest.approx((p * (1 - p) ** 11).sum(), abs=0.003)


def test_top_share_and_num_distinct():
    counts = np.array([[6, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(top_strategy_share(counts), [0.75, np.nan])
    assert num_distinct(counts).tolist() == [2, 0]
    np.testing.assert_allclose(jax.jit(jax.vmap(top_strategy_share))(counts), [0.75, np.nan])


def test_undefined_prompts_warn_nobody():
    with np.errstate(all="raise"):
        for metric in (top_strategy_share, strategy_entropy, unseen_mass):
            assert np.isnan(metric(np.zeros((1, 3), int))).all()
