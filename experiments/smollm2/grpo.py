"""sdd run experiments/smollm2/grpo.py --workdir=runs/smollm2_grpo

GRPO of SmolLM2-135M-Instruct on syllogisms: minutes on two CPU cores.
"""

import ml_collections

from experiments.smollm2.base import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings."""
    return base("sdd.steps.grpo")
