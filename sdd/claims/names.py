"""What the claims say, which runs each needs, and the dict that a claim is."""

from typing import Any

from sdd.claims.compare import Cells, Interval
from sdd.claims.runs import START, EvaluationRollouts

Claim = dict[str, Any]

SDSD, SDSD_K3, GRPO, DIVERSITY = "sdsd_k1", "sdsd_k3", "grpo", "grpo_diversity"
ANCHORED = "grpo_anchored"  # GRPO with a pull to the start: its optimum keeps the start's ratios
CURE = "csd"  # sdd.steps.csd
MARGIN = 0.03  # C1: a loss of pass@1 up to this still counts as a match

STATEMENTS = {
    "C1": "SDSD matches or exceeds GRPO at pass@1 in distribution",
    "C2": "SDSD's pass@k curve is flatter than GRPO's and than the starting model's",
    "C3": "On harder problems SDSD fails where GRPO, and GRPO + diversity, succeed",
    "C4": "Distinct correct strategies fall under SDSD, and pass@k falls with them",
    "C5": "Averaging over three demonstrations (K = 3) does not cure it",
    "C6": "Demonstrations from outside, even diverse ones, do not cure it",
    "C7": "Token entropy does not tell: it rises while distinct strategies fall",
    "C8": "Log-ratios of right answers change as predicted from the start under SDSD, and not under RL",
    "C9": "A self-distillation step keeps SDSD's pass@1 and the strategies that GRPO + diversity keeps",
}
NEEDS = {
    "C1": (SDSD, GRPO),
    "C2": (SDSD, GRPO, START),
    "C3": (SDSD, GRPO, DIVERSITY),
    "C4": (SDSD, GRPO, START),
    "C5": (SDSD_K3, GRPO),
    "C7": (SDSD,),
    "C8": (SDSD, ANCHORED),
    "C9": (CURE, SDSD, DIVERSITY),
}


def rollouts_of(cells: Cells) -> list[EvaluationRollouts]:
    return [rollouts for runs in cells.values() for rollouts in runs.values()]


def claim_of(name: str, cells: Cells, main: Interval, holds: bool, details: dict[str, Any]) -> Claim:
    counts = {str(seed): len(next(iter(runs.values())).prompt_ids) for seed, runs in cells.items()}
    return {
        "statement": STATEMENTS[name],
        **main,
        "holds": None if main["value"] is None else bool(holds),
        "seeds": sorted(cells),
        "splits": [],
        "details": {**details, "num_prompts": counts},
    }
