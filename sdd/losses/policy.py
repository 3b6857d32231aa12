"""Advantages, the clipped surrogate and the means of policy-gradient losses.

`group_advantages` and `diversity_bonus` take numpy arrays on the host as well as
jax arrays, and answer in kind.
"""

from types import ModuleType
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sdd.losses.mean import Mean, weighted_sum
from sdd.types import Array

LossMean = Literal["sequence", "token", "constant"]
Denominator = Literal["all", "active"]

# exp of more overflows float32's useful range; beyond it the gradient is 0 instead of infinite.
_MAX_LOG_RATIO = 20.0


def group_advantages(reward_N: Array, group_size: int, normalise: bool, eps: float = 1e-6) -> Array:
    """Rewards relative to their group.

    A_i = r_i - mean(group), and with ``normalise`` A_i / (std(group) + eps), std
    being the population's. GRPO (arXiv 2402.03300) normalises, Dr.GRPO (arXiv
    2503.20783) does not. Codes that use the sample's std differ by the constant
    factor sqrt((G-1)/G).

    Args:
      reward_N: rewards; rows n with the same n // group_size form a group.
      group_size: G >= 1.
      normalise: whether to divide by the standard deviation.
      eps: added to the standard deviation.

    Returns:
      float32, (N,).

    Raises:
      ValueError: when N is not a multiple of the group size.
    """
    chex.assert_rank(reward_N, 1)
    xp = _namespace(reward_N)
    reward_BxG = _groups(reward_N, group_size).astype(xp.float32)
    advantage_BxG = reward_BxG - reward_BxG.mean(axis=1, keepdims=True)
    if normalise:
        advantage_BxG = advantage_BxG / (reward_BxG.std(axis=1, keepdims=True) + eps)
    return _ungroup(advantage_BxG, reward_N)


def diversity_bonus(correct_N: Array, strategy_N: Array, group_size: int, bonus: float) -> Array:
    """Rewards that favour right answers by strategies that are rare in their group.

    r_i = c_i (1 + bonus (1 - share_i)), where c_i says whether rollout i is right
    and share_i is the fraction of the other rollouts of its group, right or wrong,
    that use its strategy. A right rollout whose strategy cannot be told (-1) has
    r_i = 1. A group of one has no others: share 0.

    Args:
      correct_N: bool.
      strategy_N: integers, -1 where no strategy can be told.
      group_size: G >= 1; rows n with the same n // G form a group.
      bonus: largest bonus, in units of reward.

    Returns:
      float32, (N,).

    Raises:
      ValueError: when N is not a multiple of the group size.
    """
    chex.assert_rank([correct_N, strategy_N], 1)
    chex.assert_equal_shape([correct_N, strategy_N])
    xp = _namespace(correct_N, strategy_N)
    correct_BxG = _groups(xp.asarray(correct_N), group_size).astype(xp.float32)
    strategy_BxG = _groups(xp.asarray(strategy_N), group_size)
    same_BxGxG = strategy_BxG[:, :, None] == strategy_BxG[:, None, :]
    others_BxG = same_BxGxG.sum(axis=2) - 1
    share_BxG = others_BxG.astype(xp.float32) / max(group_size - 1, 1)
    bonus_BxG = xp.where(strategy_BxG >= 0, xp.float32(bonus) * (1 - share_BxG), xp.float32(0))
    return _ungroup(correct_BxG * (1 + bonus_BxG), correct_N)


