"""sdd run experiments/concept_graph/runaway.py --workdir=runs/runaway --config.train.init_from=runs/warm

SDSD with a fast teacher, the setting in which it runs away: the teacher follows the student so closely
that it takes over the student's uncertainty and returns it. See docs/runaway.md.
"""

import ml_collections

from experiments.concept_graph import sdsd


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings of SDSD with a fast teacher and a learning rate that does not end."""
    c = sdsd.get_config()
    c.step.ema_decay = 0.95
    c.optimizer.learning_rate = 4e-4
    c.optimizer.schedule = "constant"
    c.train.num_steps, c.eval.every = 400, 100
    return c
