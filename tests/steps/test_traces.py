"""One compilation a shape: neither a step's own result nor new numbers make the step compile again."""

import jax
import numpy as np
import optax
import pytest

from sdd import mesh as mesh_lib
from sdd import sampling
from sdd.config import SamplingConfig
from sdd.steps import grpo, sdsd
from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.tasks.base import TRAIN
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("module", [grpo, sdsd])
def test_steps_and_samplers_compile_once(module, sizes):
    step, task = module.make(module.Config()), tiny_task()
    mesh = tiny_mesh(*sizes)
    with jax.set_mesh(mesh):
        model = tiny_model(task.tokenizer.vocab_size)
        optimizer = optax.adamw(1e-3)
        state = init_state(step, optimizer, model.init(jax.random.key(0)))
        train_step = make_train_step(step, model, optimizer)
        sampler = sampling.make(
            model, SamplingConfig(), group_size=4, max_tokens=8, stop_ids=tuple(task.tokenizer.stop_ids)
        )
        for seed in range(3):
            rng = np.random.default_rng(seed)
            examples = task.source(TRAIN)[8 * seed : 8 * seed + 8]
            graded = graded_batch(task, [task.supervised(e, rng, 4)[0][1] for e in examples], examples)
            chosen = step.choose(task, graded, generators(seed, len(examples)))
            batch = mesh_lib.put_rows(mesh, LossBatch(graded.rollouts, chosen.targets, chosen.contexts))
            state, _ = train_step(state, batch)
            rows = mesh_lib.put_rows(mesh, np.arange(32, dtype=np.int32))
            context = (batch.rollouts.context_BxP, batch.rollouts.context_length_B)
            sampler(state.params, *context, rows, jax.random.key(seed))
    assert train_step._cache_size() == 1
    assert sampler._cache_size() == 1
