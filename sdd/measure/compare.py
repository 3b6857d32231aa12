"""Two files of rollouts over the same prompts: estimates of each, and of the change, prompt by prompt."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sdd.measure.store import Group, Store
from sdd.measure.values import Values, depends_on_num_samples, draw_samples
from sdd.metrics import Estimate, bootstrap, paired_bootstrap

Measure = Callable[[Sequence[Group]], Values]


class Comparison(NamedTuple):
    """Attributes:
    metrics: of the file, over all its prompts.
    baseline: of the baseline, over all its prompts; {} without one.
    change: file minus baseline over the prompts that both have; {} without a baseline.
    shared: number of those prompts.
    equalised: prompts whose two sides have different numbers of samples.
    """

    metrics: dict[str, Estimate]
    baseline: dict[str, Estimate]
    change: dict[str, Estimate]
    shared: int
    equalised: int


def compare(
    after: Values,
    before: Values | None,
    stores: tuple[Store, Store | None],
    measure: Measure,
    *,
    seed: int,
    num_resamples: int,
) -> Comparison:
    """Intervals are 95 % bootstraps over prompts; the change is paired.

    Metrics whose expectation moves with the number of samples are compared on equally many:
    where a prompt's two sides differ, the larger side gives a uniform draw of the smaller's size.

    Args:
      after: per-prompt values of the file.
      before: of the baseline, or None.
      stores: where the completions of both are.
      measure: groups -> values, for those draws.
      seed: of the bootstrap and of the draws.
      num_resamples: of the bootstrap.
    """
    estimate = lambda values: bootstrap(values, seed=seed, num_resamples=num_resamples)  # noqa: E731
    metrics = estimate(after.by_name)
    if before is None:
        return Comparison(metrics, {}, {}, 0, 0)
    sides, shared, equalised = _shared_values(after, before, stores, measure, seed)
    change = paired_bootstrap(*sides, seed=seed, num_resamples=num_resamples)
    return Comparison(metrics, estimate(before.by_name), change, shared, equalised)


def _shared_values(
    after: Values, before: Values, stores: tuple[Store, Store | None], measure: Measure, seed: int
) -> tuple[list[dict[str, np.ndarray]], int, int]:
    """Values of both sides on the prompts that both have, in one order; how many, and how many uneven."""
    place = {key: i for i, key in enumerate(before.keys)}
    pairs = [(i, place[key]) for i, key in enumerate(after.keys) if key in place]
    rows = np.array(pairs, int).reshape(-1, 2).T
    sides = [{k: v[r] for k, v in values.by_name.items()} for values, r in zip((after, before), rows)]
    store, baseline = stores
    assert baseline is not None
    sizes = [s.sizes_by_key() for s in (store, baseline)]
    uneven = [j for j, (i, _) in enumerate(pairs) if sizes[0][after.keys[i]] != sizes[1][after.keys[i]]]
    for start in range(0, len(uneven), 256):
        block = uneven[start : start + 256]
        keys = [after.keys[pairs[j][0]] for j in block]
        size = [min(sizes[0][key], sizes[1][key]) for key in keys]
        for side, source in zip(sides, (store, baseline)):
            drawn = measure([draw_samples(source.group(key), n, seed) for key, n in zip(keys, size)])
            for name, value_B in drawn.by_name.items():
                if name in side and depends_on_num_samples(name):
                    side[name][block] = value_B
    return sides, len(pairs), len(uneven)
