"""Which rollouts of a study go into the page: those that tell most, until it is full."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sdd import details as details_lib
from sdd.claims.runs import EvaluationRollouts, Run, Study
from sdd.report.browser.cells import Found, Page, found
from sdd.tasks.base import TRAIN

MOST_PROMPTS = 48  # of a split and seed; their records are held in memory
IN_TURN = 8  # prompts of each split that a seed gets before the next seed has its turn
MOST_STEPS = 5
EVERY = 10**9
LIMITS = (
    EVERY,
    256,
    64,
    16,
    4,
    1,
)  # rollouts a prompt: the first that leaves room for a prompt of each split


class Line(NamedTuple):
    """A line of a rollouts file that goes into the page.

    Attributes:
      method, seed, step, split: where it is from.
      found: what it says.
      batch: all lines of its file and its number among them, for a training batch.
    """

    method: str
    seed: int
    step: int
    split: str
    found: Found
    batch: tuple[Sequence[Found], int] | None = None


class Chosen(NamedTuple):
    """Attributes:
    data: what the page's script reads: tables of texts, prompts, and cells.
    prompts: (seed, split) -> (prompts in the page, prompts there are).
    steps: steps in the page.
    steps_left_out: steps with rollouts that are not.
    limit: most rollouts of a prompt.
    unread: files that could not be read.
    """

    data: dict[str, Any]
    prompts: dict[tuple[int, str], tuple[int, int]]
    steps: list[int]
    steps_left_out: list[int]
    limit: int
    unread: list[str]


def choose(study: Study, room: int) -> Chosen:
    """Embeds what fits into ``room`` bytes of JSON.

    A prompt is embedded with all methods and steps of its seed, so that they can be compared. Prompts go in
    by how many strategies the methods lost on them; training batches go in beside, a prompt of each in turn.
    """
    unread: dict[str, None] = {}
    lines = reader(unread)
    ranked = {
        seed: {split: names for split in study.splits if (names := rank(runs, split, unread))}
        for seed, runs in study.seeds.items()
    }
    for limit in LIMITS:
        page = Page(study.methods, limit, room)
        counts: dict[tuple[int, str], int] = {}
        for split, block in blocks(study, ranked, lines):
            if not page.add(block):
                break
            key = (block[0].seed, split)
            counts[key] = counts.get(key, 0) + 1
        else:
            break
        first = next(iter(ranked))
        if all((first, split) in counts for split in ranked[first]):
            break
    shown = {
        (seed, split): (counts.get((seed, split), 0), len(names))
        for seed, by_split in ranked.items()
        for split, names in by_split.items()
    }
    every = {e["step"] for by in study.seeds.values() for run in by.values() for e in run.evaluations}
    kept = {cell["t"] for cell in page.cells}
    return Chosen(page.data(), shown, sorted(kept), sorted(every - kept), page.limit, list(unread))


Reader = Callable[[Run, str, int, tuple[str, ...]], list[Found]]


def reader(unread: dict[str, None]) -> Reader:
    """``(run, split, step, prompts) -> lines`` of these prompts, all where none is named; each file once."""

    def lines(run: Run, split: str, step: int, wanted: tuple[str, ...]) -> list[Found]:
        path = run.rollouts_path(split, step)
        kept: list[Found] = []
        try:
            beside = path.with_name(f"{split}.details.npz")
            details = details_lib.read(beside) if beside.exists() else None
            at = 0
            for record in run.examples(split, EVERY, step):
                if not wanted or str(record["prompt_id"]) in wanted:
                    kept.append(found(record, details, at))
                at += len(record["completion"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            unread.setdefault(str(error) if str(path.parent) in str(error) else f"{path}: {error}")
        return kept

    cache: dict[Any, list[Found]] = {}

    def cached(run: Run, split: str, step: int, wanted: tuple[str, ...]) -> list[Found]:
        key = (run.path, split, step)
        if key not in cache:
            cache[key] = lines(run, split, step, wanted)
        return cache[key]

    return cached


def chosen_steps(steps: tuple[int, ...]) -> list[int]:
    """The first, the last, and some between them at even distances."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]


