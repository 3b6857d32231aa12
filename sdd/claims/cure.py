"""C9: a self-distillation step that keeps pass@1 and does not narrow; and the front of all methods."""

from collections.abc import Sequence
from typing import Any

from sdd.claims.compare import Cells, Interval, difference, distinct_correct_at, draws, interval, pass_at
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


def plane(study: Study, seeds: Sequence[int], split: str, harder: str) -> dict[str, dict[str, Any]]:
    """Each method's pass@1 in distribution and distinct correct strategies at 32 draws on harder problems.

    Over the seeds that are given and the methods that all of them have, with 95 % intervals of the means;
    ``dominated_by`` names methods that are at least as good in both means and better in one. The methods
    without any are the Pareto front.
    """
    finished = [
        {name for name, run in study.seeds[seed].items() if run.finished and run.evaluation(harder)}
        for seed in seeds
    ]
    methods = [name for name in study.methods if finished and all(name in names for names in finished)]
    found: dict[str, dict[str, Any]] = {}
    for name in methods:
        x = interval([pass_at(1)(study.seeds[seed][name].rollouts(split)) for seed in seeds])
        far = [study.seeds[seed][name].rollouts(harder) for seed in seeds]
        y = interval([distinct_correct_at(draws(far))(r) for r in far])
        found[name] = {"pass@1": x, "distinct_correct": y}
    for name, each in found.items():
        each["dominated_by"] = sorted(o for o, other in found.items() if o != name and _better(other, each))
    return found


def _better(a: dict[str, Interval], b: dict[str, Interval]) -> bool:
    pairs = [(a[key]["value"], b[key]["value"]) for key in ("pass@1", "distinct_correct")]
    if any(value is None for pair in pairs for value in pair):
        return False
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)  # type: ignore[operator]
