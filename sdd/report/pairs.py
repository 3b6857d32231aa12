"""What a method changed, prompt by prompt: the rollouts of its start and of its end over the same prompts."""

import itertools
from typing import Any, NamedTuple

import numpy as np

from sdd.claims.compare import Interval, distinct_correct_at, draws, pass_at
from sdd.claims.runs import EvaluationRollouts, Run, Study, shared_prompts
from sdd.metrics.strategies import strategy_counts
from sdd.progress import printable
from sdd.report.load import is_start, start_of
from sdd.report.look import labels, split_name
from sdd.report.summary import intervals, readable

Pair = tuple[EvaluationRollouts, EvaluationRollouts]
MAX_POINTS = 6000
MAX_PROMPT = 160


class Change(NamedTuple):
    """End minus start of a method on a split, paired by prompt; ``k`` draws for pass@k and strategies.

    Attributes:
      lost, gained: shares of the prompts at which some strategy that was right at the
        start never was at the end, and the reverse; means over seeds. None where
        strategies cannot be listed.
      most_lost: strategy -> at how many prompts it was lost, of all seeds; the most frequent first.
    """

    method: str
    split: str
    seeds: tuple[int, ...]
    k: int
    num_prompts: int
    pass_1: Interval
    pass_k: Interval
    distinct: Interval
    lost: float | None
    gained: float | None
    most_lost: dict[str, int]


def pairs(study: Study, method: str, split: str) -> dict[int, Pair]:
    """Seed -> rollouts of the start (without a starting model: the run's first evaluation) and of the end."""
    found = {}
    start = start_of(study, method)
    for seed, run in study.of_method(method).items():
        if not readable(run, split, run.last_step):
            continue
        origin = study.of_method(start).get(seed) if start else run
        step = _first_step(run, split) if origin is run else getattr(origin, "last_step", -1)
        if origin is None or (origin is run and step == run.last_step) or not readable(origin, split, step):
            continue
        first, last = shared_prompts([origin.rollouts(split, step), run.rollouts(split)])
        if first.prompt_ids:
            found[seed] = (first, last)
    return found


def changes(study: Study) -> list[Change]:
    """Of every method that has a start, on every split."""
    methods = [method for method in study.methods if not is_start(method)]
    cells = [(m, s, pairs(study, m, s)) for s in study.splits for m in methods]
    return [_change(method, split, found) for method, split, found in cells if found]


def points(study: Study) -> list[dict[str, Any]]:
    """A record a prompt, method and split, of the first seed that has both; of many prompts every n-th."""
    names = labels(study.methods)
    methods = [method for method in study.methods if not is_start(method)]
    cells = [(m, s, pairs(study, m, s)) for s in study.splits for m in methods]
    cells = [(m, s, found) for m, s, found in cells if found]
    most = max(1, MAX_POINTS // max(1, len(cells)))
    rows = []
    texts: dict[tuple[int, str], dict[str, str]] = {}
    for method, split, found in cells:
        seed = next(iter(found))
        first, last = found[seed]
        if (seed, split) not in texts:
            texts[seed, split] = _prompts(study.seeds[seed][method], split)
        for i in range(0, len(first.prompt_ids), -(-len(first.prompt_ids) // most)):
            rows.append((method, split, seed, i, first, last))
    return _records(rows, names, texts)


def lost_strategies(first: EvaluationRollouts, last: EvaluationRollouts) -> list[set[str]]:
    """Of each prompt the names of strategies that some rollout of ``first`` got right and none of ``last``.

    Empty where strategies are too many to be listed.
    """
    if not (first.listed and last.listed):
        return [set() for _ in first.prompt_ids]
    had, has = _found(first), _found(last)
    return [a - b for a, b in zip(had, has, strict=True)]


def _change(method: str, split: str, found: dict[int, Pair]) -> Change:
    k = draws([r for pair in found.values() for r in pair])
    quantities = {"pass_1": pass_at(1), "pass_k": pass_at(k), "distinct": distinct_correct_at(k)}
    estimates = intervals(
        [{name: of(last) - of(first) for name, of in quantities.items()} for first, last in found.values()]
    )
    lost = {seed: lost_strategies(first, last) for seed, (first, last) in found.items()}
    gained = {seed: lost_strategies(last, first) for seed, (first, last) in found.items()}
    listed = all(first.listed and last.listed and first.strategies for first, last in found.values())
    counts: dict[str, int] = {}
    for name in itertools.chain.from_iterable(itertools.chain.from_iterable(lost.values())):
        counts[name] = counts.get(name, 0) + 1
    return Change(
        method=method,
        split=split,
        seeds=tuple(found),
        k=k,
        num_prompts=sum(len(first.prompt_ids) for first, _ in found.values()),
        **estimates,
        lost=_share(lost) if listed else None,
        gained=_share(gained) if listed else None,
        most_lost=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
    )


def _share(sets: dict[int, list[set[str]]]) -> float:
    return float(np.mean([np.mean([bool(s) for s in by_prompt]) for by_prompt in sets.values()]))


def _first_step(run: Run, split: str) -> int:
    return min(run.steps(split), default=run.last_step)


def _found(r: EvaluationRollouts) -> list[set[str]]:
    counts_BxS = np.asarray(strategy_counts(r.strategy_BxN, max(len(r.strategies), 1), r.correct_BxN))
    return [{r.strategies[s] for s in np.flatnonzero(row) if s < len(r.strategies)} for row in counts_BxS]


def _prompts(run: Run, split: str) -> dict[str, str]:
    try:
        records = run.examples(split, 1 << 30)
    except ValueError:  # a run that is still being written
        return {}
    return {str(r.get("prompt_id")): str(r.get("prompt", ""))[:MAX_PROMPT] for r in records}


def _records(
    rows: list[tuple[str, str, int, int, EvaluationRollouts, EvaluationRollouts]],
    names: dict[str, str],
    texts: dict[tuple[int, str], dict[str, str]],
) -> list[dict[str, Any]]:
    records = []
    for (method, split, seed), group in itertools.groupby(rows, key=lambda row: row[:3]):
        cell = list(group)
        first, last = cell[0][4:]
        k = draws([first, last])
        passes = [pass_at(1)(r) for r in (first, last)]
        distinct = [distinct_correct_at(k)(r) for r in (first, last)]
        lost, gained = lost_strategies(first, last), lost_strategies(last, first)
        for _, _, _, i, _, _ in cell:
            records.append(
                {
                    "method": names[method],
                    "split": split_name(split),
                    "prompt": printable(first.prompt_ids[i]),
                    "text": printable(texts[seed, split].get(first.prompt_ids[i], "")),
                    "k": k,
                    "pass_start": float(passes[0][i]),
                    "pass_end": float(passes[1][i]),
                    "distinct_start": _defined(distinct[0][i]),
                    "distinct_end": _defined(distinct[1][i]),
                    "lost": printable(", ".join(sorted(lost[i])))[:MAX_PROMPT] or "none",
                    "gained": printable(", ".join(sorted(gained[i])))[:MAX_PROMPT] or "none",
                }
            )
    return records


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
