"""What the cells of ``scale.py`` are made of: tasks, sizes, methods; not itself an experiment."""

import ml_collections

from experiments.concept_graph.base import base
from sdd import config

TASKS = {
    "concept_graph": "sdd.tasks.concept_graph",
    "countdown": "sdd.tasks.countdown",
    "graph_colouring": "sdd.tasks.graph_colouring",
    "arithmetic": "sdd.tasks.arithmetic",
}
SIZES = {"small": (2, 48), "middle": (3, 64), "large": (4, 96)}  # layers, width
METHODS = ("grpo", "sdsd_k1", "grpo_diversity")
WIDTH = 64  # of the concept graph experiments, whose learning rates these are
WARM_RATE, RATE = 5e-3, 4e-4


def cell(task: str, size: str, step: str) -> ml_collections.ConfigDict:
    """Returns what all runs of a task and a size share, with a method's defaults.

    Learning rates are those of the concept graph experiments times 64 / width, for all methods alike.

    Args:
      task: key of `TASKS`.
      size: key of `SIZES`.
      step: dotted path of the method's module.
    """
    c = base(step)
    if TASKS[task] != c.task.name:
        config.with_module(c, "task", TASKS[task])
        c.eval.splits = ("id", "harder")
    c.model.num_layers, c.model.width = SIZES[size]
    c.model.mlp_dim = 2 * c.model.width
    c.eval.splits = ("id", "harder")
    c.writers.progress = False
    return c


def warm_start(task: str, size: str) -> ml_collections.ConfigDict:
    """Returns the settings of a warm start, those of ``concept_graph/warm_start.py``."""
    c = cell(task, size, "sdd.steps.sft")
    c.step.num_answers = 4
    c.train.num_steps = 1500
    c.train.prompts_per_step = 32
    c.train.checkpoint_every = 500
    c.optimizer.learning_rate = WARM_RATE * WIDTH / c.model.width
    c.optimizer.schedule = "cosine"
    c.eval.every = 0  # only at the end
    return c


def method(task: str, size: str, name: str) -> ml_collections.ConfigDict:
    """Returns the settings of a method, those of the concept graph experiments.

    Args:
      task: key of `TASKS`.
      size: key of `SIZES`.
      name: one of `METHODS`.
    """
    steps = {
        "grpo": "sdd.steps.grpo",
        "sdsd_k1": "sdd.steps.sdsd",
        "grpo_diversity": "sdd.steps.grpo_diversity",
    }
    c = cell(task, size, steps[name])
    c.train.num_steps = 500
    c.train.prompts_per_step = 16
    c.train.group_size = 4
    c.train.checkpoint_every = 250
    c.sampling.temperature = 1.0
    c.optimizer.learning_rate = RATE * WIDTH / c.model.width
    c.optimizer.warmup_steps = 10
    c.optimizer.schedule = "linear"
    if name == "sdsd_k1":
        c.step.num_demos = 1
        c.step.divergence, c.step.estimator = "reverse", "exact"
        c.step.teacher, c.step.ema_decay = "ema", 0.995
        c.step.demo_policy, c.step.exclude_own, c.step.denominator = "random", True, "active"
    if name == "grpo_diversity":
        c.step.bonus = 0.5
    return c
