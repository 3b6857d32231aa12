"""The only training loop: sample, grade, choose, update, evaluate, save; it knows no method by name.

A run is a pure function of its config: every random choice derives from (seed,
stream, step), so a run that was killed and started again ends in the same bits.
"""

import contextlib
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
from etils import epath

from sdd import checkpoint, collect, initial, processes, runfolder, validation
from sdd import mesh as mesh_lib
from sdd.build import Parts, make_parts, parts_summary
from sdd.config import RunConfig
from sdd.data import batches
from sdd.evaluate import batch_metrics
from sdd.job import Job, announce, say
from sdd.losses.mean import Mean
from sdd.progress import busy
from sdd.signals import stop_on_signal
from sdd.steps.base import LossBatch
from sdd.tasks.base import TRAIN
from sdd.types import Rollouts, TrainState
from sdd.writers import open_writers, progress


class Stopped(Exception):
    """The run was asked to stop and has saved; the same command goes on."""


class NonFiniteError(RuntimeError):
    """Too many updates in a row were skipped because of non-finite numbers."""


class Pending(NamedTuple):
    """A step whose numbers are still on the device; they are read one step late.

    Attributes:
      step: the step.
      device_metrics: of the update.
      host_metrics: of the verdicts and the choice, of this process's own prompts.
      host_sums: their totals and weights over all processes, one after the other.
      timings: seconds.
      batch: what was learned from.
    """

    step: int
    device_metrics: dict[str, jax.Array]
    host_metrics: dict[str, Mean]
    host_sums: Any
    timings: dict[str, float]
    batch: LossBatch


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
      ConfigError: the folder belongs to another config or process or cannot be written, or the
        config does not fit the task, the mesh or the run it starts from.
    """
    console = console or rich.console.Console()
    workdir = runfolder.folder(workdir)
    with (
        runfolder.locked(workdir) as check_lock,
        runfolder.full_disk_in_one_line(workdir),
        stop_on_signal(str(workdir)) as stop_asked,
    ):
        runfolder.check_owner(workdir, config)
        shown = config.writers.progress and jax.process_index() == 0
        with (
            busy("preparing the data", console if shown else None),
            processes.first_alone(f"data of {workdir}"),
        ):
            parts = make_parts(config, Path(data_dir) if data_dir else runfolder.data_folder(workdir))
        runfolder.claim(workdir, config)
        with jax.set_mesh(parts.mesh):
            return start(config, workdir, parts, console, stop_asked, check_lock)


def start(
    config: RunConfig, workdir: epath.Path, parts: Parts, console, stop_asked, check_lock
) -> dict[str, Any]:
    """Takes up the newest checkpoint, or begins anew; trains to the end and returns the final evaluation."""
    data = batches(
        parts.task.source(TRAIN),
        batch_size=config.train.prompts_per_step,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoint.open_manager(workdir, config.train.keep_checkpoints))
        abstract = initial.abstract_state(parts)
        runfolder.check_room(workdir, abstract)
        restored = checkpoint.restore_newest(manager, abstract)
        if not restored or int(restored.state.step) < config.train.num_steps:
            parts.step.ready(parts.task, config)
        state = restored.state if restored else initial.make(config, parts, abstract)
        writers = open_writers(
            workdir,
            tensorboard=config.writers.tensorboard,
            resume_step=int(state.step) if restored else -1,
            enabled=jax.process_index() == 0,
        )
        stack.callback(writers.close)
        job = Job(
            config, workdir, parts, writers, console, stop_asked, processes.most(str(workdir)), check_lock
        )
        say(job, parts_summary(parts, state))
        say_facts(job)
        if restored:
            data.set_state(restored.meta["data"])
            say_resumed(job, restored)
        train(job, manager, state, data, collect.usable_ahead(job, restored) if restored else None)
        say_facts(job)
        final = validation.final_metrics(job)
        say(job, validation.summary(job, final))
        return final


def train(job: Job, manager, state: TrainState, data: Any, ahead: Rollouts | None) -> None:
    """The loop from the state's step to the last, with evaluations and checkpoints on the way.

    Args:
      job: what stays the same.
      manager: of the checkpoints.
      state: where to begin.
      data: batches of examples.
      ahead: rollouts of the first step, where a checkpoint held them; see ``config.train.async_steps``.

    Raises:
      Stopped: asked to stop; saved where there was something to save.
      NonFiniteError: too many updates in a row were skipped.
    """
    config, first = job.config, int(state.step)
    last = config.train.num_steps
    pending: Pending | None = None
    shown = config.writers.progress and jax.process_index() == 0
    with progress(last, first, shown, job.console) as show:
        # Before step 1; and after a stop in the middle of an evaluation, what is left of that.
        evaluated = validation.evaluate_if_due(job, state, first, functools.partial(show, first))
        if not evaluated or (job.stop_asked() and first < last):
            raise Stopped(f"stopped at step {first}; the same command goes on from there")
        for step in range(first + 1, last + 1):
            state, newest, ahead = train_one(job, state, data, ahead, step)
            log_pending(job, pending)
            pending = newest
            show(step, progress_text(newest))
            if validation.due(config, step):
                log_pending(job, pending)
                pending = None
            evaluated = validation.evaluate_if_due(job, state, step, functools.partial(show, step))
            stop = not evaluated or (step < last and job.stop_asked())
            if stop or step == last or checkpoint_due(config, step):
                log_pending(job, pending)
                pending = None
                save(job, manager, state, data, ahead)
            if stop:
                checkpoint.wait(manager)
                raise Stopped(f"stopped and saved at step {step}; the same command goes on from there")
    checkpoint.wait(manager)


def say_facts(job: Job) -> None:
    """What the task counts: what its data hold, what was left out, where its verifier failed."""
    if facts := job.parts.task.facts():
        say(job, "data: " + ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in facts.items()))


def say_resumed(job: Job, restored: checkpoint.Restored) -> None:
    """Where the run goes on, and which checkpoints it had to pass over."""
    step = int(restored.state.step)
    for bad, why in restored.damaged:
        announce(job, step, "damaged_checkpoint", f"checkpoint {bad} is damaged ({why}); using step {step}")
    if step < job.config.train.num_steps:
        say(job, f"resuming from step {step}")


def checkpoint_due(config: RunConfig, step: int) -> bool:
    """Every ``config.train.checkpoint_every`` steps; the last step is saved in any case."""
    return config.train.checkpoint_every > 0 and step % config.train.checkpoint_every == 0


def train_one(job: Job, state: TrainState, data: Any, ahead: Rollouts | None, step: int):
    """One step: rollouts, verdicts, targets, update; its numbers are still on the device.

    Returns ``(state, pending, ahead)``: the rollouts of the next step where they are sampled already.
    """
    began = time.perf_counter()
    parts, config = job.parts, job.config
    examples = next(data)
    if parts.step.source == "policy":
        rollouts = collect.sample(job, state.params, examples, step) if ahead is None else ahead
        longest = collect.longest(rollouts)  # before the next ones are sampled: the device keeps the order
        ahead = collect.sample_ahead(job, state.params, data, step + 1)
        rollouts, graded = collect.graded(job, examples, rollouts, longest)
    else:
        rollouts, graded = collect.supervised(job, examples, step)
    sampled = time.perf_counter()
    rng_B = collect.generators(config.seed, "choose", step, len(examples))
    chosen = parts.step.choose(parts.task, graded, rng_B)
    contexts = chosen.contexts
    if contexts is not None:
        contexts = contexts._replace(tokens_NxKxD=collect.same_columns(job, contexts.tokens_NxKxD))
    targets, contexts = mesh_lib.put_rows(parts.mesh, (chosen.targets, contexts))
    batch = LossBatch(rollouts, targets, contexts)
    state, metrics = parts.train_step(state, batch)
    validation.record_batch(job, step, graded, chosen)
    host_metrics = chosen.metrics
    if parts.step.source == "policy" and step % config.train.log_every == 0:
        # The device is at work on the update meanwhile.
        host_metrics = batch_metrics(graded, len(parts.task.strategies)) | host_metrics
    host_sums = mesh_lib.add_processes(parts.mesh, np.array([*host_metrics.values()], np.float64).reshape(-1))
    timings = {
        "seconds": time.perf_counter() - began,
        "sample_seconds": sampled - began,
        "update_seconds": time.perf_counter() - sampled,
    }
    return state, Pending(step, metrics, host_metrics, host_sums, timings, batch), ahead


def log_pending(job: Job, pending: Pending | None) -> None:
    """Reads a step's numbers from the device and writes them.

    Raises:
      NonFiniteError: the run only skips.
    """
    if pending is None:
        return
    metrics = {name: float(x) for name, x in jax.device_get(pending.device_metrics).items()}
    skipped = int(metrics.pop("skipped_in_a_row"))
    updates = job.config.train.updates_per_batch
    rate = float(job.parts.schedule((pending.step - 1) * updates))
    if pending.step % job.config.train.log_every == 0:
        sums = zip(pending.host_metrics, np.asarray(pending.host_sums, np.float64).reshape(-1, 2))
        found = {name: float(total / weight) for name, (total, weight) in sums if weight}
        job.writers.log_metrics(pending.step, metrics | found | {"learning_rate": rate})
        job.writers.log_timings(pending.step, pending.timings)
    if 0 < skipped <= updates:  # the first of a row
        message = f"step {pending.step}: loss or gradient is not finite; skipped"
        announce(job, pending.step, "nonfinite", message)
    if skipped >= job.config.train.max_skipped_in_a_row:
        path = runfolder.write_batch(job.workdir, pending.step, pending.batch)
        raise NonFiniteError(
            f"{skipped} updates in a row were not finite, last at step {pending.step} "
            f"(loss {metrics['loss']}); its batch is in {path}; "
            "the parameters are those of the last good update"
        )


def save(job: Job, manager, state: TrainState, data: Any, ahead: Rollouts | None) -> None:
    """Starts a checkpoint, after the logs up to its step are on the disk."""
    job.check_lock()
    job.writers.flush(fsync=True)
    checkpoint.save(manager, state, {"data": data.get_state(), "rows": collect.row_layout(job)}, ahead)


def progress_text(pending: Pending) -> str:
    """A short note beside the progress bar; only what is on the host already."""
    found = {name: mean.total / mean.weight for name, mean in pending.host_metrics.items() if mean.weight}
    distinct = [name for name in found if name.startswith("distinct_correct@")]
    return "  ".join(f"{name} {found[name]:.3f}" for name in ["pass@1", *distinct[-1:]] if name in found)
