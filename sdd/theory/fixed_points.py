"""Where a method as configured must end, on answers that can be listed.

An answer is T tokens of V, so a distribution over answers is an array with T axes of size V; a bandit has
T = 1. A policy is a table: a logit for every prefix and next token. Fixed point means that the expected
gradient over batches of one prompt, sampled from the policy itself, is zero at every prefix. Derivations:
docs/theory.md.
"""

from collections.abc import Callable
from itertools import pairwise, product
from math import comb

import numpy as np

from sdd.losses import policy as policy_losses
from sdd.steps import grpo as grpo_lib
from sdd.steps import sdsd as sdsd_lib
from sdd.theory import optima
from sdd.types import Array

_ROUNDS = 100_000

Reward = Callable[[np.ndarray], np.ndarray]
"""Flat answers of groups, XxG, int -> their rewards, XxG."""


def conditionals(joint: Array) -> list[np.ndarray]:
    """A distribution over answers -> for each of T tokens, its distribution after every prefix.

    Entry t has t + 1 axes and sums to 1 over the last one.
    """
    marginals = [np.asarray(joint, np.float64)]
    while marginals[0].ndim > 1:
        marginals.insert(0, marginals[0].sum(-1))
    return [marginals[0], *(b / a[..., None] for a, b in pairwise(marginals))]


def joined(conditional_T: list[np.ndarray]) -> np.ndarray:
    """What `conditionals` took apart."""
    joint = conditional_T[0]
    for each in conditional_T[1:]:
        joint = joint[..., None] * each
    return joint


def grpo(config: grpo_lib.Config, group_size: int, reward: Reward, reference: Array) -> np.ndarray:
    """Where GRPO (or, by its reward, GRPO with a bonus) with a penalty ends.

    At every prefix s, pi(a|s) = c ref(a|s) / (lambda - A(s, a)), with c the coefficient and A(s, a) the
    advantage that a rollout can expect once it is there. For plain rewards A = (G-1)/G (R - E R), since
    a group's mean contains the rollout itself. The penalty is KL(ref || pi), see
    `sdd.theory.optima.inverse_tilt`.

    It holds for one update a batch (the clip is then idle) and answers of one length.

    Args:
      config: of `sdd.steps.grpo`.
      group_size: G.
      reward: of the answers of a group, numbered as in the flat reference.
      reference: the distribution over answers at the start, all above 0.

    Raises:
      ValueError: no penalty: then every policy whose answers all earn the same is a fixed point.
    """
    if not config.kl_coefficient > 0:
        raise ValueError(
            "theory.grpo: kl_coefficient = 0; valid: above 0 (without a penalty the end depends on the path)"
        )
    reference_T = conditionals(reference)

    def step(joint: np.ndarray) -> np.ndarray:
        advantage = expected_advantage(joint, group_size, reward, config.normalise_advantages)
        policy_T: list[np.ndarray] = []
        for reference_at in reversed(reference_T):
            policy_T.insert(0, optima.inverse_tilt(reference_at, advantage, config.kl_coefficient))
            advantage = (policy_T[0] * advantage).sum(-1)
        return joined(policy_T)

    return _iterate(step, np.asarray(reference, np.float64), damping=0.5)


def expected_advantage(joint: Array, group_size: int, reward: Reward, normalise: bool) -> np.ndarray:
    """E[A_1 | y_1 = y] over the other G - 1 rollouts, for every answer y, shaped as the policy."""
    flat_Y = np.asarray(joint, np.float64).reshape(-1)
    index_XxG = np.array(list(product(range(flat_Y.size), repeat=group_size)))
    advantage_XxG = policy_losses.group_advantages(
        reward(index_XxG).reshape(-1), group_size, normalise
    ).reshape(index_XxG.shape)
    others_X = flat_Y[index_XxG[:, 1:]].prod(axis=1)
    first_Y = np.bincount(index_XxG[:, 0], weights=others_X * advantage_XxG[:, 0], minlength=flat_Y.size)
    return first_Y.reshape(np.shape(joint))


def bonus_reward(correct_Y: Array, strategy_Y: Array, bonus: float) -> Reward:
    """The reward of `sdd.steps.grpo_diversity`; with bonus 0 that of a right answer."""
    correct_Y, strategy_Y = np.asarray(correct_Y, bool).reshape(-1), np.asarray(strategy_Y, int).reshape(-1)

    def reward(index_XxG: np.ndarray) -> np.ndarray:
        index_N = index_XxG.reshape(-1)
        return policy_losses.diversity_bonus(
            correct_Y[index_N], strategy_Y[index_N], index_XxG.shape[1], bonus
        ).reshape(index_XxG.shape)

    return reward


def sdsd(
    config: sdsd_lib.Config, group_size: int, taught: Array, correct: Array, start: Array, beta: float = 0.0
) -> np.ndarray:
    """Where SDSD ends when it demonstrates the policy's own right answers; see `sdsd_given`.

    The demonstrations are those that the policy gives, so this iterates policy -> demonstrations ->
    optimum from the start until nothing moves. Where it ends may depend on the start.

    Args:
      config: of `sdd.steps.sdsd`.
      group_size: G.
      taught: pi(y | x, d) for each right answer d in order, with an axis for d in front of those of the
        answers.
      correct: bool, which answers are right, shaped as the policy.
      start: where the iteration begins.
      beta: weight of a pull to the start, which the method itself does not have; needs the reverse KL.
    """
    correct = np.asarray(correct, bool)

    def step(joint: np.ndarray) -> np.ndarray:
        right = joint[correct]
        return sdsd_given(config, group_size, taught, right / right.sum(), right.sum(), start, beta)

    return _iterate(step, np.asarray(start, np.float64))


