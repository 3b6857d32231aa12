"""What the concept graph experiments share; not itself an experiment (it has no ``get_config``)."""

import ml_collections

from sdd import config

TASK = "sdd.tasks.concept_graph"


def base(step: str) -> ml_collections.ConfigDict:
    """Returns the task, the network and the evaluation of every experiment here, with a method's defaults.

    Args:
      step: dotted path of the method's module.
    """
    c = config.default(TASK, step)
    c.task.follow = 0.85  # a weaker habit of following demonstrations lets the teacher drift first

    c.model.num_layers = 3
    c.model.width = 64
    c.model.num_heads = c.model.num_kv_heads = 4
    c.model.head_dim = 32  # narrow heads blur the entities that a head reads together
    c.model.mlp_dim = 128
    c.model.rope_fraction = 0.5
    c.model.token_shift = True  # without it so small a network is slow to learn to look edges up

    c.optimizer.b2 = 0.98
    c.optimizer.weight_decay = 0.0
    c.optimizer.clip_norm = 1.0

    c.eval.every = 100
    c.eval.num_prompts = 128
    c.eval.num_samples = 32
    c.eval.final_num_prompts = 384
    c.eval.final_num_samples = 64
    return c


def on_policy(step: str) -> ml_collections.ConfigDict:
    """Returns what all methods share that learn from their own rollouts, after a warm start.

    Args:
      step: dotted path of the method's module.
    """
    c = base(step)
    # At 300 steps GRPO has levelled off and SDSD has not: one seed then does not tell their curves apart.
    c.train.num_steps, c.eval.every = 500, 125
    c.train.prompts_per_step = 16
    c.train.group_size = 4
    c.sampling.temperature = 1.0
    c.optimizer.learning_rate = 4e-4
    c.optimizer.warmup_steps = 10
    c.optimizer.schedule = "linear"
    return c
