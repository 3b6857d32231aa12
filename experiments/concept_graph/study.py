"""sdd run experiments/concept_graph/study.py --workdir=runs/study

One warm start a seed, every method from it, and a report that compares them.

    more seeds                 --seeds=5
    shorter                    --config.num_steps=100
    some of the methods        --config.methods=sdsd_k1,grpo
    one method's own value     --config.experiments.grpo.optimizer.learning_rate=2e-4

For a method of your own, copy this file and add it below. All published methods:
experiments/study/methods.py, which goes on in the same folder.
"""

import ml_collections

from experiments.concept_graph import grpo, grpo_diversity, sdsd, sdsd_k3, warm_start
from sdd import study


def get_config() -> ml_collections.ConfigDict:
    """Returns the study: the warm start, the methods, and the settings of each."""
    methods = {
        "sdsd_k1": sdsd.get_config(),
        "sdsd_k3": sdsd_k3.get_config(),
        "grpo": grpo.get_config(),
        "grpo_diversity": grpo_diversity.get_config(),
    }
    return study.config(warm_start.get_config(), methods)


run = study.run_config
