"""Claim C6 (2606.26091): demonstrations from outside, even diverse ones, do not cure it.

A seed's folder holds ``demonstrations/NAME.jsonl``, a set of rollouts that the run NAME wrote (all of them;
the right ones demonstrate), and students: runs of `sdd.steps.sdft` that learned from one set each, from the
starting model. Claims are dicts as in :mod:`sdd.claims`; intervals hold 95 %, over seeds and prompts.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdd.claims.compare import (
    Cells,
    Interval,
    below,
    difference,
    distinct_correct_at,
    draws,
    gather,
    interval,
    missing_runs,
    pass_at,
)
from sdd.claims.names import SDSD, STATEMENTS
from sdd.claims.runs import START, EvaluationRollouts, Study, read_rollouts

STUDENT, HARDER = "sdd.steps.sdft", "harder"


class Sets(NamedTuple):
    """Attributes:
    students: name of the writer -> name of the run that learned from its set.
    missing: seed -> what it lacks; such a seed counts for nothing.
    seeds: the seeds that have everything.
    """

    students: dict[str, str]
    missing: dict[int, list[str]]
    seeds: list[int]


def find(study: Study) -> Sets:
    """The sets of a study, by the names of those who wrote them."""
    students = {}
    for runs in study.seeds.values():
        for name, run in runs.items():
            step = run.config.get("step") or {}
            if step.get("name") == STUDENT:
                students[Path(step["demonstrations"]).stem] = name
    splits = _splits(study)
    missing = missing_runs(study, _needed(students), splits)
    for seed in study.seeds:
        for writer in students:
            if not _path(study, seed, writer).exists():
                missing.setdefault(seed, []).append(f"demonstrations of {writer} (seed {seed}): not written")
    return Sets(students, missing, [seed for seed in study.seeds if seed not in missing])


def compute(study: Study, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """C6: distinct correct strategies at 32 draws in distribution, of the student of the most diverse set.

    Minus those of the policy that wrote the set. Most diverse: most distinct strategies among the right
    rollouts of a prompt. Details: the same minus the starting model and minus SDSD; pass@32 on harder
    prompts minus the writer's; all of these for every set; and the slope of the students' distinct correct
    strategies on those of the sets, which is 1 where a student keeps what it is shown, and 0 where it does
    not matter. Holds if the student's are below the writer's and below the starting model's.

    Raises:
      ValueError: one line, where a file is missing or torn.
    """
    sets = find(study)
    claim: dict[str, Any] = {
        "statement": STATEMENTS["C6"],
        "value": None,
        "low": None,
        "high": None,
        "holds": None,
    }
    claim |= {"seeds": sets.seeds, "splits": list(_splits(study)), "details": {}}
    if sets.missing:
        claim["details"]["missing"] = [problem for each in sets.missing.values() for problem in each]
    if not sets.students or not sets.seeds:
        return claim
    found = found or table(study, sets)
    most = max(found["sets"], key=lambda writer: found["sets"][writer]["shown"])
    best = found["sets"][most]
    rule = (
        f"student of the most diverse set: distinct correct strategies at {found['k']} minus its writer's, "
        "and minus the start's, both intervals below 0"
    )
    claim["details"] |= {"rule": rule, "k": found["k"], "most_diverse": most, "slope": found["slope"]}
    claim["details"] |= {name: best[name] for name in best if name.startswith("against_")}
    claim["details"] |= {"num_prompts": found["num_prompts"]}
    claim["details"]["sets"] = {
        writer: {name: each[name] for name in each if name.startswith("against_")} | {"shown": each["shown"]}
        for writer, each in found["sets"].items()
    }
    holds = below(best["against_writer"], best["against_start"])
    return claim | best["against_writer"] | {"holds": holds}


def table(study: Study, sets: Sets | None = None) -> dict[str, Any]:
    """Every set, its writer and its student in numbers.

    Of a set, means over seeds and their thousands of prompts: ``shown``, distinct strategies among the right
    rollouts of a prompt; ``shown_entropy``, their entropy in nats; ``shown_right``, share of right rollouts;
    ``covered``, share of prompts with a right one. Of runs, each as {"value", "low", "high"}: ``distinct``
    (correct, of k draws, in distribution), ``pass_1``, ``harder`` (pass@k); and differences, ``against_...``.

    Returns:
      {"k", "seeds", "num_prompts", "samples", "sets", "runs", "slope"}; the intervals of seeds alone are
      under ``by_seed``.
    """
    sets = sets or find(study)
    if not sets.students or not sets.seeds:
        return {
            "k": None,
            "seeds": [],
            "num_prompts": {},
            "samples": 0,
            "sets": {},
            "runs": {},
            "slope": None,
        }
    names, splits = _needed(sets.students), _splits(study)
    cells_id, cells_harder = (gather(study, sets.seeds, names, split) for split in splits)
    k = draws([r for cells in (cells_id, cells_harder) for runs in cells.values() for r in runs.values()])
    shown = {
        writer: {seed: read_rollouts(_path(study, seed, writer)) for seed in sets.seeds}
        for writer in sets.students
    }
    runs = {name: _run(cells_id, cells_harder, name, k) for name in names}
    found = {
        writer: _set(shown[writer])
        | {"student": student, **_compared(cells_id, cells_harder, student, writer, k)}
        for writer, student in sets.students.items()
    }
    samples = max(r.num_samples for by_seed in shown.values() for r in by_seed.values())
    return {
        "k": k,
        "seeds": sets.seeds,
        "num_prompts": {str(seed): len(cells_id[seed][START].prompt_ids) for seed in sets.seeds},
        "samples": samples,
        "sets": found,
        "runs": runs,
        "slope": _slope(cells_id, sets.students, found, k),
    }


def _set(by_seed: dict[int, EvaluationRollouts]) -> dict[str, Any]:
    """What a set shows."""
    quantities = {
        "shown": lambda r: distinct_correct_at(r.num_samples)(r),
        "shown_entropy": _entropy,
        "shown_right": lambda r: r.correct_BxN.mean(axis=1),
        "covered": lambda r: r.correct_BxN.any(axis=1).astype(float),
    }
    means = {
        name: {str(seed): float(np.nanmean(quantity(r))) for seed, r in by_seed.items()}
        for name, quantity in quantities.items()
    }
    found: dict[str, Any] = {name: float(np.mean(list(each.values()))) for name, each in means.items()}
    return found | {"by_seed": means["shown"]}


def _run(cells_id: Cells, cells_harder: Cells, name: str, k: int) -> dict[str, Any]:
    measured = {
        "distinct": (cells_id, distinct_correct_at(k)),
        "pass_1": (cells_id, pass_at(1)),
        "harder": (cells_harder, pass_at(k)),
    }
    found: dict[str, Any] = {}
    by_seed: dict[str, Any] = {}
    for key, (cells, quantity) in measured.items():
        values = {seed: quantity(runs[name]) for seed, runs in cells.items()}
        found[key] = interval(list(values.values()))
        by_seed[key] = {str(seed): float(np.nanmean(value_B)) for seed, value_B in values.items()}
    return found | {"by_seed": by_seed}


def _compared(cells_id: Cells, cells_harder: Cells, student: str, writer: str, k: int) -> dict[str, Interval]:
    found = {
        f"against_{name}": difference(cells_id, distinct_correct_at(k), student, other)
        for name, other in (("writer", writer), ("start", START), ("sdsd", SDSD))
    }
    return found | {"against_writer_harder": difference(cells_harder, pass_at(k), student, writer)}


def _slope(
    cells_id: Cells, students: dict[str, str], found: dict[str, Any], k: int
) -> dict[str, float | None] | None:
    """The least-squares slope over sets, of each seed; its interval takes the sets' diversity as known.

    The slope is a fixed combination of the students' means, so each prompt has a share in it, and the
    bootstrap over seeds and prompts is that of a mean.
    """
    if len(students) < 2:
        return None
    shares = []
    for seed, runs in cells_id.items():
        x_S = np.array([found[writer]["by_seed"][str(seed)] for writer in students])
        centred_S = x_S - x_S.mean()
        distinct_SxB = np.stack([distinct_correct_at(k)(runs[name]) for name in students.values()])
        shares.append(centred_S @ distinct_SxB / (centred_S @ centred_S))
    return interval(shares)


def _entropy(r: EvaluationRollouts) -> np.ndarray:
    """B, nats: entropy of the strategies among right rollouts; nan where none is right."""
    hits_BxS = np.stack(
        [np.sum(r.correct_BxN & (r.strategy_BxN == s), axis=1) for s in range(len(r.strategies))], axis=1
    )
    share_BxS = hits_BxS / np.maximum(hits_BxS.sum(axis=1, keepdims=True), 1)
    terms_BxS = np.where(share_BxS > 0, -share_BxS * np.log(np.maximum(share_BxS, 1e-300)), 0)
    return np.where(hits_BxS.sum(axis=1) > 0, terms_BxS.sum(axis=1), np.nan)


def _needed(students: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((START, SDSD, *students, *students.values())))


def _splits(study: Study) -> tuple[str, str]:
    return (study.splits[0] if study.splits else "id", HARDER)


def _path(study: Study, seed: int, writer: str) -> Path:
    return study.path / f"seed_{seed}" / "demonstrations" / f"{writer}.jsonl"
