"""Whatever a step reads, as shapes: no data set, no tokenizer and no chip has to be there."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sdd import lookup
from sdd import mesh as mesh_lib
from sdd.build import make_task
from sdd.config import ConfigError, RunConfig
from sdd.steps.base import Graded, LossBatch, StepDef
from sdd.tasks.base import Example, Grade, Task
from sdd.text.tokenizer import SymbolTokenizer
from sdd.types import Contexts, Grades, Rollouts

_NEEDED = ("vocab_size", "prompt_length", "response_length")
# A prompt and a prompt with a demonstration: what `Task.supervised` of every task here writes for an example.
_SUPERVISED_CONTEXTS = 2


class Sizes(NamedTuple):
    """Attributes:
    vocab_size: V.
    context: most tokens of a prompt.
    demonstration_context: most tokens of a prompt with a demonstration.
    response: most tokens of a response.
    stop_ids: tokens that end one.
    note: what was assumed; "" where the task itself said all.
    """

    vocab_size: int
    context: int
    demonstration_context: int
    response: int
    stop_ids: tuple[int, ...]
    note: str


def sizes_of(config: RunConfig) -> Sizes:
    """Vocabulary and lengths: the task's, or those of its options where it cannot be built.

    Raises:
      ConfigError: it cannot be built, and its options do not say.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            task = make_task(config, Path(folder))
        except ConfigError as error:
            return _sizes_of_options(config, error)
    return Sizes(
        task.tokenizer.vocab_size,
        task.context_length,
        task.demonstration_context_length,
        task.response_length,
        tuple(task.tokenizer.stop_ids),
        "",
    )


def _sizes_of_options(config: RunConfig, why: ConfigError) -> Sizes:
    options = config.task.options
    for name in _NEEDED:
        if not getattr(options, name, 0):
            raise ConfigError(
                f"config.task.{name}={getattr(options, name, None)!r}: sdd plan needs it, "
                f"since the task cannot be built ({why})"
            )
    shown = getattr(options, "demonstration_length", 0) or options.response_length
    note = "lengths and vocabulary are of the task's options; the chat template's own tokens are not counted"
    together = options.prompt_length + shown
    return Sizes(options.vocab_size, options.prompt_length, together, options.response_length, (0,), note)


def stub_task(sizes: Sizes) -> Task:
    """A task whose prompts all have the longest length."""
    ids = lambda length: np.zeros(length, np.int32)  # noqa: E731

    def with_demonstration(example: Example, demonstration: np.ndarray) -> np.ndarray:
        del example
        return ids(sizes.demonstration_context if len(demonstration) else sizes.context)

    def refuse(*args: Any) -> Any:
        raise NotImplementedError("a plan has no examples")

    return Task(
        name="plan",
        tokenizer=SymbolTokenizer(["<pad>", "<eos>"], pad="<pad>", stop=("<eos>",)),
        strategies=("a", "b"),
        splits=("test",),
        context_length=sizes.context,
        demonstration_context_length=sizes.demonstration_context,
        response_length=sizes.response,
        source=refuse,
        prompt=lambda example: ids(sizes.context),
        demonstration_prompt=with_demonstration,
        grade=lambda example, response: Grade(True, 1.0, 0, -1),
        supervised=refuse,
    )


def abstract_batch(config: RunConfig, step: StepDef, sizes: Sizes) -> LossBatch:
    """The largest batch of an update, as shapes with their shardings on the mesh in use.

    What the method decides on the host comes from its own ``choose``, of made-up rollouts of which every
    other is right.
    """
    group_size = step.rows_per_prompt(config.train.group_size)
    sampled = step.source == "policy"
    num_examples = config.train.prompts_per_step
    num_contexts = num_examples * (1 if sampled else _SUPERVISED_CONTEXTS)
    num_rows, response = num_contexts * group_size, sizes.response
    context = sizes.context if sampled else sizes.demonstration_context
    floats = np.zeros((num_rows, response), np.float32)
    rollouts = Rollouts(
        context_BxP=np.zeros((num_contexts, context), np.int32),
        context_length_B=np.full(num_contexts, context, np.int32),
        response_NxT=np.zeros((num_rows, response), np.int32),
        mask_NxT=np.ones((num_rows, response), bool),
        sampling_logp_NxT=floats,
        model_logp_NxT=floats,
        entropy_NxT=floats,
        embedding_NxE=np.zeros((num_rows, config.model.width), np.float32) if sampled else None,
    )
    right_N = np.arange(num_rows) % 2 == 0
    grades = Grades(
        right_N,
        right_N.astype(np.float32),
        (np.arange(num_rows) // 2 % 2).astype(np.int32),
        np.full(num_rows, -1, np.int32),
    )
    examples = [{"prompt_id": str(i)} for i in range(num_examples)]
    graded = Graded(examples, rollouts, grades, group_size, response)
    rng_B = [np.random.default_rng(i) for i in range(num_examples)]
    chosen = step.choose(stub_task(sizes), graded, rng_B)
    return abstract_rows(LossBatch(rollouts, chosen.targets, chosen.contexts))


def abstract_contexts(num_prompts: int, columns: int, group_size: int) -> tuple[Any, Any, Any]:
    """What a sampler reads beside parameters and key: contexts, their lengths, numbers of rows."""
    return abstract_rows(
        (
            np.zeros((num_prompts, columns), np.int32),
            np.zeros(num_prompts, np.int32),
            np.zeros(num_prompts * group_size, np.int32),
        )
    )


def abstract_rows(tree: Any) -> Any:
    """Shapes of arrays that are split by rows over the mesh in use."""
    mesh = jax.sharding.get_mesh()

    def of(x: np.ndarray) -> jax.ShapeDtypeStruct:
        sharding = jax.sharding.NamedSharding(mesh, mesh_lib.rows(x.ndim))
        return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype), sharding=sharding)

    return jax.tree.map(of, tree)


def with_layers(config: RunConfig, num_layers: int) -> RunConfig:
    """The config with another number of layers."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=num_layers))


def step_of(config: RunConfig) -> StepDef:
    """The method of a config."""
    return lookup.resolve(config.step.name).make(config.step.options)


__all__ = [
    "Contexts",
    "Sizes",
    "abstract_batch",
    "abstract_contexts",
    "abstract_rows",
    "sizes_of",
    "step_of",
    "stub_task",
    "with_layers",
]
