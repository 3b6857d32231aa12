"""Columns that no response reaches: an update is the same with them and without."""

import jax
import numpy as np
import pytest

from sdd import collect
from sdd.steps import grpo, grpo_diversity, sdsd, sft
from sdd.steps.base import LossBatch
from sdd.tasks.base import TRAIN
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task

METHODS = {
    "sft": sft.make(sft.Config()),
    "grpo": grpo.make(grpo.Config(loss_mean="constant", kl_coefficient=0.1)),
    "grpo_constant": grpo.make(grpo.Config(loss_mean="constant", constant_length=7)),
    "grpo_diversity": grpo_diversity.make(grpo_diversity.Config(loss_mean="token")),
    "sdsd": sdsd.make(sdsd.Config(num_demos=2)),
    "sdsd_sampled": sdsd.make(sdsd.Config(estimator="sampled", return_to_go=True)),
}


@pytest.mark.parametrize("name", METHODS)
def test_padding_that_is_cut_off_changes_nothing(name):
    step, task, rng = METHODS[name], tiny_task(), np.random.default_rng(0)
    examples = task.source(TRAIN)[:4]
    graded = graded_batch(task, [task.supervised(e, rng, 4)[0][1] for e in examples], examples, logp=-1.5)
    longest = graded.rollouts.mask_NxT.sum(axis=1).max()
    wide = graded.rollouts._replace(
        **{
            name: np.pad(getattr(graded.rollouts, name), ((0, 0), (0, 9)))
            for name in graded.rollouts._fields
            if name.endswith("_NxT")
        }
    )
    assert wide.mask_NxT.shape[1] > longest
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model()
        params = model.init(jax.random.key(0))
        results = []
        for rollouts in (wide, collect.first_columns(wide, int(longest))):
            seen = graded._replace(rollouts=rollouts, max_tokens=wide.mask_NxT.shape[1])
            chosen = step.choose(task, seen, generators(1, len(seen.examples)))
            batch = LossBatch(rollouts, chosen.targets, chosen.contexts)

            def value(p, batch=batch):
                loss, metrics = step.loss(model, p, step.begin(params), batch)
                return loss.value, metrics

            results.append(jax.jit(jax.value_and_grad(value, has_aux=True))(params))
    assert results[1][0][0] != 0
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
