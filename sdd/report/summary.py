"""The numbers that the page, the terminal and the figures show: one place, so that they agree."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdd.claims.compare import (
    NUM_RESAMPLES,
    Interval,
    distinct_correct_at,
    draws,
    favourite_share,
    pass_at,
    token_entropy,
)
from sdd.claims.runs import EvaluationRollouts, Run, Study
from sdd.metrics.pass_at_k import powers_of_two
from sdd.metrics.reduce import bootstrap_over_seeds
from sdd.report.load import is_start

EVENTS = {
    "runaway": (
        "The teacher's reading of demonstrations decayed: no verdict of the verifier enters its target, the "
        "student learned its uncertainty and the average returned it. After this step the run's numbers "
        "say little about diversity."
    ),
    "teacher_drift": "The teacher reads demonstrations worse than it did; a runaway begins like this.",
    "collapse_of_strategies": "pass@1 rose while strategies that succeed disappeared.",
    "nonfinite": "A step gave non-finite numbers; its update was skipped.",
    "damaged_checkpoint": "A checkpoint could not be read; an older one was used.",
    "resumed": "The run was stopped and went on from a checkpoint.",
}
SERIOUS = ("runaway", "teacher_drift", "nonfinite", "damaged_checkpoint")


@dataclasses.dataclass(frozen=True)
class Row:
    """Final numbers of a method on a split, over the seeds that have them.

    Attributes:
      metrics: name -> {"value", "low", "high"}; names as in evaluations.jsonl.
      curve: k -> the same for pass@k, k the powers of two.
      by_seed: name -> seed -> value.
      unfinished: "seed 0: step 50 of 300" for each run that stopped before its end.
    """

    method: str
    split: str
    seeds: tuple[int, ...]
    k: int
    metrics: dict[str, Interval]
    curve: dict[int, Interval]
    by_seed: dict[str, dict[int, float]]
    unfinished: tuple[str, ...] = ()


def final_rows(study: Study) -> dict[tuple[str, str], Row]:
    """(method, split) -> final numbers, where rollouts are there; k is shared by all methods of a split."""
    found: dict[tuple[str, str], dict[int, EvaluationRollouts]] = {}
    for method in study.methods:
        for split in study.splits:
            runs = {s: run for s, run in study.of_method(method).items() if _has_final(run, split)}
            if runs:
                found[method, split] = {seed: run.rollouts(split) for seed, run in runs.items()}
    rows = {}
    for (method, split), rollouts in found.items():
        k = draws([r for (_, s), cell in found.items() if s == split for r in cell.values()])
        rows[method, split] = _row(study, method, split, rollouts, k)
    return rows


def _has_final(run: Run, split: str) -> bool:
    return run.evaluation(split) is not None and readable(run, split, run.last_step)


def readable(run: Run, split: str, step: int) -> bool:
    """Whether rollouts are there; of a run that is still being written, whether they can be read."""
    if not run.tolerant:
        return run.rollouts_path(split, step).exists()
    try:
        return bool(run.rollouts(split, step).prompt_ids)
    except ValueError:
        return False


def _row(study: Study, method: str, split: str, rollouts: dict[int, EvaluationRollouts], k: int) -> Row:
    quantities = {f"pass@{j}": pass_at(j) for j in (1, 8, 32) if j <= k}
    quantities |= {
        f"distinct_correct@{k}": distinct_correct_at(k),
        "top_strategy_share": favourite_share,
        "token_entropy": token_entropy,
    }
    values = {name: {seed: of(r) for seed, r in rollouts.items()} for name, of in quantities.items()}
    ks = [j for j in powers_of_two(min(r.num_samples for r in rollouts.values())) if j & (j - 1) == 0]
    all_of = quantities | {f"curve {j}": pass_at(j) for j in ks}
    estimates = intervals([{name: of(r) for name, of in all_of.items()} for r in rollouts.values()])
    runs = study.of_method(method)
    return Row(
        method=method,
        split=split,
        seeds=tuple(rollouts),
        k=k,
        metrics={name: estimates[name] for name in quantities},
        curve={j: estimates[f"curve {j}"] for j in ks},
        by_seed={name: {seed: _mean(v) for seed, v in of.items()} for name, of in values.items()},
        unfinished=tuple(
            f"seed {seed}: step {runs[seed].last_step} of {runs[seed].num_steps}"
            for seed in rollouts
            if not runs[seed].finished
        ),
    )


def _mean(values_B: np.ndarray) -> float:
    return float(np.nanmean(values_B)) if np.isfinite(values_B).any() else float("nan")


def intervals(values: Sequence[dict[str, np.ndarray]]) -> dict[str, Interval]:
    """`sdd.claims.compare.interval` of several quantities over the same resamples; a dict for each seed."""
    estimates = bootstrap_over_seeds(list(values), seed=0, num_resamples=NUM_RESAMPLES)
    return {
        name: {end: float(x) if np.isfinite(x) else None for end, x in estimate._asdict().items()}
        for name, estimate in estimates.items()
    }


def curves_over_steps(study: Study, method: str, split: str, name: str) -> dict[int, list[tuple[Any, ...]]]:
    """Seed -> [(step, value, low, high)] of a metric of evaluations.jsonl, undefined ones left out."""
    curves = {}
    for seed, run in study.of_method(method).items():
        points = []
        for e in run.evaluations:
            estimate = e["metrics"].get(name) or {}
            if e["split"] == split and estimate.get("value") is not None:
                points.append((e["step"], *(estimate.get(key) for key in ("value", "low", "high"))))
        if points:
            curves[seed] = points
    return curves


def shared_k(study: Study, prefix: str) -> int | None:
    """The largest power of two k up to 32 for which every evaluation has ``<prefix>@k``."""
    metrics = [e["metrics"] for runs in study.seeds.values() for r in runs.values() for e in r.evaluations]
    ks = (k for k in (32, 16, 8, 4, 2, 1) if metrics and all(f"{prefix}@{k}" in m for m in metrics))
    return next(ks, None)


def events(study: Study) -> list[dict[str, Any]]:
    """Events grouped by method, seed and kind: count, first step, last message; serious ones first."""
    groups: dict[tuple[str, int, str], dict[str, Any]] = {}
    for seed, runs in study.seeds.items():
        for method, run in runs.items():
            for event in run.events:
                kind = str(event["event"])
                group = groups.setdefault(
                    (method, seed, kind),
                    {"method": method, "seed": seed, "event": kind, "count": 0, "step": event.get("step")},
                )
                group["count"] += 1
                group["message"] = str(event.get("message", "")).removeprefix(f"{kind}: ")
    return sorted(groups.values(), key=lambda g: g["event"] not in SERIOUS)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def config_differences(study: Study) -> tuple[list[str], dict[str, list[Any]]]:
    """Methods, and setting -> value of each method, for the settings that differ (first seed that has each).

    A setting that a method does not have is None there. The warm start is left out
    unless it is alone with one other run.
    """
    configs = {name: flatten(next(iter(study.of_method(name).values())).config) for name in study.methods}
    if len(configs) > 2:
        configs = {name: config for name, config in configs.items() if not is_start(name)}
    keys = sorted({key for config in configs.values() for key in config})
    table = {key: [config.get(key) for config in configs.values()] for key in keys}
    return list(configs), {key: row for key, row in table.items() if any(v != row[0] for v in row)}
