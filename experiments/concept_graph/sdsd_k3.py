"""sdd run experiments/concept_graph/sdsd_k3.py --workdir=runs/sdsd_k3 --config.train.init_from=runs/warm

``sdsd.py`` with up to three demonstrations a rollout (K = 3). A group of four offers a rollout at most three
others, so K = 3 means all that are correct; for a choice among more, add --config.train.group_size=8.
"""

import ml_collections

from experiments.concept_graph import sdsd


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings of SDSD with three demonstrations."""
    c = sdsd.get_config()
    c.step.num_demos = 3
    return c
