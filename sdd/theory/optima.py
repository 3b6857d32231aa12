r"""Optima of distributions over answers that can be listed; numpy, float64.

``Y`` answers (or, at a prefix, next tokens), ``D`` teachers, ``...`` any leading axes. Derivations:
docs/theory.md.
"""

from collections import Counter
from itertools import combinations_with_replacement
from math import factorial

import numpy as np
from scipy.optimize import brentq

from sdd.types import Array

_HALVINGS = 200  # of an interval in log space: down to the last bit of a float64


def rl_optimum(start_Y: Array, reward_Y: Array, beta: float) -> np.ndarray:
    """argmax of E_pi[R] - beta KL(pi || start): start exp(R / beta), normalised.

    Ratios among answers of equal reward are the start's.

    Args:
      start_Y: probabilities, ...xY.
      reward_Y: ...xY.
      beta: weight of the divergence, above 0, in units of reward a nat.

    Raises:
      ValueError: a beta that is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"rl_optimum: beta = {beta}; valid: above 0 (at 0 every right answer is optimal)")
    return softmax(_log(start_Y) + np.asarray(reward_Y, np.float64) / beta)


def inverse_tilt(reference_Y: Array, gain_Y: Array, coefficient: float) -> np.ndarray:
    """argmax of E_pi[gain] - coefficient KL(reference || pi): coefficient * reference / (lambda - gain).

    lambda, above the largest gain, makes it sum to 1. This, and not `rl_optimum`, is where a policy
    gradient with a differentiated k3 penalty ends. Ratios among answers of equal gain are the
    reference's.

    Args:
      reference_Y: probabilities, all above 0, ...xY.
      gain_Y: ...xY.
      coefficient: above 0.

    Raises:
      ValueError: a coefficient that is not above 0.
    """
    if not coefficient > 0:
        raise ValueError(f"inverse_tilt: coefficient = {coefficient}; valid: above 0")
    reference_Y, gain_Y = np.asarray(reference_Y, np.float64), np.asarray(gain_Y, np.float64)
    behind_Y = gain_Y.max(-1, keepdims=True) - gain_Y
    # lambda is the largest gain plus a gap; at the low end of it the best answers alone have all the mass.
    low = np.log(coefficient * (reference_Y * (behind_Y == 0)).sum(-1, keepdims=True))
    high = np.full_like(low, np.log(coefficient))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_much = (coefficient * reference_Y / (np.exp(middle) + behind_Y)).sum(-1, keepdims=True) > 1
        low, high = np.where(too_much, middle, low), np.where(too_much, high, middle)
    policy_Y = coefficient * reference_Y / (np.exp(high) + behind_Y)
    return policy_Y / policy_Y.sum(-1, keepdims=True)


def sdsd_optimum(start_Y: Array, taught_DxY: Array, weight_D: Array, beta: float) -> np.ndarray:
    r"""argmin of E_d KL(pi || taught_d) + beta KL(pi || start), the optimum that 2606.26091 states.

    start exp(E_d i(y; d) / (1 + beta)), normalised, with i(y; d) = log taught_d(y) - log start(y). At
    beta = 0 it is the normalised geometric mean of the teachers, whatever the start.

    Args:
      start_Y: pi_0(y | x).
      taught_DxY: pi_0(y | x, d).
      weight_D: how often d demonstrates, sum 1.
      beta: at least 0.
    """
    mean_log_Y = _expected_log(taught_DxY, weight_D)
    return softmax((mean_log_Y + beta * _log(start_Y)) / (1 + beta) if beta else mean_log_Y)


def sdsd_gains(logp_C: Array, taught_logp_CxC: Array, beta: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """log pi* - log pi_0 of right answers under `sdsd_optimum`, each up to a constant, in log space.

    For the reverse divergence and the mean of losses, for which the number of demonstrations does not
    matter. The first are with the start's demonstrations, d drawn by pi_0(d | x) among those listed; the
    second with the policy's own, iterated from there (at most 2000 rounds).

    Args:
      logp_C: nats, log pi_0(y | x) of C right answers.
      taught_logp_CxC: nats, log pi_0(y | x, d) at [d, y]; each row up to a constant.
      beta: weight of a pull to the start.
    """
    logp_C, taught_logp_CxC = np.asarray(logp_C, np.float64), np.asarray(taught_logp_CxC, np.float64)
    gains = lambda weight_C: (weight_C @ taught_logp_CxC - logp_C) / (1 + beta)  # noqa: E731
    own_C = weight_C = softmax(logp_C)
    for _ in range(2000):
        new_C = softmax(logp_C + gains(own_C))
        if np.abs(new_C - own_C).max() < 1e-12:
            break
        own_C = new_C
    return gains(weight_C), gains(own_C)


def matched(taught_DxY: Array, weight_D: Array, divergence: str, js_weight: float = 0.5) -> np.ndarray:
    """argmin over pi of sum_d weight_d D(pi, taught_d), for the divergences of `sdd.losses.divergence`.

    - ``reverse``, KL(pi || T): the normalised geometric mean of the teachers.
    - ``forward``, KL(T || pi): their arithmetic mean.
    - ``js``: convex in pi, without a closed form. Where it is least, sum_d w_d log((1 - a) + a T_d(y) /
      pi(y)) is the same mu for every y, with mu in (log(1 - a), 0]; solved to the rounding of float64.

    Args:
      taught_DxY: D distributions.
      weight_D: non-negative, sum 1.
      divergence: one of the above.
      js_weight: a; 0 is ``forward`` and 1 ``reverse``.

    Raises:
      ValueError: an unknown divergence.
    """
    taught_DxY, weight_D = np.asarray(taught_DxY, np.float64), np.asarray(weight_D, np.float64)
    kind = {0.0: "forward", 1.0: "reverse"}.get(js_weight, "js") if divergence == "js" else divergence
    if kind == "reverse":
        return softmax(_expected_log(taught_DxY, weight_D))
    if kind == "forward":
        return weight_D @ taught_DxY
    if kind != "js":
        raise ValueError(f"divergence is {divergence!r}; valid: reverse, forward, js")
    mean_Y = weight_D @ taught_DxY
    policy_Y = np.zeros_like(mean_Y)  # what no teacher says stays at 0
    heard_Y = mean_Y > 0
    policy_Y[heard_Y] = _js_centre(taught_DxY[:, heard_Y], weight_D, js_weight)
    return policy_Y


def _js_centre(taught_DxY: np.ndarray, weight_D: np.ndarray, a: float) -> np.ndarray:
    def policy_at(mu: float) -> np.ndarray:
        # The sum over d falls as pi(y) rises, and at the teachers' mean it is at most 0.
        low_Y, high_Y = np.full(taught_DxY.shape[1], -745.0), np.full(taught_DxY.shape[1], 60.0)
        for _ in range(64):
            middle_Y = (low_Y + high_Y) / 2
            above_Y = weight_D @ np.log((1 - a) + a * taught_DxY * np.exp(-middle_Y)) > mu
            low_Y, high_Y = np.where(above_Y, middle_Y, low_Y), np.where(above_Y, high_Y, middle_Y)
        return np.exp(high_Y)

    excess = lambda mu: np.log(policy_at(mu).sum())  # noqa: E731
    floor = np.log1p(-a)
    mu = 0.0 if excess(0.0) >= 0 else brentq(excess, floor * (1 - 1e-12), 0.0, xtol=1e-15)
    policy_Y = policy_at(mu)
    return policy_Y / policy_Y.sum()


def mixtures(taught_DxY: Array, weight_D: Array, share_K: Array) -> tuple[np.ndarray, np.ndarray]:
    """The arithmetic mixtures of 1 .. K teachers drawn independently, and how likely each is.

    Demonstrations drawn without replacement from independent rollouts are independent of each other.

    Args:
      taught_DxY: D teachers.
      weight_D: chance of each draw.
      share_K: chance that 1, 2, .. K are drawn, sum 1.

    Returns:
      ``(mixture_MxY, weight_M)``, one for each multiset of teachers.
    """
    taught_DxY, weight_D = np.asarray(taught_DxY, np.float64), np.asarray(weight_D, np.float64)
    rows, weights = [], []
    for size, share in enumerate(share_K, 1):
        for drawn in combinations_with_replacement(range(len(weight_D)), size):
            orders = factorial(size)
            for count in Counter(drawn).values():
                orders //= factorial(count)
            rows.append(taught_DxY[list(drawn)].mean(0))
            weights.append(share * orders * np.prod(weight_D[list(drawn)]))
    return np.array(rows), np.array(weights)


def total_variation(p_Y: Array, q_Y: Array) -> float:
    """Half the sum of absolute differences, in [0, 1]."""
    return float(np.abs(np.asarray(p_Y, np.float64) - np.asarray(q_Y, np.float64)).sum() / 2)


def log_ratio_change(end_Y: Array, start_Y: Array) -> np.ndarray:
    """Change of log(pi(a) / pi(b)) from start to end, YxY at [a, b], nats; antisymmetric."""
    return differences(_log(end_Y) - _log(start_Y))


def differences(gain_Y: Array) -> np.ndarray:
    """gain_a - gain_b at [a, b]."""
    gain_Y = np.asarray(gain_Y)
    return gain_Y[..., :, None] - gain_Y[..., None, :]


def softmax(logits_Y: np.ndarray) -> np.ndarray:
    """Probabilities of logits, over the last axis."""
    p_Y = np.exp(logits_Y - logits_Y.max(-1, keepdims=True))
    return p_Y / p_Y.sum(-1, keepdims=True)


def _expected_log(taught_DxY: Array, weight_D: Array) -> np.ndarray:
    """E_d log taught_d; a teacher of weight 0 does not count, not even where it says 0."""
    weight_D = np.asarray(weight_D, np.float64)
    used_D = weight_D > 0
    return np.tensordot(weight_D[used_D], _log(np.asarray(taught_DxY)[used_D]), axes=1)


def _log(p_Y: Array) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(p_Y, np.float64))
