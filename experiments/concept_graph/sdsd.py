"""sdd run experiments/concept_graph/sdsd.py --workdir=runs/sdsd --config.train.init_from=runs/warm

Self-distillation from one sampled demonstration (K = 1), after ``warm_start.py``. The teacher is an
average of the student's parameters that reads another correct rollout of the group; exact reverse KL.
"""

import ml_collections

from experiments.concept_graph.base import on_policy


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings of SDSD with one demonstration."""
    c = on_policy("sdd.steps.sdsd")
    c.step.num_demos = 1
    c.step.divergence = "reverse"
    c.step.estimator = "exact"
    c.step.teacher = "ema"
    c.step.ema_decay = 0.995
    c.step.demo_policy = "random"
    c.step.exclude_own = True
    c.step.denominator = "active"  # rollouts without a demonstration are masked
    return c
