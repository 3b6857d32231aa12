"""A config -> the parts of a run: mesh, task, model, method, optimizer and the jitted functions."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from sdd import embedders, information, lookup, sampling
from sdd import mesh as mesh_lib
from sdd.config import (
    ConfigError,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    check_lengths,
    check_splits,
)
from sdd.embedders import Embedder
from sdd.model import Model
from sdd.model import make as make_model
from sdd.sampling import Sampler
from sdd.steps.base import LossBatch, StepDef, make_train_step
from sdd.tasks.base import TRAIN, Task
from sdd.types import Params, TrainState

_BLOCK = 32  # tokens of a response whose logits are held at once while likelihoods are measured


class Parts(NamedTuple):
    """Attributes:
    mesh: the device mesh.
    sampling_mesh: the one that rollouts are drawn on, often the same.
    task: examples, prompts and the verifier.
    step: the method.
    model: the decoder.
    optimizer: the optax transformation, with its schedule.
    schedule: ``count of updates -> learning rate``.
    train_step: ``(state, batch) -> (state, metrics)``.
    sampler: draws the rollouts that are trained on.
    eval_sampler: ``num_samples -> Sampler`` for evaluation.
    for_sampling: moves parameters to where they are sampled from.
    embedders: of texts, for evaluation.
    information: what responses say about each other, for evaluation; None where nobody asks.
    """

    mesh: Mesh
    sampling_mesh: Mesh
    task: Task
    step: StepDef
    model: Model
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    train_step: Callable[[TrainState, LossBatch], tuple[TrainState, dict[str, Any]]]
    sampler: Sampler
    eval_sampler: Callable[[int], Sampler]
    for_sampling: Callable[[Params], Params]
    embedders: tuple[Embedder, ...]
    information: information.Measure | None


def make_task(config: RunConfig, data_dir: Path) -> Task:
    """The task of a config; its data is prepared in ``data_dir`` when it is not there yet."""
    module = lookup.resolve(config.task.name)
    return module.make(config.task.options, str(data_dir), config.seed)


def make_parts(config: RunConfig, data_dir: Path) -> Parts:
    """Builds everything; nothing is compiled yet.

    Raises:
      ConfigError: what the config asks for does not fit the task or the mesh.
    """
    mesh = mesh_lib.make_mesh(config.mesh)
    sampling_mesh = mesh_lib.sampling_mesh(config.mesh, mesh)
    for each in (mesh, sampling_mesh):
        check_mesh(config, each)
    task = make_task(config, data_dir)
    teacher_length = task.demonstration_context_length
    check_lengths(config, task.context_length, task.response_length, teacher_length)
    check_splits(config, task.splits)
    check_prompts(config, task)
    task.source(TRAIN)  # its data too are prepared now, and not by every process at once
    for path in config.eval.metrics:
        check_metric(path)
    step = lookup.resolve(config.step.name).make(config.step.options)
    model = make_model(config.model, task.tokenizer.vocab_size)
    optimizer, schedule = make_optimizer(
        config.optimizer, config.train.num_steps * config.train.updates_per_batch
    )

    def sampler(filters: SamplingConfig, group_size: int) -> Sampler:
        return sampling.make(
            model,
            filters,
            group_size=group_size,
            max_tokens=task.response_length,
            stop_ids=tuple(task.tokenizer.stop_ids),
        )

    filters = SamplingConfig(config.eval.temperature, config.eval.top_k, config.eval.top_p, config.eval.min_p)
    return Parts(
        mesh=mesh,
        sampling_mesh=sampling_mesh,
        task=task,
        step=step,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        train_step=make_train_step(
            step, model, optimizer, config.train.updates_per_batch, config.train.micro_batches
        ),
        sampler=sampler(config.sampling, config.train.group_size),
        eval_sampler=functools.cache(lambda num_samples: sampler(filters, num_samples)),
        for_sampling=functools.partial(move, model, mesh, sampling_mesh),
        embedders=load_embedders(config.eval.embedders),
        information=make_information(config, model, task, mesh),
    )


def move(model: Model, mesh: Mesh, sampling_mesh: Mesh, params: Params) -> Params:
    """Parameters on the mesh of training -> on that of sampling, from device to device."""
    if sampling_mesh == mesh:
        return params
    with jax.set_mesh(sampling_mesh):
        like = mesh_lib.abstract(lambda: model.init(jax.random.key(0)))
    return jax.device_put(params, jax.tree.map(lambda x: x.sharding, like))


def load_embedders(names: Sequence[str]) -> tuple[Embedder, ...]:
    """The embedders of a config.

    Raises:
      ConfigError: one is unknown or cannot be had.
    """
    try:
        return tuple(embedders.load(name) for name in names)
    except embedders.EmbedderError as error:
        raise ConfigError(f"config.eval.embedders={tuple(names)!r}: {error}") from None


def make_information(config: RunConfig, model: Model, task: Task, mesh: Mesh) -> information.Measure | None:
    """The likelihood matrix of ``config.eval.likelihood_samples`` rollouts a prompt, in bounded memory."""
    samples = config.eval.likelihood_samples
    if not samples:
        return None
    multiple = mesh_lib.row_multiple(mesh)
    contexts = max(config.eval.rows_per_call // samples // multiple, 1) * multiple
    return information.make(model, task, mesh, contexts_per_call=contexts, block_size=_BLOCK)


def check_metric(path: str) -> None:
    """Refuses a metric that is not there, before anything is trained.

    Raises:
      ConfigError: the dotted path leads nowhere, or not to a function.
    """
    try:
        metric = lookup.resolve(path)
    except lookup.PathError as error:
        raise ConfigError(f"config.eval.metrics={path!r}: {error}") from None
    if not callable(metric):
        raise ConfigError(f"config.eval.metrics={path!r}: not a function; valid: Samples -> {{name: values}}")


def check_mesh(config: RunConfig, mesh: Mesh) -> None:
    """Refuses sizes that the mesh does not divide.

    Raises:
      ConfigError: key, value and what divides.
    """
    multiple = mesh_lib.row_multiple(mesh)
    if not mesh_lib.rows_stay_apart(mesh.devices):
        raise ConfigError(
            f"config.mesh.tensor={mesh.shape['tensor']}: a row would lie on several processes, and each must "
            f"hold whole rows; valid: a divisor of the {jax.local_device_count()} devices of a process"
        )
    if config.train.prompts_per_step % multiple:
        raise ConfigError(
            f"config.train.prompts_per_step={config.train.prompts_per_step}: must be a multiple of "
            f"mesh data x fsdp = {multiple}"
        )
    if config.train.prompts_per_step % (multiple * config.train.micro_batches):
        raise ConfigError(
            f"config.train.micro_batches={config.train.micro_batches}: prompts_per_step="
            f"{config.train.prompts_per_step} must be a multiple of it times mesh data x fsdp = {multiple}"
        )
    for name in ("num_heads", "num_kv_heads", "mlp_dim"):
        if getattr(config.model, name) % mesh.shape["tensor"]:
            raise ConfigError(
                f"config.mesh.tensor={mesh.shape['tensor']}: must divide "
                f"config.model.{name}={getattr(config.model, name)}"
            )


def check_prompts(config: RunConfig, task: Task) -> None:
    """Refuses evaluations on more prompts than a split has; prepares the task's data where they are not yet.

    Raises:
      ConfigError: key, value, split and its size.
    """
    keys = ("num_prompts", "final_num_prompts") if config.eval.every else ("final_num_prompts",)
    for split in config.eval.splits:
        size = len(task.source(split))
        for key in keys:
            if getattr(config.eval, key) > size:
                raise ConfigError(
                    f"config.eval.{key}={getattr(config.eval, key)}: the split {split!r} of "
                    f"{task.name} has {size} prompts; valid: 1 to {size}"
                )


def make_optimizer(
    config: OptimizerConfig, num_updates: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with clipping and the configured schedule."""
    peak, warmup = config.learning_rate, config.warmup_steps
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, max(num_updates - warmup, 1)),
        "cosine": lambda: optax.cosine_decay_schedule(peak, max(num_updates - warmup, 1)),
    }[config.schedule]()
    # The first update already moves: warm-up counts from 1.
    rise = lambda count: peak * (count + 1) / max(warmup, 1)  # noqa: E731
    schedule = optax.join_schedules([rise, after], [warmup])
    adamw = optax.adamw(
        schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm > 0 else optax.identity()
    return optax.chain(clip, adamw), schedule


def parts_summary(parts: Parts, state: TrainState) -> str:
    """One line: what is about to run."""
    size = sum(x.size for x in jax.tree.leaves(state.params))
    shape = " x ".join(f"{axis} {n}" for axis, n in parts.mesh.shape.items() if n > 1) or "1 device"
    return f"{size / 1e6:.3g} M parameters, {jax.default_backend()} ({shape}), task {parts.task.name}"
