"""sdd run experiments/concept_graph/grpo.py --workdir=runs/grpo --config.train.init_from=runs/warm

GRPO, after ``warm_start.py``, with everything but the method as in ``sdsd.py``.
"""

import ml_collections

from experiments.concept_graph.base import on_policy


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings of GRPO."""
    return on_policy("sdd.steps.grpo")
