"""sdd run experiments/concept_graph/smoke.py --workdir=runs/smoke

SDSD for four steps from random parameters with everything small: whether it runs, not what it finds.
"""

import ml_collections

from experiments.concept_graph import sdsd


def get_config() -> ml_collections.ConfigDict:
    """Returns settings that take seconds."""
    c = sdsd.get_config()
    c.task.num_train = 64
    c.task.num_eval = 8
    c.model.num_layers = 2
    c.model.width = 32
    c.model.num_heads = c.model.num_kv_heads = 4
    c.model.head_dim = 8
    c.model.mlp_dim = 64
    c.train.num_steps = 4
    c.train.prompts_per_step = 8
    c.train.checkpoint_every = 2
    c.optimizer.warmup_steps = 1
    c.eval.every = 2
    c.eval.num_prompts = c.eval.final_num_prompts = 8
    c.eval.num_samples = c.eval.final_num_samples = 4
    c.eval.bootstrap = 50
    return c
