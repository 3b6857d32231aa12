"""Likelihood metrics against plain loops, an analysis of variance by hand, and cases with a known answer."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics.likelihood import (
    information_matrix,
    information_vendi,
    likelihood_metrics_of,
    mean_information,
    mixture_given_previous,
    progressive_surprise,
    strategy_share,
    surprise_drop,
)


def example(b: int = 3, n: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.random((b, n)) < 0.8
    mask[0] = True
    i = rng.normal(size=(b, n, n)) + 2 * np.eye(n)
    i = np.where(mask[:, :, None] & mask[:, None], i, rng.choice([np.nan, np.inf], (b, n, n)))
    return i, rng.integers(-1, 3, (b, n)), mask


def of_strategies(strategy: np.ndarray, gap: float) -> np.ndarray:
    """A demonstration of the same strategy tells ``gap`` nats a token, another one nothing."""
    return gap * (strategy[..., :, None] == strategy[..., None, :])


def test_information_is_a_difference_a_token():
    rng = np.random.default_rng(0)
    conditional, alone, length = -rng.random((2, 3, 3)), -rng.random((2, 3)), rng.integers(1, 9, (2, 3))
    got = information_matrix(conditional, alone, length)
    for p, a, b in itertools.product(range(2), range(3), range(3)):
        assert got[p, a, b] == pytest.approx((conditional[p, a, b] - alone[p, a]) / length[p, a])
    jitted = jax.jit(jax.vmap(information_matrix))(conditional, alone, length)
    np.testing.assert_allclose(jitted, got, rtol=1e-5)
    length[1, 2] = 0
    with np.errstate(all="raise"):
        got = information_matrix(conditional, alone, length)
    assert np.isnan(got[1, 2]).all() and np.isnan(got).sum() == 3


def test_the_mean_is_over_pairs_of_different_real_rollouts():
    i, _, mask = example()
    want = [
        np.mean([i[p, a, b] for a, b in itertools.permutations(np.flatnonzero(mask[p]), 2)]) for p in range(3)
    ]
    np.testing.assert_allclose(mean_information(i, mask), want, rtol=1e-12)
    with np.errstate(all="raise"):
        assert np.isnan(mean_information(i, mask & (np.arange(6) == 0))).all()


def eta_squared(i: np.ndarray, strategy: np.ndarray, mask: np.ndarray) -> float:
    rows = [a for a in range(len(mask)) if mask[a] and strategy[a] >= 0]
    pairs = list(itertools.permutations(rows, 2))
    groups = [[i[a, b] for a, b in pairs if (strategy[a] == strategy[b]) == same] for same in (True, False)]
    if not all(groups):
        return math.nan
    values = groups[0] + groups[1]
    within = sum(np.var(group) * len(group) for group in groups)
    return 1 - within / (np.var(values) * len(values))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_the_share_is_eta_squared(seed, n):
    i, strategy, mask = example(4, n, seed)
    with np.errstate(all="raise"):
        got = strategy_share(i, strategy, mask)
    want = [eta_squared(i[p], strategy[p], mask[p]) for p in range(4)]
    # A prompt with one kind of pairs only has a share of 0 by the formula, and none by the meaning.
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    renamed = np.where(strategy >= 0, 7 - strategy, -1)
    np.testing.assert_allclose(strategy_share(5 - 3 * i, renamed, mask), got, rtol=1e-9, atol=1e-12)


def test_the_share_is_one_when_the_strategy_is_all_and_undefined_when_nothing_varies():
    strategy = np.array([[0, 0, 1, 1, 2]])
    assert strategy_share(of_strategies(strategy, 0.4), strategy) == pytest.approx(1)
    constants = np.random.default_rng(2).random((50, 1, 1))  # whose means are rounded
    assert np.isnan(strategy_share(np.tile(constants, (1, 5, 5)), np.tile(strategy, (50, 1)))).all()
    noise = np.random.default_rng(0).normal(size=(500, 9, 9))
    labels = np.random.default_rng(1).integers(0, 2, (500, 9))
    assert np.nanmean(strategy_share(noise, labels)) == pytest.approx(1 / 71, rel=0.15)  # the documented bias


def vendi_by_hand(i: np.ndarray, q: float, scale: float) -> float:
    n = len(i)
    kernel = np.zeros((n, n))
    for a, b in itertools.product(range(n), range(n)):
        kernel[a, b] = math.exp(-max(0, (i[a, a] + i[b, b] - i[a, b] - i[b, a]) / 2) / scale)
    p = np.linalg.eigh(kernel)[0].clip(0)
    p = p / p.sum()
    p = p[p > 1e-14]
    if q == math.inf:
        return 1 / p.max()
    return math.exp(-(p * np.log(p)).sum()) if q == 1 else (p**q).sum() ** (1 / (1 - q))


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_vendi_is_that_of_the_documented_kernel(scale):
    i, _, mask = example(4, 7)
    orders = (0.5, 1, 2, math.inf)
    got = information_vendi(i, mask, orders, scale)
    real = [i[p][np.ix_(mask[p], mask[p])] for p in range(4)]
    want = [[vendi_by_hand(x, q, scale) for q in orders] for x in real]
    np.testing.assert_allclose(got, want, rtol=1e-7)
    np.testing.assert_allclose(information_vendi(i, mask, scale=scale), got[:, 1], rtol=1e-12)
    assert (got >= 1).all() and (got <= mask.sum(-1)[:, None]).all()


def test_vendi_counts_strategies():
    strategy = np.array([[0, 0, 1, 1, 2, 2], [0] * 6, [0, 1, 2, 3, 4, 5]])
    np.testing.assert_allclose(information_vendi(of_strategies(strategy, 5.0)), [3, 1, 6], rtol=1e-9)
    nothing_learnt = information_vendi(np.random.default_rng(0).normal(size=(6, 6)) * 0 + 0.3)
    assert nothing_learnt == pytest.approx(1)
    between = information_vendi(of_strategies(strategy, 0.05))
    assert (between[[0, 2]] > 1.1).all() and (between < [3, 1.0000001, 6]).all()
    # Whatever depends on the scored rollout alone cancels out.
    shifted = of_strategies(strategy, 0.05) + np.random.default_rng(1).normal(size=(3, 6, 1))
    np.testing.assert_allclose(information_vendi(shifted), between, rtol=1e-9)


def test_vendi_of_few_rollouts():
    i, _, mask = example()
    with np.errstate(all="raise"):
        assert np.isnan(information_vendi(i, np.zeros_like(mask))).all()
        assert information_vendi(i[:1, :1, :1]) == 1


def test_jit_vmap_and_order_change_nothing():
    i, strategy, mask = example(4, 6)
    order = np.random.default_rng(1).permutation(6)
    both = (i[:, order][:, :, order], strategy[:, order], mask[:, order])
    for metric in (
        lambda i, strategy, mask: mean_information(i, mask),
        strategy_share,
        lambda i, strategy, mask: information_vendi(i, mask, (0.5, 1, 2, math.inf)),
    ):
        want = metric(i, strategy, mask)
        np.testing.assert_allclose(metric(*both), want, rtol=1e-7)
        np.testing.assert_allclose(jax.jit(jax.vmap(metric))(i, strategy, mask), want, rtol=1e-4)
        stacked = metric(*(np.stack([x, x]) for x in (i, strategy, mask)))
        np.testing.assert_allclose(stacked, np.stack([want, want]), rtol=1e-12)


def test_surprise_and_its_drop():
    logp, length = np.array([[-8.0, -3, -1, 7], [-6, -2, 0, 0]]), np.array([[4, 3, 2, 0], [3, 2, 0, 1]])
    mask = np.array([[True, True, True, True], [True, False, True, True]])
    with np.errstate(all="raise"):
        got = progressive_surprise(logp, length, mask)
        np.testing.assert_allclose(got, [[2, 1, 0.5, np.nan], [2, np.nan, np.nan, 0]])
        np.testing.assert_allclose(surprise_drop(got), [2 - 0.75, 2])
        late = np.array([[np.nan, 3.0, 1.0, 2.0], [np.nan, 1, np.nan, np.nan], [np.nan] * 4])
        np.testing.assert_allclose(surprise_drop(late), [1.5, np.nan, np.nan])
    np.testing.assert_allclose(jax.jit(progressive_surprise)(logp, length, mask), got, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(surprise_drop))(late), surprise_drop(late), rtol=1e-6)
    np.testing.assert_allclose(progressive_surprise(logp, length)[1], [2, 1, np.nan, 0])


def test_names():
    i, strategy, mask = example()
    got = likelihood_metrics_of(i, strategy, mask)
    assert list(got) == ["information", "information_strategy_share", "vendi[likelihood]"]
    np.testing.assert_array_equal(got["information"], mean_information(i, mask))
    np.testing.assert_array_equal(got["information_strategy_share"], strategy_share(i, strategy, mask))
    np.testing.assert_array_equal(got["vendi[likelihood]"], information_vendi(i, mask))
    assert list(likelihood_metrics_of(i, None, mask)) == ["information", "vendi[likelihood]"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: information_matrix(np.ones((2, 3)), np.ones(2), np.ones(2)), "valid: ... x N x N"),
        (lambda: mean_information(np.ones((2, 3))), r"i of shape \(2, 3\); valid: ... x N x N"),
        (lambda: mean_information(np.ones((3, 3)), np.ones(2)), r"mask of shape \(2,\); valid: \(3,\)"),
        (lambda: strategy_share(np.ones((3, 3)), np.ones(2)), r"strategies of shape \(2,\); valid: \(3,\)"),
        (lambda: information_vendi(np.ones((3, 3)), scale=0), "scale = 0; valid: above 0"),
        (lambda: information_vendi(np.ones((3, 3)), q=-0.5), "q = -0.5; valid: 0 <= q <= inf"),
        (lambda: information_vendi(np.diag([1, np.nan])), r"i at \(1, 1\) is not finite"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_is_not_finite_is_nan_in_jax():
    assert np.isnan(information_vendi(jnp.asarray(np.diag([1, np.nan]))))


def test_the_mixture_of_those_before():
    """Against the sum written out, at log-probabilities whose exponentials underflow."""
    rng = np.random.default_rng(0)
    conditional, logp = rng.normal(-5, 1, (2, 4, 4)), rng.normal(-5, 1, (2, 4))
    found = mixture_given_previous(conditional, logp)
    for b in range(2):
        expected = [logp[b, 0], *(np.log(np.mean(np.exp(conditional[b, a, :a]))) for a in range(1, 4))]
        np.testing.assert_allclose(found[b], expected)
    np.testing.assert_allclose(mixture_given_previous(conditional - 2000, logp - 2000), found - 2000)
    jitted = jax.jit(mixture_given_previous)(conditional.astype(np.float32), logp)
    np.testing.assert_allclose(jitted, found, rtol=1e-5)
