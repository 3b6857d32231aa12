"""sdd run experiments/study/tuning.py --workdir=runs/tuning --seeds=2

How the settings of csd and of what it is compared with were chosen: a grid of each on seeds 100 and 101,
which no table of results has. docs/findings.md shows what came out.
"""

import ml_collections

from experiments.concept_graph import base, warm_start
from sdd import study

CSD = {  # teacher_temperature, balance, verdict
    "csd_b0": (0.5, 0.0, 0.0),
    "csd_b15": (0.5, 0.15, 0.0),
    "csd_b25": (0.5, 0.25, 0.0),
    "csd_b50": (0.5, 0.5, 0.0),
    "csd_b100": (0.5, 1.0, 0.0),
    "csd_b25_t25": (0.25, 0.25, 0.0),
    "csd_b25_t100": (1.0, 0.25, 0.0),
    "csd_b15_v1": (0.5, 0.15, 1.0),
    "csd_b15_v3": (0.5, 0.15, 3.0),
    "csd_b25_v1": (0.5, 0.25, 1.0),
    "csd_b30_v3": (0.5, 0.3, 3.0),
}
BONUSES = (0.5, 1.0, 2.0)
SDSD = {
    "sdsd": {},
    "sdsd_forward_k3": {"divergence": "forward", "combine": "mixture", "num_demos": 3},
    "sdsd_other": {"demo_policy": "other_strategy"},
    "sdsd_ema_999": {"ema_decay": 0.999},
}


def tuned(step: str, options: dict) -> ml_collections.ConfigDict:
    """Returns a method with these options, evaluated at its end only."""
    c = base.on_policy(f"sdd.steps.{step}")
    c.step.update(options)
    c.eval.every, c.eval.final_num_prompts = 0, 256
    return c


def get_config() -> ml_collections.ConfigDict:
    """Returns the grids."""
    methods = {name: tuned("sdsd", options) for name, options in SDSD.items()}
    for bonus in BONUSES:
        methods[f"grpo_diversity_b{100 * bonus:.0f}"] = tuned("grpo_diversity", {"bonus": bonus})
    for name, values in CSD.items():
        options = dict(zip(("teacher_temperature", "balance", "verdict"), values, strict=True))
        if not options["verdict"]:
            options["denominator"] = "active"
        methods[name] = tuned("csd", options)
    c = study.config(warm_start.get_config(), methods)
    c.seed = 100
    return c


run = study.run_config
