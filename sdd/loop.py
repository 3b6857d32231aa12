"""The only training loop: sample, grade, choose, update, evaluate, save; it knows no method by name.

A run is a pure function of its config: every random choice derives from (seed,
stream, step), so a run that was killed and started again ends in the same bits.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
from rich.markup import escape

from sdd import checkpoint, health, runfolder
from sdd import mesh as mesh_lib
from sdd.build import Parts, make_parts, parts_summary
from sdd.config import RunConfig
from sdd.data import batches, pad_right
from sdd.evaluate import Evaluation, evaluate, grade, sample_prompts, teacher_health
from sdd.rng import stream_key, stream_rng
from sdd.steps.base import Graded, LossBatch, init_state
from sdd.tasks.base import TRAIN, Example
from sdd.teacher.context import pad_contexts
from sdd.types import Grades, Rollouts, TrainState
from sdd.writers import Writers, open_writers, progress, write_json_atomic, write_lines_atomic


class Stopped(Exception):
    """The run was asked to stop and has saved; the same command goes on."""


class NonFiniteError(RuntimeError):
    """Too many updates in a row were skipped because of non-finite numbers."""


class Pending(NamedTuple):
    """A step whose numbers are still on the device; they are read one step late."""

    step: int
    device_metrics: dict[str, jax.Array]
    host_metrics: dict[str, float]
    timings: dict[str, float]
    batch: LossBatch


class Run(NamedTuple):
    """What stays the same through a run."""

    config: RunConfig
    workdir: Path
    parts: Parts
    writers: Writers
    console: rich.console.Console


def run(
    config: RunConfig,
    workdir: str | Path,
    console: rich.console.Console | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Trains by a config in a run folder; goes on where an earlier start ended.

    Args:
      config: the resolved config.
      workdir: the run folder.
      console: where to say what happens.
      data_dir: where the task keeps its data; the run folder's ``data`` when None.

    Returns:
      The final evaluation: split -> metric -> value.

    Raises:
      Stopped: after SIGTERM or Ctrl-C, when everything is saved.
      NonFiniteError: see ``config.train.max_skipped_in_a_row``.
      ValueError: the folder belongs to another config, or cannot be used.
    """
    console = console or rich.console.Console()
    workdir = Path(workdir).absolute()
    with runfolder.locked(workdir):
        runfolder.claim(workdir, config)
        parts = make_parts(config, Path(data_dir) if data_dir else workdir / "data")
        with jax.set_mesh(parts.mesh), stop_on_signal(console) as stop_asked:
            return _train(config, workdir, parts, console, stop_asked)


