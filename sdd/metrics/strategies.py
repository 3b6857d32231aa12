"""How many strategies a prompt's rollouts use, and how evenly.

All functions take counts of strategies, of shape BxS, and leading shapes are
free. Counts may be over all rollouts or over the correct ones only.
"""

from collections.abc import Sequence
from typing import Any

from sdd.metrics.arrays import concrete, divide, floats, namespace
from sdd.metrics.pass_at_k import check_draws, log_miss
from sdd.types import Array


def numbered(names: Sequence[str | None]) -> list[int]:
    """Names of a prompt's strategies -> their numbers, in order of appearance; None -> -1."""
    numbers: dict[str | None, int] = {None: -1}
    return [numbers.setdefault(name, len(numbers) - 1) for name in names]


def strategy_counts(strategy_BxN: Array, num_strategies: int, mask_BxN: Array | None = None) -> Any:
    """Counts the rollouts of each strategy.

    Args:
      strategy_BxN: int, strategy of each of a prompt's n rollouts; -1 where none can be told.
      num_strategies: S.
      mask_BxN: bool, rollouts to count (for example the correct ones); all if None.

    Returns:
      BxS int.

    Raises:
      ValueError: if an id is not in [-1, num_strategies) (where the values are known).
    """
    ids = concrete(strategy_BxN)
    if ids is not None and ids.size and (ids.min() < -1 or ids.max() >= num_strategies):
        raise ValueError(
            f"strategy_counts: ids {ids.min()} .. {ids.max()}; valid: -1 (none) .. {num_strategies - 1}"
        )
    xp = namespace(strategy_BxN, mask_BxN)
    hit_BxNxS = xp.asarray(strategy_BxN)[..., None] == xp.arange(num_strategies)
    if mask_BxN is not None:
        hit_BxNxS = hit_BxNxS & xp.asarray(mask_BxN, dtype=bool)[..., None]
    return hit_BxNxS.sum(-2)


def distinct_at_k(
    counts_BxS: Array, k: int | Sequence[int] | Array, num_samples_B: Array | int | None = None
) -> Any:
    """Expected number of distinct strategies among k rollouts, without bias.

    sum over s of 1 - C(n - n_s, k) / C(n, k): k draws without replacement from
    the n rollouts. It is to strategies what pass@k is to success, and Hurlbert's
    rarefaction (1971) in ecology.

    Args:
      counts_BxS: n_s, rollouts of each strategy; with correct rollouts only, the
        result counts strategies that are drawn and succeed.
      k: one k, or several.
      num_samples_B: n, all rollouts of each prompt, also those without a
        strategy or incorrect; the sum of the counts if None.

    Returns:
      B for one k, BxK for several. While tracing, nan where k > n.

    Raises:
      ValueError: if a k is below 1 or above a prompt's n, or a prompt has more
        counts than samples (where the values are known).
    """
    xp = namespace(counts_BxS, num_samples_B, k)
    counts_BxS, k_K = xp.asarray(counts_BxS), xp.asarray(k)
    n_B = counts_BxS.sum(-1) if num_samples_B is None else xp.asarray(num_samples_B)
    check_draws("distinct_at_k", n_B, k_K)
    excess_B = concrete(counts_BxS.sum(-1) - n_B)
    if excess_B is not None and excess_B.size and excess_B.max() > 0:
        raise ValueError(
            f"distinct_at_k: a prompt has {excess_B.max()} more counts than num_samples; valid: sum <= n"
        )
    if k_K.ndim == 0:
        return -xp.expm1(log_miss(n_B[..., None], counts_BxS, k_K)).sum(-1) + 0.0
    miss_BxKxS = log_miss(n_B[..., None, None], counts_BxS[..., None, :], k_K[:, None])
    return -xp.expm1(miss_BxKxS).sum(-1) + 0.0


def num_distinct(counts_BxS: Array) -> Any:
    """Returns B int: the number of strategies that occur at all. It grows with n; see `distinct_at_k`."""
    return (namespace(counts_BxS).asarray(counts_BxS) > 0).sum(-1)


def top_strategy_share(counts_BxS: Array) -> Any:
    """Returns B: share of the most frequent strategy among a prompt's counted rollouts; nan without any."""
    xp = namespace(counts_BxS)
    counts_BxS = floats(xp, counts_BxS)
    return divide(xp, counts_BxS.max(-1), counts_BxS.sum(-1))


def strategy_entropy(counts_BxS: Array, miller_madow: bool = True) -> Any:
    """Entropy of the prompt's distribution over strategies.

    The plug-in estimate -sum p log p is too small by about (m - 1) / 2n, with m
    the strategies seen and n the counted rollouts; Miller and Madow (1955) add
    that back. The corrected value can exceed log S when n is small.

    Args:
      counts_BxS: rollouts of each strategy.
      miller_madow: whether to correct.

    Returns:
      B, nats; nan for a prompt without a counted rollout.
    """
    xp = namespace(counts_BxS)
    counts_BxS = floats(xp, counts_BxS)
    total_B = counts_BxS.sum(-1)
    p_BxS = divide(xp, counts_BxS, total_B[..., None])
    entropy_B = -(p_BxS * xp.log(xp.where(p_BxS > 0, p_BxS, 1))).sum(-1) + 0.0
    if miller_madow:
        entropy_B = entropy_B + divide(xp, (counts_BxS > 0).sum(-1) - 1, 2 * total_B)
    return entropy_B


def unseen_mass(counts_BxS: Array) -> Any:
    """Good and Turing's estimate of the probability that the next rollout shows an unseen strategy.

    The share of rollouts whose strategy occurs exactly once (Good 1953).

    Returns:
      B in [0, 1]; nan for a prompt without a counted rollout.
    """
    xp = namespace(counts_BxS)
    counts_BxS = floats(xp, counts_BxS)
    return divide(xp, (counts_BxS == 1).sum(-1), counts_BxS.sum(-1))
