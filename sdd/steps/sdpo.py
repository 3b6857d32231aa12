r"""SDPO (2601.20802) with the choices of its code: :mod:`sdd.steps.sdsd` with other defaults.

.. math:: L = \frac1N \sum_n \frac{1}{|y_n|} \sum_t w_t\, JS_{1/2}(S_t, T_t)

over the student's 100 likeliest tokens and a bucket for the rest; the first right rollout of the group,
without the rollout itself, demonstrates; rows without one stay in the mean; the teacher's average moves by
0.05 an update; w is the importance weight, at most 2. Two things differ: the mean is first over a response,
where the code's configuration says over all tokens, and the feedback of an environment is not shown to the
teacher.
"""

import dataclasses
from typing import Literal

from sdd.steps import sdsd
from sdd.steps.base import StepDef


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """The options of sdsd."""

    divergence: Literal["reverse", "forward", "js"] = "js"
    estimator: Literal["exact", "top_k", "sampled"] = "top_k"
    demo_policy: Literal["random", "first", "shortest", "other_strategy"] = "first"
    demo_per: Literal["rollout", "group"] = "group"
    ema_decay: float = 0.95
    importance_clip: float = 2.0
    denominator: Literal["active", "all"] = "all"


def make(config: Config) -> StepDef:
    """Builds the method."""
    return sdsd.make(config)
