"""C1 to C5 and C7, the paper's claims about runs, as functions of their final rollouts.

Source: arXiv 2606.26091. Cells and intervals are those of `sdd.claims.compare`.
"""

import numpy as np

from sdd.claims.compare import (
    Cells,
    above,
    below,
    difference,
    distinct_correct_at,
    draws,
    pass_at,
    token_entropy,
)
from sdd.claims.names import DIVERSITY, GRPO, MARGIN, SDSD, SDSD_K3, Claim, claim_of, rollouts_of
from sdd.claims.runs import START, EvaluationRollouts

Windows = dict[int, tuple[EvaluationRollouts, EvaluationRollouts]]


def c1(cells_id: Cells) -> Claim:
    """C1: pass@1 of SDSD (K = 1) minus that of GRPO, in distribution.

    Holds if value >= -0.03: the estimate itself, not the end of its interval.
    """
    main = difference(cells_id, pass_at(1), SDSD, GRPO)
    rule = f"pass@1 of SDSD minus GRPO >= -{MARGIN}"
    return claim_of(
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
    k = draws(rollouts_of(cells_id), averaged=True)

    def rise(r: EvaluationRollouts) -> np.ndarray:
        return pass_at(k)(r) - pass_at(1)(r)

    main = difference(cells_id, rise, SDSD, GRPO)
    start = difference(cells_id, rise, SDSD, START)
    rule = f"rise from pass@1 to pass@{k}: SDSD minus GRPO and minus the start, both intervals below 0"
    ends = {"pass_k_against_grpo": difference(cells_id, pass_at(k), SDSD, GRPO)}
    details = {"rule": rule, "k": k, "against_grpo": main, "against_start": start, **ends}
    return claim_of("C2", cells_id, main, below(main, start), details)


def c3(cells_harder: Cells) -> Claim:
    """C3: pass@32 of SDSD minus that of GRPO on the harder split.

    ``details["against_diversity"]`` is the same against GRPO + diversity. Holds if the
    upper ends of both are below 0. With fewer than 32 samples k is smaller (`draws`).
    """
    k = draws(rollouts_of(cells_harder))
    main = difference(cells_harder, pass_at(k), SDSD, GRPO)
    diversity = difference(cells_harder, pass_at(k), SDSD, DIVERSITY)
    rule = f"harder pass@{k}: SDSD minus GRPO and minus GRPO + diversity, both intervals below 0"
    details = {"rule": rule, "k": k, "against_grpo": main, "against_diversity": diversity}
    return claim_of("C3", cells_harder, main, below(main, diversity), details)


def c4(cells_id: Cells, cells_harder: Cells) -> Claim:
    """C4: distinct correct strategies at 32 draws in distribution, SDSD minus the starting model.

    Details: the same against GRPO, and pass@32 of SDSD minus the starting model in
    distribution and on the harder split. Holds if all four intervals are below 0.
    """
    k = draws([*rollouts_of(cells_id), *rollouts_of(cells_harder)])
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
    return claim_of("C4", cells_id, main, below(main, grpo, pass_id, pass_harder), details)


def c5(cells_id: Cells, cells_harder: Cells) -> Claim:
    """C5: distinct correct strategies at 32 draws in distribution, SDSD K = 3 minus GRPO.

    ``details["pass_harder_against_grpo"]``: pass@32 on the harder split, K = 3 minus
    GRPO. Holds if both intervals are below 0.
    """
    k = draws([*rollouts_of(cells_id), *rollouts_of(cells_harder)])
    main = difference(cells_id, distinct_correct_at(k), SDSD_K3, GRPO)
    harder = difference(cells_harder, pass_at(k), SDSD_K3, GRPO)
    rule = (
        f"K = 3 minus GRPO: distinct correct strategies at {k}, and harder pass@{k}, both intervals below 0"
    )
    details = {"rule": rule, "k": k, "distinct_against_grpo": main, "pass_harder_against_grpo": harder}
    return claim_of("C5", cells_id, main, below(main, harder), details)


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
    k = draws(rollouts_of(cells))
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
    return claim_of("C7", cells, entropy, holds, details)
