"""What a prompt's rollouts tell about each other, in the model's own likelihoods.

i(y_a; y_b | x) = log pi(y_a | x, y_b) - log pi(y_a | x), a token: how much likelier the model finds y_a once
it has seen y_b as a demonstration. It is the quantity by which self-distillation tilts the policy. Arrays
only: the log-probabilities come from elsewhere, and a rollout without a token must be masked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdd.metrics.arrays import divide, floats, namespace
from sdd.metrics.embeddings import distribution, eigenvalues, vendi_of
from sdd.types import Array

SCALE = 0.1  # nats a token at which the kernel of `information_vendi` falls to 1/e


def information_matrix(conditional_logp_BxNxN: Array, logp_BxN: Array, num_tokens_BxN: Array) -> Any:
    """Information of demonstration b about rollout a: (log pi(y_a | x, y_b) - log pi(y_a | x)) / |y_a|.

    Args:
      conditional_logp_BxNxN: nats, log pi(y_a | x, y_b) at [a, b]: a is scored, b is shown.
      logp_BxN: nats, log pi(y_a | x).
      num_tokens_BxN: |y_a|.

    Returns:
      BxNxN, nats a token, at [a, b]; nan for a rollout without a token. Not symmetric.

    Raises:
      ValueError: for shapes that do not go together.
    """
    shapes = [np.shape(x) for x in (conditional_logp_BxNxN, logp_BxN, num_tokens_BxN)]
    if not shapes[1] or shapes[0] != (*shapes[1], shapes[1][-1]) or shapes[2] != shapes[1]:
        raise ValueError(f"information_matrix: shapes {shapes}; valid: ... x N x N, ... x N and ... x N")
    xp = namespace(conditional_logp_BxNxN, logp_BxN, num_tokens_BxN)
    gain_BxNxN = floats(xp, conditional_logp_BxNxN) - floats(xp, logp_BxN)[..., None]
    return divide(xp, gain_BxNxN, floats(xp, num_tokens_BxN)[..., None])


def _masked(where: str, i_BxNxN: Array, mask_BxN: Array | None) -> tuple[Any, Any, Any]:
    """Returns the namespace, i with 0 on masked entries, and the mask; raises ValueError for other shapes."""
    xp = namespace(i_BxNxN, mask_BxN)
    i_BxNxN = floats(xp, i_BxNxN)
    shape = i_BxNxN.shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"{where}: i of shape {shape}; valid: ... x N x N")
    mask_BxN = xp.ones(shape[:-1], bool) if mask_BxN is None else xp.asarray(mask_BxN, dtype=bool)
    if mask_BxN.shape != shape[:-1]:
        raise ValueError(f"{where}: mask of shape {mask_BxN.shape}; valid: {shape[:-1]}")
    both_BxNxN = mask_BxN[..., :, None] & mask_BxN[..., None, :]
    return xp, xp.where(both_BxNxN, i_BxNxN, 0), mask_BxN


def _pairs(xp: Any, mask_BxN: Any) -> Any:
    """BxNxN bool: pairs of different real rollouts."""
    different_NxN = ~xp.eye(mask_BxN.shape[-1], dtype=bool)
    return mask_BxN[..., :, None] & mask_BxN[..., None, :] & different_NxN


def _mean_over(xp: Any, values_BxNxN: Any, where_BxNxN: Any) -> Any:
    sum_B = xp.where(where_BxNxN, values_BxNxN, 0).sum((-2, -1))
    return divide(xp, sum_B, where_BxNxN.sum((-2, -1)))


def mean_information(i_BxNxN: Array, mask_BxN: Array | None = None) -> Any:
    """Mean of i over pairs of different rollouts, without bias: how much one rollout gives away of another.

    High when all rollouts are alike and the model still thought others possible; a policy that is certain
    has nothing left to gain, so read it beside the entropy.

    Args:
      i_BxNxN: nats a token, see `information_matrix`.
      mask_BxN: bool, rollouts to count; all if None.

    Returns:
      B, nats a token; nan for a prompt with fewer than two rollouts.

    Raises:
      ValueError: for shapes that do not go together.
    """
    xp, i_BxNxN, mask_BxN = _masked("mean_information", i_BxNxN, mask_BxN)
    return _mean_over(xp, i_BxNxN, _pairs(xp, mask_BxN))


def strategy_share(i_BxNxN: Array, strategy_BxN: Array, mask_BxN: Array | None = None) -> Any:
    """Share of the variance of i over pairs that is explained by whether both use the same strategy.

    Eta squared of a one-way analysis of variance with two groups of ordered pairs a != b, the same and
    different strategy: sum over groups of n_g (mean_g - mean)^2 over the sum of (i - mean)^2. It does not
    tell which group is higher. Biased upwards: P pairs without any relation give about 1 / (P - 1), and
    more as pairs share rollouts.

    Args:
      i_BxNxN: nats a token, see `information_matrix`.
      strategy_BxN: int; rollouts with -1 (none can be told) are left out.
      mask_BxN: bool, rollouts to count; all if None.

    Returns:
      B in [0, 1]; nan where there are no pairs of one of the kinds, or i does not vary.

    Raises:
      ValueError: for shapes that do not go together.
    """
    xp, i_BxNxN, mask_BxN = _masked("strategy_share", i_BxNxN, mask_BxN)
    xp = namespace(i_BxNxN, strategy_BxN)
    strategy_BxN = xp.asarray(strategy_BxN)
    if strategy_BxN.shape != mask_BxN.shape:
        raise ValueError(f"strategy_share: strategies of shape {strategy_BxN.shape}; valid: {mask_BxN.shape}")
    pairs_BxNxN = _pairs(xp, mask_BxN & (strategy_BxN >= 0))
    same_BxNxN = strategy_BxN[..., :, None] == strategy_BxN[..., None, :]
    centred_BxNxN = i_BxNxN - _mean_over(xp, i_BxNxN, pairs_BxNxN)[..., None, None]
    centred_BxNxN = xp.where(pairs_BxNxN, centred_BxNxN, 0)
    total_B = (centred_BxNxN**2).sum((-2, -1))
    explained_B = 0.0
    for group_BxNxN in (pairs_BxNxN & same_BxNxN, pairs_BxNxN & ~same_BxNxN):
        mean_B = _mean_over(xp, centred_BxNxN, group_BxNxN)
        explained_B = explained_B + group_BxNxN.sum((-2, -1)) * mean_B**2
    # A constant i leaves the rounding of its mean.
    rounding_B = 4 * float(xp.finfo(i_BxNxN.dtype).eps) * xp.abs(i_BxNxN).max((-2, -1), initial=0)
    varies_B = total_B > pairs_BxNxN.sum((-2, -1)) * rounding_B**2
    return xp.clip(divide(xp, explained_B, xp.where(varies_B, total_B, xp.nan)), 0, 1)


def information_vendi(
    i_BxNxN: Array, mask_BxN: Array | None = None, q: float | Sequence[float] = 1.0, scale: float = SCALE
) -> Any:
    """Vendi score of rollouts, as different as their likelihoods say: no embedder is needed.

    d_ab = max(0, (i_aa + i_bb - i_ab - i_ba) / 2), nats a token: how much worse, on average over both
    directions, another rollout announces a rollout than the rollout does itself (as in Jeffreys'
    divergence; log pi(y_a | x) cancels out). The kernel is K = exp(-d / scale), 1 on the diagonal. It need
    not be positive semidefinite: its negative eigenvalues are set to 0 and the others divided by their sum,
    which is the nearest kernel up to its trace. Then as `sdd.metrics.embeddings.vendi_score`, with its bias:
    compare equal n, and equal scales.

    scale is the d at which similarity falls to 1/e. At scale 1, K is the likelihood ratio itself, its
    geometric mean over tokens; but texts that share nothing differ by little more than the model's entropy,
    0.1 to 1 nats a token, and rollouts of two strategies differ in few tokens, so 1 would call all of them
    alike. The default is 0.1. It is fixed and not taken from the data, because a policy that is certain
    would else have its rounding counted as variety.

    Args:
      i_BxNxN: nats a token, see `information_matrix`; the diagonal is used.
      mask_BxN: bool, rollouts to count; all if None.
      q: order from 0 to inf, or a sequence of them.
      scale: nats a token.

    Returns:
      B for one order, BxQ for a sequence, in [1, n]; nan for a prompt without a rollout.

    Raises:
      ValueError: for shapes that do not go together, an order below 0, a scale that is not above 0, or (in
        numpy) an i that is not finite.
    """
    if not scale > 0:
        raise ValueError(f"information_vendi: scale = {scale}; valid: above 0 nats a token")
    xp, i_BxNxN, mask_BxN = _masked("information_vendi", i_BxNxN, mask_BxN)
    if xp is np and not np.isfinite(i_BxNxN).all():
        at = tuple(int(x) for x in np.argwhere(~np.isfinite(i_BxNxN))[0])
        raise ValueError(f"information_vendi: i at {at} is not finite; valid: finite numbers")
    self_BxN = xp.diagonal(i_BxNxN, axis1=-2, axis2=-1)
    both_BxNxN = (i_BxNxN + i_BxNxN.swapaxes(-1, -2)) / 2
    distance_BxNxN = (self_BxN[..., :, None] + self_BxN[..., None, :]) / 2 - both_BxNxN
    kernel_BxNxN = xp.exp(-xp.maximum(distance_BxNxN, 0) / scale)
    real_BxNxN = mask_BxN[..., :, None] & mask_BxN[..., None, :]
    spectrum_BxN = distribution(eigenvalues(xp.where(real_BxNxN, kernel_BxNxN, 0)))
    return vendi_of(spectrum_BxN, mask_BxN.sum(-1), q)


def mixture_given_previous(conditional_logp_BxNxN: Array, logp_BxN: Array) -> Any:
    """log pi(y_a | x, y_1 .. y_(a-1)) of a reader who is shown one of the earlier rollouts, uniformly.

    log 1/(a-1) sum over b < a of pi(y_a | x, y_b); of the first rollout log pi(y_1 | x). It stands in for
    a prompt that shows all of them, which tasks do not have.

    Arguments as in `information_matrix`. Returns BxN, nats.
    """
    xp = namespace(conditional_logp_BxNxN, logp_BxN)
    logp_BxNxN = floats(xp, conditional_logp_BxNxN)
    n = logp_BxNxN.shape[-1]
    earlier_NxN = xp.arange(n)[:, None] > xp.arange(n)
    masked_BxNxN = xp.where(earlier_NxN, logp_BxNxN, -xp.inf)
    # The largest is taken out, so that no exponential underflows to 0 for all of them.
    largest_BxNx1 = xp.where(earlier_NxN, logp_BxNxN, xp.min(logp_BxNxN)).max(-1, keepdims=True)
    total_BxN = xp.exp(masked_BxNxN - largest_BxNx1).sum(-1)
    number_N = xp.maximum(xp.arange(n), 1)
    mixture_BxN = largest_BxNx1[..., 0] + xp.log(xp.where(total_BxN > 0, total_BxN, 1) / number_N)
    return xp.where(xp.arange(n) == 0, floats(xp, logp_BxN), mixture_BxN)


def progressive_surprise(
    logp_given_previous_BxN: Array, num_tokens_BxN: Array, mask_BxN: Array | None = None
) -> Any:
    """Surprise of each rollout given the ones before it: -log pi(y_a | x, y_1 .. y_(a-1)) / |y_a|.

    Progressive conditional surprise (2606.01811), there a byte, here a token. It falls along a row as far
    as the model can tell from earlier rollouts what later ones are like; the paper averages over orders.

    Args:
      logp_given_previous_BxN: nats, log pi(y_a | x, y_1 .. y_(a-1)).
      num_tokens_BxN: |y_a|.
      mask_BxN: bool, real rollouts; all if None.

    Returns:
      BxN, nats a token; nan on masked rollouts and those without a token.
    """
    xp = namespace(logp_given_previous_BxN, num_tokens_BxN, mask_BxN)
    surprise_BxN = divide(xp, -floats(xp, logp_given_previous_BxN), floats(xp, num_tokens_BxN))
    return surprise_BxN if mask_BxN is None else xp.where(xp.asarray(mask_BxN, bool), surprise_BxN, xp.nan)


def surprise_drop(surprise_BxN: Array) -> Any:
    """How much lower the surprise of the later rollouts is than the first one's, in the order given.

    Small when rollouts have nothing in common that the model could learn from them; it also is when the
    model expected all of it beforehand.

    Args:
      surprise_BxN: nats a token, see `progressive_surprise`; nan entries are left out.

    Returns:
      B, nats a token: the first minus the mean of the rest; nan for fewer than two rollouts.
    """
    xp = namespace(surprise_BxN)
    surprise_BxN = floats(xp, surprise_BxN)
    real_BxN = ~xp.isnan(surprise_BxN)
    first_BxN = real_BxN & (xp.cumsum(real_BxN, -1) == 1)
    first_B = xp.where(first_BxN, surprise_BxN, 0).sum(-1)
    rest_BxN = real_BxN & ~first_BxN
    return first_B - divide(xp, xp.where(rest_BxN, surprise_BxN, 0).sum(-1), rest_BxN.sum(-1))


def likelihood_metrics_of(
    i_BxNxN: Array, strategy_BxN: Array | None, mask_BxN: Array | None
) -> dict[str, Array]:
    """information, information_strategy_share (where strategies are known) and vendi[likelihood].

    Arguments and errors as in the functions above. Returns name -> B.
    """
    metrics = {"information": mean_information(i_BxNxN, mask_BxN)}
    if strategy_BxN is not None:
        metrics["information_strategy_share"] = strategy_share(i_BxNxN, strategy_BxN, mask_BxN)
    return metrics | {"vendi[likelihood]": information_vendi(i_BxNxN, mask_BxN)}
