"""C9: a self-distillation step that keeps pass@1 and does not narrow; and the front of all methods."""

from typing import Any

import numpy as np

from sdd.claims.compare import Cells, difference, distinct_correct_at, draws, interval, pass_at
from sdd.claims.names import CURE, DIVERSITY, SDSD, Claim, claim_of, rollouts_of
from sdd.claims.runs import Study


def c9(cells_id: Cells, cells_larger: Cells, cells_harder: Cells) -> Claim:
    """C9: pass@1 of the cure minus that of SDSD (K = 1), in distribution.

    Details: the same on larger problems; and on harder ones pass@32 and distinct correct strategies at 32
    draws minus those of GRPO + diversity. Holds if none of the four is below 0: every interval includes 0
    or lies above it. ``details["above"]`` names those that lie above.
    """
    k = draws(rollouts_of(cells_harder))
    found = {
        "pass@1": difference(cells_id, pass_at(1), CURE, SDSD),
        "pass@1 larger": difference(cells_larger, pass_at(1), CURE, SDSD),
        f"pass@{k} harder": difference(cells_harder, pass_at(k), CURE, DIVERSITY),
        f"distinct correct@{k} harder": difference(cells_harder, distinct_correct_at(k), CURE, DIVERSITY),
    }
    not_below = [i["high"] is not None and i["high"] >= 0 for i in found.values()]
    details = {
        "rule": f"pass@1 minus SDSD, in distribution and larger; harder pass@{k} and distinct correct@{k} "
        "minus GRPO + diversity: no interval below 0",
        "k": k,
        **found,
        "above": [name for name, i in found.items() if i["low"] is not None and i["low"] > 0],
    }
    return claim_of("C9", cells_id, found["pass@1"], all(not_below), details)


def plane(study: Study, split: str, harder: str) -> dict[str, dict[str, Any]]:
    """Each method's pass@1 in distribution and distinct correct strategies at 32 draws on harder problems.

    With 95 % intervals of the means over the seeds in which a method is finished, named in ``seeds``.
    ``dominated_by`` names methods that are at least as good in both means and better in one, over the seeds
    that both have. The methods without any are the Pareto front.
    """
    points: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for name in study.methods:
        for seed, run in study.of_method(name).items():
            if not run.finished or not run.evaluation(split) or not run.evaluation(harder):
                continue
            far = run.rollouts(harder)
            values = pass_at(1)(run.rollouts(split)), distinct_correct_at(draws([far]))(far)
            points.setdefault(name, {})[seed] = values
    return {
        name: {
            **{
                key: interval([values[axis] for values in seeds.values()])
                for axis, key in enumerate(("pass@1", "distinct_correct"))
            },
            "seeds": sorted(seeds),
            "dominated_by": sorted(o for o, other in points.items() if o != name and _better(other, seeds)),
        }
        for name, seeds in points.items()
    }


def _better(a: dict[int, tuple], b: dict[int, tuple]) -> bool:
    shared = set(a) & set(b)
    if not shared:
        return False
    x, y = (np.mean([[axis.mean() for axis in runs[s]] for s in sorted(shared)], axis=0) for runs in (a, b))
    return bool((x >= y).all() and (x > y).any())
