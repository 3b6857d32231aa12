"""Rollouts of an older policy: each token's loss is weighed by how much likelier it is now, up to a bound."""

import jax
import numpy as np
import pytest

from sdd.losses.divergence import token_logp
from sdd.sampling.score import response_hidden
from sdd.steps import sdsd
from sdd.steps.base import LossBatch
from sdd.tasks.base import TRAIN
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task


@pytest.mark.parametrize("estimator", ["exact", "sampled"])
@pytest.mark.parametrize(("ratio", "weight"), [(1.0, 1.0), (0.4, 0.4), (1.5, 1.5), (5.0, 2.0)])
def test_losses_and_gradients_are_weighed(estimator, ratio, weight):
    """With one ratio everywhere, loss and gradient are those of the plain loss times its bounded value."""
    task, rng = tiny_task(), np.random.default_rng(0)
    examples = task.source(TRAIN)[:4]
    graded = graded_batch(task, [task.supervised(e, rng, 4)[0][1] for e in examples], examples, logp=-1.5)
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model()
        params = model.init(jax.random.key(0))
        r = graded.rollouts
        hidden = response_hidden(model, params, r.context_BxP, r.context_length_B, r.response_NxT)
        now_NxT = np.asarray(token_logp(model.unembed(params, hidden), r.response_NxT))
        found = []
        for clip, old_NxT in ((0.0, now_NxT - 7), (2.0, now_NxT - np.log(ratio))):
            step = sdsd.make(sdsd.Config(estimator=estimator, teacher="frozen", importance_clip=clip))
            chosen = step.choose(task, graded, generators(1, len(graded.examples)))
            batch = LossBatch(r._replace(model_logp_NxT=old_NxT), chosen.targets, chosen.contexts)
            teacher = step.begin(jax.tree.map(lambda x: 1.1 * x, params))
            value = lambda p, step=step, batch=batch: step.loss(model, p, teacher, batch)[0].value  # noqa: E731, B023
            found.append(jax.jit(jax.value_and_grad(value))(params))
    assert abs(float(found[0][0])) > 1e-4
    for plain, weighed in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(weighed, weight * plain, rtol=2e-4, atol=2e-6)
