"""Six steps of SDSD with an averaged teacher, with evaluations and checkpoints between: seconds."""

from sdd import config


def get_config():
    c = config.default("easy_task", "sdd.steps.sdsd")
    c.task.num_train, c.task.num_eval = 32, 8
    c.step.teacher, c.step.ema_decay = "ema", 0.9
    c.model.num_layers, c.model.width, c.model.num_heads, c.model.num_kv_heads = 2, 16, 2, 2
    c.model.head_dim, c.model.mlp_dim = 8, 32
    c.train.num_steps, c.train.prompts_per_step, c.train.group_size = 6, 8, 4
    c.train.checkpoint_every = 2
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 1e-2, 1
    c.eval.splits, c.eval.every = ("id", "harder"), 3
    c.eval.num_prompts = c.eval.final_num_prompts = 8
    c.eval.num_samples = c.eval.final_num_samples = 4
    c.eval.bootstrap = 20
    c.writers.progress = False
    return c
