"""How well a prediction of log-ratios fits what was measured, with intervals over prompts and seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sdd.metrics.reduce import Estimate

_RESAMPLES = 2000


class Predicted(NamedTuple):
    """Pairs of answers of one seed.

    Attributes:
      prompt_X: int, which prompt a pair belongs to.
      predicted_X: nats.
      measured_X: nats.
      held_X: nats, what is held fixed in the partial correlation.
    """

    prompt_X: np.ndarray
    predicted_X: np.ndarray
    measured_X: np.ndarray
    held_X: np.ndarray


def fits(seeds: Sequence[Predicted], seed: int = 0) -> dict[str, Estimate]:
    """How well a prediction fits, with 95 % intervals.

    All are about zero, as a pair read backwards changes every sign. With x the prediction, y the measurement:
    ``correlation`` sum xy / sqrt(sum xx sum yy); ``slope`` sum xy / sum xx; ``partial`` the correlation that
    is left when z is held fixed; nan where nothing varies. Sums are over all pairs of all seeds. The
    intervals are percentiles of 2000 resamples, of seeds where there are several and then of prompts, pairs
    staying together.

    Args:
      seeds: the pairs of each seed.
      seed: of the resamples.
    """
    sums = [_sums(pairs) for pairs in seeds]
    rng = np.random.default_rng(seed)
    if len(sums) == 1:
        drawn_Rx6 = _drawn(sums[0], _RESAMPLES, rng)
    else:
        drawn_Rx6 = np.zeros((_RESAMPLES, 6))
        drawn_RxS = rng.integers(len(sums), size=(_RESAMPLES, len(sums)))
        for slot in range(len(sums)):
            for s, sums_Bx6 in enumerate(sums):
                rows = np.flatnonzero(drawn_RxS[:, slot] == s)
                drawn_Rx6[rows] += _drawn(sums_Bx6, len(rows), rng)
    whole_6 = np.sum([sums_Bx6.sum(0) for sums_Bx6 in sums], axis=0)
    xx_R, yy_R, zz_R, xy_R, xz_R, yz_R = np.vstack([whole_6, drawn_Rx6]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        xy, xz, yz = xy_R / np.sqrt(xx_R * yy_R), xz_R / np.sqrt(xx_R * zz_R), yz_R / np.sqrt(yy_R * zz_R)
        partial = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = {"correlation": xy, "slope": xy_R / xx_R, "partial": partial}
    return {key: _estimate(value_R) for key, value_R in found.items()}


def _sums(pairs: Predicted) -> np.ndarray:
    """Bx6: of each prompt the sums of xx, yy, zz, xy, xz, yz."""
    prompt_X, x_X, y_X, z_X = (np.asarray(column) for column in pairs)
    products_Xx6 = np.stack([x_X * x_X, y_X * y_X, z_X * z_X, x_X * y_X, x_X * z_X, y_X * z_X], axis=1)
    sums_Bx6 = np.zeros((int(prompt_X.max()) + 1, 6))
    np.add.at(sums_Bx6, prompt_X, products_Xx6)
    return sums_Bx6


def _drawn(sums_Bx6: np.ndarray, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    num_prompts = len(sums_Bx6)
    even_B = np.full(num_prompts, 1 / num_prompts)
    return rng.multinomial(num_prompts, even_B, size=num_resamples) @ sums_Bx6


def _estimate(value_R: np.ndarray) -> Estimate:
    """The first is that of the data, the others those of resamples."""
    if not np.isfinite(value_R[0]):
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate(float(value_R[0]), *map(float, np.nanquantile(value_R[1:], [0.025, 0.975])))
