"""Evaluates a policy as the loop does, and writes what it found beside the run, not into it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdd.job import Job
from sdd.progress import progress
from sdd.sample import policy
from sdd.types import Params
from sdd.validation import Size, measure_split
from sdd.writers import write_json_atomic, write_lines_atomic


def evaluate(
    job: Job,
    params: Params,
    splits: Sequence[str],
    *,
    num_prompts: int | None,
    num_samples: int | None,
    step: int,
    out: Path | None,
) -> dict[str, Any]:
    """Measures each split.

    Args:
      job, params, step: see `sdd.sample.policy.opened`.
      splits: "train" or evaluation splits.
      num_prompts, num_samples: None: those of the run's final evaluation.
      out: a folder for evaluation.json and rollouts/SPLIT.jsonl; None: nothing is written.

    Returns:
      {"source", "step", "splits": {split: {"num_prompts", "num_samples", "metrics"}}}; a metric is
      {"value", "low", "high"} with a 95 % interval over prompts.

    Raises:
      ConfigError: no such split, or it has fewer prompts.
    """
    count = num_prompts or job.config.eval.final_num_prompts
    chosen = {split: policy.examples(job, split, count) for split in splits}  # a slip is said first
    found: dict[str, Any] = {"source": str(job.workdir), "step": step, "splits": {}}
    with progress(
        len(chosen), enabled=job.config.writers.progress, console=job.console, unit="split"
    ) as show:
        for number, (split, examples) in enumerate(chosen.items(), 1):
            size = Size(len(examples), num_samples or job.config.eval.final_num_samples)
            result = measure_split(job, params, examples, split, size, step)
            named = {name: estimate._asdict() for name, estimate in result.metrics.items()}
            found["splits"][split] = {**size._asdict(), "metrics": named}
            if out is not None:
                write_lines_atomic(out / "rollouts" / f"{split}.jsonl", result.records)
            show(number, split)
    if out is not None:
        write_json_atomic(out / "evaluation.json", found)
    return found
