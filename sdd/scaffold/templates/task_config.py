"""sdd run my_name_config.py --workdir=runs/my_name

Small, by GRPO, from random parameters. All keys: sdd run my_name_config.py --help
"""

from sdd import config


def get_config():
    c = config.default(task="MY_PATH", step="sdd.steps.grpo")
    c.model.num_layers, c.model.width = 2, 32
    c.train.num_steps, c.train.prompts_per_step, c.train.group_size = 60, 8, 16
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 1e-3, 1
    c.eval.splits, c.eval.every = ("id", "harder"), 20
    c.eval.num_prompts = c.eval.final_num_prompts = 11  # no more than the smallest split has
    c.eval.num_samples = c.eval.final_num_samples = 16
    return c
