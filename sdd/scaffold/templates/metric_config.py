"""sdd run my_name_config.py --workdir=runs/my_name

Small, on concept graphs, from random parameters, with my_name in every evaluation. Any other run
measures it by --config.eval.metrics=MY_PATH.my_name
"""

from sdd import config


def get_config():
    c = config.default(task="sdd.tasks.concept_graph", step="sdd.steps.grpo")
    c.task.num_train, c.task.num_eval = 256, 16
    c.model.num_layers, c.model.width = 2, 32
    c.model.num_heads = c.model.num_kv_heads = 4
    c.model.head_dim, c.model.mlp_dim = 8, 64
    c.train.num_steps, c.train.prompts_per_step, c.train.group_size = 4, 8, 8
    c.optimizer.warmup_steps = 1
    c.eval.metrics = ("MY_PATH.my_name",)
    c.eval.every = 2
    c.eval.num_prompts = c.eval.final_num_prompts = 16
    c.eval.num_samples = c.eval.final_num_samples = 8
    c.eval.bootstrap = 100
    return c
