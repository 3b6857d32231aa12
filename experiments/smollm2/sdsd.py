"""sdd run experiments/smollm2/sdsd.py --workdir=runs/smollm2_sdsd

Self-distillation with sampled demonstrations of SmolLM2-135M-Instruct, on syllogisms: minutes on two cores.
"""

import ml_collections

from experiments.smollm2.base import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings."""
    return base("sdd.steps.sdsd")
