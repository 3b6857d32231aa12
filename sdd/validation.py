"""When a run evaluates itself, on what, and what it writes down then; `sdd.evaluate` does the measuring.

An evaluation is finished split by split: rollouts first, then the split's line in
evaluations.jsonl. What has its line is not done again, so a run that was stopped in
the middle of an evaluation ends in the same files as one that was not.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from sdd import health, runfolder
from sdd import mesh as mesh_lib
from sdd.config import RunConfig
from sdd.details import details_of, drawings_of, to_bytes
from sdd.evaluate import Evaluation, evaluate, prompt_records, sample_prompts, teacher_health
from sdd.job import Job, announce
from sdd.metrics import Estimate
from sdd.rng import stream_key, stream_rng
from sdd.steps.base import Chosen, Graded
from sdd.tasks.base import TRAIN, Example, Task
from sdd.types import Params, Rollouts, TrainState
from sdd.writers import to_line, write_bytes_atomic, write_lines_atomic


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


def evaluate_if_due(job: Job, state: TrainState, step: int, note: Callable[[str], object] = str) -> bool:
    """Evaluates the splits that are not evaluated yet at this step, and names what goes wrong.

    Args:
      job: what stays the same.
      state: what is evaluated.
      step: the step that it is of.
      note: is told how far the evaluation is, in a few words.

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
            evaluate_split(job, state, split, step, note)
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


def evaluate_split(
    job: Job, state: TrainState, split: str, step: int, note: Callable[[str], object] = str
) -> None:
    """Samples, measures and writes one split; with the first goes the health of the teacher.

    ``note`` is told how far that is.

    Raises:
      Interrupted: the run was asked to stop.
    """
    size = size_at(job.config, step)
    source = job.parts.task.source(split)
    examples = [source[i] for i in range(size.num_prompts)]
    result = measure_split(job, state.params, examples, split, size, step, note)
    metrics = dict(result.metrics)
    if split == job.config.eval.splits[0] and job.parts.step.tutor is not None:
        metrics |= health_of_teacher(job, state, examples, result, size, step)
    if jax.process_index() == 0:
        drawings = drawings_of(job.parts.task, examples, result.rollouts)
        write_rollouts(job, step, split, result.records, result.rollouts, drawings)
    job.writers.log_evaluation(step, split, *size, metrics)


def measure_split(
    job: Job,
    params: Params,
    examples: Sequence[Example],
    split: str,
    size: Size,
    step: int,
    note: Callable[[str], object] = str,
) -> Evaluation:
    """Samples, grades and measures examples of a split, by the settings of the run; writes nothing.

    ``note`` is told how far it is, in a few words.

    Raises:
      Interrupted: the run was asked to stop.
    """
    task, config = job.parts.task, job.config
    key = stream_key(config.seed, f"eval {split}", step)
    information = job.parts.information
    note(f"evaluating {split}")

    def sampled(contexts: Sequence[Any]) -> Iterator[tuple[range, Rollouts]]:
        for rows, rollouts in sample(job, params, contexts, task.context_length, size, key):
            note(f"evaluating {split}: {rows.stop} of {len(contexts)} prompts")
            yield rows, rollouts

    return evaluate(
        task,
        examples,
        split,
        sampled,
        num_samples=size.num_samples,
        ks=tuple(k for k in config.eval.ks if k <= size.num_samples),
        resamples=config.eval.bootstrap,
        extra=config.eval.metrics,
        embedders=job.parts.embedders,
        information=information and functools.partial(information, params),
        likelihood_samples=config.eval.likelihood_samples,
    )


def write_rollouts(
    job: Job, step: int, split: str, records: Sequence[dict[str, Any]], rollouts: Rollouts, drawings: Any
) -> None:
    """A rollouts file, and before it what lies beside it: who sees the file finds both."""
    details = details_of(job.parts.task.tokenizer, rollouts, drawings)
    write_bytes_atomic(runfolder.details_path(job.workdir, step, split), to_bytes(details))
    write_lines_atomic(runfolder.rollouts_path(job.workdir, step, split), records)


def record_batch(job: Job, step: int, graded: Graded, chosen: Chosen) -> None:
    """Keeps the training rollouts of a step that ends with an evaluation, with who taught them.

    ``train.jsonl`` has the fields of an evaluation's files, and a list a rollout in "demonstrations": rows
    of this batch that its teacher was shown (row r: rollout r % G of line r // G). Where a teacher reads
    what is no row of the batch, "teacher_contexts" has the texts and "teacher_context" their numbers.
    """
    if not due(job.config, step) or job.parts.step.source != "policy":
        return
    task, examples = job.parts.task, graded.examples
    records = prompt_records(task, examples, TRAIN, graded.rollouts, graded.grades, graded.group_size)
    for record, taught in zip(records, taught_by(task, graded, chosen), strict=True):
        record |= taught
    drawings, rollouts = drawings_of(task, examples, graded.rollouts), graded.rollouts
    if jax.process_count() > 1:
        records, rollouts, drawings = of_all_processes(job, records, rollouts, drawings)
    if jax.process_index() == 0:
        write_rollouts(job, step, TRAIN, records, rollouts, drawings)


def of_all_processes(job: Job, records: list[dict[str, Any]], rollouts: Rollouts, drawings: list[Any]):
    """What `write_rollouts` needs of the whole batch, from each process's part of it."""
    first, total = jax.process_index() * len(records), jax.process_count() * len(records)
    own = range(first, first + len(records))
    parts = [{"record": record, "drawings": drawings[b : b + 1]} for b, record in enumerate(records)]
    lines = gather_lines(job, own, total, parts)
    tokens = rollouts.response_NxT, rollouts.mask_NxT, rollouts.model_logp_NxT
    response_NxT, mask_NxT, logp_NxT = mesh_lib.gather(own, total, tokens)
    rollouts = rollouts._replace(response_NxT=response_NxT, mask_NxT=mask_NxT, model_logp_NxT=logp_NxT)
    return [line["record"] for line in lines], rollouts, [d for line in lines for d in line["drawings"]]


def taught_by(task: Task, graded: Graded, chosen: Chosen) -> list[dict[str, Any]]:
    """What a record a prompt says about the teacher; empty where there is none. See `record_batch`."""
    groups = [range(b * graded.group_size, (b + 1) * graded.group_size) for b in range(len(graded.examples))]
    if chosen.demonstrations is not None:
        first = jax.process_index() * len(graded.grades.correct_N)
        rows = [[first + int(i) for i in row if i >= 0] for row in chosen.demonstrations]
        return [{"demonstrations": [rows[r] for r in group]} for group in groups]
    if chosen.contexts is None:
        return [{} for _ in groups]
    tokens_NxKxD, length_NxK = chosen.contexts
    found = []
    for group in groups:
        texts: dict[str, int] = {}
        numbers = [
            [
                texts.setdefault(task.tokenizer.decode(tokens[len(tokens) - n :]), len(texts))
                for tokens, n in zip(tokens_NxKxD[r], length_NxK[r])
            ]
            for r in group
        ]
        found.append({"teacher_contexts": list(texts), "teacher_context": numbers})
    return found


def gather_lines(job: Job, own: range, total: int, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of all processes' items, in order, on every process."""
    lines = [to_line(record) for record in records]
    width = -(-job.most(max(map(len, lines))) // 4096) * 4096  # few shapes, few programs
    bytes_BxW = np.stack([np.frombuffer(line.ljust(width), np.uint8) for line in lines])
    return [json.loads(row.tobytes()) for row in mesh_lib.gather(own, total, bytes_BxW)]


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
