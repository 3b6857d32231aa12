"""maj@k against the enumeration of all subsets, against exact rational arithmetic, and against simulation."""

import itertools
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdd.metrics.majority import maj_at_k


def vote(votes: tuple[int, ...], correct: list[bool]) -> Fraction:
    """Share of right ones among the answers with the most votes; -1 abstains."""
    counts = [votes.count(a) for a in range(len(correct))]
    tied = [a for a, count in enumerate(counts) if count and count == max(counts)]
    return Fraction(sum(correct[a] for a in tied), len(tied)) if tied else Fraction(0)


def enumerated(counts: list[int], correct: list[bool], abstained: int, k: int) -> float:
    samples = [a for a, count in enumerate(counts) for _ in range(count)] + [-1] * abstained
    values = [vote(subset, correct) for subset in itertools.combinations(samples, k)]
    return float(sum(values) / len(values))


small = st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(lambda counts: 0 < sum(counts) <= 9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(small, st.data())
def test_it_is_the_mean_over_every_subset(counts, data):
    correct = data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)))
    abstained = data.draw(st.integers(0, 2))
    n = sum(counts) + abstained
    got = maj_at_k(np.array([counts]), np.array([correct]), range(1, n + 1), np.array([abstained]))
    want = [enumerated(counts, correct, abstained, k) for k in range(1, n + 1)]
    np.testing.assert_allclose(got, [want], atol=1e-13)


def exact_for_two(right: int, wrong: int, k: int) -> float:
    """Two answers: the right one wins with more than k/2 votes, and half of the ties."""
    ways = Fraction(0)
    for j in range(k + 1):
        weight = Fraction(2 if 2 * j > k else 1 if 2 * j == k else 0, 2)
        ways += weight * math.comb(right, j) * math.comb(wrong, k - j)
    return float(ways / math.comb(right + wrong, k))


@pytest.mark.parametrize(("right", "wrong"), [(30, 34), (100, 156), (1, 255), (256, 0), (0, 256), (250, 262)])
def test_many_samples_by_rational_arithmetic(right, wrong):
    ks = np.unique(np.geomspace(1, right + wrong, 12).astype(int))
    got = maj_at_k(np.array([[right, wrong]]), np.array([[True, False]]), ks, most_exact=512)
    np.testing.assert_allclose(
        got, [[exact_for_two(right, wrong, int(k)) for k in ks]], rtol=1e-10, atol=1e-14
    )


def test_all_different_answers_leave_it_to_chance():
    # Every draw is a tie of k answers: the value is the share of right answers, whatever k.
    for n in (5, 256):
        got = maj_at_k(np.ones((1, n), int), (np.arange(n) < 2)[None], np.arange(1, n + 1))
        np.testing.assert_allclose(got, np.full((1, n), 2 / n), rtol=1e-9)


def test_ends():
    counts, correct = np.array([[5, 3, 2]]), np.array([[True, False, False]])
    assert maj_at_k(counts, correct, 1) == pytest.approx(0.5)  # one vote: pass@1
    assert maj_at_k(counts, correct, 10) == pytest.approx(1)
    assert maj_at_k(counts, ~correct, 10) == pytest.approx(0)
    assert maj_at_k(counts, correct, 1, 10) == pytest.approx(0.25)  # abstained samples are drawn as well
    assert maj_at_k(np.zeros((1, 2), int), np.ones((1, 2), bool), 3, 4) == 0  # nobody votes
    assert maj_at_k(np.zeros((1, 0), int), np.ones((1, 0), bool), 3, 4) == 0


def test_shapes_order_and_prompts():
    rng = np.random.default_rng(0)
    counts, correct = rng.integers(0, 5, (2, 3, 4)) + (np.arange(4) == 0), rng.random((2, 3, 4)) < 0.4
    ks = [1, 1]
    assert maj_at_k(counts, correct, 1).shape == (2, 3) and maj_at_k(counts, correct, ks).shape == (2, 3, 2)
    abstained = rng.integers(4, 6, (2, 3))
    got = maj_at_k(counts, correct, [2, 4], abstained)
    order = rng.permutation(4)
    shuffled = maj_at_k(counts[..., order], correct[..., order], [2, 4], abstained)
    np.testing.assert_allclose(got, shuffled, atol=1e-14)
    one = maj_at_k(counts[1, 2], correct[1, 2], 4, abstained[1, 2])
    assert one == pytest.approx(got[1, 2, 1], abs=1e-14) and one.shape == ()
    np.testing.assert_array_equal(maj_at_k(jnp.asarray(counts), jnp.asarray(correct), [2, 4], abstained), got)


def test_right_and_wrong_share_what_votes_there_are():
    rng = np.random.default_rng(1)
    counts, correct = rng.multinomial(64, np.arange(1, 16) / 120, size=5), rng.random((5, 15)) < 0.5
    both = maj_at_k(counts, correct, [1, 2, 7, 64]) + maj_at_k(counts, ~correct, [1, 2, 7, 64])
    np.testing.assert_allclose(both, 1, rtol=1e-12)


def test_resampling_is_within_its_error_and_repeats():
    rng = np.random.default_rng(2)
    counts, correct = rng.multinomial(60, [0.3, 0.25, 0.25, 0.1, 0.1], size=8), np.arange(5) % 2 == 0
    correct, abstained, ks = np.tile(correct, (8, 1)), np.arange(8), [1, 4, 16, 60]
    exact = maj_at_k(counts, correct, ks, abstained)
    drawn = maj_at_k(counts, correct, ks, abstained, most_exact=0, num_resamples=20_000, seed=3)
    error = 0.5 / math.sqrt(20_000)
    assert np.abs(drawn - exact).max() < 4 * error
    assert 0 < np.sqrt(np.mean((drawn - exact) ** 2)) < error
    again = maj_at_k(counts, correct, ks, abstained, most_exact=0, num_resamples=20_000, seed=3)
    np.testing.assert_array_equal(again, drawn)
    other = maj_at_k(counts, correct, ks, abstained, most_exact=0, seed=np.random.default_rng(4))
    assert (other != drawn).any()


def test_many_samples_are_resampled_beside_exact_ones():
    counts = np.array([[30, 20], [3000, 2000]])
    got = maj_at_k(counts, np.array([[True, False]] * 2), 3)
    assert got[0] == pytest.approx(exact_for_two(30, 20, 3), abs=1e-12)
    assert 0 < abs(got[1] - exact_for_two(3000, 2000, 3)) < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maj_at_k(np.ones((1, 2), int), np.ones((1, 3), bool), 1), r"shapes \(1, 2\) and \(1, 3\)"),
        (lambda: maj_at_k(np.array([[3, -1]]), np.ones((1, 2), bool), 1), "a count is negative"),
        (
            lambda: maj_at_k(np.array([[3, 1]]), np.ones((1, 2), bool), [1, 6], 1),
            "k = 6 exceeds a prompt's n = 5",
        ),
        (lambda: maj_at_k(np.array([[3, 1]]), np.ones((1, 2), bool), 0), "k = 0; valid: k >= 1"),
        (lambda: maj_at_k(np.array([[3]]), np.ones((1, 1), bool), 1, num_resamples=0), "num_resamples = 0"),
        (lambda: maj_at_k(np.array([[3]]), np.ones((1, 1), bool), 1, most_exact=600), "most_exact = 600"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
