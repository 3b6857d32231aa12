"""Small things to test with, here and for those who extend: a mesh, a model, a task, a graded batch."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sdd.config import MeshConfig, ModelConfig
from sdd.evaluate import grade
from sdd.mesh import make_mesh
from sdd.model import Model
from sdd.model import make as make_model
from sdd.steps.base import Graded
from sdd.tasks import concept_graph
from sdd.tasks.base import Example, Task
from sdd.tasks.concept_graph_generate import generate
from sdd.teacher.context import pad_contexts
from sdd.types import Rollouts


def tiny_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of the first devices."""
    return make_mesh(MeshConfig(data, fsdp, tensor), jax.devices()[: data * fsdp * tensor])


def tiny_model(vocab_size: int = 78, **changes) -> Model:
    """Two layers of width 32, with grouped queries, q/k norms, half RoPE and token shift."""
    config = ModelConfig(
        num_layers=2,
        width=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=48,
        rope_fraction=0.5,
        qk_norm="head",
        token_shift=True,
    )
    return make_model(dataclasses.replace(config, **changes), vocab_size)


def tiny_task(**changes) -> Task:
    """The concept-graph task with its examples in memory."""
    config = concept_graph.Config(**{"num_train": 64, "num_eval": 16} | changes)
    task = concept_graph.make(config, data_dir="", seed=0)
    examples = {s: list(map(concept_graph.decode, generate(config, 0, s))) for s in ("train", *task.splits)}
    return task._replace(source=lambda split: examples[split])


def generators(seed: int, num_prompts: int) -> list[np.random.Generator]:
    """What a method chooses by: a generator a prompt."""
    return [np.random.default_rng([seed, prompt]) for prompt in range(num_prompts)]


def graded_batch(
    task: Task, responses: Sequence[Sequence[np.ndarray]], examples: Sequence[Example], logp: float = -1.0
) -> Graded:
    """A batch with given responses: one list of G token rows for each example."""
    context_BxP, length_B = pad_contexts(task, [task.prompt(e) for e in examples], task.context_length)
    rows = [row for group in responses for row in group]
    response_NxT = np.zeros((len(rows), task.response_length), np.int32)
    mask_NxT = np.zeros(response_NxT.shape, bool)
    for n, row in enumerate(rows):
        response_NxT[n, : len(row)], mask_NxT[n, : len(row)] = row, True
    filled_NxT = np.where(mask_NxT, np.float32(logp), np.float32(0))
    rollouts = Rollouts(context_BxP, length_B, response_NxT, mask_NxT, filled_NxT, filled_NxT, -filled_NxT)
    grades = grade(task, examples, rollouts)
    return Graded(examples, rollouts, grades, len(responses[0]), rollouts.mask_NxT.shape[1])
