"""sdd run experiments/study/methods.py --workdir=runs/study --seeds=5

Every method of docs/methods.md from the warm start of each seed, and the plane that compares them: pass@1 and
how many right strategies are left. What experiments/concept_graph/study.py ran in the same folder is kept.

    some of the methods        --config.methods=grpo,dph,simko
    one method's own value     --config.experiments.simko.step.spread=0.02
    the way there              --config.eval_every=125 (in a new folder; here only the ends are evaluated)

All share the optimiser, the batches and the number of steps. Each has the defaults of its file, but where a
line below says otherwise; none was tuned for this task beyond what docs/findings.md says.
"""

import ml_collections

from experiments.concept_graph import base, study
from sdd import study as study_lib

ZOO = (
    *("pass_at_k", "entropy_bonus", "grpo_anchored", "dph", "simko"),
    *("sdpo", "opsd", "beta_opsd", "sc_sdpo", "eopd", "pmi_residual"),
    *("anti_sd", "rlcsd", "ida_opd"),
)
DIALS = {"csd_b25_v1": (0.25, 1.0), "csd_b15_v3": (0.15, 3.0)}  # csd with more strategies, with more pass@1


def method(name: str) -> ml_collections.ConfigDict:
    """Returns the settings of a method of `ZOO`."""
    c = base.on_policy(f"sdd.steps.{name}")
    c.eval.every = 0
    if name == "sdpo":
        c.step.top_k = 16  # its 100 are more than this vocabulary has
    return c


def get_config() -> ml_collections.ConfigDict:
    """Returns the study of all methods."""
    paper = study.get_config().experiments
    methods = {name: paper[name] for name in ("sdsd_k1", "sdsd_k3", "grpo", "grpo_diversity")}
    methods["csd"] = base.on_policy("sdd.steps.csd")
    for name, (balance, verdict) in DIALS.items():
        c = methods[name] = base.on_policy("sdd.steps.csd")
        c.step.balance, c.step.verdict = balance, verdict
    return study_lib.config(paper.warm_start, methods | {name: method(name) for name in ZOO})


run = study_lib.run_config
