"""maj@k: how often the majority of k answers is right, exactly where that is cheap and else by resampling."""

import math
from collections.abc import Sequence

import numpy as np

from sdd.metrics.pass_at_k import check_draws
from sdd.types import Array

MOST_EXACT = 256  # samples of a prompt up to which the expectation is computed (within about 0.2 s a prompt)
_BLOCK = 1 << 20  # resampled votes that are held at once


def _fair_coins(n: int) -> np.ndarray:
    """Row c holds the probabilities C(c, j) / 2^c of j heads in c throws; up to c = n."""
    table = np.zeros((n + 1, n + 1))
    table[0, 0] = 1
    for c in range(n):
        table[c + 1] = table[c] / 2
        table[c + 1, 1:] += table[c, :-1] / 2
    return table


def _times(polynomials_RxD: np.ndarray, factor_J: np.ndarray) -> np.ndarray:
    """Products of polynomials, coefficients along the last axis, cut to the length of the first."""
    product_RxD = factor_J[0] * polynomials_RxD
    for j in range(1, min(len(factor_J), polynomials_RxD.shape[1])):
        product_RxD[:, j:] += factor_J[j] * polynomials_RxD[:, :-j]
    return product_RxD


def _won_with(
    m: int, counts_A: np.ndarray, correct_A: np.ndarray, abstained: int, fair: np.ndarray, most: int
) -> np.ndarray:
    """Probabilities that d = 0 .. most samples are drawn, the top answers have m votes, a right one wins.

    Here every sample is drawn or not by a fair coin of its own, so answers are independent; how many are
    drawn is conditioned on by the caller. An answer with c samples has C(c, j) / 2^c x^j as its polynomial:
    L its part below x^m, T its term x^m. The product over answers of L + z T is all ways in which m is the
    most, and the power of z counts the tied ones. 1 / tied is the integral of z^(tied - 1) over [0, 1],
    for which Gauss-Legendre nodes are exact; the derivative by the z of the right answers picks one of them.
    """
    able_A = counts_A >= m
    most_tied = min(int(able_A.sum()), most // m)
    nodes, weights = np.polynomial.legendre.leggauss((most_tied + 1) // 2)
    z_Zx1, size = (nodes[:, None] + 1) / 2, len(nodes)
    # Answers that cannot reach m votes, and samples without one, are drawn but never win.
    beside = abstained + int(counts_A[~able_A].sum())
    both_RxD = np.zeros((2 * size, most + 1))  # the product at the nodes, then its derivative
    both_RxD[:size, : beside + 1] = fair[beside, : min(beside, most) + 1]
    for count, correct in zip(counts_A[able_A], correct_A[able_A]):
        tied_RxD = np.zeros_like(both_RxD)
        tied_RxD[:, m:] = fair[count, m] * both_RxD[:, : most + 1 - m]
        both_RxD = _times(both_RxD, fair[count, :m])
        both_RxD[:size] += z_Zx1 * tied_RxD[:size]
        both_RxD[size:] += z_Zx1 * tied_RxD[size:] + correct * tied_RxD[:size]
    return weights / 2 @ both_RxD[size:]


def _exact(
    counts_A: np.ndarray, correct_A: np.ndarray, abstained: int, ks_K: np.ndarray, fair: np.ndarray
) -> np.ndarray:
    most = int(ks_K.max())
    won_D = np.zeros(most + 1)
    for m in range(1, min(int(counts_A.max(initial=0)), most) + 1):
        won_D += _won_with(m, counts_A, correct_A, abstained, fair, most)
    return won_D[ks_K] / fair[int(counts_A.sum()) + abstained, ks_K]


def _resampled(
    counts_A: np.ndarray,
    correct_A: np.ndarray,
    abstained: int,
    ks_K: np.ndarray,
    num_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    samples = np.append(counts_A, abstained)
    sums_K = np.zeros(len(ks_K))
    step = max(1, _BLOCK // len(samples))
    for i, k in enumerate(ks_K):
        for start in range(0, num_resamples, step):
            size = min(step, num_resamples - start)
            votes_RxA = rng.multivariate_hypergeometric(samples, k, size=size)[:, :-1]
            top_Rx1 = votes_RxA.max(-1, keepdims=True, initial=0)
            tied_RxA = (votes_RxA == top_Rx1) & (top_Rx1 > 0)
            sums_K[i] += ((tied_RxA & correct_A).sum(-1) / np.maximum(tied_RxA.sum(-1), 1)).sum()
    return sums_K / num_resamples


def maj_at_k(
    answer_counts_BxA: Array,
    correct_BxA: Array,
    k: int | Sequence[int] | Array,
    num_abstained_B: Array | int = 0,
    *,
    most_exact: int = MOST_EXACT,
    num_resamples: int = 10_000,
    seed: int | np.random.Generator = 0,
) -> np.ndarray:
    """Expected accuracy of the majority vote among k samples (Wang et al. 2023, 2203.11171).

    k draws without replacement from a prompt's n samples; the answer with the most votes counts, and among
    tied ones each is picked alike often. The expectation over all draws, which is the unbiased estimate
    from n samples, is computed exactly up to n = most_exact. A prompt with more is resampled: the standard
    error is at most 0.5 / sqrt(num_resamples), 0.005 for 10 000. On the host.

    Args:
      answer_counts_BxA: int, samples that gave each of a prompt's different answers; leading shapes are free.
      correct_BxA: bool, whether the answer is right (several may be).
      k: one k, or several.
      num_abstained_B: int, samples without an answer. They are drawn but do not vote; where nobody votes,
        the majority is wrong.
      most_exact: at most 512, where float64 ends.
      num_resamples: draws for each k of a prompt with more samples.
      seed: for those; a number, or a generator (which is advanced).

    Returns:
      B for one k, BxK for several.

    Raises:
      ValueError: for other shapes, a negative count, a k below 1 or above a prompt's n (with its abstained
        samples), or settings out of range.
    """
    counts_BxA, correct_BxA = np.asarray(answer_counts_BxA, np.int64), np.asarray(correct_BxA, bool)
    if counts_BxA.ndim < 1 or counts_BxA.shape != correct_BxA.shape:
        raise ValueError(
            f"maj_at_k: shapes {counts_BxA.shape} and {correct_BxA.shape}; valid: the same, ... x answers"
        )
    *leading, num_answers = counts_BxA.shape
    abstained_B = np.broadcast_to(np.asarray(num_abstained_B, np.int64), leading)
    if (counts_BxA < 0).any() or (abstained_B < 0).any():
        raise ValueError("maj_at_k: a count is negative; valid: >= 0")
    if num_resamples < 1 or most_exact > 512:
        raise ValueError(
            f"maj_at_k: num_resamples = {num_resamples}, most_exact = {most_exact}; valid: >= 1, <= 512"
        )
    n_B = counts_BxA.sum(-1) + abstained_B
    check_draws("maj_at_k", n_B, k)
    ks_K, rng = np.ravel(np.asarray(k, np.int64)), np.random.default_rng(seed)
    exact_B = n_B <= most_exact
    fair = _fair_coins(int(n_B.max(initial=0, where=exact_B)))
    values_BxK = np.zeros((math.prod(leading), len(ks_K)))
    rows = zip(
        counts_BxA.reshape(len(values_BxK), num_answers), correct_BxA.reshape(len(values_BxK), num_answers)
    )
    for b, (counts_A, correct_A) in enumerate(rows):
        given_A = counts_A > 0
        prompt = counts_A[given_A], correct_A[given_A], int(abstained_B.flat[b]), ks_K
        if exact_B.flat[b]:
            values_BxK[b] = _exact(*prompt, fair)
        else:
            values_BxK[b] = _resampled(*prompt, num_resamples, rng)
    return values_BxK.reshape((*leading, *np.shape(k)))
