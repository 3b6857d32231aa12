"""From a value a prompt to one number with a confidence interval.

All intervals are percentile bootstraps (Efron 1979). nan marks a prompt for
which a metric is undefined; such prompts are left out of the mean, and a
resample's mean is over the defined prompts that it drew. A metric that no prompt
defines has value, low and high nan.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from sdd.types import Array

PerPrompt = Array | Mapping[str, Array]
_MOST_WEIGHTS = 1 << 22  # of resamples x prompts that are held at once


class Estimate(NamedTuple):
    """A mean over prompts and its interval; plain floats, so ``_asdict()`` goes to JSON.

    Attributes:
      value: the estimate itself, from the data (not the mean of the resamples).
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    low: float
    high: float


def _as_matrix(values: Mapping[str, Array], where: str) -> np.ndarray:
    """Stacks the metrics to BxM float64."""
    columns = {name: np.asarray(value, np.float64) for name, value in values.items()}
    lengths = {name: column.shape for name, column in columns.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        raise ValueError(
            f"{where}: shapes {lengths}; valid: one number a prompt, the same prompts everywhere"
        )
    return np.stack(list(columns.values()), axis=1) if columns else np.zeros((0, 0))


def _resampled_means(values_BxM: np.ndarray, num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draws B prompts with replacement, R times, and returns the RxM means over the defined ones.

    How often each prompt is drawn is multinomial, so all resamples of all metrics are
    matrix products, and every metric sees the same resamples. A block of resamples at a
    time bounds the memory; the blocks' size does not change what is drawn.
    """
    num_prompts = len(values_BxM)
    means_RxM = np.full((num_resamples, values_BxM.shape[1]), np.nan)
    if num_prompts == 0:
        return means_RxM
    defined_BxM = ~np.isnan(values_BxM)
    filled_BxM = np.where(defined_BxM, values_BxM, 0.0)
    even_B = np.full(num_prompts, 1 / num_prompts)
    block = max(1, _MOST_WEIGHTS // num_prompts)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        weights_RxB = rng.multinomial(num_prompts, even_B, size=size).astype(np.float64)
        count_RxM = weights_RxB @ defined_BxM
        sums_RxM = weights_RxB @ filled_BxM
        means_RxM[start : start + size] = np.where(count_RxM > 0, sums_RxM / np.maximum(count_RxM, 1), np.nan)
    return means_RxM


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over the entries that are not nan; nan if none is (np.nanmean, without its warning)."""
    count = (~np.isnan(values)).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def mean(values_B: Array) -> float:
    """Mean over the prompts for which a metric is defined; nan if there is none."""
    return float(_mean(np.asarray(values_B, np.float64), 0))


def _estimates(value_M: np.ndarray, means_RxM: np.ndarray, level: float) -> list[Estimate]:
    """Cuts (1 - level) / 2 off both ends; resamples that drew no defined prompt are left out."""
    estimates = []
    for value, means_R in zip(value_M, means_RxM.T, strict=True):
        means_R = means_R[~np.isnan(means_R)]
        tails = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2]) if means_R.size else [np.nan] * 2
        estimates.append(Estimate(float(value), float(tails[0]), float(tails[1])))
    return estimates


def _check(where: str, num_resamples: int, level: float) -> None:
    if num_resamples < 1:
        raise ValueError(f"{where}: num_resamples = {num_resamples}; valid: >= 1")
    if not 0 < level < 1:
        raise ValueError(f"{where}: level = {level}; valid: above 0 and below 1")


@overload
def bootstrap(
    values: Mapping[str, Array],
    *,
    seed: int | np.random.Generator,
    num_resamples: int = ...,
    level: float = ...,
) -> dict[str, Estimate]: ...
@overload
def bootstrap(
    values: Array, *, seed: int | np.random.Generator, num_resamples: int = ..., level: float = ...
) -> Estimate: ...
def bootstrap(
    values: PerPrompt, *, seed: int | np.random.Generator, num_resamples: int = 1000, level: float = 0.95
) -> Estimate | dict[str, Estimate]:
    """Mean over prompts, with an interval for which prompts were asked.

    It is the uncertainty about other prompts of the same kind. Sampling noise
    within a prompt is in it (the values scatter by it); noise between training
    seeds is not, see `bootstrap_over_seeds`.

    Args:
      values: B, one number a prompt (nan: undefined there), or a dict of such
        arrays over the same prompts.
      seed: a number, or a generator (which is advanced). The same number gives the same interval.
      num_resamples: R.
      level: coverage aimed at.

    Returns:
      An Estimate, or a dict of them in the order given.

    Raises:
      ValueError: for other shapes, R < 1, or a level outside (0, 1).
    """
    if not isinstance(values, Mapping):
        return bootstrap({"": values}, seed=seed, num_resamples=num_resamples, level=level)[""]
    _check("bootstrap", num_resamples, level)
    values_BxM = _as_matrix(values, "bootstrap")
    means_RxM = _resampled_means(values_BxM, num_resamples, np.random.default_rng(seed))
    return dict(zip(values, _estimates(_mean(values_BxM, 0), means_RxM, level)))


