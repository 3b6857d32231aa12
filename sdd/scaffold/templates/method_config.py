"""sdd run my_name_config.py --workdir=runs/my_name

Small, on concept graphs, from random parameters: hardly any rollout is right at first. To see what the method
does, start from a warm start: --config.train.init_from=FOLDER. All keys: sdd run my_name_config.py --help
"""

from sdd import config


def get_config():
    c = config.default(task="sdd.tasks.concept_graph", step="MY_PATH")
    c.task.num_train, c.task.num_eval = 256, 16
    c.model.num_layers, c.model.width = 2, 32
    c.model.num_heads = c.model.num_kv_heads = 4
    c.model.head_dim, c.model.mlp_dim = 8, 64
    c.train.num_steps, c.train.prompts_per_step, c.train.group_size = 20, 8, 8
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 1e-3, 1
    c.eval.every = 10
    c.eval.num_prompts = c.eval.final_num_prompts = 16
    c.eval.num_samples = c.eval.final_num_samples = 8
    c.eval.bootstrap = 100
    return c