def clipped_surrogate(
    logp_NxT: Array, old_logp_NxT: Array, advantage: Array, clip_low: float, clip_high: float
) -> tuple[jax.Array, jax.Array]:
    """PPO's clipped surrogate as a loss, with separate bounds.

    rho = exp(logp - old_logp); loss = - min(rho A, clip(rho, 1 - low, 1 + high) A).
    log rho is limited to +-20, beyond which there is no gradient.

    Args:
      logp_NxT: nats, log-probabilities of the sampled tokens under the current policy.
      old_logp_NxT: nats, the same under the policy that sampled.
      advantage: (N,), one a rollout, or (N, T), one a token.
      clip_low: in [0, 1].
      clip_high: >= 0.

    Returns:
      loss_NxT, and clipped_NxT: 1.0 where the bound is active (no gradient there)
      and 0.0 elsewhere; its mean over the real tokens is the clipped fraction.

    Raises:
      ValueError: for bounds outside those ranges.
    """
    chex.assert_rank(logp_NxT, 2)
    chex.assert_equal_shape([logp_NxT, old_logp_NxT])
    chex.assert_shape(advantage, logp_NxT.shape[: advantage.ndim])
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise ValueError(f"clip bounds are {clip_low} and {clip_high}; valid: low in 0 to 1, high at least 0")
    advantage_NxT = jax.lax.stop_gradient(advantage[:, None] if advantage.ndim == 1 else advantage)
    log_ratio_NxT = _float32(logp_NxT) - jax.lax.stop_gradient(_float32(old_logp_NxT))
    ratio_NxT = jnp.exp(jnp.clip(log_ratio_NxT, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    free_NxT = ratio_NxT * advantage_NxT
    bound_NxT = jnp.clip(ratio_NxT, 1 - clip_low, 1 + clip_high) * advantage_NxT
    clipped_NxT = jax.lax.stop_gradient(bound_NxT < free_NxT).astype(jnp.float32)
    return -jnp.where(bound_NxT < free_NxT, bound_NxT, free_NxT), clipped_NxT


def kl_k3(logp_NxT: Array, ref_logp_NxT: Array) -> jax.Array:
    """The k3 estimate of KL(policy||reference) from sampled tokens.

    With d = log ref - log pi: exp(d) - d - 1, non-negative, and unbiased for
    tokens drawn from the policy (arXiv 2402.03300, equation 4). d is limited to
    at most 20, beyond which there is no gradient.

    Args:
      logp_NxT: nats, under the policy.
      ref_logp_NxT: nats, under the reference; no gradient.

    Returns:
      nats, (N, T).
    """
    chex.assert_equal_shape([logp_NxT, ref_logp_NxT])
    d_NxT = jax.lax.stop_gradient(_float32(ref_logp_NxT)) - _float32(logp_NxT)
    d_NxT = jnp.minimum(d_NxT, _MAX_LOG_RATIO)
    return jnp.expm1(d_NxT) - d_NxT


def token_weights(
    mask_NxT: Array,
    row_weight_N: Array,
    how: LossMean,
    constant_length: int = 0,
    denominator: Denominator = "all",
) -> tuple[jax.Array, jax.Array]:
    """What each token weighs in the mean of a loss, and what that mean is divided by.

    With m the mask, w the row weights and R the rows that count, the loss is

    - ``sequence`` (GRPO, SDPO): sum_n w_n (sum_t m_nt l_nt / sum_t m_nt) / |R|.
    - ``token``: sum_n w_n sum_t m_nt l_nt / sum_{n in R} sum_t m_nt.
    - ``constant`` (Dr.GRPO, arXiv 2503.20783): sum_n w_n sum_t m_nt l_nt / (constant_length |R|).

    R is every row (``all``, as in SDPO: a row of weight 0 dilutes the loss) or the
    rows of weight above 0 (``active``). Where nothing counts, the loss is 0.

    Args:
      mask_NxT: bool, the real tokens.
      row_weight_N: non-negative.
      how: one of the above.
      constant_length: tokens, > 0; read by ``constant`` only.
      denominator: ``all`` or ``active``.

    Returns:
      weight_NxT, float32, 0 outside the mask, and the divisor, a float32 scalar: the total and the
      weight of a `Mean`, as in ``Mean(sum_blocks(fn, block_size, weight_NxT, ...)[0], divisor)``.

    Raises:
      ValueError: for an unknown name, or ``constant`` without a length.
    """
    chex.assert_rank(mask_NxT, 2)
    chex.assert_shape(row_weight_N, mask_NxT.shape[:1])
    if denominator not in ("all", "active"):
        raise ValueError(f"denominator is {denominator!r}; valid: all, active")
    if how == "constant" and constant_length <= 0:
        raise ValueError(f"constant_length is {constant_length}; valid: more than 0 for the mean 'constant'")
    mask_NxT = jnp.asarray(mask_NxT, bool)
    weight_N = jnp.asarray(row_weight_N, jnp.float32)
    length_N = jnp.sum(mask_NxT, axis=1, dtype=jnp.float32)
    counts_N = jnp.ones_like(weight_N) if denominator == "all" else (weight_N > 0).astype(jnp.float32)
    if how == "sequence":
        weight_N, divisor = weight_N / jnp.maximum(length_N, 1), jnp.sum(counts_N)
    elif how == "token":
        divisor = jnp.sum(counts_N * length_N)
    elif how == "constant":
        divisor = constant_length * jnp.sum(counts_N)
    else:
        raise ValueError(f"loss mean is {how!r}; valid: sequence, token, constant")
    return jnp.where(mask_NxT, weight_N[:, None], 0), divisor


def reduce_loss(
    loss_NxT: Array,
    mask_NxT: Array,
    row_weight_N: Array,
    how: LossMean,
    constant_length: int = 0,
    denominator: Denominator = "all",
) -> Mean:
    """One number from losses NxT that are all there, as a `Mean`: (numerator, denominator).

    Losses of tokens without weight do not count, not even when they are not finite.
    For the other arguments, the means and the errors see `token_weights`.
    """
    chex.assert_equal_shape([loss_NxT, mask_NxT])
    weight_NxT, divisor = token_weights(mask_NxT, row_weight_N, how, constant_length, denominator)
    return Mean(weighted_sum(loss_NxT, weight_NxT), divisor)


def _namespace(*arrays: Array) -> ModuleType:
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def _float32(array: Array) -> jax.Array:
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _groups(array_N: Array, group_size: int) -> Array:
    """(N,) -> (N / group_size, group_size); unsharded, for a group may straddle devices."""
    if group_size < 1 or array_N.shape[0] % group_size:
        raise ValueError(
            f"group size is {group_size} for {array_N.shape[0]} rows; valid: a divisor of the rows"
        )
    if isinstance(array_N, jax.Array) and any(jax.typeof(array_N).sharding.spec):
        array_N = jax.sharding.reshard(array_N, jax.P(None))
    return array_N.reshape(-1, group_size)


def _ungroup(array_BxG: Array, like_N: Array) -> Array:
    """(B, G) -> (N,), sharded as ``like_N``."""
    array_N = array_BxG.reshape(-1)
    if isinstance(like_N, jax.Array) and any(jax.typeof(like_N).sharding.spec):
        array_N = jax.sharding.reshard(array_N, jax.typeof(like_N).sharding.spec)
    return array_N
