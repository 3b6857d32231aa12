"""Rollouts of a policy, graded and written in the format that ``sdd measure`` and `sdd.steps.sdft` read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sdd.evaluate import grade, prompt_records
from sdd.job import Job
from sdd.progress import progress
from sdd.rng import stream_key
from sdd.tasks.base import Example
from sdd.types import Params
from sdd.validation import Size, sample
from sdd.writers import write_lines_atomic

Record = dict[str, Any]


class Written(NamedTuple):
    """Attributes:
    prompts: how many were sampled.
    solved: how many of them have a right rollout.
    pass_at_1: share of right rollouts.
    """

    prompts: int
    solved: int
    pass_at_1: float


def write(
    job: Job,
    params: Params,
    examples: Sequence[Example],
    out: Path,
    *,
    split: str,
    num_samples: int,
    seed: int,
    step: int,
    correct_only: bool = False,
) -> Written:
    """Writes a line a prompt; the file appears whole, when all is sampled.

    Args:
      job, params, examples, step: see `sdd.sample.policy`.
      out: the file.
      split: the examples' split, for the lines.
      num_samples: n, rollouts a prompt.
      seed: of the sampling alone.
      correct_only: leaves out wrong rollouts, and prompts without a right one.
    """
    found: list[list[bool]] = []

    def lines() -> Iterator[Record]:
        shown = job.config.writers.progress
        with progress(len(examples), enabled=shown, console=job.console, unit="prompt") as show:
            for record in records(job, params, examples, split, num_samples, seed, step):
                found.append(record["correct"])
                if not correct_only or any(record["correct"]):
                    yield only_correct(record) if correct_only else record
                show(len(found))

    write_lines_atomic(out, lines())
    rights = [sum(correct) for correct in found]
    return Written(len(found), sum(map(bool, rights)), sum(rights) / (len(found) * num_samples))


def records(
    job: Job, params: Params, examples: Sequence[Example], split: str, num_samples: int, seed: int, step: int
) -> Iterator[Record]:
    """Samples and grades; yields the records of `sdd.evaluate.prompt_records`, a call of the sampler each."""
    task = job.parts.task
    size = Size(len(examples), num_samples)
    key = stream_key(seed, f"sample {split}", step)
    contexts = [task.prompt(example) for example in examples]
    for where, rollouts in sample(job, params, contexts, task.context_length, size, key):
        own = [examples[i] for i in where]
        yield from prompt_records(task, own, split, rollouts, grade(task, own, rollouts), num_samples)


def only_correct(record: Record) -> Record:
    """A record without its wrong rollouts."""
    keep = record["correct"]
    return {
        name: [x for x, right in zip(value, keep, strict=True) if right] if isinstance(value, list) else value
        for name, value in record.items()
    }
