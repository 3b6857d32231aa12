"""pass@k and pass^k from n samples a prompt, unbiased, for all k at once.

Everything here rests on one number: the probability that k draws without
replacement from n samples miss all c marked ones, C(n-c, k) / C(n, k).
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from sdd.metrics.arrays import concrete, floats, namespace
from sdd.types import Array


def powers_of_two(n: int) -> tuple[int, ...]:
    """Returns the powers of two up to n, and n itself: 6 -> (1, 2, 4, 6).

    Raises:
      ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"powers_of_two: n = {n}; valid: n >= 1")
    powers = [1 << i for i in range(n.bit_length())]
    return tuple(powers) if powers[-1] == n else (*powers, n)


def _stirling_remainder(xp: ModuleType, m: Any) -> Any:
    """Returns log m! - [(m + 1/2) log m - m + log(2 pi) / 2] for m >= 1."""
    table = [0.0]  # m = 0 is never asked for
    for i in range(1, 32):
        table.append(math.lgamma(i + 1) - (i + 0.5) * math.log(i) + i - 0.5 * math.log(2 * math.pi))
    small = xp.asarray(table, dtype=m.dtype)[xp.clip(m, 0, 31).astype(int)]
    square = xp.maximum(m, 32) ** 2
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / xp.sqrt(square)
    return xp.where(m < 32, small, series)


def log_miss(num_samples: Array | int, num_marked: Array | int, k: Array | int) -> Any:
    """Log-probability that k draws without replacement from n samples miss all c marked ones.

    log C(n-c, k) / C(n, k), elementwise over arrays that broadcast. A difference
    of four log-factorials would lose all digits in float32 (log 4096! is about
    30 000), so Stirling's formula is put in and its large terms are cancelled by
    hand. With d = n - c - k, (n-c)(n-k) = n d + c k, and what is left is small:

        (d + 1/2) log1p(ck / nd) + k log1p(-c/n) + c log1p(-k/n) + remainders

    Args:
      num_samples: n.
      num_marked: c, 0 <= c <= n.
      k: draws.

    Returns:
      nats; -inf where a miss is impossible (k > n - c), nan where k > n.
    """
    xp = namespace(num_samples, num_marked, k)
    n, c, k = (floats(xp, x) for x in (num_samples, num_marked, k))
    left = n - c - k
    possible = (left >= 0) & (k > 0)
    # log d is singular at d = 0: there take k-1 draws, and the last one separately, 1 / (n-k+1).
    last = possible & (left == 0)
    n1 = xp.maximum(n, 1)
    c1 = xp.where(possible, c, 0)
    k1 = xp.where(possible, k - last, 0)
    d = n1 - c1 - k1
    log_ratio = (d + 0.5) * xp.log1p(c1 * k1 / (n1 * d)) + k1 * xp.log1p(-c1 / n1) + c1 * xp.log1p(-k1 / n1)
    log_ratio += _stirling_remainder(xp, n1 - c1) + _stirling_remainder(xp, n1 - k1)
    log_ratio -= _stirling_remainder(xp, n1) + _stirling_remainder(xp, d)
    log_ratio -= xp.log(xp.where(last, n - k + 1, 1))
    # A probability: rounding must not lift it above 1.
    log_ratio = xp.where(possible, xp.minimum(log_ratio, 0), xp.where(k > 0, -xp.inf, 0))
    return xp.where(k > n, xp.nan, log_ratio)


def check_draws(where: str, num_samples: Array | int, k: int | Sequence[int] | Array) -> None:
    """Raises ValueError in one line unless 1 <= k <= n for every k and every prompt known now."""
    n, ks = concrete(num_samples), concrete(k)
    if ks is None or not ks.size:
        return
    if ks.min() < 1:
        raise ValueError(f"{where}: k = {ks.min()}; valid: k >= 1")
    if n is not None and n.size and ks.max() > n.min():
        raise ValueError(f"{where}: k = {ks.max()} exceeds a prompt's n = {n.min()} samples; valid: k <= n")


def _check_counts(where: str, num_samples: Array | int, num_correct: Array | int) -> None:
    n, c = concrete(num_samples), concrete(num_correct)
    if n is not None and c is not None and c.size and ((c < 0) | (c > n)).any():
        raise ValueError(f"{where}: num_correct must be in [0, num_samples]; it has {c.min()} .. {c.max()}")


def _expand(num_samples: Any, num_marked: Any, k: Any) -> tuple[Any, Any, Any]:
    """Adds a last dimension for k if there are several."""
    xp = namespace(num_samples, num_marked, k)
    n, c, k_K = xp.asarray(num_samples), xp.asarray(num_marked), xp.asarray(k)
    return (n, c, k_K) if k_K.ndim == 0 else (n[..., None], c[..., None], k_K)


def pass_at_k(num_samples_B: Array | int, num_correct_B: Array | int, k: int | Sequence[int] | Array) -> Any:
    """Probability that at least one of k samples is correct, without bias: 1 - C(n-c, k) / C(n, k).

    Chen et al. 2021 (2107.03374), eq. 1. Leading shapes are free and broadcast.

    Args:
      num_samples_B: n, samples of each prompt (or one number for all).
      num_correct_B: c, correct ones among them.
      k: one k, or several.

    Returns:
      B for one k, BxK for several. While tracing, nan where k > n.

    Raises:
      ValueError: if a k is below 1 or above a prompt's n, or c is not in [0, n] (where the values are known).
    """
    check_draws("pass_at_k", num_samples_B, k)
    _check_counts("pass_at_k", num_samples_B, num_correct_B)
    log_miss_BxK = log_miss(*_expand(num_samples_B, num_correct_B, k))
    # expm1 keeps the digits of a small probability (1 correct of 4096); + 0.0 makes -0.0 plain.
    return -namespace(log_miss_BxK).expm1(log_miss_BxK) + 0.0


def pass_hat_k(num_samples_B: Array | int, num_correct_B: Array | int, k: int | Sequence[int] | Array) -> Any:
    """Probability that all of k samples are correct (pass^k), without bias: C(c, k) / C(n, k).

    Yao et al. 2024 (2406.12045). Arguments, shapes and errors as in `pass_at_k`.
    """
    check_draws("pass_hat_k", num_samples_B, k)
    _check_counts("pass_hat_k", num_samples_B, num_correct_B)
    n, c, k_K = _expand(num_samples_B, num_correct_B, k)
    log_all_BxK = log_miss(n, n - c, k_K)
    return namespace(log_all_BxK).exp(log_all_BxK)