def _train(config, workdir, parts: Parts, console, stop_asked) -> dict[str, Any]:
    manager = checkpoint.open_manager(workdir, config.train.keep_checkpoints)
    data = batches(
        parts.task.source(TRAIN),
        batch_size=config.train.prompts_per_step,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    state = first_state(config, parts)
    restored = checkpoint.restore_newest(manager, state)
    if restored:
        state = restored.state
        data.set_state(restored.meta["data"])
    start = int(state.step)
    writers = open_writers(
        workdir,
        tensorboard=config.writers.tensorboard,
        resume_step=start if restored else -1,
        enabled=jax.process_index() == 0,
    )
    job = Run(config, workdir, parts, writers, console)
    say(job, parts_summary(parts, state))
    for step, why in restored.damaged if restored else ():
        announce(job, start, "damaged_checkpoint", f"checkpoint {step} is damaged ({why}); using step {start}")
    if restored and start < config.train.num_steps:
        say(job, f"resuming from step {start}")
    if not restored:
        evaluate_if_due(job, state, 0)
    pending = None
    bar = progress(config.train.num_steps, start, config.writers.progress, console)
    with contextlib.closing(writers), manager, bar as show:
        for step in range(start + 1, config.train.num_steps + 1):
            if stop_asked():
                pending = log_pending(job, pending)
                save(job, manager, state, data)
                checkpoint.wait(manager)
                raise Stopped(f"stopped and saved at step {step - 1}; the same command goes on from there")
            state, newest = train_one(job, state, next(data), step)
            log_pending(job, pending)
            pending = newest
            show(step, progress_text(newest))
            due = config.train.checkpoint_every and step % config.train.checkpoint_every == 0
            if evaluation_due(config, step) or due or step == config.train.num_steps:
                pending = log_pending(job, pending)
            evaluate_if_due(job, state, step)
            if due or step == config.train.num_steps:
                save(job, manager, state, data)
        checkpoint.wait(manager)
    return final_metrics(workdir, config)


def first_state(config: RunConfig, parts: Parts) -> TrainState:
    """The state before step 1: drawn from the seed, or another run's parameters."""
    params = parts.model.init(stream_key(config.seed, "init", 0))
    if config.train.init_from:
        params = checkpoint.restore_params(config.train.init_from, params)
    return init_state(parts.step, parts.optimizer, params)


def train_one(job: Run, state: TrainState, examples: list[Example], step: int) -> tuple[TrainState, Pending]:
    """One step: rollouts, verdicts, targets, update. Returns the state and its numbers, still on the device."""
    began = time.perf_counter()
    parts, config = job.parts, job.config
    if parts.step.source == "policy":
        device_rollouts, graded = on_policy(job, state, examples, step)
    else:
        device_rollouts, graded = supervised(job, examples, step)
    sampled = time.perf_counter()
    rng = stream_rng(config.seed, "choose", step, jax.process_index())
    chosen = parts.step.choose(parts.task, graded, rng)
    targets, contexts = mesh_lib.put_rows(parts.mesh, (chosen.targets, chosen.contexts))
    batch = LossBatch(device_rollouts, targets, contexts)
    state, metrics = parts.train_step(state, batch)
    timings = {
        "seconds": time.perf_counter() - began,
        "sample_seconds": sampled - began,
        "update_seconds": time.perf_counter() - sampled,
    }
    return state, Pending(step, metrics, chosen.metrics, timings, batch)


def on_policy(job: Run, state: TrainState, examples: list[Example], step: int) -> tuple[Rollouts, Graded]:
    """Samples a group for every example and grades it."""
    task, config = job.parts.task, job.config
    tokens_BxP, length_B = pad_contexts(task, [task.prompt(e) for e in examples], task.context_length)
    num_rows = len(examples) * config.train.group_size
    row_ids_N = jax.process_index() * num_rows + np.arange(num_rows, dtype=np.int32)
    inputs = mesh_lib.put_rows(job.parts.mesh, (tokens_BxP, length_B, row_ids_N))
    rollouts = job.parts.sampler(state.params, *inputs, stream_key(config.seed, "sample", step))
    host = mesh_lib.get_rows(rollouts)
    return rollouts, Graded(examples, host, grade(task, examples, host), config.train.group_size)


def supervised(job: Run, examples: list[Example], step: int) -> tuple[Rollouts, Graded]:
    """The rows that the task itself writes: contexts, each with a group of right answers."""
    task = job.parts.task
    rng = stream_rng(job.config.seed, "supervised", step, jax.process_index())
    group_size = job.parts.step.rows_per_prompt(job.config.train.group_size)
    groups = [group for e in examples for group in task.supervised(e, rng, group_size)]
    context_BxP, length_B = pad_contexts(task, [c for c, _ in groups], task.demonstration_context_length)
    answers = [answer for _, group in groups for answer in group]
    response_NxT, mask_NxT = pad_right(answers, task.response_length, task.tokenizer.pad_id)
    zero_NxT = np.zeros(response_NxT.shape, np.float32)
    host = Rollouts(context_BxP, length_B, response_NxT, mask_NxT, zero_NxT, zero_NxT, zero_NxT)
    right = np.ones(len(answers), bool)
    grades = Grades(right, right.astype(np.float32), np.full(len(right), -1, np.int32), mask_NxT.sum(axis=1))
    return mesh_lib.put_rows(job.parts.mesh, host), Graded(examples, host, grades, group_size)


def log_pending(job: Run, pending: Pending | None) -> None:
    """Reads a step's numbers from the device and writes them; stops a run that only skips."""
    if pending is None:
        return
    metrics = {name: float(x) for name, x in jax.device_get(pending.device_metrics).items()}
    skipped = int(metrics.pop("skipped_in_a_row"))
    updates = job.config.train.updates_per_batch
    rate = float(job.parts.schedule((pending.step - 1) * updates))
    if pending.step % job.config.train.log_every == 0:
        job.writers.log_metrics(pending.step, metrics | pending.host_metrics | {"learning_rate": rate})
        job.writers.log_timings(pending.step, pending.timings)
    if skipped == 1:
        announce(job, pending.step, "nonfinite", f"step {pending.step}: loss or gradient is not finite; skipped")
    if skipped >= job.config.train.max_skipped_in_a_row:
        path = runfolder.write_batch(job.workdir, pending.step, pending.batch)
        raise NonFiniteError(
            f"{skipped} updates in a row were not finite, last at step {pending.step} (loss {metrics['loss']}); "
            f"its batch is in {path}; the parameters are those of the last good update"
        )


def save(job: Run, manager, state: TrainState, data: Any) -> None:
    """Starts a checkpoint, after the logs up to its step are on the disk."""
    job.writers.flush(fsync=True)
    checkpoint.save(manager, state, {"data": data.get_state()})


def evaluation_due(config: RunConfig, step: int) -> bool:
    """At the end, and every ``config.eval.every`` steps, the start included."""
    every = config.eval.every
    return step == config.train.num_steps or (every > 0 and step % every == 0)


def evaluate_if_due(job: Run, state: TrainState, step: int) -> None:
    """Evaluates every split, writes lines and rollouts, and names what goes wrong."""
    config = job.config
    if not evaluation_due(config, step):
        return
    final = step == config.train.num_steps
    num_prompts = config.eval.final_num_prompts if final else config.eval.num_prompts
    num_samples = config.eval.final_num_samples if final else config.eval.num_samples
    for split in config.eval.splits:
        source = job.parts.task.source(split)
        examples = [source[i] for i in range(min(num_prompts, len(source)))]
        result = evaluate_split(job, state, split, examples, num_samples, step)
        metrics = dict(result.metrics)
        if split == config.eval.splits[0] and job.parts.step.tutor is not None:
            metrics |= health_of_teacher(job, state, examples, result, num_samples, step)
        job.writers.log_evaluation(step, split, len(examples), num_samples, metrics)
        write_lines_atomic(runfolder.rollouts_path(job.workdir, step, split), result.records)
    job.writers.flush()
    history = runfolder.read_lines(job.workdir / "evaluations.jsonl")
    history = [line for line in history if line["split"] == config.eval.splits[0]]
    for finding in health.diagnose(history):
        if finding.step == step:
            announce(job, step, finding.event, finding.message)


def evaluate_split(job: Run, state, split: str, examples, num_samples: int, step: int) -> Evaluation:
    """Samples and measures one split."""
    key = stream_key(job.config.seed, f"eval {split}", step)
    return evaluate(
        job.parts.task,
        examples,
        split,
        lambda contexts: sample_for_evaluation(
            job, state.params, contexts, job.parts.task.context_length, num_samples, key, len(examples)
        ),
        num_samples=num_samples,
        ks=tuple(k for k in job.config.eval.ks if k <= num_samples),
        resamples=job.config.eval.bootstrap,
    )


def health_of_teacher(job: Run, state, examples, result: Evaluation, num_samples: int, step: int) -> dict:
    """The teacher's answers with a demonstration, on prompts of the first split; a few samples each."""
    key = stream_key(job.config.seed, "eval teacher", step)
    tutor = job.parts.step.tutor(state.teacher, state.params)
    length = job.parts.task.demonstration_context_length
    return teacher_health(
        job.parts.task,
        examples,
        result,
        lambda contexts: sample_for_evaluation(
            job, tutor, contexts, length, min(4, num_samples), key, len(examples)
        ),
        rng=stream_rng(job.config.seed, "eval teacher", step),
        resamples=job.config.eval.bootstrap,
    )


def sample_for_evaluation(
    job: Run, params, contexts, context_length: int, num_samples: int, key, num_prompts: int
) -> Iterator[tuple[slice, Rollouts]]:
    """Samples under the evaluation's filters, in calls of at most ``config.eval.rows_per_call`` rows.

    The shape of a call depends on ``num_prompts``, not on how many contexts there are
    this time, so that it compiles once.
    """
    multiple = mesh_lib.row_multiple(job.parts.mesh)
    wanted = min(max(job.config.eval.rows_per_call // num_samples, 1), num_prompts)
    return sample_prompts(
        job.parts.task,
        contexts,
        job.parts.eval_sampler(num_samples),
        params,
        key,
        job.parts.mesh,
        context_length=context_length,
        prompts_per_call=-(-wanted // multiple) * multiple,
        num_samples=num_samples,
    )


def final_metrics(workdir: Path, config: RunConfig) -> dict[str, dict[str, float]]:
    """Split -> metric -> value of the last evaluation."""
    return {
        line["split"]: {name: m["value"] for name, m in line["metrics"].items()}
        for line in runfolder.read_lines(workdir / "evaluations.jsonl")
        if line["step"] == config.train.num_steps
    }


def progress_text(pending: Pending) -> str:
    """A short note beside the progress bar; only what is on the host already."""
    shown = {"pass_at_1": "pass@1", "distinct_correct_in_group": "distinct"}
    return "  ".join(
        f"{label} {pending.host_metrics[name]:.3f}"
        for name, label in shown.items()
        if name in pending.host_metrics
    )


def say(job: Run, text: str) -> None:
    """A line on the terminal, from the first process."""
    if jax.process_index() == 0:
        job.console.print(escape(text), highlight=False)


def announce(job: Run, step: int, event: str, message: str) -> None:
    """Something a person should know: on the terminal and in events.jsonl."""
    job.writers.log_event(step, event, message)
    if jax.process_index() == 0:
        job.console.print(f"[bold yellow]{escape(event)}[/] {escape(message)}", highlight=False)


@contextlib.contextmanager
def stop_on_signal(console: rich.console.Console):
    """Yields ``asked() -> bool``: True after SIGTERM or Ctrl-C. A second Ctrl-C stops at once."""
    asked: list[int] = []

    def handle(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        console.print(f"{signal.Signals(number).name}: saving after this step", highlight=False)

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
