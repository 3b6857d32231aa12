"""The paper's claims C1 to C5 and C7, each as a number with an interval.

Source: arXiv 2606.26091 (the claims), 2107.03374 (pass@k). Each number is a
paired difference over the prompts that the compared runs share: with one seed a
bootstrap over prompts, with several a hierarchical one, over seeds and then over
the prompts of each. Intervals hold 95 %. They cover the prompts and seeds, not the choice of a
method's settings.

A claim is a plain dict, ready for JSON: ``statement``, ``value``, ``low``,
``high``, ``holds``, ``seeds``, ``splits`` and ``details``; ``details["rule"]``
says when ``holds`` is true, ``details["runaway"]`` which of the compared runs ran
away (their pass@1 fell for another reason than the claim's). Where runs are missing
``value``, ``low``, ``high`` and ``holds`` are None and ``details["missing"]`` names them.

Cells are seed -> method -> rollouts of one split, all of a seed over the same
prompts in the same order (`sdd.claims.compare.gather`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sdd.claims.compare import (
    Cells,
    Interval,
    above,
    below,
    difference,
    distinct_correct_at,
    draws,
    entropy_correlation,
    gather,
    missing_runs,
    pass_at,
    token_entropy,
)
from sdd.claims.runs import START, EvaluationRollouts, Run, Study, load_study, shared_prompts
from sdd.writers import write_json_atomic

Windows = dict[int, tuple[EvaluationRollouts, EvaluationRollouts]]
Claim = dict[str, Any]

SDSD, SDSD_K3, GRPO, DIVERSITY = "sdsd_k1", "sdsd_k3", "grpo", "grpo_diversity"
MARGIN = 0.03  # C1: a loss of pass@1 up to this still counts as a match

STATEMENTS = {
    "C1": "SDSD matches or exceeds GRPO at pass@1 in distribution",
    "C2": "SDSD's pass@k curve is flatter than GRPO's and than the starting model's",
    "C3": "On harder problems SDSD fails where GRPO, and GRPO + diversity, succeed",
    "C4": "Distinct correct strategies fall under SDSD, and pass@k falls with them",
    "C5": "Averaging over three demonstrations (K = 3) does not cure it",
    "C7": "Token entropy does not tell: it rises while distinct strategies fall",
}
NEEDS = {
    "C1": (SDSD, GRPO),
    "C2": (SDSD, GRPO, START),
    "C3": (SDSD, GRPO, DIVERSITY),
    "C4": (SDSD, GRPO, START),
    "C5": (SDSD_K3, GRPO),
    "C7": (SDSD,),
}


# ---- the claims -----------------------------------------------------------------------------------------


def c1(cells_id: Cells) -> Claim:
    """C1: pass@1 of SDSD (K = 1) minus that of GRPO, in distribution.

    Holds if value >= -0.03: the estimate itself, not the end of its interval.
    """
    main = difference(cells_id, pass_at(1), SDSD, GRPO)
    rule = f"pass@1 of SDSD minus GRPO >= -{MARGIN}"
    return _claim(
        "C1", cells_id, main, main["value"] is not None and main["value"] >= -MARGIN, {"rule": rule}
    )


def c2(cells_id: Cells) -> Claim:
    """C2: the rise of the curve, pass@k - pass@1, of SDSD minus that of GRPO, in distribution.

    k is the largest power of two up to half the samples (64 samples: 32), so that the
    estimator averages. ``details["against_start"]`` is the same against the starting
    model. A curve is flatter too where pass@1 rises and pass@k cannot rise any more, so
    ``details["pass_k_against_grpo"]`` says which end moved. Holds if the upper ends of
    both rises are below 0.
    """
    k = draws(_all(cells_id), averaged=True)

    def rise(r: EvaluationRollouts) -> np.ndarray:
        return pass_at(k)(r) - pass_at(1)(r)

    main = difference(cells_id, rise, SDSD, GRPO)
    start = difference(cells_id, rise, SDSD, START)
    rule = f"rise from pass@1 to pass@{k}: SDSD minus GRPO and minus the start, both intervals below 0"
    ends = {"pass_k_against_grpo": difference(cells_id, pass_at(k), SDSD, GRPO)}
    details = {"rule": rule, "k": k, "against_grpo": main, "against_start": start, **ends}
    return _claim("C2", cells_id, main, below(main, start), details)


def c3(cells_harder: Cells) -> Claim:
    """C3: pass@32 of SDSD minus that of GRPO on the harder split.

    ``details["against_diversity"]`` is the same against GRPO + diversity. Holds if the
    upper ends of both are below 0. With fewer than 32 samples k is smaller (`draws`).
    """
    k = draws(_all(cells_harder))
    main = difference(cells_harder, pass_at(k), SDSD, GRPO)
    diversity = difference(cells_harder, pass_at(k), SDSD, DIVERSITY)
    rule = f"harder pass@{k}: SDSD minus GRPO and minus GRPO + diversity, both intervals below 0"
    details = {"rule": rule, "k": k, "against_grpo": main, "against_diversity": diversity}
    return _claim("C3", cells_harder, main, below(main, diversity), details)


def c4(cells_id: Cells, cells_harder: Cells) -> Claim:
    """C4: distinct correct strategies at 32 draws in distribution, SDSD minus the starting model.

    Details: the same against GRPO, and pass@32 of SDSD minus the starting model in
    distribution and on the harder split. Holds if all four intervals are below 0.
    """
    k = draws([*_all(cells_id), *_all(cells_harder)])
    main = difference(cells_id, distinct_correct_at(k), SDSD, START)
    grpo = difference(cells_id, distinct_correct_at(k), SDSD, GRPO)
    pass_id = difference(cells_id, pass_at(k), SDSD, START)
    pass_harder = difference(cells_harder, pass_at(k), SDSD, START)
    rule = (
        f"distinct correct strategies at {k}: SDSD minus the start and minus GRPO; pass@{k} minus the start, "
        "in distribution and harder: all intervals below 0"
    )
    details = {
        "rule": rule,
        "k": k,
        "distinct_against_start": main,
        "distinct_against_grpo": grpo,
        "pass_against_start": pass_id,
        "pass_harder_against_start": pass_harder,
    }
    return _claim("C4", cells_id, main, below(main, grpo, pass_id, pass_harder), details)


def c5(cells_id: Cells, cells_harder: Cells) -> Claim:
    """C5: distinct correct strategies at 32 draws in distribution, SDSD K = 3 minus GRPO.

    ``details["pass_harder_against_grpo"]``: pass@32 on the harder split, K = 3 minus
    GRPO. Holds if both intervals are below 0.
    """
    k = draws([*_all(cells_id), *_all(cells_harder)])
    main = difference(cells_id, distinct_correct_at(k), SDSD_K3, GRPO)
    harder = difference(cells_harder, pass_at(k), SDSD_K3, GRPO)
    rule = (
        f"K = 3 minus GRPO: distinct correct strategies at {k}, and harder pass@{k}, both intervals below 0"
    )
    details = {"rule": rule, "k": k, "distinct_against_grpo": main, "pass_harder_against_grpo": harder}
    return _claim("C5", cells_id, main, below(main, harder), details)


def c7(windows_id: Windows, picked: dict[int, tuple[int, int]]) -> Claim:
    """C7: the change of token entropy over a window of the SDSD (K = 1) run, nats a token.

    The window of each seed goes from the evaluation after step 0 with the lowest mean
    token entropy to the last (`find_window`). It is picked on the same rollouts that
    it is measured on, so this describes what happened and is not a test: the interval
    covers the choice of prompts, not the choice of the window. ``details["distinct"]``
    is the change of distinct correct strategies at 32 draws over the same window.
    Holds if entropy rose (its interval above 0) and strategies fell (below 0).

    Args:
      windows_id: seed -> rollouts at the window's start and end, over the same prompts.
      picked: seed -> steps of the window's start and end.
    """
    cells = {seed: {"start": start, "end": end} for seed, (start, end) in windows_id.items()}
    k = draws(_all(cells))
    entropy = difference(cells, token_entropy, "end", "start")
    distinct = difference(cells, distinct_correct_at(k), "end", "start")
    details = {
        "rule": f"token entropy rose (interval above 0), distinct correct strategies at {k} fell (below 0)",
        "k": k,
        "token_entropy": entropy,
        "distinct": distinct,
        "windows": {str(seed): list(steps) for seed, steps in picked.items()},
        "note": "the window was picked on the same rollouts: a description, not a test",
    }
    holds = above(entropy) and below(distinct)
    return _claim("C7", cells, entropy, holds, details)


# ---- a study --------------------------------------------------------------------------------------------


def compute(study: Study) -> dict[str, Claim]:
    """All claims of a study, from its final rollouts (C7: from those of every evaluation).

    A claim uses the seeds that have all of its runs, finished. The first split is
    "in distribution"; C3 to C5 need one named ``harder``.

    Raises:
      ValueError: one line, where a rollouts file is missing or torn.
    """
    split = study.splits[0] if study.splits else "id"
    functions: dict[str, tuple[Callable[..., Claim], tuple[str, ...]]] = {
        "C1": (c1, (split,)),
        "C2": (c2, (split,)),
        "C3": (c3, ("harder",)),
        "C4": (c4, (split, "harder")),
        "C5": (c5, (split, "harder")),
    }
    claims = {}
    for name, (function, splits) in functions.items():
        missing = missing_runs(study, NEEDS[name], splits)
        seeds = [seed for seed in study.seeds if seed not in missing]
        cells = [gather(study, seeds, NEEDS[name], split) for split in splits]
        claim = function(*cells) if seeds else _missing(name)
        claims[name] = _finish(study, name, claim, splits, missing)
    claims["C7"] = _compute_c7(study, split)
    return claims


def write(study_path: str | Path) -> dict[str, Claim]:
    """Computes the claims of a study folder and writes ``claims.json`` there, atomically."""
    claims = compute(load_study(study_path))
    write_json_atomic(Path(study_path) / "claims.json", claims)
    return claims


def find_window(run: Run, split: str) -> tuple[int, int]:
    """Steps of the evaluation after step 0 with the lowest mean token entropy, and of the last one.

    Means are over the prompts that the evaluation shares with the last one.
    """
    last = run.rollouts(split)
    entropies = {}
    for step in run.steps(split):
        if step > 0:
            here, _ = shared_prompts([run.rollouts(split, step), last])
            entropies[step] = float(np.nanmean(token_entropy(here))) if here.prompt_ids else np.inf
    return min(entropies, key=lambda step: entropies[step], default=run.last_step), run.last_step


def _compute_c7(study: Study, split: str) -> Claim:
    missing = missing_runs(study, NEEDS["C7"], (split,), every_step=True)
    windows, picked = {}, {}
    for seed, runs in study.seeds.items():
        if seed in missing:
            continue
        run = runs[SDSD]
        picked[seed] = find_window(run, split)
        start, end = shared_prompts([run.rollouts(split, step) for step in picked[seed]])
        windows[seed] = (start, end)
    claim = c7(windows, picked) if windows else _missing("C7")
    claim["details"]["rank_correlation"] = entropy_correlation(study)
    return _finish(study, "C7", claim, (split,), missing)


def _all(cells: Cells) -> list[EvaluationRollouts]:
    return [rollouts for runs in cells.values() for rollouts in runs.values()]


def _claim(name: str, cells: Cells, main: Interval, holds: bool, details: dict[str, Any]) -> Claim:
    counts = {str(seed): len(next(iter(runs.values())).prompt_ids) for seed, runs in cells.items()}
    return {
        "statement": STATEMENTS[name],
        **main,
        "holds": None if main["value"] is None else bool(holds),
        "seeds": sorted(cells),
        "splits": [],
        "details": {**details, "num_prompts": counts},
    }


def _missing(name: str) -> Claim:
    nothing: Claim = {"value": None, "low": None, "high": None, "holds": None, "seeds": [], "splits": []}
    return {"statement": STATEMENTS[name], **nothing, "details": {}}


def _finish(
    study: Study, name: str, claim: Claim, splits: tuple[str, ...], missing: dict[int, list[str]]
) -> Claim:
    """Adds the splits, what is missing, and which of the compared runs ran away."""
    claim["splits"] = list(splits)
    runaway = [
        f"{method} (seed {seed}): runaway at step {event.get('step')}"
        for seed in claim["seeds"]
        for method in NEEDS[name]
        for event in study.seeds[seed][method].events
        if event["event"] == "runaway"
    ]
    if runaway:
        claim["details"]["runaway"] = list(dict.fromkeys(runaway))
    if missing:
        claim["details"]["missing"] = [problem for problems in missing.values() for problem in problems]
    return claim
