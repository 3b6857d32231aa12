"""Numbers of a prompt, and comparisons of runs over the prompts that they share.

Cells are seed -> method -> rollouts of one split; all of a seed are over the same
prompts in the same order. Intervals hold 95 %: with one seed a bootstrap over
prompts, with several a hierarchical one, over seeds and then over the prompts of
each. Bootstraps draw from fixed seeds, so a report is a function of its files.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sdd.claims.runs import START, EvaluationRollouts, Run, Study, shared_prompts
from sdd.metrics.pass_at_k import pass_at_k
from sdd.metrics.reduce import bootstrap_over_seeds
from sdd.metrics.strategies import distinct_at_k, strategy_counts, top_strategy_share

Cells = dict[int, dict[str, EvaluationRollouts]]
Quantity = Callable[[EvaluationRollouts], np.ndarray]
Interval = dict[str, float | None]

MAX_DRAWS = 32
NUM_RESAMPLES = 2000
ROUNDING = 1e-9  # saturated pass@k differ in the last bits; that is not a difference


def pass_at(k: int) -> Quantity:
    """Rollouts -> B: pass@k of each prompt, unbiased (2107.03374, eq. 1)."""
    return lambda r: np.asarray(pass_at_k(r.num_samples, r.correct_BxN.sum(1), k))


def distinct_correct_at(k: int) -> Quantity:
    """Rollouts -> B: expected number of distinct strategies among the correct ones of k draws.

    nan where no rollout of the file has a strategy: then the task has none to count.
    """

    def quantity(r: EvaluationRollouts) -> np.ndarray:
        if not r.strategies:
            return np.full(len(r.prompt_ids), np.nan)
        return np.asarray(distinct_at_k(_counts(r, r.correct_BxN), k, r.num_samples))

    return quantity


def favourite_share(r: EvaluationRollouts) -> np.ndarray:
    """B: share of the prompt's most frequent strategy among the rollouts that have one, right or wrong."""
    return np.asarray(top_strategy_share(_counts(r, None)))


def token_entropy(r: EvaluationRollouts) -> np.ndarray:
    """B, nats a token: the mean over all tokens of a prompt's rollouts (a long rollout weighs more)."""
    total_BxN = np.where(r.num_tokens_BxN > 0, r.token_entropy_BxN * r.num_tokens_BxN, 0)
    return total_BxN.sum(1) / np.maximum(r.num_tokens_BxN.sum(1), 1)


def draws(rollouts: Sequence[EvaluationRollouts], averaged: bool = False) -> int:
    """The k of pass@k: the largest power of two that all of them have samples for, at most 32.

    With ``averaged`` half the samples at most (and no cap), so that pass@k is a mean
    over many subsets and not one draw that either holds a success or does not.
    """
    num_samples = min(r.num_samples for r in rollouts)
    limit = max(num_samples // 2, 1) if averaged else min(num_samples, MAX_DRAWS)
    return 1 << (limit.bit_length() - 1)


def interval(values: Sequence[np.ndarray]) -> Interval:
    """Mean over seeds of the mean over prompts, as {"value", "low", "high"}; None where undefined."""
    estimate = bootstrap_over_seeds(list(values), seed=0, num_resamples=NUM_RESAMPLES)
    return {
        name: (float(number) if np.isfinite(number) else None) for name, number in estimate._asdict().items()
    }


def difference(cells: Cells, quantity: Quantity, method: str, baseline: str) -> Interval:
    """Mean of ``quantity`` of a method minus a baseline over shared prompts, with a 95 % interval."""
    return interval([quantity(runs[method]) - quantity(runs[baseline]) for runs in cells.values()])


def below(*intervals: Interval) -> bool:
    """Whether all intervals lie below 0."""
    return all(i["high"] is not None and i["high"] < -ROUNDING for i in intervals)


def above(*intervals: Interval) -> bool:
    """Whether all intervals lie above 0."""
    return all(i["low"] is not None and i["low"] > ROUNDING for i in intervals)


def gather(study: Study, seeds: Sequence[int], methods: Sequence[str], split: str) -> Cells:
    """The final rollouts of some methods, of each seed over the prompts that all of them share.

    Raises:
      ValueError: one line, where they share none or a rollouts file is broken.
    """
    cells = {}
    for seed in seeds:
        rollouts = shared_prompts([study.seeds[seed][method].rollouts(split) for method in methods])
        if not rollouts[0].prompt_ids:
            raise ValueError(f"{study.path}: seed {seed}: {', '.join(methods)} share no prompt of {split}")
        cells[seed] = dict(zip(methods, rollouts, strict=True))
    return cells


def missing_runs(
    study: Study, methods: Sequence[str], splits: Sequence[str], every_step: bool = False
) -> dict[int, list[str]]:
    """Seed -> what a comparison of these methods lacks; seeds that have it all are left out.

    With ``every_step`` the rollouts of every evaluation are needed, not only the last.
    """
    found: dict[int, list[str]] = {}
    for seed, runs in study.seeds.items():
        for method in methods:
            if problem := _problem(runs.get(method), splits, every_step):
                found.setdefault(seed, []).append(f"{method} (seed {seed}): {problem}")
    return found


def entropy_correlation(study: Study) -> dict[str, Any]:
    """Spearman's rank correlation of token entropy and distinct correct strategies over evaluations.

    A point is a seed, a method, a split and an evaluation; the warm start's own curve
    is left out. k is the largest power of two up to 32 that every point has. The points
    of a run depend on each other, so no p-value is given.

    Returns:
      {"value": in [-1, 1] or None, "num_points", "k"}.
    """
    runs = [run for runs in study.seeds.values() for name, run in runs.items() if name != START]
    metrics = [e["metrics"] for run in runs for e in run.evaluations if e["metrics"].get("token_entropy")]
    for k in (32, 16, 8, 4, 2, 1):
        pairs = [(_value(m, "token_entropy"), _value(m, f"distinct_correct@{k}")) for m in metrics]
        if pairs and all(distinct is not None for _, distinct in pairs):
            break
    else:
        return {"value": None, "num_points": 0, "k": None}
    entropy, distinct = np.array([pair for pair in pairs if None not in pair], dtype=float).reshape(-1, 2).T
    varied = len(entropy) > 2 and np.ptp(entropy) > 0 and np.ptp(distinct) > 0
    value = float(stats.spearmanr(entropy, distinct).statistic) if varied else None
    return {"value": value, "num_points": len(entropy), "k": k}


def _value(metrics: dict[str, Any], name: str) -> float | None:
    return (metrics.get(name) or {}).get("value")


def _problem(run: Run | None, splits: Sequence[str], every_step: bool) -> str:
    if run is None:
        return "not run"
    if run.last_step < 0:
        return "not evaluated yet"
    if not run.finished:
        return f"unfinished, last evaluation at step {run.last_step} of {run.num_steps}"
    if absent := [split for split in splits if run.evaluation(split) is None]:
        return f"no final evaluation of {', '.join(absent)}"
    for split in splits:
        for step in run.steps(split) if every_step else (run.last_step,):
            if not run.rollouts_path(split, step).exists():
                return f"no file {run.rollouts_path(split, step).relative_to(run.path)}"
    return ""


def _counts(r: EvaluationRollouts, mask_BxN: np.ndarray | None) -> np.ndarray:
    return np.asarray(strategy_counts(r.strategy_BxN, max(len(r.strategies), 1), mask_BxN))
