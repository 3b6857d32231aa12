"""The smallest example: five answers to one question, and where each method ends."""

from typing import Any

import numpy as np

from sdd.steps import grpo, sdsd
from sdd.theory import fixed_points, optima

START = np.array([0.40, 0.20, 0.10, 0.20, 0.10])
CORRECT = np.array([True, True, True, False, False])
GROUP_SIZE = 4
SLIP = 0.02  # how often a reader of a demonstration answers as if it had not read it


def taught(follow: float) -> np.ndarray:
    """What a reader of each right answer says, CxY: that answer with chance ``follow``, else a right one."""
    right = np.where(CORRECT, START, 0)
    told = follow * np.eye(len(START))[CORRECT] + (1 - follow) * right / right.sum()
    return (1 - SLIP) * told + SLIP * START


def optima_of(beta: float = 0.2, follow: float = 0.6) -> dict[str, Any]:
    """Where each method ends, as name -> probabilities of the answers.

    Args:
      beta: weight of the penalty of the RL optimum and of GRPO; above 0.
      follow: how strongly a reader follows its demonstration, in [0, 1].
    """
    taught_CxY = taught(follow)
    reward = fixed_points.bonus_reward(CORRECT, np.arange(len(START)), 0.0)
    right = START[CORRECT] / START[CORRECT].sum()
    own = lambda **options: fixed_points.sdsd(  # noqa: E731
        sdsd.Config(**options), GROUP_SIZE, taught_CxY, CORRECT, START
    )
    return {
        "start": START,
        "RL optimum": optima.rl_optimum(START, CORRECT, beta),
        "GRPO, k3 penalty": fixed_points.grpo(grpo.Config(kl_coefficient=beta), GROUP_SIZE, reward, START),
        "SDSD, the start's demos": optima.matched(taught_CxY, right, "reverse"),
        "SDSD, own, mean of losses": own(),
        "SDSD, own, mixture, K = 3": own(num_demos=3, combine="mixture"),
        "SDSD, own, Jensen-Shannon": own(divergence="js"),
        "SDSD, own, forward KL": own(divergence="forward"),
    }