def _difference(a: PerPrompt, b: PerPrompt, where: str) -> PerPrompt:
    """Returns a - b prompt by prompt; of two dicts, for the metrics that both have."""
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError(f"{where}: one side is a dict and the other an array; valid: both alike")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {name: _difference(a[name], b[name], where) for name in a if name in b}
    a_B, b_B = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a_B.shape != b_B.shape:
        raise ValueError(
            f"{where}: shapes {a_B.shape} and {b_B.shape}; valid: the same prompts on both sides"
        )
    # What differs by rounding alone does not differ: all of it on one side would look like a change.
    return np.where(np.isclose(a_B, b_B, rtol=1e-12, atol=1e-15), 0.0, a_B - b_B)


@overload
def paired_bootstrap(
    a: Mapping[str, Array],
    b: Mapping[str, Array],
    *,
    seed: int | np.random.Generator,
    num_resamples: int = ...,
    level: float = ...,
) -> dict[str, Estimate]: ...
@overload
def paired_bootstrap(
    a: Array, b: Array, *, seed: int | np.random.Generator, num_resamples: int = ..., level: float = ...
) -> Estimate: ...
def paired_bootstrap(
    a: PerPrompt,
    b: PerPrompt,
    *,
    seed: int | np.random.Generator,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate | dict[str, Estimate]:
    """Mean of a - b over prompts, where entry i of both is about the same prompt.

    What makes a prompt hard for both cancels, so the interval is narrower than
    that of two separate means. A prompt undefined on either side is left out. Of
    two dicts, the metrics that both have are compared. Otherwise as `bootstrap`.
    """
    return bootstrap(
        _difference(a, b, "paired_bootstrap"), seed=seed, num_resamples=num_resamples, level=level
    )


def _resampled_over_seeds(
    seeds: Sequence[np.ndarray], num_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns RxM: S seeds drawn with replacement, within each its prompts, mean over the S means."""
    num_seeds = len(seeds)
    drawn_RxS = rng.integers(num_seeds, size=(num_resamples, num_seeds))
    means_RxSxM = np.full((num_resamples, num_seeds, seeds[0].shape[1]), np.nan)
    for slot in range(num_seeds):
        # A seed drawn twice gets its own prompts each time.
        for s, values_BxM in enumerate(seeds):
            rows = np.flatnonzero(drawn_RxS[:, slot] == s)
            means_RxSxM[rows, slot] = _resampled_means(values_BxM, len(rows), rng)
    return _mean(means_RxSxM, 1)


@overload
def bootstrap_over_seeds(
    values: Sequence[Mapping[str, Array]],
    *,
    seed: int | np.random.Generator,
    num_resamples: int = ...,
    level: float = ...,
) -> dict[str, Estimate]: ...
@overload
def bootstrap_over_seeds(
    values: Sequence[Array], *, seed: int | np.random.Generator, num_resamples: int = ..., level: float = ...
) -> Estimate: ...
def bootstrap_over_seeds(
    values: Sequence[PerPrompt],
    *,
    seed: int | np.random.Generator,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate | dict[str, Estimate]:
    """Mean over training seeds of the mean over prompts, by a hierarchical bootstrap.

    A resample draws S of the S seeds with replacement, then for each drawn seed its
    prompts with replacement. Each seed weighs the same, however many prompts it
    has; seeds need not share prompts. With few seeds (3, say) the part between seeds
    is too narrow by a factor of about sqrt((S-1)/S), which the percentile method does
    not mend; with one seed that part is absent, and this is `bootstrap`.

    Args:
      values: for each seed B, or a dict of B; of dicts, the metrics that all seeds have.
      seed: of the bootstrap's own random numbers, as in `bootstrap`.
      num_resamples: R.
      level: coverage aimed at.

    Returns:
      An Estimate, or a dict of them.

    Raises:
      ValueError: for no seed, or as `bootstrap`.
    """
    _check("bootstrap_over_seeds", num_resamples, level)
    if not values:
        raise ValueError("bootstrap_over_seeds: no seeds given; valid: at least one")
    by_seed = [v for v in values if isinstance(v, Mapping)]
    if not by_seed:
        singles: list[Mapping[str, Any]] = [{"": v} for v in values]
        return bootstrap_over_seeds(singles, seed=seed, num_resamples=num_resamples, level=level)[""]
    if len(by_seed) < len(values):
        raise ValueError("bootstrap_over_seeds: some seeds are dicts and some arrays; valid: all alike")
    names = [name for name in by_seed[0] if all(name in v for v in by_seed)]
    seeds = [_as_matrix({name: v[name] for name in names}, "bootstrap_over_seeds") for v in by_seed]
    value_M = _mean(np.stack([_mean(values_BxM, 0) for values_BxM in seeds]), 0)
    means_RxM = _resampled_over_seeds(seeds, num_resamples, np.random.default_rng(seed))
    return dict(zip(names, _estimates(value_M, means_RxM, level)))


def paired_bootstrap_over_seeds(
    a: Sequence[PerPrompt],
    b: Sequence[PerPrompt],
    *,
    seed: int | np.random.Generator,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate | dict[str, Estimate]:
    """`bootstrap_over_seeds` of the differences a - b, which share prompts within each seed.

    Raises:
      ValueError: if the sides differ in their number of seeds, or as `bootstrap_over_seeds`.
    """
    where = "paired_bootstrap_over_seeds"
    if len(a) != len(b):
        raise ValueError(f"{where}: {len(a)} and {len(b)} seeds; valid: the same seeds on both sides")
    differences: list[Any] = [_difference(x, y, where) for x, y in zip(a, b)]
    return bootstrap_over_seeds(differences, seed=seed, num_resamples=num_resamples, level=level)
