"""sdd run experiments/concept_graph/warm_start.py --workdir=runs/warm

Supervised training on answers of the task's base policy, half of them to prompts with a demonstration.
It gives the starting model of the methods: right about as often with each strategy, and able to read a
demonstration. Its last evaluation is that model's.
"""

import ml_collections

from experiments.concept_graph.base import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings of the warm start."""
    c = base("sdd.steps.sft")
    c.step.num_answers = 4  # and 4 more with a demonstration
    c.train.num_steps = 1500
    c.train.prompts_per_step = 32
    c.train.checkpoint_every = 500
    c.optimizer.learning_rate = 5e-3
    c.optimizer.schedule = "cosine"
    c.eval.every = 0  # only at the end
    return c
