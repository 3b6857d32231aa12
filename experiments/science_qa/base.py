"""What the science question experiments share; not itself an experiment (it has no ``get_config``).

Settings of arXiv 2606.26091 and of SDPO (arXiv 2601.20802) for SciKnowEval: 32 prompts of 8 rollouts at
temperature 1, prompts up to 2048 tokens and responses up to 8192, AdamW at 1e-5 constant after 10 steps,
weight decay 0.01, clipping at 1; evaluation every 5 steps with 16 samples at temperature 0.6 and top-p 0.95.
"""

import dataclasses

import ml_collections

from sdd import config
from sdd.model.presets import preset

TASK = "sdd.tasks.science_qa"


def base(model: str, step: str) -> ml_collections.ConfigDict:
    """Returns the task, the network and the training of every experiment here, with a method's defaults.

    Args:
      model: a preset, for example "qwen3-8b".
      step: dotted path of the method's module.
    """
    c = config.default(TASK, step)
    architecture = preset(model)
    c.model.update(dataclasses.asdict(architecture.config))
    c.model.remat, c.model.attention_block = "full", 256
    c.model.compute_dtype = "bfloat16"
    c.mesh.data, c.mesh.fsdp = 1, -1

    c.task.vocab_size = architecture.vocab_size  # embeddings have more rows than tokenizers have ids
    c.task.subjects = ("chemistry",)
    c.task.drop_overlap = "test"
    c.task.prompt_length, c.task.response_length = 2048, 8192

    c.step.block_size = 128  # tokens whose logits are held at once
    c.train.num_steps = 300
    c.train.prompts_per_step, c.train.group_size = 32, 8
    c.train.checkpoint_every = 10
    c.sampling.temperature = 1.0

    c.optimizer.learning_rate, c.optimizer.schedule, c.optimizer.warmup_steps = 1e-5, "constant", 10
    c.optimizer.b2, c.optimizer.weight_decay, c.optimizer.clip_norm = 0.999, 0.01, 1.0

    c.eval.splits, c.eval.every = ("test",), 5
    c.eval.num_prompts = c.eval.final_num_prompts = 128
    c.eval.num_samples = c.eval.final_num_samples = 16
    c.eval.temperature, c.eval.top_p = 0.6, 0.95
    c.eval.rows_per_call = 256
    return c


def sdsd(model: str) -> ml_collections.ConfigDict:
    """SDSD with SDPO's settings: Jensen-Shannon at 0.5 on the student's top 100 with a tail, EMA 0.05."""
    c = base(model, "sdd.steps.sdsd")
    c.step.divergence, c.step.js_weight = "js", 0.5
    c.step.estimator, c.step.top_k = "top_k", 100
    c.step.top_k_support, c.step.top_k_remainder = "student", "tail"
    c.step.teacher, c.step.ema_decay = "ema", 0.95
    c.step.demo_policy, c.step.exclude_own = "random", True
    return c


def grpo(model: str, step: str = "sdd.steps.grpo") -> ml_collections.ConfigDict:
    """GRPO without division by the deviation, clip 0.2 and 0.28, no KL."""
    c = base(model, step)
    c.step.normalise_advantages = False
    c.step.clip_low, c.step.clip_high, c.step.kl_coefficient = 0.2, 0.28, 0.0
    return c
