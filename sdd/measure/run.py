"""Files of rollouts -> estimates, changes, warnings: what ``sdd measure`` computes."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sdd import embedders as embedders_lib
from sdd.measure.compare import Comparison, compare
from sdd.measure.load import load
from sdd.measure.records import MeasureError, Options
from sdd.measure.store import Store
from sdd.measure.values import Values, measure_groups
from sdd.metrics.text import num_pairwise

ENOUGH = 0.95  # share of prompts that a k of pass@k must have samples for, unless it is asked for


class Request(NamedTuple):
    """What is asked for.

    Attributes:
      files: rollouts; together they are one set.
      baseline: rollouts of what they are compared with; none: ().
      format: "auto" or a format's name.
      options: how lines are read.
      ks: of pass@k and the like; (): powers of two that nearly all prompts have samples for.
      embedders: see `sdd.embedders.load`.
      split: only prompts of this split; "": all.
      skip_bad: whether bad lines are counted and left out instead of refused.
      workers: processes for the work on texts.
      seed: of bootstraps and draws.
      num_resamples: of the bootstraps.
    """

    files: tuple[str, ...]
    baseline: tuple[str, ...] = ()
    format: str = "auto"
    options: Options = Options()
    ks: tuple[int, ...] = ()
    embedders: tuple[str, ...] = ()
    split: str = ""
    skip_bad: bool = False
    workers: int = 0
    seed: int = 0
    num_resamples: int = 1000


class Measured(NamedTuple):
    """What was measured.

    Attributes:
      comparison: estimates of the file, the baseline and the change.
      after, before: values a prompt.
      prompts, samples: of the file.
      ks: the k that were used.
      warnings: what a reader of the numbers has to know, a line each.
    """

    comparison: Comparison
    after: Values
    before: Values | None
    prompts: int
    samples: int
    ks: tuple[int, ...]
    warnings: tuple[str, ...]


def measure(request: Request) -> Measured:
    """Measures rollouts; completions wait on the disk, in memory are a chunk and the values of each prompt.

    Raises:
      MeasureError: one line, with file and line number where there is one.
    """
    embedders = [embedders_lib.load(name) for name in request.embedders]
    with Store() as store, Store() as other:
        read = functools.partial(
            load,
            format=request.format,
            options=request.options,
            split=request.split,
            skip_bad=request.skip_bad,
        )
        warnings = read(request.files, store)
        if request.baseline:
            warnings += [f"baseline: {warning}" for warning in read(request.baseline, other)]
        baseline = other if request.baseline else None
        ks = choose_ks(request.ks, [s.sizes() for s in (store, baseline) if s is not None])
        apply = functools.partial(measure_groups, ks=ks, embedders=embedders, workers=request.workers)
        after = apply(store.groups())
        before = None if baseline is None else apply(baseline.groups())
        comparison = compare(
            after,
            before,
            (store, baseline),
            apply,
            seed=request.seed,
            num_resamples=request.num_resamples,
        )
        if baseline is not None and not comparison.shared:
            raise MeasureError(
                f"{request.files[0]} and {request.baseline[0]} share no prompt (split and prompt_id); "
                "valid: a baseline on the same prompts"
            )
        warnings += _size_warnings("", store, ks)
        if baseline is not None:
            warnings += _size_warnings("baseline: ", baseline, ks) + _pair_warnings(after, before, comparison)
        sizes = store.sizes()
        return Measured(comparison, after, before, len(sizes), int(sizes.sum()), ks, tuple(warnings))


def choose_ks(asked: Sequence[int], sizes: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The k that are asked for, or the powers of two that nearly all prompts of every file have samples for.

    Raises:
      MeasureError: no prompt of a file has that many samples.
    """
    most = min(int(sizes_B.max()) for sizes_B in sizes)
    for k in asked:
        if not 1 <= k <= most:
            raise MeasureError(f"--k {k}: the largest prompt has {most} samples; valid: 1 to {most}")
    if asked:
        return tuple(sorted(set(asked)))
    common = min(int(np.quantile(sizes_B, 1 - ENOUGH, method="lower")) for sizes_B in sizes)
    return tuple(1 << i for i in range(max(common, 1).bit_length()))


def _size_warnings(whose: str, store: Store, ks: Sequence[int]) -> list[str]:
    """What unequal numbers of samples mean for the metrics."""
    sizes_B = store.sizes()
    low, high = int(sizes_B.min()), int(sizes_B.max())
    warnings = []
    if low < high:
        warnings.append(
            f"{whose}samples a prompt differ ({low} to {high}): pass@k and distinct@k are unbiased for every "
            "size; Vendi scores, self_bleu and others that grow with it are means over these sizes"
        )
    for k in ks:
        few = int((sizes_B < k).sum())
        if few:
            warnings.append(
                f"{whose}k = {k}: {few} of {len(sizes_B)} prompts have fewer samples and are left out of @{k}"
            )
    if num_pairwise(high) < high:
        warnings.append(f"{whose}rouge_l: of prompts with more, {num_pairwise(high)} samples drawn at random")
    if high == 1:
        warnings.append(f"{whose}one sample a prompt: diversity within a prompt is undefined")
    return warnings


def _pair_warnings(after: Values, before: Values | None, comparison: Comparison) -> list[str]:
    assert before is not None
    warnings = []
    for whose, values in (("the file", after), ("the baseline", before)):
        alone = len(values.keys) - comparison.shared
        if alone:
            warnings.append(
                f"{alone} of {len(values.keys)} prompts are in {whose} only: the change leaves them out"
            )
    if comparison.equalised:
        warnings.append(
            f"{comparison.equalised} prompts have different numbers of samples on the two sides: metrics "
            "that grow with it are compared on equally many, drawn at random"
        )
    return warnings


def to_json(measured: Measured) -> dict[str, Any]:
    """The object that ``--json`` prints; an undefined number is null."""
    finite = lambda x: x if x == x else None  # noqa: E731
    shown = lambda estimates: {  # noqa: E731
        name: {end: finite(x) for end, x in e._asdict().items()} for name, e in estimates.items()
    }
    c = measured.comparison
    out: dict[str, Any] = {"metrics": shown(c.metrics)}
    if measured.before is not None:
        out |= {"baseline": shown(c.baseline), "change": shown(c.change), "shared_prompts": c.shared}
    return out | {
        "prompts": measured.prompts,
        "samples": measured.samples,
        "warnings": list(measured.warnings),
    }
