"""sdd run experiments/study/tuning.py --workdir=runs/tuning --config.seed=100

How the settings of csd and of what it is compared with were chosen: a grid of each from one warm start, of a
seed that no table of results has. docs/findings.md shows what came out.
"""

import ml_collections

from experiments.concept_graph import base, warm_start
from sdd import study

CSD = ((0.5, 0.0), (0.5, 0.15), (0.5, 0.25), (0.5, 0.5), (0.5, 1.0), (0.25, 0.25), (1.0, 0.25))
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
    for temperature, balance in CSD:
        options = {"teacher_temperature": temperature, "balance": balance}
        methods[f"csd_t{100 * temperature:.0f}_b{100 * balance:.0f}"] = tuned("csd", options)
    c = study.config(warm_start.get_config(), methods)
    c.seed = 100
    return c


run = study.run_config
