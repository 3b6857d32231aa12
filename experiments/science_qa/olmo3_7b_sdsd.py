"""sdd run experiments/science_qa/olmo3_7b_sdsd.py --workdir=runs/olmo3_7b_sdsd \\
    --config.task.path=sciknoweval --config.task.tokenizer=Olmo-3-7B --config.train.init_from=Olmo-3-7B

Self-distillation with sampled demonstrations of Olmo-3-7B-Instruct on science questions.
``sciknoweval`` is the folder of subjects, ``Olmo-3-7B`` the model's folder as Hugging Face has it.
"""

import ml_collections

from experiments.science_qa.base import sdsd


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings."""
    return sdsd("olmo-3-7b")
