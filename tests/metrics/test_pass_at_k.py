"""pass@k and pass^k against all subsets, and against exact rational arithmetic for large n."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics import log_miss, pass_at_k, pass_hat_k, powers_of_two


def exact_miss(n: int, c: int, k: int) -> float:
    return float(Fraction(math.comb(n - c, k), math.comb(n, k)))


@pytest.mark.parametrize("n", range(1, 8))
def test_every_subset(n):
    for c in range(n + 1):
        marks = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(marks, k))
            assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(s) for s in subsets]), abs=1e-12)
            assert pass_hat_k(n, c, k) == pytest.approx(np.mean([all(s) for s in subsets]), abs=1e-12)


sizes = st.integers(1, 80) | st.integers(1, 4096)
triples = sizes.flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@settings(max_examples=150, deadline=None)
@given(triples)
def test_exact_up_to_4096(triple):
    n, c, k = triple
    exact = 1 - exact_miss(n, c, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)
    assert pass_hat_k(n, c, k) == pytest.approx(exact_miss(n, n - c, k), abs=1e-12)


def test_float32_up_to_4096():
    rng = np.random.default_rng(0)
    n = np.where(rng.random(3000) < 0.3, rng.integers(1, 80, 3000), rng.integers(1, 4097, 3000))
    # Few correct or few draws is where the value is neither 0 nor 1.
    c = np.where(rng.random(3000) < 0.6, rng.integers(0, 12, 3000), rng.integers(0, 4097, 3000)).clip(0, n)
    k = np.where(rng.random(3000) < 0.5, rng.integers(1, 80, 3000), rng.integers(1, 4097, 3000)).clip(1, n)
    got = jax.jit(jax.vmap(pass_at_k))(n, c, k)
    assert got.dtype == jnp.float32
    exact = np.array([1 - exact_miss(*map(int, t)) for t in zip(n, c, k)])
    np.testing.assert_allclose(got, exact, atol=4e-6, rtol=1e-5)


def test_float32_keeps_the_digits_of_small_values():
    got = jax.jit(pass_at_k)(np.array([3989, 3989]), np.array([1, 2]), np.array([1, 2]))
    np.testing.assert_allclose(got, [[1 / 3989, 2 / 3989], [2 / 3989, 1 - exact_miss(3989, 2, 2)]], rtol=1e-5)


def test_many_ks_at_once_equal_one_at_a_time():
    n, c = np.array([8, 16, 9]), np.array([0, 5, 9])
    many = pass_at_k(n, c, [1, 3, 8])
    assert many.shape == (3, 3) and many.dtype == np.float64
    np.testing.assert_array_equal(many, np.stack([pass_at_k(n, c, k) for k in (1, 3, 8)], axis=-1))


def test_jit_with_traced_counts_gives_what_numpy_gives():
    n, c = np.array([8, 16, 9]), np.array([0, 5, 9])
    ks = (1, 2, 8)
    for metric in (pass_at_k, pass_hat_k):
        jitted = jax.jit(metric, static_argnums=2)(n, c, ks)
        np.testing.assert_allclose(jitted, metric(n, c, ks), atol=1e-6)


def test_monotone_in_k_and_in_c():
    values = pass_at_k(np.full(33, 32), np.arange(33), np.arange(1, 33))
    assert (np.diff(values, axis=0) >= -1e-15).all() and (np.diff(values, axis=1) >= -1e-15).all()
    assert values.min() >= 0 and values.max() <= 1


def test_ends():
    assert pass_at_k(16, 1, 16) == 1  # a bootstrap with replacement would give 0.644
    assert pass_at_k(16, 0, 16) == 0
    np.testing.assert_allclose(pass_at_k(16, np.arange(17), 1), np.arange(17) / 16, atol=1e-14)
    np.testing.assert_array_equal(pass_at_k(7, 7, np.arange(1, 8)), np.ones(7))
    np.testing.assert_array_equal(pass_hat_k(7, 7, np.arange(1, 8)), np.ones(7))
    assert log_miss(5, 3, 3) == -np.inf
    assert log_miss(0, 0, 0) == 0


def test_no_warnings_and_nothing_above_one():
    n, c, k = np.meshgrid(np.arange(0, 14), np.arange(0, 14), np.arange(0, 14), indexing="ij")
    with np.errstate(all="raise"):
        values = log_miss(n, np.minimum(c, n), k)
    assert np.isnan(values[k > n]).all() and (values[k <= n] <= 0).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.array([8, 4]), np.array([1, 1]), [2, 5]), "k = 5 exceeds a prompt's n = 4"),
        ((8, 1, 0), "k = 0; valid: k >= 1"),
        ((8, 9, 1), "num_correct must be in"),
    ],
)
def test_one_line_errors(args, message):
    with pytest.raises(ValueError, match=message) as error:
        pass_at_k(*args)
    assert "\n" not in str(error.value)


def test_k_above_a_traced_n_is_nan():
    assert np.isnan(jax.jit(lambda n: pass_at_k(n, 1, 5))(4))


def test_powers_of_two():
    assert powers_of_two(1) == (1,)
    assert powers_of_two(64) == (1, 2, 4, 8, 16, 32, 64)
    assert powers_of_two(6) == (1, 2, 4, 6)
    with pytest.raises(ValueError, match="n = 0"):
        powers_of_two(0)
