"""sdd run experiments/concept_graph/grpo_diversity.py --workdir=runs/bonus --config.train.init_from=runs/warm

GRPO with a bonus for correct rollouts whose strategy is rare in their group, after ``warm_start.py``.
"""

import ml_collections

from experiments.concept_graph.base import on_policy


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings of GRPO with the diversity bonus."""
    c = on_policy("sdd.steps.grpo_diversity")
    c.step.bonus = 0.5
    return c
