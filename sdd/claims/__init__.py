"""The claims C1 to C9, each as a number with an interval.

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

import numpy as np

from sdd.claims import external
from sdd.claims.compare import entropy_correlation, gather, missing_runs, token_entropy
from sdd.claims.cure import c9, plane
from sdd.claims.names import MARGIN as MARGIN
from sdd.claims.names import NEEDS, SDSD, Claim
from sdd.claims.names import STATEMENTS as STATEMENTS
from sdd.claims.paper import c1, c2, c3, c4, c5, c7
from sdd.claims.predicted import c8
from sdd.claims.runs import Run, Study, load_study, shared_prompts
from sdd.writers import write_json_atomic


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
        "C9": (c9, (split, "larger", "harder")),
    }
    claims = {}
    for name, (function, splits) in functions.items():
        missing = missing_runs(study, NEEDS[name], splits)
        seeds = [seed for seed in study.seeds if seed not in missing]
        cells = [gather(study, seeds, NEEDS[name], split) for split in splits]
        claim = function(*cells) if seeds else _missing(name)
        claims[name] = _finish(study, name, claim, splits, missing)
        if name == "C9" and seeds:
            claims[name]["details"]["plane"] = plane(study, split, "harder")
    claims["C6"] = external.compute(study)
    claims["C7"] = _compute_c7(study, split)
    claims["C8"] = c8(study)
    return dict(sorted(claims.items()))


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