def sdsd_given(
    config: sdsd_lib.Config,
    group_size: int,
    taught: Array,
    weight_D: Array,
    right: float,
    start: Array,
    beta: float = 0.0,
) -> np.ndarray:
    """Where SDSD ends when demonstrations come from a fixed distribution.

    Losses a token are matched prefix by prefix. Only the estimator "sampled" with ``return_to_go``
    follows the divergence of whole answers.

    Args:
      config: of `sdd.steps.sdsd`.
      group_size: G.
      taught: pi(y | x, d), with an axis for d in front.
      weight_D: how often d is drawn.
      right: share of right rollouts; how many demonstrations there are depends on it, for a mixture.
      start: pi_0, for ``beta``.
      beta: weight of a pull to the start; 0 as in the method itself.

    Raises:
      ValueError: options whose fixed point is another.
    """
    taught = np.asarray(taught, np.float64)
    _check(config, group_size, taught.shape[1:], beta)
    share_K: Array = (1.0,)
    if config.combine == "mixture":
        share_K = shown_shares(right, group_size, config.num_demos, config.exclude_own, config.denominator)
    divergence = "reverse" if config.estimator == "sampled" else config.divergence

    def match(taught_DxY: np.ndarray, start_Y: np.ndarray) -> np.ndarray:
        # The mixture of one teacher is that teacher: for "loss_mean" this changes nothing.
        each_MxY, weight_M = optima.mixtures(taught_DxY, weight_D, share_K)
        if beta:
            return optima.sdsd_optimum(start_Y, each_MxY, weight_M, beta)
        return optima.matched(each_MxY, weight_M, divergence, config.js_weight)

    if config.estimator == "sampled" and config.return_to_go:
        return match(taught.reshape(len(taught), -1), np.ravel(start)).reshape(np.shape(start))
    each_DxT = [conditionals(joint) for joint in taught]
    policy_T = []
    for t, start_at in enumerate(conditionals(start)):
        flat_SxV = start_at.reshape(-1, start_at.shape[-1])
        taught_DxSxV = np.stack([each_T[t].reshape(flat_SxV.shape) for each_T in each_DxT])
        rows = [match(taught_DxSxV[:, s], flat_SxV[s]) for s in range(len(flat_SxV))]
        policy_T.append(np.stack(rows).reshape(start_at.shape))
    return joined(policy_T)


def shown_shares(
    right: float, group_size: int, num_demos: int, exclude_own: bool, denominator: str
) -> np.ndarray:
    """Chance that a rollout which is taught reads 1, 2, .. K demonstrations, in batches of one prompt.

    Of G rollouts n are right with the binomial chance of ``right``; a rollout sees min(K, those it may
    see). With the denominator "active" a batch weighs the same however many of its rows are taught.
    """
    share_K = np.zeros(num_demos)
    for n in range(1, group_size + 1):
        chance = comb(group_size, n) * right**n * (1 - right) ** (group_size - n)
        seen = [(group_size - n, n), (n, n - int(exclude_own))]  # (rows, demonstrations they may see)
        taught = sum(rows for rows, available in seen if available)
        divisor = taught if denominator == "active" else group_size
        for rows, available in seen:
            if available and rows:
                share_K[min(available, num_demos) - 1] += chance * rows / divisor
    return share_K / share_K.sum()


def _check(config: sdsd_lib.Config, group_size: int, shape: tuple[int, ...], beta: float) -> None:
    one_token, exact = len(shape) == 1, config.estimator != "sampled"
    valid = {
        "demo_policy": config.demo_policy == "random",
        "trust_region": config.trust_region == 0,
        "importance_clip": config.importance_clip == 0,
        "top_k": config.estimator != "top_k" or config.top_k == shape[-1],  # of all tokens: exact
        "exclude_own": config.exclude_own or (exact and one_token),
        # "active": right rollouts are taught beside more others than wrong ones, and prefixes foretell which.
        "denominator": config.denominator == "all"
        or (exact and (one_token or config.combine == "loss_mean" or config.num_demos == 1)),
        "divergence": not beta or config.divergence == "reverse",
    }
    wrong = [name for name, fine in valid.items() if not fine]
    if wrong:
        raise ValueError(
            f"theory.sdsd: {wrong[0]} = {getattr(config, wrong[0])!r} has a fixed point that is not computed "
            "here; docs/theory.md lists what is"
        )
    if group_size <= int(config.exclude_own):
        raise ValueError(
            f"theory.sdsd: group_size = {group_size} leaves nothing to demonstrate; valid: 2 or more"
        )


def _iterate(step: Callable[[np.ndarray], np.ndarray], joint: np.ndarray, damping: float = 0.0) -> np.ndarray:
    """Applies ``step`` until nothing moves by more than rounding."""
    for _ in range(_ROUNDS):
        new = step(joint)
        if np.abs(new - joint).max() < 1e-13:
            return new
        joint = damping * joint + (1 - damping) * new
    raise ValueError(f"theory: no fixed point in {_ROUNDS} rounds; the map turns in a circle from this start")
