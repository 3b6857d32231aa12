"""Which of a group's correct rollouts teach which rollout. A pure function of grades and generators."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from sdd.losses.mean import Mean
from sdd.types import Grades

Policy = Literal["random", "first", "shortest", "other_strategy"]


class Demonstrations(NamedTuple):
    """Attributes:
    index_NxK: int32, the row that demonstrates; -1 where there is none.
    weight_NxK: float32, shares of the demonstrations of a row; they sum to 1, or to 0
      for a row without any.
    """

    index_NxK: np.ndarray
    weight_NxK: np.ndarray


def choose_demonstrations(
    grades: Grades,
    length_N: np.ndarray,
    rng_B: Sequence[np.random.Generator],
    *,
    group_size: int,
    num_demos: int = 1,
    policy: Policy = "random",
    per: Literal["rollout", "group"] = "rollout",
    exclude_own: bool = True,
) -> Demonstrations:
    """Draws up to K correct rollouts of its group for every rollout, without replacement.

    A row's candidates are put in an order, and the first K are taken.

    Args:
      grades: verdicts on the N rollouts.
      length_N: response lengths in tokens.
      rng_B: the only source of chance, a generator a group.
      group_size: G.
      num_demos: K.
      policy: the order of the candidates: "random" (uniform), "first" (by index),
        "shortest" (by length, then index), or "other_strategy" (random, among those
        whose strategy differs from the rollout's own).
      per: draw the random order once a rollout, or once a group as SDPO does (2601.20802).
      exclude_own: a rollout is never its own demonstration.
    """
    num_rollouts = len(grades.correct_N)
    index_NxK = np.full((num_rollouts, num_demos), -1, np.int32)
    for start, rng in zip(range(0, num_rollouts, group_size), rng_B, strict=True):
        group = np.arange(start, start + group_size)
        shared = rng.permutation(group)
        for row in group:
            order = rng.permutation(group) if per == "rollout" else shared
            if policy == "first":
                order = group
            elif policy == "shortest":
                order = group[np.argsort(length_N[group], kind="stable")]
            fits = grades.correct_N[order].copy()
            if exclude_own:
                fits &= order != row
            if policy == "other_strategy":
                fits &= grades.strategy_N[order] != grades.strategy_N[row]
            chosen = order[fits][:num_demos]
            index_NxK[row, : len(chosen)] = chosen
    has_NxK = (index_NxK >= 0).astype(np.float32)
    return Demonstrations(index_NxK, has_NxK / np.maximum(has_NxK.sum(axis=1, keepdims=True), 1))


def demonstration_metrics(demos: Demonstrations, grades: Grades) -> dict[str, Mean]:
    """What was chosen, for the log: rows with a teacher, and how alike demonstration and rollout are."""
    has_NxK = demos.index_NxK >= 0
    same_NxK = grades.strategy_N[demos.index_NxK] == grades.strategy_N[:, None]
    return {
        "demo_rows": Mean(has_NxK.any(axis=1).sum(), len(has_NxK)),
        "demos_per_row": Mean(has_NxK.sum(), len(has_NxK)),
        "demo_same_strategy": Mean(same_NxK[has_NxK].sum(), has_NxK.sum()),
    }
