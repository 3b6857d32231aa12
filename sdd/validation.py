"""When a run evaluates itself, on what, and what it writes down then; `sdd.evaluate` does the measuring.

An evaluation is finished split by split: rollouts first, then the split's line in
evaluations.jsonl. What has its line is not done again, so a run that was stopped in
the middle of an evaluation ends in the same files as one that was not.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from sdd import health, runfolder
from sdd import mesh as mesh_lib
from sdd.config import RunConfig
from sdd.evaluate import Evaluation, evaluate, sample_prompts, teacher_health
from sdd.job import Job, announce
from sdd.metrics import Estimate
from sdd.rng import stream_key, stream_rng
from sdd.tasks.base import Example
from sdd.types import Params, Rollouts, TrainState
from sdd.writers import write_lines_atomic


class Size(NamedTuple):
    """How much an evaluation samples: prompts of each split, and rollouts a prompt."""

    num_prompts: int
    num_samples: int


class Interrupted(Exception):
    """The run was asked to stop while a split was sampled; nothing of that split is written."""


def due(config: RunConfig, step: int) -> bool:
    """At the end, and every ``config.eval.every`` steps, the start included."""
    every = config.eval.every
    return step == config.train.num_steps or (every > 0 and step % every == 0)


def size_at(config: RunConfig, step: int) -> Size:
    """The last evaluation has a size of its own."""
    if step == config.train.num_steps:
        return Size(config.eval.final_num_prompts, config.eval.final_num_samples)
    return Size(config.eval.num_prompts, config.eval.num_samples)


def evaluate_if_due(job: Job, state: TrainState, step: int) -> bool:
    """Evaluates the splits that are not evaluated yet at this step, and names what goes wrong.

    Returns:
      False where the run was asked to stop before every split was done.
    """
    if not due(job.config, step):
        return True
    finished = finished_splits(job, step)
    for split in job.config.eval.splits:
        if split in finished:
            continue
        try:
            evaluate_split(job, state, split, step)
        except Interrupted:
            return False
    job.writers.flush()
    announce_findings(job, step)
    return True


def finished_splits(job: Job, step: int) -> set[str]:
    """Splits with a line in evaluations.jsonl at this step; the first process, which writes it, knows."""
    lines = runfolder.read_lines(job.workdir / "evaluations.jsonl") if jax.process_index() == 0 else []
    found = {line["split"] for line in lines if line["step"] == step}
    splits = job.config.eval.splits
    if jax.process_count() > 1:
        known = multihost_utils.broadcast_one_to_all(np.array([split in found for split in splits]))
        found = {split for split, is_there in zip(splits, known, strict=True) if is_there}
    return found


def evaluate_split(job: Job, state: TrainState, split: str, step: int) -> None:
    """Samples, measures and writes one split; with the first goes the health of the teacher.

    Raises:
      Interrupted: the run was asked to stop.
    """
    size = size_at(job.config, step)
    source = job.parts.task.source(split)
    examples = [source[i] for i in range(size.num_prompts)]
    result = measure_split(job, state.params, examples, split, size, step)
    metrics = dict(result.metrics)
    if split == job.config.eval.splits[0] and job.parts.step.tutor is not None:
        metrics |= health_of_teacher(job, state, examples, result, size, step)
    if jax.process_index() == 0:
        write_lines_atomic(runfolder.rollouts_path(job.workdir, step, split), result.records)
    job.writers.log_evaluation(step, split, *size, metrics)


def measure_split(
    job: Job, params: Params, examples: Sequence[Example], split: str, size: Size, step: int
) -> Evaluation:
    """Samples, grades and measures examples of a split, by the settings of the run; writes nothing.

    Raises:
      Interrupted: the run was asked to stop.
    """
    task, config = job.parts.task, job.config
    key = stream_key(config.seed, f"eval {split}", step)
    information = job.parts.information
    return evaluate(
        task,
        examples,
        split,
        lambda contexts: sample(job, params, contexts, task.context_length, size, key),
        num_samples=size.num_samples,
        ks=tuple(k for k in config.eval.ks if k <= size.num_samples),
        resamples=config.eval.bootstrap,
        extra=config.eval.metrics,
        embedders=job.parts.embedders,
        information=information and functools.partial(information, params),
        likelihood_samples=config.eval.likelihood_samples,
    )


def health_of_teacher(
    job: Job, state: TrainState, examples: Sequence[Example], result: Evaluation, size: Size, step: int
) -> dict[str, Estimate]:
    """The teacher's answers with a demonstration, on prompts of the first split; a few samples each."""
    task, seed = job.parts.task, job.config.seed
    assert job.parts.step.tutor is not None
    tutor = job.parts.step.tutor(state.teacher, state.params)
    few = size._replace(num_samples=min(4, size.num_samples))
    key = stream_key(seed, "eval teacher", step)
    return teacher_health(
        task,
        examples,
        result,
        lambda contexts: sample(job, tutor, contexts, task.demonstration_context_length, few, key),
        rng=stream_rng(seed, "eval teacher", step),
        resamples=job.config.eval.bootstrap,
    )


def sample(
    job: Job, params: Params, contexts: Sequence[Any], context_length: int, size: Size, key: jax.Array
) -> Iterator[tuple[range, Rollouts]]:
    """Samples under the evaluation's filters, in calls of at most ``config.eval.rows_per_call`` rows.

    The shape of a call depends on ``size``, not on how many contexts there are this
    time, so that it compiles once.

    Raises:
      Interrupted: the run was asked to stop.
    """
    mesh, params = job.parts.sampling_mesh, job.parts.for_sampling(params)
    multiple = mesh_lib.row_multiple(mesh)
    wanted = min(max(job.config.eval.rows_per_call // size.num_samples, 1), size.num_prompts)
    calls = sample_prompts(
        job.parts.task,
        contexts,
        job.parts.eval_sampler(size.num_samples),
        params,
        key,
        mesh,
        context_length=context_length,
        prompts_per_call=-(-wanted // multiple) * multiple,
        num_samples=size.num_samples,
    )
    while not job.stop_asked():
        try:
            yield next(calls)
        except StopIteration:
            return
    raise Interrupted


def announce_findings(job: Job, step: int) -> None:
    """Says what `sdd.health` finds at this step in the history of the first split, once."""
    lines = runfolder.read_lines(job.workdir / "evaluations.jsonl")
    history = [line for line in lines if line["split"] == job.config.eval.splits[0]]
    events = runfolder.read_lines(job.workdir / "events.jsonl")
    said = {(line["step"], line["event"]) for line in events}
    for finding in health.diagnose(history):
        if finding.step == step and (step, finding.event) not in said:
            announce(job, step, finding.event, finding.message)


def summary(job: Job, final: dict[str, dict[str, float]]) -> str:
    """One line a split of the last evaluation, and where the rest is."""
    names = ["pass@1", f"pass@{job.config.eval.final_num_samples}", "top_strategy_share", "token_entropy"]
    lines = []
    for split, metrics in final.items():
        known = {name: metrics[name] for name in names if metrics.get(name) is not None}
        lines.append(f"{split}: " + "  ".join(f"{name} {value:.3f}" for name, value in known.items()))
    return "\n".join([*lines, str(job.workdir)])


def final_metrics(job: Job) -> dict[str, dict[str, float]]:
    """Split -> metric -> value of the last evaluation."""
    return {
        line["split"]: {name: m["value"] for name, m in line["metrics"].items()}
        for line in runfolder.read_lines(job.workdir / "evaluations.jsonl")
        if line["step"] == job.config.train.num_steps
    }