def rank(runs: Mapping[str, Run], split: str, unread: dict[str, None]) -> list[str]:
    """Prompts: first those that most runs have at their first and last step, then by strategies lost."""
    lost: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for run in runs.values():
        ends = []
        steps = run.steps(split)
        for step in dict.fromkeys((*steps[:1], *steps[-1:])):
            try:
                ends.append(run.rollouts(split, step))
            except (ValueError, TypeError) as error:
                unread.setdefault(str(error))
                continue
            seen.update(ends[-1].prompt_ids)
        if len(ends) > 1:
            before, after = right_strategies(ends[0]), right_strategies(ends[-1])
            lost.update({name: len(before[name] - after[name]) for name in before.keys() & after.keys()})
    return sorted(seen, key=lambda name: (-seen[name], -lost[name]))


def right_strategies(rollouts: EvaluationRollouts) -> dict[str, set[str]]:
    """Prompt -> names of the strategies that some right rollout has."""
    rows = zip(rollouts.prompt_ids, rollouts.strategy_BxN, rollouts.correct_BxN)
    return {name: {rollouts.strategies[s] for s in row[right] if s >= 0} for name, row, right in rows}


def blocks(
    study: Study, ranked: Mapping[int, Mapping[str, list[str]]], lines: Reader
) -> Iterator[tuple[str, list[Line]]]:
    """What goes in together or not at all: ``(split, lines)``, a prompt with all runs and steps."""
    for first in range(0, MOST_PROMPTS, IN_TURN):
        for seed, runs in study.seeds.items():
            for turn in range(first, first + IN_TURN):
                for split, names in ranked[seed].items():
                    if turn < len(names) and (shown := evaluated(seed, runs, split, names, turn, lines)):
                        yield split, shown
                if taught := trained(seed, runs, turn, lines):
                    yield TRAIN, taught


def evaluated(
    seed: int, runs: Mapping[str, Run], split: str, names: list[str], turn: int, lines: Reader
) -> list[Line]:
    """A prompt at all chosen steps of all runs."""
    wanted, found_lines = tuple(names[:MOST_PROMPTS]), []
    for method, run in runs.items():
        for step in chosen_steps(run.steps(split)):
            each = lines(run, split, step, wanted)
            here = [one for one in each if str(one.record["prompt_id"]) == names[turn]]
            found_lines += [Line(method, seed, step, split, one) for one in here[:1]]
    return found_lines


def trained(seed: int, runs: Mapping[str, Run], turn: int, lines: Reader) -> list[Line]:
    """A prompt of each training batch, first those with wrong rollouts that have a teacher."""
    found_lines = []
    for method, run in runs.items():
        steps = tuple(sorted({e["step"] for e in run.evaluations}))
        for step in (s for s in chosen_steps(steps) if run.rollouts_path(TRAIN, s).exists()):
            batch = lines(run, TRAIN, step, ())
            order = sorted(range(len(batch)), key=lambda i: taught(batch[i].record), reverse=True)
            found_lines += [
                Line(method, seed, step, TRAIN, batch[i], (batch, i)) for i in order[turn : turn + 1]
            ]
    return found_lines


def taught(record: Mapping[str, Any]) -> tuple[int, int]:
    """How many wrong rollouts of a line have a teacher, and how many at all."""
    by = [bool(rows) for rows in record.get("demonstrations", record.get("teacher_context", ()))]
    return sum(has and not right for has, right in zip(by, record["correct"])), sum(by)


def note(chosen: Chosen) -> str:
    """What is in the page, and what was left out."""
    if not chosen.data["cells"]:
        text = "No rollouts are on disk."
    else:
        by_split: dict[str, list[tuple[int, int]]] = {}
        for (_, split), counts in chosen.prompts.items():
            by_split.setdefault(split, []).append(counts)
        shown = ", ".join(
            f"{split} {_span(c for c, _ in pairs)} of {_span(c for _, c in pairs)}"
            for split, pairs in by_split.items()
        )
        text = (
            f"Prompts in this page, those first that all runs have and that lost most strategies: {shown}. "
            f"Steps: {', '.join(map(str, chosen.steps))}."
        )
        if chosen.steps_left_out:
            text += f" Left out: steps {', '.join(map(str, chosen.steps_left_out))}."
        if chosen.limit < LIMITS[0]:
            text += f" Of each prompt the first {chosen.limit} rollouts."
        text += " The run folders hold all."
    if chosen.unread:
        text += f" Not read: {'; '.join(chosen.unread[:3])}"
        text += f" and {len(chosen.unread) - 3} more." if len(chosen.unread) > 3 else "."
    return text[:1500]


def _span(values: Any) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
