"""sdd run experiments/science_qa/qwen3_8b_grpo_diversity.py --workdir=runs/qwen3_8b_grpo_diversity \\
    --config.task.path=sciknoweval --config.task.tokenizer=Qwen3-8B --config.train.init_from=Qwen3-8B

GRPO with a diversity bonus of Qwen3-8B on science questions.
``sciknoweval`` is the folder of subjects, ``Qwen3-8B`` the model's folder as Hugging Face has it.
"""

import ml_collections

from experiments.science_qa.base import grpo


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings."""
    return grpo("qwen3-8b", "sdd.steps.grpo_diversity")
